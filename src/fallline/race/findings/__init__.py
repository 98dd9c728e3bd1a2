"""What the runs say: which differences are clear, in one document with its sentences."""

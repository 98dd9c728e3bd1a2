"""An optimizer's state as plain data, and as one file."""

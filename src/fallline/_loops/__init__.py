"""Loops around an optimizer: `minimize` as SciPy has it, `descend` over mini-batches."""

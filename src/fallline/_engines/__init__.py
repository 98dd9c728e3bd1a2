"""Ways to run a traced program: reference (NumPy), native (llvm writes code, cpu runs it), arrays of any library."""

"""Programs as LLVM text, and that text as machine code: what writes code, and runs nothing."""

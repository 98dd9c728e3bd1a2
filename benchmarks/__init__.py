"""Speed, measured side by side in one process: python -m benchmarks (see docs/benchmarks.md)."""

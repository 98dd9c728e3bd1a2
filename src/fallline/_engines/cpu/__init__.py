"""Machine code at work on arrays in host memory: jobs, threads, and the look at a call's arrays."""

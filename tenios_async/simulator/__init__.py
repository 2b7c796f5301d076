"""A TENIOS for tests, demos and benchmarks."""

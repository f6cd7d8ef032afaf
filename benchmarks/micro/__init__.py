"""One benchmark a kernel, by pytest-benchmark: ``python -m pytest benchmarks/micro``."""

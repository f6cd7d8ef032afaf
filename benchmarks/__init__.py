"""Measuring: ``python -m benchmarks NAME``; every speed is a ratio against a peer measured in the same run."""

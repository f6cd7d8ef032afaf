"""``python -m benchmarks origin``: a site filled from S3 and Redis, against bare clients and proxies of the same stores."""

from benchmarks.origin.rows import CASES, run

__all__ = ["CASES", "run"]

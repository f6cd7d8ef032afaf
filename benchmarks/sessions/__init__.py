"""``python -m benchmarks sessions``: what sessions, leases and revocation cost the edge, and how much the auth role bears."""

from benchmarks.sessions.rows import CASES, run

__all__ = ["CASES", "run"]

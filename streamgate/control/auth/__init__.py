"""The auth role: sign-in, grants, sessions, and the leases that edges serve by."""

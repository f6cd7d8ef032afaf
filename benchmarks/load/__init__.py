"""A native load client, the same for all servers: bounded, and honest about its connections and about itself."""

from benchmarks.load.client import BUSY, Load, LoadError, Report, Target, build

__all__ = ["BUSY", "Load", "LoadError", "Report", "Target", "build"]

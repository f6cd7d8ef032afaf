"""Interface of native/builder.pyx, which other kernels use; from Python see samples.Track.from_samples."""

from typing import Any

from streamgate.native.samples import Track

class Builder:
    def __init__(self, limit: int) -> None: ...

def track_from_samples(**columns: Any) -> Track: ...

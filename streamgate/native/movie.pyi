"""Interface of native/movie.pyx, on which the parser in native/isobmff.pyx is built."""

from typing_extensions import disjoint_base

@disjoint_base
class OpenTrack: ...

@disjoint_base
class MovieReader: ...

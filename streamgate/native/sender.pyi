"""Sending answers on a connection at the pace of its client; a base class for the hot path's protocol, used from C."""

from typing_extensions import disjoint_base

@disjoint_base
class Sender: ...

"""Who a request is from, where proxies stand in front: only those that the settings name are believed."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence

from streamgate.errors import StreamGateError

# A parameter of a Forwarded element (RFC 7239 section 4): a token, or a quoted string.
_PARAMETER = re.compile(r"""\s*([A-Za-z0-9!#$%&'*+.^_`|~-]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s",;]*))\s*([;,]|$)""")
_NODE = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<v4>[0-9.]+))(?::[0-9A-Za-z._-]+)?")
# Longer chains are nobody's; the rest is not looked at.
_LONGEST = 32


class Proxies:
    """The networks whose word is taken; raises ``config_invalid`` for one that is none."""

    def __init__(self, networks: Iterable[str]) -> None:
        try:
            self._networks = [ipaddress.ip_network(network) for network in networks]
        except ValueError as error:
            raise StreamGateError("config_invalid", f"server.trusted_proxies: {error}") from error

    def __bool__(self) -> bool:
        return bool(self._networks)

    def trusts(self, address: bytes) -> bool:
        """Whether a packed address belongs to a proxy of ours; b"", a Unix socket's, does where any are trusted."""
        if not address:
            return bool(self._networks)
        known = unmapped(address)
        return any(known in network for network in self._networks)

    def client(self, peer: bytes, forwarded: Sequence[str], x_forwarded_for: Sequence[str]) -> bytes:
        """The packed address of the client whose request came from ``peer``.

        Each proxy adds the address that it was asked from at the end, so the list is read from there as long as the
        speaker is trusted. ``Forwarded`` (RFC 7239) counts before ``X-Forwarded-For``. What cannot be understood ends it:
        then the last proxy that was believed is the client.
        """
        if not self.trusts(peer):
            return peer
        chain = _forwarded(forwarded) if forwarded else ",".join(x_forwarded_for).split(",") if x_forwarded_for else []
        client = peer
        for node in reversed(chain[-_LONGEST:]):
            address = _packed(node)
            if not address:
                break
            client = address
            if not self.trusts(client):
                break
        return client

    def told(self, peer: bytes, x_forwarded_for: str) -> tuple[bytes, bool]:
        """The client as :meth:`client` finds it, and whether it is trusted."""
        found = self.client(peer, (), (x_forwarded_for,))
        return found, self.trusts(found)


def unmapped(address: bytes) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """A packed address; an IPv4 one inside of IPv6 (RFC 4291 section 2.5.5.2) as what it is."""
    known = ipaddress.ip_address(address)
    return known.ipv4_mapped or known if isinstance(known, ipaddress.IPv6Address) else known


def packed(text: str) -> bytes:
    """The bytes of an address as a socket names it, b"" where it is none (a Unix socket's)."""
    try:
        return unmapped(ipaddress.ip_address(text.partition("%")[0]).packed).packed
    except ValueError:
        return b""


def _packed(node: str) -> bytes:
    """A node of a list (RFC 7239 section 6): an address, perhaps with a port; b"" for ``unknown`` and what hides itself."""
    node = node.strip()
    found = _NODE.fullmatch(node)
    return packed(found["v6"] or found["v4"]) if found else packed(node)


def _forwarded(fields: Sequence[str]) -> list[str]:
    """The ``for`` of each element; "" where an element has none, and everything before what breaks the grammar is lost."""
    nodes: list[str] = []
    for field in fields:
        at, node = 0, ""
        while at < len(field):
            found = _PARAMETER.match(field, at)
            if found is None:
                nodes.append("")
                break
            if found[1].lower() == "for":
                node = found[3] if found[2] is None else re.sub(r"\\(.)", r"\1", found[2])
            if found[4] != ";":
                nodes.append(node)
                node = ""
            at = found.end()
    return nodes

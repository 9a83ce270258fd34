"""Who asks: the address that counts for him, behind trusted proxies too, and the credential he shows.

An address of one's own says nothing of who one is: this decides about shares alone, never about rights.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
FORWARDED, X_FORWARDED_FOR = "forwarded", "x-forwarded-for"
# Providers give each of their customers so much of IPv6 (RFC 6177): all of it is one source.
_IPV6_SITE = 64
# An element of RFC 7239 4, commas and semicolons inside a quoted string left where they are. A string that is
# never closed ends with the header: to look for its end again and again would take the process a second.
_ELEMENT = re.compile(r'(?:[^,"]|"(?:\\.|[^"\\])*(?:"|\\?$))+')
# A longer header names nobody.
_LONGEST = 2048
_FOR = re.compile(r'(?:^|;)\s*for\s*=\s*(?:"((?:\\.|[^"\\])*)"|([^;\s]*))', re.IGNORECASE)
_NODE = re.compile(
    r"\[(?P<six>[0-9A-Fa-f:.]+)\](?::\S*)?|(?P<four>[0-9]+(?:\.[0-9]+){3})(?::\S*)?|(?P<bare>[0-9A-Fa-f:.]+)"
)


@dataclass(frozen=True, slots=True)
class Asker:
    """One who asks: his address, what of the network counts as he, the digest of what he shows."""

    address: str
    source: str
    credential: bytes | None

    @classmethod
    def of(cls, address: str, authorization: str | None) -> "Asker":
        """From an address and an Authorization header; nothing of it is checked here."""
        shown = None if authorization is None else sha256(authorization.encode()).digest()
        return cls(address, source_of(address), shown)


@lru_cache(maxsize=10_000)
def source_of(address: str) -> str:
    """What counts as one source: an IPv4 address, 64 bits of IPv6; what is no address, by its text."""
    try:
        plain_address = _plain(ip_address(address))
    except ValueError:
        return address
    if isinstance(plain_address, IPv4Address):
        return str(plain_address)
    return str(ip_network((plain_address, _IPV6_SITE), strict=False))


class Proxies:
    """The proxies that may say for whom they ask, and the one header in which they do (RFC 7239 8.1).

    One header alone is read: a proxy that writes the one hands on whatever a client wrote into the other.
    """

    def __init__(self, trusted: Sequence[Network], header: str = FORWARDED) -> None:
        self.header = header
        self._trusted = tuple(trusted)

    def address_behind(self, peer: str, said: str | None) -> str:
        """The rightmost address that is not a trusted proxy's; the peer's own when it is none itself.

        A proxy that names nobody, or nonsense, stands for itself.
        """
        if said is None or len(said) > _LONGEST or not self._trusted or not self.trusts(peer):
            return peer
        asker = peer
        for node in _from_the_right(self.header, said):
            if not self.trusts(asker):
                break
            address = _address(node)
            if address is None:
                break
            asker = str(address)
        return asker

    def trusts(self, address: str) -> bool:
        """Whether this is the address of a proxy that may speak for others."""
        plain_address = _plain(ip_address(address))
        return any(
            plain_address.version == network.version and plain_address in network for network in self._trusted
        )


def _from_the_right(header: str, said: str) -> Iterator[str]:
    elements = [part.strip() for part in _ELEMENT.findall(said)]
    for element in reversed(elements):
        if header == X_FORWARDED_FOR:
            yield element
        else:
            match = _FOR.search(element)
            yield "" if match is None else (match[1] or match[2] or "")


def _address(node: str) -> Address | None:
    """The address of a node (RFC 7239 6), without its port; None for `unknown`, a hidden name, nonsense."""
    match = _NODE.fullmatch(node)
    if match is None:
        return None
    try:
        return _plain(ip_address(match["six"] or match["four"] or match["bare"]))
    except ValueError:
        return None


def _plain(address: Address) -> Address:
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address

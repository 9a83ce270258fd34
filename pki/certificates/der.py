"""DER by hand, for the bytes this service assembles itself: CRLs of stored entries, OCSP answers.

Writes the few types those need and splits what it wrote. Strangers' bytes are parsed by `cryptography`, never
here.
"""

from collections.abc import Iterator
from datetime import UTC, datetime

from directory.base.tlv import LONG_LENGTH, tlv

NULL = b"\x05\x00"
# RFC 5280 4.1.2.5: UTCTime through 2049, GeneralizedTime from 2050 on.
_UTC_TIME_ENDS = 2050


def sequence(*elements: bytes) -> bytes:
    """SEQUENCE of the elements given."""
    return tlv(0x30, *elements)


def explicit(number: int, element: bytes) -> bytes:
    """`[number] EXPLICIT element`."""
    return tlv(0xA0 | number, element)


def integer(value: int) -> bytes:
    """INTEGER, two's complement, shortest form."""
    return tlv(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def enumerated(value: int) -> bytes:
    """ENUMERATED of one octet."""
    return tlv(0x0A, bytes((value,)))


def octet_string(content: bytes) -> bytes:
    """OCTET STRING."""
    return tlv(0x04, content)


def bit_string(content: bytes) -> bytes:
    """BIT STRING of whole octets."""
    return tlv(0x03, b"\x00" + content)


def oid(dotted: str) -> bytes:
    """OBJECT IDENTIFIER from its dotted form."""
    first, second, *rest = (int(arc) for arc in dotted.split("."))
    return tlv(0x06, b"".join(_base128(arc) for arc in (first * 40 + second, *rest)))


def generalized_time(instant: datetime) -> bytes:
    """GeneralizedTime in whole seconds, UTC."""
    return tlv(0x18, instant.astimezone(UTC).strftime("%Y%m%d%H%M%SZ").encode())


def time(instant: datetime) -> bytes:
    """Time of RFC 5280: UTCTime or GeneralizedTime by the year."""
    if instant.astimezone(UTC).year < _UTC_TIME_ENDS:
        return tlv(0x17, instant.astimezone(UTC).strftime("%y%m%d%H%M%SZ").encode())
    return generalized_time(instant)


def extension(dotted: str, value: bytes, *, critical: bool = False) -> bytes:
    """Extension, of a list or an entry alike; `critical` is written only when true (it has a DEFAULT)."""
    mark = b"\x01\x01\xff" if critical else b""
    return sequence(oid(dotted), mark, octet_string(value))


def content(element: bytes) -> bytes:
    """What stands inside one element; ValueError when bytes are missing or follow it."""
    start, end = _bounds(element, 0)
    if end != len(element):
        raise ValueError("bytes after the element")
    return element[start:end]


def elements(series: bytes) -> Iterator[bytes]:
    """The elements of `series`, each with its header; ValueError when the last is cut short."""
    position = 0
    while position < len(series):
        _, end = _bounds(series, position)
        yield series[position:end]
        position = end


def _bounds(data: bytes, position: int) -> tuple[int, int]:
    try:
        size = data[position + 1]
        start = position + 2
        if size >= LONG_LENGTH:
            start += size & 0x7F
            size = int.from_bytes(data[position + 2 : start], "big")
    except IndexError as error:
        raise ValueError("element cut short") from error
    if start + size > len(data):
        raise ValueError("element cut short")
    return start, start + size


def _base128(arc: int) -> bytes:
    octets = [arc & 0x7F]
    while arc := arc >> 7:
        octets.append(0x80 | arc & 0x7F)
    return bytes(reversed(octets))

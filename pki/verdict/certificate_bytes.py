"""Certificates' bytes packed for a memory: most of one is in every other of its CA. Pure.

DEFLATE with a preset dictionary (RFC 1950 2.2, RFC 1951). What packs badly joins the dictionary, so that a
certificate of each CA is in it; what was packed before names the one that it was packed with.
"""

import struct
import threading
import zlib
from collections.abc import Iterable

# Octets of a packed certificate, then the number of its dictionary.
_HEAD = struct.Struct(">HB")
_RAW = -zlib.MAX_WBITS
# Some ten certificates: what makes one ready takes as long as packing with it.
_LONGEST_DICTIONARY = 1 << 13
_MOST_DICTIONARIES = 64
# A certificate like one in the dictionary keeps its key, its signature and its names: half of it.
_PACKS_WELL = 0.6
_LEVEL = 6


class CertificateBytes:
    """Packs and unpacks for all threads of a process."""

    def __init__(self) -> None:
        self._dictionaries = [b""]
        self._lock = threading.Lock()

    def packed(self, certificates: Iterable[bytes]) -> bytes:
        """All of these in one; ValueError where one is too long to be kept."""
        return b"".join(map(self._packed, certificates))

    def unpacked(self, packed: bytes) -> list[bytes]:
        """What was packed, in its order."""
        certificates, place = [], 0
        while place < len(packed):
            size, number = _HEAD.unpack_from(packed, place)
            place += _HEAD.size
            unpacking = zlib.decompressobj(_RAW, self._dictionaries[number])
            certificates.append(unpacking.decompress(packed[place : place + size]))
            place += size
        return certificates

    def _packed(self, certificate: bytes) -> bytes:
        number = len(self._dictionaries) - 1
        body = self._deflated(certificate, number)
        if len(body) > _PACKS_WELL * len(certificate) and number + 1 < _MOST_DICTIONARIES:
            with self._lock:
                self._dictionaries.append((self._dictionaries[-1] + certificate)[-_LONGEST_DICTIONARY:])
                number = len(self._dictionaries) - 1
            body = self._deflated(certificate, number)
        try:
            return _HEAD.pack(len(body), number) + body
        except struct.error as error:
            raise ValueError("a certificate is too long to be kept") from error

    def _deflated(self, certificate: bytes, number: int) -> bytes:
        dictionary, strategy = self._dictionaries[number], zlib.Z_DEFAULT_STRATEGY
        packing = zlib.compressobj(_LEVEL, zlib.DEFLATED, _RAW, zlib.DEF_MEM_LEVEL, strategy, dictionary)
        return packing.compress(certificate) + packing.flush()

"""The trust list's newest version as every request gets it: from memory, looked for each second.

What a list says is `pki/publication/trust_list.py`'s; the addresses are `api/rest/trust_list.py`'s.
"""

import base64
import logging
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from threading import Lock

from sqlalchemy.exc import OperationalError

from api.wiring import Container
from directory.base.db import transaction
from directory.base.errors import Kind, Refusal
from pki.publication import intact, trust_list, trust_list_store
from pki.publication.intact import DamagedError

_LOG = logging.getLogger("sceau.status")

# How late a request may learn of a new version; the list itself is a few megabytes, its number one look.
LOOKED_FOR = timedelta(seconds=1)


@dataclass(frozen=True)
class Published:
    """A version with the bytes that are handed out of it."""

    version: int
    made_at: datetime
    next_update: datetime
    jws: bytes
    xml: bytes
    xml_signature: bytes
    checksum: bytes


def published(signed_list: trust_list_store.Version) -> Published:
    """What is handed out of this version; `checksum` as `sha256sum --check` reads it."""
    return Published(
        signed_list.version, signed_list.made_at, signed_list.next_update,
        trust_list.as_jws(signed_list), signed_list.xml, signed_list.xml_signature.encode(),
        f"{sha256(signed_list.xml).hexdigest()}  trust-list.xml\n".encode(),
    )  # fmt: skip


@dataclass
class Newest:
    """The newest version, in the memory of this process."""

    container: Container
    _lock: Lock = field(default_factory=Lock)
    _held: Published | None = None
    _looked: datetime | None = None

    def get(self) -> Published | None:
        """The newest version, None when none was made.

        With the record out of reach the last one known goes on as long as it holds by its own word.
        """
        with self._lock:
            now = self.container.clock()
            if self._looked is None or not timedelta() <= now - self._looked < LOOKED_FOR:
                self._held = self._look(now)
                self._looked = now
            return self._held

    def _look(self, now: datetime) -> Published | None:
        try:
            with transaction(self.container.engine, read_only=True) as connection:
                number = trust_list_store.latest_number(connection)
                if self._held is not None and self._held.version == number:
                    return self._held
                signed_list = trust_list_store.find(connection, number)
        except OperationalError:
            if self._held is not None and now < self._held.next_update:
                return self._held
            raise
        if signed_list is None:
            return None
        try:
            return _as_signed(signed_list)
        except Refusal:
            if self._held is not None and now < self._held.next_update:
                return self._held
            raise


def _as_signed(signed_list: trust_list_store.Version) -> Published:
    """What is handed out of this version; Refusal UNAVAILABLE `no-trust-list` when nobody signed that."""
    made = published(signed_list)
    header, _, signature = signed_list.xml_signature.partition("..")
    payload = base64.urlsafe_b64encode(signed_list.xml).rstrip(b"=").decode()
    try:
        intact.check_jws(made.jws)
        intact.check_jws(f"{header}.{payload}.{signature}".encode())
    except DamagedError as damaged:
        _LOG.error("trust list %s is not handed out: %s", signed_list.version, damaged)
        text = f"Trust list {signed_list.version} is damaged in the record: it is not handed out."
        raise Refusal(Kind.UNAVAILABLE, "no-trust-list", text) from damaged
    return made


def find(container: Container, version: int) -> Published | None:
    """A kept version, or None."""
    with transaction(container.engine, read_only=True) as connection:
        signed_list = trust_list_store.find(connection, version)
    return None if signed_list is None else _as_signed(signed_list)

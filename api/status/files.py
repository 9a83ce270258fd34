"""CRLs and CA certificates as files: the last signed CRL of a shard, the certificate of a CA.

A CRL is given from memory as long as nothing has been published since; the last good one goes on being given
when the record is out of reach, since it says itself until when it holds.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from api.status.reply import Reply, cacheable, failure
from pki import crl_store, store

_LOG = logging.getLogger("sceau.status")
NOT_FOUND = failure("404 Not Found")
UNAVAILABLE = failure("503 Service Unavailable", ("Retry-After", "5"))


@dataclass(frozen=True)
class _List:
    number: int
    reply: Reply
    heard: int


class Files:
    """The public files of one process; `is_vouched_for` says whether publications are being heard of."""

    def __init__(self, engine: Engine, is_vouched_for: Callable[[], bool]) -> None:
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._is_vouched_for = is_vouched_for
        # Both are bounded by the CAs and shards there are: nothing else is kept.
        self._lists: dict[tuple[str, int], _List] = {}
        self._certificates: dict[str, Reply] = {}
        self._heard = 0

    def look_again(self) -> None:
        """Something has been published: what is in memory may have been followed."""
        self._heard += 1

    def crl(self, authority_id: str, shard: int) -> Reply:
        """The last signed CRL of the shard; 404 when there is none, 503 when that cannot be known."""
        held = self._lists.get((authority_id, shard))
        if held is not None and held.heard == self._heard and self._is_vouched_for():
            return held.reply
        heard = self._heard
        try:
            with self._engine.connect() as connection:
                found = _latest(connection, authority_id, shard, held, heard)
        except SQLAlchemyError:
            _LOG.exception("the record could not be read for a CRL")
            return UNAVAILABLE if held is None else held.reply
        if found is None:
            return NOT_FOUND
        self._lists[authority_id, shard] = found
        return found.reply

    def certificate(self, authority_id: str) -> Reply:
        """The CA's own certificate in DER; it never changes under one name."""
        held = self._certificates.get(authority_id)
        if held is not None:
            return held
        try:
            with self._engine.connect() as connection:
                authority = store.load_authority(connection, authority_id)
        except SQLAlchemyError:
            _LOG.exception("the record could not be read for a CA certificate")
            return UNAVAILABLE
        if authority is None:
            return NOT_FOUND
        reply = cacheable("application/pkix-cert", authority.der, authority.not_before)
        self._certificates[authority_id] = reply
        return reply


def _latest(
    connection: Connection, authority_id: str, shard: int, held: _List | None, heard: int
) -> _List | None:
    number = crl_store.latest_number(connection, authority_id, shard)
    if held is not None and number == held.number:
        return _List(held.number, held.reply, heard)
    published = crl_store.latest(connection, authority_id, shard)
    if published is None:
        return None
    reply = cacheable("application/pkix-crl", published.der, published.this_update, published.next_update)
    return _List(published.number, reply, heard)

"""CRLs and CA certificates as files: the last signed CRL and delta of a shard, the certificate of a CA.

A CRL is given from memory as long as nothing has been published since. The last good one goes on being given
when the record is out of reach, has forgotten it, or gives bytes that nobody signed
(`pki/publication/intact.py`). It says itself until when it holds. Where there is no good one yet, there is
none: 503.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from api.status.reply import Reply, cacheable, failure
from directory.feed.changes import place_of_crl
from pki.ceremony import rollover
from pki.crl import parsing
from pki.crl import store as crl_store
from pki.model import Authority
from pki.publication import intact, trust_list, trust_list_store
from pki.publication.intact import DamagedError
from pki.publication.store import authority as certificate_of
from pki.record import authorities
from pki.rollback import high_water

_LOG = logging.getLogger("sceau.status")
# What Windows and browsers know `.p7b` by.
BUNDLE = "application/x-pkcs7-certificates"
NOT_FOUND = failure("404 Not Found")
UNAVAILABLE = failure("503 Service Unavailable", ("Retry-After", "5"))


@dataclass(frozen=True)
class _List:
    number: int
    reply: Reply
    heard: int


class Files:
    """The public files of one process; `is_vouched_for` says whether publications are being heard of.

    `kept` names the file of floors, beside which the last CRLs lie: none older is ever given.
    """

    def __init__(self, engine: Engine, is_vouched_for: Callable[[], bool], kept: Path | None = None) -> None:
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._is_vouched_for = is_vouched_for
        self._kept = kept
        # Both are bounded by the CAs and shards there are: nothing else is kept.
        self._lists: dict[tuple[str, int, bool], _List] = {}
        self._certificates: dict[str, Reply] = {}
        self._chains: dict[str, tuple[bytes, Reply]] = {}
        self._bundle: tuple[list[bytes], Reply] | None = None
        self._heard = 0

    def look_again(self) -> None:
        """Something has been published: what is in memory may have been followed."""
        self._heard += 1

    def crl(self, authority_id: str, shard: int, *, delta: bool = False) -> Reply:
        """The last signed CRL or delta of the shard; 404 if there is none, 503 if that cannot be known."""
        place = (authority_id, shard, delta)
        held = self._lists.get(place)
        if held is not None and held.heard == self._heard and self._is_vouched_for():
            return held.reply
        heard = self._heard
        try:
            with self._engine.connect() as connection:
                newest_list = _latest(connection, place, held, heard, self._kept)
        except SQLAlchemyError:
            _LOG.exception("the record could not be read for a CRL")
            return UNAVAILABLE if held is None else held.reply
        if newest_list is None:
            return NOT_FOUND
        self._lists[place] = newest_list
        return newest_list.reply

    def bundle(self) -> Reply:
        """Every CA of every generation and what they certified of one another, as PKCS #7 (RFC 8551 3.2.2).

        The last one made goes on being given when the record is out of reach.
        """
        try:
            with self._engine.connect() as connection:
                certificates = trust_list_store.certificates(connection)
                newest = trust_list_store.youngest(connection)
        except SQLAlchemyError:
            _LOG.exception("the record could not be read for the CA bundle")
            return UNAVAILABLE if self._bundle is None else self._bundle[1]
        if newest is None:
            return NOT_FOUND
        if self._bundle is None or self._bundle[0] != certificates:
            if not _are_signed(certificates, certificates):
                return UNAVAILABLE if self._bundle is None else self._bundle[1]
            made = cacheable(BUNDLE, trust_list.as_bundle(certificates), newest, dated_alone=True)
            self._bundle = (certificates, made)
        return self._bundle[1]

    def certificates(self, authority_id: str) -> Reply:
        """Every certificate of the CA's key, as certificates point to it (certs-only CMS)."""
        try:
            with self._engine.connect() as connection:
                signed = rollover.bundle(connection, authority_id)
                known = trust_list_store.certificates(connection)
        except (SQLAlchemyError, ValueError):
            # The second: what stands there is no certificate.
            _LOG.exception("the record could not be read for the certificates of a CA")
            held = self._chains.get(authority_id)
            return UNAVAILABLE if held is None else held[1]
        if signed is None:
            return NOT_FOUND
        held = self._chains.get(authority_id)
        if held is None or held[0] != signed[0]:
            if not _are_signed(rollover.certificates_in(signed[0]), known):
                return UNAVAILABLE if held is None else held[1]
            held = signed[0], cacheable("application/pkcs7-mime", *signed, dated_alone=True)
            self._chains[authority_id] = held
        return held[1]

    def certificate(self, authority_id: str) -> Reply:
        """The certificate of a CA, or between two, in DER; it never changes under one name."""
        held = self._certificates.get(authority_id)
        if held is not None:
            return held
        try:
            with self._engine.connect() as connection:
                signed = certificate_of(connection, authority_id)
                known = trust_list_store.certificates(connection)
        except SQLAlchemyError:
            _LOG.exception("the record could not be read for a CA certificate")
            return UNAVAILABLE
        if signed is None:
            return NOT_FOUND
        if not _are_signed([signed[0]], known):
            return UNAVAILABLE
        reply = cacheable("application/pkix-cert", *signed, dated_alone=True)
        self._certificates[authority_id] = reply
        return reply


def _latest(
    connection: Connection,
    place: tuple[str, int, bool],
    held: _List | None,
    heard: int,
    kept: Path | None,
) -> _List | None:
    """The newest that is known: a restored record would give one that revokes fewer."""
    authority_id, shard, delta = place
    number = crl_store.latest_number(connection, authority_id, shard, delta=delta)
    if held is not None and (number or 0) <= held.number:
        return _List(held.number, held.reply, heard)
    published = crl_store.latest(connection, authority_id, shard, delta=delta)
    authority = authorities.load_authority(connection, authority_id)
    recorded_list = None
    if published is not None and _is_intact(published.der, authority, published.number, delta=delta):
        alone = crl_store.is_dated_alone(connection, authority_id, shard, published.number, delta=delta)
        recorded_list = _given(published.der, published.number, heard, dated_alone=alone)
    # Read when something new is given, not for each who asks.
    named = place_of_crl(authority_id, shard)
    content = None if kept is None else high_water.kept_list(kept, named, delta=delta)
    last = 0 if content is None else _number_of(content)
    if content is None or not _is_intact(content, authority, last, delta=delta):
        forgotten = kept is not None and crl_store.last_number(
            connection, authority_id, shard
        ) < high_water.known(kept, named)
        # A later one was published, which neither the record nor any file has: an older one would un-revoke.
        if forgotten:
            return _List(0, UNAVAILABLE, heard)
        return recorded_list if published is None or recorded_list is not None else _last_good(held, heard)
    if recorded_list is None and held is not None and held.number > last:
        return _last_good(held, heard)
    return (
        recorded_list
        if recorded_list is not None and recorded_list.number >= last
        else _given(content, last, heard)
    )


def _last_good(held: _List | None, heard: int) -> _List:
    return _List(0, UNAVAILABLE, heard) if held is None else _List(held.number, held.reply, heard)


def _is_intact(der: bytes, authority: Authority | None, number: int, *, delta: bool) -> bool:
    return authority is not None and intact.is_crl(der, authority, number, delta=delta)


def _are_signed(wanted: Sequence[bytes], known: Sequence[bytes]) -> bool:
    try:
        intact.check_certificates(wanted, known)
    except DamagedError as damaged:
        _LOG.error("not handed out: %s", damaged)
        return False
    return True


def _number_of(content: bytes) -> int:
    try:
        return parsing.number_of(content)
    except (ValueError, x509.ExtensionNotFound):
        return 0


def _given(der: bytes, number: int, heard: int, *, dated_alone: bool = False) -> _List:
    crl = x509.load_der_x509_crl(der)
    reply = cacheable(
        "application/pkix-crl", der, crl.last_update_utc, crl.next_update_utc, dated_alone=dated_alone
    )
    return _List(number, reply, heard)

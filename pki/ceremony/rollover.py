"""From one generation of CAs to the next: which one issues, and what readers with either root are given.

Both generations are published together for as long as either has certificates (a staged roll-over, because a
sudden one once cut eighty thousand practices off). How a generation is made is for `pki.ceremony`.
"""

from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7
from sqlalchemy import Connection

from directory.base.audit import Actor, Event, record
from directory.base.errors import Kind, Refusal
from directory.base.locks import lock_until_commit
from pki.ceremony import store as ceremony_store
from pki.crl import store as crl_store
from pki.model import Authority, AuthorityState
from pki.ocsp import store as ocsp_store
from pki.record import authorities
from pki.service_keys import servers_authority


def activate(connection: Connection, authority_id: str, *, now: datetime, actor: Actor) -> Authority:
    """Let this CA issue: of those active for a role the newest generation does.

    Refuses `unknown-authority`, `not-an-issuing-authority`, `already-active`, `authority-expired`, and
    `not-ready`, with what is lacking, while somebody who met its certificates could not check them.
    """
    found = _issuing(connection, authority_id)
    if found.state is AuthorityState.ACTIVE:
        raise Refusal(Kind.CONFLICT, "already-active", f"{authority_id} is active already.")
    if not found.not_before <= now < found.not_after:
        raise Refusal(Kind.CONFLICT, "authority-expired", f"{authority_id} is not valid at this time.")
    lacking = _lacking(connection, found, now)
    if lacking:
        text = f"{authority_id} cannot issue yet: {'; '.join(lacking)}."
        raise Refusal(Kind.CONFLICT, "not-ready", text, lacking=lacking)
    _set(connection, found, AuthorityState.ACTIVE, Event.AUTHORITY_ACTIVATED, now, actor)
    return found


def retire(connection: Connection, authority_id: str, *, now: datetime, actor: Actor) -> Authority:
    """Let this CA issue no more; its CRL and OCSP go on.

    Refuses `unknown-authority`, `not-an-issuing-authority`, `already-retired`, and `last-of-its-role` when
    nobody would issue after it.
    """
    found = _issuing(connection, authority_id)
    if found.state is AuthorityState.RETIRED:
        raise Refusal(Kind.CONFLICT, "already-retired", f"{authority_id} is retired already.")
    others = [
        one
        for one in authorities.authorities(connection)
        if one.role == found.role and one.id != found.id and one.state is AuthorityState.ACTIVE
    ]
    if found.state is AuthorityState.ACTIVE and not any(
        one.not_before <= now < one.not_after for one in others
    ):
        text = f"No other authority issues for {found.role}: activate its successor first."
        raise Refusal(Kind.CONFLICT, "last-of-its-role", text)
    _set(connection, found, AuthorityState.RETIRED, Event.AUTHORITY_RETIRED, now, actor)
    return found


def bundle(connection: Connection, authority_id: str) -> tuple[bytes, datetime] | None:
    """The certificates that lead to this CA's key, as certs-only CMS in DER; None for no such CA.

    With it comes the day the youngest of them began. A reader who has another generation's root finds the
    certificate here that leads to it (RFC 5280 4.2.2.1).
    """
    found = authorities.load_authority(connection, authority_id)
    if found is None:
        return None
    crosses = [one.der for one in ceremony_store.crosses(connection) if one.subject_id == authority_id]
    # A root's own certificate tells nothing to who does not trust it, and OpenSSL ends its search at it
    # ("self-signed certificate in certificate chain") though a bridge lies beside.
    certificates = [x509.load_der_x509_certificate(der) for der in crosses or [found.der]]
    youngest = max(one.not_valid_before_utc for one in certificates)
    return pkcs7.serialize_certificates(certificates, Encoding.DER), youngest


def certificates_in(bundle: bytes) -> list[bytes]:
    """The certificates of a certs-only CMS, in DER."""
    return [one.public_bytes(Encoding.DER) for one in pkcs7.load_der_pkcs7_certificates(bundle)]


def root_crl_ends(connection: Connection) -> datetime | None:
    """When the first CRL of an offline root that is due ends; None when no root is offline.

    A root without any CRL is due from the day it was made.
    """
    ends = [
        ceremony_store.list_ends(connection, one.id) or one.not_before
        for one in authorities.authorities(connection)
        if one.offline
    ]
    return min(ends, default=None)


def _issuing(connection: Connection, authority_id: str) -> Authority:
    # Two who retire the last two would each see the other's.
    lock_until_commit(connection, "roll-over")
    found = authorities.load_authority(connection, authority_id)
    if found is None:
        raise Refusal(Kind.NOT_FOUND, "unknown-authority", f"There is no authority {authority_id}.")
    if found.issuer_id is None:
        text = f"{authority_id} is a root: what it issues is in the ceremony's file."
        raise Refusal(Kind.UNACCEPTABLE, "not-an-issuing-authority", text)
    return found


def _lacking(connection: Connection, found: Authority, now: datetime) -> list[str]:
    """What somebody needs to check this CA's certificates, and is not there yet."""
    lacking = []
    published = [crl_store.latest(connection, found.id, shard) for shard in range(found.shards)]
    absent = sum(one is None or one.next_update <= now for one in published)
    if absent:
        lacking.append(f"{absent} of its {found.shards} CRL shards are not published")
    if not any(one.authority_id == found.id for one in ocsp_store.responders(connection, now)):
        lacking.append("it has no OCSP responder")
    root = crl_store.latest(connection, found.issuer_id or "", 0)
    if root is None or root.next_update <= now:
        lacking.append(f"the CRL of {found.issuer_id} is not published")
    if servers_authority.left_without(connection, found):
        lacking.append("no CA for servers issues, and this one is for mail alone")
    lacking += [
        f"{one} and {found.issuer_id} have not certified each other" for one in _unbridged(connection, found)
    ]
    return lacking


def _unbridged(connection: Connection, found: Authority) -> list[str]:
    """The roots that readers have today and that lead nowhere near this CA, or not back."""
    bridges = {(one.subject_id, one.issuer_id) for one in ceremony_store.crosses(connection)}
    today = {
        one.issuer_id
        for one in authorities.authorities(connection)
        if one.role == found.role and one.state is AuthorityState.ACTIVE and one.issuer_id != found.issuer_id
    }
    return sorted(
        root for root in today if root and not {(root, found.issuer_id), (found.issuer_id, root)} <= bridges
    )


def _set(  # noqa: PLR0917 - whose state, which, how it is told, when, by whom
    connection: Connection, found: Authority, state: AuthorityState, event: Event, now: datetime, actor: Actor
) -> None:
    ceremony_store.set_state(connection, found.id, state)
    detail = {"before": found.state.value}
    record(connection, now=now, actor=actor, event=event, subject=found.id, detail=detail)

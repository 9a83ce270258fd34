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
    authority = _issuing(connection, authority_id)
    if authority.state is AuthorityState.ACTIVE:
        raise Refusal(Kind.CONFLICT, "already-active", f"{authority_id} is active already.")
    if not authority.not_before <= now < authority.not_after:
        raise Refusal(Kind.CONFLICT, "authority-expired", f"{authority_id} is not valid at this time.")
    lacking = _lacking(connection, authority, now)
    if lacking:
        text = f"{authority_id} cannot issue yet: {'; '.join(lacking)}."
        raise Refusal(Kind.CONFLICT, "not-ready", text, lacking=lacking)
    _set(connection, authority, AuthorityState.ACTIVE, Event.AUTHORITY_ACTIVATED, now, actor)
    return authority


def retire(connection: Connection, authority_id: str, *, now: datetime, actor: Actor) -> Authority:
    """Let this CA issue no more; its CRL and OCSP go on.

    Refuses `unknown-authority`, `not-an-issuing-authority`, `already-retired`, and `last-of-its-role` when
    nobody would issue after it.
    """
    authority = _issuing(connection, authority_id)
    if authority.state is AuthorityState.RETIRED:
        raise Refusal(Kind.CONFLICT, "already-retired", f"{authority_id} is retired already.")
    others = [
        candidate
        for candidate in authorities.authorities(connection)
        if candidate.role == authority.role
        and candidate.id != authority.id
        and candidate.state is AuthorityState.ACTIVE
    ]
    if authority.state is AuthorityState.ACTIVE and not any(
        successor.not_before <= now < successor.not_after for successor in others
    ):
        text = f"No other authority issues for {authority.role}: activate its successor first."
        raise Refusal(Kind.CONFLICT, "last-of-its-role", text)
    _set(connection, authority, AuthorityState.RETIRED, Event.AUTHORITY_RETIRED, now, actor)
    return authority


def bundle(connection: Connection, authority_id: str) -> tuple[bytes, datetime] | None:
    """The certificates that lead to this CA's key, as certs-only CMS in DER; None for no such CA.

    With it comes the day the youngest of them began. A reader who has another generation's root finds the
    certificate here that leads to it (RFC 5280 4.2.2.1).
    """
    authority = authorities.load_authority(connection, authority_id)
    if authority is None:
        return None
    crosses = [cross.der for cross in ceremony_store.crosses(connection) if cross.subject_id == authority_id]
    # A root's own certificate tells nothing to a reader who does not trust it. OpenSSL ends its search at it
    # ("self-signed certificate in certificate chain") though a bridge lies beside.
    certificates = [x509.load_der_x509_certificate(der) for der in crosses or [authority.der]]
    youngest = max(certificate.not_valid_before_utc for certificate in certificates)
    return pkcs7.serialize_certificates(certificates, Encoding.DER), youngest


def certificates_in(bundle: bytes) -> list[bytes]:
    """The certificates of a certs-only CMS, in DER."""
    return [
        certificate.public_bytes(Encoding.DER) for certificate in pkcs7.load_der_pkcs7_certificates(bundle)
    ]


def root_crl_ends(connection: Connection) -> datetime | None:
    """When the first CRL of an offline root that is due ends; None when no root is offline.

    A root without any CRL is due from the day it was made.
    """
    ends = [
        ceremony_store.list_ends(connection, authority.id) or authority.not_before
        for authority in authorities.authorities(connection)
        if authority.offline
    ]
    return min(ends, default=None)


def _issuing(connection: Connection, authority_id: str) -> Authority:
    # Two who retire the last two would each see the other's.
    lock_until_commit(connection, "roll-over")
    authority = authorities.load_authority(connection, authority_id)
    if authority is None:
        raise Refusal(Kind.NOT_FOUND, "unknown-authority", f"There is no authority {authority_id}.")
    if authority.issuer_id is None:
        text = f"{authority_id} is a root: what it issues is in the ceremony's file."
        raise Refusal(Kind.UNACCEPTABLE, "not-an-issuing-authority", text)
    return authority


def _lacking(connection: Connection, authority: Authority, now: datetime) -> list[str]:
    """What somebody needs to check this CA's certificates, and is not there yet."""
    lacking = []
    published = [crl_store.latest(connection, authority.id, shard) for shard in range(authority.shards)]
    absent = sum(crl is None or crl.next_update <= now for crl in published)
    if absent:
        lacking.append(f"{absent} of its {authority.shards} CRL shards are not published")
    if not any(
        responder.authority_id == authority.id for responder in ocsp_store.responders(connection, now)
    ):
        lacking.append("it has no OCSP responder")
    root = crl_store.latest(connection, authority.issuer_id or "", 0)
    if root is None or root.next_update <= now:
        lacking.append(f"the CRL of {authority.issuer_id} is not published")
    if servers_authority.left_without(connection, authority):
        lacking.append("no CA for servers issues, and this one is for mail alone")
    lacking += [
        f"{unbridged} and {authority.issuer_id} have not certified each other"
        for unbridged in _unbridged(connection, authority)
    ]
    return lacking


def _unbridged(connection: Connection, authority: Authority) -> list[str]:
    """The roots that readers have today and that lead nowhere near this CA, or not back."""
    bridges = {(cross.subject_id, cross.issuer_id) for cross in ceremony_store.crosses(connection)}
    today = {
        other.issuer_id
        for other in authorities.authorities(connection)
        if other.role == authority.role
        and other.state is AuthorityState.ACTIVE
        and other.issuer_id != authority.issuer_id
    }
    return sorted(
        root
        for root in today
        if root and not {(root, authority.issuer_id), (authority.issuer_id, root)} <= bridges
    )


def _set(  # noqa: PLR0917 - whose state, which, how it is told, when, by whom
    connection: Connection,
    authority: Authority,
    state: AuthorityState,
    event: Event,
    now: datetime,
    actor: Actor,
) -> None:
    ceremony_store.set_state(connection, authority.id, state)
    detail = {"before": authority.state.value}
    record(connection, now=now, actor=actor, event=event, subject=authority.id, detail=detail)

"""The holder of a key reports it as lost: it is blocked for ever, and all its certificates are revoked.

The proof is a certificate request signed by the key itself whose common name says so. It cannot be a request
somebody sent for another reason. A reporter who can make it could misuse the key as well.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from directory.base.audit import Actor, Event, record
from directory.base.errors import Kind, Refusal
from pki.certificates import csr as certification_request
from pki.certificates import public_keys
from pki.certificates.csr import CertificationRequest
from pki.model import RevocationAction, RevocationReason, Serial
from pki.record import key_locks, revocations
from pki.revocation import blocked_keys, revoke
from pki.revocation.blocked_keys import BlockCause
from pki.revocation.revoke import RevocationOrder

SENTENCE = "this key is compromised"
_LIVING = text("""
    SELECT c.serial FROM certificate c
    WHERE c.spki_sha256 = ANY(CAST(:keys AS bytea[])) AND c.not_after >= :now
    ORDER BY c.serial
""")


@dataclass(frozen=True)
class Reported:
    """What a report did: the key's SHA-256 (of its SubjectPublicKeyInfo), and what was revoked."""

    spki_sha256: bytes
    revoked: tuple[Serial, ...]


def report(connection: Connection, *, now: datetime, actor: Actor, csr: bytes) -> Reported:
    """Block the key that signed this, and revoke its certificates. Said again, it does nothing more.

    Refuses `no-compromise-proof`, `bad-csr`, `csr-too-large`, `bad-proof-of-possession`, and `weak-key` for a
    kind of key that is never certified here.
    """
    request = certification_request.read(csr)
    spki = public_keys.spki_sha256(request.key)
    _check_sentence(request)
    forms = key_locks.hold_families(connection, [request.key], ())
    serials = [
        Serial(serial) for serial in connection.execute(_LIVING, {"keys": forms, "now": now}).scalars()
    ]
    blocked_keys.block(
        connection, now=now, actor=actor, spki_sha256=spki, cause=BlockCause.REPORTED_COMPROMISED.value,
        serial=serials[0] if serials else None, number=key_locks.number_of(request.key),
    )  # fmt: skip
    revocables = [
        revocable
        for revocable in revocations.revocable_of(connection, serials)
        if revocable.last is not RevocationAction.REVOKE
    ]
    lost = RevocationReason.KEY_COMPROMISE
    acts = [
        RevocationOrder(revocable, lost, "reported with a proof by the key itself")
        for revocable in revocables
    ]
    if acts:
        revoke.revoke_or_suspend(connection, acts, now=now, actor=actor)
    revoked = tuple(revocable.certificate.serial for revocable in revocables)
    record(
        connection, now=now, actor=actor, event=Event.KEY_REPORTED, subject=spki.hex(),
        detail={"revoked": list(revoked)},
    )  # fmt: skip
    return Reported(spki, revoked)


def _check_sentence(request: CertificationRequest) -> None:
    said = certification_request.common_names(request.subject)
    if [line.strip().casefold() for line in said] != [SENTENCE]:
        text = f"The request does not say it: its common name must be {SENTENCE!r}."
        raise Refusal(Kind.UNACCEPTABLE, "no-compromise-proof", text)

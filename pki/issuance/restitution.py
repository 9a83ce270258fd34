"""What comes back when a strike-off is annulled as an error: enrolments at once, certificates once signed.

A revocation is final whatever it rested on (RFC 5280 5.3.1). So each certificate that fell with the error
gets a successor on the same key, by the approval that two registrars gave once. It needs no new enrolment and
no new request of the holder. The rules of any issuance are asked again; what they refuse for good is noted,
what a suspension stands against waits for its end.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from sqlalchemy import Connection, Engine, text

from directory import store as directory_store
from directory.base.audit import Actor, Event, record, record_all
from directory.base.db import transaction
from directory.base.errors import Kind, Refusal
from directory.base.instant import not_before
from directory.model import MailboxStanding
from pki.certificates.profiles import RESERVATION_LIFE, served_by
from pki.certificates.public_keys import PublicKey
from pki.impediments import standing as impediments
from pki.issuance import circumstances, for_enrolment, pipeline, rekey
from pki.issuance.pipeline import Prepared, Signed
from pki.model import IssuedCertificate, RevocationReason, Serial
from pki.record import certificates
from pki.registration import eligibility
from pki.revocation import rules
from pki.signing.signer import Signer

ACTOR = Actor("job:replacements")
# What passes by itself, or when two persons say so: these certificates are waited for.
_PASSES = frozenset({MailboxStanding.HOLDER_SUSPENDED.value, "reason-stands"})
_STRUCK_OFF = """
    SELECT FROM measure m JOIN measure_annulment a ON a.measure_id = m.id AND a.confirmed_at IS NOT NULL
    WHERE m.national_id = ANY(CAST(:numbers AS text[])) AND m.kind = 'struck-off'
    AND {at} >= m.starts_at AND {at} <= coalesce(m.ends_at, 'infinity')
"""
# Of those that ended while it stood, the ones that the job of consequences ended, as the log has it. Those
# that a registrar ended in between stay so. Another strike-off that was no error, and stood then or since,
# would have ended it too.
_ENDED = text(f"""
    SELECT e.id FROM enrolment e
    WHERE e.practitioner = ANY(CAST(:numbers AS text[])) AND e.state = 'ended' AND e.approved_at IS NOT NULL
    AND EXISTS ({_STRUCK_OFF.format(at="e.ended_at")})
    AND :actor = (
        SELECT l.actor FROM (
            SELECT 1 AS later, id AS place, actor, event, subject FROM audit_pending
            UNION ALL SELECT 0, index, actor, event, subject FROM audit_entry) l
        WHERE l.subject = e.id::text AND l.event = :ended ORDER BY l.later DESC, l.place DESC LIMIT 1)
    AND NOT EXISTS (
        SELECT FROM measure o LEFT JOIN measure_annulment a ON a.measure_id = o.id
        WHERE o.national_id = ANY(CAST(:numbers AS text[])) AND o.kind = 'struck-off'
        AND a.confirmed_at IS NULL AND o.starts_at < coalesce(o.ends_at, 'infinity')
        AND coalesce(o.ends_at, 'infinity') > e.ended_at AND o.starts_at <= :now)
    AND NOT EXISTS (
        SELECT FROM enrolment x WHERE x.mailbox = e.mailbox AND x.practitioner = e.practitioner
        AND x.state = 'approved')
    ORDER BY e.id FOR UPDATE OF e
""")  # noqa: S608 - a text of this module
_RESTORE = text("""
    UPDATE enrolment SET state = 'approved', ended_at = NULL WHERE id = ANY(CAST(:ids AS uuid[]))
    RETURNING id, practitioner, mailbox, authority
""")
# Of those that served one purpose beside each other, the one that would have lasted longest.
_NOTE = text("""
    INSERT INTO certificate_replacement (serial, measure_id, enrolment_id, asked_at)
    SELECT DISTINCT ON (r.enrolment_id, c.profile) c.serial, :measure_id, r.enrolment_id, :now
    FROM reservation r JOIN certificate c USING (serial)
    CROSS JOIN LATERAL (
        SELECT v.action, v.reason, v.actor FROM revocation_state v WHERE v.serial = c.serial LIMIT 1) AS last
    WHERE r.enrolment_id = ANY(CAST(:ids AS uuid[])) AND c.not_after > :now
    AND last.action = 'revoke' AND last.reason = :reason AND last.actor = :actor
    ORDER BY r.enrolment_id, c.profile, c.not_after DESC, c.serial
    ON CONFLICT (serial) DO NOTHING
""")
_OF_MEASURES = text("""
    SELECT measure_id, serial, replaced_by, refused FROM certificate_replacement
    WHERE measure_id = ANY(CAST(:ids AS bigint[])) ORDER BY measure_id, serial
""")
_OPEN = text("""
    SELECT p.serial, p.enrolment_id, c.der, c.profile, c.not_after FROM certificate_replacement p
    JOIN certificate c USING (serial)
    WHERE p.replaced_by IS NULL AND p.refused IS NULL ORDER BY p.asked_at, p.serial
""")
_DONE = text("""
    UPDATE certificate_replacement SET replaced_by = :replaced_by, refused = :refused
    WHERE serial = :serial AND replaced_by IS NULL AND refused IS NULL
""")


@dataclass(frozen=True)
class Replacement:
    """A certificate revoked in error: the serial of its successor, or why there is none; neither yet."""

    serial: Serial
    replaced_by: Serial | None
    refused: str | None


@dataclass(frozen=True)
class _Revoked:
    """One that waits for its successor."""

    serial: Serial
    enrolment_id: UUID
    der: bytes
    profile: str
    not_after: datetime

    @property
    def key(self) -> PublicKey:
        """The key it was made for."""
        key = x509.load_der_x509_certificate(self.der).public_key()
        if not isinstance(key, EllipticCurvePublicKey | RSAPublicKey):
            raise TypeError("mail certificates are on EC or RSA keys")
        return key


def give_back(
    connection: Connection, measure_id: int, national_id: str, *, now: datetime, actor: Actor
) -> None:
    """Restore the enrolments that an annulled strike-off ended, and note which certificates to replace.

    The caller holds the person, and settles next: what a departure or a moved mailbox stands against ends
    again.
    """
    numbers = sorted(directory_store.numbers_of(connection, [national_id]))
    by = {"actor": rules.ACTOR.name, "ended": Event.ENROLMENT_ENDED.value}
    ended = list(connection.execute(_ENDED, {"numbers": numbers, "now": now, **by}).scalars())
    if not ended:
        return
    restored = connection.execute(_RESTORE, {"ids": ended}).all()
    lines = [
        (str(enrolment.id), {"practitioner": enrolment.practitioner, "mailbox": enrolment.mailbox,
                             "authority": enrolment.authority, "measure": measure_id})
        for enrolment in restored
    ]  # fmt: skip
    record_all(connection, now=now, actor=actor, event=Event.ENROLMENT_RESTORED, lines=lines)
    connection.execute(
        _NOTE,
        {"measure_id": measure_id, "ids": ended, "now": now, "actor": rules.ACTOR.name,
         "reason": RevocationReason.PRIVILEGE_WITHDRAWN.value},
    )  # fmt: skip


def replacements(connection: Connection, measure_ids: Collection[int]) -> dict[int, list[Replacement]]:
    """What the annulment of each of these measures gives back."""
    by_measure: dict[int, list[Replacement]] = {}
    for measure_id, *known in connection.execute(_OF_MEASURES, {"ids": list(measure_ids)}):
        by_measure.setdefault(measure_id, []).append(Replacement(*known))
    return by_measure


def replace_all(
    engine: Engine, signer: Signer, *, now: Callable[[Connection], datetime], base_url: str
) -> int:
    """Certify anew the keys of what was revoked in error; how many. In transactions of its own.

    What was cut off goes on where it stood. What cannot be given now is asked again at the next call.
    """
    with transaction(engine, read_only=True) as connection:
        waiting = [_Revoked(*row) for row in connection.execute(_OPEN)]
    return sum(_replace(engine, signer, revoked, now=now, base_url=base_url) for revoked in waiting)


def _replace(
    engine: Engine, signer: Signer, revoked: _Revoked, *, now: Callable[[Connection], datetime], base_url: str
) -> bool:
    # The rules and the order of any issuance. Nobody asked: it counts against no quota.
    def reserve(connection: Connection) -> dict[int, Prepared]:
        prepared = _prepared(connection, revoked, now=now(connection), base_url=base_url)
        return {} if prepared is None else {0: prepared}

    def store(connection: Connection, signed: Signed) -> bool:
        for prepared, answer in signed.values():
            at = now(connection)
            outcome = for_enrolment.store_or_revoke(
                connection, prepared, pipeline.handed(answer), revoked.enrolment_id, at
            )
            if outcome.refusal is None:
                _replaced(connection, revoked, outcome.issued, at)
                return True
        return False

    return pipeline.run(engine, reserve=reserve, sign=pipeline.one_by_one(signer), store=store)


def _prepared(connection: Connection, revoked: _Revoked, *, now: datetime, base_url: str) -> Prepared | None:
    try:
        # A refusal undoes what was reserved; what it comes to is noted in the same transaction.
        with connection.begin_nested():
            return _reserve(connection, revoked, now, base_url)
    except Refusal as refusal:
        if refusal.kind is Kind.UNAVAILABLE:
            raise
        if refusal.code not in _PASSES or revoked.not_after <= now:
            asked = {"serial": revoked.serial, "replaced_by": None, "refused": refusal.code}
            connection.execute(_DONE, asked)
        return None


def _reserve(connection: Connection, revoked: _Revoked, now: datetime, base_url: str) -> Prepared:
    enrolment, now = circumstances.lock(connection, revoked.enrolment_id, revoked.key, now)
    # 1. The approval given once still counts, and nothing stands against whom it was given to.
    eligibility.check_approved(enrolment)
    eligibility.check_identified(enrolment, now)
    basis = circumstances.reserving(connection, enrolment, revoked.key, served_by(revoked.profile), now)
    names = impediments.check_subject(enrolment, basis.person, basis.facts, now)
    profile, checked, use = basis.profile(), basis.checked(), basis.use
    # 2. For what it served, and while nobody has certified anything else meanwhile.
    if use.lasting is not None:
        raise rekey.already_certified(use.lasting)
    impediments.check(impediments.standing((), held=use.held))
    rekey.check_key_period(connection, revoked.serial, checked.spki_sha256, profile, now)
    # 3. One reserved before the worker stopped is taken up while the signer still signs it.
    last = use.last
    if last is not None and last.serial != revoked.serial and last.enrolment_id == enrolment.id:
        stored = certificates.find_certificate(connection, last.serial)
        if stored is None and last.reserved_at >= now - RESERVATION_LIFE:
            return pipeline.resume(connection, last, ACTOR)
    return pipeline.prepare(
        connection, now=now, actor=ACTOR, authority=basis.issuer(connection, now), profile=profile,
        key=checked, names=names, base_url=base_url, mailbox=enrolment.mailbox,
        practitioner=basis.person.national_id, enrolment_id=enrolment.id, thorough=False,
    )  # fmt: skip


def _replaced(connection: Connection, revoked: _Revoked, issued: IssuedCertificate, now: datetime) -> None:
    asked = {"serial": revoked.serial, "replaced_by": issued.serial, "refused": None}
    connection.execute(_DONE, asked)
    record(
        connection, now=not_before(now, issued.issued_at), actor=ACTOR, event=Event.CERTIFICATE_REPLACED,
        subject=revoked.serial, detail={"by": issued.serial},
    )  # fmt: skip

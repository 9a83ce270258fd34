"""The gaps of a record restored from a backup, and how they are filled: from published CRLs and the journal.

A CRL of ours tells of a revocation wherever it was kept. It is entered with its own date and reason, as an
event like any other. A certificate signed after the backup is in the signer's journal: it is stored again and
revoked. Only `accept` says that the record is complete; whether it looks so, `pki/rollback/detection.py`
watches.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from sqlalchemy import Connection, Engine

from directory.base.audit import Actor, Event, record_all
from directory.base.comments import check_comment
from directory.base.db import transaction
from directory.base.errors import Kind, Refusal
from directory.base.instant import not_before
from pki.certificates import identifiers, validity
from pki.certificates.profiles import PRACTITIONER, RESERVATION_LIFE, profile_of
from pki.crl import checks, parsing
from pki.crl import store as crl_store
from pki.crl.encoding import entry_der
from pki.issuance import pipeline
from pki.model import (
    Authority,
    IssuedCertificate,
    Reservation,
    Revocation,
    RevocationAction,
    RevocationReason,
    Serial,
    serial_of,
)
from pki.record import authorities as authority_rows
from pki.record import certificates as store
from pki.record import reservations, revocations
from pki.record.revocations import LastEvent, Revocable
from pki.revocation import key_compromise, revoke
from pki.revocation.revoke import RevocationOrder
from pki.rollback import detection, high_water
from pki.rollback.detection import OutsideMemory
from pki.signing.signer import Signer
from pki.tlog import sequencer
from pki.tlog.checkpoint import AuditKey

ACTOR = Actor("command:restore")
# Of a serial that only a CRL tells of: nobody kept the certificate, so nobody knows what it was.
UNKNOWN_PROFILE = "unknown"
_HELD = RevocationReason.CERTIFICATE_HOLD
_REASONS = {reason.value: reason for reason in RevocationReason}
_DER = Encoding.DER
_PEM = b"-----BEGIN X509 CRL-----"


@dataclass(frozen=True)
class PublishedEntry:
    """What a published CRL says of one serial; `reason` is None where a delta says that a hold was lifted."""

    serial: Serial
    authority: Authority
    at: datetime
    reason: RevocationReason | None
    number: int


@dataclass(frozen=True)
class PublishedList:
    """A CRL or delta of ours, its signature checked; `place` tells one shard from another."""

    place: tuple[str, str | None]
    number: int
    this_update: datetime
    complete: bool
    told: tuple[PublishedEntry, ...]


@dataclass(frozen=True)
class Lost:
    """A certificate that was signed and is not in the record; `reserved` may be made from its bytes."""

    reserved: Reservation
    signed: bytes


@dataclass(frozen=True)
class Missing:
    """An event that the record lacks; `last` is what the record has last of this serial."""

    told: PublishedEntry
    reason: RevocationReason
    last: LastEvent | None

    @property
    def holds(self) -> bool:
        """Whether it is on hold, and may be released."""
        return self.reason is _HELD

    @property
    def corrects(self) -> bool:
        """Whether it only says the reason of a revocation better."""
        return self.last is not None and self.last.action is RevocationAction.REVOKE


@dataclass(frozen=True)
class Plan:
    """All that can be brought back."""

    certificates: tuple[Lost, ...]
    events: tuple[Missing, ...]

    @property
    def is_empty(self) -> bool:
        """Whether the record has it all."""
        return not (self.certificates or self.events)


def read_list(authorities: Iterable[Authority], content: bytes) -> PublishedList:
    """A CRL or delta in DER or PEM, of one of these CAs, under its key; however old, it says what was.

    Refuses `crl-malformed`, `crl-duplicate`, `unknown-authority`, `crl-signature`.
    """
    crl = _parsed(content)
    listing = parsing.parse(content if _PEM not in content else crl.public_bytes(_DER))
    authority = next((ca for ca in authorities if _is_of(listing, ca)), None)
    if authority is None:
        text = (
            "No CA of the record has this CRL's name and key: bring in first what was made after the backup."
        )
        raise Refusal(Kind.NOT_FOUND, "unknown-authority", text)
    checks.check_signed(crl.public_bytes(_DER), crl.tbs_certlist_bytes, authority)
    told = tuple(_told(entry, authority, listing.number) for entry in crl)
    place = (authority.id, listing.points.scope)
    return PublishedList(place, listing.number, listing.this_update, listing.base is None, told)


def together(lists: Iterable[PublishedList]) -> dict[Serial, PublishedEntry]:
    """What these lists say as a whole, the later one of a shard before the earlier."""
    known: dict[Serial, tuple[PublishedEntry, tuple[str, str | None]]] = {}
    for crl in sorted(lists, key=lambda crl: (crl.this_update, crl.number)):
        said = {told.serial: (told, crl.place) for told in crl.told}
        lifted = {serial for serial, (told, _) in said.items() if told.reason is None}
        if crl.complete:
            # A hold that a later complete list leaves out was lifted; a revocation only expired.
            lifted |= {
                serial
                for serial, (told, place) in known.items()
                if serial not in said and (place, told.reason) == (crl.place, _HELD)
            }
        known = {serial: entry for serial, entry in (known | said).items() if serial not in lifted}
    return {serial: told for serial, (told, _) in known.items()}


def lacks_event(told: PublishedEntry, last: LastEvent | None) -> Missing | None:
    """What must be entered so that the record says at least what was published; None when it does."""
    if told.reason is None:
        raise ValueError("a lifted hold is nothing to enter")
    held = told.reason is _HELD
    missing = Missing(told, told.reason, last)
    if last is None:
        return missing
    if last.action is RevocationAction.REVOKE:
        return missing if _says_better(told, last) else None
    if last.action is RevocationAction.RELEASE:
        # Lifted after that list was made, the hold it tells of is over.
        return missing if not held or told.at > last.revoked_at else None
    return None if held else missing


def find(
    engine: Engine,
    signer: Signer,
    contents: Sequence[bytes],
    now: datetime,
    known: OutsideMemory | None = None,
) -> Plan:
    """What these CRLs, those `known` outside and the signer's journal tell of that the record lacks.

    Refuses what `read_list` refuses, `signer-unavailable`, and `unknown-authority` for a certificate of a CA
    that the record does not have.
    """
    kept = [] if known is None else high_water.kept_lists(known.floor)
    lost = _lost(engine, signer, now)
    with transaction(engine, read_only=True) as connection:
        authorities = authority_rows.authorities(connection)
        told = together(read_list(authorities, content) for content in (*kept, *contents))
        last = revocations.last_events(connection, list(told))
    events = (lacks_event(entry, last.get(serial)) for serial, entry in told.items())
    return Plan(tuple(lost), tuple(event for event in events if event is not None))


def enter(connection: Connection, plan: Plan, *, now: datetime, actor: Actor = ACTOR) -> None:
    """Bring back what is in the plan; what somebody entered meanwhile is left as it is."""
    # 1. The certificates, each with the reservation that may be lost as well.
    for lost in plan.certificates:
        pipeline.bring_back(connection, lost.reserved, lost.signed, actor, now)
    # 2. The events, under lock, each on what is last there now.
    wanted = {event.told.serial: event.told for event in plan.events}
    revocables = _revocables(connection, wanted, now=now, actor=actor)
    missing = [
        (revocable, lacks_event(wanted[revocable.certificate.serial], revocable.event))
        for revocable in revocables
    ]
    made = [
        (revocable, event, _as_event(revocable, event, actor))
        for revocable, event in missing
        if event is not None
    ]
    _append(connection, made, now=now, actor=actor)
    # 3. What was signed after the backup and is not among them: who vouched for it is forgotten.
    rest = revocations.revocable_of(connection, [lost.reserved.serial for lost in plan.certificates])
    comment = "signed after the backup that the record was restored from"
    taking = [
        RevocationOrder(revocable, RevocationReason.SUPERSEDED, comment)
        for revocable in rest
        if revocable.last is not RevocationAction.REVOKE
    ]
    revoke.revoke_or_suspend(connection, taking, now=now, actor=actor)


def accept(
    engine: Engine,
    signer: Signer,
    key: AuditKey,
    kept: OutsideMemory,
    *,
    now: datetime,
    reason: str,
    actor: Actor = ACTOR,
) -> str:
    """Declare the record complete: numbers go on above the floor, the log under the origin that this gives.

    Refuses `record-complete` when nothing is lacking, `restore-incomplete` while something known outside can
    still be brought back, `comment-missing`, and what `find` and `sequencer.begin_anew` refuse.
    """
    if not reason.strip():
        raise Refusal(Kind.MALFORMED, "comment-missing", "Say why the record is held to be complete.")
    check_comment(reason)
    memory = detection.remembered(kept)
    with transaction(engine, read_only=True) as connection:
        lacks = detection.lacking(connection, memory)
    if not lacks:
        raise Refusal(Kind.CONFLICT, "record-complete", "The record is complete: there is nothing to accept.")
    plan = find(engine, signer, [], now, kept)
    if memory.wrong or not plan.is_empty:
        text = memory.wrong or (
            f"{len(plan.certificates)} certificates and {len(plan.events)} events can still be brought back:"
            " `sceau restore replay`."
        )
        raise Refusal(Kind.CONFLICT, "restore-incomplete", text)
    with transaction(engine) as connection:
        origin = sequencer.begin_anew(
            connection, key, now=now, actor=actor, reason=reason, checkpoint_file=kept.heads,
            detail={"lacked": lacks},
        )  # fmt: skip
        crl_store.raise_numbers(connection, memory.numbers)
        if left := detection.lacking(connection, memory):
            text = f"A CA made after the backup is not in the record: bring it in first. {left[0]}"
            raise Refusal(Kind.CONFLICT, "restore-incomplete", text)
        # Before the commit: a crash in between leaves a record that still looks behind, by its numbers.
        counted = crl_store.counted(connection)
        high_water.lower_events(kept.floor, {place: counted.get(place, 0) for place in memory.numbers})
    sequencer.publish_heads(engine, kept.heads)
    return origin


def _lost(engine: Engine, signer: Signer, now: datetime) -> list[Lost]:
    """What is in the journal and not in the record, but for what is on its way into it."""
    lost: list[Lost] = []
    place = 0
    while page := signer.signed(place):
        place += len(page)
        with transaction(engine, read_only=True) as connection:
            absent = sorted(set(page) - store.stored_among(connection, page))
            reserved = reservations.load_reservations(connection, absent)
            authorities = authority_rows.authorities(connection) if absent else []
        for serial in absent:
            known = reserved.get(serial)
            if known is not None and known.reserved_at > now - RESERVATION_LIFE:
                continue
            signed = signer.journal(serial)
            if signed is not None:
                lost.append(Lost(known or _reservation(signed, authorities), signed))
    return lost


def _reservation(signed: bytes, authorities: Sequence[Authority]) -> Reservation:
    """The reservation of a certificate as far as its bytes tell: the enrolment is not in them."""
    certificate = x509.load_der_x509_certificate(signed)
    authority = next((ca for ca in authorities if _issued(ca, certificate)), None)
    serial = serial_of(certificate.serial_number)
    if authority is None:
        text = f"The certificate {serial} is of a CA that the record does not have: bring the CA in first."
        raise Refusal(Kind.NOT_FOUND, "unknown-authority", text)
    profile = profile_of(certificate)
    of_person = profile is not None and profile.family == PRACTITIONER.name
    named = certificate.subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)
    tbs = certificate.tbs_certificate_bytes
    return Reservation(
        serial=serial, authority_id=authority.id,
        profile=UNKNOWN_PROFILE if profile is None else profile.name,
        shard=validity.shard_of(serial, authority.shards), mailbox=_mailbox(certificate),
        practitioner=str(named[0].value) if of_person and named else None, enrolment_id=None,
        spki_sha256=sha256(identifiers.issuer_fields(signed)[1]).digest(), tbs=tbs,
        tbs_sha256=sha256(tbs).digest(), reserved_at=certificate.not_valid_before_utc,
    )  # fmt: skip


def _mailbox(certificate: x509.Certificate) -> str | None:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None
    return next(iter(names.get_values_for_type(x509.RFC822Name)), None)


def _issued(authority: Authority, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(x509.load_der_x509_certificate(authority.der))
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _parsed(content: bytes) -> x509.CertificateRevocationList:
    try:
        if _PEM in content:
            return x509.load_pem_x509_crl(content)
        return x509.load_der_x509_crl(content)
    except ValueError as error:
        raise Refusal(Kind.UNACCEPTABLE, "crl-malformed", "This is no CRL in DER or PEM.") from error


def _is_of(listing: parsing.Listing, authority: Authority) -> bool:
    return (identifiers.issuer_fields(authority.der)[0], identifiers.key_identifier(authority.der)) == (
        listing.issuer,
        listing.key,
    )


def _told(entry: x509.RevokedCertificate, authority: Authority, number: int) -> PublishedEntry:
    reason = entry.extensions.get_extension_for_class(x509.CRLReason).value.reason.value
    # removeFromCRL is the one that is none of ours.
    return PublishedEntry(
        serial_of(entry.serial_number), authority, entry.revocation_date_utc, _REASONS.get(reason), number
    )


def _says_better(told: PublishedEntry, last: LastEvent) -> bool:
    """Whether a list tells another reason of the same revocation, which it may have been corrected to."""
    same = last.revoked_at.replace(microsecond=0) == told.at
    final = {RevocationReason.KEY_COMPROMISE, RevocationReason.CA_COMPROMISE}
    # Which of two reasons was said last is not to be told, but for the one that has no way back.
    return same and told.reason in final and last.reason not in final


def _revocables(
    connection: Connection, wanted: Mapping[Serial, PublishedEntry], *, now: datetime, actor: Actor
) -> list[Revocable]:
    """What these serials name, locked; a serial that nobody kept a certificate of is stored by itself."""
    revocables = revocations.revocable_of(connection, sorted(wanted))
    bare = sorted(set(wanted) - {revocable.certificate.serial for revocable in revocables})
    known = reservations.load_reservations(connection, bare)
    rows = [_unkept(wanted[serial], now) for serial in bare]
    lines = []
    for row in rows:
        if row.serial not in known:
            reserved = Reservation(
                serial=row.serial, authority_id=row.authority_id, profile=row.profile, shard=row.shard,
                mailbox=None, practitioner=None, enrolment_id=None, spki_sha256=row.spki_sha256, tbs=b"",
                tbs_sha256=sha256(b"").digest(), reserved_at=now,
            )  # fmt: skip
            reservations.add_reservation(connection, reserved, (), actor.name)
            lines.append((row.serial, {"authority": row.authority_id, "profile": row.profile}))
    record_all(connection, now=now, actor=actor, event=Event.CERTIFICATE_RESERVED, lines=lines)
    last = revocations.last_events(connection, bare)
    return revocables + [
        Revocable(row, event.action if event else None, None, event=event)
        for row in rows
        for event in (last.get(row.serial),)
    ]


def _unkept(told: PublishedEntry, now: datetime) -> IssuedCertificate:
    """A certificate of which nothing is known but its number and its CA, with which it ends at the latest."""
    nothing = sha256(b"").digest()
    authority = told.authority
    return IssuedCertificate(
        serial=told.serial, authority_id=authority.id, profile=UNKNOWN_PROFILE,
        shard=validity.shard_of(told.serial, authority.shards), mailbox=None, practitioner=None, subject="",
        spki_sha256=nothing, der=b"", sha256=nothing, not_before=authority.not_before,
        not_after=authority.not_after, issued_at=now,
    )  # fmt: skip


def _as_event(revocable: Revocable, missing: Missing, actor: Actor) -> Revocation:
    told, last = missing.told, missing.last
    corrected = last if missing.corrects else None
    # Published then, it was known then, and never before what it follows.
    written = not_before(told.at, last.written_at if last else None)
    counts = told.at if corrected is None else corrected.revoked_at
    return Revocation(
        serial=told.serial, action=RevocationAction.HOLD if missing.holds else RevocationAction.REVOKE,
        reason=missing.reason, comment=f"told by CRL {told.number} of {told.authority.id}", actor=actor.name,
        revoked_at=counts, not_after=revocable.certificate.not_after,
        restates=None if corrected is None else corrected.id,
        recorded_at=None if written == counts else written,
    )  # fmt: skip


def _append(
    connection: Connection,
    made: Sequence[tuple[Revocable, Missing, Revocation]],
    *,
    now: datetime,
    actor: Actor,
) -> None:
    revocations.add_revocations(
        connection,
        [
            (revocable, event, entry_der(event.serial, event.revoked_at, event.reason))
            for revocable, _, event in made
        ],
    )
    words = {
        Event.CERTIFICATE_HELD: [event for _, _, event in made if event.action is RevocationAction.HOLD],
        Event.CERTIFICATE_REVOKED: [
            event for _, _, event in made if event.action is RevocationAction.REVOKE and not event.restates
        ],
        Event.REVOCATION_RESTATED: [event for _, _, event in made if event.restates],
    }
    for word, events in words.items():
        lines = [
            (event.serial, {"action": event.action.value, "reason": event.reason.value,
                            "comment": event.comment, "revoked_at": event.revoked_at.isoformat()})
            for event in events
        ]  # fmt: skip
        record_all(connection, now=now, actor=actor, event=word, lines=lines)
    lost = [
        revocable.certificate for revocable, missing, _ in made
        if missing.reason is RevocationReason.KEY_COMPROMISE and revocable.certificate.der
    ]  # fmt: skip
    key_compromise.follow(connection, lost, now=now, actor=actor)

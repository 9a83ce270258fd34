"""Reserve, lint, commit, sign, store: the one order of issuance, for one request, a batch or an operator.

`run` keeps the order and owns both transactions. A road (`for_enrolment`, `batch`, `for_operator`,
`for_service`, `pki/issuance/restitution.py`) gives its checks before `prepare` or `prepare_all` reserve. It
gives those before a certificate is handed out, in `store_checked`. One that went astray is for
`pki/recovery/orphans.py`.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import TypeVar
from uuid import UUID

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from sqlalchemy import Connection, Engine

from directory.base.audit import Actor, Event, Line, record_all
from directory.base.db import transaction
from directory.base.errors import Kind, Refusal
from directory.base.instant import present
from pki.certificates.builder import certificate_of, subject_text, unsigned_by
from pki.certificates.profiles import Names, Profile, Urls
from pki.issuance import batch_store
from pki.issuance.quotas import Charged, audit_quota_refusals, charge
from pki.lint import pkix
from pki.lint.check import check
from pki.model import Authority, IssuedCertificate, Reservation, RevocationReason, Serial, serial_of
from pki.record import authorities, certificates, reservations, revocations
from pki.record.revocations import Revocable
from pki.revocation import blocked_keys, revoke
from pki.revocation.blocked_keys import Checked
from pki.revocation.revoke import RevocationOrder
from pki.signing.signer import Signer

_SEAL = object()


class SignerMisbehaved(Exception):  # noqa: N818 - says what happened, as the log will
    """The signer answered with other than the reserved bytes under the CA's key: a bug or an attack."""


@dataclass(frozen=True)
class ReservationOrder:
    """One certificate to be reserved among many: whose, under which profile, on which key."""

    profile: Profile
    key: Checked
    names: Names
    mailbox: str
    practitioner: str
    enrolment_id: UUID


@dataclass(frozen=True)
class Prepared:
    """A reserved, linted certificate waiting for its signature. Only this module can make one."""

    reservation: Reservation
    authority: Authority
    actor: Actor
    seal: object = field(repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse to exist when made elsewhere: a certificate nobody linted must not be issued."""
        if self.seal is not _SEAL:
            raise TypeError("only prepare() makes a Prepared")


# By its place in what was asked.
Signed = Mapping[int, tuple[Prepared, bytes | Refusal]]
Sign = Callable[[Sequence[Serial]], Sequence[bytes | Refusal]]
Stored = TypeVar("Stored")


@dataclass(frozen=True)
class Outcome:
    """A stored certificate, and why it was revoked as it was stored; `refusal` is None when it may go out."""

    prepared: Prepared
    issued: IssuedCertificate
    refusal: Refusal | None = None

    def handed_out(self) -> IssuedCertificate:
        """The certificate, for whoever asked; refuses what it was revoked for."""
        if self.refusal is not None:
            raise self.refusal
        return self.issued


def run(
    engine: Engine,
    *,
    reserve: Callable[[Connection], Mapping[int, Prepared]],
    sign: Sign,
    store: Callable[[Connection, Signed], Stored],
    charged: Charged | None = None,
) -> Stored:
    """Issue what `reserve` gives, by its place in what was asked; gives what `store` makes of it.

    In transactions of its own, because none may be open while the signer works.
    """
    # 1. Checked, reserved and linted, then committed: the record knows whatever will be signed.
    tell = audit_quota_refusals(engine, charged.token, charged.now) if charged else nullcontext()
    with tell, transaction(engine) as connection:
        reserved = reserve(connection)
        if charged and reserved:
            charge(connection, charged.quotas, charged.token, now=charged.now, number=len(reserved))
    # 2. Signed, with nothing open; verified before anyone else sees it.
    answers = sign([prepared.reservation.serial for prepared in reserved.values()]) if reserved else ()
    signed = {place: (reserved[place], answer) for place, answer in zip(reserved, answers, strict=True)}
    for prepared, answer in signed.values():
        if not isinstance(answer, Refusal):
            verify_signed(answer, prepared.reservation, prepared.authority)
    # 3. Stored; revoked in the same transaction where it may no longer be handed out.
    with transaction(engine) as connection:
        return store(connection, signed)


def issue_one(
    engine: Engine,
    signer: Signer,
    *,
    reserve: Callable[[Connection], Prepared],
    store: Callable[[Connection, Prepared, bytes], Outcome],
    charged: Charged | None = None,
) -> Outcome:
    """As `run`, for one certificate."""

    def stored(connection: Connection, signed: Signed) -> Outcome:
        ((prepared, answer),) = signed.values()
        return store(connection, prepared, handed(answer))

    return run(
        engine, reserve=lambda connection: {0: reserve(connection)}, sign=one_by_one(signer), store=stored,
        charged=charged,
    )  # fmt: skip


def one_by_one(signer: Signer) -> Sign:
    """To ask for few: what the signer refuses is raised, and no other is asked for."""
    return lambda serials: [signer.sign_certificate(serial) for serial in serials]


def handed(answer: bytes | Refusal) -> bytes:
    """The certificate of an answer; raises what was refused."""
    if isinstance(answer, Refusal):
        raise answer
    return answer


def prepare(
    connection: Connection,
    *,
    now: datetime,
    actor: Actor,
    authority: Authority | str,
    profile: Profile,
    key: Checked,
    names: Names,
    base_url: str,
    mailbox: str | None = None,
    practitioner: str | None = None,
    enrolment_id: UUID | None = None,
    thorough: bool = True,
    opinion: pkix.SecondOpinion = pkix.findings,
    dated: bool = False,
) -> Prepared:
    """Reserve a serial for these names and key, linted; the caller commits, then calls `issue`.

    `authority` is a CA as it was found in this transaction, or its name; `dated` says that the caller read
    `now` under its locks. `thorough` adds `opinion`, which is pkilint's. `key` is one that `blocked_keys` let
    pass in this transaction: a lost one is refused on every road, the service's own included. Refuses
    `unknown-authority`, `authority-expired`, `lint-failed`, `lint-unavailable`, and `key-already-certified`
    when the key serves an enrolment already.
    """
    now = now if dated else present(connection, now)
    # 1. Who signs, and until when.
    if isinstance(authority, str):
        authority = _authority(connection, authority)
    # 2. The linted bytes.
    reserved, lints = _draft(
        authority, now=now, profile=profile, key=key, names=names, base_url=base_url,
        mailbox=mailbox, practitioner=practitioner, enrolment_id=enrolment_id,
        opinion=opinion if thorough else None,
    )  # fmt: skip
    # 3. The reservation: what may be signed, by its hash.
    line = _line(Event.CERTIFICATE_RESERVED, reserved, actor, now)
    if not reservations.add_reservation(connection, reserved, lints, actor.name, line):
        raise key_already_certified()
    return Prepared(reserved, authority, actor, _SEAL)


def prepare_all(
    connection: Connection,
    authority: Authority,
    wanted: Sequence[ReservationOrder],
    *,
    now: datetime,
    actor: Actor,
    base_url: str,
) -> list[Prepared | Refusal]:
    """Reserve a serial for each by the same rules, own lints only, in two statements; what `prepare` refuses.

    In the order asked; the caller commits before anything is signed.
    """
    now = present(connection, now)
    drafts = [_drafted(authority, order, now, base_url) for order in wanted]
    made = [draft for draft in drafts if not isinstance(draft, Refusal)]
    kept = batch_store.add_reservations(connection, made, actor.name)
    _record_all(connection, Event.CERTIFICATE_RESERVED, [d for d, _ in made if d.serial in kept], actor, now)
    return [
        draft if isinstance(draft, Refusal)
        else Prepared(draft[0], authority, actor, _SEAL) if draft[0].serial in kept
        else key_already_certified()
        for draft in drafts
    ]  # fmt: skip


def store_all(
    connection: Connection, signed: Sequence[tuple[Prepared, bytes]], now: datetime
) -> dict[Serial, IssuedCertificate]:
    """Store signed certificates, whose enrolments are locked, with their audit lines.

    Those that somebody stored first are absent: another try, or recovery.
    """
    reserved = {prepared.reservation.serial: prepared for prepared, _ in signed}
    batch_store.lock_reservations(connection, list(reserved))
    known = certificates.stored_among(connection, list(reserved))
    now = max([present(connection, now), *(prepared.reservation.reserved_at for prepared, _ in signed)])
    fresh = [
        as_issued(der, prepared.reservation, now)
        for prepared, der in signed
        if prepared.reservation.serial not in known
    ]
    batch_store.add_certificates(connection, fresh)
    lines = [
        (
            certificate.serial,
            _told(reserved[certificate.serial].reservation)
            | {"sha256": certificate.sha256.hex(), "not_after": certificate.not_after.isoformat()},
        )
        for certificate in fresh
    ]
    if signed:
        actor = signed[0][0].actor
        record_all(connection, now=now, actor=actor, event=Event.CERTIFICATE_ISSUED, lines=lines)
    return {certificate.serial: certificate for certificate in fresh}


def _drafted(
    authority: Authority, wanted: ReservationOrder, now: datetime, base_url: str
) -> tuple[Reservation, list[Mapping[str, str]]] | Refusal:
    try:
        return _draft(authority, now=now, base_url=base_url, opinion=None, **vars(wanted))
    except Refusal as refusal:
        return refusal


def _draft(
    authority: Authority,
    *,
    now: datetime,
    profile: Profile,
    key: Checked,
    names: Names,
    base_url: str,
    mailbox: str | None,
    practitioner: str | None,
    enrolment_id: UUID | None,
    opinion: pkix.SecondOpinion | None,
) -> tuple[Reservation, list[Mapping[str, str]]]:
    """A reservation that is not stored yet, and what its lints only advise."""
    # 1. A serial that no CA has used: 159 random bits, then the primary key of all reservations.
    serial = serial_of(x509.random_serial_number())
    # 2. The bytes, readable before any CA key is touched.
    candidate, shard = unsigned_by(
        authority, serial=serial, profile=profile, names=names, public_key=key.public_key, now=now,
        urls=Urls(base_url),
    )  # fmt: skip
    lints = check(candidate, profile, authority, mailbox, opinion=opinion)
    # 3. What may be signed, by its hash.
    tbs = candidate.tbs_certificate_bytes
    reserved = Reservation(
        serial=serial, authority_id=authority.id, profile=profile.name, shard=shard, mailbox=mailbox,
        practitioner=practitioner, enrolment_id=enrolment_id, spki_sha256=key.spki_sha256, tbs=tbs,
        tbs_sha256=sha256(tbs).digest(), reserved_at=now,
    )  # fmt: skip
    return reserved, lints


def resume(connection: Connection, reserved: Reservation, actor: Actor) -> Prepared:
    """The same reservation again, for whoever asks anew after the signer did not answer."""
    return Prepared(reserved, _authority(connection, reserved.authority_id), actor, _SEAL)


def _authority(connection: Connection, authority_id: str) -> Authority:
    authority = authorities.load_authority(connection, authority_id)
    if authority is None:
        raise Refusal(Kind.NOT_FOUND, "unknown-authority", f"There is no authority {authority_id}.")
    return authority


def issue(
    engine: Engine, signer: Signer, reserve: Callable[[Connection], Prepared], now: datetime
) -> Outcome:
    """A certificate of the service's own: it stands for nobody who could leave while it is signed."""

    def store(connection: Connection, prepared: Prepared, signed: bytes) -> Outcome:
        return Outcome(prepared, store_signed(connection, prepared, signed, now))

    return issue_one(engine, signer, reserve=reserve, store=store)


def store_checked(
    connection: Connection,
    prepared: Prepared,
    signed: bytes,
    now: datetime,
    check: Callable[[IssuedCertificate], None],
    *,
    authority: str | None,
    dated: bool = False,
) -> Outcome:
    """As `store_signed`: what is signed must be stored. Revoked at once where `check` refuses it by now.

    The caller holds what `check` looks at; `authority` is the body that answers for the certificate.
    """
    issued = store_signed(connection, prepared, signed, now, dated=dated)
    try:
        check(issued)
    except Refusal as refusal:
        revoke_withheld(connection, [(issued, authority, refusal)], now=now, actor=prepared.actor)
        return Outcome(prepared, issued, refusal)
    return Outcome(prepared, issued)


def revoke_withheld(
    connection: Connection,
    withheld: Sequence[tuple[IssuedCertificate, str | None, Refusal]],
    *,
    now: datetime,
    actor: Actor,
) -> None:
    """Revoke what is stored and not handed out: each with the body that answers for it, and the refusal."""
    taking = [
        RevocationOrder(
            Revocable(issued, None, authority), RevocationReason.CESSATION_OF_OPERATION,
            f"no longer allowed when it was signed: {refusal.code}",
        )
        for issued, authority, refusal in withheld
    ]  # fmt: skip
    revoke.revoke_or_suspend(connection, taking, now=now, actor=actor)


def store_signed(
    connection: Connection, prepared: Prepared, signed: bytes, now: datetime, *, dated: bool = False
) -> IssuedCertificate:
    """Store a signed certificate once, with its audit line; two who asked for the same get the same.

    `dated` says that the caller read `now` under its locks.

    Refuses `issuance-abandoned` when recovery was faster: what it stored, it revoked.
    """
    reserved = prepared.reservation
    now = max(now if dated else present(connection, now), reserved.reserved_at)
    issued = as_issued(signed, reserved, now)
    detail = {"sha256": issued.sha256.hex(), "not_after": issued.not_after.isoformat()}
    line = _line(Event.CERTIFICATE_ISSUED, reserved, prepared.actor, now, **detail)
    if not certificates.add_certificate(connection, issued, line):
        if revocations.last_actions(connection, [reserved.serial]):
            text = "This issuance took too long and was abandoned: ask again with a new key."
            raise Refusal(Kind.CONFLICT, "issuance-abandoned", text)
        return certificates.find_certificate(connection, reserved.serial) or issued
    return issued


def bring_back(
    connection: Connection, reserved: Reservation, signed: bytes, actor: Actor, now: datetime
) -> IssuedCertificate:
    """Store a certificate that the signer made and the record lost, with its reservation if that is lost."""
    if reservations.load_reservation(connection, reserved.serial, lock=True) is None:
        line = _line(Event.CERTIFICATE_RESERVED, reserved, actor, now)
        reservations.add_reservation(connection, reserved, (), actor.name, line)
    prepared = resume(connection, reserved, actor)
    verify_signed(signed, reserved, prepared.authority)
    key = certificate_of(signed).public_key()
    if isinstance(key, EllipticCurvePublicKey | RSAPublicKey):
        blocked_keys.note(connection, {reserved.spki_sha256: key})
    return store_signed(connection, prepared, signed, now)


def verify_signed(signed: bytes, reserved: Reservation, authority: Authority) -> None:
    """Whether this is the reserved certificate under the CA's key; raises SignerMisbehaved when it is not."""
    try:
        certificate = x509.load_der_x509_certificate(signed)
        certificate.verify_directly_issued_by(certificate_of(authority.der))
    except (ValueError, TypeError, InvalidSignature) as error:
        raise SignerMisbehaved(f"no signature of {authority.id} under {reserved.serial}") from error
    if certificate.tbs_certificate_bytes != reserved.tbs:
        raise SignerMisbehaved(f"other bytes than those reserved under {reserved.serial}")


def as_issued(signed: bytes, reserved: Reservation, now: datetime) -> IssuedCertificate:
    """The row of a signed certificate: what it holds is read from its bytes, whom it serves is reserved."""
    certificate = x509.load_der_x509_certificate(signed)
    return IssuedCertificate(
        serial=reserved.serial, authority_id=reserved.authority_id, profile=reserved.profile,
        shard=reserved.shard, mailbox=reserved.mailbox, practitioner=reserved.practitioner,
        subject=subject_text(certificate.subject), spki_sha256=reserved.spki_sha256, der=signed,
        sha256=sha256(signed).digest(), not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc, issued_at=now,
    )  # fmt: skip


def key_already_certified(**details: str) -> Refusal:
    """A key serves one holder, once: shared keys and silent renewals are how keys of others get certified."""
    text = "This key has been certified or reserved already: make a new one."
    return Refusal(Kind.UNACCEPTABLE, "key-already-certified", text, **details)


def _line(event: Event, reserved: Reservation, actor: Actor, now: datetime, **detail: str) -> Line:
    return Line(now, actor, event, reserved.serial, _told(reserved) | detail)


def _record_all(
    connection: Connection, event: Event, reserved: Sequence[Reservation], actor: Actor, now: datetime
) -> None:
    lines = [(reservation.serial, _told(reservation)) for reservation in reserved]
    record_all(connection, now=now, actor=actor, event=event, lines=lines)


def _told(reserved: Reservation) -> dict[str, str | None]:
    return {
        "authority": reserved.authority_id,
        "profile": reserved.profile,
        "mailbox": reserved.mailbox,
        "practitioner": reserved.practitioner,
        "tbs_sha256": reserved.tbs_sha256.hex(),
    }

"""Reserve, lint, commit, sign, commit: the only road to a certificate.

`prepare` reserves a serial and stores the linted bytes in the caller's transaction; only what it returns
can be issued. Who may have a certificate, and what is done with one that went astray, is decided in
`use_cases`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from uuid import UUID

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import Connection, Engine

from directory.base.audit import Actor, Event, Line, record_all
from directory.base.db import transaction
from directory.base.errors import Kind, Refusal
from directory.base.instant import present
from pki.certificates.builder import Issuer, certificate_of, subject_text, unsigned
from pki.certificates.profiles import Names, Profile, Urls
from pki.certificates.public_keys import PublicKey, spki_sha256
from pki.certificates.validity import shard_of, validity
from pki.issuance import batch_store
from pki.lint import pkix
from pki.lint.catalogue import LINTS
from pki.lint.lint import Case, Finding, run
from pki.model import Authority, IssuedCertificate, Reservation, Serial, serial_of
from pki.record import authorities, certificates, reservations, revocations
from pki.revocation import blocked_keys
from pki.signing.signer import Signer

_SEAL = object()
_DER = Encoding.DER


class SignerMisbehaved(Exception):  # noqa: N818 - says what happened, as the log will
    """The signer answered with other than the reserved bytes under the CA's key: a bug or an attack."""


@dataclass(frozen=True)
class Wanted:
    """One certificate to be reserved among many: whose, under which profile, on which key."""

    profile: Profile
    public_key: PublicKey
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


def prepare(
    connection: Connection,
    *,
    now: datetime,
    actor: Actor,
    authority: Authority | str,
    profile: Profile,
    public_key: PublicKey,
    names: Names,
    base_url: str,
    mailbox: str | None = None,
    practitioner: str | None = None,
    enrolment_id: UUID | None = None,
    thorough: bool = True,
    opinion: pkix.SecondOpinion = pkix.findings,
    checked: blocked_keys.Checked | None = None,
    dated: bool = False,
) -> Prepared:
    """Reserve a serial for these names and key, linted; the caller commits, then calls `issue`.

    `authority` is a CA as it was found in this transaction, or its name; `checked` spares looking for the key
    among those that are blocked, once the caller has; `dated` says that it read `now` under its locks.
    `thorough` adds `opinion`, which is pkilint's. Refuses
    `unknown-authority`, `authority-expired`, `lint-failed`, `lint-unavailable`, and `key-already-certified`
    when the key serves an enrolment already.
    """
    now = now if dated else present(connection, now)
    # 1. Who signs, and until when.
    if isinstance(authority, str):
        authority = _authority(connection, authority)
    # A key once lost or listed is refused on every road, the service's own included.
    if checked is None or checked.spki_sha256 != spki_sha256(public_key):
        blocked_keys.check(connection, public_key)
    # 2. The linted bytes.
    reserved, lints = _draft(
        authority, now=now, profile=profile, public_key=public_key, names=names, base_url=base_url,
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
    wanted: Sequence[Wanted],
    *,
    now: datetime,
    actor: Actor,
    base_url: str,
) -> list[Prepared | Refusal]:
    """Reserve a serial for each by the same rules, own lints only, in two statements; what `prepare` refuses.

    In the order asked; the caller commits before anything is signed.
    """
    now = present(connection, now)
    drafts = [_drafted(authority, one, now, base_url) for one in wanted]
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
            one.serial,
            _told(reserved[one.serial].reservation)
            | {"sha256": one.sha256.hex(), "not_after": one.not_after.isoformat()},
        )
        for one in fresh
    ]
    if signed:
        actor = signed[0][0].actor
        record_all(connection, now=now, actor=actor, event=Event.CERTIFICATE_ISSUED, lines=lines)
    return {one.serial: one for one in fresh}


def _drafted(
    authority: Authority, wanted: Wanted, now: datetime, base_url: str
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
    public_key: PublicKey,
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
    shard = shard_of(serial, authority.shards)
    # 2. The bytes, readable before any CA key is touched.
    candidate = unsigned(
        serial=serial, profile=profile, names=names, public_key=public_key, issuer=issuer_of(authority),
        validity=validity(profile, authority, now), urls=Urls(base_url), shard=shard,
    )  # fmt: skip
    lints = check(candidate, profile, authority, mailbox, opinion=opinion)
    # 3. What may be signed, by its hash.
    tbs = candidate.tbs_certificate_bytes
    reserved = Reservation(
        serial=serial, authority_id=authority.id, profile=profile.name, shard=shard, mailbox=mailbox,
        practitioner=practitioner, enrolment_id=enrolment_id, spki_sha256=spki_sha256(public_key), tbs=tbs,
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


def check(
    candidate: x509.Certificate,
    profile: Profile,
    authority: Authority,
    mailbox: str | None,
    *,
    opinion: pkix.SecondOpinion | None,
) -> list[Mapping[str, str]]:
    """Lint; refuse `lint-failed` on a fault, give back what is only advice; None asks for no second opinion.

    Refuses `lint-unavailable` when the second opinion was asked for and did not come.
    """
    case = Case(
        candidate, profile, certificate_of(authority.der), mailbox, authority.crl_form, authority.role
    )
    wrong = run(LINTS, case)
    advised: list[Finding] = []
    if opinion is not None and not wrong:
        wrong, advised = opinion(candidate.public_bytes(_DER), profile.name)
    if wrong:
        text = f"The certificate would break a rule: {wrong[0].lint}: {wrong[0].text}."
        rows = [finding.as_row() for finding in wrong]
        raise Refusal(Kind.UNACCEPTABLE, "lint-failed", text, findings=rows)
    return [finding.as_row() for finding in advised]


def issue(engine: Engine, signer: Signer, prepared: Prepared, now: datetime) -> IssuedCertificate:
    """Sign a committed reservation and store the certificate; nothing is open while the signer works."""
    signed = sign(signer, prepared)
    with transaction(engine) as connection:
        return store_signed(connection, prepared, signed, now)


def sign(signer: Signer, prepared: Prepared) -> bytes:
    """The signer's certificate for this reservation, verified before anyone else sees it."""
    signed = signer.sign_certificate(prepared.reservation.serial)
    verify_signed(signed, prepared.reservation, prepared.authority)
    return signed


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


def issuer_of(authority: Authority) -> Issuer:
    """The CA as a certificate will name it."""
    certificate = certificate_of(authority.der)
    key = certificate.public_key()
    if not isinstance(key, EllipticCurvePublicKey):
        raise TypeError("CA keys are P-256 or P-384")
    return Issuer(authority.id, certificate, key, authority.crl_form)


def key_already_certified(**details: str) -> Refusal:
    """A key serves one holder, once: shared keys and silent renewals are how keys of others get certified."""
    text = "This key has been certified or reserved already: make a new one."
    return Refusal(Kind.UNACCEPTABLE, "key-already-certified", text, **details)


def _line(event: Event, reserved: Reservation, actor: Actor, now: datetime, **detail: str) -> Line:
    return Line(now, actor, event, reserved.serial, _told(reserved) | detail)


def _record_all(
    connection: Connection, event: Event, reserved: Sequence[Reservation], actor: Actor, now: datetime
) -> None:
    lines = [(one.serial, _told(one)) for one in reserved]
    record_all(connection, now=now, actor=actor, event=event, lines=lines)


def _told(reserved: Reservation) -> dict[str, str | None]:
    return {
        "authority": reserved.authority_id,
        "profile": reserved.profile,
        "mailbox": reserved.mailbox,
        "practitioner": reserved.practitioner,
        "tbs_sha256": reserved.tbs_sha256.hex(),
    }

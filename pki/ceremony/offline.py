"""The machine that no network reaches: root keys, requests in, certificates and root CRLs out. No database.

All it knows lies in one folder that people carry: the reviewed file's requests (`<CA>.csr`), the certificates
(`<id>.cer`, PEM), the root's CRL (`<root>.crl`). Safe to run again: what lies there and fits is kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from directory.base.durable_files import write_atomically
from directory.base.errors import Kind, Refusal
from pki.ceremony import build, signing, transcript
from pki.ceremony.build import Parent, ec_key
from pki.ceremony.perform import differences
from pki.ceremony.plan import Plan, Planned, PlannedAuthority, PlannedCross
from pki.ceremony.signing import KeyRing
from pki.ceremony.transcript import Step
from pki.certificates import csr as certification_request
from pki.certificates.builder import subject_of
from pki.crl.encoding import this_update
from pki.model import RevocationReason, Serial

# S/MIME BR 4.9.7: the CRL of a root at least once in twelve months.
LONGEST_ROOT_CRL = timedelta(days=365)
# Clocks of machines without a network go wrong by minutes.
CLOCK_SKEW = timedelta(minutes=10)
_FLAGS = {reason: x509.ReasonFlags(reason.value) for reason in RevocationReason}


@dataclass(frozen=True)
class Signed:
    """What the offline machine made: ids, what still lacks a request or a certificate, the transcript."""

    made: tuple[str, ...]
    missing: tuple[str, ...]
    transcript: str


def sign_all(plan: Plan, ring: KeyRing, folder: Path, now: datetime) -> Signed:
    """Make every certificate that a root of this machine has to sign and `folder` lacks.

    Refuses `ceremony-differs`, `request-unfit`, and what `signing` refuses.
    """
    made, missing, steps = [], [], []
    used: dict[str, EllipticCurvePrivateKey] = {}
    for planned in plan.in_order:
        root = plan.authority(planned.issuer or planned.id)
        if not (root.offline and ring.reaches(root)):
            continue
        if _certificate(plan, planned, folder) is not None:
            continue
        key = ring.key(root)[0] if planned.issuer is None else ring.held(root)
        public = _public_key(plan, planned, key, folder)
        parent = None if planned.issuer is None else _parent(plan, planned.issuer, folder)
        if public is None or (planned.issuer is not None and parent is None):
            missing.append(planned.id)
            continue
        signed = signing.sign(plan, planned, public=public, signing=key, parent=parent, now=now)
        pem = x509.load_der_x509_certificate(signed).public_bytes(Encoding.PEM)
        (folder / f"{planned.id}.cer").write_bytes(pem)
        used[root.id] = key
        made.append(planned.id)
        steps.append(Step(f"{planned.id}: signed by {root.id}, offline", signed))
    told = transcript.write(plan, steps, used, now) if used else ""
    return Signed(tuple(made), tuple(missing), told)


def root_crl(
    plan: Plan,
    root_id: str,
    ring: KeyRing,
    folder: Path,
    *,
    revoked: Mapping[Serial, RevocationReason],
    days: int,
    now: datetime,
) -> bytes:
    """The root's next CRL in DER, kept in `folder`: the entries of the one before, and these.

    Refuses `root-crl-too-long` above twelve months, `certificate-missing` without the root's certificate,
    `clock-before-root` when this machine's clock says a time before the root's notBefore.
    """
    if not timedelta(0) < timedelta(days=days) <= LONGEST_ROOT_CRL:
        text = f"A root's CRL holds for 1 to {LONGEST_ROOT_CRL.days} days."
        raise Refusal(Kind.MALFORMED, "root-crl-too-long", text)
    root = plan.authority(root_id)
    parent = _parent(plan, root_id, folder)
    if parent is None:
        text = f"{root_id}.cer is not in the folder: bring it, or sign it first."
        raise Refusal(Kind.NOT_FOUND, "certificate-missing", text)
    _check_clock(parent, now)
    path = folder / f"{root_id}.crl"
    before = x509.load_der_x509_crl(path.read_bytes()) if path.exists() else None
    made = _list(parent, ring.held(root), before, revoked, days, now)
    write_atomically(path, made, 0o666)
    return made


def _check_clock(root: Parent, now: datetime) -> None:
    """A clock set back would date entries before the root was; a lesser error is for the intake to see."""
    begins = root.certificate.not_valid_before_utc
    if now + CLOCK_SKEW < begins:
        text = (
            f"This machine's clock says {now.astimezone(UTC):%Y-%m-%d %H:%M} UTC, and {root.id} is valid"
            f" from {begins:%Y-%m-%d %H:%M} on: set the clock."
        )
        raise Refusal(Kind.CONFLICT, "clock-before-root", text)


def _floor(before: x509.CertificateRevocationList | None, at: datetime) -> datetime | None:
    """When the CRL before began; None when a clock set ahead made it: no later CRL would be taken in."""
    if before is None or before.last_update_utc > at + CLOCK_SKEW:
        return None
    return before.last_update_utc


def _list(  # noqa: PLR0917 - whose, under what, after what, with what, until when
    parent: Parent,
    key: EllipticCurvePrivateKey,
    before: x509.CertificateRevocationList | None,
    revoked: Mapping[Serial, RevocationReason],
    days: int,
    now: datetime,
) -> bytes:
    at = now.astimezone(UTC).replace(microsecond=0)
    entries = {revoked_before.serial_number: revoked_before for revoked_before in before or ()}
    new = {int(serial, 16): _entry(serial, reason, at) for serial, reason in revoked.items()}
    begins = this_update(
        at,
        before=_floor(before, at),
        listed=at if new.keys() - entries.keys() else None,
    )
    number = 1
    if before is not None:
        number += before.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    known = parent.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(parent.certificate.subject)
        .last_update(begins)
        .next_update(begins + timedelta(days=days))
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(known), critical=False)
        .add_extension(x509.CRLNumber(number), critical=False)
    )
    for entry in (new | entries).values():
        builder = builder.add_revoked_certificate(entry)
    digest = hashes.SHA384() if key.curve.name == "secp384r1" else hashes.SHA256()
    return builder.sign(key, digest).public_bytes(Encoding.DER)


def _entry(serial: Serial, reason: RevocationReason, at: datetime) -> x509.RevokedCertificate:
    return (
        x509.RevokedCertificateBuilder()
        .serial_number(int(serial, 16))
        .revocation_date(at)
        .add_extension(x509.CRLReason(_FLAGS[reason]), critical=False)
        .build()
    )


def _certificate(plan: Plan, planned: Planned, folder: Path) -> x509.Certificate | None:
    path = folder / f"{planned.id}.cer"
    if not path.exists():
        return None
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    wrong = differences(plan, planned, certificate, compare_urls=True)
    if wrong:
        text = f"{path.name} is there, and the file says otherwise of its {', '.join(wrong)}."
        raise Refusal(Kind.CONFLICT, "ceremony-differs", text, differs=wrong)
    return certificate


def _parent(plan: Plan, root_id: str, folder: Path) -> Parent | None:
    certificate = _certificate(plan, plan.authority(root_id), folder)
    return None if certificate is None else Parent(root_id, certificate)


def _public_key(
    plan: Plan, planned: Planned, key: EllipticCurvePrivateKey, folder: Path
) -> EllipticCurvePublicKey | None:
    """The key to certify: the root's own, that of the other root's certificate, or the request's."""
    if planned.issuer is None:
        return key.public_key()
    if isinstance(planned, PlannedCross):
        certified = _certificate(plan, plan.authority(planned.subject), folder)
        return None if certified is None else ec_key(certified)
    path = folder / f"{planned.id}.csr"
    return _requested(planned, path.read_bytes()) if path.exists() else None


def _requested(planned: PlannedAuthority, pem: bytes) -> EllipticCurvePublicKey:
    request = certification_request.read(pem)
    public = request.key
    if not isinstance(public, EllipticCurvePublicKey):
        raise build.unfit_key(public)
    if public.curve.name != planned.curve:
        raise _unfit(planned, f"its key is not on {planned.curve}", pem)
    if request.subject != subject_of(planned.names).public_bytes():
        raise _unfit(planned, "its subject is not the file's", pem)
    return public


def _unfit(planned: PlannedAuthority, reason: str, pem: bytes) -> Refusal:
    text = (
        f"The request for {planned.id} is not the reviewed one: {reason} (SHA-256 {sha256(pem).hexdigest()})."
    )
    return Refusal(Kind.UNACCEPTABLE, "request-unfit", text)

"""Whether a certificate leads to a trusted root, and stands: RFC 5280 6, as somebody outside decides it.

For certificates as our CAs make them. Chains with name constraints or policy rules, CRLs that are indirect or
for some reasons only, are refused rather than half understood. Pure; where certificates and CRLs come from is
for the caller.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.x509.oid import CRLEntryExtensionOID, ExtensionOID

from directory.base.errors import Kind, Refusal

E = TypeVar("E", bound=x509.ExtensionType)
# Root, cross certificate, issuing CA, leaf, and two generations between them.
LONGEST_PATH = 8
_SMALLEST_RSA = 2048
_STRONG = frozenset({"sha256", "sha384", "sha512"})
_UNDERSTOOD = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.CRL_DISTRIBUTION_POINTS,
        ExtensionOID.SUBJECT_KEY_IDENTIFIER,
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
        ExtensionOID.CERTIFICATE_POLICIES,
    }
)
# Not critical everywhere, yet they take trust away: to pass them over would be to trust too much.
_NARROWING = frozenset(
    {
        ExtensionOID.NAME_CONSTRAINTS,
        ExtensionOID.POLICY_CONSTRAINTS,
        ExtensionOID.POLICY_MAPPINGS,
        ExtensionOID.INHIBIT_ANY_POLICY,
    }
)
_UNDERSTOOD_OF_LISTS = frozenset(
    {ExtensionOID.ISSUING_DISTRIBUTION_POINT, ExtensionOID.DELTA_CRL_INDICATOR, ExtensionOID.CRL_NUMBER}
)
_UNDERSTOOD_OF_ENTRIES = frozenset({CRLEntryExtensionOID.CRL_REASON})
# Another CA of the same name is no path: what is wrong with the right one says more.
_SAYS_LITTLE = frozenset({"path-not-found", "path-signature"})
# What these parsers raise for bytes that are not what they should be.
_UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature, x509.DuplicateExtension)


def find_path(
    leaf: x509.Certificate,
    anchor: x509.Certificate,
    others: Sequence[x509.Certificate],
    lists: Sequence[x509.CertificateRevocationList],
    at: datetime,
) -> list[x509.Certificate]:
    """The first path from `leaf` up to just below `anchor` that holds at `at`, each certificate with a CRL.

    Refuses as `check_path` and `check_status` refuse the first path whose signatures hold; `path-not-found`
    when no names lead to the anchor.
    """
    text = f"No chain leads from {leaf.subject.rfc4514_string()} to this root."
    refusal = _refused("path-not-found", text)
    for path in _paths([leaf], anchor, others):
        try:
            check_path(path, anchor, at)
            for issued, issuer in zip(path, [*path[1:], anchor], strict=True):
                check_status(issued, issuer, lists, at)
        except Refusal as failure:
            if refusal.code in _SAYS_LITTLE:
                refusal = failure
            continue
        return path
    raise refusal


def check_path(path: Sequence[x509.Certificate], anchor: x509.Certificate, at: datetime) -> None:
    """Refuse `path-*` unless each of `path`, leaf first, is issued by the next, the last by `anchor`."""
    issuers = [*path[1:], anchor]
    for place, (certificate, issuer) in enumerate(zip(path, issuers, strict=True)):
        try:
            _check_extensions(certificate)
            _check_issued(certificate, issuer, at)
            if place:
                # Self-issued ones, as at a roll-over, do not count (RFC 5280 4.2.1.9).
                below = sum(intermediate.subject != intermediate.issuer for intermediate in path[1:place])
                _check_authority(certificate, below)
        except _UNREADABLE as error:
            raise _refused("path-unreadable", "A certificate of the chain cannot be read.") from error


def check_status(
    certificate: x509.Certificate,
    issuer: x509.Certificate,
    lists: Iterable[x509.CertificateRevocationList],
    at: datetime,
) -> None:
    """Refuse `path-revoked` when a CRL lists it, `path-status-unknown` when none that holds covers it."""
    usable = list(_usable(certificate, issuer, lists, at))
    complete = [listing for listing in usable if listing.base is None]
    if not complete:
        raise _refused(
            "path-status-unknown", "No CRL that holds says anything of a certificate of the chain."
        )
    newest = max(complete, key=lambda listing: listing.number)
    deltas = [
        listing
        for listing in usable
        if listing.base is not None
        and listing.base <= newest.number <= listing.number
        and listing.scope == newest.scope
    ]
    latest = max(deltas, key=lambda listing: listing.number, default=None)
    entry = None if latest is None else latest.entry
    entry = entry or newest.entry
    if entry is not None and _reason(entry) is not x509.ReasonFlags.remove_from_crl:
        text = f"{certificate.subject.rfc4514_string()} is revoked."
        raise _refused("path-revoked", text)


@dataclass(frozen=True)
class _Listing:
    """A CRL that covers the certificate asked about; `base` is None for a complete one."""

    number: int
    base: int | None
    scope: x509.IssuingDistributionPoint | None
    entry: x509.RevokedCertificate | None


def _paths(
    path: list[x509.Certificate], anchor: x509.Certificate, others: Sequence[x509.Certificate]
) -> Iterator[list[x509.Certificate]]:
    last = path[-1]
    if last.issuer == anchor.subject:
        yield path
    if len(path) == LONGEST_PATH:
        return
    for candidate in others:
        if candidate.subject == last.issuer and candidate not in path:
            yield from _paths([*path, candidate], anchor, others)


def _check_extensions(certificate: x509.Certificate) -> None:
    for extension in certificate.extensions:
        if extension.oid in _NARROWING:
            raise _refused("path-constrained", "The chain has constraints that are not evaluated here.")
        if extension.critical and extension.oid not in _UNDERSTOOD:
            raise _refused("path-critical-extension", "The chain has a critical extension that is unknown.")


def _check_issued(certificate: x509.Certificate, issuer: x509.Certificate, at: datetime) -> None:
    if not certificate.not_valid_before_utc <= at <= certificate.not_valid_after_utc:
        raise _refused("path-not-in-force", "A certificate of the chain has not begun, or has ended.")
    hashed = certificate.signature_hash_algorithm
    if not _is_strong(issuer) or hashed is None or hashed.name not in _STRONG:
        raise _refused("path-weak", "The chain has a key or a signature that is too weak.")
    try:
        certificate.verify_directly_issued_by(issuer)
    except _UNREADABLE as error:
        raise _refused("path-signature", "A certificate of the chain is not signed by the next.") from error


def _is_strong(issuer: x509.Certificate) -> bool:
    key = issuer.public_key()
    if isinstance(key, RSAPublicKey):
        return key.key_size >= _SMALLEST_RSA
    return isinstance(key, EllipticCurvePublicKey)


def _check_authority(certificate: x509.Certificate, below: int) -> None:
    constraints = _extension(certificate.extensions, x509.BasicConstraints)
    if constraints is None or not constraints.ca:
        raise _refused("path-not-authority", "A certificate of the chain belongs to no CA.")
    if constraints.path_length is not None and below > constraints.path_length:
        raise _refused("path-too-long", "There are more CAs in the chain than one of them allows.")
    usage = _extension(certificate.extensions, x509.KeyUsage)
    if usage is not None and not usage.key_cert_sign:
        raise _refused("path-not-authority", "A key of the chain is not for signing certificates.")


def _usable(
    certificate: x509.Certificate,
    issuer: x509.Certificate,
    lists: Iterable[x509.CertificateRevocationList],
    at: datetime,
) -> Iterator[_Listing]:
    for crl in lists:
        if crl.issuer != certificate.issuer or crl.issuer != issuer.subject:
            continue
        try:
            if _holds(crl, issuer, at) and _covers(crl, certificate):
                yield _listing(crl, certificate)
        except _UNREADABLE:
            continue  # What cannot be read says nothing; without another, the status is unknown.


def _holds(crl: x509.CertificateRevocationList, issuer: x509.Certificate, at: datetime) -> bool:
    until, key = crl.next_update_utc, issuer.public_key()
    usage = _extension(issuer.extensions, x509.KeyUsage)
    understood = all(
        not extension.critical or extension.oid in _UNDERSTOOD_OF_LISTS for extension in crl.extensions
    ) and all(
        not extension.critical or extension.oid in _UNDERSTOOD_OF_ENTRIES
        for entry in crl
        for extension in entry.extensions
    )
    return (
        until is not None
        and crl.last_update_utc <= at < until
        and understood
        and (usage is None or usage.crl_sign)
        and isinstance(key, RSAPublicKey | EllipticCurvePublicKey)
        and crl.is_signature_valid(key)
    )


def _covers(crl: x509.CertificateRevocationList, certificate: x509.Certificate) -> bool:
    """Whether the scope of this CRL (RFC 5280 5.2.5) holds this certificate, for every reason."""
    scope = _extension(crl.extensions, x509.IssuingDistributionPoint)
    if scope is None:
        return True
    if scope.indirect_crl or scope.only_some_reasons or scope.only_contains_attribute_certs:
        return False
    constraints = _extension(certificate.extensions, x509.BasicConstraints)
    is_authority = constraints is not None and constraints.ca
    if (scope.only_contains_user_certs and is_authority) or (
        scope.only_contains_ca_certs and not is_authority
    ):
        return False
    if scope.full_name is None and scope.relative_name is None:
        return True
    points = _extension(certificate.extensions, x509.CRLDistributionPoints) or ()
    named = {name for point in points if not point.crl_issuer for name in point.full_name or ()}
    return bool(named & set(scope.full_name or ()))


def _listing(crl: x509.CertificateRevocationList, certificate: x509.Certificate) -> _Listing:
    number = _extension(crl.extensions, x509.CRLNumber)
    base = _extension(crl.extensions, x509.DeltaCRLIndicator)
    return _Listing(
        number=0 if number is None else number.crl_number,
        base=None if base is None else base.crl_number,
        scope=_extension(crl.extensions, x509.IssuingDistributionPoint),
        entry=crl.get_revoked_certificate_by_serial_number(certificate.serial_number),
    )


def _reason(entry: x509.RevokedCertificate) -> x509.ReasonFlags | None:
    reason = _extension(entry.extensions, x509.CRLReason)
    return None if reason is None else reason.reason


def _extension(extensions: x509.Extensions, kind: type[E]) -> E | None:
    try:
        return extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _refused(code: str, text: str) -> Refusal:
    return Refusal(Kind.UNACCEPTABLE, code, text)

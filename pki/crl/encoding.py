"""Certificate revocation lists: rows to DER (RFC 5280 5). Pure."""

from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from directory.base.tlv import tlv
from pki.certificates import der, identifiers
from pki.certificates.profiles import BACKDATING
from pki.certificates.signature_algorithms import ALGORITHMS
from pki.crl import distribution_points
from pki.model import REASON_CODES, Authority, RevocationReason, Serial

_REMOVE_FROM_CRL = 8


def entry_der(serial: Serial, revoked_at: datetime, reason: RevocationReason) -> bytes:
    """One element of revokedCertificates (RFC 5280 5.1.2.6), made once, when the revocation is recorded."""
    return _entry(serial, revoked_at, REASON_CODES[reason])


def removal_der(serial: Serial, released_at: datetime) -> bytes:
    """The element of a delta that takes a hold back: reason removeFromCRL (RFC 5280 5.3.1)."""
    return _entry(serial, released_at, _REMOVE_FROM_CRL)


def tbs_der(
    authority: Authority,
    points: distribution_points.Points,
    number: int,
    *,
    this_update: datetime,
    next_update: datetime,
    joined: bytes,
    base: int | None = None,
) -> bytes:
    """TBSCertList (RFC 5280 5.1.2) around entries already in DER, whose number costs nothing.

    With `base`, the number of a complete CRL, it is a delta to that one.
    """
    # "MUST NOT be present" when nothing is revoked (RFC 5280 5.1.2.6).
    revoked = tlv(0x30, joined) if joined else b""
    return der.sequence(
        der.integer(1),
        signature_algorithm(authority.der),
        identifiers.issuer_fields(authority.der)[0],
        der.time(this_update),
        der.time(next_update),
        revoked,
        der.explicit(0, der.sequence(*_extensions(authority, points, number, base))),
    )


def signature_algorithm(certificate: bytes) -> bytes:
    """The AlgorithmIdentifier under which this CA's key signs."""
    key = x509.load_der_x509_certificate(certificate).public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise TypeError("CA keys are P-256 or P-384")
    return ALGORITHMS[key.curve.name][1]


def _entry(serial: Serial, at: datetime, code: int) -> bytes:
    reason = der.extension("2.5.29.21", der.enumerated(code))
    return der.sequence(der.integer(int(serial, 16)), der.time(at), der.sequence(reason))


def _extensions(
    authority: Authority, points: distribution_points.Points, number: int, base: int | None
) -> list[bytes]:
    key = der.sequence(tlv(0x80, identifiers.key_identifier(authority.der)))
    made = [der.extension("2.5.29.35", key), der.extension("2.5.29.20", der.integer(number))]
    if base is not None:
        made.append(der.extension("2.5.29.27", der.integer(base), critical=True))
    if points.scope is not None:
        made.append(der.extension("2.5.29.28", der.sequence(_point(points.scope)), critical=True))
    if points.delta is not None and base is None:
        # One DistributionPoint of one name; a delta itself must not have it (RFC 5280 5.2.6).
        made.append(der.extension("2.5.29.46", der.sequence(der.sequence(_point(points.delta)))))
    return made


def _point(url: str) -> bytes:
    """A distributionPoint: [0] { fullName [0] { uniformResourceIdentifier [6] } }."""
    return der.explicit(0, der.explicit(0, tlv(0x86, url.encode("ascii"))))


def this_update(now: datetime, *, before: datetime | None, listed: datetime | None) -> datetime:
    """When a CRL made `now` begins: as long ago as notBefore of a certificate.

    Readers whose clocks run late refuse a CRL of a second to come. `listed` is the latest date that the CRL
    is the first to list: it begins in that second or later. `before` is when the CRL before began: it begins
    later, or both would have to share a number (RFC 5280 5.2.3).
    """
    later = [] if before is None else [before + timedelta(seconds=1)]
    later += [] if listed is None else [listed]
    return max([now - BACKDATING, *later]).replace(microsecond=0)

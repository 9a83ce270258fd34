"""A CRL taken apart, signed or not. Whether it may be signed is for `checks`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from directory.base.errors import Kind, Refusal
from pki.certificates import der
from pki.crl.distribution_points import Points, delta_url_of, scope_of

_UNSIGNED = der.bit_string(b"")
# version, signature, issuer, thisUpdate, nextUpdate, revokedCertificates, crlExtensions.
_FIELDS_WITH_ENTRIES = 7
# A serial number in DER: positive, in its shortest form, below 2^159 in 20 octets (RFC 5280 4.1.2.2).
_NUMBER = rb"\x02(?:\x01[\x01-\x7f]|%s)" % b"|".join(
    rb"\x%02x(?:[\x01-\x7f][\0-\xff]{%d}|\0[\x80-\xff][\0-\xff]{%d})" % (size, size - 1, size - 2)
    for size in range(20, 1, -1)
)
_TIME = rb"(?:\x17\x0d\d{12}Z|\x18\x0f\d{14}Z)"
# Reason codes of RFC 5280 5.3.1; 0 must be left out, 7 is unused.
_REASON = re.escape(bytes.fromhex("300c300a0603551d1504030a01")) + rb"[\x01-\x06\x08-\x0a]"
# What `encoding.entry_der` makes, and nothing else; no entry reaches the long form of a length. One pattern
# goes through a hundred thousand in hundredths of a second, a parser that makes objects of them in half a
# second.
_ENTRY = re.compile(rb"\x30[\0-\x7f]" + _NUMBER + _TIME + _REASON)


@dataclass(frozen=True)
class Listing:
    """A CRL taken apart, signed or not; `key` is the keyIdentifier of its issuer, `base` None unless a delta.

    `entries` are the elements of revokedCertificates in DER.
    """

    issuer: bytes
    key: bytes | None
    points: Points
    number: int
    base: int | None
    this_update: datetime
    next_update: datetime
    entries: frozenset[bytes]

    @property
    def serials(self) -> frozenset[int]:
        """The serial numbers listed, read from the entries when asked for."""
        return frozenset(map(serial_in, self.entries))


def parse(whole: bytes) -> Listing:
    """A complete CertificateList taken apart; Refusal UNACCEPTABLE when it is none of ours."""
    try:
        crl = x509.load_der_x509_crl(whole)
        # Through the list once: no lookup by serial, which would be linear each time.
        serials = [entry.serial_number for entry in crl]
        tbs = crl.tbs_certlist_bytes
    except ValueError as error:
        raise _malformed() from error
    if serials and not 0 < min(serials) <= max(serials) < 1 << 159:
        raise refused("crl-malformed", "A serial number is out of range.")
    return _listing(crl, tbs, serials, entries_of(tbs))


def parse_reserved(tbs: bytes) -> Listing:
    """As `parse`, of bytes without their signature, each of whose entries must be as we make them."""
    try:
        crl = x509.load_der_x509_crl(_unsigned(tbs))
        listed = _listed(tbs)
    except ValueError as error:
        raise _malformed() from error
    entries = _ENTRY.findall(listed)
    if not _tile(entries, listed):
        raise refused("crl-malformed", "An entry is not a serial number with a time and a reason.")
    # Both headers, of the entry and of its serial number, have two octets.
    return _listing(crl, tbs, [int.from_bytes(entry[4 : 4 + entry[3]], "big") for entry in entries], entries)


def _listing(
    crl: x509.CertificateRevocationList,
    tbs: bytes,
    serials: Sequence[int],
    entries: Sequence[bytes],
) -> Listing:
    try:
        extensions = crl.extensions
        key = extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
        number = extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        points, base = Points(scope_of(extensions), delta_url_of(extensions)), _base(extensions)
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension) as error:
        raise _malformed() from error
    if len(set(serials)) != len(serials):
        raise refused("crl-duplicate", "A serial number is listed twice.")
    return Listing(
        issuer=list(der.elements(der.content(tbs)))[2],
        key=key,
        points=points,
        number=number,
        base=base,
        this_update=crl.last_update_utc,
        next_update=crl.next_update_utc or crl.last_update_utc,
        entries=frozenset(entries),
    )


def number_of(whole: bytes) -> int:
    """The number of a CRL of ours, whose signature was checked before it was published."""
    extensions = x509.load_der_x509_crl(whole).extensions
    return extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def _base(extensions: x509.Extensions) -> int | None:
    for extension in extensions:
        if isinstance(extension.value, x509.DeltaCRLIndicator):
            if not extension.critical:
                raise ValueError("delta indicator not critical")
            return extension.value.crl_number
    return None


def _listed(tbs: bytes) -> bytes:
    """The elements of revokedCertificates, joined, of a TBSCertList with nextUpdate; ValueError."""
    fields = list(der.elements(der.content(tbs)))
    return der.content(fields[5]) if len(fields) == _FIELDS_WITH_ENTRIES else b""


def entries_of(tbs: bytes) -> Sequence[bytes]:
    """The elements of revokedCertificates; of another tool's, which may have other extensions, too."""
    listed = _listed(tbs)
    ours: list[bytes] = _ENTRY.findall(listed)
    return ours if _tile(ours, listed) else list(der.elements(listed))


def _tile(entries: Sequence[bytes], listed: bytes) -> bool:
    """Whether these, found one after the other, leave no octet out, and each is as long as it says."""
    whole = sum(map(len, entries)) == len(listed)
    return whole and all(entry[1] == len(entry) - 2 for entry in entries)


def serial_in(entry: bytes) -> int:
    """The serial number of an entry of revokedCertificates."""
    return int.from_bytes(der.content(next(der.elements(der.content(entry)))), "big")


def _unsigned(tbs: bytes) -> bytes:
    """The bytes as a CertificateList with an empty signature, so that a strict parser can read them."""
    return der.sequence(tbs, algorithm_of(tbs), _UNSIGNED)


def algorithm_of(tbs: bytes) -> bytes:
    """The AlgorithmIdentifier that must be repeated beside the signature (RFC 5280 5.1.1.2)."""
    try:
        return list(der.elements(der.content(tbs)))[1]
    except (ValueError, IndexError) as error:
        raise refused("crl-malformed", "These bytes are not a TBSCertList.") from error


def _malformed() -> Refusal:
    return refused("crl-malformed", "This is not a CRL with a number and an issuer key.")


def refused(code: str, text: str) -> Refusal:
    """The refusal of a CRL."""
    return Refusal(Kind.UNACCEPTABLE, code, text)

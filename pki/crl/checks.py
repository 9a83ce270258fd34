"""The last look before a CRL is signed, and again before its signed bytes go out.

The signer calls `check_crl` on the committed bytes with its own connection; the publisher calls
`check_signed` on what came back. Every check is an incident of some CA (docs/reference/status.md). What a CRL
holds is `publish`'s matter.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtensionOID
from sqlalchemy import Connection

from directory.base.errors import Kind, Refusal
from pki.certificates import der
from pki.certificates.profiles import Urls
from pki.crl import store as crl_store
from pki.model import Authority, CrlForm, serial_of
from pki.rollback import detection as completeness

# Baseline requirements 7.2: ten days at most between thisUpdate and nextUpdate.
LONGEST_LIFE = timedelta(days=10)
# The publisher's clock and the signer's are on machines of one site.
CLOCK_SKEW = timedelta(minutes=1)
# What was reserved longer ago than that has been overtaken: it must not be signed late.
OLDEST_RESERVATION = timedelta(minutes=15)
# RFC 5758 3.2: the hash that fits the curve.
_DIGESTS: dict[str, hashes.HashAlgorithm] = {"secp256r1": hashes.SHA256(), "secp384r1": hashes.SHA384()}
_UNSIGNED = der.bit_string(b"")
# How an entry of ours ends that takes a hold back: its only extension says removeFromCRL.
_REMOVED = der.enumerated(8)
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
# What `publish.entry_der` makes, and nothing else; no entry reaches the long form of a length. One pattern
# goes through a hundred thousand in hundredths of a second, a parser that makes objects of them in half a
# second.
_ENTRY = re.compile(rb"\x30[\0-\x7f]" + _NUMBER + _TIME + _REASON)


@dataclass(frozen=True)
class Points:
    """The URLs a CRL names: `scope`, which its IssuingDistributionPoint holds, and that of its delta."""

    scope: str | None
    delta: str | None


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
        return frozenset(map(_serial, self.entries))


def points(connection: Connection, authority: Authority, shard: int) -> Points:
    """The URLs that the CRL of a shard must name. Refusal NOT_FOUND when there is no issuing CA yet.

    None of a plain CA, nor scope for any with one shard, whose CRL covers everything: scoped to a URL, it
    would not cover a root itself, which names none (openssl -crl_check_all asks).

    The base is the one that the ceremony wrote into the CA certificates, taken from there rather than from a
    setting: an IssuingDistributionPoint must equal what certificates say already, and a setting may change
    after them.
    """
    if authority.crl_form is CrlForm.PLAIN:
        return Points(None, None)
    issued = crl_store.an_issued_authority(connection)
    if issued is None:
        raise Refusal(Kind.NOT_FOUND, "unknown-authority", "There is no issuing CA yet.")
    certificate = x509.load_der_x509_certificate(issued)
    named = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    base, _, _ = _only_url(named[0].full_name).rpartition("/crl/")
    scope = Urls(base).crl(authority.id, shard) if authority.shards > 1 else None
    return Points(scope, Urls(base).delta_crl(authority.id, shard))


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
        raise _refused("crl-malformed", "A serial number is out of range.")
    return _listing(crl, tbs, serials, _entries(tbs))


def _parse_reserved(tbs: bytes) -> Listing:
    """As `parse`, of bytes without their signature, each of whose entries must be as we make them."""
    try:
        crl = x509.load_der_x509_crl(_unsigned(tbs))
        listed = _listed(tbs)
    except ValueError as error:
        raise _malformed() from error
    entries = _ENTRY.findall(listed)
    if not _tile(entries, listed):
        raise _refused("crl-malformed", "An entry is not a serial number with a time and a reason.")
    # Both headers, of the entry and of its serial number, have two octets.
    return _listing(crl, tbs, [int.from_bytes(one[4 : 4 + one[3]], "big") for one in entries], entries)


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
        points, base = Points(_scope(extensions), _delta_url(extensions)), _base(extensions)
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension) as error:
        raise _malformed() from error
    if len(set(serials)) != len(serials):
        raise _refused("crl-duplicate", "A serial number is listed twice.")
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


def check_crl(  # noqa: PLR0917 - the place, the number, the bytes, the instant: an order to remember
    connection: Connection,
    authority: Authority,
    shard: int,
    number: int,
    tbs: bytes,
    now: datetime,
    *,
    least: int = 0,
) -> None:
    """Whether these bytes may be signed as CRL `number` of the shard; Refusal UNACCEPTABLE says why not.

    `least` is how many events were known to the CRL before, as remembered outside the record: one that rests
    on fewer is refused `record-behind` (Kind.UNAVAILABLE).
    """
    reserved = crl_store.reserved(connection, authority.id, shard, number)
    if reserved is None or reserved.tbs_sha256 != sha256(tbs).digest():
        raise _refused("crl-unreserved", "No CRL of that number with these bytes waits to be signed.")
    listing = _parse_reserved(tbs)
    wanted = points(connection, authority, shard)
    # A delta must not name a fresher one (RFC 5280 5.2.6); its scope is that of its base.
    wanted = wanted if reserved.base is None else Points(wanted.scope, None)
    _check_identity(listing, authority, wanted, number)
    if len(listing.entries) != reserved.entries:
        raise _refused("crl-miscounted", "The CRL does not list as many entries as were reserved.")
    _check_times(listing, now)
    _check_order(listing, reserved.watermark, crl_store.newest(connection, authority.id, shard))
    if reserved.watermark < least:
        # The record itself may agree with such a CRL: it was restored from a backup.
        raise completeness.behind()
    if listing.base is not None and authority.crl_form is CrlForm.PLAIN:
        raise _refused("crl-form", "The CRL is a delta, and those of this CA are plain.")
    if listing.base != reserved.base:
        raise _refused("crl-base", "The CRL completes another one than was reserved.")
    if reserved.base is None:
        _check_sequel(connection, listing, crl_store.latest(connection, authority.id, shard))
    else:
        _check_difference(connection, listing, reserved, authority, shard)


def check_signed(whole: bytes, tbs: bytes, authority: Authority) -> None:
    """Whether the signed bytes are those that were reserved, under the CA's own key."""
    key = x509.load_der_x509_certificate(authority.der).public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise TypeError("CA keys are P-256 or P-384")
    try:
        crl = x509.load_der_x509_crl(whole)
        # Over the bytes themselves: the library would write five megabytes anew before it verifies them.
        key.verify(crl.signature, tbs, ec.ECDSA(_DIGESTS[key.curve.name]))
        ours = whole == der.sequence(tbs, _algorithm(tbs), der.bit_string(crl.signature))
    except (ValueError, InvalidSignature):
        ours = False
    if not ours:
        raise _refused("crl-signature", "The signer's answer is not this CRL under this CA's key.")


def issuer_fields(certificate: bytes) -> tuple[bytes, bytes]:
    """A CA's subject and SubjectPublicKeyInfo in DER, byte for byte as its certificate has them."""
    tbs = next(der.elements(der.content(certificate)))
    fields = list(der.elements(der.content(tbs)))
    return fields[5], fields[6]


def key_identifier(certificate: bytes) -> bytes:
    """The subjectKeyIdentifier of a CA's certificate."""
    extensions = x509.load_der_x509_certificate(certificate).extensions
    return extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest


def _check_identity(listing: Listing, authority: Authority, wanted: Points, number: int) -> None:
    """Another CA's CRL, or another shard's, once stood in the place of the right one."""
    if listing.issuer != issuer_fields(authority.der)[0]:
        raise _refused("crl-issuer", "The CRL's issuer is not the CA's subject, byte for byte.")
    if listing.key != key_identifier(authority.der):
        raise _refused("crl-issuer-key", "The CRL names another issuer key than the CA's.")
    if listing.points != wanted:
        raise _refused("crl-url", "The CRL's distribution points are not those of its shard.")
    if listing.number != number:
        raise _refused("crl-number", "The CRL carries another number than the one reserved.")


def _check_times(listing: Listing, now: datetime) -> None:
    if not now - OLDEST_RESERVATION <= listing.this_update <= now + CLOCK_SKEW:
        raise _refused("crl-time", "thisUpdate is not now.")
    if not timedelta(0) < listing.next_update - listing.this_update <= LONGEST_LIFE:
        raise _refused("crl-time", "nextUpdate is not within ten days after thisUpdate.")


def _check_order(listing: Listing, watermark: int, newest: crl_store.Numbered | None) -> None:
    """Numbers and knowledge only grow: a CRL from a stale copy once un-revoked nine tenths of its entries."""
    if newest is None:
        return
    if listing.number <= newest.number or listing.this_update < newest.this_update:
        raise _refused("crl-number", "A later CRL of this shard has been signed already.")
    if watermark < newest.watermark:
        raise _refused("crl-stale", "The CRL rests on fewer revocations than the one before.")


def _check_sequel(connection: Connection, listing: Listing, previous: crl_store.Published | None) -> None:
    """What the complete CRL before listed is listed, or had to go."""
    if previous is None:
        return
    extensions = x509.load_der_x509_crl(previous.der).extensions
    if listing.points.scope != _scope(extensions):
        raise _refused("crl-url", "The distribution point differs from that of the CRL before.")
    # By their bytes; only what differs is looked into.
    gone = set(_entries(next(der.elements(der.content(previous.der))))) - listing.entries
    vanished = {_serial(entry) for entry in gone} - (listing.serials if gone else frozenset())
    owed = crl_store.still_owed(connection, map(serial_of, vanished), previous.this_update)
    if owed:
        text = f"{len(owed)} entries of the CRL before are missing without having expired."
        raise _refused("crl-vanished", text)


def _check_difference(
    connection: Connection, listing: Listing, reserved: crl_store.Reserved, authority: Authority, shard: int
) -> None:
    """A delta and its base together say all there is: each event is known to the base, or in the delta."""
    number, after = reserved.number, reserved.base or 0
    base = crl_store.complete(connection, authority.id, shard, after)
    if base is None or base.next_update <= listing.this_update:
        raise _refused("crl-base", "The delta's base is not a complete CRL in force.")
    events = crl_store.events_between(connection, authority.id, shard, after, number)
    if base.watermark + events < reserved.watermark:
        raise _refused("crl-stale", "Some revocations are neither in the delta nor in its base.")
    changed = crl_store.changed(connection, authority.id, shard, after, number)
    removals = {entry for entry in listing.entries if entry.endswith(_REMOVED)}
    released = {serial_of(_serial(entry)) for entry in removals}
    if listing.entries - removals != set(der.elements(changed.joined)) or released != set(changed.released):
        raise _refused("crl-difference", "The delta does not list exactly what changed since its base.")


def _scope(extensions: x509.Extensions) -> str | None:
    points = [found for found in extensions if found.oid == ExtensionOID.ISSUING_DISTRIBUTION_POINT]
    if not points:
        return None
    value = points[0].value
    if not points[0].critical or not isinstance(value, x509.IssuingDistributionPoint):
        raise ValueError("distribution point not critical")
    return _only_url(value.full_name)


def _delta_url(extensions: x509.Extensions) -> str | None:
    for found in extensions:
        if isinstance(found.value, x509.FreshestCRL):
            return _only_url(found.value[0].full_name)
    return None


def _base(extensions: x509.Extensions) -> int | None:
    for found in extensions:
        if isinstance(found.value, x509.DeltaCRLIndicator):
            if not found.critical:
                raise ValueError("delta indicator not critical")
            return found.value.crl_number
    return None


def _listed(tbs: bytes) -> bytes:
    """The elements of revokedCertificates, joined, of a TBSCertList with nextUpdate; ValueError."""
    fields = list(der.elements(der.content(tbs)))
    return der.content(fields[5]) if len(fields) == _FIELDS_WITH_ENTRIES else b""


def _entries(tbs: bytes) -> Sequence[bytes]:
    """The elements of revokedCertificates; of another tool's, which may have other extensions, too."""
    listed = _listed(tbs)
    ours: list[bytes] = _ENTRY.findall(listed)
    return ours if _tile(ours, listed) else list(der.elements(listed))


def _tile(entries: Sequence[bytes], listed: bytes) -> bool:
    """Whether these, found one after the other, leave no octet out, and each is as long as it says."""
    whole = sum(map(len, entries)) == len(listed)
    return whole and all(entry[1] == len(entry) - 2 for entry in entries)


def _serial(entry: bytes) -> int:
    return int.from_bytes(der.content(next(der.elements(der.content(entry)))), "big")


def _only_url(names: list[x509.GeneralName] | None) -> str:
    if names is None or len(names) != 1:
        raise ValueError("not exactly one name")
    return str(names[0].value)


def _unsigned(tbs: bytes) -> bytes:
    """The bytes as a CertificateList with an empty signature, so that a strict parser can read them."""
    return der.sequence(tbs, _algorithm(tbs), _UNSIGNED)


def _algorithm(tbs: bytes) -> bytes:
    """The AlgorithmIdentifier that must be repeated beside the signature (RFC 5280 5.1.1.2)."""
    try:
        return list(der.elements(der.content(tbs)))[1]
    except (ValueError, IndexError) as error:
        raise _refused("crl-malformed", "These bytes are not a TBSCertList.") from error


def _malformed() -> Refusal:
    return _refused("crl-malformed", "This is not a CRL with a number and an issuer key.")


def _refused(code: str, text: str) -> Refusal:
    return Refusal(Kind.UNACCEPTABLE, code, text)

"""The last look before a CRL is signed, and again before its signed bytes go out.

The signer calls `check_crl` on the committed bytes with its own connection; the publisher calls
`check_signed` on what came back. Every check is an incident of some CA (docs/reference/status.md). What a CRL
holds is `crl`'s matter.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.x509.oid import ExtensionOID
from sqlalchemy import Connection

from directory.base.errors import Kind, Refusal
from pki import crl_store, der
from pki.model import Authority, Serial, serial_of
from pki.profiles import Urls

# Baseline requirements 7.2: ten days at most between thisUpdate and nextUpdate.
LONGEST_LIFE = timedelta(days=10)
# The publisher's clock and the signer's are on machines of one site.
CLOCK_SKEW = timedelta(minutes=1)
# What was reserved longer ago than that has been overtaken: it must not be signed late.
OLDEST_RESERVATION = timedelta(minutes=15)
_UNSIGNED = der.bit_string(b"")


@dataclass(frozen=True)
class Listing:
    """A CRL taken apart, signed or not; `url` is that of its shard, `key` the keyIdentifier of its issuer."""

    issuer: bytes
    key: bytes | None
    url: str | None
    number: int
    this_update: datetime
    next_update: datetime
    serials: frozenset[Serial]


def crl_url(connection: Connection, authority: Authority, shard: int) -> str | None:
    """The URL that the CRL of a shard must name; None for a CA with one shard, whose CRL covers everything.

    Scoped to a URL, a CRL would not cover the root itself, which names none (openssl -crl_check_all asks).
    The base is the one that the ceremony wrote into the CA certificates.

    Taken from there rather than from a setting: an IssuingDistributionPoint must equal what certificates say
    already, and a setting may change after them. Refusal NOT_FOUND when there is no CA yet.
    """
    if authority.shards == 1:
        return None
    issued = crl_store.an_issued_authority(connection)
    if issued is None:
        raise Refusal(Kind.NOT_FOUND, "unknown-authority", "There is no issuing CA yet.")
    certificate = x509.load_der_x509_certificate(issued)
    points = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    base, _, _ = _only_url(points[0].full_name).rpartition("/crl/")
    return Urls(base).crl(authority.id, shard)


def parse(whole: bytes) -> Listing:
    """A complete CertificateList taken apart; Refusal UNACCEPTABLE when it is none of ours."""
    try:
        crl = x509.load_der_x509_crl(whole)
        # Through the list once: no lookup by serial, which would be linear each time.
        serials = [serial_of(entry.serial_number) for entry in crl]
        extensions = crl.extensions
        key = extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
        number = extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        url = _scope(extensions)
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension) as error:
        raise _refused("crl-malformed", "This is not a CRL with a number and an issuer key.") from error
    if len(set(serials)) != len(serials):
        raise _refused("crl-duplicate", "A serial number is listed twice.")
    fields = list(der.elements(der.content(crl.tbs_certlist_bytes)))
    return Listing(
        issuer=fields[2],
        key=key,
        url=url,
        number=number,
        this_update=crl.last_update_utc,
        next_update=crl.next_update_utc or crl.last_update_utc,
        serials=frozenset(serials),
    )


def check_crl(  # noqa: PLR0917 - the place, the number, the bytes, the instant: an order to remember
    connection: Connection, authority: Authority, shard: int, number: int, tbs: bytes, now: datetime
) -> None:
    """Whether these bytes may be signed as CRL `number` of the shard; Refusal UNACCEPTABLE says why not."""
    reserved = crl_store.reserved(connection, authority.id, shard, number)
    if reserved is None or reserved.tbs != tbs:
        raise _refused("crl-unreserved", "No CRL of that number with these bytes waits to be signed.")
    listing = parse(_unsigned(tbs))
    _check_identity(listing, authority, crl_url(connection, authority, shard), number)
    if len(listing.serials) != reserved.entries:
        raise _refused("crl-miscounted", "The CRL does not list as many entries as were reserved.")
    _check_times(listing, now)
    previous = crl_store.latest(connection, authority.id, shard)
    if previous is not None:
        _check_sequel(connection, listing, reserved.watermark, previous)


def check_signed(whole: bytes, tbs: bytes, authority: Authority) -> None:
    """Whether the signed bytes are those that were reserved, under the CA's own key."""
    key = x509.load_der_x509_certificate(authority.der).public_key()
    try:
        crl = x509.load_der_x509_crl(whole)
        ours = crl.tbs_certlist_bytes == tbs and crl.is_signature_valid(key)  # type: ignore[arg-type]  # it signs
    except ValueError:
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


def _check_identity(listing: Listing, authority: Authority, url: str | None, number: int) -> None:
    """Another CA's CRL, or another shard's, once stood in the place of the right one."""
    if listing.issuer != issuer_fields(authority.der)[0]:
        raise _refused("crl-issuer", "The CRL's issuer is not the CA's subject, byte for byte.")
    if listing.key != key_identifier(authority.der):
        raise _refused("crl-issuer-key", "The CRL names another issuer key than the CA's.")
    if listing.url != url:
        raise _refused("crl-url", "The CRL's distribution point is not that of its shard.")
    if listing.number != number:
        raise _refused("crl-number", "The CRL carries another number than the one reserved.")


def _check_times(listing: Listing, now: datetime) -> None:
    if not now - OLDEST_RESERVATION <= listing.this_update <= now + CLOCK_SKEW:
        raise _refused("crl-time", "thisUpdate is not now.")
    if not timedelta(0) < listing.next_update - listing.this_update <= LONGEST_LIFE:
        raise _refused("crl-time", "nextUpdate is not within ten days after thisUpdate.")


def _check_sequel(
    connection: Connection, listing: Listing, watermark: int, previous: crl_store.Published
) -> None:
    """Numbers and knowledge only grow: a CRL from a stale copy once un-revoked nine tenths of its entries."""
    if listing.number <= previous.number or listing.this_update < previous.this_update:
        raise _refused("crl-number", "A later CRL of this shard has been signed already.")
    if watermark < previous.watermark:
        raise _refused("crl-stale", "The CRL rests on fewer revocations than the one before.")
    before = parse(previous.der)
    if listing.url != before.url:
        raise _refused("crl-url", "The distribution point differs from that of the CRL before.")
    owed = crl_store.still_owed(connection, before.serials - listing.serials, previous.this_update)
    if owed:
        text = f"{len(owed)} entries of the CRL before are missing without having expired."
        raise _refused("crl-vanished", text)


def _scope(extensions: x509.Extensions) -> str | None:
    points = [found for found in extensions if found.oid == ExtensionOID.ISSUING_DISTRIBUTION_POINT]
    if not points:
        return None
    value = points[0].value
    if not points[0].critical or not isinstance(value, x509.IssuingDistributionPoint):
        raise ValueError("distribution point not critical")
    return _only_url(value.full_name)


def _only_url(names: list[x509.GeneralName] | None) -> str:
    if names is None or len(names) != 1:
        raise ValueError("not exactly one name")
    return str(names[0].value)


def _unsigned(tbs: bytes) -> bytes:
    """The bytes as a CertificateList with an empty signature, so that a strict parser can read them."""
    try:
        algorithm = list(der.elements(der.content(tbs)))[1]
    except (ValueError, IndexError) as error:
        raise _refused("crl-malformed", "These bytes are not a TBSCertList.") from error
    return der.sequence(tbs, algorithm, _UNSIGNED)


def _refused(code: str, text: str) -> Refusal:
    return Refusal(Kind.UNACCEPTABLE, code, text)

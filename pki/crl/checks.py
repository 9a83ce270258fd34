"""The last look before a CRL is signed, and again before its signed bytes go out.

The signer calls `check_crl` on the committed bytes with its own connection; the publisher calls
`check_signed` on what came back. Every check is an incident of some CA (docs/reference/status.md). What a CRL
holds is `encoding`'s matter.
"""

from datetime import datetime, timedelta
from hashlib import sha256

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import Connection

from pki.certificates import der
from pki.certificates.identifiers import issuer_fields, key_identifier
from pki.crl import store as crl_store
from pki.crl.distribution_points import Points, scope_of
from pki.crl.parsing import Listing, algorithm_of, entries_of, parse_reserved, refused, serial_in
from pki.model import Authority, CrlForm, serial_of
from pki.rollback import detection

# Baseline requirements 7.2: ten days at most between thisUpdate and nextUpdate.
LONGEST_LIFE = timedelta(days=10)
# The publisher's clock and the signer's are on machines of one site.
CLOCK_SKEW = timedelta(minutes=1)
# What was reserved longer ago than that has been overtaken: it must not be signed late.
OLDEST_RESERVATION = timedelta(minutes=15)
# RFC 5758 3.2: the hash that fits the curve.
_DIGESTS: dict[str, hashes.HashAlgorithm] = {"secp256r1": hashes.SHA256(), "secp384r1": hashes.SHA384()}
# How an entry of ours ends that takes a hold back: its only extension says removeFromCRL.
_REMOVED = der.enumerated(8)


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
        raise refused("crl-unreserved", "No CRL of that number with these bytes waits to be signed.")
    listing = parse_reserved(tbs)
    wanted = crl_store.points(connection, authority, shard)
    # A delta must not name a fresher one (RFC 5280 5.2.6); its scope is that of its base.
    wanted = wanted if reserved.base is None else Points(wanted.scope, None)
    _check_identity(listing, authority, wanted, number)
    if len(listing.entries) != reserved.entries:
        raise refused("crl-miscounted", "The CRL does not list as many entries as were reserved.")
    _check_times(listing, now)
    _check_order(listing, reserved.watermark, crl_store.newest(connection, authority.id, shard))
    if reserved.watermark < least:
        # The record itself may agree with such a CRL: it was restored from a backup.
        raise detection.behind()
    if listing.base is not None and authority.crl_form is CrlForm.PLAIN:
        raise refused("crl-form", "The CRL is a delta, and those of this CA are plain.")
    if listing.base != reserved.base:
        raise refused("crl-base", "The CRL completes another one than was reserved.")
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
        ours = whole == der.sequence(tbs, algorithm_of(tbs), der.bit_string(crl.signature))
    except (ValueError, InvalidSignature):
        ours = False
    if not ours:
        raise refused("crl-signature", "The signer's answer is not this CRL under this CA's key.")


def _check_identity(listing: Listing, authority: Authority, wanted: Points, number: int) -> None:
    """Another CA's CRL, or another shard's, once stood in the place of the right one."""
    if listing.issuer != issuer_fields(authority.der)[0]:
        raise refused("crl-issuer", "The CRL's issuer is not the CA's subject, byte for byte.")
    if listing.key != key_identifier(authority.der):
        raise refused("crl-issuer-key", "The CRL names another issuer key than the CA's.")
    if listing.points != wanted:
        raise refused("crl-url", "The CRL's distribution points are not those of its shard.")
    if listing.number != number:
        raise refused("crl-number", "The CRL carries another number than the one reserved.")


def _check_times(listing: Listing, now: datetime) -> None:
    if not now - OLDEST_RESERVATION <= listing.this_update <= now + CLOCK_SKEW:
        raise refused("crl-time", "thisUpdate is not now.")
    if not timedelta(0) < listing.next_update - listing.this_update <= LONGEST_LIFE:
        raise refused("crl-time", "nextUpdate is not within ten days after thisUpdate.")


def _check_order(listing: Listing, watermark: int, newest: crl_store.Numbered | None) -> None:
    """Numbers and knowledge only grow: a CRL from a stale copy once un-revoked nine tenths of its entries."""
    if newest is None:
        return
    if listing.number <= newest.number or listing.this_update < newest.this_update:
        raise refused("crl-number", "A later CRL of this shard has been signed already.")
    if watermark < newest.watermark:
        raise refused("crl-stale", "The CRL rests on fewer revocations than the one before.")


def _check_sequel(connection: Connection, listing: Listing, previous: crl_store.Published | None) -> None:
    """What the complete CRL before listed is listed, or had to go."""
    if previous is None:
        return
    extensions = x509.load_der_x509_crl(previous.der).extensions
    if listing.points.scope != scope_of(extensions):
        raise refused("crl-url", "The distribution point differs from that of the CRL before.")
    # By their bytes; only what differs is looked into.
    gone = set(entries_of(next(der.elements(der.content(previous.der))))) - listing.entries
    vanished = {serial_in(entry) for entry in gone} - (listing.serials if gone else frozenset())
    owed = crl_store.still_owed(connection, map(serial_of, vanished), previous.this_update)
    if owed:
        text = f"{len(owed)} entries of the CRL before are missing without having expired."
        raise refused("crl-vanished", text)


def _check_difference(
    connection: Connection, listing: Listing, reserved: crl_store.Reserved, authority: Authority, shard: int
) -> None:
    """A delta and its base together say all there is: each event is known to the base, or in the delta."""
    number, after = reserved.number, reserved.base or 0
    base = crl_store.complete(connection, authority.id, shard, after)
    if base is None or base.next_update <= listing.this_update:
        raise refused("crl-base", "The delta's base is not a complete CRL in force.")
    events = crl_store.events_between(connection, authority.id, shard, after, number)
    if base.watermark + events < reserved.watermark:
        raise refused("crl-stale", "Some revocations are neither in the delta nor in its base.")
    changed = crl_store.changed(connection, authority.id, shard, after, number)
    removals = {entry for entry in listing.entries if entry.endswith(_REMOVED)}
    released = {serial_of(serial_in(entry)) for entry in removals}
    if listing.entries - removals != set(der.elements(changed.joined)) or released != set(changed.released):
        raise refused("crl-difference", "The delta does not list exactly what changed since its base.")

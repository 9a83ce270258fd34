"""What comes back from the offline machine: certificates and root CRLs, verified whole before they count.

Their carrier and their maker are trusted for nothing. The reviewed file, the keys here and the record say
what they must be.
"""

from collections.abc import Iterator
from datetime import datetime
from hashlib import sha256
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import Connection, Engine

from directory.base.audit import Actor, Event, record
from directory.base.db import transaction
from directory.base.errors import Kind, Refusal
from directory.base.locks import lock_until_commit
from pki.ceremony import build, perform
from pki.ceremony import store as ceremony_store
from pki.ceremony.build import Parent
from pki.ceremony.offline import CLOCK_SKEW, LONGEST_ROOT_CRL
from pki.ceremony.plan import Plan, Planned, PlannedAuthority, PlannedCross
from pki.ceremony.signing import KeyRing
from pki.certificates import identifiers
from pki.certificates.builder import HASHES, subject_of
from pki.crl import checks, parsing
from pki.crl import store as crl_store
from pki.model import Authority, serial_of
from pki.record import authorities
from pki.rollback import high_water


def take_certificate(
    engine: Engine,
    plan: Plan,
    ring: KeyRing,
    content: bytes,
    *,
    now: datetime,
    actor: Actor,
    fingerprint: str | None = None,
) -> str:
    """Store the certificate in `content` (PEM or DER) as what the plan says it is; gives its id.

    The same again changes nothing. `fingerprint` is the SHA-256 of its DER in hexadecimal, as the offline
    machine's transcript has it. Nothing else tells one self-signed root from another of the same name.
    Refuses `not-a-certificate`, `not-in-ceremony`, `issuer-missing`, `fingerprint-missing`,
    `fingerprint-wrong`, `certificate-unfit` with every reason, `lint-failed`, `serial-used`, `already-there`.
    """
    certificate = _read(content)
    with transaction(engine, read_only=True) as connection:
        planned, parent = _place(connection, plan, certificate)
    _check_fingerprint(certificate, parent, fingerprint)
    # The key is asked outside of the transaction: a token may take its time.
    held = _held(plan, planned, ring)
    with transaction(engine) as connection:
        lock_until_commit(connection, "ceremony-intake")
        known = _known(connection, planned)
        der = certificate.public_bytes(Encoding.DER)
        if known is not None:
            if known != der:
                text = f"There is another certificate of {planned.id}: one is enough."
                raise Refusal(Kind.CONFLICT, "already-there", text)
            return planned.id
        wrong = list(_faults(connection, plan, planned, certificate, parent, now=now))
        if held is not None and build.ec_key(certificate) != held:
            wrong.append("its key is not the one held here")
        if wrong:
            text = f"This certificate is not what the file asks for {planned.id}: {', '.join(wrong)}."
            raise Refusal(Kind.UNACCEPTABLE, "certificate-unfit", text, reasons=wrong)
        build.check(planned, certificate, parent)
        serial = serial_of(certificate.serial_number)
        if ceremony_store.is_serial_used(connection, serial):
            raise Refusal(Kind.CONFLICT, "serial-used", f"The serial number {serial} is used already.")
        perform.add(connection, planned, der, now=now, actor=actor)
    return planned.id


def take_list(
    engine: Engine, content: bytes, *, floor_file: Path, now: datetime, actor: Actor
) -> tuple[str, int]:
    """Publish a root's CRL made on the offline machine; gives the root's id and the CRL's number.

    Refuses `crl-malformed`, `unknown-authority`, and, as the gate does, `crl-signature`, `crl-issuer-key`,
    `crl-url`, `crl-number`, `crl-time`, `crl-vanished`, `crl-stale`, `crl-unrecorded`.
    """
    try:
        crl = x509.load_der_x509_crl(content)
        tbs = crl.tbs_certlist_bytes
    except ValueError as error:
        raise _refused("crl-malformed", "This is no CRL in DER.") from error
    listing = parsing.parse(content)
    with transaction(engine) as connection:
        root = _issuer(connection, listing)
        place = f"{root.id}/0"
        checks.check_signed(content, tbs, root)
        _check_list(connection, listing, root, now)
        if listing.number <= high_water.known(floor_file, place):
            raise _refused("crl-number", "This number has been given out before.")
        ceremony_store.add_list(
            connection, root.id, listing.number, this_update=listing.this_update,
            next_update=listing.next_update, entries=len(listing.serials), tbs=tbs, der=content,
        )  # fmt: skip
        detail = {"number": listing.number, "bytes": len(content), "sha256": sha256(content).hexdigest()}
        record(connection, now=now, actor=actor, event=Event.CRL_PUBLISHED, subject=place, detail=detail)
    # After the commit: a number that the record never came to know would make it look restored.
    high_water.raise_to(floor_file, place, listing.number)
    high_water.keep_list(floor_file, place, content)
    return root.id, listing.number


def _read(content: bytes) -> x509.Certificate:
    try:
        if b"-----BEGIN" in content:
            return x509.load_pem_x509_certificate(content)
        return x509.load_der_x509_certificate(content)
    except ValueError as error:
        text = "This is no certificate in PEM or DER."
        raise Refusal(Kind.MALFORMED, "not-a-certificate", text) from error


def _place(
    connection: Connection, plan: Plan, certificate: x509.Certificate
) -> tuple[Planned, Parent | None]:
    """Which certificate of the plan this is, by its two names, and the root that must have signed it."""
    for planned in plan.in_order:
        certifies = plan.authority(planned.subject) if isinstance(planned, PlannedCross) else planned
        issuer = planned if planned.issuer is None else plan.authority(planned.issuer)
        names = certificate.subject.public_bytes(), certificate.issuer.public_bytes()
        wanted = [subject_of(named.names).public_bytes() for named in (certifies, issuer)]
        if names == tuple(wanted):
            return planned, _parent(connection, planned)
    text = "The ceremony's file names no authority with this subject and issuer."
    raise Refusal(Kind.NOT_FOUND, "not-in-ceremony", text)


def _check_fingerprint(certificate: x509.Certificate, parent: Parent | None, fingerprint: str | None) -> None:
    if fingerprint is None:
        if parent is None:
            text = "A root vouches for itself: give the SHA-256 that the offline machine's transcript shows."
            raise Refusal(Kind.UNACCEPTABLE, "fingerprint-missing", text)
        return
    digest = sha256(certificate.public_bytes(Encoding.DER)).hexdigest()
    if fingerprint.replace(":", "").strip().lower() != digest:
        text = f"This certificate has the SHA-256 {digest}: it is not the one of the transcript."
        raise Refusal(Kind.UNACCEPTABLE, "fingerprint-wrong", text)


def _parent(connection: Connection, planned: Planned) -> Parent | None:
    if planned.issuer is None:
        return None
    issuer = authorities.load_authority(connection, planned.issuer)
    if issuer is None:
        text = f"The certificate of {planned.issuer} comes first: it is not here yet."
        raise Refusal(Kind.CONFLICT, "issuer-missing", text)
    return Parent(issuer.id, x509.load_der_x509_certificate(issuer.der))


def _held(plan: Plan, planned: Planned, ring: KeyRing) -> object:
    """The public key that must be in this certificate, where its private half is held here."""
    if isinstance(planned, PlannedCross) or planned.offline:
        return None
    return ring.held(plan.authority(planned.id)).public_key()


def _known(connection: Connection, planned: Planned) -> bytes | None:
    if isinstance(planned, PlannedAuthority):
        authority = authorities.load_authority(connection, planned.id)
        return None if authority is None else authority.der
    return next((cross.der for cross in ceremony_store.crosses(connection) if cross.id == planned.id), None)


def _faults(
    connection: Connection,
    plan: Plan,
    planned: Planned,
    certificate: x509.Certificate,
    parent: Parent | None,
    *,
    now: datetime,
) -> Iterator[str]:
    issuer = certificate if parent is None else parent.certificate
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        yield "its issuer's key has not signed it"
    algorithm = certificate.signature_hash_algorithm
    if algorithm is None or algorithm.name != HASHES[build.ec_key(issuer).curve.name].name:
        yield "its signature's hash does not fit the curve"
    yield from (
        f"another {name}" for name in perform.differences(plan, planned, certificate, compare_urls=True)
    )
    if certificate.not_valid_before_utc > now + CLOCK_SKEW or certificate.not_valid_after_utc <= now:
        yield "it is not valid at this time"
    if isinstance(planned, PlannedCross):
        subject = authorities.load_authority(connection, planned.subject)
        if subject is None:
            yield f"{planned.subject} is not here yet"
        elif build.ec_key(x509.load_der_x509_certificate(subject.der)) != build.ec_key(certificate):
            yield f"its key is not that of {planned.subject}"
    yield from _extension_faults(plan, planned, certificate, parent)


def _extension_faults(
    plan: Plan, planned: Planned, certificate: x509.Certificate, parent: Parent | None
) -> Iterator[str]:
    """Every extension, value and mark, as we would have drawn it; their order is the signer's choice."""
    drawn = build.draw(
        plan, planned, build.ec_key(certificate), parent,
        serial=serial_of(certificate.serial_number),
        validity=(certificate.not_valid_before_utc, certificate.not_valid_after_utc),
    )  # fmt: skip
    wanted, received = (
        {extension.oid.dotted_string: (extension.critical, extension.value) for extension in made.extensions}
        for made in (drawn, certificate)
    )
    for oid in sorted(wanted.keys() | received.keys()):
        if wanted.get(oid) != received.get(oid):
            yield f"the extension {oid} is not the file's"


def _issuer(connection: Connection, listing: parsing.Listing) -> Authority:
    """The offline root whose name and key the CRL bears, byte for byte."""
    for authority in authorities.authorities(connection):
        if authority.offline and identifiers.issuer_fields(authority.der)[0] == listing.issuer:
            if identifiers.key_identifier(authority.der) != listing.key:
                raise _refused("crl-issuer-key", "The CRL names another issuer key than the CA's.")
            return authority
    text = "No authority whose key lies offline has this name; the others' CRLs are made here."
    raise Refusal(Kind.NOT_FOUND, "unknown-authority", text)


def _check_list(connection: Connection, listing: parsing.Listing, root: Authority, now: datetime) -> None:
    if listing.points != crl_store.points(connection, root, 0) or listing.base is not None:
        raise _refused("crl-url", "A root's CRL is complete: it names no distribution point and no base.")
    if not listing.this_update <= now + CLOCK_SKEW or listing.next_update <= now:
        raise _refused("crl-time", "The CRL does not hold at this time.")
    if listing.next_update - listing.this_update > LONGEST_ROOT_CRL:
        raise _refused("crl-time", "nextUpdate is more than twelve months after thisUpdate.")
    before = crl_store.latest(connection, root.id, 0)
    serials = {serial_of(number) for number in listing.serials}
    taken_back = ceremony_store.taken_back(connection, root.id)
    missing = taken_back - serials
    if missing - ceremony_store.expired_before(connection, sorted(missing), listing.this_update):
        raise _refused("crl-stale", f"{len(missing)} certificates revoked in the record are not listed.")
    if ceremony_store.known(connection, sorted(serials - taken_back)):
        text = "It lists a certificate that the record holds for good: revoke it there first."
        raise _refused("crl-unrecorded", text)
    if before is None:
        return
    if listing.number <= before.number or listing.this_update < before.this_update:
        raise _refused("crl-number", "A later CRL of this root is published already.")
    vanished = {serial_of(number) for number in parsing.parse(before.der).serials} - serials
    # Gone on purpose: released, or expired before the CRL that still listed it (RFC 5280 3.3).
    vanished -= ceremony_store.expired_before(connection, sorted(vanished), before.this_update)
    if vanished:
        text = f"{len(vanished)} entries of the CRL before are missing without having expired."
        raise _refused("crl-vanished", text)


def _refused(code: str, text: str) -> Refusal:
    return Refusal(Kind.UNACCEPTABLE, code, text)

"""The making of the CAs: a root on P-384, the issuing CAs "persons-1" and "organisations-1" on P-256, once.

A demo runs it when the signer starts; in production two people run it from one reviewed command and then
take the root's key off the machine. Day-by-day signing is not here.
"""

from datetime import datetime
from hashlib import sha256

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1, EllipticCurvePrivateKey
from sqlalchemy import Connection, Engine

from directory.base.audit import Actor, Event, record
from directory.base.db import transaction
from directory.base.locks import hold_until_commit
from pki import store
from pki.lint.catalogue import LINTS
from pki.lint.lint import Case, run
from pki.model import Authority, AuthorityState, IssuedCertificate, Reservation, Serial, serial_of
from pki.profiles import ISSUING, ROOT, SHARDS, TRUST_SPACE, AuthorityNames, Profile, Urls
from pki.rules import shard_of, spki_sha256, validity
from pki.signing.keys import Keys
from pki.signing.seal import seal
from pki.tbs import Issuer, subject_text, unsigned

ROOT_ID = "root-1"
PERSONS_ID = "persons-1"
ORGANISATIONS_ID = "organisations-1"
_NAMES = {
    ROOT_ID: f"{TRUST_SPACE} Root CA 1",
    PERSONS_ID: f"{TRUST_SPACE} Persons CA 1",
    ORGANISATIONS_ID: f"{TRUST_SPACE} Organisations CA 1",
}


def establish(engine: Engine, keys: Keys, *, base_url: str, now: datetime, actor: Actor) -> None:
    """Make root and issuing CA where they are absent; one cut short is taken up again with the same keys.

    All rows come in one transaction: no CA certificate leaves this function before they have committed.
    """
    with transaction(engine) as connection:
        hold_until_commit(connection, "ceremony")
        urls = Urls(base_url)
        root = store.load_authority(connection, ROOT_ID)
        if root is None:
            root = _make(connection, keys, ROOT, ROOT_ID, None, urls=urls, now=now, actor=actor)
        for issuing in (PERSONS_ID, ORGANISATIONS_ID):
            if store.load_authority(connection, issuing) is None:
                _make(connection, keys, ISSUING, issuing, root, urls=urls, now=now, actor=actor)


def _make(
    connection: Connection,
    keys: Keys,
    profile: Profile,
    authority_id: str,
    parent: Authority | None,
    *,
    urls: Urls,
    now: datetime,
    actor: Actor,
) -> Authority:
    key = _key(keys, profile, authority_id)
    signing = key if parent is None else keys.load(parent.key_name)
    # 1. The bytes, and every lint but those that need a mailbox.
    serial = serial_of(x509.random_serial_number())
    candidate = _candidate(profile, authority_id, key, parent, serial=serial, urls=urls, now=now)
    parent_certificate = None if parent is None else x509.load_der_x509_certificate(parent.der)
    findings = run(LINTS, Case(candidate, profile, parent_certificate))
    if findings:
        raise ValueError(f"the ceremony would break a rule: {findings[0]}")
    # 2. Signed, and stored with its serial like any other certificate, so that it can be revoked like any
    # other.
    signed = seal(candidate.tbs_certificate_bytes, signing)
    made = _authority(profile, authority_id, parent, signed)
    store.add_authority(connection, made, now)
    _store(connection, made, profile, key, serial=serial, now=now, actor=actor)
    detail = {"sha256": sha256(signed).hexdigest(), "serial": serial, "not_after": made.not_after.isoformat()}
    record(
        connection, now=now, actor=actor, event=Event.AUTHORITY_CREATED, subject=authority_id, detail=detail
    )
    # A CA's certificate is a certificate: the log tells of each, or an unexplained one could hide among them.
    record(connection, now=now, actor=actor, event=Event.CERTIFICATE_ISSUED, subject=serial, detail=detail)
    return made


def _key(keys: Keys, profile: Profile, name: str) -> EllipticCurvePrivateKey:
    """The key of an earlier try, which nobody has seen a certificate of, or a new one."""
    if keys.exists(name):
        return keys.load(name)
    return keys.make(name, SECP384R1() if profile is ROOT else SECP256R1())


def _candidate(
    profile: Profile,
    authority_id: str,
    key: EllipticCurvePrivateKey,
    parent: Authority | None,
    *,
    serial: Serial,
    urls: Urls,
    now: datetime,
) -> x509.Certificate:
    if parent is None:
        issuer = Issuer(authority_id, None, key.public_key())
    else:
        certificate = x509.load_der_x509_certificate(parent.der)
        issuer = Issuer(parent.id, certificate, certificate.public_key())  # type: ignore[arg-type]  # an EC key, made here
    return unsigned(
        serial=serial, profile=profile, names=AuthorityNames(_NAMES[authority_id]),
        public_key=key.public_key(), issuer=issuer, validity=validity(profile, parent, now), urls=urls,
        shard=0 if parent is None else shard_of(serial, parent.shards),
    )  # fmt: skip


def _authority(profile: Profile, authority_id: str, parent: Authority | None, signed: bytes) -> Authority:
    certificate = x509.load_der_x509_certificate(signed)
    return Authority(
        id=authority_id,
        kind="root" if parent is None else "issuing",
        issuer_id=None if parent is None else parent.id,
        subject=subject_text(certificate.subject),
        key_name=authority_id,
        shards=1 if profile is ROOT else SHARDS,
        der=signed,
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        role=authority_id.rpartition("-")[0],
        generation=1,
        state=AuthorityState.ACTIVE,
        offline=False,
    )


def _store(
    connection: Connection,
    made: Authority,
    profile: Profile,
    key: EllipticCurvePrivateKey,
    *,
    serial: Serial,
    now: datetime,
    actor: Actor,
) -> None:
    issuer_id = made.issuer_id or made.id
    tbs = x509.load_der_x509_certificate(made.der).tbs_certificate_bytes
    spki = spki_sha256(key.public_key())
    reserved = Reservation(
        serial=serial, authority_id=issuer_id, profile=profile.name, shard=0, mailbox=None, practitioner=None,
        enrolment_id=None, spki_sha256=spki, tbs=tbs, tbs_sha256=sha256(tbs).digest(), reserved_at=now,
    )  # fmt: skip
    store.add_reservation(connection, reserved, [], actor.name)
    issued = IssuedCertificate(
        serial=serial, authority_id=issuer_id, profile=profile.name, shard=0, mailbox=None, practitioner=None,
        subject=made.subject, spki_sha256=spki, der=made.der, sha256=sha256(made.der).digest(),
        not_before=made.not_before, not_after=made.not_after, issued_at=now,
    )  # fmt: skip
    store.add_certificate(connection, issued)

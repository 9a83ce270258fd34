"""Certificate revocation lists: rows to DER, and the order in which one is numbered, signed and stored.

The signature is the signer's, the last look at the bytes is `gate`'s, the queries are `crl_store`'s.
"""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import Connection, Engine

from directory.base.audit import Actor, Event, record
from directory.base.db import transaction
from directory.base.errors import Kind, Refusal
from pki import crl_store, der, floor, gate, store
from pki.model import REASON_CODES, Authority, RevocationReason, Serial
from pki.signing.seal import ALGORITHMS

# Every shard is made again each hour, empty or not: silence and "nothing revoked" must look different.
INTERVAL = timedelta(hours=1)
_ACTOR = Actor("job:crl")


class ListSigner(Protocol):
    """What a CRL needs of the signer (`pki.signing`)."""

    def sign_crl(self, authority_id: str, shard: int, number: int) -> bytes:
        """The signed DER of a CRL whose bytes are committed; refuses what the gate refuses."""
        ...

    def ping(self) -> str:
        """The signer's version, when it is there and has its keys."""
        ...


def entry_der(serial: Serial, revoked_at: datetime, reason: RevocationReason) -> bytes:
    """One element of revokedCertificates (RFC 5280 5.1.2.6), made once, when the revocation is recorded."""
    code = der.extension("2.5.29.21", der.enumerated(REASON_CODES[reason]))
    return der.sequence(der.integer(int(serial, 16)), der.time(revoked_at), der.sequence(code))


def tbs_der(
    authority: Authority,
    url: str | None,
    number: int,
    *,
    this_update: datetime,
    next_update: datetime,
    joined: bytes,
) -> bytes:
    """TBSCertList (RFC 5280 5.1.2) around entries already in DER, whose number costs nothing."""
    # "MUST NOT be present" when nothing is revoked (RFC 5280 5.1.2.6).
    revoked = der.tlv(0x30, joined) if joined else b""
    return der.sequence(
        der.integer(1),
        signature_algorithm(authority.der),
        gate.issuer_fields(authority.der)[0],
        der.time(this_update),
        der.time(next_update),
        revoked,
        der.explicit(0, der.sequence(*_extensions(authority, url, number))),
    )


def signature_algorithm(certificate: bytes) -> bytes:
    """The AlgorithmIdentifier under which this CA's key signs."""
    key = x509.load_der_x509_certificate(certificate).public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise TypeError("CA keys are P-256 or P-384")
    return ALGORITHMS[key.curve.name][1]


def publish(
    engine: Engine,
    signer: ListSigner,
    *,
    authority_id: str,
    shard: int,
    now: datetime,
    lifetime: timedelta,
    floor_file: Path | None = None,
) -> int:
    """Number, sign and store one shard's CRL; gives its number. In transactions of its own.

    Whatever fails in between burns the number and leaves the last good CRL in service. `floor_file` keeps
    numbers rising even over a restored database. Refusal: NOT_FOUND, or UNACCEPTABLE from the gate.
    """
    place = f"{authority_id}/{shard}"
    least = 0 if floor_file is None else floor.known(floor_file, place)
    with transaction(engine) as connection:
        authority = _authority(connection, authority_id, shard)
        number, tbs = _reserve(connection, authority, shard, now=now, lifetime=lifetime, least=least)
    if floor_file is not None:
        # Before anyone can see the number, so that no restore can give it to another CRL.
        floor.raise_to(floor_file, place, number)
    signed = signer.sign_crl(authority_id, shard, number)
    gate.check_signed(signed, tbs, authority)
    with transaction(engine) as connection:
        crl_store.store(connection, authority_id, shard, number, signed)
        detail = {"number": number, "bytes": len(signed)}
        record(connection, now=now, actor=_ACTOR, event=Event.CRL_PUBLISHED, subject=place, detail=detail)
    return number


def due(connection: Connection, now: datetime) -> list[tuple[str, int]]:
    """The (CA, shard) pairs to publish now, those with unpublished revocations first."""
    return crl_store.due(connection, now, now - INTERVAL)


def publish_due(
    engine: Engine, signer: ListSigner, now: datetime, lifetime: timedelta, floor_file: Path | None = None
) -> int:
    """Publish every shard that is due; gives how many. One shard's refusal does not hold up the others."""
    with transaction(engine, read_only=True) as connection:
        waiting = due(connection, now)
    if waiting:
        # Without a signer each try would burn every shard's number and keep its bytes for nothing.
        signer.ping()
    refusals: list[Refusal] = []
    for authority_id, shard in waiting:
        try:
            publish(
                engine, signer, authority_id=authority_id, shard=shard, now=now, lifetime=lifetime,
                floor_file=floor_file,
            )  # fmt: skip
        except Refusal as refusal:
            refusals.append(refusal)
    if refusals:
        raise ExceptionGroup(f"{len(refusals)} of {len(waiting)} CRLs were not published", refusals)
    return len(waiting)


def _authority(connection: Connection, authority_id: str, shard: int) -> Authority:
    authority = store.load_authority(connection, authority_id)
    if authority is None or not 0 <= shard < authority.shards:
        raise Refusal(Kind.NOT_FOUND, "unknown-authority", "There is no such CA or shard.")
    return authority


def _reserve(
    connection: Connection,
    authority: Authority,
    shard: int,
    *,
    now: datetime,
    lifetime: timedelta,
    least: int,
) -> tuple[int, bytes]:
    # 1. The number first: its row's lock makes every publisher of the shard wait for the one before.
    number = crl_store.take_number(connection, authority.id, shard, least)
    # 2. Then the entries, in a snapshot taken under that lock.
    previous = crl_store.latest(connection, authority.id, shard)
    # An entry stays on one scheduled CRL after notAfter (RFC 5280 3.3); one made for a revocation is none.
    kept = None if previous is None else previous.this_update - INTERVAL
    listed = crl_store.entries(connection, authority.id, shard, kept)
    # 3. The bytes, committed before the CA key is touched.
    this_update = now.replace(microsecond=0)
    url = gate.crl_url(connection, authority, shard)
    span = {"this_update": this_update, "next_update": this_update + lifetime}
    tbs = tbs_der(authority, url, number, joined=listed.joined, **span)
    crl_store.reserve(connection, authority.id, shard, number, tbs=tbs, listed=listed, **span)
    return number, tbs


def _extensions(authority: Authority, url: str | None, number: int) -> list[bytes]:
    key = der.sequence(der.tlv(0x80, gate.key_identifier(authority.der)))
    made = [der.extension("2.5.29.35", key), der.extension("2.5.29.20", der.integer(number))]
    if url is not None:
        # distributionPoint [0] { fullName [0] { uniformResourceIdentifier [6] } }
        point = der.sequence(der.explicit(0, der.explicit(0, der.tlv(0x86, url.encode("ascii")))))
        made.append(der.extension("2.5.29.28", point, critical=True))
    return made

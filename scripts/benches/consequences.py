"""How soon trust is gone everywhere when ten thousand people leave the register in one night."""

import statistics
import subprocess
import time
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import psycopg
from benches.harness import BIN, Bench, Figure, fresh_record, until_followed
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp
from sqlalchemy import Engine, text

from api.installation.bring_up import slapd_of
from directory import access
from directory.base.audit import Actor
from directory.base.db import transaction
from pki.model import RevocationReason, serial_of
from pki.revocation import bulk, requests
from pki.revocation.bulk_store import Selection

# Issue 3, item 4: from the commit to the last channel.
TARGET_SECONDS = 900
# Issue 4: a hundred thousand, to the last channel.
BULK_SECONDS = 180
# Revoked before the first measurement, and measured each time.
_FEW, _TAKEN = 100, 500
# Issue 4: the same cost, within a fifth.
_APART = 0.2
_RESERVED = """
    INSERT INTO reservation (serial, authority_id, profile, shard, spki_sha256, tbs, tbs_sha256, lints,
        requested_by, reserved_at)
    SELECT lpad(to_hex(n), 40, '0'), 'persons-1', 'practitioner-smime', n % 16, sha256(int8send(n)), '',
        sha256(int8send(n)), '[]', 'bench', now() FROM generate_series(CAST(:first AS bigint), :last) AS n"""
_CERTIFIED = """
    INSERT INTO certificate (serial, authority_id, profile, shard, subject, spki_sha256, der, sha256,
        not_before, not_after, issued_at)
    SELECT serial, authority_id, profile, shard, 'CN=bench', spki_sha256, spki_sha256, spki_sha256, now(),
        now() + interval '1 year', now() FROM generate_series(CAST(:first AS bigint), :last) AS n
    JOIN reservation ON serial = lpad(to_hex(n), 40, '0')"""
_NUMBERED = """
    INSERT INTO key_number (spki_sha256, number) SELECT sha256(int8send(n)), sha256(int8send(n))
    FROM generate_series(CAST(:first AS bigint), :last) AS n"""
_TAKEN_BACK = """
    INSERT INTO revocation (serial, authority_id, shard, action, reason, actor, revoked_at, not_after, entry)
    SELECT serial, authority_id, shard, 'revoke', 'superseded', 'bench', now(), not_after, spki_sha256
    FROM generate_series(CAST(:first AS bigint), :last) AS n
    JOIN certificate ON serial = lpad(to_hex(n), 40, '0')"""
_BULK_STATE = "SELECT state FROM bulk_revocation ORDER BY id DESC LIMIT 1"
_COLUMNS = {
    "practitioner": "national_id, id_type, id_number, family_name, given_name, search_name, row_hash",
    "profession": "national_id, code, category",
    "practice": "national_id, digest, profession_code, category, department",
    "mailbox": "address, kind, holder, row_hash",
    "enrolment": "id, practitioner, mailbox, authority, identity_check, state, requested_by, requested_at,"
    " approved_by, approved_at",
    "reservation": "serial, authority_id, profile, shard, mailbox, practitioner, enrolment_id, spki_sha256,"
    " tbs, tbs_sha256, lints, requested_by, reserved_at",
    "certificate": "serial, authority_id, profile, shard, mailbox, practitioner, subject, spki_sha256, der,"
    " sha256, not_before, not_after, issued_at",
    "key_number": "spki_sha256, number",
}
# What a night's file does to those it no longer names (directory/sync/formats/rpps.py).
_DEPART = (
    "DELETE FROM practice WHERE national_id LIKE '8999%'",
    "DELETE FROM profession WHERE national_id LIKE '8999%'",
    "UPDATE practitioner SET departed_at = now() WHERE national_id LIKE '8999%'",
)
_REVOKED = "SELECT count(*) FROM revocation WHERE starts_with(serial, '000999')"
_ON_CRLS = """SELECT coalesce(sum(entries), 0) FROM crl_shard s CROSS JOIN LATERAL (
    SELECT entries FROM crl c
    WHERE c.authority_id = s.authority_id AND c.shard = s.shard AND c.der IS NOT NULL AND c.base IS NULL
    ORDER BY number DESC LIMIT 1) AS last WHERE s.authority_id = 'persons-1'"""


def departures(bench: Bench) -> Figure:
    """Seconds until 10,000 who left are revoked, off LDAP and on the CRLs, beside one bare set of INSERTs.

    Their number is changed by --size.
    """
    count = bench.size or 10_000
    conninfo = bench.postgres.conninfo
    _seed(bench, conninfo, count)
    shown = _shown(bench)
    _wait(lambda: shown() >= count, "LDAP to show them")
    before = int(bench.rows(_ON_CRLS)[0][0])
    with psycopg.connect(conninfo) as link:
        for statement in _DEPART:
            link.execute(statement)
    started = time.monotonic()
    waiting: dict[str, Callable[[], bool]] = {
        "revoked, s": lambda: bench.rows(_REVOKED)[0][0] >= count,
        "off LDAP, s": lambda: shown() == 0,
        "on CRLs, s": lambda: bench.rows(_ON_CRLS)[0][0] >= before + count,
    }
    reached = _each(waiting, started)
    beside = {**reached, "bare INSERT of the revocations, s": _bare(conninfo)}
    ours = max(reached.values())
    return Figure(
        "departures", ours, f"s for {count} departures", beside,
        TARGET_SECONDS / ours, f"<= {TARGET_SECONDS} s, revocation first",
        ok=ours <= TARGET_SECONDS and reached["revoked, s"] == min(reached.values()),
    )  # fmt: skip


def bulk_revocation(bench: Bench) -> Figure:
    """Seconds until 100,000 certificates revoked in one go are so in OCSP, LDAP and on the CRLs.

    Through `pki/revocation/bulk.py` and its job, as two administrators set it off. Their number is changed by
    --size.
    """
    count = bench.size or 100_000
    _seed(bench, bench.postgres.conninfo, count)
    shown = _shown(bench)
    # Loaded as a whole: one by one they would take as long again.
    subprocess.run(
        [str(BIN / "sceau"), "ldap", "rebuild", "--state", str(bench.settings.state)],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    until_followed(bench, TARGET_SECONDS)
    if shown() != count:
        raise SystemExit("LDAP does not show them")
    before = int(bench.rows(_ON_CRLS)[0][0])
    _set_off(bench, count)
    started = time.monotonic()
    waiting: dict[str, Callable[[], bool]] = {
        "revoked, s": lambda: bench.rows(_BULK_STATE)[0][0] == "done",
        "in OCSP, s": lambda: bench.rows(_BULK_STATE)[0][0] == "done" and _all_revoked(bench, count),
        "off LDAP, s": lambda: shown() == 0,
        "on CRLs, s": lambda: bench.rows(_ON_CRLS)[0][0] >= before + count,
    }
    # Each look at LDAP counts all that are left.
    reached = _each(waiting, started, apart=5)
    beside = {**reached, "bare INSERT of the revocations, s": _bare(bench.postgres.conninfo)}
    ours = max(reached.values())
    return Figure(
        "bulk_revocation", ours, f"s for {count} certificates", beside, BULK_SECONDS / ours,
        f"<= {BULK_SECONDS} s to OCSP, CRL and LDAP", ok=ours <= BULK_SECONDS,
    )  # fmt: skip


def revocation_cost(bench: Bench) -> Figure:
    """Milliseconds of one revocation when 1,000,000 are revoked, beside the same when 100 are.

    Audit line, CRL entry, feed and commit included; their number is changed by --size.
    """
    many = bench.size or 1_000_000
    # Taken in turn, so that the disk, whose mood is most of it, is the same for both.
    with fresh_record(bench) as little, fresh_record(bench, "laden") as much:
        _revoked_already(little, _FEW)
        _revoked_already(much, many)
        few, full = _medians([little, much], many)
    ratio = full / few
    return Figure(
        "revocation_cost", round(full, 3), f"ms with {many} revoked",
        {f"ms with {_FEW} revoked": round(few, 3)}, round(ratio, 3), "within 20 % of each other",
        ok=abs(ratio - 1) <= _APART,
    )  # fmt: skip


def _revoked_already(engine: Engine, count: int) -> None:
    """As many certificates, revoked: past the triggers, which tell the feed of each."""
    rows = {"first": 1, "last": count}
    with transaction(engine) as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        for statement in (_RESERVED, _NUMBERED, _CERTIFIED, _TAKEN_BACK):
            connection.execute(text(statement), rows)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for table in ("reservation", "certificate", "revocation"):
            connection.execute(text(f"VACUUM ANALYZE {table}"))
        connection.execute(text("CHECKPOINT"))


def _medians(engines: list[Engine], after: int) -> list[float]:
    """Of `_TAKEN` revocations in each, every one in a transaction of its own, in milliseconds."""
    rows = {"first": after + 1, "last": after + _TAKEN}
    for engine in engines:
        with transaction(engine) as connection:
            for statement in (_RESERVED, _NUMBERED, _CERTIFIED):
                connection.execute(text(statement), rows)
    taken: list[list[float]] = [[] for _ in engines]
    for number in range(rows["first"], rows["last"] + 1):
        for engine, times in zip(engines, taken, strict=True):
            started = time.perf_counter()
            with transaction(engine) as connection:
                requests.revoke(
                    connection, now=datetime.now(UTC), actor=Actor("bench"), serial=serial_of(number),
                    reason=RevocationReason.SUPERSEDED,
                )  # fmt: skip
            times.append((time.perf_counter() - started) * 1000)
    return [statistics.median(times) for times in taken]


def _set_off(bench: Bench, count: int) -> None:
    """Plan it as one administrator, agree as that one and as another."""
    container, serials = (
        bench.container,
        bench.rows("SELECT serial FROM certificate WHERE starts_with(serial, '000999')"),
    )
    with transaction(container.engine) as connection:
        now = container.clock()
        first, second = (
            access.create_token(
                connection, now=now, actor=Actor("bench"), name=name, role=access.Role.ADMIN,
                lifetime=timedelta(days=1),
            )[0]
            for name in ("bench first", "bench second")
        )  # fmt: skip
        made = bulk.plan(
            connection, now=now, token=first, selection=Selection(serials=tuple(row[0] for row in serials)),
            reason=RevocationReason.SUPERSEDED, comment="bench", per_second=100_000,
        )  # fmt: skip
        if made.total != count:
            raise SystemExit(f"{made.total} certificates selected instead of {count}")
        for token in (first, second):
            bulk.approve(
                connection, now=now, token=token, number=made.id, digest=made.digest, comment="bench"
            )


def _all_revoked(bench: Bench, count: int) -> bool:
    """Whether OCSP says so of twenty of them, spread over all."""
    issuer = x509.load_der_x509_certificate(
        bench.rows("SELECT der FROM authority WHERE id = 'persons-1'")[0][0]
    )
    return all(
        _asked(bench, issuer, 0x999 << 136 | number) is ocsp.OCSPCertStatus.REVOKED
        for number in range(0, count, max(1, count // 20))
    )


def _asked(bench: Bench, issuer: x509.Certificate, serial: int) -> ocsp.OCSPCertStatus:
    name = sha256(issuer.subject.public_bytes()).digest()
    point = issuer.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    request = (
        ocsp.OCSPRequestBuilder()
        .add_certificate_by_hash(name, sha256(point).digest(), serial, hashes.SHA256())
        .build()
    )
    asked = urllib.request.Request(  # noqa: S310 - the installation's own address
        f"{bench.web}/ocsp", request.public_bytes(Encoding.DER),
        {"Content-Type": "application/ocsp-request"},
    )  # fmt: skip
    with urllib.request.urlopen(asked) as answer:  # noqa: S310 - same
        return ocsp.load_der_ocsp_response(answer.read()).certificate_status


def _seed(bench: Bench, conninfo: str, count: int) -> None:
    """People with a practice, a mailbox, an approved enrolment and a certificate that LDAP takes for real."""
    domain = bench.rows("SELECT min(name) FROM trusted_domain WHERE departed_at IS NULL")[0][0]
    tokens = bench.rows("SELECT id FROM api_token WHERE role = 'registrar' ORDER BY id LIMIT 2")
    shards = bench.rows("SELECT shards FROM authority WHERE id = 'persons-1'")[0][0]
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC).replace(microsecond=0)
    made: dict[str, list[tuple]] = {table: [] for table in _COLUMNS}
    for number in range(count):
        one, address = f"8999{number:08d}", f"leaver-{number}@{domain}"
        serial, spki = 0x999 << 136 | number, sha256(f"key {number}".encode()).digest()
        der = _certificate(key, serial, one, now)
        enrolment = f"99900000-0000-4000-8000-{number:012d}"
        written, shard = f"{serial:040x}", serial % shards
        same = ("persons-1", "practitioner-smime", shard, address, one)
        made["practitioner"].append((one, "8", one[1:], "LEAVER", "Anne", "LEAVER ANNE", b""))
        made["profession"].append((one, "10", "C"))
        made["practice"].append((one, spki[:16], "10", "C", "75"))
        made["mailbox"].append((address, "PER", one, b""))
        made["enrolment"].append(
            (enrolment, one, address, "CNOM", "{}", "approved", tokens[0][0], now, tokens[1][0], now)
        )
        made["reservation"].append(
            (written, *same, enrolment, spki, b"", sha256(written.encode()).digest(), "[]", "bench", now)
        )
        made["key_number"].append((spki, spki))
        made["certificate"].append(
            (written, *same, f"CN={one}", spki, der, sha256(der).digest(), now, now + timedelta(365), now)
        )
    with psycopg.connect(conninfo) as link, link.cursor() as cursor:
        for table, columns in _COLUMNS.items():
            with cursor.copy(f"COPY {table} ({columns}) FROM STDIN") as copy:
                for row in made[table]:
                    copy.write_row(row)
            link.execute(f"ANALYZE {table}")


def _certificate(key: ec.EllipticCurvePrivateKey, serial: int, name: str, now: datetime) -> bytes:
    named = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder().subject_name(named).issuer_name(named).public_key(key.public_key())
    builder = builder.serial_number(serial).not_valid_before(now).not_valid_after(now + timedelta(365))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def _shown(bench: Bench) -> Callable[[], int]:
    """How many of them LDAP shows with a certificate, counted by its owner: others get 100 at most."""
    command = [
        "ldapsearch", "-LLL", "-Q", "-Y", "EXTERNAL", "-H", slapd_of(bench.settings).url,
        "-b", bench.settings.suffix,
        "(&(mail=leaver-*)(userCertificate;binary=*))", "1.1",
    ]  # fmt: skip

    def count() -> int:
        told = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        return sum(line.startswith("dn:") for line in told.splitlines())

    return count


def _wait(what: Callable[[], bool], named: str) -> None:
    ends = time.monotonic() + TARGET_SECONDS
    while not what():
        if time.monotonic() > ends:
            raise SystemExit(f"waited {TARGET_SECONDS} s for {named}")
        time.sleep(1)


def _each(waiting: dict[str, Callable[[], bool]], started: float, apart: float = 0.5) -> dict[str, float]:
    """When each came true, looking in turn, so many seconds `apart`."""
    reached: dict[str, float] = {}
    while len(reached) < len(waiting):
        for name, true in waiting.items():
            if name not in reached and true():
                reached[name] = round(time.monotonic() - started, 1)
        if time.monotonic() - started > 2 * TARGET_SECONDS:
            raise SystemExit(f"still waiting after {2 * TARGET_SECONDS} s; reached: {reached}")
        time.sleep(apart)
    return reached


def _bare(conninfo: str) -> float:
    """The same revocation rows into a table without triggers, indexes or audit lines."""
    with psycopg.connect(conninfo) as link:
        link.execute("CREATE TABLE bare (LIKE revocation)")
        link.commit()
        started = time.monotonic()
        link.execute("INSERT INTO bare SELECT * FROM revocation WHERE serial LIKE '000999%'")
        link.commit()
        taken = time.monotonic() - started
        link.execute("DROP TABLE bare")
    return taken


FIGURES = {figure.__name__: figure for figure in (departures, bulk_revocation, revocation_cost)}

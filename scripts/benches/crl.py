"""How long it takes from rows to published CRLs, with a hundred thousand and a million revoked."""

import secrets
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from os import getpid, kill
from pathlib import Path

import psycopg
from benches.harness import Bench, Figure
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from api.installation.ca_keys import ca_keys
from api.installation.supervisor import parts_written
from api.wiring import Container
from directory.base.audit import Actor
from directory.base.db import transaction
from pki.ceremony import perform
from pki.ceremony.plan import Place, read
from pki.ceremony.signing import KeyRing
from pki.certificates import der
from pki.crl import encoding
from pki.crl import publish as crl
from pki.crl import store as crl_store
from pki.model import CrlForm, RevocationReason, serial_of
from pki.record import authorities
from pki.revocation import bulk
from pki.signing.seal import seal

CA, SHARDS = "persons-1", 16
# Of the plain form, made beside: it stands by, and publishes.
PLAIN = "persons-2"
SHARD_SECONDS, PLAIN_SECONDS, MILLION_SECONDS, MILLION_MEGABYTES = 1.0, 1.5, 5.0, 500
LIFETIME = timedelta(hours=72)
_BUILDER_ENTRIES = 10_000


def crl_shard(bench: Bench) -> Figure:
    """Seconds from rows to the file over HTTP, one shard of 100,000 entries (--size), beside openssl's own.

    Beside it also the delta of one more revocation, the DER and signature alone, and cryptography's builder.
    """
    count = bench.size or 100_000
    with _worker_paused(bench):
        _fill(bench, [0], count)
        container = bench.container
        ours = _published(bench, container, 0)
        # A second publication has a previous CRL of that size to be held against.
        again = _published(bench, container, 0)
        _fill(bench, [0], 1)
        delta = _published(bench, container, 0, delta=True)
    peer = _openssl(bench.folder, count)
    beside = {
        "the next one, s": again,
        "delta of one more, s": delta,
        "openssl ca -gencrl, s": peer,
        "DER and signature alone, s": _alone(bench, count),
        f"cryptography's builder with {_BUILDER_ENTRIES}, s": _builder(_BUILDER_ENTRIES),
    }
    slowest = max(ours, again)
    return Figure(
        "crl_shard", slowest, f"s for {count} entries", beside, peer / slowest, f"<= {SHARD_SECONDS} s",
        ok=slowest <= SHARD_SECONDS,
    )  # fmt: skip


def crl_plain(bench: Bench) -> Figure:
    """Seconds from rows to the file over HTTP, a plain CRL of 100,000 entries (--size), beside openssl's own.

    Every revocation makes the whole list anew, since it has no deltas: that of one more is beside it.
    """
    count = bench.size or 100_000
    with _worker_paused(bench):
        container = bench.container
        _make_plain(bench, container)
        _fill(bench, [0], count, PLAIN)
        ours = _published(bench, container, 0, authority=PLAIN)
        _fill(bench, [0], 1, PLAIN)
        again = _published(bench, container, 0, authority=PLAIN)
    peer = _openssl(bench.folder, count)
    beside = {
        "with one more, s": again,
        "openssl ca -gencrl, s": peer,
        "DER and signature alone, s": _alone(bench, count),
    }
    slowest = max(ours, again)
    return Figure(
        "crl_plain", slowest, f"s for {count} entries", beside, peer / slowest, f"<= {PLAIN_SECONDS} s",
        ok=slowest <= PLAIN_SECONDS,
    )  # fmt: skip


def crl_million(bench: Bench) -> Figure:
    """Seconds from 1,000,000 rows (--size) to 16 published shards, beside DER and signatures alone."""
    count = bench.size or 1_000_000
    with _worker_paused(bench):
        _fill(bench, range(SHARDS), count // SHARDS)
        # One for both, as the worker has.
        container = bench.container
        first = _all_published(bench, container)
        again = _all_published(bench, container)
    slowest = max(first, again)
    megabytes = sum(_peak(pid) for pid in (getpid(), parts_written(bench.settings.state)["signer"]["pid"]))
    alone = SHARDS * _alone(bench, count // SHARDS)
    beside = {
        "the next ones, s": again,
        "DER and signatures alone, s": alone,
        "memory of publisher and signer, MB": megabytes,
    }
    return Figure(
        "crl_million", slowest, f"s for {count} entries", beside, alone / slowest,
        f"<= {MILLION_SECONDS} s, {MILLION_MEGABYTES} MB",
        ok=slowest <= MILLION_SECONDS and megabytes <= MILLION_MEGABYTES,
    )  # fmt: skip


@contextmanager
def _worker_paused(bench: Bench) -> Iterator[None]:
    """Nobody publishes meanwhile but us."""
    pid = int(parts_written(bench.settings.state)["worker"]["pid"])
    kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        kill(pid, signal.SIGCONT)


def _make_plain(bench: Bench, container: Container) -> None:
    """The next CA for persons, by a ceremony beside the running installation."""
    shipped = perform.SHIPPED[CrlForm.NATIONAL].read_text()
    table = (
        f'[[authority]]\nid = "{PLAIN}"\nrole = "persons"\ngeneration = 2\nsubject = "Sceau Persons CA 2"\n'
        f'issuer = "root-1"\ncurve = "P-256"\nkey = {{ name = "{PLAIN}", place = "file" }}\ndays = 4380\n'
        'crl = "plain"\n'
    )
    plan = read(f"{shipped}\n{table}".encode(), bench.settings.base_url)
    ring = KeyRing({Place.FILE: ca_keys(bench.settings)})
    perform.perform(container.engine, plan, ring, now=container.clock(), actor=Actor("bench"))


def _fill(bench: Bench, shards: range | list[int], each: int, authority: str = CA) -> None:
    """Revocations of serials that were never issued, as many in each shard."""
    now = datetime.now(UTC)
    ends = now + timedelta(365)
    columns = "serial, authority_id, shard, action, reason, actor, revoked_at, not_after, entry"
    reason = RevocationReason.SUPERSEDED
    with psycopg.connect(bench.postgres.conninfo) as link:
        # Without reservations, and without a line in the feed for each.
        link.execute("SET session_replication_role = replica")
        with link.cursor().copy(f"COPY revocation ({columns}) FROM STDIN WITH (FORMAT binary)") as copy:
            copy.set_types(
                ("text", "text", "int2", "text", "text", "text", "timestamptz", "timestamptz", "bytea")
            )
            for shard in shards:
                for _ in range(each):
                    serial = serial_of(secrets.randbits(158) | 1)
                    entry = encoding.entry_der(serial, now, reason)
                    copy.write_row(
                        (serial, authority, shard, "revoke", reason.value, "bench", now, ends, entry)
                    )
        # As the trigger does for each step of a bulk revocation.
        link.execute(
            "INSERT INTO crl_event (authority_id, shard, revocations)"
            " SELECT authority_id, shard, array_agg(id ORDER BY id) FROM revocation r WHERE actor = 'bench'"
            " AND id > coalesce((SELECT max(known) FROM crl_event, unnest(revocations) AS known), 0)"
            " GROUP BY authority_id, shard, id / %s",
            [bulk.BATCH],
        )
    with psycopg.connect(bench.postgres.conninfo, autocommit=True) as link:
        link.execute("VACUUM ANALYZE revocation")


def _published(
    bench: Bench, container: Container, shard: int, *, delta: bool = False, authority: str = CA
) -> float:
    """Seconds until the shard's next CRL is what the web gives."""
    name = f"{shard}-delta" if delta else str(shard)
    started = time.monotonic()
    number = crl.publish(
        container.engine, container.signer, authority_id=authority, shard=shard, now=container.clock(),
        lifetime=LIFETIME, floor_file=bench.settings.crl_floor, delta=delta,
    )  # fmt: skip
    while True:
        with urllib.request.urlopen(f"{bench.web}/crl/{authority}/{name}.crl", timeout=30) as answer:  # noqa: S310 - ours
            got = x509.load_der_x509_crl(answer.read())
        if got.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number >= number:
            return round(time.monotonic() - started, 3)


def _all_published(bench: Bench, container: Container) -> float:
    started = time.monotonic()
    # Two at once, as the job does.
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda shard: _published(bench, container, shard), range(SHARDS)))
    return round(time.monotonic() - started, 3)


def _alone(bench: Bench, count: int) -> float:
    """The entries joined, wrapped and signed, with nothing read, checked or stored."""
    container, now = bench.container, datetime.now(UTC).replace(microsecond=0)
    with transaction(container.engine, read_only=True) as connection:
        authority = authorities.load_authority(connection, CA)
        if authority is None:
            raise SystemExit(f"no {CA}")
        points = crl_store.points(connection, authority, 0)
    entries = [
        encoding.entry_der(serial_of(secrets.randbits(158) | 1), now, RevocationReason.SUPERSEDED)
        for _ in range(count)
    ]
    key = ec.generate_private_key(ec.SECP256R1())
    started = time.monotonic()
    tbs = encoding.tbs_der(
        authority, points, 1, this_update=now, next_update=now + LIFETIME, joined=b"".join(entries)
    )
    der.content(seal(tbs, key))
    return round(time.monotonic() - started, 3)


def _builder(count: int) -> float:
    """The usual way, a loop over the library's builder: quadratic."""
    now, key = datetime.now(UTC), ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "bench")])
    builder = x509.CertificateRevocationListBuilder().issuer_name(name)
    builder = builder.last_update(now).next_update(now + LIFETIME)
    started = time.monotonic()
    for _ in range(count):
        one = x509.RevokedCertificateBuilder().serial_number(secrets.randbits(158) | 1).revocation_date(now)
        builder = builder.add_revoked_certificate(one.build())
    builder.sign(key, hashes.SHA256())
    return round(time.monotonic() - started, 3)


def _openssl(folder: Path, count: int) -> float:
    """`openssl ca -gencrl` over a text database of as many revoked certificates."""
    place = folder / "openssl-crl"
    place.mkdir(exist_ok=True)
    lines = (
        f"R\t270101000000Z\t260101000000Z,superseded\t{secrets.randbits(158) | 1:040X}\tunknown\t/CN=x\n"
        for _ in range(count)
    )
    (place / "index.txt").write_text("".join(lines))
    (place / "index.txt.attr").write_text("unique_subject = no\n")
    (place / "number").write_text("01\n")
    (place / "ca.cnf").write_text(
        "[ca]\ndefault_ca=d\n[d]\ndatabase=index.txt\ncrlnumber=number\ndefault_md=sha256\ndefault_crl_days=3\n"
    )
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-keyout", "key.pem", "-out", "ca.pem", "-subj", "/CN=bench", "-days", "30"]  # fmt: skip
    subprocess.run(made, cwd=place, check=True, capture_output=True)
    listed = ["openssl", "ca", "-gencrl", "-config", "ca.cnf", "-keyfile", "key.pem", "-cert", "ca.pem",
              "-out", "list.pem"]  # fmt: skip
    started = time.monotonic()
    subprocess.run(listed, cwd=place, check=True, capture_output=True)
    return round(time.monotonic() - started, 3)


def _peak(pid: int) -> int:
    """The most memory that process ever held, in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


FIGURES = {figure.__name__: figure for figure in (crl_shard, crl_plain, crl_million)}

"""How fast status is answered: OCSP signed ahead and live, and how soon a revocation shows under that load.

On 10,000 certificates put straight into the record, so that what is measured is answering, not issuing.
"""

import http.client
import subprocess
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from urllib.parse import quote

import psycopg
from benches import status_peers
from benches.harness import Bench, Figure, granian, wrk
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp as library

from pki.certificates import identifiers
from pki.crl import encoding
from pki.model import RevocationReason, Serial, serial_of
from pki.ocsp import response as ocsp

AUTHORITY = "persons-1"
# Issue 4, table of what must be reached.
OF_BARE, OF_CFSSL, OF_DJANGO_CA, OF_OPENSSL, SECONDS = 0.6, 2, 8, 1, 1.0
# Certificates beyond those that are asked about all the time: one for each revocation watched.
WATCHED = 200
# Less growth than that from one run to the next is the machine's mood.
_STEADY = 1.1
POST = {"Content-Type": "application/ocsp-request"}
BARE_CALLABLE = """
body = bytes(%d)
headers = [("Content-Type", "application/ocsp-response"), ("Content-Length", str(len(body)))]
def application(environ, start_response):
    if environ["REQUEST_METHOD"] == "POST":
        environ["wsgi.input"].read()
    start_response("200 OK", headers)
    return [body]
"""
_COLUMNS = {
    "reservation": "serial, authority_id, profile, shard, spki_sha256, tbs, tbs_sha256, lints, requested_by,"
    " reserved_at",
    "certificate": "serial, authority_id, profile, shard, subject, spki_sha256, der, sha256, not_before,"
    " not_after, issued_at",
    "key_number": "spki_sha256, number",
}
_REVOKE = """INSERT INTO revocation
    (serial, authority_id, shard, action, reason, actor, revoked_at, not_after, entry)
    SELECT serial, authority_id, shard, 'revoke', 'keyCompromise', 'bench', %s, not_after, %s
    FROM certificate WHERE serial = %s"""


def ocsp_get(bench: Bench) -> Figure:
    """Pre-signed OCSP answers by GET, requests a second, beside a bare callable, cfssl and django-ca."""
    questions = _questions(bench, seeded(bench))
    paths = [quote(b64encode(one).decode(), safe="") for one in questions]
    ours = _rate(bench, bench.web, [f"GET /ocsp/{path}" for path in paths])
    answers = _answers(bench)
    with granian(bench, "bare_get", BARE_CALLABLE % len(answers[0])) as url:
        bare = _rate(bench, url, [f"GET /ocsp/{path}" for path in paths])
    with status_peers.cfssl(bench, answers) as url:
        # It takes the slash before a GET's base64 for a part of it and answers 400: asked by POST.
        cfssl = _rate(bench, url, [f"POST / {one.hex()}" for one in questions], POST)
    with status_peers.django_ca(bench, _authority(bench), _certified(bench)) as url:
        prefix = url.removeprefix(url[: url.index("/", len("http://"))])
        django_ca = _rate(bench, url.removesuffix(prefix), [f"GET {prefix}{path}" for path in paths])
    beside = {"bare callable": bare, "cfssl ocspserve": cfssl, "django-ca": django_ca}
    ok = ours >= max(OF_BARE * bare, OF_CFSSL * cfssl, OF_DJANGO_CA * django_ca)
    target = f">= {OF_BARE} x bare, {OF_CFSSL} x cfssl, {OF_DJANGO_CA} x django-ca"
    return Figure("ocsp_get", ours, "requests/s", beside, ours / bare, target, ok)


def ocsp_post(bench: Bench) -> Figure:
    """Pre-signed OCSP answers by POST, requests a second, beside a bare callable and cfssl."""
    serials = seeded(bench)
    bodies = [one.hex() for one in _questions(bench, serials)]
    ours = _rate(bench, bench.web, [f"POST /ocsp {body}" for body in bodies], POST)
    answers = _answers(bench)
    with granian(bench, "bare_post", BARE_CALLABLE % len(answers[0])) as url:
        bare = _rate(bench, url, [f"POST /ocsp {body}" for body in bodies], POST)
    with status_peers.cfssl(bench, answers) as url:
        cfssl = _rate(bench, url, [f"POST / {body}" for body in bodies], POST)
    ok = ours >= max(OF_BARE * bare, OF_CFSSL * cfssl)
    beside = {"bare callable": bare, "cfssl ocspserve": cfssl}
    target = f">= {OF_BARE} x bare, {OF_CFSSL} x cfssl"
    return Figure("ocsp_post", ours, "requests/s", beside, ours / bare, target, ok)


def ocsp_nonce(bench: Bench) -> Figure:
    """OCSP with a nonce, signed live, requests a second, beside `openssl ocsp -multi 2`.

    OpenSSL closes each connection after its answer, and is asked by `ab`; ours are kept, and asked by wrk.
    """
    serials = seeded(bench)
    bodies = [one.hex() for one in _questions(bench, serials, nonce=True)]
    ours = _rate(bench, bench.web, [f"POST /ocsp {body}" for body in bodies], POST)
    with status_peers.openssl(bench, _authority(bench), serials) as url:
        beside = status_peers.asked_anew(bench, url, bytes.fromhex(bodies[0]))
    ok = ours >= OF_OPENSSL * beside
    return Figure(
        "ocsp_nonce", ours, "requests/s", {"openssl ocsp -multi 2": beside}, ours / beside,
        f">= {OF_OPENSSL} x openssl", ok,
    )  # fmt: skip


def ocsp_revoked(bench: Bench) -> Figure:
    """Seconds from a revocation's commit to the last `good` of any worker, p99, under the load of ocsp_get.

    Of 200 revocations. Beside: half of them, and the longest.
    """
    serials = seeded(bench)
    with psycopg.connect(bench.postgres.conninfo, autocommit=True) as record, _load(bench, serials):
        taken = sorted(_until_revoked(bench, record, serial) for serial in _unrevoked(bench))
    p99, median = taken[len(taken) * 99 // 100 - 1], taken[len(taken) // 2]
    beside = {"median, s": median, "longest, s": taken[-1]}
    return Figure(
        "ocsp_revoked", p99, "s", beside, SECONDS / max(p99, 0.001), f"<= {SECONDS} s", p99 <= SECONDS
    )


def _serial(number: int) -> Serial:
    return serial_of(0x998 << 136 | number)


def seeded(bench: Bench) -> list[Serial]:
    """The serials asked about, once their certificates are there and their answers signed by the worker."""
    count = bench.size or 10_000
    serials = [_serial(number) for number in range(count)]
    if not bench.rows("SELECT FROM certificate WHERE serial = %s", serials[0]):
        _insert(bench, count + WATCHED)
    ends = time.monotonic() + 120
    while bench.rows("SELECT FROM ocsp_answer WHERE next_update IS NULL LIMIT 1"):
        if time.monotonic() > ends:
            raise SystemExit("the worker signs no answers")
        time.sleep(0.5)
    return serials


def _insert(bench: Bench, count: int) -> None:
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC).replace(microsecond=0)
    shards = bench.rows("SELECT shards FROM authority WHERE id = %s", AUTHORITY)[0][0]
    made: dict[str, list[tuple]] = {table: [] for table in _COLUMNS}
    for number in range(count):
        serial = _serial(number)
        spki, der = sha256(f"key of {serial}".encode()).digest(), _certificate(key, serial, now)
        same = (serial, AUTHORITY, "practitioner-smime", int(serial, 16) % shards)
        made["reservation"].append((*same, spki, b"", sha256(serial.encode()).digest(), "[]", "bench", now))
        # As whoever certifies does: a job of the worker numbers the others.
        made["key_number"].append((spki, spki))
        made["certificate"].append(
            (*same, f"CN={serial}", spki, der, sha256(der).digest(), now, now + timedelta(365), now)
        )
    with psycopg.connect(bench.postgres.conninfo) as link, link.cursor() as cursor:
        for table, columns in _COLUMNS.items():
            with cursor.copy(f"COPY {table} ({columns}) FROM STDIN") as copy:
                for row in made[table]:
                    copy.write_row(row)
            link.execute(f"ANALYZE {table}")


def _certificate(key: ec.EllipticCurvePrivateKey, serial: Serial, now: datetime) -> bytes:
    named = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, serial)])
    builder = x509.CertificateBuilder().subject_name(named).issuer_name(named).public_key(key.public_key())
    builder = builder.serial_number(int(serial, 16)).not_valid_before(now)
    made = builder.not_valid_after(now + timedelta(365)).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.DER)


def _authority(bench: Bench) -> bytes:
    return bench.rows("SELECT der FROM authority WHERE id = %s", AUTHORITY)[0][0]


def _certified(bench: Bench) -> list[tuple[bytes, bytes]]:
    """Each certificate asked about, and the answer signed ahead."""
    return bench.rows(
        "SELECT c.der, a.der FROM certificate c JOIN ocsp_answer a USING (serial)"
        " WHERE hash = 'sha1' AND starts_with(serial, %s) ORDER BY serial",
        _serial(0)[:8],
    )


def _answers(bench: Bench) -> list[bytes]:
    return [answer for _, answer in _certified(bench)]


def _questions(bench: Bench, serials: list[Serial], *, nonce: bool = False) -> list[bytes]:
    """A question, in DER, about each of them."""
    issuer = ocsp.issuer(AUTHORITY, *identifiers.issuer_fields(_authority(bench)), datetime.now(UTC))
    made = []
    for serial in serials:
        builder = library.OCSPRequestBuilder().add_certificate_by_hash(
            issuer.name_hashes["sha1"],
            issuer.key_hashes["sha1"],
            int(serial, 16),
            hashes.SHA1(),  # noqa: S303 - what clients send
        )
        if nonce:
            builder = builder.add_extension(x509.OCSPNonce(sha256(serial.encode()).digest()), critical=False)
        made.append(builder.build().public_bytes(serialization.Encoding.DER))
    return made


def get_paths(bench: Bench, serials: list[Serial]) -> list[str]:
    """The paths that ask about them."""
    return [f"/ocsp/{quote(b64encode(one).decode(), safe='')}" for one in _questions(bench, serials)]


def _rate(bench: Bench, url: str, lines: list[str], headers: dict[str, str] | None = None) -> float:
    """As `wrk`, once the caches of every worker are full: while the rate still grows, they are not."""
    before, rate = 0.0, wrk(bench, url, lines, headers)
    while rate > _STEADY * before:
        before, rate = rate, wrk(bench, url, lines, headers)
    return rate


@contextmanager
def _load(bench: Bench, serials: list[Serial]) -> Iterator[None]:
    """The questions of ocsp_get, by 16 connections, without end."""
    wrk(bench, bench.web, [f"GET {path}" for path in get_paths(bench, serials)])
    script = bench.folder / "requests.lua"
    command = ["wrk", "-t2", "-c16", "-d600s", "-s", str(script), bench.web]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def _unrevoked(bench: Bench) -> list[Serial]:
    rows = bench.rows(
        "SELECT serial FROM certificate c WHERE starts_with(serial, %s) AND NOT EXISTS"
        " (SELECT FROM revocation r WHERE r.serial = c.serial) ORDER BY serial DESC LIMIT %s",
        _serial(0)[:8],
        WATCHED,
    )
    return [Serial(serial) for (serial,) in rows]


def _until_revoked(bench: Bench, record: psycopg.Connection, serial: Serial) -> float:
    """Seconds from the commit to the end of the last answer that says good, over connections to every worker.

    Eight connections fall to one worker of two in one of 128 trials: the same are not kept for the next.
    """
    (path,) = get_paths(bench, [serial])
    links = [
        http.client.HTTPConnection(bench.settings.host, bench.settings.port, timeout=10) for _ in range(8)
    ]
    for link in links * 2:
        if not _says_good(link, path):
            raise SystemExit(f"{path} is not good to begin with")
    now = datetime.now(UTC)
    entry = encoding.entry_der(serial, now, RevocationReason.KEY_COMPROMISE)
    record.execute(_REVOKE, (now, entry, serial))
    committed, last_good, pending = time.monotonic(), time.monotonic(), True
    while pending:
        pending = False
        for link in links:
            if _says_good(link, path):
                pending, last_good = True, time.monotonic()
    for link in links:
        link.close()
    return last_good - committed


def _says_good(link: http.client.HTTPConnection, path: str) -> bool:
    link.request("GET", path)
    answer = library.load_der_ocsp_response(link.getresponse().read())
    return answer.certificate_status is library.OCSPCertStatus.GOOD


FIGURES = {figure.__name__: figure for figure in (ocsp_get, ocsp_post, ocsp_nonce, ocsp_revoked)}

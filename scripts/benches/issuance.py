"""How fast certificates are made over REST: one by one with the whole road and pkilint, and by the batch."""

import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import cycle, groupby, islice
from threading import local
from typing import Any

import orjson
import psycopg
from benches.harness import Bench, Figure, until_followed
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from directory import access
from directory.base.audit import Actor
from directory.identifiers import luhn_key
from directory.rules import ORDRE_OF_PROFESSION

CONNECTIONS = 12
# The issue names both; the rates of django-ca there are of another program on this kind of machine.
ONE_BY_ONE = 60
BY_THE_BATCH = 500
MOST_IN_A_BATCH = 1000
BATCHES_AT_A_TIME = 2
# Every connection of every worker has prepared its statements by then.
WARM = 240
_COLUMNS = {
    "practitioner": "national_id, id_type, id_number, family_name, given_name, search_name, row_hash",
    "profession": "national_id, code, category",
    "practice": "national_id, digest, profession_code, category, department",
    "mailbox": "address, kind, holder, row_hash",
}


@dataclass(frozen=True)
class _Person:
    """Whom to enrol for which mailbox, with a request ready made, and the secrets of two registrars."""

    practitioner: str
    address: str
    csr: str
    secrets: tuple[str, str]


def certificates(bench: Bench) -> Figure:
    """Certificates a second over HTTP, each asked for, approved, linted by pkilint too, signed and told of.

    Beside: built and signed alone, in one process, without any of it.
    """
    people = _people(bench, bench.size or WARM + 960)
    ask = _asking(bench)
    certified = _over(lambda one: _certify(ask, one), people[:WARM])
    if len(certified) != min(WARM, len(people)):
        raise SystemExit("not every certificate was issued")
    until_followed(bench)
    started = time.monotonic()
    _over(lambda one: _certify(ask, one), people[WARM:])
    ours = (len(people) - WARM) / (time.monotonic() - started)
    return _figure("certificates", ours, ONE_BY_ONE)


def certificates_batch(bench: Bench) -> Figure:
    """Certificates a second of batches of up to a thousand over HTTP, approved before, own lints only.

    Of two Ordres at a time.
    """
    people = sorted(_people(bench, bench.size or 5000), key=lambda one: one.secrets)
    ask = _asking(bench)
    enrolments = dict(zip(people, _over(lambda one: _requested(ask, one), people), strict=True))
    batches: list[tuple[str, list[dict[str, str]]]] = []
    for secrets, group in groupby(people, key=lambda one: one.secrets):
        of_one = list(group)
        for start in range(0, len(of_one), MOST_IN_A_BATCH):
            part = of_one[start : start + MOST_IN_A_BATCH]
            ids = [enrolments[person] for person in part]
            ask("/v1/enrolments/approvals", secrets[1], {"enrolments": ids})
            items = [{"enrolment": key, "csr": person.csr} for key, person in zip(ids, part, strict=True)]
            batches.append((secrets[0], items))
    until_followed(bench)
    started = time.monotonic()
    with ThreadPoolExecutor(BATCHES_AT_A_TIME) as threads:
        answers = list(threads.map(lambda batch: ask("/v1/batches", batch[0], {"items": batch[1]}), batches))
    seconds = time.monotonic() - started
    made = sum(item["state"] == "issued" for answer in answers for item in answer["items"])
    if made != len(people):
        raise SystemExit(f"{made} of {len(people)} were issued")
    return _figure("certificates_batch", made / seconds, BY_THE_BATCH)


def _figure(name: str, ours: float, target: int) -> Figure:
    bare = _bare()
    beside = {"built and signed alone": bare}
    return Figure(name, ours, "certificates/s", beside, ours / bare, f"value >= {target}", ok=ours >= target)


def _bare(count: int = 2000) -> float:
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "bare")])
    started = time.monotonic()
    for _ in range(count):
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        builder = (
            builder.serial_number(x509.random_serial_number())
            .not_valid_before(now)
            .not_valid_after(now + timedelta(1))
        )
        builder.sign(key, hashes.SHA256())
    return count / (time.monotonic() - started)


def _people(bench: Bench, count: int) -> list[_Person]:
    """So many people put into the record, each with a practice, a mailbox of their own and a fresh key.

    Of every profession that has an Ordre, since each Ordre has a quota.
    """
    container = bench.container
    with container.engine.begin() as connection:
        now = container.clock()
        secrets = {
            body: tuple(
                access.create_token(
                    connection, now=now, actor=Actor("command:bench"), name=f"bench {body} {n} {now}",
                    role=access.Role.REGISTRAR, authority=body, lifetime=timedelta(days=1),
                )[1]
                for n in (1, 2)
            )
            for body in ORDRE_OF_PROFESSION.values()
        }  # fmt: skip
    professions = list(islice(cycle(ORDRE_OF_PROFESSION), count))
    first = bench.rows("SELECT count(*) FROM practitioner WHERE starts_with(national_id, '8998')")[0][0]
    domain = bench.rows("SELECT min(name) FROM trusted_domain WHERE departed_at IS NULL")[0][0]
    made: dict[str, list[tuple]] = {table: [] for table in _COLUMNS}
    people = []
    for number, profession in enumerate(professions, first):
        digits = f"998{number:07d}"
        one, address = f"8{digits}{luhn_key(digits)}", f"newcomer-{number}@{domain}"
        made["practitioner"].append((one, "8", one[1:], "NEWCOMER", "Anne", "NEWCOMER ANNE", b""))
        made["profession"].append((one, profession, "C"))
        made["practice"].append((one, sha256(one.encode()).digest()[:16], profession, "C", "75"))
        made["mailbox"].append((address, "PER", one, b""))
        people.append(_Person(one, address, _request(), secrets[ORDRE_OF_PROFESSION[profession]]))
    with psycopg.connect(bench.postgres.conninfo) as link, link.cursor() as cursor:
        for table, columns in _COLUMNS.items():
            with cursor.copy(f"COPY {table} ({columns}) FROM STDIN") as copy:
                for row in made[table]:
                    copy.write_row(row)
            link.execute(f"ANALYZE {table}")
    return people


def _request() -> str:
    asked = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    signed = asked.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return signed.public_bytes(Encoding.PEM).decode()


Ask = Callable[[str, str, dict[str, Any]], dict[str, Any]]


def _asking(bench: Bench) -> Ask:
    """POST as JSON on a connection that each thread keeps; anything but success ends the figure.

    By hand: `http.client` would take a twentieth of the machine that is measured.
    """
    kept = local()

    def ask(path: str, secret: str, body: dict[str, Any]) -> dict[str, Any]:
        if not hasattr(kept, "link"):
            link = socket.create_connection((bench.settings.host, bench.settings.port), timeout=120)
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            kept.link, kept.answers = link, link.makefile("rb")
        sent = orjson.dumps(body)
        kept.link.sendall(
            f"POST {path} HTTP/1.1\r\nHost: sceau\r\nAuthorization: Bearer {secret}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(sent)}\r\n\r\n".encode()
            + sent
        )
        status, size = int(kept.answers.readline().split()[1]), 0
        while (line := kept.answers.readline()) != b"\r\n":
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                size = int(value)
        told = kept.answers.read(size)
        if status >= 300:  # noqa: PLR2004 - HTTP
            raise SystemExit(f"{path}: {status} {told.decode()}")
        return orjson.loads(told)

    return ask


def _over(act: Callable[[_Person], Any], people: Sequence[_Person]) -> list[Any]:
    with ThreadPoolExecutor(CONNECTIONS) as threads:
        return list(threads.map(act, people))


def _requested(ask: Ask, person: _Person) -> str:
    today = datetime.now(UTC).date().isoformat()
    checked = {"method": "in-person", "document": "identity card", "checked_on": today}
    asked = {"practitioner": person.practitioner, "mailbox": person.address, "identity_check": checked}
    return str(ask("/v1/enrolments", person.secrets[0], asked)["id"])


def _certify(ask: Ask, person: _Person) -> dict[str, Any]:
    enrolment = _requested(ask, person)
    ask(f"/v1/enrolments/{enrolment}/approval", person.secrets[1], {})
    return ask(f"/v1/enrolments/{enrolment}/certificates", person.secrets[0], {"csr": person.csr})


FIGURES = {figure.__name__: figure for figure in (certificates, certificates_batch)}

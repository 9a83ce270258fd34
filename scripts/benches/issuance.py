"""How fast certificates are made over REST: one by one with the whole road and pkilint, and by the batch."""

import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from itertools import groupby
from threading import local
from typing import Any

from benches.harness import Bench, Figure
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import text

from api import demo
from directory import access
from directory.base.audit import Actor

CONNECTIONS = 12
# The issue names both; the rates of django-ca there are of another program on this kind of machine.
ONE_BY_ONE = 60
BY_THE_BATCH = 500
MOST_IN_A_BATCH = 1000


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
    people = _people(bench, bench.size or 600)
    ask = _asking(bench)
    certified = _over(lambda one: _certify(ask, one), people[:20])
    if len(certified) != 20:  # noqa: PLR2004 - what was asked for to warm up
        raise SystemExit("not every certificate was issued")
    started = time.monotonic()
    _over(lambda one: _certify(ask, one), people[20:])
    ours = (len(people) - 20) / (time.monotonic() - started)
    return _figure("certificates", ours, ONE_BY_ONE)


def certificates_batch(bench: Bench) -> Figure:
    """Certificates a second of batches of a thousand over HTTP, approved before, own lints only."""
    people = sorted(_people(bench, bench.size or 3000), key=lambda one: one.secrets)
    ask = _asking(bench)
    enrolments = dict(zip(people, _over(lambda one: _requested(ask, one), people), strict=True))
    made, seconds = 0, 0.0
    for secrets, group in groupby(people, key=lambda one: one.secrets):
        of_one = list(group)
        for start in range(0, len(of_one), MOST_IN_A_BATCH):
            part = of_one[start : start + MOST_IN_A_BATCH]
            ids = [enrolments[one] for one in part]
            ask("/v1/enrolments/approvals", secrets[1], {"enrolments": ids})
            items = [{"enrolment": key, "csr": one.csr} for key, one in zip(ids, part, strict=True)]
            started = time.monotonic()
            answer = ask("/v1/batches", secrets[0], {"items": items})
            seconds += time.monotonic() - started
            made += sum(one["state"] == "issued" for one in answer["items"])
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
    """So many people who hold an uncertified mailbox, spread over authorities, with fresh keys."""
    container = bench.container
    with container.engine.begin() as connection:
        rows = connection.execute(text(demo.CHOSEN), {"count": 100_000}).all()
        rows = [
            row
            for row in rows
            if connection.execute(
                text("SELECT NOT EXISTS (SELECT FROM enrolment WHERE mailbox = :m AND state <> 'ended')"),
                {"m": row.address},
            ).scalar_one()
        ][:count]
        bodies = {demo.authority_of(row.profession) for row in rows}
        now = container.clock()
        secrets = {
            body: tuple(
                access.create_token(
                    connection, now=now, actor=Actor("command:bench"), name=f"bench {body} {n} {now}",
                    role=access.Role.REGISTRAR, authority=body, lifetime=timedelta(days=1),
                )[1]
                for n in (1, 2)
            )
            for body in bodies
        }  # fmt: skip
    if len(rows) < count:
        raise SystemExit(f"the demo has {len(rows)} mailboxes left, not {count}: use --size")
    return [
        _Person(row.practitioner, row.address, _request(), secrets[demo.authority_of(row.profession)])
        for row in rows
    ]


def _request() -> str:
    asked = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    signed = asked.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return signed.public_bytes(Encoding.PEM).decode()


Ask = Callable[[str, str, dict[str, Any]], dict[str, Any]]


def _asking(bench: Bench) -> Ask:
    """POST as JSON on a connection that each thread keeps; anything but success ends the figure."""
    kept = local()

    def ask(path: str, secret: str, body: dict[str, Any]) -> dict[str, Any]:
        if not hasattr(kept, "link"):
            kept.link = HTTPConnection(bench.settings.host, bench.settings.port, timeout=120)
        headers = {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"}
        kept.link.request("POST", path, json.dumps(body), headers)
        answer = kept.link.getresponse()
        told = json.loads(answer.read())
        if answer.status >= 300:  # noqa: PLR2004 - HTTP
            raise SystemExit(f"{path}: {answer.status} {told}")
        return told

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


FIGURES = {one.__name__: one for one in (certificates, certificates_batch)}

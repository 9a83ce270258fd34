"""How fast verdicts are given: one by one, in bulk, and at a steady pace while much changes."""

import http.client
import json
import random
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path
from urllib.parse import quote

from benches import country, night
from benches.harness import Bench, Figure, granian, wrk
from sqlalchemy import Engine, text

from directory.base.db import connect_engine

EMPTY_FLASK = """
from flask import Flask
application = Flask("empty")
@application.get("/<path:anything>")
def view(anything):
    return {"verdict": "allowed"}
"""
MB = 1 << 20
SINGLE_TARGET, SINGLE_P99 = 0.5, 10.0
BULK_TARGET, FINGERPRINTS_TARGET, STEADY_TIMES = 100_000, 40_000, 3
IN_A_REQUEST, BULK_CONNECTIONS = 10_000, 4
STEADY, STEADY_CONNECTIONS, REVOKED_EACH_SECOND = 1_000, 16, 100
_REVOKE = """
    INSERT INTO revocation
        (serial, authority_id, shard, action, reason, comment, actor, revoked_at, not_after, entry)
    SELECT serial, authority_id, shard, 'revoke', 'superseded', 'bench', 'bench', now(), not_after, ''
    FROM certificate WHERE serial = :serial"""


def verdict_single(bench: Bench) -> Figure:
    """Verdicts one by one over REST, a second, all mailboxes at random, beside an empty Flask view.

    Of --size mailboxes. Beside: the longest of 99 in 100 answers, and the memory of a web process.
    """
    lines = [f"GET /v1/recipients/{quote(address)}" for address in everybody(bench)]
    told: dict[str, float] = {}
    ours = wrk(bench, bench.web, lines, bench.operator, told=told)
    with granian(bench, "empty_flask", EMPTY_FLASK) as url:
        bare = wrk(bench, url, lines[:1000])
    beside = {"empty Flask view": bare, "p99, ms": told["p99"], "largest web process, MB": web_memory(bench)}
    ok = ours >= SINGLE_TARGET * bare and told["p99"] <= SINGLE_P99
    return Figure("verdict_single", ours, "verdicts/s", beside, ours / bare, ">= 0.5 x, p99 <= 10 ms", ok=ok)


def everybody(bench: Bench) -> list[str]:
    """All mailboxes of the installation in no order, --size of them invented once."""
    known = bench.rows("SELECT count(*) FROM mailbox WHERE address LIKE 'person.%%'")[0][0]
    if bench.size and not known:
        country.people(bench.container.engine, bench.size)
    addresses = [address for (address,) in bench.rows("SELECT address FROM mailbox ORDER BY address")]
    random.Random(1).shuffle(addresses)  # noqa: S311 - an order, no secret
    return addresses


def web_memory(bench: Bench) -> float:
    """Megabytes resident in the largest web process of this installation."""
    marked = str(bench.settings.state).encode()
    sizes = [0]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
            if b"api.web" in words and marked in words:
                sizes.append(int((process / "statm").read_text().split()[1]) * 4096)
        except OSError:
            continue
    return max(sizes) / MB


def verdict_bulk(bench: Bench) -> Figure:
    """Addresses a second by 10,000 in one request, all mailboxes at random, four requests at a time.

    Of --size mailboxes, without certificates and with fingerprints, once each was asked for. Beside: reading
    the same rows from PostgreSQL.
    """
    addresses = everybody(bench)
    bodies = [
        json.dumps({"addresses": addresses[start : start + IN_A_REQUEST]}).encode()
        for start in range(0, len(addresses), IN_A_REQUEST)
    ]
    # Each process by turns, until it has been asked for everybody.
    _bulk(bench, "", bodies, seconds=max(bench.seconds, 2 * len(addresses) // 20_000))
    plain = _bulk(bench, "", bodies, seconds=bench.seconds)
    fingerprints = _bulk(bench, "?include=fingerprints", bodies, seconds=bench.seconds)
    certificates = _bulk(bench, "?include=certificates", bodies, seconds=bench.seconds)
    started = time.monotonic()
    bench.rows("SELECT * FROM mailbox WHERE address = ANY(%s)", addresses[:IN_A_REQUEST])
    bare = IN_A_REQUEST / (time.monotonic() - started)
    beside = {
        "with fingerprints": fingerprints, "with certificates": certificates, "rows read": bare,
        "largest web process, MB": web_memory(bench),
    }  # fmt: skip
    ok = plain >= BULK_TARGET and fingerprints >= FINGERPRINTS_TARGET
    target = f">= {BULK_TARGET:,}/s, {FINGERPRINTS_TARGET:,}/s with fingerprints"
    return Figure("verdict_bulk", plain, "addresses/s", beside, plain / bare, target, ok=ok)


def _bulk(bench: Bench, query: str, bodies: list[bytes], *, seconds: float) -> float:
    """Addresses a second over four connections of as many threads, read to the end as lines."""
    headers = {**bench.operator, "Accept": "application/x-ndjson", "Accept-Encoding": "identity"}
    ends, counted = time.monotonic() + seconds, [0] * BULK_CONNECTIONS

    def ask(number: int) -> None:
        link = http.client.HTTPConnection(bench.settings.host, bench.settings.port, timeout=60)
        for body in islice(cycle(bodies), number, None):
            if time.monotonic() > ends:
                break
            link.request("POST", f"/v1/recipients/check{query}", body, headers)
            answer = link.getresponse()
            lines = answer.read().count(b"\n")
            if answer.status != 200:  # noqa: PLR2004 - all is well
                raise SystemExit(f"the check of many answered {answer.status}")
            counted[number] += lines
        link.close()

    began = time.monotonic()
    with ThreadPoolExecutor(BULK_CONNECTIONS) as threads:
        list(threads.map(ask, range(BULK_CONNECTIONS)))
    return sum(counted) / (time.monotonic() - began)


def verdict_steady(bench: Bench) -> Figure:
    """p99 in ms of 1,000 verdicts a second during a night's import and 100 revocations/s, beside at rest.

    Of --size mailboxes; the night is of 100,000 people, into the record that is being asked.
    """
    paths = [f"/v1/recipients/{quote(address)}" for address in everybody(bench)[:50_000]]
    day1, day2 = night.made(100_000)
    engine = connect_engine(bench.postgres.url)
    night.unstamped(bench, day2)
    night.take(engine, night.restamped(bench, day1, 1), "rpps")
    # What follows in trust and in LDAP is over before anything is timed.
    time.sleep(20)
    seconds = max(20, bench.seconds)
    with night.Asking(bench, paths, STEADY, connections=STEADY_CONNECTIONS) as rest:
        time.sleep(seconds)
    with night.Asking(bench, paths, STEADY, connections=STEADY_CONNECTIONS) as importing:
        ended, day = time.monotonic() + seconds, 2
        while time.monotonic() < ended:
            night.take(engine, night.restamped(bench, (day2, day1)[day % 2], day), "rpps")
            day += 1
    time.sleep(20)
    with night.Asking(bench, paths, STEADY, connections=STEADY_CONNECTIONS) as revoking:
        revoked = _revoke_steadily(engine, seconds)
    engine.dispose()
    ratio = max(importing.p99, revoking.p99) / rest.p99
    told = {
        "at rest": rest.p99, "during a night": importing.p99, "during revocations": revoking.p99,
        "revocations/s": revoked / seconds, "asked at rest": rest.count,
        "asked during a night": importing.count, "asked during revocations": revoking.count,
    }  # fmt: skip
    ok = ratio <= STEADY_TIMES and min(rest.count, importing.count, revoking.count) > 0.9 * STEADY * seconds
    return Figure(
        "verdict_steady", max(importing.p99, revoking.p99), "ms", told, ratio, "<= 3 x at rest", ok=ok
    )


def _revoke_steadily(engine: Engine, seconds: float) -> int:
    """Revoke certificates of invented people, each in a transaction of its own; how many."""
    ends, number = time.monotonic() + seconds, 0
    due = time.monotonic()
    while time.monotonic() < ends:
        with engine.begin() as connection:
            connection.execute(text(_REVOKE), {"serial": f"{number + 1:040x}"})
        number, due = number + 1, due + 1 / REVOKED_EACH_SECOND
        time.sleep(max(0.0, due - time.monotonic()))
    return number


FIGURES = {figure.__name__: figure for figure in (verdict_single, verdict_bulk, verdict_steady)}

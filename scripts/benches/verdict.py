"""How fast verdicts are given: one by one, in bulk, and at a steady pace while much changes."""

import http.client
import json
import random
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import quote

from benches import country, night
from benches.asking import Asking
from benches.harness import Bench, Figure, granian, wrk
from sqlalchemy import Engine, event, text

from directory.base.db import connect_engine

EMPTY_FLASK = """
from flask import Flask
application = Flask("empty")
@application.get("/<path:anything>")
def view(anything):
    return {"verdict": "allowed"}
"""
MB = 1 << 20
SINGLE_TARGET, SINGLE_P99, SINGLE_CONNECTIONS = 0.5, 10.0, 16
TURNS = 3
BULK_TARGET, FINGERPRINTS_TARGET, STEADY_TIMES = 100_000, 40_000, 3
IN_A_REQUEST, BULK_CONNECTIONS = 10_000, 4
# Of a country of millions a memory holds a part, which it has by then.
MOST_WARMING = 180
STEADY, STEADY_CONNECTIONS, REVOKED_EACH_SECOND, NIGHTS = 1_000, 16, 100, 60
_NOT_REVOKED = """
    SELECT serial FROM certificate c WHERE mailbox LIKE 'person.%'
    AND NOT EXISTS (SELECT FROM revocation r WHERE r.serial = c.serial) ORDER BY serial LIMIT :most"""
_REVOKE = """
    INSERT INTO revocation
        (serial, authority_id, shard, action, reason, comment, actor, revoked_at, not_after, entry)
    SELECT serial, authority_id, shard, 'revoke', 'superseded', 'bench', 'bench', now(), not_after, ''
    FROM certificate WHERE serial = :serial"""


def verdict_single(bench: Bench) -> Figure:
    """Verdicts one by one over REST, a second, all mailboxes at random, beside an empty Flask view.

    Of --size mailboxes, once each was asked for; medians of three by turns. Beside: the longest of 99 in 100
    answers over as many connections, and the memory of a web process. wrk takes its own pauses for the
    server's: what it says of the longest answers, of ours and of the empty view's, stands beside.
    """
    addresses = everybody(bench)
    _asked_for_once(bench, _bodies(addresses))
    paths = [f"/v1/recipients/{quote(address)}" for address in addresses]
    told: dict[str, list[float]] = defaultdict(list)
    with granian(bench, "empty_flask", EMPTY_FLASK) as url:
        for _ in range(TURNS):
            _take_turns(bench, url, paths, told)
    found = {name: median(values) for name, values in told.items()}
    ours, bare = found.pop("ours"), found["empty Flask view"]
    found["largest web process, MB"] = web_memory(bench)
    ok = ours >= SINGLE_TARGET * bare and found["p99, ms"] <= SINGLE_P99
    return Figure("verdict_single", ours, "verdicts/s", found, ours / bare, ">= 0.5 x, p99 <= 10 ms", ok=ok)


def _take_turns(bench: Bench, url: str, paths: list[str], told: dict[str, list[float]]) -> None:
    """Ours, and the empty view at `url`, each for the time of the bench."""
    requests, by_wrk = [f"GET {path}" for path in paths], {}
    told["ours"].append(wrk(bench, bench.web, requests, bench.operator, SINGLE_CONNECTIONS, by_wrk, 1))
    told["p99 by wrk, ms"].append(by_wrk["p99"])
    with Asking(bench, paths, 0, connections=SINGLE_CONNECTIONS) as asking:
        time.sleep(bench.seconds)
    told["p99, ms"].append(asking.p99)
    told["empty Flask view"].append(wrk(bench, url, requests, None, SINGLE_CONNECTIONS, by_wrk, 1))
    told["p99 of the empty view by wrk, ms"].append(by_wrk["p99"])


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
    bodies = _bodies(addresses)
    _asked_for_once(bench, bodies)
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


def _bodies(addresses: list[str]) -> list[bytes]:
    return [
        json.dumps({"addresses": addresses[start : start + IN_A_REQUEST]}).encode()
        for start in range(0, len(addresses), IN_A_REQUEST)
    ]


def _asked_for_once(bench: Bench, bodies: list[bytes]) -> None:
    """Each process by turns, until it was asked for everybody and his certificates, as on its second day.

    Which of them takes a connection is chance, so that each is asked for some more than once.
    """
    seconds = max(bench.seconds, min(len(bodies) * IN_A_REQUEST // 6_000, MOST_WARMING))
    _bulk(bench, "?include=certificates", bodies, seconds=seconds)


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

    Of --size mailboxes; the night is of their holders and of 100,000 people more, half a percent of these
    change, into the record that is being asked.
    """
    addresses = everybody(bench)
    paths = [f"/v1/recipients/{quote(address)}" for address in addresses]
    days, seconds = night.made(100_000), max(20, bench.seconds)
    rolls = [night.restamped(bench, days[n % 2], n, invented=bench.size) for n in range(NIGHTS)]
    _take_silently(bench, rolls[0])
    _asked_for_once(bench, _bodies(addresses))
    engine = connect_engine(bench.postgres.url)
    with Asking(bench, paths, STEADY, connections=STEADY_CONNECTIONS) as rest:
        time.sleep(seconds)
    with Asking(bench, paths, STEADY, connections=STEADY_CONNECTIONS) as revoking:
        revoked = _revoke_steadily(engine, seconds)
    # Last: what follows from a night in trust and in LDAP goes on for minutes.
    with Asking(bench, paths, STEADY, connections=STEADY_CONNECTIONS) as importing:
        ends, taken = time.monotonic() + seconds, 0
        while time.monotonic() < ends and taken < NIGHTS - 1:
            taken += 1
            night.take(engine, rolls[taken], "rpps", strict=False)
    engine.dispose()
    ratio = max(importing.p99, revoking.p99) / rest.p99
    told = {
        "at rest": rest.p99, "during a night": importing.p99, "during revocations": revoking.p99,
        "nights": taken, "revocations/s": revoked / seconds, "asked at rest": rest.count,
        "asked during a night": importing.count, "asked during revocations": revoking.count,
    }  # fmt: skip
    ok = ratio <= STEADY_TIMES and min(rest.count, importing.count, revoking.count) > 0.9 * STEADY * seconds
    return Figure(
        "verdict_steady", max(importing.p99, revoking.p99), "ms", told, ratio, "<= 3 x at rest", ok=ok
    )


def _take_silently(bench: Bench, roll: Path) -> None:
    """Take a first roll as a record put back has taken it: neither the feed nor the search learns of it."""
    engine = connect_engine(bench.postgres.url)

    @event.listens_for(engine, "connect")
    def without_triggers(link: Any, _: object) -> None:
        link.execute("SET session_replication_role = replica")
        link.commit()

    night.take(engine, roll, "rpps", strict=False)
    engine.dispose()


def _revoke_steadily(engine: Engine, seconds: float) -> int:
    """Revoke certificates of invented people, each in a transaction of its own; how many."""
    most = int(2 * seconds * REVOKED_EACH_SECOND)
    with engine.connect() as connection:
        serials = connection.execute(text(_NOT_REVOKED), {"most": most}).scalars().all()
    ends, number = time.monotonic() + seconds, 0
    due = time.monotonic()
    while time.monotonic() < ends:
        with engine.begin() as connection:
            connection.execute(text(_REVOKE), {"serial": serials[number]})
        number, due = number + 1, due + 1 / REVOKED_EACH_SECOND
        time.sleep(max(0.0, due - time.monotonic()))
    return number


FIGURES = {figure.__name__: figure for figure in (verdict_single, verdict_bulk, verdict_steady)}

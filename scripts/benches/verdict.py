"""How fast verdicts are given: one by one, in bulk, and at a steady pace while much changes."""

import json
import random
import time
import urllib.request
from pathlib import Path
from urllib.parse import quote

from benches import country
from benches.harness import Bench, Figure, granian, wrk

EMPTY_FLASK = """
from flask import Flask
application = Flask("empty")
@application.get("/<path:anything>")
def view(anything):
    return {"verdict": "allowed"}
"""
MB = 1 << 20
SINGLE_TARGET, SINGLE_P99 = 0.5, 10.0


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
    """Verdicts by 10,000 in one request, a second, beside reading the same rows from PostgreSQL."""
    known = [a for (a,) in bench.rows("SELECT address FROM mailbox ORDER BY address")]
    addresses = (known + [f"nobody{n}@{known[0].partition('@')[2]}" for n in range(10_000)])[:10_000]
    started, rounds = time.monotonic(), 3
    for _ in range(rounds):
        body = json.dumps({"addresses": addresses}).encode()
        asked = urllib.request.Request(f"{bench.web}/v1/recipients/check", body, bench.operator)  # noqa: S310 - ours
        with urllib.request.urlopen(asked, timeout=60) as answer:  # noqa: S310 - same
            answer.read()
    ours = rounds * len(addresses) / (time.monotonic() - started)
    started = time.monotonic()
    for _ in range(rounds):
        bench.rows("SELECT * FROM mailbox WHERE address = ANY(%s)", addresses)
    bare = rounds * len(addresses) / (time.monotonic() - started)
    return Figure("verdict_bulk", ours, "verdicts/s", {"rows read": bare}, ours / bare, "none yet", ok=True)


FIGURES = {figure.__name__: figure for figure in (verdict_single, verdict_bulk)}

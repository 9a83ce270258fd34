"""How fast verdicts are given, one by one and in bulk."""

import json
import time
import urllib.request
from urllib.parse import quote

from benches.harness import Bench, Figure, granian, wrk

EMPTY_FLASK = """
from flask import Flask
application = Flask("empty")
@application.get("/<path:anything>")
def view(anything):
    return {"verdict": "allowed"}
"""


def verdict_single(bench: Bench) -> Figure:
    """Verdicts one by one over REST, a second, beside an empty Flask view under the same Granian."""
    lines = [
        f"GET /v1/recipients/{quote(a)}"
        for (a,) in bench.rows("SELECT address FROM mailbox ORDER BY address LIMIT 500")
    ]
    ours = wrk(bench, bench.web, lines, bench.operator)
    with granian(bench, "empty_flask", EMPTY_FLASK) as url:
        bare = wrk(bench, url, lines)
    return Figure(
        "verdict_single", ours, "verdicts/s", {"empty Flask view": bare}, ours / bare, "none yet", ok=True
    )


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

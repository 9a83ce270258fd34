"""The front with nothing behind it, for Granian to serve: `/kept` tells how many requests are kept still."""

import gc
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from api.front import shortcut
from api.front.answers import Pieces
from api.front.application import Front, Lane
from api.front.askers import Proxies
from api.front.bodies import Pace
from api.front.exchange import Exchange
from api.front.roads import LARGEST_DEFERRED, ORDINARY, Road, Trade
from api.front.turns import Turns
from api.http.problems import of_failure

DEFERRABLE = Road(Trade.BULK, deferred=Road(Trade.BULK, LARGEST_DEFERRED))


def pieces(whole: int) -> Iterator[bytes]:
    """So many lines of ten; with fewer, the next one fails."""
    for number in range(10):
        if number == whole:
            raise ValueError
        yield b"a line\n"


def serve(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """What is asked for by the path."""
    path = environ["PATH_INFO"]
    if path == "/panic":
        raise SystemExit(1)
    if path == "/slow":
        time.sleep(0.6)
    start_response("200 OK", [("Content-Type", "text/plain")])
    if path == "/pieces":
        return Pieces(pieces(int(environ["QUERY_STRING"])))
    gc.collect()
    kept = sum(isinstance(one, Exchange) for one in gc.get_objects())
    return [str(kept if path == "/kept" else len(environ["wsgi.input"].read())).encode()]


application = Front(
    {trade: Lane(serve, Turns(trade.value, 8)) for trade in Trade},
    lambda _, path: DEFERRABLE if path == "/many" else ORDINARY,
    lambda _: None,
    problem=partial(of_failure, "https://sceau.invalid"),
    pace=Pace(1.0, 500),
    proxies=Proxies([]),
)
shortcut.install(application.take)

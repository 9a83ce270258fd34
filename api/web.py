"""What the web server loads: `api.web:application`, the front before status and Flask, each trade apart.

Importing this module starts it: settings are read, keys opened, the listener for revocations begun. Each
worker process of the server imports it for itself.
"""

import gc
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from sqlalchemy import Engine

from api.app import create_app
from api.concurrency import WAITING
from api.database_timeout import impatient
from api.front import connections, shortcut
from api.front.answers import Application  # noqa: TC001 - mypy reads it from the variable alone
from api.front.application import Front, Lane
from api.front.askers import Proxies
from api.front.bodies import Pace
from api.front.roads import Road, Trade, roads_of
from api.front.turns import Turns
from api.front.unnamed import Unnamed
from api.http.access_log import together, write_soon, write_to_stderr
from api.http.problems import of_failure
from api.process.gathering import Gathering
from api.rest.quick_recipient import QuickRecipient
from api.settings import Secret, Settings, load_settings, passphrase
from api.status.wsgi import StatusApplication, is_status
from api.wiring import Container, build, database_url
from directory.base.db import connect_engine
from directory.base.instant import dated_by_database
from pki.lint.pool import LintPool
from pki.ocsp.request import LARGEST_REQUEST
from pki.ocsp.response import Outcome

# Above the longest wait for a lock; status answers within seconds or says tryLater.
_PATIENCE = 40.0
_STATUS_PATIENCE = 2.0
_NEVER_ISSUED = {"unknown": Outcome.UNKNOWN, "revoked": Outcome.NEVER_ISSUED}
# Threads of each trade in a process: an eighth, which one token may have at work, is one at least.
_THREADS = {
    Trade.STATUS: 8,
    Trade.REVOCATION: 8,
    Trade.WATCH: 4,
    Trade.STAY: WAITING,
    Trade.BULK: 8,
    # Whoever certifies waits for locks, the signer and the disk: so many at a time keep both cores at work.
    Trade.ORDINARY: 16,
}
# One for each thread that may hold one: who waits for a lock of the record leaves the others theirs.
_CONNECTIONS = _THREADS[Trade.ORDINARY] + _THREADS[Trade.BULK]
# Connections of those who take trust away: views that use up theirs leave these free.
_CONNECTIONS_APART, _KEPT_APART = 10, 2
# Seconds after which a thread in Python lets another run. The one that answers OCSP is one of many, and must
# not wait its turn for five thousandths of a second at each of them. With half of one, each step of a
# certificate was cut in two, which took a fifteenth of it.
_SWITCH_SECONDS = 0.002
# Objects made since the youngest were looked through, and how often that is done before the older ones are.
_GARBAGE = (20_000, 20, 20)
# Whose rights it has in the record.
_PART = "web"
_OF_STATUS = Road(Trade.STATUS, LARGEST_REQUEST)


def _start() -> Front:
    write_to_stderr()
    write_soon()
    sys.setswitchinterval(_SWITCH_SECONDS)
    connections.make_room()
    settings = load_settings()
    lints = LintPool()
    lints.warm()
    container = replace(
        build(settings, part=_PART, connections=_CONNECTIONS),
        opinion=lints.findings,
        counting=_counting(settings),
    )
    # A view that waited for ever would keep its thread for ever.
    impatient(container.engine, _PATIENCE)
    status = _status(container).start()
    container.writing.follow()
    container.readers.follow()
    ordinary, apart = create_app(container), create_app(_apart(container))
    served: dict[Trade, Application] = {
        Trade.STATUS: status, Trade.REVOCATION: apart.wsgi_app, Trade.WATCH: apart.wsgi_app,
        Trade.STAY: ordinary.wsgi_app, Trade.BULK: ordinary.wsgi_app, Trade.ORDINARY: ordinary.wsgi_app,
    }  # fmt: skip
    front = Front(
        {trade: Lane(serves, Turns(trade.value, _THREADS[trade])) for trade, serves in served.items()},
        _with_status(roads_of(ordinary)),
        status.answers.remembered,
        problem=partial(of_failure, settings.base_url),
        pace=Pace(settings.body_seconds, settings.body_rate),
        proxies=Proxies(settings.proxies, settings.proxy_header),
        stir=container.bell.stir,
        unnamed=Unnamed(settings.state).note,
        quick=QuickRecipient(container, _gathering(container)),
    )
    shortcut.install(front.take)
    return front


def _status(container: Container) -> StatusApplication:
    settings = container.settings
    # Connections of its own, as for who takes trust away.
    record = dated_by_database(connect_engine(database_url(settings, _PART), application="sceau-status"))
    return StatusApplication(
        impatient(record, _STATUS_PATIENCE),
        keys_folder=settings.web_keys,
        passphrase=passphrase(settings, Secret.WEB),
        hours=settings.ocsp_hours,
        never_issued=_NEVER_ISSUED[settings.ocsp_never_issued],
        clock=container.clock,
        changed=container.bell.ring,
        kept=settings.kept,
        shortened=container.writing.shortened,
    )


def _apart(container: Container) -> Container:
    url = database_url(container.settings, _PART)
    engine = dated_by_database(
        connect_engine(url, most=_CONNECTIONS_APART, kept=_KEPT_APART, application="sceau-web-revocation")
    )
    engine.hide_parameters = True
    return replace(container, engine=impatient(engine, _PATIENCE))


def _with_status(road: Callable[[str, str], Road]) -> Callable[[str, str], Road]:
    return lambda method, path: _OF_STATUS if is_status(path) else road(method, path)


def _gathering(container: Container) -> Gathering:
    record = connect_engine(
        database_url(container.settings, _PART), most=1, kept=1, application="sceau-verdicts"
    )
    record.hide_parameters = True
    asked = impatient(record, _STATUS_PATIENCE)
    return Gathering(asked, container.remembered, container.clock, together).start()


def _counting(settings: Settings) -> Engine:
    """For the count of what is read: one thread draws at a time, another gives back or tells the log."""
    made = connect_engine(database_url(settings, _PART), most=4, kept=1, application="sceau-readers")
    # Source addresses are among them.
    made.hide_parameters = True
    return impatient(dated_by_database(made), _STATUS_PATIENCE)


application = _start()
# What is loaded by now stays: without this each full collection goes through all of it again.
gc.collect()
gc.freeze()
# A request makes thousands of objects and hardly a cycle: Python's own thresholds look for some too often.
gc.set_threshold(*_GARBAGE)

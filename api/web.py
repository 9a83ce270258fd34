"""What the web server loads: `api.web:application`, status answered in front, everything else by Flask.

Importing this module starts it: settings are read, keys opened, the listener for revocations begun. Each
worker process of the server imports it for itself.
"""

import gc
from dataclasses import replace

from api.app import create_app
from api.log import write_to_stderr
from api.patience import impatient
from api.settings import Secret, load_settings, passphrase
from api.status.reply import WsgiApplication
from api.status.wsgi import StatusApplication
from api.wiring import build, database_url
from directory.base.db import connect_engine
from directory.base.instant import dated_by_database
from pki.lint.pool import LintPool
from pki.ocsp import Outcome

# Above the longest wait for a lock; status answers within seconds or says tryLater.
_PATIENCE = 40.0
_STATUS_PATIENCE = 2.0
_NEVER_ISSUED = {"unknown": Outcome.UNKNOWN, "revoked": Outcome.NEVER_ISSUED}


def _start() -> WsgiApplication:
    write_to_stderr()
    settings = load_settings()
    lints = LintPool()
    lints.warm()
    container = replace(build(settings), opinion=lints.findings)
    # Both share the threads of this process: a view that waited for ever would keep OCSP from answering.
    impatient(container.engine, _PATIENCE)
    # Connections of its own: views that use up theirs leave these free.
    record = dated_by_database(connect_engine(database_url(settings), application="sceau-status"))
    status = StatusApplication(
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
    container.writing.follow()
    return status.start().wrap(create_app(container))


application = _start()
# What is loaded by now stays: without this each full collection goes through all of it again.
gc.collect()
gc.freeze()

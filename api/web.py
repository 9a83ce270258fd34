"""What the web server loads: `api.web:application`, status answered in front, everything else by Flask.

Importing this module starts it: settings are read, keys opened, the listener for revocations begun. Each
worker process of the server imports it for itself.
"""

from api.app import create_app
from api.log import write_to_stderr
from api.settings import load_settings
from api.status.reply import WsgiApplication
from api.status.wsgi import StatusApplication
from api.wiring import build


def _start() -> WsgiApplication:
    write_to_stderr()
    settings = load_settings()
    container = build(settings)
    status = StatusApplication(
        container.engine,
        keys_folder=settings.web_keys,
        passphrase=settings.web_passphrase.read_bytes().strip(),
        hours=settings.ocsp_hours,
        clock=container.clock,
    )
    return status.start().wrap(create_app(container))


application = _start()

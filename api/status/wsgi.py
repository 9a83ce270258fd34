"""The bare WSGI callable in front of Flask: `/ocsp`, `/crl/…`, `/ca/…`; all else goes on to the application.

Nothing here knows a framework: a Flask view costs three quarters of the requests a second. Paths are read as
they come, `//` included: base64 has slashes of its own, and routers merge them.
"""

import binascii
import logging
import re
import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path

from sqlalchemy import Engine

from api.status.answers import MEDIA_TYPE, Answers
from api.status.files import NOT_FOUND, UNAVAILABLE, Files
from api.status.listener import Listener
from api.status.reply import Environ, Reply, StartResponse, WsgiApplication, failure, uncacheable
from directory.base.clock import Clock, utc_now
from directory.base.db import libpq
from pki.ocsp import request as ocsp_request
from pki.ocsp import response as ocsp
from pki.ocsp.response import Outcome
from pki.rollback.detection import OutsideMemory, Watch

_LOG = logging.getLogger("sceau.status")
_CRL = re.compile(r"/crl/([a-z][a-z0-9-]{1,30})/(0|[1-9][0-9]{0,3})(-delta)?\.crl")
_CERTIFICATE = re.compile(r"/ca/([a-z][a-z0-9-]{1,62})\.(cer|p7c)")
_FILES = ("/crl/", "/ca/")
_TRY_LATER = uncacheable(MEDIA_TYPE, ocsp.refuse(Outcome.TRY_LATER))
_UNREADABLE = b""
# Some 1.5 kB each with headers: 50 MB a process when full of answers and standings.
DEFAULT_CACHE_SIZE = 20_000


def is_status(path: str) -> bool:
    """Whether this path is answered here."""
    return path.startswith(("/ocsp/", *_FILES)) or path == "/ocsp"


class StatusApplication:
    """Revocation status of one process: from memory once `start()`ed, before that from the record each time.

    `engine` reaches the primary; `hours` is how long an OCSP answer holds; `passphrase` opens the responders'
    keys in `keys_folder`. `never_issued` and `ticks` are those of `Answers`; `kept` is what a restored record
    is held against. `changed` is called when something was committed that shows outside. `shortened` says for
    how long `good` may be said instead of so long (`api.process.writing`).
    """

    def __init__(
        self,
        engine: Engine,
        *,
        keys_folder: Path,
        passphrase: bytes,
        hours: int,
        clock: Clock = utc_now,
        cache_size: int = DEFAULT_CACHE_SIZE,
        never_issued: Outcome = Outcome.UNKNOWN,
        ticks: Callable[[], float] = time.monotonic,
        changed: Callable[[], None] = lambda: None,
        kept: OutsideMemory | None = None,
        shortened: Callable[[timedelta], timedelta] = lambda lifetime: lifetime,
    ) -> None:
        watch = None if kept is None else Watch(engine, kept, ticks)
        self.answers = Answers(
            engine, keys_folder=keys_folder, passphrase=passphrase, hours=hours, clock=clock, size=cache_size,
            never_issued=never_issued, ticks=ticks, watch=watch,
            shortened=shortened,
        )  # fmt: skip
        self.files = Files(engine, self.answers.replies.is_vouched_for, None if kept is None else kept.floor)
        caches = (self.answers.replies, self.answers.standings)
        self._changed = changed
        self.listener = Listener(libpq(engine.url), caches, self._heard)

    def start(self) -> "StatusApplication":
        """Begin to hear of revocations; once in each process, after it was forked."""
        self.listener.start()
        return self

    def _heard(self) -> None:
        self.files.look_again()
        self._changed()

    def wrap(self, application: WsgiApplication) -> WsgiApplication:
        """A WSGI application that answers status itself and leaves all other paths to `application`."""

        def dispatch(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            if is_status(environ["PATH_INFO"]):
                return self(environ, start_response)
            return application(environ, start_response)

        return dispatch

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request; whatever goes wrong, the answer is never `good`."""
        path = environ["PATH_INFO"]
        if environ["REQUEST_METHOD"] == "GET":
            remembered = self.answers.remembered(path)
            if remembered is not None:
                return remembered.send(environ, start_response)
        try:
            reply = self._reply(environ["REQUEST_METHOD"], path, environ)
        except Exception:  # noqa: BLE001 - the outermost edge: our bug must not leave a client without an answer
            _LOG.exception("status request failed")
            reply = UNAVAILABLE if path.startswith(_FILES) else _TRY_LATER
        return reply.send(environ, start_response)

    def _reply(self, method: str, path: str, environ: Environ) -> Reply:
        if path.startswith(_FILES):
            return self._file(path) if method in {"GET", "HEAD"} else _not_allowed("GET, HEAD")
        if path == "/ocsp" and method == "POST":
            return self._posted(environ)
        if path.startswith("/ocsp/") and method in {"GET", "HEAD"}:
            return self.answers.answer(_from_path(path), path, is_get=True)
        if path == "/ocsp" or path.startswith("/ocsp/"):
            return _not_allowed("POST" if path == "/ocsp" else "GET, HEAD")
        return NOT_FOUND

    def _posted(self, environ: Environ) -> Reply:
        if int(environ.get("CONTENT_LENGTH") or 0) > ocsp_request.LARGEST_REQUEST:
            return self.answers.answer(_UNREADABLE, _UNREADABLE, is_get=False)
        # One octet more than allowed shows that a body without a length is too long.
        request = environ["wsgi.input"].read(ocsp_request.LARGEST_REQUEST + 1)
        return self.answers.remembered(request) or self.answers.answer(request, request, is_get=False)

    def _file(self, path: str) -> Reply:
        if shard := _CRL.fullmatch(path):
            return self.files.crl(shard[1], int(shard[2]), delta=shard[3] is not None)
        if certificate := _CERTIFICATE.fullmatch(path):
            files = self.files
            one_or_all = files.certificate if certificate[2] == "cer" else files.certificates
            return one_or_all(certificate[1])
        return self.files.bundle() if path == "/ca/bundle.p7b" else NOT_FOUND


def _from_path(path: str) -> bytes:
    """The request inside a GET path (RFC 6960 A.1): base64, percent-decoded by the server already.

    Leading slashes come from URLs written with a slash at their end. A DER request begins with `M` in base64,
    so they are never its own. Padding may be missing. What is not base64 gives no octets: malformed.
    """
    encoded = path.removeprefix("/ocsp").lstrip("/").rstrip("=")
    try:
        return binascii.a2b_base64(encoded + "=" * (-len(encoded) % 4), strict_mode=True)
    except ValueError:
        return _UNREADABLE


def _not_allowed(methods: str) -> Reply:
    return failure("405 Method Not Allowed", ("Allow", methods))

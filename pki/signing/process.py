"""The signer as a process: keys in, a Unix socket out, until SIGTERM.

`inprocess` decides what may be signed. Here are only the socket, the words on it, and the guards that keep
the keys from leaving with a core dump or a debugger. CAs of a first run are made by what it is handed.
"""

import ctypes
import logging
import os
import resource
import socket
import socketserver
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from directory.base.asked_to_stop import asked_to_stop
from directory.base.clock import Clock, utc_now
from directory.base.db import connect_engine
from directory.base.errors import Kind, Refusal
from directory.base.instant import dated_by_database
from pki.model import Serial
from pki.powers.anchors import load_anchors, required_anchors
from pki.powers.followed import Followed
from pki.powers.state import Powers
from pki.rollback.detection import OutsideMemory, Watch
from pki.signing import wire
from pki.signing.inprocess import InProcessSigner
from pki.signing.journal import Journal
from pki.signing.keys import Keys
from pki.signing.signer import Signer

JOURNAL = "journal.jsonl"
# Beside the journal: what was followed of the log, with the anchors it was followed from.
POWERS = "powers.json"
# A short log is followed before anybody asks for a signature.
FIRST_SECONDS = 2.0
_PR_SET_DUMPABLE = 4
# Web processes and the worker keep eight connections each. Each has a thread and a file here: without bounds,
# one process of their account takes all files there are, and nothing is signed.
MOST_SILENT = 256
# Silent or asking: 1,024 files are what a process usually may open, and the record and the keys need some.
MOST_OPEN = 512
_log = logging.getLogger(__name__)


def serve(
    *,
    database_url: str,
    keys: Keys,
    journal_folder: Path,
    socket_path: Path,
    establish: Callable[[Engine, Keys, datetime], None] | None = None,
    kept: OutsideMemory | None = None,
    anchors: Path | None = None,
    clock: Clock = utc_now,
) -> None:
    """Serve until SIGTERM or SIGINT; `establish` first makes the CAs that are absent, at an instant given.

    Nothing is made and nothing signed while the record is behind the marks `kept` outside it, or the clock
    differs from the database's. The journal is told. With `anchors`, nothing is signed while an administrator
    has frozen the installation, or the log is not the one that was followed. Refuses `journal-held` when
    another signer runs on this journal, `journal-damaged`, `ca-key-unreadable`, and `signer-unavailable` when
    the place of the keys is away. Refuses `anchors-missing` and `anchors-changed` where there were others.
    """
    # 1. Before any key is in memory: no core dump, no reading of our memory by the same user.
    _harden()
    # 2. The memory of what was signed, then the keys.
    journal = Journal(journal_folder / JOURNAL)
    engine = dated_by_database(connect_engine(database_url, application="sceau-signer"))
    lacks = [] if kept is None else Watch(engine, kept).look()
    for sentence in lacks:
        _log.error("the record is behind, nothing is signed (`sceau restore check`): %s", sentence)
    powers = None if anchors is None else powers_of(engine, anchors, journal_folder)
    signer = InProcessSigner(engine, keys, journal, clock, kept=kept, powers=powers)
    # What is wrong with the clock it says itself, in the log: then no CA is made, and the journal is told.
    if establish is not None and not lacks and not signer.signing.wrong():
        establish(engine, keys, signer.signing.instant())
    signer.open_keys()
    # 3. The socket, for this account alone.
    try:
        with _Server(socket_path, signer) as server:
            _stop_on_signal(server)
            server.serve_forever(poll_interval=0.2)
    finally:
        engine.dispose()
        journal.close()


def powers_of(engine: Engine, anchors: Path, folder: Path) -> Callable[[], Powers] | None:
    """Who holds which power, as often as asked; None where the installation has no anchors, and had none."""
    kept = folder / POWERS
    # Whoever removes the file would else have a signer that asks for nobody's signature.
    found = (required_anchors if kept.exists() else load_anchors)(anchors)
    if found is None:
        return None
    followed = Followed(engine, found, kept)
    followed.keep()
    return _caught_up(followed)


def _caught_up(followed: Followed) -> Callable[[], Powers]:
    """The powers of now; `log-not-followed` instead of a long wait, in which no CRL would be signed either.

    The first time, ten million lines take minutes.
    """

    def follow() -> None:
        # What stands against it is told to whoever asks for a signature.
        with suppress(Refusal, SQLAlchemyError, OSError):
            followed.current()

    first = threading.Thread(target=follow, daemon=True)
    first.start()

    def current() -> Powers:
        first.join(FIRST_SECONDS)
        if first.is_alive():
            text = "The audit log is still being followed for the first time: nothing gives trust until then."
            raise Refusal(Kind.UNAVAILABLE, "log-not-followed", text)
        return followed.current()

    return current


def answer(signer: Signer, asked: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """The answer to one question, and what is attached to it; ValueError when it is no question.

    `{"answer": …}`, null when all of it is attached, or `{"refusal": …}`.
    """
    try:
        match asked:
            case {"ask": "crl", "authority": str(authority), "shard": int(shard), "number": int(number)}:
                return {"answer": None}, signer.sign_crl(authority, shard, number)
        return {"answer": _answered(signer, asked)}, b""
    except Refusal as refusal:
        return _told(refusal), b""


def _told(answer: bytes | Refusal) -> dict[str, Any]:
    if isinstance(answer, bytes):
        return {"der": b64encode(answer).decode()}
    told = {"kind": answer.kind.value, "code": answer.code, "text": answer.text}
    return {"refusal": {**told, "details": dict(answer.details)}}


def _answered(signer: Signer, asked: dict[str, Any]) -> str | list[dict[str, Any]] | list[Serial] | None:
    match asked:
        case {"ask": "certificate", "serial": str(serial)}:
            return b64encode(signer.sign_certificate(Serial(serial))).decode()
        case {"ask": "certificates", "serials": list(serials)} if all(isinstance(s, str) for s in serials):
            return [_told(signed) for signed in signer.sign_certificates([Serial(s) for s in serials])]
        case {"ask": "journal", "serial": str(serial)}:
            certificate = signer.journal(Serial(serial))
            return None if certificate is None else b64encode(certificate).decode()
        case {"ask": "signed", "after": int(after)} if after >= 0:
            return list(signer.signed(after))
        case {"ask": "ping"}:
            return signer.ping()
    raise ValueError("not a question")


class _Conversation(socketserver.BaseRequestHandler):
    """One client's connection: question, answer, question, until it hangs up."""

    server: "_Server"

    def handle(self) -> None:
        """Answer until the other side leaves or speaks nonsense; a bug ends only this connection."""
        while True:
            try:
                asked = wire.receive(self.request, wire.LARGEST_QUESTION)
                if asked is None:
                    return
                with self.server.busy_with(self.request):
                    told = answer(self.server.signer, asked[0])
                wire.send(self.request, *told)
            except (OSError, ValueError):
                return
            except Exception:  # noqa: BLE001 - the outermost edge of this process
                # Whatever it is, the next question deserves an answer.
                _log.exception("a question to the signer failed")
                return


class _Server(socketserver.ThreadingMixIn, socketserver.BaseServer):
    """Threads on a Unix socket of mode 0600; the threads end with the process."""

    daemon_threads = True

    def __init__(self, path: Path, signer: Signer) -> None:
        super().__init__(str(path), _Conversation)
        self.signer = signer
        self.path = path
        # Those that ask nothing yet, or do not take their answer: the longest silent first.
        self._silent: dict[socket.socket, None] = {}
        # In neither: those hung up on, whose thread is about to end.
        self._busy: set[socket.socket] = set()
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # The journal's lock is ours, so a socket that lies here is of a signer that was killed.
        path.unlink(missing_ok=True)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        mask = os.umask(0o177)
        try:
            with wire.short(path) as name:
                self.socket.bind(name)
        finally:
            os.umask(mask)
        self.socket.listen(128)

    def fileno(self) -> int:
        """What the serving loop waits on."""
        return self.socket.fileno()

    def get_request(self) -> tuple[socket.socket, str]:
        """One client; above either bound somebody is hung up on for it, and connects anew."""
        link, _ = self.socket.accept()
        with self._lock:
            self._silent[link] = None
            self._keep_within_bounds()
        return link, ""

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002 - of the base class
        """Whether it was not hung up on already: then it gets no thread."""
        with self._lock:
            return request in self._silent

    @contextmanager
    def busy_with(self, link: socket.socket) -> Iterator[None]:
        """Inside, it is hung up on for nobody: what it asked is being answered.

        ConnectionError when it was hung up on before: nothing is signed for an answer that reaches nobody.
        """
        with self._lock:
            if link not in self._silent:
                raise ConnectionError("hung up on for another")
            del self._silent[link]
            self._busy.add(link)
        try:
            yield
        finally:
            with self._lock:
                self._busy.remove(link)
                self._silent[link] = None
                self._keep_within_bounds()

    def _keep_within_bounds(self) -> None:
        """Hang up on the longest silent where one is too many; a newcomer is it where all others are busy.

        Under the lock: later, its thread may be at work on a question, or its file be another's.
        """
        silent = len(self._silent)
        if silent > MOST_SILENT or silent + len(self._busy) > MOST_OPEN:
            longest = next(iter(self._silent))
            del self._silent[longest]
            # Its thread wakes up, and closes it.
            with suppress(OSError):
                longest.shutdown(socket.SHUT_RDWR)

    def shutdown_request(self, request: Any) -> None:
        """Hang up."""
        with self._lock:
            self._silent.pop(request, None)
        with suppress(OSError):
            request.close()

    def server_close(self) -> None:
        """Leave no socket behind that nobody answers."""
        self.socket.close()
        self.path.unlink(missing_ok=True)


def _stop_on_signal(server: _Server) -> None:
    wait = asked_to_stop()

    def stop() -> None:
        wait()
        server.shutdown()

    # From the serving thread itself it would wait for itself.
    threading.Thread(target=stop, daemon=True).start()


def _harden() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")

"""What slapd asks before it answers a reader: is this his secret, may he search (yet)?

slapd's overlay `sock` (slapd-sock(5)) puts each bind and each search to this process, over a Unix socket, as
lines of text. A token is looked up as REST looks it up, and what is read counts under the same quotas
(`directory/reading_quotas.py`). A question that is not understood is refused; while this process is away, so
is every one. What may be found is for slapd, where it listens for `api/embedded/slapd_readers.py`.
"""

import logging
import os
import re
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from api.front.askers import source_of
from api.wiring import Container
from directory.access import (
    ClientCertificate,
    Role,
    Token,
    authenticate,
    certified_operator,
    still_live,
)
from directory.base.db import asking
from directory.base.errors import Kind, Refusal
from directory.ldap.names import Name, join, parent, split
from directory.reading_quotas import Reached, Reading, scopes_of

log = logging.getLogger("sceau.ldap.gate")
THREADS = 8
# The roles that search over REST.
MAY_SEARCH = frozenset({Role.OPERATOR, Role.REGISTRAR, Role.AUDITOR})
# For so long a token is not asked for again: a revoked one reads no longer.
HOLDS_SECONDS = 0.5
# Of binds that a client holds open; beyond, the record is asked each time.
REMEMBERED = 10_000
# A request has a filter, which slapd takes up to 256 KiB of, in parts that grow up to threefold as text.
LONGEST_REQUEST = 1 << 20
# A page of addresses in one filter, and ten times what Thunderbird asks. slapd ends a search by time between
# entries alone: thousands of terms hold one of its threads for as long as they take.
LONGEST_FILTER = 8_000
PATIENCE_SECONDS = 5.0
# Of a connection with a client certificate. slapd ends one that is idle for 900 s (`olcIdleTimeout`).
LONGEST_CONNECTION, FORGOTTEN_SECONDS = 3600.0, 1200.0
TOKENS, CERTIFICATES = ("ou", "tokens"), ("ou", "certificates")
# RFC 4511 A.1
SUCCESS, PROTOCOL_ERROR, INVALID_CREDENTIALS, INSUFFICIENT, BUSY, UNAVAILABLE = 0, 2, 49, 50, 51, 52
ADMIN_LIMIT_EXCEEDED = 11
CONFIDENTIALITY_REQUIRED, AUTH_METHOD_NOT_SUPPORTED = 13, 7
SIMPLE = "128"
# In bits; slapd calls a TLS connection by the strength of its cipher.
LEAST_STRENGTH = 128
CONTINUE = b"CONTINUE\n"
_HEAD = ("msgid", "binddn", "peername", "ssf", "suffix")
_SEARCH = (*_HEAD, "base", "scope", "deref", "sizelimit", "timelimit", "filter", "attrsonly", "attrs")
_BIND = (*_HEAD, "dn", "method", "credlen")
# One address, alone or with conditions that make it fewer.
_EXACT = re.compile(r"\(mail=[^*()]+\)|\(&\(mail=[^*()]+\).*\)", re.IGNORECASE)
_PEER = re.compile(r"IP=(?:\[([^\]]+)\]|([^:]+)):\d+")


class _Malformed(Exception):  # noqa: N818 - a question that slapd does not ask
    """Lines other than slapd writes: somebody put line ends into what he asked."""


@dataclass(frozen=True)
class Answer:
    """An LDAP result: its code and a sentence for a person."""

    code: int
    text: str

    def written(self) -> bytes:
        """As slapd reads it; a line end in the text would begin another line.

        A success has none: slapd sends that by itself, after it gave the text's memory back.
        """
        info = f"info:{' '.join(self.text.split())}\n" if self.text else ""
        return f"RESULT\ncode: {self.code}\n{info}".encode(errors="replace")


class Gate:
    """Answers slapd's questions, from any number of threads."""

    def __init__(self, container: Container) -> None:
        self.container = container
        suffix = split(container.settings.suffix)
        self._tokens, self._certificates = (TOKENS, *suffix), (CERTIFICATES, *suffix)
        self._live: OrderedDict[str, tuple[Token, float]] = OrderedDict()
        # When each connection of a certificate was seen first and last.
        self._seen: OrderedDict[tuple[str, str], tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def answer(self, question: bytes) -> bytes:
        """What slapd is to do with this bind or search."""
        try:
            if question.startswith(b"SEARCH\n"):
                return self._search(_fields(question, _SEARCH))
            if question.startswith(b"BIND\n"):
                return self._bind(question)
        except _Malformed:
            pass
        except Refusal as refusal:
            return _refused(refusal).written()
        except SQLAlchemyError:
            log.exception("the record does not answer")
            return Answer(UNAVAILABLE, "The record does not answer: try again later.").written()
        return Answer(PROTOCOL_ERROR, "This is not understood.").written()

    def _bind(self, question: bytes) -> bytes:
        head, _, rest = question.partition(b"\ncred: ")
        asked = _fields(head + b"\n\n", _BIND)
        if asked["method"] != SIMPLE:
            return Answer(AUTH_METHOD_NOT_SUPPORTED, "Bind simply, with a token.").written()
        if int(asked["ssf"]) < LEAST_STRENGTH:
            return Answer(CONFIDENTIALITY_REQUIRED, "A token is taken over TLS alone.").written()
        number = self._number(asked["dn"])
        secret = rest[: int(asked["credlen"])].decode(errors="replace")
        with asking(self.container.engine) as connection:
            token = authenticate(connection, secret, self.container.present(connection))
        # The name is what each search is counted under: nobody binds under another's.
        if token.id != number:
            raise Refusal(Kind.UNAUTHENTICATED, "bad-token", "This token has another name.")
        _check_role(token)
        return Answer(SUCCESS, "").written()

    def _search(self, asked: dict[str, str]) -> bytes:
        # A replica looks by itself for what it is to change: who asks from outside has an address.
        if not (asked["peername"] or asked["binddn"]):
            return CONTINUE
        if not asked["binddn"]:
            text = "Bind with a token first: cn=<number>,ou=tokens,..., its secret as the password."
            raise Refusal(Kind.UNAUTHENTICATED, "no-token", text)
        token = self._token(asked["binddn"])
        if isinstance(token, ClientCertificate):
            self._check_age(asked["binddn"], asked["peername"])
        readers = self.container.readers
        scopes = scopes_of(token, _source(asked["peername"]), readers.quotas)
        reading = Reading.ADDRESSES if _EXACT.fullmatch(asked["filter"]) else Reading.SEARCHES
        done = readers.charge(token, scopes, reading)
        if isinstance(done, Reached):
            raise done.refusal(self.container.clock())
        # Counted all the same: refused for nothing, it could be asked without end.
        if len(asked["filter"]) > LONGEST_FILTER:
            text = f"A filter has {LONGEST_FILTER} characters at most: ask in a shorter one."
            return Answer(ADMIN_LIMIT_EXCEEDED, text).written()
        return CONTINUE

    def _number(self, dn: str) -> int:
        match _name(dn):
            case (("cn", number), *above) if tuple(above) == self._tokens and _is_plain(number):
                return int(number)
        text = "Bind under the name of a token: cn=<number>,ou=tokens,..."
        raise Refusal(Kind.UNAUTHENTICATED, "bad-token", text)

    def _token(self, dn: str) -> Token:
        """Who bound under this name, if he may search still."""
        with self._lock:
            token, since = self._live.get(dn, (None, 0.0))
        if token is not None and time.monotonic() - since < HOLDS_SECONDS:
            return token
        with asking(self.container.engine) as connection:
            now = self.container.present(connection)
            subject = self._subject(dn)
            if subject:
                token = certified_operator(connection, subject, now)
            else:
                token = still_live(connection, self._number(dn), now)
        _check_role(token)
        self._remember(dn, token)
        return token

    def _check_age(self, dn: str, peer: str) -> None:
        """Refuse on a connection that was opened long ago by a certificate, whatever became of that since.

        slapd looks at its dates once, when it is shown. Who was refused stays so: slapd ends what is idle for
        longer than a connection is remembered.
        """
        now = time.monotonic()
        with self._lock:
            first, last = self._seen.pop((dn, peer), (now, now))
            if now - last > FORGOTTEN_SECONDS:
                first = now
            self._seen[dn, peer] = first, now
            while len(self._seen) > REMEMBERED:
                self._seen.popitem(last=False)
        if now - first > LONGEST_CONNECTION:
            text = "This connection is as old as one with a client certificate may be: connect anew."
            raise Refusal(Kind.UNAUTHENTICATED, "unknown-certificate", text)

    def _subject(self, dn: str) -> str:
        """The subject of a client certificate, which slapd puts above a name of ours; '' for other names."""
        rest = dn
        while rest and _name(rest) != self._certificates:
            rest = parent(rest)
        return dn.removesuffix(rest).rstrip(", ") if rest else ""

    def _remember(self, dn: str, token: Token) -> None:
        with self._lock:
            self._live[dn] = (token, time.monotonic())
            self._live.move_to_end(dn)
            while len(self._live) > REMEMBERED:
                self._live.popitem(last=False)


def _is_plain(number: str) -> bool:
    """Whether it is written as `name_of` writes it: a token with several names would be several readers."""
    return number.isascii() and number.isdecimal() and number == str(int(number))


def name_of(token: Token, suffix: str) -> str:
    """The name that its holder binds under."""
    return join("cn", str(token.id), "=".join(TOKENS), suffix)


def serve(gate: Gate, path: Path, mode: int = 0o600) -> socket.socket:
    """Answer on the Unix socket `path`, by threads, until this process ends or the socket is shut down."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    before = os.umask(0o777 & ~mode)
    listener.bind(str(path))
    os.umask(before)
    listener.listen(512)
    for _ in range(THREADS):
        threading.Thread(target=_answer_all, args=(gate.answer, listener), daemon=True).start()
    return listener


def answers(path: Path) -> bool:
    """Whether a gate answers on this socket."""
    with socket.socket(socket.AF_UNIX) as asker:
        asker.settimeout(2)
        try:
            asker.connect(str(path))
            asker.sendall(b"PING\n\n")
            return asker.recv(16).startswith(b"RESULT")
        except OSError:
            return False


def _answer_all(answer: Callable[[bytes], bytes], listener: socket.socket) -> None:
    while True:
        try:
            asker, _ = listener.accept()
        except OSError:
            return
        with asker, suppress(OSError):
            try:
                asker.sendall(answer(_received(asker, time.monotonic() + PATIENCE_SECONDS)))
            except Exception:
                # Nobody else would take up the work of this thread; unanswered, slapd refuses.
                log.exception("a question of slapd's failed")


def _received(asker: socket.socket, until: float) -> bytes:
    """A whole question: up to the empty line at its end, beyond which slapd waits for us.

    TimeoutError when it is not whole by then: who sent an octet at a time would keep a thread for ever.
    """
    question = bytearray()
    while not question.endswith(b"\n\n") or _lacks_secret(question):
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        asker.settimeout(left)
        received = asker.recv(65_536)
        question += received
        if not received or len(question) > LONGEST_REQUEST:
            return b""
    return bytes(question)


def _lacks_secret(question: bytearray) -> bool:
    """Whether two line ends are those of a secret that goes on."""
    head, separator, rest = question.partition(b"\ncred: ")
    length = re.search(rb"\ncredlen: (\d+)\Z", head)
    if not question.startswith(b"BIND\n") or not separator or length is None:
        return False
    return len(rest) < int(length[1]) + 2


def _fields(question: bytes, names: tuple[str, ...]) -> dict[str, str]:
    """The lines of a question, which are these in this order and no others."""
    lines = question.decode(errors="replace").split("\n")[1:-2]
    parts = [line.partition(":") for line in lines]
    if tuple(name for name, _, _ in parts) != names:
        raise _Malformed
    return {name: value.lstrip(" ") for name, _, value in parts}


def _name(dn: str) -> Name:
    try:
        return split(dn)
    except ValueError:
        return ()


def _source(peername: str) -> str:
    """The network that asks, as REST counts it; what comes by a Unix socket is this machine."""
    match = _PEER.fullmatch(peername)
    return source_of(match[1] or match[2] if match else "")


def _check_role(token: Token) -> None:
    if token.role not in MAY_SEARCH:
        raise Refusal(Kind.FORBIDDEN, "role-lacking", "The token's role does not allow searches.")


def _refused(refusal: Refusal) -> Answer:
    match refusal.kind, refusal.code:
        case Kind.UNAUTHENTICATED, "bad-token" | "unknown-certificate":
            return Answer(INVALID_CREDENTIALS, refusal.text)
        case Kind.TOO_MANY, _:
            return Answer(BUSY, refusal.text)
        case _:
            return Answer(INSUFFICIENT, refusal.text)

"""The only door to ldap3: a small typed client that reads entries and applies planned operations.

Failures come out as refusals. UNAVAILABLE: the server cannot be reached or is at fault (try again later).
UNACCEPTABLE: it will not have this entry (trying again changes nothing). It decides nothing else.
"""

import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import Any, TypeVar, cast

import ldap3
from ldap3.core.exceptions import LDAPException
from ldap3.core.results import (
    RESULT_ASSERTION_FAILED,
    RESULT_ATTRIBUTE_OR_VALUE_EXISTS,
    RESULT_CONSTRAINT_VIOLATION,
    RESULT_ENTRY_ALREADY_EXISTS,
    RESULT_INAPPROPRIATE_MATCHING,
    RESULT_INVALID_ATTRIBUTE_SYNTAX,
    RESULT_INVALID_DN_SYNTAX,
    RESULT_NAMING_VIOLATION,
    RESULT_NO_SUCH_ATTRIBUTE,
    RESULT_NO_SUCH_OBJECT,
    RESULT_NOT_ALLOWED_ON_NON_LEAF,
    RESULT_NOT_ALLOWED_ON_RDN,
    RESULT_OBJECT_CLASS_MODS_PROHIBITED,
    RESULT_OBJECT_CLASS_VIOLATION,
    RESULT_SUCCESS,
    RESULT_UNDEFINED_ATTRIBUTE_TYPE,
)
from ldap3.utils.asn1 import decode_message_fast

from directory.base.errors import Kind, Refusal
from directory.ldap.entry import TREE, Entry
from directory.ldap.names import Name, parent, split
from directory.ldap.plan import Add, Delete, Modify, Operation
from directory.ldap.wire import request

# What the server answers when the entry is not as it was read: look again, then plan again.
MOVED = {
    Add: {RESULT_ENTRY_ALREADY_EXISTS},
    Modify: {RESULT_NO_SUCH_OBJECT, RESULT_NO_SUCH_ATTRIBUTE, RESULT_ATTRIBUTE_OR_VALUE_EXISTS},
    Delete: {RESULT_ASSERTION_FAILED},
}
# So many names in one filter: with more, comparing each entry with each name costs more than another search.
NAMES_ASKED = 40
# A deletion asks for absence, and there it is.
DONE = {Add: {RESULT_SUCCESS}, Modify: {RESULT_SUCCESS}, Delete: {RESULT_SUCCESS, RESULT_NO_SUCH_OBJECT}}
# The entry itself is at fault.
UNWRITABLE = {
    RESULT_UNDEFINED_ATTRIBUTE_TYPE, RESULT_INAPPROPRIATE_MATCHING, RESULT_CONSTRAINT_VIOLATION,
    RESULT_ATTRIBUTE_OR_VALUE_EXISTS, RESULT_INVALID_ATTRIBUTE_SYNTAX, RESULT_NO_SUCH_OBJECT,
    RESULT_INVALID_DN_SYNTAX, RESULT_NAMING_VIOLATION, RESULT_OBJECT_CLASS_VIOLATION,
    RESULT_NOT_ALLOWED_ON_NON_LEAF, RESULT_NOT_ALLOWED_ON_RDN, RESULT_OBJECT_CLASS_MODS_PROHIBITED,
}  # fmt: skip

# The number of SearchResultEntry among the messages (RFC 4511 4.5.2).
SEARCH_ENTRY = 4
Decoded = dict[str, Any]
EVERYTHING = (ldap3.ALL_ATTRIBUTES,)
T = TypeVar("T")


@dataclass(frozen=True)
class ClientTls:
    """PEM files for a server elsewhere: the CA its certificate comes from, our own certificate and key."""

    authority: Path
    certificate: Path
    key: Path


class _Verified(ldap3.Tls):
    """TLS in which Python's own `ssl` compares the server's name with its certificate.

    ldap3 compares by itself, and from Python 3.12 on by code of its own that knows no addresses.
    """

    def __init__(self, files: ClientTls) -> None:
        super().__init__(validate=ssl.CERT_REQUIRED, version=ssl.PROTOCOL_TLS_CLIENT)
        self._files = files

    def wrap_socket(self, connection: ldap3.Connection, do_handshake: bool = False) -> None:  # noqa: FBT001, FBT002
        """Wrap the connection's socket; ssl.SSLError when the server is not whom we called."""
        context = ssl.create_default_context(cafile=str(self._files.authority))
        context.load_cert_chain(self._files.certificate, self._files.key)
        connection.socket = context.wrap_socket(
            connection.socket, server_hostname=connection.server.host, do_handshake_on_connect=do_handshake
        )


class LdapClient:
    """One connection, opened when first needed and again after a failure; safe to share between threads.

    Over `ldapi://` the kernel says who we are, over `ldaps://` our certificate does (SASL EXTERNAL): there is
    no password. `seconds` bounds each step.
    """

    def __init__(self, url: str, *, tls: ClientTls | None = None, seconds: float = 10) -> None:
        # ldap3 would speak TLS to anybody then, and the server would not know us.
        if url.lower().startswith("ldaps:") and tls is None:
            text = f"{url} needs a CA to know the server by and a certificate to be known by."
            raise Refusal(Kind.UNAVAILABLE, "ldap-without-certificate", text)
        self._url, self._files = url, tls
        self._seconds = seconds
        self._tls = None if tls is None else _Verified(tls)
        self._lock = RLock()
        self._connection: ldap3.Connection | None = None

    def check(self) -> None:
        """Return when the server answers; refuse when it does not."""
        self.read("")
        self.close()

    def read(self, dn: str) -> Entry | None:
        """The entry `dn` with all its user attributes; None when there is none."""
        entries = self._search(dn, "(objectClass=*)", EVERYTHING, ldap3.BASE)
        return entries[0] if entries else None

    def found(self, dns: Sequence[str], attributes: Sequence[str] = EVERYTHING) -> dict[Name, Entry]:
        """Those of the entries `dns` that exist, by name, in a few searches; with all user attributes."""
        asked: dict[str, list[Name]] = {}
        for dn in dns:
            asked.setdefault(parent(dn), []).append(split(dn))
        entries: dict[Name, Entry] = {}
        for above, names in asked.items():
            wanted = set(names)
            for start in range(0, len(names), NAMES_ASKED):
                words = "".join(_equal(*name[0]) for name in names[start : start + NAMES_ASKED])
                page = self._search(above, f"(|{words})", attributes, ldap3.LEVEL)
                entries |= {entry.name: entry for entry in page if entry.name in wanted}
        return entries

    def bases(self, base: str) -> dict[Name, Entry]:
        """The entries that everything else hangs from, by name, and whether anything hangs from each."""
        asked = (*EVERYTHING, "hasSubordinates")
        entries = self._search(base, f"(objectClass={TREE})", asked, ldap3.SUBTREE)
        return {entry.name: entry for entry in entries}

    def identity(self) -> str:
        """The name by which the server knows us (RFC 4532)."""

        def ask(connection: ldap3.Connection) -> str:
            known = connection.extend.standard.who_am_i()
            return str(known or "").partition(":")[2]

        return self._call(ask)

    def walk(
        self, base: str, page: int = 500, attributes: Sequence[str] = EVERYTHING
    ) -> Iterator[list[Entry]]:
        """Every entry below and at `base`, page by page, on a connection of its own (cursors are its own)."""
        other = self.another()
        cookie: Any = None
        try:
            while cookie is None or cookie:
                entries, cookie = other._page(base, page, cookie, attributes)  # noqa: SLF001 - one of us
                yield entries
        finally:
            other.close()

    def another(self) -> "LdapClient":
        """A client of the same server with a connection of its own."""
        return LdapClient(self._url, tls=self._files, seconds=self._seconds)

    def apply(self, operation: Operation) -> bool:
        """Carry out one operation: True when it is done, False when the entry was not as it had been read."""
        kind = type(operation)

        def ask(connection: ldap3.Connection) -> bool:
            result = _answer(connection, operation)
            if result["result"] in MOVED[kind]:
                return False
            self._expect(result, DONE[kind], operation.dn)
            return True

        return self._call(ask)

    def replace(self, dn: str, values: Mapping[str, str]) -> None:
        """Give each of these attributes this one value, all of it or nothing.

        For the server's own configuration, which is not planned: nobody else writes it.
        """

        def ask(connection: ldap3.Connection) -> None:
            changes = {name: [(ldap3.MODIFY_REPLACE, [value])] for name, value in values.items()}
            connection.modify(dn, changes)  # type: ignore[no-untyped-call] # the stubs leave it so
            self._expect(connection.result, {RESULT_SUCCESS}, dn)

        self._call(ask)

    def close(self) -> None:
        """Let go of the connection; the next call opens another."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                _release(connection)

    def _search(self, base: str, words: str, attributes: Sequence[str], scope: Any) -> list[Entry]:
        def ask(connection: ldap3.Connection) -> list[Entry]:
            connection.search(base, words, search_scope=scope, attributes=attributes)
            self._expect(connection.result, {RESULT_SUCCESS, RESULT_NO_SUCH_OBJECT}, base)
            return _entries(connection)

        return self._call(ask)

    def _page(self, base: str, page: int, cookie: Any, attributes: Sequence[str]) -> tuple[list[Entry], Any]:
        def ask(connection: ldap3.Connection) -> tuple[list[Entry], Any]:
            connection.search(
                base, "(objectClass=*)", attributes=attributes, paged_size=page, paged_cookie=cookie
            )
            self._expect(connection.result, {RESULT_SUCCESS, RESULT_NO_SUCH_OBJECT}, base)
            controls = connection.result.get("controls") or {}
            paged = controls.get("1.2.840.113556.1.4.319", {"value": {"cookie": b""}})
            return _entries(connection), paged["value"]["cookie"]

        return self._call(ask)

    def _call(self, ask: Callable[[ldap3.Connection], T]) -> T:
        """One exchange with the server; any failure closes the connection, since it may be half used.

        A connection that served before may have been closed meanwhile (idle, restart): it is asked once more
        on a fresh one. Asking twice is safe: what is done already comes out as "not as it had been read".
        """
        with self._lock:
            reused = self._connection is not None
            try:
                return self._once(ask)
            except (LDAPException, OSError) as error:
                self.close()
                if not reused:
                    raise self._unavailable(error) from error
            try:
                return self._once(ask)
            except (LDAPException, OSError) as error:
                self.close()
                raise self._unavailable(error) from error

    def _once(self, ask: Callable[[ldap3.Connection], T]) -> T:
        self._connection = self._connection or self._open()
        return ask(self._connection)

    def _unavailable(self, error: Exception) -> Refusal:
        text = f"The LDAP server at {self._url} does not answer: {error}."
        return Refusal(Kind.UNAVAILABLE, "ldap-unavailable", text)

    def _open(self) -> ldap3.Connection:
        server = ldap3.Server(
            self._url,
            get_info=ldap3.NONE,
            tls=self._tls,
            connect_timeout=self._seconds,
            use_ssl=self._tls is not None,
        )
        connection = ldap3.Connection(
            server,
            authentication=ldap3.SASL,
            sasl_mechanism=ldap3.EXTERNAL,
            # Empty, not absent: without it the server waits for a second step.
            sasl_credentials="",
            check_names=False,
            return_empty_attributes=False,
            receive_timeout=self._seconds,
        )
        connection.strategy.decode_response_fast = _bytes_alone(connection.strategy.decode_response_fast)
        try:
            known = connection.bind()
        except (LDAPException, OSError):
            _release(connection)
            raise
        if not known:
            words = connection.result.get("description")
            _release(connection)
            text = f"The LDAP server at {self._url} does not know us as its publisher: {words}."
            raise Refusal(Kind.UNAVAILABLE, "ldap-bind-refused", text)
        return connection

    def _expect(self, result: Mapping[str, Any], codes: set[int], dn: str) -> None:
        code, words = result["result"], result["description"]
        if code in codes:
            return
        text = f"The LDAP server refused {dn!r}: {words} {result.get('message') or ''}".rstrip()
        if code in UNWRITABLE:
            raise Refusal(Kind.UNACCEPTABLE, "ldap-entry-refused", text, dn=dn)
        raise Refusal(Kind.UNAVAILABLE, "ldap-refused", text, dn=dn)


def _bytes_alone(decode: Callable[[Decoded], Decoded]) -> Callable[[Decoded], Decoded]:
    """ldap3's last step from a message to an answer, without entries as text beside those as bytes.

    Nobody here reads them as text, and making it is a third of what reading an entry costs.
    """

    def read(message: Decoded) -> Decoded:
        if message["protocolOp"] != SEARCH_ENTRY:
            return decode(message)
        (*_, dn), (*_, told) = message["payload"]
        attributes = {name[3].decode(): [value[3] for value in values[3]] for *_, (name, values) in told}
        return {"type": "searchResEntry", "dn": dn.decode(), "raw_attributes": attributes}

    return read


def _release(connection: ldap3.Connection) -> None:
    """Say goodbye where that is possible, and close the socket, which ldap3 forgets after a failure."""
    with suppress(LDAPException, OSError):
        connection.unbind()
    if connection.socket is not None:
        connection.socket.close()


def _answer(connection: ldap3.Connection, operation: Operation) -> Decoded:
    """What the server says to this request, which is the only one under way on the connection."""
    number = connection.server.next_message_id()
    connection.socket.sendall(request(operation, number))
    for received in connection.strategy.receiving():
        message = decode_message_fast(received)  # type: ignore[no-untyped-call] # the stubs leave it so
        # Number 0 is the server's farewell (RFC 4511 4.4.1).
        if message["messageID"] == number:
            return cast("Decoded", connection.strategy.decode_response_fast(message))
    raise LDAPException("the connection ended before the answer")


def _equal(attribute: str, value: str) -> str:
    """A filter on one value (RFC 4515): whatever is not plain is written as bytes."""
    plain = "".join(c if (c.isalnum() and c.isascii()) or c in ".-_@" else _bytes(c) for c in value)
    return f"({attribute}={plain})"


def _bytes(letter: str) -> str:
    return "".join(f"\\{byte:02x}" for byte in letter.encode())


def _entries(connection: ldap3.Connection) -> list[Entry]:
    return [
        Entry(answer["dn"], {name: tuple(values) for name, values in answer["raw_attributes"].items()})
        for answer in connection.response or ()
        if answer["type"] == "searchResEntry"
    ]

"""One register's file, brought over HTTPS from where it is published into a folder, believing nothing.

Asks first (HEAD), downloads to a hidden file, renames it once it is whole and on disk. One attempt: when to
try again, and what was fetched last, are `origins.py`'s to keep; what the file holds is for the run to judge.
Every `Refusal` of kind UNAVAILABLE may pass by itself; the others need a person.
"""

import http.client
import os
import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from email.message import Message
from email.utils import parsedate_to_datetime
from fnmatch import fnmatchcase
from http import HTTPStatus
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from time import monotonic
from typing import BinaryIO
from urllib.parse import SplitResult, urljoin, urlsplit

from directory.base.durable_files import onto_disk
from directory.base.errors import Kind, Refusal
from directory.sync.formats.files import stamp_of

# The national archive has 230 MB; the largest text of any register 0.83 GB.
LARGEST = 3 << 30
BLOCK = 1 << 18
CONNECT_SECONDS = 3.0
READ_SECONDS = 300.0
# A server that sends one byte a minute never times out by itself.
WHOLE_SECONDS = 3600.0
MOST_REDIRECTS = 3
MOST_CUTS = 4
_HTTPS = 443
_PLAIN_URL = re.compile(r"https://[A-Za-z0-9.\[\]:-]+?(:[0-9]{1,5})?(/[!-~]*)?")
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,120}")
_MOVED = {301, 302, 303, 307, 308}
_BUSY = {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}
_HEAD_UNKNOWN = {HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED}
# Lengths and waits: ASCII, and short enough to compute with.
_NUMBER = re.compile(r"[0-9]{1,15}")
_ALWAYS = {"Accept-Encoding": "identity", "Connection": "close", "User-Agent": "sceau"}


@dataclass(frozen=True)
class Origin:
    """Where one register is published, as `sources_file` says.

    `files` is the pattern (as of a shell) that the file's name must fit. `redirects_to` are further hosts the
    url may lead to; the client certificate is shown to the url's own host only. With a `trust_anchor` (PEM)
    no other CA counts.
    """

    name: str
    register: str
    url: str
    files: str
    redirects_to: frozenset[str] = frozenset()
    trust_anchor: Path | None = None
    client_certificate: Path | None = None
    client_key: Path | None = None
    allow_private: bool = False


@dataclass(frozen=True)
class Version:
    """What a server called the file it gave: enough to know it again without fetching it."""

    file_name: str = ""
    etag: str = ""
    last_modified: str = ""


@dataclass(frozen=True)
class Fetched:
    """A file brought whole, and which version of it."""

    path: Path
    version: Version


def fetch(origin: Origin, folder: Path, last: Version) -> Fetched | None:
    """Bring the file of `origin` below `folder`; None when it is the one fetched `last`.

    Refusal UNAVAILABLE `source-busy` (with `retry_after`, seconds or None), `source-unreachable`,
    `source-answered`, `untrusted-server`, `truncated-download`, `too-slow`, `no-room`; UNACCEPTABLE
    `foreign-address`, `private-address`, `redirected-elsewhere`, `foreign-name`, `too-large`.
    """
    asking = Asking(origin)
    with asking.response("HEAD", {}) as response:
        if response.status not in _HEAD_UNKNOWN:
            _check_status(origin, response.status, response.headers, HTTPStatus.OK)
            if _same(_version(origin, asking.url, response.headers), last):
                return None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return _bring(asking, folder, last)
    except OSError as error:
        text = f"{origin.name}: the file cannot be kept: {error.strerror or error}."
        raise Refusal(Kind.UNAVAILABLE, "no-room", text) from error


def _bring(asking: "Asking", folder: Path, last: Version) -> Fetched | None:
    part = folder / f".{asking.origin.name}.part"
    part.unlink(missing_ok=True)
    try:
        # Some registers are not public: nobody else on this machine reads them.
        with os.fdopen(os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "w+b") as file:
            version = _download(asking, file, last)
            if version is None:
                return None
            file.flush()
            os.fsync(file.fileno())
        _date(part, version)
        path = part.replace(folder / version.file_name)
    finally:
        part.unlink(missing_ok=True)
    onto_disk(folder)
    return Fetched(path, version)


def _same(found: Version, last: Version) -> bool:
    """Whether this is what was fetched last: by its stamped name, else by what the server dates it with."""
    if stamp_of(Path(found.file_name)):
        return found.file_name == last.file_name
    if found.etag and last.etag:
        return found.etag == last.etag
    return bool(found.last_modified) and found.last_modified == last.last_modified


def _download(asking: "Asking", file: BinaryIO, last: Version) -> Version | None:
    """The whole file, taken up where it was cut when the server can; None for 304."""
    origin, known = asking.origin, Version()
    deadline = monotonic() + WHOLE_SECONDS
    for _ in range(MOST_CUTS):
        done = file.tell()
        with asking.response("GET", _conditions(done, known, last)) as response:
            if response.status == HTTPStatus.NOT_MODIFIED and not done:
                return None
            wanted = HTTPStatus.PARTIAL_CONTENT if done else HTTPStatus.OK
            _check_status(origin, response.status, response.headers, HTTPStatus.OK, wanted)
            if response.status == HTTPStatus.OK or not _continues(response.headers, done):
                known = _version(origin, asking.url, response.headers)
                file.seek(0)
                file.truncate()
            # A 206 of another range than the one asked for is worth nothing; nor is it the whole.
            usable = response.status == HTTPStatus.OK or file.tell() == done
            if usable and _pour(origin, response, file, deadline):
                return known
        if not (known.last_modified or _strong(known.etag)):
            file.seek(0)
            file.truncate()
    text = f"{origin.name}: the download was cut {MOST_CUTS} times."
    raise Refusal(Kind.UNAVAILABLE, "truncated-download", text)


def _conditions(done: int, known: Version, last: Version) -> dict[str, str]:
    if done:
        validator = known.etag if _strong(known.etag) else known.last_modified
        return {"Range": f"bytes={done}-", "If-Range": validator}
    given = {"If-None-Match": last.etag, "If-Modified-Since": "" if last.etag else last.last_modified}
    return {name: value for name, value in given.items() if value}


def _strong(etag: str) -> bool:
    """Whether an ETag vouches for each byte (RFC 9110 8.8.1); only such may stand in If-Range."""
    return etag.startswith('"')


def _continues(headers: Message, done: int) -> bool:
    return headers.get("Content-Range", "").startswith(f"bytes {done}-")


def _pour(origin: Origin, response: http.client.HTTPResponse, file: BinaryIO, deadline: float) -> bool:
    """Append the body to `file`; whether it came whole."""
    given, start = response.headers.get("Content-Length", ""), file.tell()
    length = int(given) if _NUMBER.fullmatch(given) else None
    if start + (length or 0) > LARGEST:
        raise _too_large(origin)
    try:
        for block in _blocks(response):
            file.write(block)
            if file.tell() > LARGEST:
                raise _too_large(origin)
            if monotonic() > deadline:
                text = f"{origin.name}: the download took more than {WHOLE_SECONDS:.0f} s."
                raise Refusal(Kind.UNAVAILABLE, "too-slow", text)
    except _Cut:
        return False
    # Without a length only the end mark of the chunks tells a whole body from a cut one.
    return response.chunked if length is None else file.tell() - start == length


class _Cut(Exception):  # noqa: N818 - nothing failed yet: it may be taken up again
    """The body ended before its end."""


def _blocks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    while True:
        try:
            block = response.read1(BLOCK)
        except (http.client.HTTPException, OSError) as error:
            raise _Cut from error
        if not block:
            return
        yield block


def _too_large(origin: Origin) -> Refusal:
    text = f"{origin.name}: the file is larger than {LARGEST >> 20} MB."
    return Refusal(Kind.UNACCEPTABLE, "too-large", text)


def _check_status(origin: Origin, status: int, headers: Message, *wanted: int) -> None:
    if status in wanted:
        return
    if status in _BUSY:
        text = f"{origin.name}: the server asks to come back later ({status})."
        raise Refusal(Kind.UNAVAILABLE, "source-busy", text, retry_after=retry_after(headers))
    raise Refusal(Kind.UNAVAILABLE, "source-answered", f"{origin.name}: the server answered {status}.")


def retry_after(headers: Message) -> int | None:
    """Seconds; a date is taken from the server's own clock, so that ours may be wrong."""
    given = headers.get("Retry-After", "")
    if _NUMBER.fullmatch(given):
        return int(given)
    try:
        wait = parsedate_to_datetime(given) - parsedate_to_datetime(headers.get("Date", ""))
    except (ValueError, TypeError):
        return None
    return max(0, int(wait.total_seconds()))


def _version(origin: Origin, url: SplitResult, headers: Message) -> Version:
    given = Message()
    given["Content-Disposition"] = headers.get("Content-Disposition", "")
    name = given.get_filename() or url.path.rpartition("/")[2]
    if not (_SAFE_NAME.fullmatch(name) and fnmatchcase(name, origin.files)):
        text = (
            f"{origin.name}: the server calls its file {name[:120]!r}, which is no name like {origin.files}."
        )
        raise Refusal(Kind.UNACCEPTABLE, "foreign-name", text)
    return Version(name, headers.get("ETag", ""), headers.get("Last-Modified", ""))


def _date(path: Path, version: Version) -> None:
    """Give the file the server's time: for a register that does not say when it was made, the nearest."""
    try:
        made = parsedate_to_datetime(version.last_modified).timestamp()
    except (ValueError, TypeError):
        return
    os.utime(path, (made, made))


class _Pinned(http.client.HTTPSConnection):
    """Connects to one of the addresses given; the host's name serves for TLS and for `Host` only.

    The name was resolved once, and what was checked is what is connected to: a second answer of the DNS
    cannot lead elsewhere. Proxies of the environment play no part.
    """

    def __init__(
        self, host: str, port: int, addresses: tuple[str, ...], tls: ssl.SSLContext, read_seconds: float
    ) -> None:
        super().__init__(host, port, timeout=CONNECT_SECONDS, context=tls)
        self._addresses = addresses
        self._tls = tls
        self._read_seconds = read_seconds

    def connect(self) -> None:
        """The first address that answers; TLS; then time to read."""
        for address in self._addresses:
            try:
                plain = socket.create_connection((address, self.port), CONNECT_SECONDS)
                break
            except OSError as error:
                reason = error
        else:
            raise reason
        try:
            plain.settimeout(self._read_seconds)
            self.sock = self._tls.wrap_socket(plain, server_hostname=self.host)
        except BaseException:
            plain.close()
            raise


@dataclass
class Asking:
    """The questions of one attempt: the way to each host is looked up once. `url`: where the last one led."""

    origin: Origin
    read_seconds: float = READ_SECONDS
    url: SplitResult = field(init=False)
    _ways: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @contextmanager
    def response(
        self, method: str, headers: Mapping[str, str], url: str = ""
    ) -> Iterator[http.client.HTTPResponse]:
        """The answer of `url`, or else of the origin's, after redirects that stay where they may; its body is
        read by the caller.
        """
        self.url = urlsplit(url or self.origin.url)
        for _ in range(MOST_REDIRECTS + 1):
            with closing(self._connection()) as connection:
                response = self._answer(connection, method, headers)
                if response.status not in _MOVED:
                    yield response
                    return
                self.url = self._moved(response.headers.get("Location", ""))
        text = f"{self.origin.name}: more than {MOST_REDIRECTS} redirects."
        raise Refusal(Kind.UNACCEPTABLE, "redirected-elsewhere", text)

    def _connection(self) -> _Pinned:
        host = checked(self.origin, self.url)
        if host not in self._ways:
            self._ways[host] = _addresses(self.origin, host)
        port = self.url.port or _HTTPS
        return _Pinned(host, port, self._ways[host], self._tls(host), self.read_seconds)

    def _tls(self, host: str) -> ssl.SSLContext:
        origin = self.origin
        try:
            tls = ssl.create_default_context(cafile=origin.trust_anchor)
            if origin.client_certificate and host == urlsplit(origin.url).hostname:
                # An encrypted key is refused; without a passphrase at hand OpenSSL would ask at the terminal.
                tls.load_cert_chain(origin.client_certificate, origin.client_key, password=b"")
        except OSError as error:
            text = f"{origin.name}: the trust anchor or the client certificate cannot be read: {error}."
            raise Refusal(Kind.UNACCEPTABLE, "bad-source", text) from error
        return tls

    def _answer(
        self, connection: _Pinned, method: str, headers: Mapping[str, str]
    ) -> http.client.HTTPResponse:
        target = (self.url.path or "/") + (f"?{self.url.query}" if self.url.query else "")
        try:
            connection.request(method, target, headers={**_ALWAYS, **headers})
            return connection.getresponse()
        except ssl.SSLCertVerificationError as error:
            raise self._unreached("untrusted-server", error.verify_message) from error
        except (OSError, http.client.HTTPException) as error:
            raise self._unreached("source-unreachable", str(error) or type(error).__name__) from error

    def _unreached(self, code: str, reason: str) -> Refusal:
        text = f"{self.origin.name}: {self.url.hostname} cannot be asked: {reason}."
        return Refusal(Kind.UNAVAILABLE, code, text)

    def _moved(self, location: str) -> SplitResult:
        """Where a redirect leads: on the same scheme, host and port, or to a host the source names."""
        here = self.url
        try:
            there = urlsplit(urljoin(here.geturl(), location))
        except ValueError:
            there = urlsplit("")
        stays = (there.scheme, there.netloc) == (here.scheme, here.netloc)
        named = (there.scheme, there.netloc) == ("https", there.hostname)
        if not location or not (stays or (named and there.hostname in self.origin.redirects_to)):
            text = f"{self.origin.name}: the server sends us to {there.scheme}://{there.netloc[:120]}."
            raise Refusal(Kind.UNACCEPTABLE, "redirected-elsewhere", text)
        return there


def checked(origin: Origin, url: SplitResult) -> str:
    """The host of `url`; Refusal `foreign-address` for what is not plain https to a host of this source."""
    host, whole = url.hostname, url.geturl()
    allowed = {urlsplit(origin.url).hostname} | origin.redirects_to
    plain = url.scheme == "https" and "@" not in url.netloc and _PLAIN_URL.fullmatch(whole)
    if not plain or host is None or host not in allowed:
        text = f"{origin.name}: only plain https addresses of the hosts named for it are asked."
        raise Refusal(Kind.UNACCEPTABLE, "foreign-address", text)
    return host


def _addresses(origin: Origin, host: str) -> tuple[str, ...]:
    """What `host` resolves to; one private address among them refuses all: a name of ours has none."""
    try:
        entries = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        text = f"{origin.name}: {host} is not known: {error.strerror}."
        raise Refusal(Kind.UNAVAILABLE, "source-unreachable", text) from error
    addresses = tuple(dict.fromkeys(str(entry[4][0]) for entry in entries))
    if not origin.allow_private and not all(map(is_public, addresses)):
        text = f"{origin.name}: {host} leads into a private network."
        raise Refusal(Kind.UNACCEPTABLE, "private-address", text)
    return addresses


def is_public(address: str) -> bool:
    """Whether an address is one of the public internet, the IPv4 one within an IPv6 one included."""
    parsed = ip_address(address)
    if isinstance(parsed, IPv6Address):
        inner = parsed.ipv4_mapped or parsed.sixtofour or (parsed.teredo and parsed.teredo[1])
        if inner:
            return is_public(str(inner))
    return parsed.is_global and not parsed.is_multicast

"""What address books ask of a country's LDAP: rates and waits beside a bare slapd, and what indexes cost."""

import os
import selectors
import shutil
import socket
import ssl
import statistics
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import cycle, islice
from pathlib import Path
from random import Random

import ldap3
import make_address_book
from benches.country import certificates
from benches.harness import BIN, Bench, Figure, free_port

from api.embedded.slapd import EmbeddedSlapd, Slapd, TlsFiles, tls_lines, url_of
from api.embedded.slapd_readers import GuardedSlapd, OpenSlapd
from api.installation import ldaps_certificate
from api.ldap import gate as ldap_gate
from directory import access
from directory.base.audit import Actor
from directory.base.db import transaction
from directory.base.tlv import tlv
from directory.rules import search_form

CONNECTIONS, PROCESSES = 16, 4
LONGEST_WAIT_MS, LEAST_TYPED, LEAST_EXACT = 100, 0.8, 0.9
# What programs ask for the letters a person typed (docs/how-to/thunderbird.md, outlook.md).
THUNDERBIRD = "(|(mail={0}*)(cn={0}*)(givenName={0}*)(sn={0}*))"
OUTLOOK = "(&(mail=*)(|(mail={0}*)(|(cn={0}*)(|(sn={0}*)(givenName={0}*)))))"
PARTS = "(|(cn=*{0}*)(givenName=*{0}*)(sn=*{0}*)(mail=*{0}*)(o=*{0}*)(ou=*{0}*)(title=*{0}*))"
SHOWN = ("cn", "mail", "givenName", "sn", "o")
DIFFERENT = 4_000
# SearchResultDone and BindResponse (RFC 4511 4.2.2, 4.5.2); success and sizeLimitExceeded.
ENDS, WELL = (0x61, 0x65), (0, 4)
# A result without a word: no message of a server's is shorter (RFC 4511 4.1.9).
SHORTEST = 14
FORMER = (
    "olcDbIndex: objectClass,entryUUID,entryCSN eq\n"
    "olcDbIndex: uid,mail,hcIdentifier,hcProfession,hcSpecialisation,sceauDepartment,sceauMailboxKind eq\n"
    "olcDbIndex: cn,sn,o,hcRegisteredName eq,subinitial,subany\n"
    "olcDbIndex: displayName eq\nolcDbIndex: postalCode eq,subinitial"
)


@dataclass(frozen=True)
class Asked:
    """A server: its port, whether it speaks TLS, the name and secret to bind with, if any."""

    port: int
    tls: bool = False
    name: str = ""
    secret: str = ""


@dataclass(frozen=True)
class Former(EmbeddedSlapd):
    """With the indexes of the release before."""

    def _words(self) -> dict[str, str]:
        return {"indexes": FORMER}


@dataclass(frozen=True)
class Secured(EmbeddedSlapd):
    """A bare slapd that speaks TLS."""

    tls: TlsFiles = field(kw_only=True)

    @property
    def public_urls(self) -> tuple[str, ...]:
        """One, with TLS from the first octet."""
        return (url_of("ldaps", self.host, self.port),)

    def _words(self) -> dict[str, str]:
        return {"particular": "\n".join(f"{name}: {value}" for name, value in tls_lines(self.tls).items())}


def ldap_address_books(bench: Bench) -> Figure:
    """Searches a second as Thunderbird and Outlook ask, on 16 connections, beside a bare slapd over one tree.

    Ours with token, gate and limits, bare without; both through TLS. 50,000 mailboxes, or --size. Also what
    99 in 100 wait at most, searches within words, and exact addresses on the open LDAP, in clear.
    """
    count = bench.size or 50_000
    suffix, seconds = bench.settings.suffix, bench.seconds
    rates: dict[tuple[str, str], tuple[float, float]] = {}
    with _country(bench, count) as servers:
        questions = {"typed": _typed(count), "parts": _parts(count), "exact": _exact(count)}
        for kind, filters in questions.items():
            pair = {name: servers[kind == "exact", name] for name in ("ours", "bare")}
            for name, rate in _by_turns(pair, filters, suffix, seconds).items():
                rates[kind, name] = rate
    ratio = {kind: rates[kind, "ours"][0] / rates[kind, "bare"][0] for kind in questions}
    more = {
        f"{kind}, {name}, {what}": value
        for (kind, name), found in rates.items()
        for what, value in zip(("searches/s", "p99 in ms"), found, strict=True)
    }
    more |= {f"{kind}, ratio": value for kind, value in ratio.items()}
    wait = rates["typed", "ours"][1]
    return Figure(
        "ldap_address_books", rates["typed", "ours"][0], f"searches/s of {count} mailboxes", more,
        ratio["typed"], f">= {LEAST_TYPED} x bare, p99 <= {LONGEST_WAIT_MS} ms; exact >= {LEAST_EXACT} x",
        ratio["typed"] >= LEAST_TYPED and wait <= LONGEST_WAIT_MS and ratio["exact"] >= LEAST_EXACT,
    )  # fmt: skip


def ldap_indexes(bench: Bench) -> Figure:
    """Seconds to load 50,000 mailboxes with the indexes of address books, beside those of the release before.

    --size says how many. Also: MB on disk, and adds a second by one connection of ldap3.
    """
    count = bench.size or 50_000
    tree = _tree(bench, count)
    found = {}
    for kind in (EmbeddedSlapd, Former):
        slapd = kind(bench.folder / kind.__name__, suffix=bench.settings.suffix)
        slapd.make()
        started = time.monotonic()
        with tree.open("rb") as lines:
            slapd.load(lines)
        seconds = time.monotonic() - started
        size = sum(file.stat().st_blocks * 512 for file in (slapd.folder / "data.next").iterdir()) / 1e6
        slapd.swap()
        with _running(slapd):
            found[kind] = seconds, size, _adds(slapd, count)
        shutil.rmtree(slapd.folder)
    (ours, size, adds), (before, size_before, adds_before) = found[EmbeddedSlapd], found[Former]
    more = {"with former indexes, s": before, "MB": size, "MB before": size_before, "adds/s": adds,
            "adds/s before": adds_before}  # fmt: skip
    what = f"s to load {count} mailboxes"
    return Figure("ldap_indexes", ours, what, more, before / ours, "none: what they cost", ok=True)


def _adds(slapd: EmbeddedSlapd, count: int, many: int = 1000) -> float:
    """Adds a second of so many more mailboxes."""
    fresh = make_address_book.mailboxes(count + many, start=count)
    entries = [
        (entry.dn, {name: list(values) for name, values in entry.attributes.items()}) for entry in fresh
    ]
    with ldap3.Connection(
        ldap3.Server(slapd.url, get_info=ldap3.NONE), authentication=ldap3.SASL,
        sasl_mechanism=ldap3.EXTERNAL, sasl_credentials="", check_names=False,
    ) as link:  # fmt: skip
        started = time.monotonic()
        for dn, attributes in entries:
            if not link.add(dn, attributes={**attributes, "sceauVersion": [b"1"]}):
                raise SystemExit(f"{dn}: {link.result}")
        return many / (time.monotonic() - started)


def _tree(bench: Bench, count: int) -> Path:
    file = bench.folder / f"address-book-{count}.ldif"
    if not file.exists():
        with file.open("wb") as out:
            out.writelines(make_address_book.entries(count, certificates()))
    return file


@contextmanager
def _country(bench: Bench, count: int) -> Iterator[dict[tuple[bool, str], Asked]]:
    """Over one tree of so many: the open one and a bare one, the guarded one and a bare one with TLS."""
    folder, suffix = bench.folder / "book", bench.settings.suffix
    holder = EmbeddedSlapd(folder / "holder", suffix=suffix)
    holder.make()
    with _tree(bench, count).open("rb") as lines:
        holder.load(lines)
    holder.swap()
    bare = EmbeddedSlapd(folder / "bare", suffix=suffix, bare=True, port=free_port())
    tls = ldaps_certificate.files(bench.settings.state)
    secured = Secured(folder / "secured", suffix=suffix, bare=True, port=free_port(), tls=tls)
    for each in (bare, secured):
        each.folder.mkdir()
        each.data.symlink_to(holder.data)
    gate = folder / "gate"
    guarded = GuardedSlapd(
        folder / "guarded", suffix=suffix, data=holder.data, gate=gate, port=free_port(), tls=tls
    )
    opened = OpenSlapd(folder / "open", suffix=suffix, data=holder.data, port=free_port())
    with ExitStack() as stack:
        stack.enter_context(_gate(bench, gate))
        for slapd in (holder, bare, secured, guarded, opened):
            slapd.make()
            stack.enter_context(_running(slapd))
        token, secret = _token(bench)
        name = ldap_gate.name_of(token, suffix)
        yield {
            (True, "ours"): Asked(opened.port),
            (True, "bare"): Asked(bare.port),
            (False, "ours"): Asked(guarded.port, tls=True, name=name, secret=secret),
            (False, "bare"): Asked(secured.port, tls=True),
        }
    shutil.rmtree(folder)


@contextmanager
def _running(slapd: Slapd) -> Iterator[None]:
    process = subprocess.Popen(slapd.command())
    try:
        slapd.wait_ready()
        yield
    finally:
        process.terminate()
        process.wait()


@contextmanager
def _gate(bench: Bench, path: Path) -> Iterator[None]:
    """A gate of our own, with quotas that a load generator does not reach."""
    told = {
        "SCEAU_STATE": str(bench.settings.state), "SCEAU_LDAP_GATE_SOCKET": str(path),
        "SCEAU_READING_SEARCHES_HOUR": "100000000", "SCEAU_READING_ADDRESSES_HOUR": "100000000",
    }  # fmt: skip
    process = subprocess.Popen([str(BIN / "sceau"), "ldap-gate"], env={**os.environ, **told})
    try:
        while not ldap_gate.answers(path):
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait()


def _token(bench: Bench) -> tuple[access.Token, str]:
    container = bench.container
    with transaction(container.engine) as connection:
        return access.create_token(
            connection, now=container.present(connection), actor=Actor("bench"),
            name=f"address books {time.monotonic()}", role=access.Role.OPERATOR, lifetime=timedelta(days=1),
        )  # fmt: skip


def _words(count: int) -> list[str]:
    """What people type: two to six letters of a family name, as often as people have it."""
    chance = Random(1)  # noqa: S311 - letters of a load
    sample = islice(make_address_book.people(count), 0, None, max(1, count // DIFFERENT))
    names = (search_form(each.holder.family_name).lower() for each in sample if each.holder)
    return [name[: chance.choice((2, 3, 3, 4, 5, 6))].rstrip() for name in names]


def _typed(count: int) -> list[str]:
    templates = cycle((THUNDERBIRD, OUTLOOK))
    return [template.format(word) for word, template in zip(_words(count), templates, strict=False)]


def _parts(count: int) -> list[str]:
    return [PARTS.format(word) for word in _words(count) if len(word) > 2]  # noqa: PLR2004 - fewer letters have no index


def _exact(count: int) -> list[str]:
    sample = islice(make_address_book.people(count), 0, None, max(1, count // DIFFERENT))
    return [f"(mail={each.address})" for each in sample]


def _by_turns(
    servers: Mapping[str, Asked], filters: Sequence[str], suffix: str, seconds: int
) -> dict[str, tuple[float, float]]:
    """Of each server searches a second on all connections, and what 99 in 100 wait at most, in milliseconds.

    By turns of a second: whatever else runs on this machine takes from both alike.
    """
    waits: dict[str, list[float]] = {name: [] for name in servers}
    with ProcessPoolExecutor(PROCESSES) as pool:
        for _ in range(seconds):
            for name, asked in servers.items():
                waits[name] += _asked_for_a_second(pool, asked, filters, suffix)
    return {
        name: (len(each) / seconds, statistics.quantiles(each, n=100)[98] * 1000)
        for name, each in waits.items()
    }


def _asked_for_a_second(
    pool: ProcessPoolExecutor, asked: Asked, filters: Sequence[str], suffix: str
) -> list[float]:
    each = CONNECTIONS // PROCESSES
    shares = (filters[number::PROCESSES] for number in range(PROCESSES))
    running = [pool.submit(_ask, asked, share, each, 1, suffix) for share in shares]
    return [wait for share in running for wait in share.result()]


def _ask(asked: Asked, filters: Sequence[str], connections: int, seconds: int, suffix: str) -> list[float]:
    """How long each search took, on several connections at once."""
    requests = [_request(each, suffix) for each in filters]
    waits: list[float] = []
    with selectors.DefaultSelector() as selector:
        links = [_Link(asked, requests[number::connections]) for number in range(connections)]
        for link in links:
            selector.register(link.socket, selectors.EVENT_READ, link)
            link.send()
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            for key, _ in selector.select(1):
                if key.data.is_done():
                    waits.append(time.monotonic() - key.data.sent)
                    key.data.send()
    for link in links:
        link.socket.close()
    return waits


class _Link:
    """One connection, bound where there is a name, that waits for answers without looking into entries."""

    def __init__(self, asked: Asked, requests: Sequence[bytes]) -> None:
        plain = socket.create_connection(("127.0.0.1", asked.port))
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self.socket = context.wrap_socket(plain) if asked.tls else plain
        self.sent = 0.0
        self._following = cycle(requests)
        self._held = bytearray()
        if asked.name:
            words = tlv(0x02, b"\x03"), tlv(0x04, asked.name.encode()), tlv(0x80, asked.secret.encode())
            self.socket.sendall(tlv(0x30, tlv(0x02, b"\x01"), tlv(0x60, *words)))
            while not self.is_done():
                pass

    def send(self) -> None:
        """Ask the next question."""
        self.sent = time.monotonic()
        self.socket.sendall(next(self._following))

    def is_done(self) -> bool:
        """Read what has come, and say whether the answer is whole; SystemExit when it is a failure."""
        while True:
            self._held += self.socket.recv(262_144)
            while (code := self._next()) is not None:
                if code in WELL:
                    return True
                if code >= 0:
                    raise SystemExit(f"the server answers with code {code}")
            if not (isinstance(self.socket, ssl.SSLSocket) and self.socket.pending()):
                return False

    def _next(self) -> int | None:
        """The next message: the code of a result, -1 for an entry; None when it is not all there."""
        held = self._held
        # The longest header of a message and of its number, result and code; none is shorter in all.
        if len(held) < SHORTEST:
            return None
        start, length = _content(held, 0)
        if len(held) < start + length:
            return None
        operation = sum(_content(held, start))
        code = held[_content(held, operation)[0] + 2] if held[operation] in ENDS else -1
        del held[: start + length]
        return code


def _content(octets: bytearray, place: int) -> tuple[int, int]:
    """Where the content of the element there begins, and how long it is (X.690 8.1.3)."""
    length = octets[place + 1]
    if not length & 0x80:
        return place + 2, length
    begins = place + 2 + (length & 0x7F)
    return begins, int.from_bytes(octets[place + 2 : begins], "big")


def _request(words: str, suffix: str) -> bytes:
    """Message 2: a search as those programs send it, for a hundred entries."""
    asked = (
        tlv(0x04, suffix.encode()), tlv(0x0A, b"\x02"), tlv(0x0A, b"\x00"), tlv(0x02, b"\x64"),
        tlv(0x02, b"\x00"), tlv(0x01, b"\x00"), _filter(words)[0],
        tlv(0x30, *(tlv(0x04, name.encode()) for name in SHOWN)),
    )  # fmt: skip
    return tlv(0x30, tlv(0x02, b"\x02"), tlv(0x63, *asked))


def _filter(words: str) -> tuple[bytes, str]:
    """A filter as bytes, and what follows it: and, or, presence, equality, beginnings and parts."""
    words = words.removeprefix("(")
    if words[0] in "&|":
        rest, parts = words[1:], []
        while rest.startswith("("):
            part, rest = _filter(rest)
            parts.append(part)
        return tlv(0xA0 if words[0] == "&" else 0xA1, *parts), rest.removeprefix(")")
    item, _, rest = words.partition(")")
    name, _, value = item.partition("=")
    if value == "*":
        return tlv(0x87, name.encode()), rest
    if "*" not in value:
        return tlv(0xA3, tlv(0x04, name.encode()), tlv(0x04, value.encode())), rest
    part = tlv(0x81 if value.startswith("*") else 0x80, value.strip("*").encode())
    return tlv(0xA4, tlv(0x04, name.encode()), tlv(0x30, part)), rest


FIGURES = {figure.__name__: figure for figure in (ldap_address_books, ldap_indexes)}

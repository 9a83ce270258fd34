"""The reviewed file of a ceremony as values: which CAs, on which keys, under whom, for how long.

Every nonsense is refused here, with the line of its table, before any key or row is looked at. Whether the
record agrees is for `perform`. Pure.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from hashlib import sha256
from typing import Any, TypeVar
from urllib.parse import urlsplit

from directory.base.errors import Kind, Refusal
from pki.certificates.names import LONGEST_COMMON_NAME, plain
from pki.certificates.profiles import (
    CROSS,
    ISSUING,
    MAIL_ROLES,
    PURPOSES_OF_MAIL_CAS,
    ROOT,
    AuthorityNames,
    Profile,
    Urls,
)
from pki.model import CrlForm

CURVES = {"P-256": "secp256r1", "P-384": "secp384r1"}
ROLES = ("root", "persons", "organisations", "servers")
# As the database, LDAP and URLs have it.
_ID = re.compile(r"[a-z][a-z0-9-]{1,30}")
_KEY_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
MOST_GENERATIONS, MOST_SHARDS = 999, 1024
T = TypeVar("T")


class Place(Enum):
    """Where a key lies: an encrypted file, a token, or on a machine that no network reaches."""

    FILE = "file"
    TOKEN = "token"  # noqa: S105 - a kind of hardware, not a secret
    OFFLINE = "offline"


@dataclass(frozen=True)
class PlannedKey:
    """The name of a key, and where it lies."""

    name: str
    place: Place


@dataclass(frozen=True)
class PlannedAuthority:
    """One CA to be; `issuer` is None for a root, `curve` as `cryptography` names it."""

    id: str
    role: str
    generation: int
    subject: str
    curve: str
    key: PlannedKey
    days: int
    shards: int
    crl_form: CrlForm
    issuer: str | None = None

    @property
    def profile(self) -> Profile:
        """What its certificate may contain: that of a CA for mail says that it is for nothing else."""
        if self.issuer is None:
            return ROOT
        return replace(ISSUING, purposes=PURPOSES_OF_MAIL_CAS) if self.role in MAIL_ROLES else ISSUING

    @property
    def names(self) -> AuthorityNames:
        """Whom its certificate names."""
        return AuthorityNames(self.subject)

    @property
    def offline(self) -> bool:
        """Whether its key is not here."""
        return self.key.place is Place.OFFLINE


@dataclass(frozen=True)
class PlannedCross:
    """One root certified by another."""

    subject: str
    issuer: str
    days: int

    @property
    def id(self) -> str:
        """What it is published as."""
        return f"{self.subject}-by-{self.issuer}"

    @property
    def profile(self) -> Profile:
        """What it may contain."""
        return CROSS


Planned = PlannedAuthority | PlannedCross


@dataclass(frozen=True)
class Plan:
    """A whole file. `base_url` is what every URL begins with, `sha256` of the file as it was reviewed."""

    title: str
    present: tuple[str, ...]
    base_url: str
    authorities: tuple[PlannedAuthority, ...]
    crosses: tuple[PlannedCross, ...]
    sha256: bytes

    def authority(self, authority_id: str) -> PlannedAuthority:
        """The CA of that id; refuses `not-in-ceremony`."""
        for authority in self.authorities:
            if authority.id == authority_id:
                return authority
        text = f"The ceremony's file names no authority {authority_id}."
        raise Refusal(Kind.NOT_FOUND, "not-in-ceremony", text)

    @property
    def urls(self) -> Urls:
        """Every URL that its certificates carry."""
        return Urls(self.base_url)

    @property
    def in_order(self) -> tuple[Planned, ...]:
        """Everything to be signed, issuers before those they certify."""
        roots = [authority for authority in self.authorities if authority.issuer is None]
        issuing = [authority for authority in self.authorities if authority.issuer is not None]
        return (*roots, *self.crosses, *issuing)


def read(content: bytes, base_url: str = "") -> Plan:
    """The plan in this file; `base_url` is used where the file names none. Refuses `bad-ceremony`."""
    try:
        words = content.decode()
        told = tomllib.loads(words)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise _bad(f"This is no TOML file: {error}.") from error
    top = _Table("the file", told)
    tables = {name: top.tables(name, _lines(words, name)) for name in ("authority", "cross")}
    head = _Table("[ceremony]", top.take("ceremony", dict))
    top.end()
    plan = Plan(
        title=head.text("title"),
        present=head.people("present"),
        base_url=_url(head, base_url),
        authorities=tuple(_authority(table) for table in tables["authority"]),
        crosses=tuple(_cross(table) for table in tables["cross"]),
        sha256=sha256(content).digest(),
    )
    head.end()
    _check_whole(plan, tables)
    return plan


class _Table:
    """One table of the file: what is taken from it is checked, what is left over was misspelt."""

    def __init__(self, place: str, values: Mapping[str, Any]) -> None:
        self.place = place
        self._left = dict(values)

    def take(self, name: str, kind: type[T], default: T | None = None) -> T:
        value = self._left.pop(name, default)
        # True is an int to Python, to nobody else.
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            missing = "is missing" if value is None else f"is not {_KINDS.get(kind, kind.__name__)}"
            raise _bad(f"{self.place}: `{name}` {missing}.")
        return value

    def text(self, name: str) -> str:
        value = self.take(name, str)
        if not value or value != plain(value):
            raise _bad(f"{self.place}: `{name}` is empty, or has outer, double or unprintable spaces.")
        return value

    def number(self, name: str, most: int, default: int | None = None) -> int:
        value = self.take(name, int, default)
        if not 1 <= value <= most:
            raise _bad(f"{self.place}: `{name}` is a number from 1 to {most}.")
        return value

    def one_of(self, name: str, words: Iterator[str] | tuple[str, ...], default: str | None = None) -> str:
        value, known = self.take(name, str, default), tuple(words)
        if value not in known:
            raise _bad(f"{self.place}: `{name}` is one of {', '.join(known)}, not {value!r}.")
        return value

    def people(self, name: str) -> tuple[str, ...]:
        names = self.take(name, list)
        if not all(isinstance(person, str) and person and person == plain(person) for person in names):
            raise _bad(f"{self.place}: `{name}` is a list of names.")
        return tuple(names)

    def has(self, name: str) -> bool:
        return name in self._left

    def tables(self, name: str, lines: list[int]) -> list["_Table"]:
        entries = self.take(name, list, [])
        if len(entries) != len(lines):
            raise _bad(f"`{name}` is written as tables: [[{name}]].")
        return [_Table(f"line {line}, [[{name}]]", entry) for line, entry in zip(lines, entries, strict=True)]

    def end(self) -> None:
        if self._left:
            raise _bad(f"{self.place}: unknown {', '.join(f'`{name}`' for name in sorted(self._left))}.")


_KINDS: Mapping[type, str] = {
    str: "a text", int: "a whole number", list: "a list", dict: "a table", bool: "true or false",
}  # fmt: skip


def _authority(table: _Table) -> PlannedAuthority:
    role = table.one_of("role", ROLES)
    # A file of before this word says what was then: shards and deltas, of a root one complete CRL.
    usual = CrlForm.PLAIN if role == "root" else CrlForm.NATIONAL
    form = CrlForm(table.one_of("crl", tuple(choice.value for choice in CrlForm), usual.value))
    made = PlannedAuthority(
        id=table.text("id"),
        role=role,
        generation=table.number("generation", MOST_GENERATIONS),
        subject=table.text("subject"),
        curve=CURVES[table.one_of("curve", tuple(CURVES))],
        key=_key(table),
        days=table.number("days", (ROOT if role == "root" else ISSUING).longest.days),
        shards=table.number("shards", MOST_SHARDS, 1 if form is CrlForm.PLAIN else None),
        crl_form=form,
        issuer=table.text("issuer") if table.has("issuer") else None,
    )
    table.end()
    table.place = f"{table.place} {made.id}"
    if made.id != f"{role}-{made.generation}" or not _ID.fullmatch(made.id):
        raise _bad(f"{table.place}: `id` is role and generation, {role}-{made.generation}.")
    if (role == "root") != (made.issuer is None):
        raise _bad(f"{table.place}: a root has no `issuer`, any other authority has one.")
    if len(made.subject.encode()) > LONGEST_COMMON_NAME:
        raise _bad(f"{table.place}: `subject` has at most {LONGEST_COMMON_NAME} octets.")
    if made.issuer is None and made.shards != 1:
        # Its CRL is complete, so that it covers the root itself (openssl -crl_check_all asks).
        raise _bad(f"{table.place}: a root has one shard.")
    if made.issuer is None and made.crl_form is not CrlForm.PLAIN:
        raise _bad(f"{table.place}: the CRL of a root is plain: its key is not at hand for deltas.")
    if made.crl_form is CrlForm.PLAIN and made.shards != 1:
        raise _bad(f"{table.place}: a plain CRL has one shard.")
    if made.offline and made.issuer is not None:
        raise _bad(f"{table.place}: only a root's key may lie offline: the others sign every day.")
    return made


def _key(table: _Table) -> PlannedKey:
    inner = _Table(f"{table.place} key", table.take("key", dict))
    name = inner.text("name")
    place = Place(inner.one_of("place", tuple(choice.value for choice in Place)))
    inner.end()
    if not _KEY_NAME.fullmatch(name):
        raise _bad(f"{inner.place}: `name` has small letters, digits, and `.-_` between them.")
    return PlannedKey(name, place)


def _cross(table: _Table) -> PlannedCross:
    made = PlannedCross(table.text("subject"), table.text("issuer"), table.number("days", CROSS.longest.days))
    table.end()
    table.place = f"{table.place} {made.id}"
    return made


def _check_whole(plan: Plan, tables: Mapping[str, list[_Table]]) -> None:
    """What no table can tell alone: names used twice, issuers that are not there or end too soon."""
    if not plan.authorities:
        raise _bad("There is no [[authority]].")
    by_id = {authority.id: authority for authority in plan.authorities}
    for number, (authority, table) in enumerate(zip(plan.authorities, tables["authority"], strict=True)):
        for earlier in plan.authorities[:number]:
            _check_apart(authority, earlier, table.place)
        if authority.issuer is not None:
            _check_issuer(authority, by_id.get(authority.issuer), table.place)
    for number, (cross, table) in enumerate(zip(plan.crosses, tables["cross"], strict=True)):
        subject = by_id.get(cross.subject)
        if subject is None or subject.issuer is not None or cross.subject == cross.issuer:
            raise _bad(f"{table.place}: `subject` is a root of this file, other than the issuer.")
        _check_issuer(cross, by_id.get(cross.issuer), table.place)
        if cross.days > subject.days:
            raise _bad(f"{table.place}: it outlives the root it certifies ({subject.days} days).")
        if cross.id in {earlier.id for earlier in plan.crosses[:number]}:
            raise _bad(f"{table.place}: it stands there twice.")


def _check_apart(authority: PlannedAuthority, earlier: PlannedAuthority, place: str) -> None:
    if authority.id == earlier.id:
        raise _bad(f"{place}: `id` stands there twice.")
    if authority.subject == earlier.subject:
        # Two CAs of one name: a verifier takes one's CRL for the other's.
        raise _bad(f"{place}: {earlier.id} has the same `subject`.")
    if authority.key == earlier.key:
        raise _bad(f"{place}: {earlier.id} has the same key.")


def _check_issuer(planned: Planned, issuer: PlannedAuthority | None, place: str) -> None:
    if issuer is None or issuer.issuer is not None:
        raise _bad(f"{place}: `issuer` is a root of this file.")
    if planned.days > issuer.days:
        raise _bad(f"{place}: its {planned.days} days are beyond its issuer's {issuer.days}.")
    if isinstance(planned, PlannedAuthority) and planned.curve > issuer.curve:
        raise _bad(f"{place}: its curve is stronger than its issuer's, which gains nothing.")


def _url(head: _Table, default: str) -> str:
    url = head.text("base_url") if head.has("base_url") else default
    parts = urlsplit(url)
    plain_enough = not (parts.query or parts.fragment) and url.isascii() and " " not in url
    if parts.scheme not in {"http", "https"} or not parts.hostname or not plain_enough:
        raise _bad(f"[ceremony]: `base_url` is an address of http, not {url!r}.")
    return url.rstrip("/")


def _lines(words: str, name: str) -> list[int]:
    """The lines on which `[[name]]` stands."""
    header = re.compile(rf"\s*\[\[\s*{name}\s*\]\]")
    return [number for number, line in enumerate(words.splitlines(), 1) if header.match(line)]


def _bad(text: str) -> Refusal:
    return Refusal(Kind.MALFORMED, "bad-ceremony", text)

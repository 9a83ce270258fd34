"""Keys that are never certified, whoever asks: reported compromised, listed as weak, another person's.

A key once blocked stays so (the table is append-only). What makes a key weak by its own numbers is decided in
`pki/lint/key.py`; which certificates fall with a lost key, in `pki/sweep.py`.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from hashlib import sha1, sha256
from itertools import islice

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from sqlalchemy import Connection, bindparam, select, tuple_
from sqlalchemy.dialects.postgresql import insert

from directory.base.audit import Actor, Event, record
from directory.base.errors import Kind, Refusal
from directory.base.locks import hold_all_until_commit
from directory.base.statement import Statement
from pki.model import Serial
from pki.rules import PublicKey, spki_sha256
from pki.tables import blocked_key, weak_key

_CHUNK = 10_000
_HEX = re.compile(r"[0-9a-fA-F]+")
_CAUSE = select(blocked_key.c.cause).where(blocked_key.c.spki_sha256 == bindparam("spki"))
_STOPPED = Statement("""
    SELECT (SELECT cause FROM blocked_key WHERE spki_sha256 = :spki),
           (SELECT w.list FROM unnest(CAST(:forms AS text[]), CAST(:digests AS bytea[])) AS of (form, digest)
            JOIN weak_key w ON w.form = of.form AND w.digest = of.digest LIMIT 1)
""")


class Cause(Enum):
    """Why a key is blocked."""

    REPORTED_COMPROMISED = "reported-compromised"
    WEAK = "weak"
    ANOTHER_PERSON = "another-person"


class Form(Enum):
    """How a list names a weak key by part of a digest, so that 100,000 of them fit in a file.

    `MODULUS`: Debian's openssl-blacklist, the last 80 bits of SHA-1 over `Modulus=<HEX>` and a line end.
    `NUMBER`: badkeys, the first 120 bits of SHA-256 over the RSA modulus or the x of the EC point.
    """

    MODULUS = "modulus-sha1-80"
    NUMBER = "key-sha256-120"


@dataclass(frozen=True)
class Listed:
    """One line of a list: a whole SHA-256 of a SubjectPublicKeyInfo (`form` None), or part of a digest."""

    digest: bytes
    form: Form | None


@dataclass(frozen=True)
class Checked:
    """A key that `check` let pass, in the transaction that goes on with it."""

    spki_sha256: bytes


_FORMS = {64: None, 30: Form.NUMBER, 20: Form.MODULUS}


def read_list(lines: Iterable[str]) -> Iterator[Listed]:
    """The keys that a list names, one a line in hexadecimal; empty lines and `#` are passed over.

    The length says the form: 64 digits, 30 or 20. Refuses `bad-key-list` at the first other line.
    """
    for number, line in enumerate(lines, start=1):
        written = line.partition("#")[0].strip()
        if not written:
            continue
        if not _HEX.fullmatch(written) or len(written) not in _FORMS:
            text = f"Line {number} is no digest of 64, 30 or 20 hexadecimal digits."
            raise Refusal(Kind.MALFORMED, "bad-key-list", text, line=number)
        yield Listed(bytes.fromhex(written), _FORMS[len(written)])


def block(
    connection: Connection,
    *,
    now: datetime,
    actor: Actor,
    spki_sha256: bytes,
    cause: str,
    serial: Serial | None = None,
) -> bool:
    """Block this key for ever; False when it was already, which leaves the first cause standing."""
    row = {
        "spki_sha256": spki_sha256, "cause": Cause(cause).value, "since": now, "serial": serial,
        "actor": actor.name,
    }  # fmt: skip
    query = insert(blocked_key).values(row).on_conflict_do_nothing().returning(blocked_key.c.cause)
    if connection.execute(query).one_or_none() is None:
        return False
    detail = {"cause": cause} | ({} if serial is None else {"serial": serial})
    record(
        connection, now=now, actor=actor, event=Event.KEY_BLOCKED, subject=spki_sha256.hex(), detail=detail
    )
    return True


def is_blocked(connection: Connection, spki_sha256: bytes) -> bool:
    """Whether this very key is blocked."""
    return _cause(connection, spki_sha256) is not None


def check(connection: Connection, key: PublicKey, *, held: bool = False) -> Checked:
    """Refuse `key-blocked`, with its `cause`, and `weak-key` when a list of weak keys names it.

    Until the transaction ends nobody reports this key (`hold`, unless the caller has): what was checked stays
    so.
    """
    spki = spki_sha256(key)
    if not held:
        hold(connection, [spki])
    forms, digests = zip(*_parts(key), strict=True)
    asked = {"spki": spki, "forms": list(forms), "digests": list(digests)}
    ((cause, named),) = _STOPPED.rows(connection, asked)
    if cause is not None:
        raise blocked(cause)
    if named is not None:
        text = f"This key must not be certified: it is on the list {named} of weak keys."
        raise Refusal(Kind.UNACCEPTABLE, "weak-key", text, findings=["listed"])
    return Checked(spki)


def stopped_among(connection: Connection, keys: Iterable[PublicKey]) -> frozenset[bytes]:
    """Those of these keys that `check` refuses, by SHA-256 of their SPKI, in two questions for all."""
    by_spki = {spki_sha256(key): key for key in keys}
    parts = {part: spki for spki, key in by_spki.items() for part in _parts(key)}
    named = select(weak_key.c.form, weak_key.c.digest)
    query = select(blocked_key.c.spki_sha256).where(blocked_key.c.spki_sha256.in_(list(by_spki)))
    found = {bytes(spki) for spki in connection.execute(query).scalars()}
    rows = connection.execute(named.where(tuple_(weak_key.c.form, weak_key.c.digest).in_(list(parts))))
    return frozenset(found | {parts[(row.form, bytes(row.digest))] for row in rows})


def check_again(connection: Connection, spki_sha256: bytes) -> None:
    """Refuse `key-blocked`, with its `cause`: for who has checked the lists, waited since, and holds the key.

    What is stored now will be seen by who reports the key next.
    """
    cause = _cause(connection, spki_sha256)
    if cause is not None:
        raise blocked(cause)


def hold(connection: Connection, spkis_sha256: Iterable[bytes]) -> None:
    """Take the locks under which keys are reported, or their certificates stored, until the commit.

    Before any reservation of these keys is locked, or one who reports and one who stores wait for each other.
    """
    hold_all_until_commit(connection, [lock_name(spki) for spki in spkis_sha256])


def lock_name(spki_sha256: bytes) -> str:
    """The lock that `hold` takes for this key."""
    return f"key:{spki_sha256.hex()}"


def import_list(
    connection: Connection, listed: Iterable[Listed], *, name: str, now: datetime, actor: Actor
) -> int:
    """Take in a list of weak keys under this name; how many were new. Certificates made before stay."""
    added = 0
    entries = iter(listed)
    while chunk := list(islice(entries, _CHUNK)):
        whole = [
            {"spki_sha256": one.digest, "cause": Cause.WEAK.value, "since": now, "actor": actor.name}
            for one in chunk if one.form is None
        ]  # fmt: skip
        parts = [
            {"form": one.form.value, "digest": one.digest, "list": name, "since": now}
            for one in chunk if one.form is not None
        ]  # fmt: skip
        for table, rows in ((blocked_key, whole), (weak_key, parts)):
            if rows:
                query = insert(table).values(rows).on_conflict_do_nothing().returning(table.c.since)
                added += len(connection.execute(query).all())
    record(connection, now=now, actor=actor, event=Event.KEYS_LISTED, subject=name, detail={"added": added})
    return added


def _cause(connection: Connection, spki: bytes) -> str | None:
    return connection.execute(_CAUSE, {"spki": spki}).scalar_one_or_none()


def blocked(cause: str) -> Refusal:
    """The refusal of a key that is blocked for this cause."""
    text = f"This key must never be certified again: {cause}. Make a new one."
    return Refusal(Kind.UNACCEPTABLE, "key-blocked", text, cause=cause)


def _parts(key: PublicKey) -> list[tuple[str, bytes]]:
    """The digests under which lists of weak keys would name it."""
    if isinstance(key, EllipticCurvePublicKey):
        return [(Form.NUMBER.value, _number(key.public_numbers().x))]
    modulus = key.public_numbers().n
    # SHA-1 tells keys of a closed list apart here; nothing rests on its strength.
    written = sha1(f"Modulus={modulus:X}\n".encode(), usedforsecurity=False).digest()
    return [(Form.NUMBER.value, _number(modulus)), (Form.MODULUS.value, written[10:])]


def _number(value: int) -> bytes:
    return sha256(value.to_bytes((value.bit_length() + 7) // 8)).digest()[:15]

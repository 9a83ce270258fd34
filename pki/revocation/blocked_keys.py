"""Keys that are never certified, whoever asks: reported compromised, listed as weak, another person's.

A key once blocked stays so (the table is append-only), in every form that its private key has. What these
share is the number of a key: the modulus under any exponent, the x of a point and of its mirror image. What
makes a key weak by its own numbers is decided in `pki/lint/key.py`; which certificates fall with a lost key,
in `pki/revocation/key_compromise.py`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from hashlib import sha1
from itertools import islice
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from sqlalchemy import Connection, select, text, tuple_
from sqlalchemy.dialects.postgresql import insert

from directory.base.audit import Actor, Event, record
from directory.base.errors import Kind, Refusal
from directory.base.prepared_statement import Statement
from pki.certificates.public_keys import PublicKey, spki_sha256
from pki.impediments.standing import key_blocked
from pki.model import Serial
from pki.record.key_locks import digest_of, hold_numbers, number_of
from pki.record.tables import blocked_key, weak_key

_CHUNK = 10_000
_HEX = re.compile(r"[0-9a-fA-F]+")
_CAUSE = text("SELECT sceau_key_blocked(:spki)")
_NOTE = text("INSERT INTO key_number (spki_sha256, number) VALUES (:spki, :number) ON CONFLICT DO NOTHING")
_STOPPED_AMONG = text("""
    SELECT asked.spki FROM unnest(CAST(:keys AS bytea[]), CAST(:numbers AS bytea[])) AS asked (spki, number)
    WHERE sceau_key_blocked(asked.spki) IS NOT NULL
       OR EXISTS (SELECT FROM key_number k WHERE k.number = asked.number AND k.spki_sha256 <> asked.spki)
""")
# Noted with the first certificate asked for, so that whoever asks for another form of it meets this one.
# Asked alone, or something else beside it: `asking_of`, then `judged`.
STOPPED = Statement("""
    WITH noted AS (
        INSERT INTO key_number (spki_sha256, number) VALUES (:spki, :number) ON CONFLICT DO NOTHING
    ), family AS MATERIALIZED (SELECT k.spki_sha256 AS spki FROM key_number k WHERE k.number = :number)
    SELECT (SELECT cause FROM blocked_key
            WHERE spki_sha256 = :spki OR spki_sha256 IN (SELECT spki FROM family) ORDER BY since LIMIT 1),
           EXISTS (SELECT FROM family WHERE spki <> :spki),
           (SELECT w.list FROM unnest(CAST(:forms AS text[]), CAST(:digests AS bytea[])) AS of (form, digest)
            JOIN weak_key w ON w.form = of.form AND w.digest = of.digest LIMIT 1)
""")


class BlockCause(Enum):
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

    public_key: PublicKey
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
    number: bytes | None = None,
) -> bool:
    """Block this key for ever; False when it was already, which leaves the first cause standing.

    `number` is that of a key which was never certified here; of others it is known.
    """
    if number is not None:
        connection.execute(_NOTE, {"spki": spki_sha256, "number": number})
    row = {
        "spki_sha256": spki_sha256, "cause": BlockCause(cause).value, "since": now, "serial": serial,
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


def check(connection: Connection, key: PublicKey, *, held: bool = False) -> Checked:
    """Refuse `key-blocked`, with its `cause`, and `weak-key` when a list of weak keys names it.

    `key-already-certified` as well, when another form of it was ever checked. Until the transaction ends
    nobody reports this key (the lock of its number, unless the caller holds it): what was checked stays so.
    """
    if not held:
        hold_numbers(connection, [number_of(key)])
    (row,) = STOPPED.rows(connection, asking_of(key))
    return judged(key, row)


def asking_of(key: PublicKey) -> dict[str, Any]:
    """What `STOPPED` is asked with for this key; it gives one row."""
    forms, digests = zip(*_parts(key), strict=True)
    return {
        "spki": spki_sha256(key), "number": number_of(key), "forms": list(forms), "digests": list(digests),
    }  # fmt: skip


def judged(key: PublicKey, row: Sequence[Any]) -> Checked:
    """As `check` refuses, by the row of `STOPPED` that was asked for under the lock of this key's number."""
    cause, is_twin, named = row
    if cause is not None:
        raise key_blocked(cause)
    if is_twin:
        raise twin()
    if named is not None:
        text = f"This key must not be certified: it is on the list {named} of weak keys."
        raise Refusal(Kind.UNACCEPTABLE, "weak-key", text, findings=["listed"])
    return Checked(key, spki_sha256(key))


def checked_among(connection: Connection, keys: Iterable[PublicKey]) -> dict[bytes, Checked]:
    """Those of these keys that `check` lets pass, by SHA-256 of their SPKI, in a few questions for all."""
    by_spki = {spki_sha256(key): key for key in keys}
    parts = {part: spki for spki, key in by_spki.items() for part in _parts(key)}
    named = select(weak_key.c.form, weak_key.c.digest)
    asked = {"keys": list(by_spki), "numbers": [number_of(key) for key in by_spki.values()]}
    stopped = {bytes(spki) for spki in connection.execute(_STOPPED_AMONG, asked).scalars()}
    rows = connection.execute(named.where(tuple_(weak_key.c.form, weak_key.c.digest).in_(list(parts))))
    stopped |= {parts[(row.form, bytes(row.digest))] for row in rows}
    return {spki: Checked(key, spki) for spki, key in by_spki.items() if spki not in stopped}


def note(connection: Connection, keys: Mapping[bytes, PublicKey]) -> None:
    """Keep the numbers of keys, by the SHA-256 that the record knows each by, as `check` does for one."""
    rows = [{"spki": spki, "number": number_of(key)} for spki, key in keys.items()]
    if rows:
        connection.execute(_NOTE, rows)


def check_again(connection: Connection, spki_sha256: bytes) -> None:
    """Refuse `key-blocked`, with its `cause`: for who has checked the lists, waited since, and holds the key.

    What is stored now will be seen by who reports the key next.
    """
    cause = _cause(connection, spki_sha256)
    if cause is not None:
        raise key_blocked(cause)


def import_list(
    connection: Connection, listed: Iterable[Listed], *, name: str, now: datetime, actor: Actor
) -> int:
    """Take in a list of weak keys under this name; how many were new. Certificates made before stay."""
    added = 0
    entries = iter(listed)
    while chunk := list(islice(entries, _CHUNK)):
        whole = [
            {"spki_sha256": entry.digest, "cause": BlockCause.WEAK.value, "since": now, "actor": actor.name}
            for entry in chunk if entry.form is None
        ]  # fmt: skip
        parts = [
            {"form": entry.form.value, "digest": entry.digest, "list": name, "since": now}
            for entry in chunk if entry.form is not None
        ]  # fmt: skip
        for table, rows in ((blocked_key, whole), (weak_key, parts)):
            if rows:
                query = insert(table).values(rows).on_conflict_do_nothing().returning(table.c.since)
                added += len(connection.execute(query).all())
    record(connection, now=now, actor=actor, event=Event.KEYS_LISTED, subject=name, detail={"added": added})
    return added


def _cause(connection: Connection, spki: bytes) -> str | None:
    cause: str | None = connection.execute(_CAUSE, {"spki": spki}).scalar_one()
    return cause


def twin() -> Refusal:
    """The refusal of a key of which another form was asked for already."""
    text = "This key has been certified or reserved in another form: make a new one."
    return Refusal(Kind.UNACCEPTABLE, "key-already-certified", text)


def _parts(key: PublicKey) -> list[tuple[str, bytes]]:
    """The digests under which lists of weak keys would name it."""
    if isinstance(key, EllipticCurvePublicKey):
        return [(Form.NUMBER.value, _number(key.public_numbers().x))]
    modulus = key.public_numbers().n
    # SHA-1 tells keys of a closed list apart here; nothing rests on its strength.
    written = sha1(f"Modulus={modulus:X}\n".encode(), usedforsecurity=False).digest()
    return [(Form.NUMBER.value, _number(modulus)), (Form.MODULUS.value, written[10:])]


def _number(value: int) -> bytes:
    return digest_of(value)[:15]

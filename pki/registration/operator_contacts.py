"""Whom an operator has told that its certificates run out: up to five addresses, which it keeps itself.

They are for notices and nothing else: no verdict, no list and no other operator is shown them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from directory.access import Token
from directory.base.audit import Event, record
from directory.base.errors import Kind, Refusal
from directory.base.locks import lock_until_commit
from directory.identifiers import parse_address
from pki.registration.operators import operator_of

MOST_CONTACTS = 5
_KEPT = text("SELECT address, kept_at FROM operator_contact WHERE operator_id = :id ORDER BY place")
_FORGET = text("DELETE FROM operator_contact WHERE operator_id = :id")
_KEEP = text("""
    INSERT INTO operator_contact (operator_id, place, address, kept_at)
    SELECT :id, given.place, given.address, :now
    FROM unnest(CAST(:addresses AS text[])) WITH ORDINALITY AS given (address, place)
""")


@dataclass(frozen=True)
class Contacts:
    """An operator's contacts in its own order; `kept_at` is None while there is none."""

    addresses: tuple[str, ...] = ()
    kept_at: datetime | None = None


def kept(connection: Connection, *, token: Token) -> Contacts:
    """The contacts of the token's operator; refuses `not-an-operator`."""
    return _of(connection, operator_of(connection, token).id)


def keep(connection: Connection, *, now: datetime, token: Token, addresses: Sequence[str]) -> Contacts:
    """Let these be the contacts of the token's operator instead of those before; none ends the notices.

    Refuses `not-an-operator`, `malformed-address`, `too-many-contacts`. The log gets the numbers: what it
    holds can never be forgotten, and a contact may want to be.
    """
    operator = operator_of(connection, token)
    wanted = tuple(dict.fromkeys(parse_address(address) for address in addresses))
    if len(wanted) > MOST_CONTACTS:
        told = f"An operator keeps {MOST_CONTACTS} contacts at most; these are {len(wanted)}."
        raise Refusal(Kind.UNACCEPTABLE, "too-many-contacts", told, most=MOST_CONTACTS)
    lock_until_commit(connection, f"operator-contacts:{operator.id}")
    before = _of(connection, operator.id)
    if before.addresses == wanted:
        return before
    connection.execute(_FORGET, {"id": operator.id})
    connection.execute(_KEEP, {"id": operator.id, "addresses": list(wanted), "now": now})
    detail = {
        "kept": len(wanted),
        "new": len(set(wanted) - set(before.addresses)),
        "gone": len(set(before.addresses) - set(wanted)),
    }
    record(
        connection, now=now, actor=token.actor, event=Event.CONTACTS_KEPT, subject=str(operator.id),
        detail=detail,
    )  # fmt: skip
    return Contacts(wanted, now if wanted else None)


def _of(connection: Connection, operator_id: int) -> Contacts:
    rows = connection.execute(_KEPT, {"id": operator_id}).all()
    return Contacts(tuple(row.address for row in rows), rows[0].kept_at if rows else None)

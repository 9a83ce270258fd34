"""What a key, a person and a mailbox carry already: one question under their locks, for each step of an
issuance.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ARRAY,
    Connection,
    LargeBinary,
    Text,
    and_,
    bindparam,
    exists,
    func,
    literal,
    or_,
    select,
    text,
    true,
)

from directory.base.prepared_statement import Statement
from pki.certificates.profiles import serving
from pki.model import Enrolment, Purpose, Reservation, RevocationAction, Serial
from pki.record.doubts import UNSETTLED
from pki.record.reservations import RESERVATION_COLUMNS
from pki.record.tables import (
    certificate,
    enrolment,
    operator_certificate,
    reservation,
    revocation,
    standing_hold,
)

# Said as the partial index says it, or all reservations would be read.
_LAST_OF_KEY = (
    select(*RESERVATION_COLUMNS)
    .where(reservation.c.spki_sha256 == bindparam("spki"), reservation.c.enrolment_id.is_not(None))
    .order_by(reservation.c.reserved_at.desc(), reservation.c.serial)
    .limit(1)
    .subquery()
)
_FINAL = exists().where(
    revocation.c.serial == certificate.c.serial, revocation.c.action == RevocationAction.REVOKE.value
)
_LASTING = (
    select(certificate.c.serial)
    .join(reservation, reservation.c.serial == certificate.c.serial)
    # The mailbox says nothing more than the enrolment, but has an index.
    .where(
        certificate.c.mailbox == bindparam("mailbox"),
        reservation.c.enrolment_id == bindparam("enrolment"),
        certificate.c.not_after > bindparam("beyond"),
        certificate.c.serial.is_distinct_from(bindparam("but", type_=Text)),
        certificate.c.profile == func.any(bindparam("profiles", type_=ARRAY(Text))),
        ~_FINAL,
    )
    .limit(1)
)
# Whoever doubts the one before does not see a successor made beside it, nor in its place.
_DOUBTED, _ENROLLED = certificate.alias("c"), enrolment.alias("e")
_HELD = (
    select(_DOUBTED.c.serial)
    .join(_ENROLLED, _ENROLLED.c.id == bindparam("enrolment"))
    .where(
        _DOUBTED.c.mailbox == bindparam("mailbox"),
        _DOUBTED.c.practitioner == bindparam("practitioner"),
        _DOUBTED.c.serial.is_distinct_from(bindparam("but", type_=Text)),
        or_(
            and_(
                _DOUBTED.c.not_after > bindparam("now"),
                exists().where(standing_hold.c.serial == _DOUBTED.c.serial),
            ),
            text(UNSETTLED),
        ),
    )
    .limit(1)
)
KEY_USE = Statement(
    select(
        exists().where(operator_certificate.c.spki_sha256 == bindparam("spki")),
        _LASTING.scalar_subquery(),
        _HELD.scalar_subquery(),
        _LAST_OF_KEY,
    ).select_from(select(literal(1)).subquery().outerjoin(_LAST_OF_KEY, true()))
)
AGAINST = Statement(
    select(
        func.sceau_key_blocked(bindparam("spki", type_=LargeBinary)),
        _LASTING.scalar_subquery(),
        _HELD.scalar_subquery(),
    )
)
# What it says of a key, and then its last reservation.
KEY_USE_WIDTH = 3 + len(RESERVATION_COLUMNS)


@dataclass(frozen=True)
class KeyUse:
    """Whether an operator reserved a certificate for a key, and the last reservation of an enrolment.

    `lasting` is a certificate of the enrolment it is asked for now, whatever its key. `held` is one of the
    same person and mailbox that is on hold, or whose hold was never settled (`pki/record/doubts.py`).
    """

    by_operator: bool
    lasting: Serial | None
    held: Serial | None
    last: Reservation | None


@dataclass(frozen=True)
class Against:
    """Why the key of a certificate is blocked; which other lasts, and which is on hold, as `KeyUse` says."""

    blocked: str | None
    lasting: Serial | None
    held: Serial | None


def key_use(
    connection: Connection,
    spki_sha256: bytes,
    of: Enrolment,
    purposes: frozenset[Purpose],
    *,
    beyond: datetime,
    now: datetime,
) -> KeyUse:
    """Who has reserved a certificate for this key, whatever became of it.

    `lasting` is one of this enrolment for one of these purposes that holds beyond then, be it on hold.
    """
    (row,) = KEY_USE.rows(connection, asking_beside(spki_sha256, of, purposes, beyond=beyond, now=now))
    return key_use_told(row)


def key_use_told(row: Sequence[Any]) -> KeyUse:
    """As `key_use` gives it, from the row of `KEY_USE` (`KEY_USE_WIDTH` columns)."""
    by_operator, lasting, held, *last = row
    last_reservation = None if last[0] is None else Reservation(*last)
    return KeyUse(by_operator, _serial(lasting), _serial(held), last_reservation)


def against_told(row: Sequence[Any]) -> Against:
    """What the row of `AGAINST` says."""
    cause, lasting, held = row
    return Against(cause, _serial(lasting), _serial(held))


def asking_beside(
    spki_sha256: bytes,
    of: Enrolment,
    purposes: frozenset[Purpose],
    *,
    beyond: datetime,
    now: datetime,
    but: Serial | None = None,
) -> dict[str, Any]:
    """What `KEY_USE` and `AGAINST` are asked with; `but` is a certificate that does not count."""
    return {
        "spki": spki_sha256, "mailbox": of.mailbox, "practitioner": of.practitioner, "enrolment": of.id,
        "beyond": beyond, "now": now, "but": but, "profiles": list(serving(purposes)),
    }  # fmt: skip


def _serial(serial: str | None) -> Serial | None:
    return None if serial is None else Serial(serial)

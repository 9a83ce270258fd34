"""The life of one certificate, as a user of it and as an auditor may ask for it. State, events, who vouched
for it, lines of the log.

Reads only. What a state is worth to a message is the verdict's business (`pki/verdict/decide.py`); what OCSP
says of it, `pki/ocsp/response.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any

from sqlalchemy import Connection, select, text

from directory.base.errors import Kind, Refusal
from pki.model import (
    Enrolment,
    IssuedCertificate,
    Revocation,
    RevocationAction,
    RevocationReason,
    Serial,
)
from pki.record import enrolments, reservations
from pki.record.tables import certificate, revocation


class State(Enum):
    """What a certificate is at an instant; a revoked one stays revoked when it also expires."""

    GOOD = "good"
    REVOKED = "revoked"
    ON_HOLD = "on-hold"
    EXPIRED = "expired"
    NOT_YET_VALID = "not-yet-valid"


@dataclass(frozen=True)
class Life:
    """A certificate with everything that was done to it, oldest first."""

    certificate: IssuedCertificate
    events: tuple[Revocation, ...]

    def state(self, at: datetime) -> State:
        """What it was at `at`, by what had been done by then; both ends of its validity included."""
        done = [event for event in self.events if (event.recorded_at or event.revoked_at) <= at]
        return state_after(self.certificate, done[-1].action if done else None, at)


def state_after(issued: IssuedCertificate, last: RevocationAction | None, at: datetime) -> State:
    """What a certificate is at `at`, when `last` was the last thing done to it by then (None: nothing)."""
    if last is not None and last is not RevocationAction.RELEASE:
        return State.REVOKED if last is RevocationAction.REVOKE else State.ON_HOLD
    if at > issued.not_after:
        return State.EXPIRED
    return State.NOT_YET_VALID if at < issued.not_before else State.GOOD


@dataclass(frozen=True)
class LogLine:
    """One line of the audit log; `index` and `leaf_hash` are None until the sequencer has numbered it."""

    at: datetime
    actor: str
    event: str
    detail: Mapping[str, Any]
    index: int | None = None
    leaf_hash: bytes | None = None


def life(connection: Connection, serial: Serial) -> Life:
    """The certificate of this serial; Refusal NOT_FOUND `unknown-certificate` (reserved ones were never
    issued).
    """
    row = (
        connection.execute(select(certificate).where(certificate.c.serial == serial)).mappings().one_or_none()
    )
    if row is None:
        raise Refusal(
            Kind.NOT_FOUND, "unknown-certificate", "No certificate was issued under this serial number."
        )
    return Life(IssuedCertificate(**row), _events(connection, serial))


def vouched_by(connection: Connection, serial: Serial) -> Enrolment | None:
    """The enrolment this certificate rests on; None for one of the service itself."""
    reserved = reservations.load_reservation(connection, serial)
    if reserved is None or reserved.enrolment_id is None:
        return None
    return enrolments.load_enrolment(connection, reserved.enrolment_id)


def log_lines(connection: Connection, subject: str) -> tuple[LogLine, ...]:
    """Every line of the audit log about a serial or an enrolment, in order, those not yet numbered last."""
    numbered = text(
        "SELECT at, actor, event, detail, index, leaf_hash FROM audit_entry"
        " WHERE subject = :subject ORDER BY index"
    )
    waiting = text("SELECT at, actor, event, detail FROM audit_pending WHERE subject = :subject ORDER BY id")
    asked = {"subject": subject}
    return (
        *(LogLine(**row) for row in connection.execute(numbered, asked).mappings()),
        *(LogLine(**row) for row in connection.execute(waiting, asked).mappings()),
    )


def _events(connection: Connection, serial: Serial) -> tuple[Revocation, ...]:
    rows = connection.execute(
        select(revocation).where(revocation.c.serial == serial).order_by(revocation.c.id)
    )
    return tuple(
        Revocation(
            serial=Serial(row.serial),
            action=RevocationAction(row.action),
            reason=RevocationReason(row.reason),
            comment=row.comment,
            actor=row.actor,
            revoked_at=row.revoked_at,
            not_after=row.not_after,
            restates=row.restates,
            recorded_at=row.recorded_at,
        )
        for row in rows
    )

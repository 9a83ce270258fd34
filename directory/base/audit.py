"""Queue an audit line in the transaction of the act it tells of.

An act and its line commit together or not at all. Numbering, hashing and signing come later and elsewhere
(`pki/tlog/sequencer.py`): an act never waits for the sequencer.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any

import orjson
from sqlalchemy import Connection, text

_RECORD = text(
    "INSERT INTO audit_pending (at, actor, event, subject, detail)"
    " VALUES (:line_at, :line_actor, :line_event, :line_subject, CAST(:line_detail AS jsonb))"
)
# Beside a write that a statement makes under the name `done`: nothing done, nothing told.
BESIDE = """
    told AS (
        INSERT INTO audit_pending (at, actor, event, subject, detail)
        SELECT CAST(:line_at AS timestamptz), :line_actor, :line_event, :line_subject,
               CAST(:line_detail AS jsonb)
        FROM done WHERE CAST(:line_event AS text) IS NOT NULL)
"""
_RECORD_ALL = text(
    "INSERT INTO audit_pending (at, actor, event, subject, detail)"
    " SELECT :at, :actor, :event, line.subject, line.detail"
    " FROM ROWS FROM (jsonb_to_recordset(CAST(:lines AS jsonb)) AS (subject text, detail jsonb))"
    " WITH ORDINALITY AS line (subject, detail, place) ORDER BY line.place"
)


class Event(Enum):
    """The vocabulary of the log: subject, then act. A word once used keeps its meaning for ever."""

    REGISTER_APPLIED = "register.applied"
    REGISTER_REFUSED = "register.refused"
    REGISTER_HELD = "register.held"
    REGISTER_APPROVED = "register.approved"
    ENROLMENT_REQUESTED = "enrolment.requested"
    ENROLMENT_APPROVED = "enrolment.approved"
    ENROLMENT_ENDED = "enrolment.ended"
    ENROLMENT_RESTORED = "enrolment.restored"
    CERTIFICATE_RESERVED = "certificate.reserved"
    CERTIFICATE_ISSUED = "certificate.issued"
    CERTIFICATE_REPLACED = "certificate.replaced"
    CERTIFICATE_REVOKED = "certificate.revoked"
    CERTIFICATE_HELD = "certificate.held"
    CERTIFICATE_RELEASED = "certificate.released"
    CERTIFICATE_RELEASE_ASKED = "certificate.release-asked"
    REVOCATION_RESTATED = "certificate.reason-corrected"
    BULK_REVOCATION_PLANNED = "bulk-revocation.planned"
    BULK_REVOCATION_APPROVED = "bulk-revocation.approved"
    BULK_REVOCATION_STOPPED = "bulk-revocation.stopped"
    BULK_REVOCATION_DONE = "bulk-revocation.done"
    MEASURE_TAKEN = "measure.taken"
    MEASURE_LIFTED = "measure.lifted"
    MEASURE_LIFTING_ASKED = "measure.lifting-asked"
    MEASURE_BEGAN = "measure.began"
    MEASURE_ENDED = "measure.ended"
    MEASURE_PROLONGED = "measure.prolonged"
    MEASURE_SHORTENED = "measure.shortened"
    MEASURE_SHORTENING_ASKED = "measure.shortening-asked"
    MEASURE_ANNULLED = "measure.annulled"
    MEASURE_ANNULMENT_ASKED = "measure.annulment-asked"
    CORRECTION_MADE = "correction.made"
    CORRECTION_ENDED = "correction.ended"
    CORRECTION_WITHDRAWAL_ASKED = "correction.withdrawal-asked"
    BATCH_ASKED = "batch.asked"
    CONTACTS_KEPT = "operator.contacts-kept"
    TOKEN_CREATED = "token.created"  # noqa: S105 - a word of the vocabulary, not a secret
    TOKEN_REVOKED = "token.revoked"  # noqa: S105 - same
    AUTHORITY_CREATED = "authority.created"
    AUTHORITY_CROSSED = "authority.crossed"
    AUTHORITY_ACTIVATED = "authority.activated"
    AUTHORITY_RETIRED = "authority.retired"
    CEREMONY_HELD = "ceremony.held"
    KEY_BLOCKED = "key.blocked"
    KEYS_LISTED = "keys.listed"
    KEY_REPORTED = "key.reported-compromised"
    QUOTA_REACHED = "quota.reached"
    WITHDRAWAL_LIMIT_REACHED = "withdrawal-limit.reached"
    WITHDRAWALS_AGREED = "withdrawal-limit.agreed"
    READING_QUOTA_REACHED = "reading-quota.reached"
    CRL_PUBLISHED = "crl.published"
    TRUST_LIST_PUBLISHED = "trust-list.published"
    LDAP_REBUILT = "ldap.rebuilt"
    RECORD_ACCEPTED = "record.accepted"
    CLOCK_RESET_ASKED = "clock.reset-asked"
    CLOCK_RESET = "clock.reset"
    POWER_CHANGED = "power.changed"


@dataclass(frozen=True)
class Actor:
    """Who acts: `name` is stable and shown in the log (`token:12`, `job:consequences`, `command:root`)."""

    name: str


@dataclass(frozen=True)
class Line:
    """One line before it is queued; `detail` holds public identifiers, never a secret."""

    at: datetime
    actor: Actor
    event: Event
    subject: str
    detail: Mapping[str, Any]


def beside(line: Line | None) -> dict[str, Any]:
    """The parameters of a statement with `BESIDE`; None queues no line."""
    if line is None:
        return dict.fromkeys(("line_at", "line_actor", "line_event", "line_subject", "line_detail"))
    return {
        "line_at": line.at,
        "line_actor": line.actor.name,
        "line_event": line.event.value,
        "line_subject": line.subject,
        "line_detail": orjson.dumps(dict(line.detail)).decode(),
    }


def record(
    connection: Connection,
    *,
    now: datetime,
    actor: Actor,
    event: Event,
    subject: str,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Queue one line in the caller's transaction; `detail` holds public identifiers, never a secret."""
    queue(connection, Line(now, actor, event, subject, detail or {}))


def queue(connection: Connection, line: Line) -> None:
    """As `record`, of a line that is made already."""
    connection.execute(_RECORD, beside(line))


def record_all(
    connection: Connection,
    *,
    now: datetime,
    actor: Actor,
    event: Event,
    lines: Iterable[tuple[str, Mapping[str, Any]]],
) -> None:
    """Queue one line for each subject with its detail, in one statement: for what one act does to many."""
    told = [{"subject": subject, "detail": dict(detail)} for subject, detail in lines]
    if not told:
        return
    connection.execute(
        _RECORD_ALL,
        {"at": now, "actor": actor.name, "event": event.value, "lines": orjson.dumps(told).decode()},
    )

"""The rows behind notices of expiry: what runs out without a successor, notices and their tries."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, text

from pki.certificates.profiles import PROFILES, served_by
from pki.model import Purpose, Serial

_SERVES = ", ".join(
    f"('{profile.name}', '{purpose.value}')"
    for profile in PROFILES.values()
    for purpose in Purpose
    if purpose in profile.serves
)
# A successor serves the same mailbox, lives, and lives longer. For an operator's certificate it serves the
# same operator under the same name; a domain may be two operators'. A pair succeeds to a joined certificate
# when both are there, a joined one to either of a pair. What is revoked, on hold, or of a person who has left
# ends in another way than by time.
_ENDING = f"""
    SELECT c.serial, c.profile, c.mailbox,
           coalesce(nullif(c.subject, ''), o.hosts[1], '') AS subject, c.not_after, e.authority,
           coalesce(m.listed, true) AS listed, o.operator_id,
           c.mailbox IS NOT NULL OR EXISTS (
               SELECT FROM operator_contact k WHERE k.operator_id = o.operator_id) AS has_recipient
    FROM certificate c
    JOIN reservation r ON r.serial = c.serial
    LEFT JOIN enrolment e ON e.id = r.enrolment_id
    LEFT JOIN mailbox m ON m.address = c.mailbox
    LEFT JOIN operator_certificate o ON o.serial = c.serial
    LEFT JOIN succession u ON u.national_id = c.practitioner
    WHERE c.not_after > :now AND c.not_after <= :until
      AND (c.mailbox IS NOT NULL OR c.profile = ANY(:profiles))
      AND NOT EXISTS (SELECT FROM revocation_state v WHERE v.serial = c.serial AND v.action <> 'release')
      AND (c.mailbox IS NULL OR EXISTS (
          SELECT FROM (VALUES {_SERVES}) AS s (profile, purpose)
          WHERE s.profile = c.profile AND NOT EXISTS (
              SELECT FROM certificate n
              JOIN (VALUES {_SERVES}) AS t (profile, purpose) ON t.profile = n.profile
              WHERE n.mailbox = c.mailbox AND t.purpose = s.purpose AND n.not_after > c.not_after
                AND (n.practitioner IS NOT DISTINCT FROM c.practitioner OR n.practitioner = u.successor)
                AND NOT EXISTS (
                    SELECT FROM revocation_state v WHERE v.serial = n.serial AND v.action <> 'release'))))
      AND (c.mailbox IS NOT NULL OR NOT EXISTS (
          SELECT FROM certificate n LEFT JOIN operator_certificate p ON p.serial = n.serial
          WHERE n.mailbox IS NULL AND n.profile = c.profile AND n.subject = c.subject
            AND (c.subject <> '' OR p.hosts @> o.hosts)
            AND n.not_after > c.not_after AND p.operator_id IS NOT DISTINCT FROM o.operator_id
            AND NOT EXISTS (
                SELECT FROM revocation_state v WHERE v.serial = n.serial AND v.action <> 'release')))
"""  # noqa: S608 - our own words and names
_PAGE = text(f"""{_ENDING}
      AND (CAST(:authority AS text) IS NULL OR e.authority = :authority)
      AND (NOT :to_operator OR (c.mailbox IS NOT NULL AND coalesce(m.listed, true))
           OR o.operator_id = CAST(:operator_id AS bigint))
      AND (c.not_after, c.serial) > (:after_end, :after_serial)
    ORDER BY c.not_after, c.serial LIMIT :limit
""")
_BY_KIND = text(f"""
    SELECT profile, coalesce(authority, ''), not_after FROM ({_ENDING}) AS ending
""")  # noqa: S608 - same
# Who is told of one of them.
_TOLD = """
    SELECT mailbox AS recipient WHERE mailbox IS NOT NULL
    UNION ALL
    SELECT k.address FROM operator_contact k WHERE mailbox IS NULL AND k.operator_id = ending.operator_id
"""
# The step that is reached and no other: to whom three are due at once, one mail says it.
_NOTE = text(f"""
    INSERT INTO expiry_notice (serial, days, recipient, next_attempt_at)
    SELECT serial, step.days, told.recipient, :now FROM ({_ENDING}) AS ending
    CROSS JOIN LATERAL (
        SELECT min(days) AS days FROM unnest(CAST(:steps AS smallint[])) AS given (days)
        WHERE not_after <= CAST(:now AS timestamptz) + given.days * interval '1 day') AS step
    CROSS JOIN LATERAL ({_TOLD}) AS told
    ON CONFLICT DO NOTHING
""")  # noqa: S608 - same
_CLAIM = text("""
    UPDATE expiry_notice n SET attempts = n.attempts + 1,
           next_attempt_at = CAST(:now AS timestamptz)
               + least(:longest, :shortest * power(2, least(n.attempts, 10))) * interval '1 second'
    FROM (
        SELECT serial, days, recipient FROM expiry_notice WHERE next_attempt_at <= :now
        ORDER BY next_attempt_at, serial LIMIT :limit FOR UPDATE SKIP LOCKED
    ) AS due
    WHERE n.serial = due.serial AND n.days = due.days AND n.recipient = due.recipient
    RETURNING n.serial, n.days, n.recipient, n.attempts
""")
_STILL = text(f"""
    SELECT serial, told.recipient, not_after, profile,
           CASE WHEN mailbox IS NULL THEN subject ELSE '' END AS subject
    FROM ({_ENDING}) AS ending
    CROSS JOIN LATERAL ({_TOLD}) AS told WHERE serial = ANY(:serials)
""")  # noqa: S608 - same
_UNTOLD = text(f"SELECT count(*) FROM ({_ENDING}) AS ending WHERE NOT has_recipient")  # noqa: S608 - same
_SENT = text("""
    UPDATE expiry_notice SET sent_at = :now, next_attempt_at = NULL, last_error = ''
    WHERE serial = :serial AND days = :days AND recipient = :recipient
""")
_OVER = text("""
    UPDATE expiry_notice SET next_attempt_at = NULL
    WHERE serial = :serial AND days = :days AND recipient = :recipient
""")
_FAILED = text("""
    UPDATE expiry_notice SET last_error = :error
    WHERE serial = :serial AND days = :days AND recipient = :recipient
""")


@dataclass(frozen=True)
class StillEnding:
    """When a certificate ends, what it serves, and its subject where it is no mailbox's."""

    not_after: datetime
    purposes: frozenset[Purpose]
    subject: str


@dataclass(frozen=True)
class Ending:
    """A certificate that runs out without a successor; `mailbox` is None for an operator's own.

    `has_recipient` says whether anybody can be told: its mailbox, or a contact of its operator.
    """

    serial: Serial
    profile: str
    mailbox: str | None
    subject: str
    not_after: datetime
    authority: str | None
    listed: bool
    operator_id: int | None
    has_recipient: bool


@dataclass(frozen=True)
class Notice:
    """A notice that this process is to send, on its `attempts`-th try."""

    serial: Serial
    days: int
    recipient: str
    attempts: int


@dataclass(frozen=True)
class ExpiryQuery:
    """Which certificates: ending by `until`; of one authority, or all.

    `to_operator`: only what an operator may see, mailboxes that show and the servers of `operator_id`.
    """

    until: datetime
    authority: str | None = None
    to_operator: bool = False
    operator_id: int | None = None


def ending(
    connection: Connection,
    now: datetime,
    asked: ExpiryQuery,
    profiles: Collection[str],
    *,
    after: tuple[datetime, str],
    limit: int,
) -> list[Ending]:
    """A page of them, the first to end first, behind `after` (an end and a serial)."""
    given = {
        "now": now, "until": asked.until, "profiles": list(profiles), "authority": asked.authority,
        "to_operator": asked.to_operator, "operator_id": asked.operator_id,
        "after_end": after[0], "after_serial": after[1], "limit": limit,
    }  # fmt: skip
    return [Ending(*row) for row in connection.execute(_PAGE, given)]


def ends_by_kind(
    connection: Connection, now: datetime, until: datetime, profiles: Collection[str]
) -> list[tuple[str, str, datetime]]:
    """Of each of them the profile, the authority that enrolled ('' for none) and the end; nobody's name."""
    given = {"now": now, "until": until, "profiles": list(profiles)}
    return [(profile, authority, end) for profile, authority, end in connection.execute(_BY_KIND, given)]


def untold(connection: Connection, now: datetime, until: datetime, profiles: Collection[str]) -> int:
    """How many of them nobody can be told of."""
    given = {"now": now, "until": until, "profiles": list(profiles)}
    return int(connection.execute(_UNTOLD, given).scalar_one())


def note(connection: Connection, now: datetime, steps: Sequence[int], profiles: Collection[str]) -> int:
    """Note the notices that are due and not yet noted, one for each who is told; gives how many."""
    given = {"now": now, "until": now + timedelta(days=max(steps)), "profiles": list(profiles)}
    return connection.execute(_NOTE, {**given, "steps": list(steps)}).rowcount


def claim(
    connection: Connection, now: datetime, *, shortest: timedelta, longest: timedelta, limit: int
) -> list[Notice]:
    """Take notices to send; each comes again after a while that doubles, unless it is sent or over."""
    given = {"now": now, "shortest": shortest.total_seconds(), "longest": longest.total_seconds()}
    return [Notice(*row) for row in connection.execute(_CLAIM, {**given, "limit": limit})]


def still_ending(
    connection: Connection,
    now: datetime,
    within: timedelta,
    profiles: Collection[str],
    serials: Collection[Serial],
) -> dict[tuple[Serial, str], StillEnding]:
    """Of these, those that still run out without a successor, for each who is told of one."""
    given = {"now": now, "until": now + within, "profiles": list(profiles), "serials": list(serials)}
    return {
        (Serial(row.serial), row.recipient): StillEnding(row.not_after, served_by(row.profile), row.subject)
        for row in connection.execute(_STILL, given)
    }


def mark_sent(connection: Connection, notice: Notice, now: datetime) -> None:
    """It was handed over to the mail server."""
    connection.execute(_SENT, {**_named(notice), "now": now})


def mark_over(connection: Connection, notice: Notice) -> None:
    """It has no use any more: renewed, revoked, run out, no contact any more, or a nearer step follows."""
    connection.execute(_OVER, _named(notice))


def mark_failed(connection: Connection, notice: Notice, error: str) -> None:
    """It could not be handed over, and why; it comes again by itself."""
    connection.execute(_FAILED, {**_named(notice), "error": error[:500]})


def _named(notice: Notice) -> dict[str, object]:
    return {"serial": notice.serial, "days": notice.days, "recipient": notice.recipient}

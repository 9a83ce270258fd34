"""What a verdict about now rests on, of any number of mailboxes, in one statement.

It brings no more than decides: a name, an address or a label changes no verdict. Who asks is found in the
same statement, and so is what changed since it was asked last (`directory/feed/unheard.py`). The past is read
by `answer.py`, statement by statement, from the same tables and by the same rules.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from typing import Any

import orjson
from sqlalchemy import Connection, text

from directory import rules
from directory.access import LIVE_TOKENS, Token, hashed, tokens_told
from directory.base.prepared_statement import Statement
from directory.feed.changes import Seen
from directory.feed.unheard import MOST_UNHEARD, TOLD, UNHEARD, asked_since, snapshot_of
from directory.model import Mailbox, MailboxFacts, MailboxKind, Organisation, Practice, Practitioner, Trust
from directory.store import MEASURES, TABLES, structure_sql
from pki.certificates.profiles import served_by
from pki.model import Serial
from pki.verdict.model import CertificateFacts, Side
from pki.verdict.store import ANSWERS

# Of an instant only its presence is read where nothing else decides.
_SOME_INSTANT = datetime(2000, 1, 1, tzinfo=UTC)
_SOME_PRACTICE = Practice("", "")

_HELD = ", ".join(f"'{kind.value}'" for kind in MailboxKind if kind.held)

# As a text that is short and says all that is judged: departed, practising, then the measures.
_PERSON = f"""concat_ws(' ', p.departed_at IS NOT NULL,
    EXISTS (SELECT FROM practice x WHERE x.national_id = p.national_id), CAST({MEASURES} AS text))"""
_PLACE = structure_sql("concat_ws(' ', o.departed_at IS NOT NULL, o.closed_on)")

_HEAD = f"""SELECT clock_timestamp() AS now, {UNHEARD}, {LIVE_TOKENS} AS tokens"""
# The array stands in a subquery for the reason given in directory/store.py: one plan, whatever its size.
_SIDES = f"""
    WITH asked AS MATERIALIZED (
        SELECT address, split_part(address, '@', 2) AS domain
        FROM unnest((SELECT CAST(:addresses AS text[]))) AS given (address))
    SELECT asked.address, (
        SELECT CAST(json_agg(json_build_array(
            x.suspended_at IS NOT NULL, y.suspended_at IS NOT NULL)) AS text)
        FROM trusted_domain x JOIN operator y ON y.id = x.operator_id
        WHERE x.name = asked.domain AND x.departed_at IS NULL) AS trusts,
        m.kind, m.departed_at IS NOT NULL AS departed,
        holder.person, CASE WHEN m.kind NOT IN ({_HELD}) THEN {_PLACE} END AS place, answering.people,
        c.serial, c.sha256, c.not_before, c.not_after, c.profile, last.action, last.revoked_at,
        CASE WHEN :with_der THEN c.der END AS der
    FROM asked
    LEFT JOIN mailbox m ON m.address = asked.address
    LEFT JOIN LATERAL (
        SELECT {_PERSON} AS person FROM practitioner p
        WHERE m.kind IN ({_HELD}) AND p.national_id = m.holder) AS holder ON true
    LEFT JOIN LATERAL (
        SELECT array_agg(p.national_id || ' ' || {_PERSON} ORDER BY p.national_id) AS people
        FROM (
            SELECT DISTINCT coalesce(u.successor, e.practitioner) AS whose
            FROM enrolment e LEFT JOIN succession u ON u.national_id = e.practitioner
            WHERE e.mailbox = m.address AND {ANSWERS} AND m.kind NOT IN ({_HELD})) AS named
        JOIN practitioner p ON p.national_id = named.whose) AS answering ON true
    LEFT JOIN LATERAL (
        SELECT c.* FROM certificate c LEFT JOIN succession u ON u.national_id = c.practitioner
        -- What names its former holder would be another's key, as would another establishment.
        WHERE c.mailbox = m.address AND CASE WHEN m.kind IN ({_HELD})
            THEN coalesce(u.successor, c.practitioner) IS NOT DISTINCT FROM m.holder
            ELSE coalesce(sceau_establishment_of(c.subject) = CASE
                WHEN m.structure_type IN ('1', '3') THEN m.structure_id ELSE '' END, true) END) AS c ON true
    LEFT JOIN LATERAL (
        SELECT r.action, r.revoked_at FROM revocation r WHERE r.serial = c.serial
        ORDER BY r.id DESC LIMIT 1) AS last ON true"""  # noqa: S608 - same
_IN_ORDER = "ORDER BY address, not_after DESC, serial"

_TOGETHER = f"""SELECT head.*, sides.* FROM ({_HEAD}) AS head LEFT JOIN ({_SIDES}) AS sides ON true
    {_IN_ORDER}"""  # noqa: S608 - same


_BYTES = """SELECT c.serial, c.der FROM unnest((SELECT CAST(:serials AS text[]))) AS given (serial)
    JOIN certificate c USING (serial)"""


def _present(template: str) -> Statement:
    return Statement(template.format(**{table: table for table in (*TABLES, "enrolment")}))


_ASK_BYTES = _present(_BYTES)
_ASK_HEAD, _ASK_SIDES, _ASK_TOGETHER = _present(_HEAD), _present(f"{_SIDES} {_IN_ORDER}"), _present(_TOGETHER)


@dataclass(frozen=True, slots=True)
class Head:
    """What one look at the record says besides of mailboxes.

    `now` is the database's clock; `snapshot` is what the look showed, as transactions are counted at
    `origin`. `changed` are the keys of those that changed since, None where they are too many; `tokens` are
    live, by the hash of their secret.
    """

    now: datetime
    origin: str
    snapshot: Seen
    changed: tuple[tuple[str, str], ...] | None
    tokens: Mapping[str, Token]


@dataclass(frozen=True, slots=True)
class Fact:
    """A side, and what it holds for in a memory: until `until`, and while none of `people` changes."""

    side: Side
    until: datetime | None = None
    people: tuple[str, ...] = ()


def plan_once(connection: Connection) -> None:
    """Have this session keep one plan of each statement: to plan `look` takes longer than to run it."""
    connection.execute(text("SET plan_cache_mode = force_generic_plan"))


def look(
    connection: Connection,
    addresses: Sequence[str],
    *,
    seen: Seen,
    secrets: Iterable[str] = (),
    now: datetime,
) -> tuple[Head, dict[str, Fact]]:
    """One statement: what changed since `seen`, who of `secrets` may ask, each of the (canonical) addresses.

    All of one snapshot, the certificates' bytes along.
    """
    asked = {**_asked(seen, secrets, now), "addresses": list(addresses), "with_der": True, "at": None}
    rows = _ASK_TOGETHER.rows(connection, asked)
    head = _head(rows[0][:5])
    return head, _facts((row[5:] for row in rows if row[5] is not None), head.now)


def bytes_of(connection: Connection, serials: Sequence[Serial]) -> dict[str, bytes]:
    """The bytes of these certificates."""
    return dict(_ASK_BYTES.rows(connection, {"serials": list(serials)}))


def with_bytes(side: Side, octets: Mapping[str, bytes]) -> Side:
    """The side with its certificates' bytes; KeyError where one is not among them."""
    whole = [certificate._replace(der=octets[certificate.serial]) for certificate in side.certificates]
    return side._replace(certificates=tuple(whole))


def look_in_parts(connection: Connection, addresses: Sequence[str], head: Head) -> dict[str, Fact]:
    """The addresses alone, without bytes, within the transaction in which `head` was read."""
    rows = _ASK_SIDES.rows(connection, {"addresses": list(addresses), "with_der": False, "at": None})
    return _facts(rows, head.now)


def head_of(connection: Connection, *, seen: Seen, secrets: Iterable[str] = (), now: datetime) -> Head:
    """What changed since `seen`, and who may ask."""
    row = _ASK_HEAD.row(connection, _asked(seen, secrets, now))
    assert row is not None
    return _head(row)


def _asked(seen: Seen, secrets: Iterable[str], now: datetime) -> dict[str, Any]:
    return {"now": now, "hashes": [hashed(secret) for secret in secrets], **asked_since(seen)}


def _head(row: Sequence[Any]) -> Head:
    now, origin, snapshot, unheard, tokens = row
    changed = orjson.loads(unheard or "[]")
    told = tuple((entity, key) for entity, key in changed if entity in TOLD)
    heard = None if len(changed) > MOST_UNHEARD else told
    return Head(now, origin, snapshot_of(snapshot), heard, tokens_told(tokens))


def _facts(rows: Iterable[Sequence[Any]], now: datetime) -> dict[str, Fact]:
    today = now.astimezone(rules.FRANCE).date()
    facts = {}
    for address, of_it in groupby(rows, itemgetter(0)):
        lines = list(of_it)
        _, trusts, kind, departed, person, place, people, *_ = lines[0]
        standing, changes_at, until, ids = _judged(trusts, kind, departed, person, place, _key(people), today)
        certificates = tuple(_certificate(line[7:]) for line in lines if line[7] is not None)
        facts[address] = Fact(Side(standing, kind is not None, certificates, changes_at), until, ids)
    return facts


def _key(people: list[str] | None) -> tuple[str, ...]:
    return () if people is None else tuple(people)


def _certificate(line: Sequence[Any]) -> CertificateFacts:
    serial, sha256, not_before, not_after, profile, action, acted_at, der = line
    return CertificateFacts(
        Serial(serial), der or b"", sha256, not_before, not_after, served_by(profile),
        revoked_at=acted_at if action == "revoke" else None, on_hold=action == "hold",
    )  # fmt: skip


@lru_cache(16_384)
def _judged(  # noqa: PLR0917 - the columns of a row
    trusts: str | None,
    kind: str | None,
    departed: bool,  # noqa: FBT001 - a column
    person: str | None,
    place: str | None,
    people: tuple[str, ...],
    today: date,
) -> tuple[tuple[str, ...], datetime | None, datetime | None, tuple[str, ...]]:
    """What stands against such a mailbox today, when a measure changes that, when anything does, who answers.

    Most mailboxes of a country are alike in all that is judged here.
    """
    mailbox = None if kind is None else _mailbox(MailboxKind(kind), departed)
    holder = None if person is None else _person("", person)
    named = [_person(*entry.split(" ", 1)) for entry in people]
    organisation = None if place is None else _place(place)
    facts = MailboxFacts(
        "", well_formed=True, trusts=_trusts(trusts), mailbox=mailbox, holder=holder,
        organisation=organisation, answerable=tuple(named),
    )  # fmt: skip
    standing = tuple(found.value for found in rules.standing(facts, _noon(today)))
    changes = [person.changes_at for person in (holder, *named) if person is not None and person.changes_at]
    changes_at = min(changes, default=None)
    ends = [*changes, *_end_of_day(mailbox, today)]
    return standing, changes_at, min(ends, default=None), tuple(person.national_id for person in named)


def _noon(day: date) -> datetime:
    return datetime.combine(day, time(12), rules.FRANCE)


def _end_of_day(mailbox: Mailbox | None, today: date) -> tuple[datetime, ...]:
    """An establishment closes with a French day."""
    if mailbox is None or mailbox.kind.held:
        return ()
    return (datetime.combine(today + timedelta(days=1), time(), rules.FRANCE),)


def _mailbox(kind: MailboxKind, departed: bool) -> Mailbox:  # noqa: FBT001 - a column
    gone = _SOME_INSTANT if departed else None
    return Mailbox("", kind, None, "", "", "", "", listed=True, departed_at=gone)


def _trusts(written: str | None) -> tuple[Trust, ...]:
    given = orjson.loads(written or "[]")
    return tuple(
        Trust("", "", domain_suspended=domain, operator_suspended=operator) for domain, operator in given
    )


def _person(national_id: str, written: str) -> Practitioner:
    departed, practising, measures = written.split(" ", 2)
    kinds, changes_at = orjson.loads(measures)
    return Practitioner(
        national_id, "", "", "",
        practices=(_SOME_PRACTICE,) if practising == "t" else (),
        suspended="suspended" in (kinds or ()), struck_off="struck-off" in (kinds or ()),
        departed_at=_SOME_INSTANT if departed == "t" else None,
        changes_at=None if changes_at is None else datetime.fromisoformat(changes_at),
    )  # fmt: skip


def _place(written: str) -> Organisation:
    departed, _, closed_on = written.partition(" ")
    return Organisation(
        "", "", closed_on=date.fromisoformat(closed_on) if closed_on else None,
        departed_at=_SOME_INSTANT if departed == "t" else None,
    )  # fmt: skip

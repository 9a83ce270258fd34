"""What a memory answers is what the rows say, after each act of a random history and whoever commits when.

Three roads answer: a warm memory, the one statement without one, and the statements that read the past. The
rows themselves are judged a fourth time by `decide`, over what the directory says of the present.
"""

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import count
from pathlib import Path
from queue import SimpleQueue
from time import monotonic
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from api.process.gathering import Finding, Gathering, Question
from directory import store
from directory.base import commits
from directory.base.db import asking, transaction
from directory.feed.unheard import MOST_UNHEARD
from directory.identifiers import address_or_none
from pki.verdict import present
from pki.verdict import store as verdict_store
from pki.verdict.answer import (
    Gathered,
    _for_its_holder,
    decide_among,
    gather,
    present_sides,
    with_answerable,
)
from pki.verdict.decide import Party, side_of
from pki.verdict.memory import Memory
from pki.verdict.model import Answer, Side, Verdict
from pki.verdict.present import head_of, look_in_parts
from tests.factories import clock, rpps, seed_organisation, seed_practitioner, seed_token

KEPT = timedelta(minutes=15)
SOON = timedelta(milliseconds=150)
PROFILES = (
    "practitioner-smime", "practitioner-smime-sign", "practitioner-smime-encrypt", "organisation-smime",
    "application-smime",
)  # fmt: skip
A, B, C = (f"CN={name}.example,O=Operator,C=FR" for name in "abc")
DOMAINS = ("one.example", "two.example", "three.example")
PLACES = ("750990012", "750990020", "750990038", "750990046")
ENTITY, SIRET = "750990095", "26750045200011"
PERSONAL = ("person-1@one.example", "person-2@two.example", "cabinet@one.example")
SHARED = (
    "place@two.example", "entity@three.example", "siret@one.example", "application@three.example",
    "nowhere@two.example",
)  # fmt: skip
LATER, UNKNOWN, MALFORMED = "later@one.example", "nobody@three.example", "no address"
ADDRESSES = (*PERSONAL, *SHARED, LATER, UNKNOWN, MALFORMED)
# Practitioners 1 to 8; the last two bear numbers of ADELI.
OLD = ("075000007", "075000008")
PEOPLE = (*(rpps(number) for number in range(1, 7)), *OLD)


def run(engine: Engine, sql: str, **values: object) -> None:
    with engine.begin() as connection:
        connection.execute(text(sql), values)


# The world.


def _sow(engine: Engine) -> None:
    """Every kind of mailbox, and all that any of them rests on."""
    for number, operator in enumerate((A, B, C), 1):
        seed_practitioner(engine, number, operator=operator, address=(*PERSONAL, "")[number - 1])
    for number in (4, 5, 6):
        seed_practitioner(engine, number, operator=B)
    run(engine, "UPDATE mailbox SET kind = 'CAB' WHERE address = 'cabinet@one.example'")
    run(
        engine,
        "INSERT INTO practitioner (national_id, id_type, id_number, title, family_name, given_name,"
        " search_name, row_hash) SELECT id, '0', substr(id, 2), '', 'MARTIN', 'Anne', 'MARTIN ANNE', ''"
        " FROM unnest(CAST(:old AS text[])) AS x (id)",
        old=list(OLD),
    )
    for address, place in zip(SHARED, (*PLACES[:2], PLACES[0], PLACES[0], PLACES[0]), strict=True):
        seed_organisation(engine, place, address=address, operator=C)
    run(
        engine,
        "INSERT INTO organisation (finess, name, row_hash) SELECT f, 'HOPITAL', ''"
        " FROM unnest(CAST(:places AS text[])) AS x (f) ON CONFLICT DO NOTHING",
        places=list(PLACES),
    )
    run(
        engine, "UPDATE organisation SET legal_finess = :e WHERE finess = ANY(:p)", e=ENTITY, p=[*PLACES[1:3]]
    )
    run(engine, "UPDATE organisation SET siret = :s WHERE finess = ANY(:p)", s=SIRET, p=[*PLACES[2:]])
    for address, scheme, number in (
        ("entity@three.example", "1", ENTITY), ("siret@one.example", "3", SIRET),
        ("nowhere@two.example", "1", "750990103"),
    ):  # fmt: skip
        sql = "UPDATE mailbox SET structure_type = :t, structure_id = :n WHERE address = :a"
        run(engine, sql, t=scheme, n=number, a=address)
    run(engine, "UPDATE mailbox SET kind = 'APP' WHERE address = 'application@three.example'")
    run(
        engine,
        "INSERT INTO register_run (register, file_name, file_sha256, generated_at, started_at, finished_at,"
        " state) VALUES ('rpps', 'f', sha256(''), now(), now(), now(), 'applied')",
    )


@dataclass
class World:
    """The record, and the acts that change it at random."""

    engine: Engine
    chance: random.Random
    tokens: tuple[int, int] = (0, 0)
    numbers: Iterator[int] = field(default_factory=lambda: count(1))
    serials: list[str] = field(default_factory=list)

    @classmethod
    def made(cls, engine: Engine, chance: random.Random) -> "World":
        _sow(engine)
        world = cls(engine, chance, (seed_token(engine, "first"), seed_token(engine, "second")))
        for address in (*PERSONAL, *SHARED):
            world.certify(address, PROFILES[0])
        for address, who in zip(SHARED, (rpps(4), OLD[0], OLD[1], rpps(5), rpps(6)), strict=True):
            world.enrol(address, who)
        return world

    def act(self) -> str:
        """One act, committed; gives its name."""
        names, weights = zip(*ACTS.items(), strict=True)
        (name,) = self.chance.choices(names, weights)
        getattr(self, name)()
        return name

    def one(self, of: Sequence[str]) -> str:
        return self.chance.choice(of)

    def run(self, sql: str, **values: object) -> None:
        run(self.engine, sql, **values)

    def leave_or_return(self) -> None:
        self._toggle("practitioner", "departed_at", "national_id = :key", key=self.one(PEOPLE))

    def _toggle(self, table: str, column: str, where: str, **values: object) -> None:
        """Set on one, or taken off all: what stands against many for long hides all else."""
        if self.chance.random() < 0.4:
            self.run(f"UPDATE {table} SET {column} = now() WHERE {where} AND {column} IS NULL", **values)
        else:
            self.run(f"UPDATE {table} SET {column} = NULL WHERE {column} IS NOT NULL")

    def practise(self) -> None:
        """Whoever does not, begins to, in one or two places."""
        self.run(
            "INSERT INTO practice (national_id, digest, profession_code, category)"
            " SELECT national_id, substr(sha256(CAST(n AS text)::bytea), 1, 16), '10', 'C'"
            " FROM practitioner p, generate_series(1, :many) AS x (n)"
            " WHERE NOT EXISTS (SELECT FROM practice WHERE national_id = p.national_id)",
            many=self.chance.randint(1, 2),
        )

    def stop_practising(self) -> None:
        self.run("DELETE FROM practice WHERE national_id = :who", who=self.one(PEOPLE))

    def stop_one_practice(self) -> None:
        sql = "DELETE FROM practice WHERE (national_id, digest) IN (SELECT national_id, digest FROM practice"
        self.run(f"{sql} WHERE national_id = :who LIMIT 1)", who=self.one(PEOPLE))

    def change_profession(self) -> None:
        sql = "INSERT INTO profession (national_id, code, category) VALUES (:who, :code, 'C')"
        self.run(f"{sql} ON CONFLICT DO NOTHING", who=self.one(PEOPLE), code=self.one(("21", "40", "50")))

    def take_measure(self) -> None:
        begins, lasts = self.chance.choice(((0, 0), (0, 0), (1, 0), (0, 1), (1, 1), (0, 2)))
        self.run(
            "INSERT INTO measure (national_id, kind, authority, reason, starts_at, ends_at, recorded_by,"
            " recorded_at) SELECT :who, :kind, 'CNOM', 'r', t + :begins * CAST(:soon AS interval),"
            " CASE WHEN :lasts > 0 THEN t + (:begins + :lasts) * CAST(:soon AS interval) END, 'x', t"
            " FROM clock_timestamp() AS t",
            who=self.one(PEOPLE), kind=self.one(("suspended", "struck-off")), begins=begins, lasts=lasts,
            soon=SOON * self.chance.uniform(0.2, 1.5),
        )  # fmt: skip

    def lift_measures(self) -> None:
        who = self.one(PEOPLE) if self.chance.random() < 0.3 else ""
        self.run(
            "UPDATE measure SET ends_at = greatest(starts_at, clock_timestamp())"
            " WHERE (ends_at IS NULL OR ends_at > clock_timestamp()) AND (:who IN ('', national_id))",
            who=who,
        )

    def issue(self) -> None:
        """Mostly one that serves for all; one in three times each mailbox gets one."""
        profile = self.one((*PROFILES, *PROFILES[:1] * 3))
        every = (*PERSONAL, *SHARED)
        for mailbox in every if self.chance.random() < 0.3 else (self.one(every),):
            self.certify(mailbox, profile)

    def certify(self, mailbox: str, profile: str) -> None:
        number = next(self.numbers)
        shared = mailbox in SHARED
        whose = self.one(PEOPLE) if self.chance.random() < 0.1 else None
        lasts = SOON * 3 if self.chance.random() < 0.15 else timedelta(days=365)
        with self.engine.begin() as connection:
            serial = issue(
                connection, mailbox, number, profile=profile, whose=None if shared else whose, lasts=lasts,
                subject=self._subject() if shared else "CN=x",
            )  # fmt: skip
        self.serials.append(serial)

    def _subject(self) -> str:
        named = self.chance.choice(
            ("", "", "", "", *(f"FI:FR-{place}" for place in (*PLACES, ENTITY)), f"NTRFR-{SIRET}")
        )
        return f"CN=x,organizationIdentifier={named}" if named else "CN=x"

    def take_back(self) -> None:
        action = self.one(("revoke", "hold", "hold", "release"))
        self.run(
            "INSERT INTO revocation (serial, authority_id, shard, action, reason, actor, revoked_at,"
            " not_after, entry) SELECT serial, authority_id, shard, :action, 'superseded', 'test',"
            " clock_timestamp(), not_after, CASE WHEN :action <> 'release' THEN CAST('x' AS bytea) END"
            " FROM certificate WHERE serial = :serial AND NOT EXISTS ("
            "     SELECT FROM revocation r WHERE r.serial = :serial AND r.action = 'revoke')",
            serial=self.one(self.serials), action=action,
        )  # fmt: skip

    def release_all(self) -> None:
        self.run(
            "INSERT INTO revocation (serial, authority_id, shard, action, reason, actor, revoked_at,"
            " not_after) SELECT serial, authority_id, shard, 'release', 'superseded', 'test',"
            " clock_timestamp(), not_after FROM certificate JOIN standing_hold USING (serial)"
        )

    def change_holder(self) -> None:
        sql = "UPDATE mailbox SET holder = :who WHERE address = :address"
        self.run(sql, who=self.one(PEOPLE), address=self.one(PERSONAL))

    def close_or_open_mailbox(self) -> None:
        sql = "address = :key"
        self._toggle("mailbox", "departed_at", sql, key=self.one((*PERSONAL, *SHARED)))

    def bring_or_take_mailbox(self) -> None:
        with self.engine.begin() as connection:
            gone = connection.execute(text("DELETE FROM mailbox WHERE address = :a"), {"a": LATER})
            if not gone.rowcount:
                sql = "INSERT INTO mailbox (address, kind, holder, row_hash) VALUES (:a, 'PER', :who, '')"
                connection.execute(text(sql), {"a": LATER, "who": self.one(PEOPLE)})

    def move_mailbox(self) -> None:
        scheme = self.one(("1", "1", "3"))
        number = SIRET if scheme == "3" else self.one((*PLACES, ENTITY))
        sql = "UPDATE mailbox SET structure_type = :t, structure_id = :n WHERE address = :a"
        self.run(sql, t=scheme, n=number, a=self.one(SHARED))

    def suspend_domain(self) -> None:
        self._toggle("trusted_domain", "suspended_at", "name = :key", key=self.one(DOMAINS))

    def withdraw_domain(self) -> None:
        self._toggle("trusted_domain", "departed_at", "name = :key", key=self.one(DOMAINS))

    def give_domain(self) -> None:
        """To another operator beside those who have it, or in their place."""
        with self.engine.begin() as connection:
            given = {"domain": self.one(DOMAINS), "dn": self.one((A, B, C))}
            if self.chance.random() < 0.5:
                connection.execute(text("DELETE FROM trusted_domain WHERE name = :domain"), given)
            connection.execute(
                text(
                    "INSERT INTO trusted_domain (name, operator_id, row_hash) SELECT :domain, id, ''"
                    " FROM operator WHERE certificate_dn = :dn ON CONFLICT (name, operator_id)"
                    " DO UPDATE SET departed_at = NULL, suspended_at = NULL"
                ),
                given,
            )

    def suspend_operator(self) -> None:
        self._toggle("operator", "suspended_at", "certificate_dn = :key", key=self.one((A, B, C)))

    def close_place(self) -> None:
        when = self.chance.choice((None, None, None, -1, 0, 1, 1))
        sql = (
            "UPDATE organisation SET closed_on = (now() AT TIME ZONE 'Europe/Paris')::date + CAST(:n AS int)"
        )
        self.run(f"{sql} WHERE finess = :place", n=when, place=self.one(PLACES))

    def lose_or_find_place(self) -> None:
        self._toggle("organisation", "departed_at", "finess = :key", key=self.one(PLACES))

    def renumber_place(self) -> None:
        column, number = self.chance.choice((("legal_finess", ENTITY), ("siret", SIRET)))
        given = f"{column} = CASE WHEN {column} = '' THEN :number ELSE '' END"
        self.run(f"UPDATE organisation SET {given} WHERE finess = :p", number=number, p=self.one(PLACES))

    def answer_for(self) -> None:
        self.enrol(self.one(SHARED), self.one(PEOPLE))

    def enrol(self, mailbox: str, who: str) -> None:
        """As over REST: asked for, then approved by another."""
        first, second = self.tokens
        row = {"who": who, "mailbox": mailbox, "first": first, "second": second}
        with self.engine.begin() as connection:
            connection.execute(
                text(
                    "INSERT INTO enrolment (practitioner, mailbox, authority, identity_check, state,"
                    " requested_by, requested_at) SELECT :who, :mailbox, 'CNOM', '{}', 'requested', :first,"
                    " now() WHERE NOT EXISTS (SELECT FROM enrolment WHERE practitioner = :who"
                    " AND mailbox = :mailbox AND state <> 'ended')"
                ),
                row,
            )
            connection.execute(
                text(
                    "UPDATE enrolment SET state = 'approved', approved_by = :second, approved_at = now()"
                    " WHERE practitioner = :who AND mailbox = :mailbox AND state = 'requested'"
                ),
                row,
            )

    def end_enrolment(self) -> None:
        self.run(
            "UPDATE enrolment SET state = 'ended', ended_at = now() WHERE id IN (SELECT id FROM enrolment"
            " WHERE state <> 'ended' ORDER BY id OFFSET :n LIMIT 1)",
            n=self.chance.randrange(4),
        )

    def succeed_or_give_back(self) -> None:
        """A number of ADELI is linked to one of the RPPS, retired with none, or back."""
        row = {"old": self.one(OLD), "new": self.chance.choice((None, rpps(4), rpps(5), rpps(2)))}
        with self.engine.begin() as connection:
            gone = connection.execute(
                text("DELETE FROM succession WHERE national_id = :old AND successor IS NOT NULL"), row
            )
            if not gone.rowcount:
                connection.execute(
                    text(
                        "INSERT INTO succession (national_id, successor, run_id, linked_at)"
                        " SELECT :old, :new, max(id), now() FROM register_run ON CONFLICT (national_id)"
                        " DO UPDATE SET successor = excluded.successor"
                    ),
                    row,
                )


# How often each: what refuses for long is undone as often as it is done, so that much stays allowed.
ACTS: Mapping[str, int] = {
    "leave_or_return": 3, "practise": 3, "stop_practising": 2, "stop_one_practice": 1, "change_profession": 1,
    "take_measure": 4, "lift_measures": 6, "issue": 9, "take_back": 4, "release_all": 3,
    "change_holder": 2, "close_or_open_mailbox": 2, "bring_or_take_mailbox": 2, "move_mailbox": 1,
    "suspend_domain": 2, "withdraw_domain": 2, "give_domain": 5, "suspend_operator": 2, "close_place": 3,
    "lose_or_find_place": 2, "renumber_place": 2, "answer_for": 4, "end_enrolment": 2,
    "succeed_or_give_back": 4,
}  # fmt: skip

_RESERVE = text(
    "INSERT INTO reservation (serial, authority_id, profile, shard, mailbox, spki_sha256, tbs, tbs_sha256,"
    " lints, requested_by, reserved_at) VALUES (:serial, 'persons-1', :profile, 0, :mailbox, :sha, '', :sha,"
    " '[]', 'x', now())"
)
_ISSUE = text(
    "INSERT INTO certificate (serial, authority_id, profile, shard, mailbox, practitioner, subject,"
    " spki_sha256, der, sha256, not_before, not_after, issued_at) SELECT :serial, 'persons-1', :profile, 0,"
    " :mailbox, coalesce(:whose, (SELECT holder FROM mailbox WHERE address = :mailbox)), :subject, :sha,"
    " :der, :sha, t - interval '1 hour', t + CAST(:lasts AS interval), t FROM clock_timestamp() AS t"
)


def issue(
    connection: Connection,
    mailbox: str,
    number: int,
    *,
    profile: str = PROFILES[0],
    whose: str | None = None,
    subject: str = "CN=x",
    lasts: timedelta = timedelta(days=365),
) -> str:
    """A certificate's row: a verdict carries its bytes and never reads them."""
    serial, der = f"{number:040x}", f"certificate {number}".encode()
    row = {"serial": serial, "mailbox": mailbox, "profile": profile, "whose": whose, "subject": subject,
           "lasts": lasts, "der": der, "sha": sha256(der).digest()}  # fmt: skip
    connection.execute(_RESERVE, row)
    connection.execute(_ISSUE, row)
    return serial


# The roads.


@dataclass(frozen=True)
class Told:
    """What of a verdict every road knows; `sha256` and `der` stand for the certificate's row."""

    answer: Answer
    reasons: tuple[str, ...]
    certificates: tuple[tuple[str, bytes], ...]

    @classmethod
    def of(cls, verdict: Verdict) -> "Told":
        given = tuple((certificate.serial, certificate.sha256) for certificate in verdict.certificates)
        return cls(verdict.answer, verdict.reasons, given)


def pairs(gathered: Gathered) -> dict[tuple[str, str | None], Verdict]:
    """Each address as recipient, with no sender and with each as sender."""
    return {
        (recipient, sender): decide_among(recipient, sender, gathered.sides, {}, gathered.occasion)
        for recipient in gathered.sides
        for sender in (None, *gathered.sides)
    }


def asked(
    engine: Engine,
    addresses: Sequence[str],
    *,
    now: datetime,
    memory: Memory | None = None,
    at: datetime | None = None,
    with_der: bool = True,
) -> Gathered:
    with transaction(engine, read_only=True) as connection:
        return gather(
            connection, addresses, sender=None, at=at, now=now, lifetime=KEPT, memory=memory,
            with_der=with_der,
        )  # fmt: skip


def over_rows(engine: Engine, addresses: Sequence[str], now: datetime) -> dict[str, Side]:
    """The sides as the directory's and the PKI's own statements about the present give them."""
    with transaction(engine, read_only=True) as connection:
        facts = store.mailbox_facts(connection, addresses)
        known = [fact.address for fact in facts.values() if fact.mailbox is not None]
        certificates = verdict_store.certificates_of(connection, known, None)
        return {
            spelling: side_of(Party(fact, _for_its_holder(fact, certificates.get(fact.address, ()))), now)
            for spelling, fact in with_answerable(connection, facts, None).items()
        }


class Quick:
    """The road before the framework: a question, and the thread that answers it."""

    def __init__(self, engine: Engine, memory: Memory) -> None:
        self.gathering = Gathering(engine, memory, lambda: datetime.now(UTC)).start()
        self.answered_at_once = 0

    def sides(self, *addresses: str, secret: str = "sceau_first") -> dict[str, Side]:
        """Canonical addresses, one or two; without a look where the last one vouches for them."""
        finding = self.gathering.at_once(addresses, secret)
        self.answered_at_once += finding is not None
        if finding is None:
            told: SimpleQueue[Finding | None] = SimpleQueue()
            self.gathering.ask(Question(addresses, secret, told.put))
            finding = told.get(timeout=60)
        assert finding is not None
        return dict(zip(addresses, finding.sides, strict=True))


@dataclass
class Roads:
    """Two memories kept over the whole history, each with its quick road; the one misses the other's acts."""

    engine: Engine
    chance: random.Random
    memories: tuple[Memory, Memory] = field(default_factory=lambda: (Memory(), Memory()))
    compared: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.quick = [Quick(self.engine, memory) for memory in self.memories]

    def compare(self, after: str) -> None:
        """All roads at one instant; asked again where a measure or a certificate ended in between."""
        for _ in range(20):
            now = clock(self.engine)
            turn = self.chance.randrange(2)
            warm = self._warm(turn, now)
            rows, cold, past = self._cold(now)
            if not self._something_passed(now, clock(self.engine)):
                break
        else:
            pytest.fail("time never stood still")
        self._same(after, pairs(warm), pairs(cold), pairs(past), pairs(rows))

    def _warm(self, turn: int, now: datetime) -> Gathered:
        """Some of them the quick way and some apart, so that a memory has some and misses others."""
        memory, known = self.memories[turn], [a for a in ADDRESSES if address_or_none(a) is not None]
        sides: dict[str, Side] = {}
        quick = self.chance.sample(known, self.chance.randint(0, 4))
        for first, second in zip(quick[::2], quick[1::2], strict=False):
            sides |= self.quick[turn].sides(first, second)
            if self.chance.random() < 0.5:
                sides |= self.quick[turn].sides(first, second)
        rest = [address for address in ADDRESSES if address not in sides]
        gathered = asked(self.engine, rest, now=now, memory=memory, with_der=self.chance.random() < 0.5)
        return Gathered(None, {**gathered.sides, **sides}, {}, gathered.occasion)

    def _cold(self, now: datetime) -> tuple[Gathered, Gathered, Gathered]:
        cold = asked(self.engine, ADDRESSES, now=now)
        past = asked(self.engine, ADDRESSES, now=now, at=now)
        rows = over_rows(self.engine, ADDRESSES, now)
        return Gathered(None, rows, {}, cold.occasion), cold, past

    def _something_passed(self, since: datetime, until: datetime) -> bool:
        """Whether an instant of a measure or the end of a certificate lies between."""
        with self.engine.connect() as connection:
            passed = text(
                "SELECT EXISTS (SELECT FROM measure WHERE starts_at BETWEEN :since AND :until"
                " OR ends_at BETWEEN :since AND :until)"
            )
            return bool(connection.execute(passed, {"since": since, "until": until}).scalar_one())

    def _same(self, after: str, warm: Mapping, cold: Mapping, past: Mapping, rows: Mapping) -> None:
        for pair, verdict in rows.items():
            told, case = Told.of(verdict), (after, pair)
            assert Told.of(past[pair]) == told, ("past", *case)
            assert Told.of(cold[pair]) == told, ("without a memory", *case)
            assert Told.of(warm[pair]) == told, ("from memory", *case)
            # The past knows of nothing to come, so that only what reads the present says until when.
            assert cold[pair].valid_until == verdict.valid_until, ("without a memory", *case)
            assert warm[pair].valid_until == verdict.valid_until, ("from memory", *case)
            self.compared[told.answer.value] += 1


SEED = int(os.environ.get("SCEAU_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)


@pytest.mark.usefixtures("told")
@pytest.mark.parametrize(
    "seconds",
    [
        pytest.param(18.0, id="short", marks=pytest.mark.waits),
        pytest.param(600.0, id="long", marks=pytest.mark.long),
    ],
)
def test_every_road_tells_the_same_after_each_act_of_a_random_history(engine: Engine, seconds: float) -> None:
    chance = random.Random(SEED)
    world, roads = World.made(engine, chance), Roads(engine, chance)
    roads.compare("the beginning")
    begun, acts = monotonic(), 0
    while acts < 20 or monotonic() - begun < seconds:
        done = [world.act() for _ in range(chance.choice((1, 1, 1, 2, 5)))]
        acts += len(done)
        roads.compare(f"{acts} acts of seed {SEED}, the last {done}")

    assert sum(quick.answered_at_once for quick in roads.quick) > acts / 10
    # Were everything refused, much could be stale unseen.
    assert roads.compared.keys() == {answer.value for answer in Answer}, roads.compared


# Who commits when.


@pytest.fixture
def told(tmp_path: Path) -> Iterator[None]:
    """This process tells of its commits, and hears of them."""
    commits.tell_at(tmp_path / "commits")
    yield
    commits.tell_nowhere()


@pytest.fixture
def mailbox(engine: Engine) -> str:
    """A person against whom nothing stands."""
    address = seed_practitioner(engine).mailbox
    with engine.begin() as connection:
        issue(connection, address, 1)
    return address


@contextmanager
def still_open(engine: Engine, sql: str, **values: object) -> Iterator[Connection]:
    """A transaction in which this was written; the caller commits it or not."""
    with engine.connect() as connection:
        connection.begin()
        connection.execute(text(sql), values)
        yield connection


def standing(engine: Engine, memory: Memory, *addresses: str) -> list[tuple[str, ...]]:
    with transaction(engine, read_only=True) as connection:
        sides = present_sides(connection, addresses, datetime.now(UTC), memory=memory)
    return [sides[address].standing for address in addresses]


CLOSE = "UPDATE mailbox SET departed_at = now() WHERE address = :a"
OTHERS = "UPDATE practitioner SET title = CAST(:n AS text) WHERE national_id = :who"


@pytest.mark.parametrize("others", [0, 300])
def test_an_open_transaction_is_seen_in_the_first_question_after_its_commit(
    engine: Engine, mailbox: str, others: int
) -> None:
    memory = Memory()
    other = seed_practitioner(engine, 2)
    with still_open(engine, CLOSE, a=mailbox) as late:
        for n in range(others):
            run(engine, OTHERS, n=n, who=other.national_id)
            if n % 50 == 0:
                assert standing(engine, memory, mailbox) == [()]
        assert standing(engine, memory, mailbox) == [()]
        assert mailbox in memory._kept
        late.commit()
    assert standing(engine, memory, mailbox) == [("mailbox-closed",)]


def test_a_transaction_begun_and_committed_around_many_others_is_told(engine: Engine, mailbox: str) -> None:
    memory = Memory()
    other = seed_practitioner(engine, 2)
    assert standing(engine, memory, mailbox) == [()]
    with still_open(engine, CLOSE, a=mailbox) as late:
        run(engine, OTHERS, n=1, who=other.national_id)
        assert standing(engine, memory, mailbox, other.mailbox) == [(), ()]
        with still_open(engine, CLOSE, a=other.mailbox) as later:
            run(engine, OTHERS, n=2, who=rpps(9))
            assert standing(engine, memory, mailbox, other.mailbox) == [(), ()]
            late.commit()
            assert standing(engine, memory, mailbox, other.mailbox) == [("mailbox-closed",), ()]
            later.commit()
    assert standing(engine, memory, mailbox, other.mailbox) == [("mailbox-closed",), ("mailbox-closed",)]


def test_what_was_rolled_back_changes_nothing(engine: Engine, mailbox: str) -> None:
    memory = Memory()
    assert standing(engine, memory, mailbox) == [()]
    with still_open(engine, CLOSE, a=mailbox) as undone:
        assert standing(engine, memory, mailbox) == [()]
        undone.rollback()
    assert standing(engine, memory, mailbox) == [()]
    # Nobody was told of anything: what was read first is remembered still.
    assert mailbox in memory._kept


@pytest.mark.parametrize("others", [MOST_UNHEARD - 1, MOST_UNHEARD, 3 * MOST_UNHEARD])
def test_more_changes_than_a_memory_is_told_are_heard_all_the_same(
    engine: Engine, mailbox: str, others: int
) -> None:
    memory, other = Memory(), seed_practitioner(engine, 2).mailbox
    assert standing(engine, memory, mailbox, other) == [(), ()]
    with engine.begin() as connection:
        # The one that matters comes last: who is told of the first ones alone misses it.
        connection.execute(
            text(
                "INSERT INTO change (entity, key) SELECT 'mailbox', 'x' || n || '@y.example'"
                " FROM generate_series(1, :n) AS x (n)"
            ),
            {"n": others},
        )
        connection.execute(text(CLOSE), {"a": mailbox})
    assert standing(engine, memory, mailbox) == [("mailbox-closed",)]
    assert (other in memory._kept) == (others < MOST_UNHEARD)


def test_a_look_older_than_what_others_heard_is_not_remembered(engine: Engine, mailbox: str) -> None:
    memory, other = Memory(), seed_practitioner(engine, 2)
    with still_open(engine, CLOSE, a=mailbox) as late:
        # Whatever commits behind it makes its number one of the past.
        run(engine, OTHERS, n=1, who=other.national_id)
        with transaction(engine, read_only=True) as older:
            older.execute(text("SELECT"))
            late.commit()
            standing(engine, memory, other.mailbox)
            mark, others_mark = memory.begin(), memory.begin()
            # What others hear next tells of nothing, so that nothing is dropped for it.
            run(engine, "SELECT pg_current_xact_id()")
            with transaction(engine, read_only=True) as newer:
                memory.hear(others_mark, head_of(newer, seen=others_mark.seen, now=datetime.now(UTC)))
            head = head_of(older, seen=mark.seen, now=datetime.now(UTC))
            mark = memory.hear(mark, head)
            facts = look_in_parts(older, [mailbox], head)
            assert facts[mailbox].side.standing == ()
            memory.keep(facts.items(), mark)
    # Who is behind costs the others nothing that they remember.
    assert other.mailbox in memory._kept
    assert standing(engine, memory, mailbox) == [("mailbox-closed",)]


SWAP = (
    "UPDATE mailbox SET departed_at = CASE WHEN departed_at IS NULL THEN now() END"
    " WHERE address = ANY(CAST(:both AS text[]))"
)


def test_both_sides_of_a_question_are_of_one_instant(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = (seed_practitioner(engine, number).mailbox for number in (1, 2, 3))
    run(engine, CLOSE, a=second)
    memory, looks = Memory(), []
    standing(engine, memory, first, second, third)
    run(engine, CLOSE, a=third)

    def look(*given: Any, **named: Any) -> Any:
        if looks:
            run(engine, SWAP, both=[first, second])
        looks.append(given)
        return present.look(*given, **named)

    monkeypatch.setattr("api.process.gathering.look", look)
    quick = Quick(engine, memory)
    with asking(engine) as link:
        questions = [Question(both, "sceau_nobody", print) for both in ((first, second), (second, third))]
        told = quick.gathering._look(link, questions)
    of_both = [[bool(side.standing) for side in finding.sides] for finding in told if finding]
    assert of_both in (
        [[False, True], [True, True]],
        [[False, True], [False, True]],
        [[True, False], [False, True]],
    ), "the first is closed while the second is open, and the other way round"


def test_what_others_read_later_stands_beside_nothing_read_before(engine: Engine, mailbox: str) -> None:
    memory, other = Memory(), seed_practitioner(engine, 2).mailbox
    run(engine, CLOSE, a=other)
    standing(engine, memory, mailbox, other)
    with transaction(engine, read_only=True) as older:
        mark = memory.begin()
        head = head_of(older, seen=mark.seen, now=datetime.now(UTC))
        mark = memory.hear(mark, head)
        run(engine, SWAP, both=[mailbox, other])
        assert standing(engine, memory, other) == [()]
        assert memory.get(other, head.now, mark) is None


@pytest.mark.usefixtures("told")
def test_nothing_is_answered_at_once_after_a_commit_of_this_host(engine: Engine, mailbox: str) -> None:
    seed_token(engine, "first")
    quick = Quick(engine, Memory())
    quick.sides(mailbox)
    for _ in range(20):
        # The one before may have been a twentieth of a second ago, on a machine at work.
        quick.sides(mailbox)
        if quick.gathering.at_once((mailbox,), "sceau_first") is not None:
            break
    else:
        pytest.fail("no look vouched for anything")
    run(engine, "INSERT INTO beat (who, number, at) VALUES ('one', 1, now())")
    assert quick.gathering.at_once((mailbox,), "sceau_first") is None
    assert quick.gathering.at_once((mailbox,), "sceau_second") is None


@pytest.mark.usefixtures("told")
@pytest.mark.parametrize("clock_that_tells", ["slept", "wall"])
def test_a_machine_that_was_held_still_vouches_for_nothing(
    engine: Engine, mailbox: str, monkeypatch: pytest.MonkeyPatch, clock_that_tells: str
) -> None:
    seed_token(engine, "first")
    quick = Quick(engine, Memory())
    for _ in range(20):
        quick.sides(mailbox)
        if quick.gathering.at_once((mailbox,), "sceau_first") is not None:
            break
    else:
        pytest.fail("no look vouched for anything")
    if clock_that_tells == "slept":
        since_boot = time.clock_gettime(time.CLOCK_BOOTTIME) + 30
        monkeypatch.setattr("api.process.gathering._awake_or_not", lambda: since_boot)
    else:
        wall = datetime.now(UTC) + timedelta(seconds=30)
        monkeypatch.setattr(quick.gathering, "_clock", lambda: wall)
    assert quick.gathering.at_once((mailbox,), "sceau_first") is None


def test_a_process_that_hears_of_no_commits_answers_nothing_at_once(engine: Engine, mailbox: str) -> None:
    seed_token(engine, "first")
    commits.tell_nowhere()
    quick = Quick(engine, Memory())
    for _ in range(3):
        quick.sides(mailbox)
    assert quick.answered_at_once == 0


@pytest.mark.usefixtures("told")
def test_what_is_committed_during_a_look_takes_another(
    engine: Engine, mailbox: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed_token(engine, "first")
    quick = Quick(engine, Memory())
    quick.sides(mailbox)
    real = present.head_of

    def head_of_then_close(*given: Any, **named: Any) -> Any:
        head = real(*given, **named)
        run(engine, CLOSE, a=mailbox)
        return head

    monkeypatch.setattr("api.process.gathering.head_of", head_of_then_close)
    told: SimpleQueue[Finding | None] = SimpleQueue()
    quick.gathering.ask(Question((mailbox,), "sceau_first", told.put))
    # This look is of before it was closed, and says so to whoever asked before.
    finding = told.get(timeout=60)
    assert finding is not None
    assert finding.sides[0].standing == ()
    monkeypatch.undo()
    assert quick.sides(mailbox)[mailbox].standing == ("mailbox-closed",)


def test_another_server_or_a_record_put_back_is_asked_for_everything_again(
    engine: Engine, mailbox: str
) -> None:
    memory = Memory()
    assert standing(engine, memory, mailbox) == [()]
    remembered = len(memory)
    with transaction(engine) as connection:
        # As a restoration into the same server does: what it brings is in no feed.
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text(CLOSE), {"a": mailbox})
    assert standing(engine, memory, mailbox) == [()]
    assert len(memory) == remembered
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM FULL change"))
    assert standing(engine, memory, mailbox) == [("mailbox-closed",)]


def test_what_was_read_before_others_dropped_something_is_not_remembered(
    engine: Engine, mailbox: str
) -> None:
    memory = Memory()
    other = seed_practitioner(engine, 2).mailbox
    standing(engine, memory, other)
    with transaction(engine, read_only=True) as older:
        mark = memory.begin()
        head = head_of(older, seen=mark.seen, now=datetime.now(UTC))
        mark = memory.hear(mark, head)
        facts = look_in_parts(older, [mailbox], head)
        run(engine, CLOSE, a=mailbox)
        assert standing(engine, memory, other) == [()]
        memory.keep(facts.items(), mark)
    assert mailbox not in memory._kept
    assert standing(engine, memory, mailbox) == [("mailbox-closed",)]


@pytest.mark.parametrize("numbered", ["old", "new"])
def test_a_number_that_replaces_another_later_answers_for_its_mailboxes(
    engine: Engine, numbered: str
) -> None:
    world = World.made(engine, random.Random(1))
    run(engine, "UPDATE practitioner SET departed_at = now() WHERE national_id = :old", old=OLD[0])
    run(engine, "INSERT INTO succession (national_id, run_id, linked_at) SELECT :old, max(id), now() FROM"
        " register_run", old=OLD[0])  # fmt: skip
    world.enrol("entity@three.example", OLD[0])
    memory = Memory()
    assert standing(engine, memory, "entity@three.example") == [("no-answerable-professional",)]
    run(engine, "UPDATE succession SET successor = :new", new=rpps(4))
    assert standing(engine, memory, "entity@three.example") == [()]
    if numbered == "old":
        run(engine, "DELETE FROM succession")
    else:
        run(engine, "UPDATE practitioner SET departed_at = now() WHERE national_id = :new", new=rpps(4))
    assert standing(engine, memory, "entity@three.example") == [("no-answerable-professional",)]


# Time and room.


def _measure(engine: Engine, begins: timedelta, ends: timedelta | None) -> tuple[datetime, datetime | None]:
    now = clock(engine)
    starts_at, ends_at = now + begins, None if ends is None else now + ends
    run(
        engine,
        "INSERT INTO measure (national_id, kind, authority, reason, starts_at, ends_at, recorded_by,"
        " recorded_at) VALUES (:who, 'suspended', 'CNOM', 'r', :starts, :ends, 'x', :now)",
        who=rpps(1), starts=starts_at, ends=ends_at, now=now,
    )  # fmt: skip
    return starts_at, ends_at


def test_what_is_remembered_is_not_given_after_a_measure_begins_or_ends(engine: Engine, mailbox: str) -> None:
    memory = Memory()
    starts_at, ends_at = _measure(engine, timedelta(seconds=0.7), timedelta(seconds=1.2))
    assert standing(engine, memory, mailbox) == [()]
    instant = timedelta(microseconds=1)
    remembered = memory.get(mailbox, starts_at - instant, memory.begin())
    assert remembered is not None
    assert remembered.changes_at == starts_at
    assert memory.get(mailbox, starts_at, memory.begin()) is None
    seen = set()
    while (asked_at := clock(engine)) < ends_at + timedelta(seconds=0.2):
        (found,) = standing(engine, memory, mailbox)
        until = clock(engine)
        seen.add(found)
        if starts_at <= asked_at and until < ends_at:
            assert found == ("holder-suspended",)
        elif until < starts_at or ends_at <= asked_at:
            assert found == ()
    assert seen == {(), ("holder-suspended",)}


def test_an_establishment_that_closes_tomorrow_is_not_remembered_until_then(engine: Engine) -> None:
    world = World.made(engine, random.Random(1))
    sql = "UPDATE organisation SET closed_on = (now() AT TIME ZONE 'Europe/Paris')::date + 1"
    world.run(sql)
    memory = Memory()
    assert standing(engine, memory, "place@two.example") == [()]
    with engine.connect() as connection:
        midnight = connection.execute(
            text(
                "SELECT CAST((clock_timestamp() AT TIME ZONE 'Europe/Paris')::date + 1 AS timestamp)"
                " AT TIME ZONE 'Europe/Paris'"
            )
        ).scalar_one()
    just_before = midnight - timedelta(microseconds=1)
    assert memory.get("place@two.example", just_before, memory.begin()) is not None
    assert memory.get("place@two.example", midnight, memory.begin()) is None
    for other in PERSONAL:
        standing(engine, memory, other)
        assert memory.get(other, midnight, memory.begin()) is not None


def test_a_small_memory_forgets_the_first_and_answers_the_same(engine: Engine) -> None:
    world = World.made(engine, random.Random(2))
    memory = Memory(octets=1_800)
    for _ in range(30):
        world.act()
        world.certify(world.one((*PERSONAL, *SHARED)), PROFILES[0])
        now = clock(engine)
        address = world.one(ADDRESSES)
        # A measure may begin or end while it is asked.
        before = over_rows(engine, [address, *PERSONAL], now)
        small = asked(engine, [address, *PERSONAL], now=now, memory=memory)
        after = over_rows(engine, [address, *PERSONAL], clock(engine))
        for asked_for, side in small.sides.items():
            assert side.standing in {before[asked_for].standing, after[asked_for].standing}
        assert len(memory) <= 4
        assert memory._octets <= 1_800
        assert set().union(*memory._of_person.values(), set()) <= memory._kept.keys()
    for address in (*PERSONAL, *SHARED):
        memory._drop(address)
    assert (memory._octets, dict(memory._of_person)) == (0, {})


# Many at once.

_REPLACE = text(
    "INSERT INTO revocation (serial, authority_id, shard, action, reason, actor, revoked_at, not_after,"
    " entry) SELECT serial, authority_id, shard, 'revoke', 'superseded', 'test', clock_timestamp(),"
    " not_after, 'x' FROM certificate WHERE serial = :serial"
)


@dataclass
class Replaced:
    """Mailboxes whose only certificate is replaced again and again; each one's number never goes back."""

    engine: Engine
    mailboxes: list[str]
    numbers: Iterator[int] = field(default_factory=lambda: count(1_000))
    committed: dict[str, int] = field(default_factory=dict)
    over: threading.Event = field(default_factory=threading.Event)
    errors: list[BaseException] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)

    def replace(self, mailbox: str) -> None:
        number = next(self.numbers)
        with self.engine.begin() as connection:
            if mailbox in self.committed:
                connection.execute(_REPLACE, {"serial": f"{self.committed[mailbox]:040x}"})
            issue(connection, mailbox, number)
        self.committed[mailbox] = number

    def hold_to(self, name: str, ask: Callable[[Sequence[str]], Mapping[str, Side]]) -> None:
        chance = random.Random(name)
        while not self.over.is_set():
            both = chance.sample(self.mailboxes, 2)
            before = {mailbox: self.committed[mailbox] for mailbox in both}
            for mailbox, side in ask(both).items():
                good = [c for c in side.certificates if c.revoked_at is None]
                assert len(good) == 1, (name, mailbox, good)
                assert int(good[0].serial, 16) >= before[mailbox], (name, mailbox)
                # A sender's certificate is handed to nobody.
                whole = good[0].der == f"certificate {int(good[0].serial, 16)}".encode()
                assert whole or (mailbox == both[1] and not good[0].der)
            self.asked[name] += 1

    def thread(self, name: str, ask: Callable[[Sequence[str]], Mapping[str, Side]]) -> threading.Thread:
        def go() -> None:
            try:
                self.hold_to(name, ask)
            except BaseException as error:  # noqa: BLE001 - told by the test's own thread
                self.errors.append(error)
                self.over.set()

        return threading.Thread(target=go, name=name)


@pytest.mark.parametrize(
    "seconds",
    [
        pytest.param(10.0, id="short", marks=pytest.mark.waits),
        pytest.param(120.0, id="long", marks=pytest.mark.long),
    ],
)
def test_no_answer_is_older_than_the_commit_before_the_question(engine: Engine, seconds: float) -> None:
    mailboxes = [seed_practitioner(engine, number).mailbox for number in range(1, 31)]
    acts, memory = Replaced(engine, mailboxes), Memory()
    for mailbox in mailboxes:
        acts.replace(mailbox)
    quick = Quick(engine, memory)

    def ask(addresses: Sequence[str]) -> Mapping[str, Side]:
        return asked(engine, addresses, now=datetime.now(UTC), memory=memory).sides

    threads = [acts.thread(f"framework {n}", ask) for n in range(2)]
    threads += [acts.thread(f"quick {n}", lambda addresses: quick.sides(*addresses)) for n in range(2)]
    for thread in threads:
        thread.start()
    chance, begun, remembered = random.Random(SEED), monotonic(), 0
    while monotonic() - begun < seconds and not acts.over.is_set():
        # Some stay open while others commit behind them.
        with still_open(engine, CLOSE, a="nobody@one.example"):
            acts.replace(chance.choice(mailboxes))
        remembered = max(remembered, len(memory))
        acts.over.wait(chance.choice((0, 0, 0.02)))
    acts.over.set()
    for thread in threads:
        thread.join()
    if acts.errors:
        raise acts.errors[0]

    assert all(acts.asked[thread.name] > 10 for thread in threads)
    assert remembered > 5

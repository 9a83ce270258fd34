"""Nights over local corrections: the correction shows, the register is remembered, and neither is lost."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from directory.access import Role, Token
from directory.base import failpoints
from directory.base.audit import Actor
from directory.base.db import transaction
from directory.base.errors import Refusal
from directory.base.locks import lock_until_commit
from directory.corrections import Correction, correct, lock_of, withdraw_correction
from directory.feed.changes import Entity
from directory.sync.runs.run import RunReport, run_register
from pki.withdrawal.void_enrolments import void_of
from tests.conftest import NOON
from tests.directory.sync.files import FINESS, MAILBOXES, VECTORS, Rows, activity, header, someone, zipped
from tests.factories import rpps, seed_token

ALICE = "810099000019"
HOSPITAL = "250990033"
HERS_AT_WORK = "a.exemple@chi-fictif.mssante.invalid"
Night = Callable[..., RunReport]
Correct = Callable[..., Correction]


@pytest.fixture
def apply(engine: Engine, actor: Actor) -> Callable[[str, Path], RunReport]:
    def run(register: str, path: Path) -> RunReport:
        report = run_register(
            engine, register=register, path=path, now=NOON, actor=actor, apply=True, strict_rpps=False
        )
        assert report.state == "applied", report
        return report

    return run


@pytest.fixture
def night(tmp_path: Path, apply: Callable[[str, Path], RunReport]) -> Night:
    """Take in the RPPS of a day: Alice with these cells (`second`: a second name), and others who stay."""

    def take_in(day: int, *, present: bool = True, second: str = "", **cells: str) -> RunReport:
        stamp = f"202608{20 + day}0200"
        lines = [header(), *(someone(rpps(n)[1:]) for n in range(2, 20))]
        lines += [activity(**cells)] if present else []
        lines += [activity(**{"Nom d'exercice": second, "Code profession": "21"})] if second else []
        name = f"PS_LibreAcces_Personne_activite_{stamp}.txt"
        return apply("rpps", zipped(tmp_path / f"PS_LibreAcces_{stamp}.zip", {name: "".join(lines).encode()}))

    return take_in


@pytest.fixture
def admin(engine: Engine, now: datetime) -> Token:
    return Token(seed_token(engine, "admin", role="admin"), "admin", Role.ADMIN, "", now)


@pytest.fixture
def correction(engine: Engine, now: datetime, admin: Token) -> Correct:
    """Correct one field as an administrator."""

    def make(field: str, value: str, entity: Entity = Entity.PRACTITIONER, key: str = ALICE) -> Correction:
        with transaction(engine) as connection:
            return correct(
                connection, now=now, token=admin, entity=entity, key=key, field=field, value=value,
                reason="as on the diploma", void_of=void_of,
            )  # fmt: skip

    return make


@pytest.fixture
def shown(rows: Rows) -> Callable[[], tuple[object, ...]]:
    query = "SELECT family_name, given_name, search_name FROM practitioner WHERE national_id = '810099000019'"
    return lambda: rows(query)[0]


@pytest.fixture
def standing(rows: Rows) -> Callable[[], list[tuple[object, ...]]]:
    """Each correction as it stands: value, the register's, how it ended."""
    return lambda: rows("SELECT value, register_value, ending FROM correction ORDER BY id")


NAME = "Nom d'exercice"
GIVEN = "Prénom d'exercice"


def test_a_correction_shows_at_once_and_three_nights_later(
    night: Night, correction: Correct, shown: Callable[[], object], standing: Callable[[], object]
) -> None:
    night(1)
    correction("family_name", "Exémple-Martin")
    assert shown() == ("Exémple-Martin", "ALICE", "EXEMPLE MARTIN ALICE")
    for day in (2, 3, 4):
        night(day, **{GIVEN: f"ALICE {'I' * day}"})
        assert shown() == (
            "Exémple-Martin", f"ALICE {'I' * day}", f"EXEMPLE MARTIN ALICE {'I' * day}",
        )  # fmt: skip
    assert standing() == [("Exémple-Martin", "EXEMPLE", None)]


def test_at_no_instant_of_the_past_does_the_registers_value_show_through(
    night: Night, correction: Correct, rows: Rows
) -> None:
    night(1)
    correction("family_name", "MARTIN")
    night(2, **{NAME: "EXAMPLE", GIVEN: "ALICIA"})
    seen = rows(
        "SELECT family_name, given_name FROM practitioner_history WHERE national_id = '810099000019'"
        " ORDER BY sys_from"
    )
    assert seen == [("EXEMPLE", "ALICE"), ("MARTIN", "ALICE")]
    assert rows("SELECT family_name FROM practitioner_history WHERE family_name = 'EXAMPLE'") == []


def test_lifted_it_gives_back_what_the_register_said_last(
    engine: Engine, night: Night, correction: Correct, *, admin: Token, now: datetime,
    shown: Callable[[], object], standing: Callable[[], object],
) -> None:  # fmt: skip
    night(1)
    made = correction("family_name", "MARTIN")
    night(2, **{NAME: "EXAMPLE"})
    assert standing() == [("MARTIN", "EXAMPLE", None)]
    with transaction(engine) as connection:
        withdraw_correction(connection, now=now, token=admin, correction_id=made.id, void_of=void_of)
    assert shown() == ("EXAMPLE", "ALICE", "EXAMPLE ALICE")
    night(3, **{NAME: "EXAMPLES"})
    assert shown() == ("EXAMPLES", "ALICE", "EXAMPLES ALICE")
    assert standing() == [("MARTIN", "EXAMPLE", "withdrawn")]


def test_a_register_that_comes_to_agree_ends_it_with_a_line_in_the_log(
    night: Night, correction: Correct, standing: Callable[[], object], *, shown: Callable[[], object],
    rows: Rows,
) -> None:  # fmt: skip
    night(1)
    made = correction("family_name", "MARTIN")
    night(2, **{NAME: "MARTIN"})
    assert standing() == [("MARTIN", "MARTIN", "agreed")]
    told = rows("SELECT subject, detail FROM audit_pending WHERE event = 'correction.ended'")
    assert told == [
        (ALICE, {"correction": made.id, "entity": "practitioner", "field": "family_name", "ending": "agreed"})
    ]
    night(3, **{NAME: "DURAND"})
    assert shown() == ("DURAND", "ALICE", "DURAND ALICE")


def test_a_correction_neither_keeps_who_leaves_nor_is_lost_by_leaving(
    night: Night, correction: Correct, shown: Callable[[], object], rows: Rows
) -> None:
    night(1)
    correction("family_name", "MARTIN")
    night(2, present=False)
    gone = "SELECT departed_at IS NOT NULL FROM practitioner WHERE national_id = '810099000019'"
    assert rows(gone) == [(True,)]
    night(3, **{GIVEN: "ALICIA"})
    assert rows(gone) == [(False,)]
    assert shown() == ("MARTIN", "ALICIA", "MARTIN ALICIA")


def test_a_night_that_knows_nothing_any_more_and_reads_every_row_keeps_it(
    engine: Engine, night: Night, correction: Correct, *, shown: Callable[[], object],
    standing: Callable[[], object],
) -> None:  # fmt: skip
    night(1)
    correction("given_name", "")
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM register_known"))
        connection.execute(text("UPDATE practitioner SET row_hash = ''"))
    assert night(2).counts["changed"] == 19
    assert shown() == ("EXEMPLE", "", "EXEMPLE")
    assert standing() == [("", "ALICE", None)]


def test_of_two_names_the_one_chosen_is_the_registers_whatever_is_corrected(
    night: Night, correction: Correct, shown: Callable[[], object], standing: Callable[[], object]
) -> None:
    night(1, second="ABADIE")
    assert shown() == ("ABADIE", "ALICE", "ABADIE ALICE")
    correction("family_name", "ZOLA")
    night(2, second="ABADIE", **{GIVEN: "ALICIA"})
    assert shown() == ("ZOLA", "ALICE", "ZOLA ALICE")
    assert standing() == [("ZOLA", "ABADIE", None)]


def test_nobody_corrects_rows_that_a_register_is_being_applied_to(
    engine: Engine, night: Night, correction: Correct
) -> None:
    night(1)
    with transaction(engine) as applying:
        lock_until_commit(applying, lock_of(Entity.PRACTITIONER))
        with pytest.raises(Refusal) as refused:
            correction("family_name", "MARTIN")
    assert refused.value.code == "register-being-applied"
    correction("family_name", "MARTIN")


def test_a_correction_made_just_before_the_commit_of_a_night_is_in_it(
    night: Night, correction: Correct, shown: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    night(1)
    entering = failpoints.passing

    def passing(name: str) -> None:
        # Planned already, not yet applied: the plan knows of no correction.
        if name == "sync.apply":
            correction("family_name", "MARTIN")
        entering(name)

    monkeypatch.setattr(failpoints, "passing", passing)
    night(2, **{NAME: "EXAMPLE"})
    assert shown() == ("MARTIN", "ALICE", "MARTIN ALICE")


@pytest.fixture
def place(tmp_path: Path, apply: Callable[[str, Path], RunReport]) -> Callable[..., RunReport]:
    """Take in FINESS of a day: the sample, with words of it replaced."""

    def take_in(day: int, **words: str) -> RunReport:
        whole = (VECTORS / FINESS).read_text().replace("2026-05-12", f"2026-06-{day:02}")
        for old, new in words.items():
            whole = whole.replace(old.replace("_", " "), new)
        path = tmp_path / f"etalab-cs1100502-stock-202606{day:02}-0338.csv"
        path.write_text(whole)
        return apply("finess", path)

    return take_in


def test_an_establishment_keeps_its_corrections_and_a_closing_day_until_finess_closes_it(
    place: Callable[..., RunReport], correction: Correct, rows: Rows, standing: Callable[[], object]
) -> None:
    place(1)
    query = f"SELECT name, street, closed_on::text FROM organisation WHERE finess = '{HOSPITAL}'"
    correction("name", "CHI DE L'ESSAI", Entity.ORGANISATION, HOSPITAL)
    correction("closed_on", "2026-05-31", Entity.ORGANISATION, HOSPITAL)
    assert rows(query) == [("CHI DE L'ESSAI", "2 FG SAINT ETIENNE", "2026-05-31")]
    place(2, SAINT_ETIENNE="SAINT PIERRE")
    assert rows(query) == [("CHI DE L'ESSAI", "2 FG SAINT PIERRE", "2026-05-31")]
    assert standing() == [("CHI DE L'ESSAI", "CHI FICTIF", None), ("2026-05-31", "", None)]


@pytest.fixture
def list_of(tmp_path: Path, apply: Callable[[str, Path], RunReport]) -> Callable[..., RunReport]:
    """Take in the mailboxes of a day: the sample, with words replaced and lines added."""

    def take_in(day: int, *more: str, **words: str) -> RunReport:
        whole = (VECTORS / MAILBOXES).read_text()
        for old, new in words.items():
            whole = whole.replace(old, new)
        path = tmp_path / f"Extraction_Correspondance_MSSante_202608{20 + day}0213.txt"
        path.write_text(whole + "".join(more))
        return apply("mailboxes", path)

    return take_in


def second_place(service: str) -> str:
    """Alice's address at work once more, for another establishment."""
    lines = (VECTORS / MAILBOXES).read_text().splitlines(keepends=True)
    (line,) = (line for line in lines if HERS_AT_WORK in line)
    return line.replace(HOSPITAL, "750990012").replace("URGENCES", service)


def test_a_mailbox_stays_unlisted_and_keeps_its_service_and_its_attachments(
    list_of: Callable[..., RunReport], correction: Correct, rows: Rows
) -> None:
    list_of(1, second_place("CARDIOLOGIE"))
    correction("service", "URGENCES ADULTES", Entity.MAILBOX, HERS_AT_WORK)
    correction("listed", "false", Entity.MAILBOX, HERS_AT_WORK)
    query = (
        f"SELECT structure_id, service, structure_name, listed FROM mailbox WHERE address = '{HERS_AT_WORK}'"
    )
    attached = "SELECT structure_id, service FROM mailbox_attachment"
    assert rows(query) == [(HOSPITAL, "URGENCES ADULTES", "CHI FICTIF", False)]
    assert rows(attached) == [("750990012", "CARDIOLOGIE")]
    # The first structure in order is 250990033: what it says changes, and another is attached.
    list_of(2, second_place("CARDIOLOGIE"), second_place("PNEUMOLOGIE"), **{"CHI FICTIF": "CHI D'ESSAI"})
    assert rows(query) == [(HOSPITAL, "URGENCES ADULTES", "CHI D'ESSAI", False)]
    assert sorted(rows(attached)) == [("750990012", "CARDIOLOGIE"), ("750990012", "PNEUMOLOGIE")]
    list_of(3, second_place("PNEUMOLOGIE"))
    assert rows(attached) == [("750990012", "PNEUMOLOGIE")]
    assert rows(query) == [(HOSPITAL, "URGENCES ADULTES", "CHI FICTIF", False)]

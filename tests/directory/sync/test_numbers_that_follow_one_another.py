"""Numbers of ADELI vanish: each is linked to the one person it can only be, or retired; nothing is lost."""

import zipfile
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from types import ModuleType

import pytest
from sqlalchemy import Connection, Engine, text

from directory.sync.runs.succession import succeed, succeed_by_mailbox, unambiguous
from tests.directory.sync.files import Rows, Run, zipped
from tests.factories import rpps

ADELI, RPPS = "0750000011", "810099000019"
Night = Callable[..., dict[str, int]]


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    with engine.connect() as connection:
        yield connection


@pytest.fixture
def night(connection: Connection, now: datetime) -> Night:
    """The end of a run that planned these acts, as `run.py` leaves it to the succession."""

    def go(*acts: tuple[str, str], register: str = "rpps", after: str = "") -> dict[str, int]:
        with connection.begin():
            run_id: int = connection.execute(
                text(
                    "INSERT INTO register_run (register, file_name, file_sha256, generated_at, started_at,"
                    " state) VALUES (:register, 'x', sha256('x'), :now, :now, 'applied') RETURNING id"
                ),
                {"register": register, "now": now},
            ).scalar_one()
            connection.execute(text("CREATE TEMP TABLE planned (key text, act text) ON COMMIT DROP"))
            for key, act in acts:
                connection.execute(text("INSERT INTO planned VALUES (:key, :act)"), {"key": key, "act": act})
                if act == "remove":
                    leave(connection, key, now)
            if after:
                connection.execute(text(after))
            take = succeed if register == "rpps" else succeed_by_mailbox
            return take(connection, run_id=run_id, now=now)

    return go


def leave(connection: Connection, national_id: str, now: datetime) -> None:
    """What the run's own acts do to somebody who left."""
    gone = {"id": national_id, "now": now}
    connection.execute(text("UPDATE practitioner SET departed_at = :now WHERE national_id = :id"), gone)
    connection.execute(text("DELETE FROM practice WHERE national_id = :id"), gone)
    connection.execute(text("DELETE FROM profession WHERE national_id = :id"), gone)


PERSON = (
    "INSERT INTO practitioner (national_id, id_type, id_number, family_name, given_name, search_name,"
    " row_hash) VALUES (:id, :type, :number, :family, :given, :search, '')"
)
PROFESSION = "INSERT INTO profession (national_id, code, category) VALUES (:id, :profession, 'C')"
PRACTICE = (
    "INSERT INTO practice (national_id, digest, profession_code, category, finess, department)"
    " SELECT :id, decode(md5(:id), 'hex'), :profession, 'C', :finess, :department WHERE :practices"
)


def person(
    connection: Connection,
    national_id: str,
    family: str = "LE GALL",
    given: str = "ANNE",
    *,
    profession: str = "91",
    finess: str = "",
    department: str = "29",
    practices: bool = True,
) -> None:
    with connection.begin():
        values = {
            "id": national_id, "type": national_id[0], "number": national_id[1:], "family": family,
            "given": given, "search": f"{family} {given}", "profession": profession, "finess": finess,
            "department": department,
        }  # fmt: skip
        for statement in (PERSON, PROFESSION, PRACTICE):
            connection.execute(text(statement), values | {"practices": practices})


def mailbox(connection: Connection, address: str, holder: str) -> None:
    with connection.begin():
        connection.execute(
            text(
                "INSERT INTO mailbox (address, kind, holder, row_hash) VALUES (:address, 'PER', :holder, '')"
            ),
            {"address": address, "holder": holder},
        )


def seen(connection: Connection, sql: str) -> list[tuple[object, ...]]:
    with connection.begin():
        return [tuple(row) for row in connection.execute(text(sql))]


LINKS = "SELECT national_id, successor FROM succession ORDER BY 1"


def test_a_number_is_linked_to_the_newcomer_of_the_same_name_profession_and_place(
    connection: Connection, night: Night, now: datetime
) -> None:
    person(connection, ADELI)
    mailbox(connection, "anne@a.invalid", ADELI)
    person(connection, RPPS)
    assert night((ADELI, "remove"), (RPPS, "create")) == {"linked": 1, "retired": 0}
    assert seen(connection, LINKS) == [(ADELI, RPPS)]
    assert seen(connection, "SELECT holder FROM mailbox") == [(RPPS,)]
    assert seen(connection, f"SELECT departed_at FROM practitioner WHERE national_id = '{ADELI}'") == [(now,)]
    told = "SELECT count(DISTINCT xid) FROM change WHERE entity = 'mailbox' AND key = 'anne@a.invalid'"
    assert seen(connection, told) == [(2,)]


def test_somebody_who_was_in_the_rpps_before_is_found_too(connection: Connection, night: Night) -> None:
    person(connection, ADELI)
    person(connection, RPPS)
    assert night((ADELI, "remove")) == {"linked": 1, "retired": 0}


def test_all_is_decided_in_the_same_transaction_as_the_departure(
    connection: Connection, night: Night
) -> None:
    person(connection, ADELI)
    mailbox(connection, "anne@a.invalid", ADELI)
    person(connection, RPPS)
    night((ADELI, "remove"), (RPPS, "create"))
    at_once = (
        "SELECT count(DISTINCT sys_from) FROM (SELECT sys_from FROM succession UNION ALL"
        " SELECT sys_from FROM mailbox UNION ALL SELECT sys_from FROM practitioner"
        f" WHERE national_id = '{ADELI}') AS x"
    )
    assert seen(connection, at_once) == [(1,)]


DIFFERENT = {
    "family name": {"family": "LE GOFF"},
    "given name": {"given": "ANNIE"},
    "names that only read alike together": {"family": "LE", "given": "GALL ANNE"},
    "profession": {"profession": "94"},
    "department": {"department": "35"},
    "no place at all": {"practices": False},
}


@pytest.mark.parametrize("different", DIFFERENT.values(), ids=DIFFERENT)
def test_who_differs_in_one_thing_is_somebody_else(
    different: dict[str, str], connection: Connection, night: Night
) -> None:
    person(connection, ADELI)
    mailbox(connection, "anne@a.invalid", ADELI)
    person(connection, RPPS, **different)
    assert night((ADELI, "remove"), (RPPS, "create")) == {"linked": 0, "retired": 1}
    assert seen(connection, LINKS) == [(ADELI, None)]
    assert seen(connection, "SELECT holder FROM mailbox") == [(ADELI,)]
    assert seen(connection, "SELECT count(*) FROM practitioner") == [(2,)]


def test_the_same_establishment_is_a_place_though_its_department_is_written_otherwise(
    connection: Connection, night: Night
) -> None:
    person(connection, ADELI, finess="290000017", department="29")
    person(connection, RPPS, finess="290000017", department="")
    assert night((ADELI, "remove"))["linked"] == 1


SECOND_RPPS, SECOND_ADELI = "810099000027", "0750000029"


def test_two_who_could_be_meant_are_neither(connection: Connection, night: Night) -> None:
    person(connection, ADELI)
    person(connection, RPPS)
    person(connection, SECOND_RPPS)
    assert night((ADELI, "remove"), (RPPS, "create"), (SECOND_RPPS, "create")) == {"linked": 0, "retired": 1}


def test_one_newcomer_does_not_succeed_two(connection: Connection, night: Night) -> None:
    person(connection, ADELI)
    person(connection, SECOND_ADELI)
    person(connection, RPPS)
    assert night((ADELI, "remove"), (SECOND_ADELI, "remove")) == {"linked": 0, "retired": 2}


def test_a_namesake_who_stays_in_adeli_may_be_the_one_meant(connection: Connection, night: Night) -> None:
    person(connection, ADELI)
    person(connection, SECOND_ADELI)
    person(connection, RPPS)
    assert night((ADELI, "remove")) == {"linked": 0, "retired": 1}


def test_whoever_succeeded_one_number_succeeds_no_other(connection: Connection, night: Night) -> None:
    person(connection, ADELI)
    person(connection, RPPS)
    assert night((ADELI, "remove"))["linked"] == 1
    person(connection, SECOND_ADELI)
    assert night((SECOND_ADELI, "remove")) == {"linked": 0, "retired": 1}


def test_an_address_that_has_passed_from_one_number_to_the_other_is_evidence(
    connection: Connection, night: Night
) -> None:
    person(connection, ADELI, practices=False)
    person(connection, RPPS, practices=False)
    mailbox(connection, "anne@a.invalid", ADELI)
    with connection.begin():
        connection.execute(text("UPDATE mailbox SET holder = :new"), {"new": RPPS})
    assert night((ADELI, "remove")) == {"linked": 1, "retired": 0}


def test_a_retired_number_is_linked_when_its_person_arrives_later(
    connection: Connection, night: Night
) -> None:
    person(connection, ADELI)
    mailbox(connection, "anne@a.invalid", ADELI)
    assert night((ADELI, "remove")) == {"linked": 0, "retired": 1}
    person(connection, RPPS)
    assert night((RPPS, "create")) == {"linked": 1, "retired": 0}
    assert seen(connection, LINKS) == [(ADELI, RPPS)]
    assert seen(connection, "SELECT holder FROM mailbox") == [(RPPS,)]
    assert seen(connection, "SELECT national_id, successor FROM succession_history") == [(ADELI, None)]


def test_the_mailbox_list_links_a_retired_number_by_naming_the_new_one(
    connection: Connection, night: Night
) -> None:
    person(connection, ADELI)
    for address in ("anne@a.invalid", "anne@b.invalid"):
        mailbox(connection, address, ADELI)
    person(connection, RPPS, department="35")
    assert night((ADELI, "remove")) == {"linked": 0, "retired": 1}
    passes = f"UPDATE mailbox SET holder = '{RPPS}' WHERE address = 'anne@a.invalid'"
    assert night(("anne@a.invalid", "change"), register="mailboxes", after=passes) == {"linked": 1}
    assert seen(connection, LINKS) == [(ADELI, RPPS)]
    assert seen(connection, "SELECT DISTINCT holder FROM mailbox") == [(RPPS,)]


@pytest.mark.parametrize("other", [{"given": "ANNIE"}, {"profession": "94"}], ids=["name", "profession"])
def test_an_address_given_to_somebody_else_links_nothing(
    other: dict[str, str], connection: Connection, night: Night
) -> None:
    person(connection, ADELI)
    mailbox(connection, "anne@a.invalid", ADELI)
    person(connection, RPPS, **other)
    night((ADELI, "remove"))
    passes = f"UPDATE mailbox SET holder = '{RPPS}'"
    assert night(("anne@a.invalid", "change"), register="mailboxes", after=passes) == {"linked": 0}


def test_a_number_that_comes_back_has_no_successor_and_its_mailboxes_return(
    connection: Connection, night: Night
) -> None:
    person(connection, ADELI)
    mailbox(connection, "anne@a.invalid", ADELI)
    mailbox(connection, "new@a.invalid", RPPS)
    person(connection, RPPS)
    night((ADELI, "remove"))
    back = f"UPDATE practitioner SET departed_at = NULL WHERE national_id = '{ADELI}'"
    night((ADELI, "change"), after=back)
    assert seen(connection, LINKS) == []
    assert seen(connection, "SELECT address, holder FROM mailbox ORDER BY 1") == [
        ("anne@a.invalid", ADELI),
        ("new@a.invalid", RPPS),
    ]


def test_a_departure_from_the_rpps_is_no_succession(connection: Connection, night: Night) -> None:
    person(connection, RPPS)
    person(connection, SECOND_RPPS)
    assert night((RPPS, "remove")) == {"linked": 0, "retired": 0}
    assert seen(connection, LINKS) == []


def test_names_are_compared_as_people_write_them() -> None:
    pairs = [("01", "81", "Le Gall", "Anne-Élise", "LE GALL", "ANNE ELISE"), ("02", "82", "A", "B", "A", "C")]
    assert unambiguous(pairs) == {"01": "81"}


def rewritten(source: Path, folder: Path, *changes: tuple[str, str]) -> Path:
    """The same archive with these texts changed in every member."""
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(source) as old:
        members = {name: old.read(name).decode() for name in old.namelist()}
    for before, after in changes:
        members = {name: text_of.replace(before, after) for name, text_of in members.items()}
    return zipped(folder / source.name, {name: text_of.encode() for name, text_of in members.items()})


def test_a_person_goes_from_adeli_to_rpps_over_three_nights_and_keeps_the_mailbox(
    maker: ModuleType, tmp_path: Path, run: Run, rows: Rows
) -> None:
    sizes = {"practitioners": 300, "organisations": 20, "mailboxes": 200, "seed": 7}
    first = maker.make(tmp_path / "1", maker.Plan(**sizes))
    for register in ("rpps", "mailboxes"):
        assert run(register, first[register]).state == "applied"
    address, old = rows(
        "SELECT min(address), holder FROM mailbox WHERE holder LIKE '0%' GROUP BY holder"
        " HAVING count(*) = 1 ORDER BY holder LIMIT 1"
    )[0]
    holder = f"SELECT holder, departed_at FROM mailbox WHERE address = '{address}'"
    number, new = str(old)[1:], rpps(99_000)
    renumbered = (f"0|{number}|0{number}|", f"8|{new[1:]}|{new}|")
    still = maker.make(tmp_path / "2", maker.Plan(**sizes, next_day=True, arrivals=0, moves=0, departures=0))
    # The RPPS has the new number; the mailbox list, another service, and still the old number.
    night = run("rpps", rewritten(still["rpps"], tmp_path / "3", renumbered))
    assert (night.state, night.counts["created"], night.counts["removed"]) == ("applied", 1, 1)
    assert rows(LINKS) == [(old, new)]
    assert rows(holder) == [(new, None)]
    line = (f"{address}|0|{number}|0{number}|", f"{address}|8|{new[1:]}|{new}|")
    with zipfile.ZipFile(still["mailboxes"]) as archive:
        (told,) = (x for x in archive.read(archive.namelist()[0]).decode().split("\n") if f"|{address}|" in x)
    cells = told.split("|")
    moved = "|".join([*cells[:7], "AUDIOLOGIE", *cells[8:]])
    report = run("mailboxes", rewritten(still["mailboxes"], tmp_path / "4", (told, moved)))
    assert (report.state, report.counts["changed"], report.measures["moved"]) == ("applied", 1, 0)
    assert rows(holder) == [(new, None)]
    assert rows(f"SELECT service FROM mailbox WHERE address = '{address}'") == [("AUDIOLOGIE",)]
    # Then the list follows: nothing is left to do.
    report = run("mailboxes", rewritten(still["mailboxes"], tmp_path / "5", (told, moved), line))
    assert (report.state, report.measures["moved"]) == ("applied", 0)
    assert rows(holder) == [(new, None)]

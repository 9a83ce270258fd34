"""A number that was replaced: its certificate serves the successor, then and now, and nobody else."""

from datetime import datetime

import pytest
from sqlalchemy import Engine, text

from directory.base.db import transaction
from pki.publication.store import live_certificates
from pki.verdict.model import Answer
from tests.factories import rpps, seed_practitioner
from tests.pki.verdict.test_exchange import ask, certify, clock, organisation, run

OLD, NEW, ELSE = rpps(2), rpps(1), rpps(3)
LINK = (
    "WITH made AS (INSERT INTO register_run (register, file_name, file_sha256, generated_at, started_at,"
    " state) VALUES ('rpps', 'x', sha256('x'), now(), now(), 'applied') RETURNING id)"
    " INSERT INTO succession (national_id, successor, run_id, linked_at)"
    " SELECT :old, :new, id, now() FROM made"
)


def replace(engine: Engine, mailbox: str, *, linked_to: str | None, held_by: str) -> None:
    """What the night does to a number that goes: all in one transaction."""
    with engine.begin() as connection:
        for sql in (
            "UPDATE practitioner SET departed_at = now() WHERE national_id = :old",
            "DELETE FROM practice WHERE national_id = :old",
            "UPDATE mailbox SET holder = :held_by WHERE address = :mailbox AND holder IS NOT NULL",
            LINK,
        ):
            values = {"old": OLD, "new": linked_to, "held_by": held_by, "mailbox": mailbox}
            connection.execute(text(sql), {k: v for k, v in values.items() if f":{k}" in sql})


@pytest.fixture
def mailbox(engine: Engine, now: datetime) -> str:
    """Of somebody with a certificate under a number that will go; his other number is known already."""
    seed_practitioner(engine, 1)
    seed_practitioner(engine, 3)
    address = seed_practitioner(engine, 2).mailbox
    certify(engine, address, 2, issued=now)
    return address


def shown(engine: Engine, address: str, now: datetime) -> bool:
    with transaction(engine, read_only=True) as connection:
        return address in live_certificates(connection, [address], now)


def test_the_certificate_of_a_replaced_number_serves_its_successor(
    engine: Engine, now: datetime, mailbox: str
) -> None:
    replace(engine, mailbox, linked_to=NEW, held_by=NEW)
    (found,) = ask(engine, mailbox, now=now)
    assert (found.answer, [c.der for c in found.certificates]) == (Answer.ALLOWED, [b"certificate 2"])
    assert shown(engine, mailbox, now)


@pytest.mark.parametrize(("linked_to", "held_by"), [(None, NEW), (ELSE, NEW), (NEW, ELSE)])
def test_it_serves_nobody_whom_the_number_is_not_linked_to(
    linked_to: str | None, held_by: str, engine: Engine, now: datetime, mailbox: str
) -> None:
    replace(engine, mailbox, linked_to=linked_to, held_by=held_by)
    (found,) = ask(engine, mailbox, now=now)
    assert (found.answer, found.reasons) == (Answer.REFUSED, ("no-certificate",))
    assert not shown(engine, mailbox, now)


def test_the_mailbox_of_a_retired_number_is_refused(engine: Engine, now: datetime, mailbox: str) -> None:
    replace(engine, mailbox, linked_to=None, held_by=OLD)
    assert "holder-not-in-registry" in ask(engine, mailbox, now=now)[0].reasons


def test_the_past_is_as_it_was_before_and_after_the_link(engine: Engine, mailbox: str) -> None:
    before = clock(engine)
    replace(engine, mailbox, linked_to=NEW, held_by=NEW)
    linked = clock(engine)
    run(engine, "DELETE FROM succession")
    after = clock(engine)
    answers = [ask(engine, mailbox, at=at)[0].answer for at in (before, linked, after)]
    assert answers == [Answer.ALLOWED, Answer.ALLOWED, Answer.REFUSED]


def test_who_answers_for_an_establishment_goes_on_doing_so_under_the_new_number(
    engine: Engine, now: datetime
) -> None:
    address = organisation(engine, now=now)
    seed_practitioner(engine, 1)
    run(engine, LINK, old=rpps(7), new=NEW)
    run(engine, "UPDATE practitioner SET departed_at = now() WHERE national_id = :old", old=rpps(7))
    assert ask(engine, address, now=now)[0].answer is Answer.ALLOWED
    run(engine, "DELETE FROM succession")
    assert ask(engine, address, now=now)[0].reasons == ("no-answerable-professional",)

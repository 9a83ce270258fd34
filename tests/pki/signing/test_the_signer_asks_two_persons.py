"""The signer goes by what two persons signed, read by itself: who writes the record gets no certificate."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from directory.base.audit import Actor
from directory.base.db import transaction
from directory.base.errors import Refusal
from pki.acts.act import ActKind
from pki.certificates.profiles import OCSP_SIGNER, ResponderNames
from pki.issuance import pipeline
from pki.model import EnrolmentAct
from pki.powers.state import Powers
from pki.record import enrolment_acts
from pki.revocation import blocked_keys
from pki.signing.inprocess import InProcessSigner
from pki.signing.journal import Journal
from tests.persons import (
    ANCHORS,
    ANNE,
    CHLOE,
    DAVID,
    Person,
    freeze,
    registrars,
    revoke,
    sign_enrolment,
)
from tests.pki.conftest import BASE_URL, Enrolled, Established, Issue, new_key

REQUEST, APPROVE = ActKind.ENROLMENT_REQUEST, ActKind.ENROLMENT_APPROVE


@dataclass(frozen=True)
class Asking:
    """A signer that asks for two persons, and the powers it goes by."""

    signer: InProcessSigner
    powers: Powers


@pytest.fixture
def asking(engine: Engine, authority: Established, tmp_path: Path, now: datetime) -> Iterator[Asking]:
    powers = Powers(ANCHORS)
    for _, line in registrars(CHLOE, DAVID):
        powers.follow(line)
    journal = Journal(tmp_path / "own" / "journal.jsonl")
    yield Asking(
        InProcessSigner(engine, authority.keys, journal, clock=lambda: now, powers=lambda: powers), powers
    )
    journal.close()


Sign = Callable[..., EnrolmentAct]


@pytest.fixture
def sign(engine: Engine, enrolled: Enrolled) -> Sign:
    """Let a person sign for the enrolment as the record has it, and keep it there."""

    def act(person: Person, kind: ActKind, of: UUID = enrolled.id) -> EnrolmentAct:
        with transaction(engine) as connection:
            return sign_enrolment(connection, kind, of, person)

    return act


def code_of(issue: Issue, asking: Asking) -> str:
    with pytest.raises(Refusal) as refusal:
        issue(signer=asking.signer)
    return refusal.value.code


def test_an_enrolment_is_signed_for_once_two_persons_signed_for_it(
    asking: Asking, issue: Issue, sign: Sign, enrolled: Enrolled, engine: Engine
) -> None:
    assert code_of(issue, asking) == "evidence-missing"
    first = sign(CHLOE, REQUEST)
    assert code_of(issue, asking) == "evidence-missing"
    second = sign(DAVID, APPROVE)
    issued = issue(signer=asking.signer)
    assert asking.signer.journal(issued.serial) == issued.der
    with transaction(engine) as connection:
        assert enrolment_acts.acts_of(connection, enrolled.id) == {
            REQUEST.value: first, APPROVE.value: second,
        }  # fmt: skip
        assert not enrolment_acts.add(connection, first), "what was signed first stays"


def test_a_credential_revoked_between_approval_and_issue_signs_nothing(
    asking: Asking, issue: Issue, sign: Sign
) -> None:
    sign(CHLOE, REQUEST)
    sign(DAVID, APPROVE)
    asking.powers.follow(revoke(DAVID, ANNE))
    assert code_of(issue, asking) == "evidence-unfit"


def test_names_changed_in_every_row_are_not_those_that_were_signed(
    asking: Asking, issue: Issue, sign: Sign, engine: Engine
) -> None:
    """The owner of the database: what the web compares says the same everywhere."""
    sign(CHLOE, REQUEST)
    sign(DAVID, APPROVE)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE enrolment_names DISABLE TRIGGER append_only"))
        connection.execute(text("UPDATE practitioner SET family_name = 'THIEF'"))
        connection.execute(
            text("UPDATE enrolment_names SET names = names || jsonb_build_object('family_name', 'THIEF')")
        )
        connection.execute(text("ALTER TABLE enrolment_names ENABLE TRIGGER append_only"))
    assert code_of(issue, asking) == "evidence-unfit"


def test_what_was_signed_for_one_is_nothing_for_another(
    asking: Asking, issue: Issue, sign: Sign, engine: Engine, enrolled: Enrolled
) -> None:
    """A row with the texts of another enrolment, and a reservation that names another one."""
    other = UUID(int=7)
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO enrolment (id, practitioner, mailbox, authority, identity_check, state,"
                " requested_by, requested_at) SELECT :other, practitioner, mailbox, authority,"
                " identity_check, 'requested', requested_by, requested_at FROM enrolment"
            ),
            {"other": other},
        )
    for person, kind in ((CHLOE, REQUEST), (DAVID, APPROVE)):
        act = sign(person, kind, other)
        with transaction(engine) as connection:
            enrolment_acts.add(
                connection,
                EnrolmentAct(enrolled.id, act.kind, act.person, act.credential, act.signed, act.at),
            )
    assert code_of(issue, asking) == "evidence-unfit"


def test_the_services_own_certificates_rest_on_no_enrolment(
    asking: Asking, engine: Engine, now: datetime
) -> None:
    with transaction(engine) as connection:
        prepared = pipeline.prepare(
            connection, now=now, actor=Actor("test"), authority="persons-1", profile=OCSP_SIGNER,
            key=blocked_keys.check(connection, new_key().public_key()), names=ResponderNames("OCSP"),
            base_url=BASE_URL, thorough=False,
        )  # fmt: skip
    asking.signer.sign_certificate(prepared.reservation.serial)


def test_a_freeze_refuses_every_certificate(asking: Asking, issue: Issue, sign: Sign) -> None:
    sign(CHLOE, REQUEST)
    sign(DAVID, APPROVE)
    asking.powers.follow(freeze(ANNE))
    assert code_of(issue, asking) == "frozen"


@pytest.mark.parametrize(
    "change",
    ["UPDATE enrolment_act SET person = 'x'", "DELETE FROM enrolment_act", "TRUNCATE enrolment_act"],
)
def test_what_was_signed_is_never_changed(engine: Engine, sign: Sign, change: str) -> None:
    sign(CHLOE, REQUEST)
    with pytest.raises(DBAPIError), engine.begin() as connection:
        connection.execute(text(change))

"""Suspending, striking off and lifting over REST: one takes, two give back, nights change nothing."""

from collections.abc import Callable
from datetime import datetime, time, timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import Engine, text

from api.wiring import Container
from directory.base.audit import Actor
from directory.rules import FRANCE
from directory.sync.runs.run import run_register
from pki.impediments.causes import GRACES
from pki.withdrawal.reconcile import Follower
from tests.api.conftest import Caller
from tests.api.signing import request_for
from tests.directory.sync.files import activity, header, zipped
from tests.factories import Seeded, seed_organisation, seed_practitioner, seed_token

CHECKED = {"method": "in-person", "document": "carte nationale d'identité", "checked_on": "2026-09-01"}
SUSPEND = {"kind": "suspended", "reason": "Décision 117"}
STRIKE_OFF = {"kind": "struck-off", "reason": "Décision 118"}
APPEAL = {"reason": "Appel accueilli"}


@pytest.fixture
def container(issuing: Container) -> Container:
    return issuing


@pytest.fixture
def first(caller: Callable[..., Caller]) -> Caller:
    return caller("registrar", name="first")


@pytest.fixture
def second(caller: Callable[..., Caller]) -> Caller:
    return caller("registrar", name="second")


@pytest.fixture
def someone(engine: Engine) -> Seeded:
    return seed_practitioner(engine)


@pytest.fixture
def serial(first: Caller, second: Caller, someone: Seeded) -> str:
    """A certificate of this person's, by the whole road."""
    asked = {"practitioner": someone.national_id, "mailbox": someone.mailbox, "identity_check": CHECKED}
    path = f"/v1/enrolments/{first.post('/v1/enrolments', asked).get_json()['id']}"
    assert second.post(f"{path}/approval").status_code == 200
    issued = first.post(f"{path}/certificates", {"csr": request_for()})
    assert issued.status_code == 201, issued.get_json()
    return str(issued.get_json()["serial"])


def of(someone: Seeded) -> str:
    return f"/v1/practitioners/{someone.national_id}/measures"


def verdict(caller: Caller, someone: Seeded) -> tuple[str, list[str]]:
    answer = caller.get(f"/v1/recipients/{someone.mailbox}").get_json()
    return answer["verdict"], answer["reasons"]


def state(caller: Caller, serial: str) -> str:
    return str(caller.get(f"/v1/certificates/{serial}").get_json()["state"])


def test_a_strike_off_holds_with_its_answer_without_any_job(
    first: Caller, someone: Seeded, serial: str
) -> None:
    assert verdict(first, someone) == ("allowed", [])
    taken = first.post(of(someone), STRIKE_OFF)
    assert taken.status_code == 201
    told = taken.get_json()
    assert (told["kind"], told["state"], told["authority"], told["ends_at"]) == (
        "struck-off", "in-force", "CNOM", None,
    )  # fmt: skip
    assert verdict(first, someone) == ("refused", ["holder-struck-off", "certificate-revoked"])
    revocation = first.get(f"/v1/certificates/{serial}").get_json()["revocation"]
    assert revocation["reason"] == "privilegeWithdrawn"


def test_a_suspension_holds_and_two_registrars_give_back(
    first: Caller, second: Caller, someone: Seeded, serial: str
) -> None:
    measure = first.post(of(someone), SUSPEND).get_json()["id"]
    lifting = f"/v1/measures/{measure}/lifting"
    assert verdict(first, someone) == ("refused", ["holder-suspended", "certificate-on-hold"])
    asked = first.post(lifting, APPEAL).get_json()
    assert (asked["state"], asked["lifting_reason"]) == ("lifting-asked", APPEAL["reason"])
    assert verdict(first, someone)[0] == "refused"
    alone = first.post(lifting, APPEAL)
    assert (alone.status_code, alone.get_json()["code"]) == (403, "self-approval")
    assert verdict(first, someone)[0] == "refused"
    lifted = second.post(lifting, {"reason": "d'accord"}).get_json()
    assert lifted["state"] == "lifted"
    assert (lifted["reason"], lifted["lifting_reason"]) == (SUSPEND["reason"], APPEAL["reason"])
    assert verdict(first, someone) == ("allowed", [])
    assert state(first, serial) == "good"
    again = second.post(lifting, APPEAL)
    assert (again.status_code, again.get_json()["code"]) == (409, "measure-not-in-force")


def test_a_request_to_lift_that_nobody_confirms_is_asked_anew(
    first: Caller, second: Caller, someone: Seeded, engine: Engine
) -> None:
    measure = first.post(of(someone), SUSPEND).get_json()["id"]
    lifting = f"/v1/measures/{measure}/lifting"
    assert first.post(lifting, APPEAL).get_json()["state"] == "lifting-asked"
    with engine.begin() as connection:
        connection.execute(text("UPDATE measure_lifting SET asked_at = asked_at - interval '7 days'"))
    (seen,) = first.get(of(someone)).get_json()["items"]
    assert seen["state"] == "in-force"
    assert second.post(lifting, {"reason": "de nouveau"}).get_json()["state"] == "lifting-asked"
    lifted = first.post(lifting, APPEAL).get_json()
    assert (lifted["reason"], lifted["lifting_reason"]) == (SUSPEND["reason"], "de nouveau")


def test_only_registrars_of_the_authority_take_see_and_lift(
    first: Caller, someone: Seeded, caller: Callable[..., Caller]
) -> None:
    pharmacist = caller("registrar", name="p", authority="CNOP")
    other = pharmacist.post(of(someone), SUSPEND)
    assert (other.status_code, other.get_json()["code"]) == (403, "wrong-authority")
    measure = first.post(of(someone), SUSPEND).get_json()["id"]
    lifting = pharmacist.post(f"/v1/measures/{measure}/lifting", APPEAL)
    assert (lifting.status_code, lifting.get_json()["code"]) == (404, "unknown-measure")
    assert pharmacist.get(of(someone)).get_json()["items"] == []
    assert [one["id"] for one in first.get(of(someone)).get_json()["items"]] == [measure]
    assert [one["reason"] for one in caller("auditor").get(of(someone)).get_json()["items"]] == [
        SUSPEND["reason"]
    ]


@pytest.mark.parametrize(
    "case",
    [
        ("/v1/practitioners/810099000027/measures", SUSPEND, 404, "unknown-practitioner"),
        ("/v1/practitioners/x/measures", SUSPEND, 400, "malformed-national-id"),
        ("/v1/practitioners/810099000019/measures", SUSPEND | {"kind": "fined"}, 422, "invalid-request"),
        ("/v1/practitioners/810099000019/measures", SUSPEND | {"reason": " "}, 422, "invalid-request"),
        ("/v1/practitioners/810099000019/measures", SUSPEND | {"reason": "x" * 1001}, 422, "invalid-request"),
        ("/v1/practitioners/810099000019/measures", {"kind": "suspended"}, 422, "invalid-request"),
        ("/v1/measures/4711/lifting", APPEAL, 404, "unknown-measure"),
        ("/v1/measures/9223372036854775807/lifting", APPEAL, 404, "unknown-measure"),
        ("/v1/measures/9223372036854775808/lifting", APPEAL, 404, "no-such-resource"),
        ("/v1/measures/x/lifting", APPEAL, 404, "no-such-resource"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(
    first: Caller, someone: Seeded, engine: Engine, case: tuple[str, Any, int, str]
) -> None:
    path, body, status, code = case
    assert someone.national_id == "810099000019"
    answer = first.post(path, body)
    assert (answer.status_code, answer.get_json()["code"]) == (status, code)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM measure")).scalar_one() == 0


def test_the_same_measure_is_not_taken_twice(first: Caller, second: Caller, someone: Seeded) -> None:
    measure = first.post(of(someone), SUSPEND).get_json()["id"]
    again = second.post(of(someone), SUSPEND)
    assert (again.status_code, again.get_json()["code"]) == (409, "measure-in-force")
    assert again.get_json()["measure"] == measure


def test_the_log_tells_who_asked_and_who_confirmed_and_no_reason(
    first: Caller, second: Caller, someone: Seeded, engine: Engine
) -> None:
    measure = first.post(of(someone), SUSPEND).get_json()["id"]
    for one in (first, second):
        one.post(f"/v1/measures/{measure}/lifting", APPEAL)
    with engine.connect() as connection:
        query = (
            "SELECT event, name FROM audit_pending p JOIN api_token t ON p.actor = 'token:' || t.id"
            " WHERE subject = :id ORDER BY p.id"
        )
        told = [tuple(row) for row in connection.execute(text(query), {"id": someone.national_id})]
        whole = str(connection.execute(text("SELECT detail::text FROM audit_pending")).all())
    assert told == [
        ("measure.taken", "first"), ("measure.lifting-asked", "first"), ("measure.lifted", "second"),
    ]  # fmt: skip
    assert "Décision" not in whole
    assert "Appel" not in whole


Night = Callable[..., str]


@pytest.fixture
def night(engine: Engine, tmp_path: Path, now: datetime) -> Night:
    """Take in the file of a day that shows doctor 1 as practising."""

    def take_in(day: int, **cells: str) -> str:
        stamp = f"202609{day:02}0200"
        known = {"Identifiant PP": "10099000019", "Identification nationale PP": "810099000019"}
        lines = header() + activity(**known, **cells)
        file = zipped(
            tmp_path / f"PS_LibreAcces_{stamp}.zip",
            {f"PS_LibreAcces_Personne_activite_{stamp}.txt": lines.encode()},
        )
        report = run_register(
            engine, register="rpps", path=file, now=now + timedelta(days=day), actor=Actor("test"),
            apply=True, strict_rpps=False,
        )  # fmt: skip
        return report.state

    return take_in


def test_neither_a_measure_nor_its_lifting_is_undone_by_the_next_files(
    first: Caller, second: Caller, someone: Seeded, night: Night
) -> None:
    measure = first.post(of(someone), SUSPEND).get_json()["id"]
    assert night(2) == "applied"
    assert "holder-suspended" in verdict(first, someone)[1]
    for one in (first, second):
        one.post(f"/v1/measures/{measure}/lifting", APPEAL)
    assert night(3, **{"Nom d'exercice": "AUTREMENT"}) == "applied"
    assert "holder-suspended" not in verdict(first, someone)[1]
    assert [one["state"] for one in first.get(of(someone)).get_json()["items"]] == ["lifted"]


@pytest.fixture
def matters(engine: Engine, first: Caller, second: Caller, now: datetime) -> list[str]:
    """Three mailboxes of establishments that nobody answers for any more, the third once by the ARS."""
    made = []
    for number, finess in enumerate(("750990012", "750990038", "750990046"), 20):
        person = seed_practitioner(engine, number)
        address = seed_organisation(engine, finess)
        asked = {"practitioner": person.national_id, "mailbox": address, "identity_check": CHECKED}
        enrolment = first.post("/v1/enrolments", asked).get_json()["id"]
        assert second.post(f"/v1/enrolments/{enrolment}/approval").status_code == 200
        made.append(address)
    with engine.begin() as connection:
        connection.execute(text("UPDATE enrolment SET authority = 'ARS' WHERE mailbox = :m"), {"m": made[2]})
        connection.execute(text("UPDATE practitioner SET departed_at = :now"), {"now": now})
    follower = Follower(engine, GRACES)
    while follower.step(now).changes:
        pass
    return made


def test_what_needs_a_look_is_seen_by_those_it_touches_page_by_page(
    first: Caller, matters: list[str], caller: Callable[..., Caller]
) -> None:
    mine = first.get("/v1/attention").get_json()
    assert sorted(one["subject"] for one in mine["items"]) == sorted(matters[:2])
    assert {one["kind"] for one in mine["items"]} == {"no-answerable-professional"}
    assert mine["items"][0]["resolved_at"] is None
    for role in ("auditor", "admin"):
        who = caller(role)
        page = who.get("/v1/attention", limit=2).get_json()
        rest = who.get("/v1/attention", limit=2, after=page["next"]).get_json()
        assert sorted(one["subject"] for one in page["items"] + rest["items"]) == sorted(matters)
        assert rest["next"] is None
    assert first.get("/v1/attention", kind="number-retired").get_json()["items"] == []
    for wrong in ("?", "nonsense", "NUMBER_RETIRED", "number-retire"):
        refused = first.get("/v1/attention", kind=wrong)
        assert (refused.status_code, refused.get_json()["code"]) == (422, "invalid-request"), wrong
        assert "enrolment-void" in str(refused.get_json()["errors"]), "the kinds are named"


def test_a_matter_that_is_gone_shows_when_asked_for(
    first: Caller, matters: list[str], engine: Engine
) -> None:
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE attention SET resolved_at = since, resolved_by = 'x' WHERE subject = :s"),
            {"s": matters[0]},
        )
    assert len(first.get("/v1/attention").get_json()["items"]) == 1
    assert len(first.get("/v1/attention", closed="true").get_json()["items"]) == 2


def two_registrars(app: Flask, engine: Engine) -> tuple[Caller, Caller]:
    """Of one Ordre, each by a token."""
    for name in ("first", "second"):
        seed_token(engine, name, role="registrar", authority="CNOM")
    return Caller(app.test_client(), "sceau_first"), Caller(app.test_client(), "sceau_second")


def test_a_measure_has_dates_and_two_take_an_error_back(
    issuing: Container, app: Flask, engine: Engine, someone: Seeded
) -> None:
    """By the clock of the database, as a running service has it."""
    first, second = two_registrars(app, engine)
    day = (issuing.clock().astimezone(FRANCE) + timedelta(days=40)).date()
    asked = SUSPEND | {"from": day.isoformat(), "until": (day + timedelta(days=9)).isoformat()}
    taken = first.post(of(someone), asked)
    assert taken.status_code == 201, taken.get_json()
    told = taken.get_json()
    begins = datetime.combine(day, time(), FRANCE)
    ends = datetime.combine(day + timedelta(days=10), time(), FRANCE)
    assert told["state"] == "to-come"
    assert [datetime.fromisoformat(told[name]) for name in ("starts_at", "ends_at")] == [begins, ends]
    path = f"/v1/measures/{told['id']}"
    longer = {"until": (day + timedelta(days=19)).isoformat(), "reason": "Décision 9"}
    assert first.post(f"{path}/prolongation", longer).get_json()["revisions"][0]["act"] == "prolonged"
    shorter = {"until": (day + timedelta(days=4)).isoformat(), "reason": "Recours"}
    assert first.post(f"{path}/shortening", shorter).get_json()["shortening_asked"] is not None
    unread = second.post(f"{path}/shortening", shorter)
    assert (unread.status_code, unread.get_json()["code"]) == (409, "already-asked")
    (shown,) = second.get(of(someone)).get_json()["items"]
    assert unread.get_json()["asked_by"].startswith("token:")
    assert unread.get_json()["asked_at"].endswith("Z")
    assert "(--confirm)" in unread.get_json()["detail"]
    done = second.post(f"{path}/shortening", shorter | {"confirms": shown["shortening_asked"]}).get_json()
    assert datetime.fromisoformat(done["ends_at"]) == datetime.combine(
        day + timedelta(days=5), time(), FRANCE
    )
    error = first.post(f"{path}/annulment", {"reason": "Homonyme"}).get_json()["annulment_asked"]
    alone = first.post(f"{path}/annulment", {"reason": "Homonyme"})
    assert (alone.status_code, alone.get_json()["code"]) == (403, "self-approval")
    unread = second.post(f"{path}/annulment", {"reason": "Homonyme"})
    assert (unread.status_code, unread.get_json()["code"]) == (409, "already-asked")
    annulled = second.post(f"{path}/annulment", {"reason": "Homonyme", "confirms": error}).get_json()
    assert (annulled["state"], annulled["replacements"]) == ("annulled", [])
    again = second.post(f"{path}/annulment", {"reason": "Homonyme"})
    assert (again.status_code, again.get_json()["code"]) == (409, "measure-annulled")


def test_who_asked_for_a_last_day_is_confirmed_by_that_day(
    issuing: Container, app: Flask, engine: Engine, someone: Seeded
) -> None:
    first, second = two_registrars(app, engine)
    day = (issuing.clock().astimezone(FRANCE) + timedelta(days=40)).date()
    taken = first.post(of(someone), SUSPEND | {"until": (day + timedelta(days=9)).isoformat()}).get_json()
    path, last = f"/v1/measures/{taken['id']}/shortening", day.isoformat()
    assert first.post(path, {"until": last, "reason": "Recours"}).status_code == 200
    before, after = (day + timedelta(days=days) for days in (-1, 1))
    for other in (before.isoformat(), after.isoformat(), "9999-12-31", "0001-01-01"):
        refused = second.post(path, {"until": last, "reason": "Recours", "confirms": other})
        assert (refused.status_code, refused.get_json()["code"]) == (409, "already-asked"), other
    refused = second.post(path, {"until": last, "reason": "Recours", "confirms": "demain"})
    assert (refused.status_code, refused.get_json()["code"]) == (400, "bad-moment")
    done = second.post(path, {"until": last, "reason": "Recours", "confirms": last})
    assert done.status_code == 200, done.get_json()
    assert datetime.fromisoformat(done.get_json()["ends_at"]) == datetime.combine(after, time(), FRANCE)
    # What was asked of an annulment has no day: it is confirmed by its instant alone.
    path = f"/v1/measures/{taken['id']}/annulment"
    assert first.post(path, {"reason": "Homonyme"}).status_code == 200
    refused = second.post(path, {"reason": "Homonyme", "confirms": last})
    assert (refused.status_code, refused.get_json()["code"]) == (422, "invalid-request")


@pytest.mark.parametrize(
    ("given", "status", "code"),
    [
        ({"from": "2026-02-30"}, 400, "bad-moment"),
        ({"until": "demain"}, 400, "bad-moment"),
        ({"from": "2001-01-01"}, 422, "begins-in-the-past"),
        ({"until": "2001-01-01"}, 422, "ends-too-early"),
        ({"until": "9999-12-31"}, 422, "too-far-ahead"),
        ({"kind": "struck-off", "until": "2027-12-31"}, 422, "strike-off-has-no-end"),
    ],
)
def test_dates_that_cannot_be_are_refused_in_words(
    first: Caller, someone: Seeded, given: dict[str, Any], status: int, code: str
) -> None:
    refused = first.post(of(someone), SUSPEND | given)
    assert (refused.status_code, refused.get_json()["code"]) == (status, code)

"""One token's word takes trust from so many within an hour: over REST and by command, whatever the act."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from sqlalchemy import Engine, text
from werkzeug.test import TestResponse

from api.app import create_app
from api.jobs import table as jobs
from api.settings import Settings, save_settings
from api.wiring import Container
from directory.base.audit import Actor
from directory.base.clock import utc_now
from directory.base.db import transaction
from pki.model import RevocationReason, Serial
from pki.revocation import requests
from tests.api.certificates import certify, certify_operator
from tests.api.commands import Sceau, token, told
from tests.api.conftest import AbsentSigner, Caller
from tests.factories import OPERATOR, Seeded, rpps, seed_organisation, seed_practitioner
from tests.pki.conftest import enrol

SUSPEND = {"kind": "suspended", "reason": "Décision 117"}
MANY = "/v1/revocations/bulk"
HOSPITAL = "750990012"
RENAMED = {
    "entity": "organisation", "key": HOSPITAL, "field": "name", "value": "CLINIQUE DES ROSES", "reason": "x",
}  # fmt: skip
TAKEN = """
    SELECT (SELECT count(*) FROM measure), (SELECT count(*) FROM revocation),
           (SELECT count(*) FROM correction), (SELECT count(*) FROM blocked_key),
           (SELECT count(*) FROM bulk_revocation WHERE state <> 'planned')
"""


def limited(container: Container, token: int, authority: int) -> Container:
    limits = {"withdrawals_token_hour": token, "withdrawals_authority_hour": authority}
    return replace(container, settings=replace(container.settings, **limits))


def taken(engine: Engine) -> tuple[Any, ...]:
    """How much trust was taken away, by any road."""
    with engine.connect() as connection:
        return tuple(connection.execute(text(TAKEN)).one())


def is_over(answer: TestResponse) -> bool:
    if answer.status_code != 429:
        return False
    assert answer.get_json()["code"] == "withdrawal-limit-reached"
    return True


def people(engine: Engine, count: int) -> list[str]:
    return [seed_practitioner(engine, number).national_id for number in range(1, count + 1)]


def answered_by(engine: Engine, now: datetime, count: int) -> list[str]:
    """So many mailboxes of one hospital, each with somebody approved to answer for it; the enrolments."""
    approved = []
    for number in range(1, count + 1):
        address = seed_organisation(engine, HOSPITAL, address=f"service-{number}@two.example")
        someone = seed_practitioner(engine, number).national_id
        approved.append(str(enrol(engine, now, Seeded(someone, address)).id))
    return approved


def suspend(who: Caller, person: str) -> TestResponse:
    return who.post(f"/v1/practitioners/{person}/measures", SUSPEND)


def test_seven_thousand_strike_offs_by_one_token_stop_at_sixty(
    engine: Engine, caller: Callable[..., Caller], now: datetime
) -> None:
    crowd, stolen = people(engine, 62), caller("registrar", name="stolen")
    strike_off = {"kind": "struck-off", "reason": "x"}
    answers = [stolen.post(f"/v1/practitioners/{one}/measures", strike_off) for one in crowd]
    assert [one.status_code for one in answers] == [*[201] * 60, 429, 429]
    over = answers[-1].get_json()
    assert (over["code"], over["limit"], over["opens_at"]) == (
        "withdrawal-limit-reached", 60, now.replace(hour=now.hour + 1).isoformat(),
    )  # fmt: skip
    assert answers[-1].headers["Retry-After"] == "3601"
    assert taken(engine)[0] == 60
    # The colleague is not stopped by another's token.
    assert suspend(caller("registrar", name="colleague"), crowd[-1]).status_code == 201


class TestWithThreeAnHour:
    """A limit of three for a token, of five for a body."""

    @pytest.fixture
    def container(self, container: Container) -> Container:
        return limited(container, 3, 5)

    @pytest.fixture
    def used_up(self, engine: Engine, caller: Callable[..., Caller]) -> Caller:
        """A registrar at his limit, by three measures."""
        made = caller("registrar", name="used-up")
        for number in (91, 92, 93):
            person = seed_practitioner(engine, number).national_id
            assert suspend(made, person).status_code == 201
        return made

    def test_holds_and_releases_in_a_circle_count_each_hold(
        self, engine: Engine, now: datetime, caller: Callable[..., Caller]
    ) -> None:
        path = f"/v1/certificates/{certify(engine, seed_practitioner(engine).mailbox, now)}"
        registrar, answers = caller("registrar"), []
        for _ in range(3):
            answers.append(registrar.post(f"{path}/revocation", {"reason": "certificateHold"}).status_code)
            answers.append(registrar.post(f"{path}/release", {}).status_code)
        assert answers == [200] * 6
        assert is_over(registrar.post(f"{path}/revocation", {"reason": "certificateHold"}))

    @pytest.mark.parametrize(
        "road", ["measure", "hold", "revocation", "reason", "name", "red-list", "back-on-the-red-list"]
    )
    def test_every_road_is_closed_by_what_went_over_another(
        self, road: str, engine: Engine, now: datetime, used_up: Caller, caller: Callable[..., Caller]
    ) -> None:
        someone = seed_practitioner(engine, 1)
        hidden = seed_practitioner(engine, 2, listed=False)
        certificate = f"/v1/certificates/{certify(engine, someone.mailbox, now)}"
        revoked = Serial(certify(engine, someone.mailbox, now, number=2))
        with transaction(engine) as connection:
            requests.revoke(
                connection, now=now, actor=Actor("test"), serial=revoked, reason=RevocationReason.SUPERSEDED
            )
        other = caller("registrar", name="other")
        listed = {
            "entity": "mailbox",
            "key": hidden.mailbox,
            "field": "listed",
            "value": "true",
            "reason": "x",
        }
        shown = other.post("/v1/corrections", listed)
        assert shown.status_code == 201, shown.get_json()
        asked: dict[str, tuple[str, Any]] = {
            "measure": (f"/v1/practitioners/{someone.national_id}/measures", SUSPEND),
            "hold": (f"{certificate}/revocation", {"reason": "certificateHold"}),
            "revocation": (f"{certificate}/revocation", {"reason": "superseded"}),
            "reason": (
                f"/v1/certificates/{revoked}/reason", {"reason": "keyCompromise", "comment": "found online"},
            ),
            "name": (
                "/v1/corrections",
                {"entity": "practitioner", "key": someone.national_id, "field": "family_name",
                 "value": "AUTRE", "reason": "x"},
            ),
            "red-list": ("/v1/corrections", listed | {"key": someone.mailbox, "value": "false"}),
            "back-on-the-red-list": (f"/v1/corrections/{shown.get_json()['id']}/withdrawal", None),
        }  # fmt: skip
        path, body = asked[road]
        before = taken(engine)
        assert is_over(used_up.post(path, body))
        assert taken(engine) == before
        done = other.post(path, body)
        assert done.status_code in {200, 201}, done.get_json()

    def test_what_takes_nothing_away_goes_on(
        self, engine: Engine, now: datetime, used_up: Caller, caller: Callable[..., Caller]
    ) -> None:
        someone = seed_practitioner(engine, 1)
        path = f"/v1/certificates/{certify(engine, someone.mailbox, now)}"
        other = caller("registrar", name="other")
        name = {
            "entity": "practitioner",
            "key": someone.national_id,
            "field": "family_name",
            "value": "AUTRE",
        }
        made = other.post("/v1/corrections", {**name, "reason": "x"}).get_json()
        assert other.post(f"{path}/revocation", {"reason": "superseded"}).status_code == 200
        reworded = used_up.post(f"{path}/reason", {"reason": "cessationOfOperation", "comment": "x"})
        given_back = used_up.post(f"/v1/corrections/{made['id']}/withdrawal")
        assert (reworded.status_code, given_back.status_code) == (200, 200)

    def test_what_was_refused_or_answered_again_is_not_counted(
        self, engine: Engine, now: datetime, caller: Callable[..., Caller]
    ) -> None:
        someone, registrar = seed_practitioner(engine, 1), caller("registrar")
        serial = certify(engine, someone.mailbox, now)
        key = {**registrar.headers, "Idempotency-Key": "9a2f"}
        for _ in range(4):
            assert suspend(registrar, rpps(7)).status_code == 404
            again = registrar.client.post(
                f"/v1/certificates/{serial}/revocation", json={"reason": "superseded"}, headers=key
            )
            assert again.status_code == 200
        standings = registrar.get("/v1/withdrawal-limits").get_json()["items"]
        assert [(one["used"], one["limit"], one["left"]) for one in standings] == [(1, 5, 4), (1, 3, 2)]

    def test_a_strike_off_that_takes_three_certificates_is_one_act(
        self, engine: Engine, now: datetime, caller: Callable[..., Caller]
    ) -> None:
        someone, registrar = seed_practitioner(engine, 1), caller("registrar")
        for number in (1, 2, 3):
            certify(engine, someone.mailbox, now, number=number)
        answer = registrar.post(
            f"/v1/practitioners/{someone.national_id}/measures", {"kind": "struck-off", "reason": "x"}
        )
        assert (answer.status_code, taken(engine)[:2]) == (201, (1, 3))
        standings = registrar.get("/v1/withdrawal-limits").get_json()["items"]
        assert {one["used"] for one in standings} == {1}

    def test_a_second_registrar_agrees_over_rest_and_the_way_is_open(
        self, engine: Engine, used_up: Caller, caller: Callable[..., Caller]
    ) -> None:
        person = seed_practitioner(engine, 1).national_id
        over = suspend(used_up, person).get_json()
        agreed = {"token": over["token"], "reason": "Incident 31, liste relue"}
        path = "/v1/withdrawal-limits/agreements"
        alone = used_up.post(path, agreed)
        assert (alone.status_code, alone.get_json()["code"]) == (403, "self-approval")
        stranger = caller("registrar", name="stranger", authority="CNOP").post(path, agreed)
        assert (stranger.status_code, stranger.get_json()["code"]) == (404, "unknown-token")
        assert caller("auditor").post(path, agreed).status_code == 403
        made = caller("registrar", name="second").post(path, agreed)
        assert (made.status_code, made.get_json()["number"]) == (201, 3), made.get_json()
        assert suspend(used_up, person).status_code == 201

    def test_half_used_is_in_attention_and_a_metric_until_the_hour_has_passed(
        self, container: Container, used_up: Caller, caller: Callable[..., Caller]
    ) -> None:
        def subjects(who: Caller) -> list[str]:
            found = who.get("/v1/attention", kind="withdrawals-half-used").get_json()["items"]
            return [one["subject"].partition(":")[0] for one in found]

        assert subjects(used_up) == ["token", "authority"]
        assert subjects(caller("auditor")) == subjects(caller("admin")) == ["token", "authority"]
        assert subjects(caller("registrar", name="stranger", authority="CNOP")) == []
        metrics = used_up.get("/metrics").text
        assert 'sceau_withdrawal_limit_used_ratio{scope="token"} 1.0' in metrics
        assert 'sceau_withdrawal_limit_used_ratio{scope="authority"} 0.6' in metrics
        assert "CNOM" not in metrics
        later = container.clock().replace(hour=container.clock().hour + 1)
        jobs.run_job(replace(container, clock=lambda: later), "withdrawal-limits")
        assert subjects(used_up) == []

    def test_an_operator_stops_at_its_limit_on_its_own_servers(
        self, engine: Engine, now: datetime, caller: Callable[..., Caller]
    ) -> None:
        seed_practitioner(engine)
        own = caller("operator", name="proxy")
        with engine.begin() as connection:
            connection.execute(
                text("UPDATE api_token SET operator_id = o.id FROM operator o"
                     " WHERE api_token.name = 'proxy' AND certificate_dn = :dn"), {"dn": OPERATOR},
            )  # fmt: skip
        serials = [certify_operator(engine, now, number=number) for number in range(1, 5)]
        answers = [
            own.post(f"/v1/certificates/{one}/revocation", {"reason": "superseded"}) for one in serials
        ]
        assert [one.status_code for one in answers] == [200, 200, 200, 429]

    def test_one_administrator_repeats_bulks_no_further_than_his_hour(
        self, engine: Engine, now: datetime, caller: Callable[..., Caller]
    ) -> None:
        mailbox = seed_practitioner(engine).mailbox
        serials = [certify(engine, mailbox, now, number=number) for number in range(1, 10)]
        admin, second = caller("admin", name="alone"), caller("admin", name="second")

        def begin(chosen: list[str], *who: Caller) -> TestResponse:
            wanted = {"selection": {"serials": chosen}, "reason": "superseded", "comment": "incident"}
            made = admin.post(MANY, wanted).get_json()
            for one in who:
                answer = one.post(
                    f"{MANY}/{made['id']}/approvals", {"digest": made["digest"], "comment": "x"}
                )
            return answer

        assert begin(serials[:2], admin).get_json()["state"] == "running"
        over = begin(serials[2:4], admin)
        assert is_over(over)
        assert taken(engine)[4] == 1
        single = admin.post(f"/v1/certificates/{serials[8]}/revocation", {"reason": "superseded"})
        assert single.status_code == 200
        assert is_over(begin(serials[2:3], admin))
        # More than his hour has needs two from the beginning; what two agreed to is nobody's word alone.
        assert begin(serials[2:6], admin).get_json()["state"] == "planned"
        assert begin(serials[2:6], admin, second).get_json()["state"] == "running"
        agreed = {"token": over.get_json()["token"], "reason": "liste relue"}
        assert second.post("/v1/withdrawal-limits/agreements", agreed).status_code == 201
        assert begin(serials[6:8], admin).get_json()["state"] == "running"

    def test_the_name_of_a_hospital_counts_the_approvals_it_voids_and_each_needs_a_look(
        self, engine: Engine, now: datetime, container: Container, caller: Callable[..., Caller]
    ) -> None:
        approved = answered_by(engine, now, 4)
        admin, second = caller("admin", name="alone"), caller("admin", name="second")
        over = admin.post("/v1/corrections", RENAMED)
        assert is_over(over)
        assert taken(engine)[2] == 0
        agreed = {"token": over.get_json()["token"], "reason": "en-tête vu"}
        assert second.post("/v1/withdrawal-limits/agreements", agreed).status_code == 201
        assert admin.post("/v1/corrections", RENAMED).status_code == 201
        jobs.run_job(container, "consequences")
        found = caller("registrar", name="looks").get("/v1/attention", kind="enrolment-void").get_json()
        differs = {one["subject"]: one["detail"]["differs"] for one in found["items"]}
        assert differs == {each: ["name"] for each in approved}
        stranger = caller("registrar", name="stranger", authority="CNOP")
        assert stranger.get("/v1/attention", kind="enrolment-void").get_json()["items"] == []


class TestByCommand:
    """The same count from a terminal, by the limits of the installation's settings."""

    @pytest.fixture
    def state(self, state: Path) -> Path:
        save_settings(state, {"withdrawals_token_hour": 2, "withdrawals_authority_hour": 5})
        return state

    def test_rest_and_commands_are_one_count_and_a_second_registrar_opens_more(
        self, engine: Engine, sceau: Sceau, tmp_path: Path
    ) -> None:
        one, two = token(sceau, "one"), token(sceau, "two")
        someone, other = seed_practitioner(engine, 1), seed_practitioner(engine, 2)
        at = utc_now()
        serials = [certify(engine, someone.mailbox, at, number=number) for number in (1, 2, 3)]
        settings = Settings(
            state=tmp_path, public_url="https://sceau.example", withdrawals_token_hour=2,
            withdrawals_authority_hour=5,
        )  # fmt: skip
        container = Container(settings=settings, engine=engine, signer=AbsentSigner(), clock=utc_now)  # type: ignore[arg-type]
        over_rest = Caller(create_app(container).test_client(), one)
        revoke = ["--reason", "superseded", "--json"]
        assert sceau("revoke", serials[0], *revoke, token=one).exit_code == 0
        hold = {"reason": "certificateHold"}
        assert over_rest.post(f"/v1/certificates/{serials[1]}/revocation", hold).status_code == 200
        assert is_over(over_rest.post(f"/v1/certificates/{serials[2]}/revocation", hold))
        number = told(sceau("token", "list", "--json"))["tokens"][0]["id"]
        asked: dict[str, tuple[str, ...]] = {
            "revocation": ("revoke", serials[2], *revoke),
            "measure": (
                "measure", "take", other.national_id, "--kind", "suspended", "--reason", "x", "--json",
            ),
            "correction": (
                "correct", "make", "practitioner", other.national_id, "family_name", "AUTRE", "--reason", "x",
                "--json",
            ),
            "reason": (
                "restate", serials[0], "--reason", "keyCompromise", "--comment", "online", "--json",
            ),
        }  # fmt: skip
        before = taken(engine)
        for road, words in asked.items():
            refused = sceau(*words, token=one)
            assert (refused.exit_code, told(refused)["type"]) == (1, "withdrawal-limit-reached"), road
            assert told(refused)["token"] == number
        assert taken(engine) == before
        assert self.alarms(engine) == [f"token:{number}"]
        alone = sceau("limits", "agree", str(number), "--reason", "x", "--json", token=one)
        assert told(alone)["type"] == "self-approval"
        agreed = sceau("limits", "agree", str(number), "--reason", "list read again", "--json", token=two)
        assert (agreed.exit_code, told(agreed)["number"]) == (0, 2), agreed.output
        assert sceau(*asked["measure"], token=one).exit_code == 0
        listed = told(sceau("limits", "list", "--json", token=two))["items"]
        assert [(item["scope"], item["used"], item["agreed"], item["left"]) for item in listed] == [
            ("authority:CNOM", 3, 2, 4), (f"token:{number}", 3, 2, 1),
        ]  # fmt: skip

    def test_the_name_of_a_hospital_by_command_counts_the_approvals_it_voids(
        self, engine: Engine, sceau: Sceau
    ) -> None:
        answered_by(engine, utc_now(), 3)
        admin = token(sceau, "admin", "admin", "")
        words = [RENAMED[each] for each in ("entity", "key", "field", "value")]
        refused = sceau("correct", "make", *words, "--reason", "x", "--json", token=admin)
        assert (refused.exit_code, told(refused)["type"]) == (1, "withdrawal-limit-reached")
        assert taken(engine)[2] == 0

    def test_a_bulk_by_command_is_counted_too(self, engine: Engine, sceau: Sceau) -> None:
        admin = token(sceau, "admin", "admin", "")
        mailbox = seed_practitioner(engine).mailbox
        serials = [certify(engine, mailbox, utc_now(), number=number) for number in (1, 2, 3)]
        assert sceau("revoke", serials[0], "--reason", "superseded", token=admin).exit_code == 0

        def approve() -> Result:
            words = ("--profile", "practitioner-smime", "--reason", "superseded", "--comment", "x", "--apply")
            made = told(sceau("revoke-many", "plan", *words, "--json", token=admin))
            assert (made["total"], made["needed"]) == (2, 1)
            digest = ("--digest", made["digest"], "--comment", "x", "--json")
            return sceau("revoke-many", "approve", str(made["id"]), *digest, token=admin)

        assert told(approve())["type"] == "withdrawal-limit-reached"

    @staticmethod
    def alarms(engine: Engine) -> list[str]:
        query = text("SELECT subject FROM audit_pending WHERE event = 'withdrawal-limit.reached'")
        with engine.connect() as connection:
            return list(connection.execute(query).scalars())

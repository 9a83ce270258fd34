"""Certificates about to run out: who sees which, page by page; figures for anybody, names for nobody."""

import re
from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import Engine, text

from api.app import create_app
from api.wiring import Container
from api.words.expiring import PROFILE_WORDS
from directory.base.clock import utc_now
from pki.certificates.profiles import OF_MAILBOXES, OF_OPERATORS
from tests.api.certificates import certify, take_back
from tests.api.commands import Sceau, told
from tests.api.conftest import Caller
from tests.api.health.test_health import give_sign
from tests.factories import LONG_AGO, seed_practitioner

DAY = timedelta(days=1)


def enrolled_by(engine: Engine, serial: str, authority: str) -> None:
    """Put the certificate under an enrolment of that authority."""
    with engine.begin() as connection:
        token = connection.execute(
            text(
                "INSERT INTO api_token (name, secret_hash, role, authority, created_at, expires_at)"
                " VALUES (:name, sha256(convert_to(:name, 'UTF8')), 'registrar', :authority, :at, :ends)"
                " RETURNING id"
            ),
            {
                "name": f"of-{serial[-6:]}",
                "authority": authority,
                "at": LONG_AGO,
                "ends": LONG_AGO + 365 * DAY,
            },
        ).scalar_one()
        made = connection.execute(
            text(
                "INSERT INTO enrolment (practitioner, mailbox, authority, identity_check, state,"
                " requested_by, requested_at)"
                " SELECT practitioner, mailbox, :authority, '{}', 'requested', :token, :at"
                " FROM certificate WHERE serial = :serial RETURNING id"
            ),
            {"authority": authority, "serial": serial, "token": token, "at": LONG_AGO},
        ).scalar_one()
        connection.execute(text("ALTER TABLE reservation DISABLE TRIGGER USER"))
        connection.execute(
            text("UPDATE reservation SET enrolment_id = :id WHERE serial = :serial"),
            {"id": made, "serial": serial},
        )
        connection.execute(text("ALTER TABLE reservation ENABLE TRIGGER USER"))


def ending(engine: Engine, number: int, now: datetime, days: int, *, listed: bool = True) -> str:
    mailbox = seed_practitioner(engine, number, listed=listed).mailbox
    return certify(engine, mailbox, now + days * DAY - 365 * DAY, number=number)


def shown(caller: Caller, **query: object) -> list[str]:
    answer = caller.get("/v1/expiring", **query)
    assert answer.status_code == 200, answer.text
    return [one["address"] for one in answer.get_json()["items"]]


def test_the_nearest_comes_first_and_what_is_renewed_not_at_all(
    operator: Caller, engine: Engine, now: datetime
) -> None:
    for number, days in ((1, 59), (2, 5), (3, 20), (4, 61)):
        ending(engine, number, now, days)
    certify(engine, "person-3@one.example", now, number=30)
    assert shown(operator) == ["person-2@one.example", "person-1@one.example"]
    assert shown(operator, within="7d") == ["person-2@one.example"]
    assert shown(operator, within="61d")[-1] == "person-4@one.example"
    for nonsense in ("0d", "60", "400d", "-1d", ""):
        assert operator.get("/v1/expiring", within=nonsense).status_code == 422


def test_what_both_of_a_pair_replace_or_what_replaces_both_is_not_shown(
    operator: Caller, engine: Engine, now: datetime
) -> None:
    sign, encrypt = "practitioner-smime-sign", "practitioner-smime-encrypt"
    joined = ending(engine, 1, now, 20)
    certify(engine, "person-1@one.example", now, number=11, profile=encrypt)
    assert [one["serial"] for one in items(operator)] == [joined], "nothing to sign with comes after"
    certify(engine, "person-1@one.example", now, number=12, profile=sign)
    assert items(operator) == []
    # And back: of a pair that runs out each is shown until it has a successor of its own, or one for both.
    mailbox = seed_practitioner(engine, 2).mailbox
    for number, profile in ((21, sign), (22, encrypt)):
        certify(engine, mailbox, now - 345 * DAY, number=number, profile=profile)
    assert {(one["address"], one["profile"]) for one in items(operator)} == {
        (mailbox, sign),
        (mailbox, encrypt),
    }
    take_back(engine, certify(engine, mailbox, now, number=23, profile=sign), now)
    assert len(items(operator)) == 2, "what was revoked succeeds to nothing"
    certify(engine, mailbox, now, number=24, profile=sign)
    assert [one["profile"] for one in items(operator)] == [encrypt]
    certify(engine, mailbox, now, number=25)
    assert items(operator) == []


def items(caller: Caller) -> list[dict[str, str]]:
    found: list[dict[str, str]] = caller.get("/v1/expiring").get_json()["items"]
    return found


def test_every_profile_of_mailboxes_and_operators_is_named_on_the_page() -> None:
    assert set(PROFILE_WORDS) == OF_MAILBOXES | OF_OPERATORS


def test_a_successor_under_the_number_that_replaced_the_holder_s_counts(
    operator: Caller, engine: Engine, now: datetime
) -> None:
    ending(engine, 1, now, 20)
    heir = seed_practitioner(engine, 2).national_id
    certify(engine, "person-1@one.example", now, number=30, holder=heir)
    assert shown(operator) == ["person-1@one.example"]
    with engine.begin() as connection:
        former = connection.execute(
            text(
                "SELECT practitioner FROM certificate WHERE mailbox = 'person-1@one.example'"
                " ORDER BY serial LIMIT 1"
            )
        ).scalar_one()
        run = connection.execute(
            text(
                "INSERT INTO register_run (register, file_name, file_sha256, generated_at, started_at, state)"
                " VALUES ('rpps', 'f', sha256('f'), :now, :now, 'applied') RETURNING id"
            ),
            {"now": now},
        ).scalar_one()
        connection.execute(
            text(
                "INSERT INTO succession (national_id, successor, run_id, linked_at)"
                " VALUES (:former, :heir, :run, :now)"
            ),
            {"former": former, "heir": heir, "run": run, "now": now},
        )
    assert shown(operator) == []


def test_a_registrar_sees_what_his_body_enrolled_an_operator_what_shows(
    caller: Callable[..., Caller], engine: Engine, now: datetime
) -> None:
    enrolled_by(engine, ending(engine, 1, now, 10), "CNOM")
    enrolled_by(engine, ending(engine, 2, now, 20, listed=False), "CNOP")
    assert shown(caller("registrar", name="a", authority="CNOM")) == ["person-1@one.example"]
    assert shown(caller("registrar", name="b", authority="CNOP")) == ["person-2@one.example"]
    assert shown(caller("operator")) == ["person-1@one.example"]
    assert len(shown(caller("auditor"))) == len(shown(caller("admin"))) == 2


def test_pages_follow_one_another_without_a_gap(operator: Caller, engine: Engine, now: datetime) -> None:
    for number in range(1, 8):
        ending(engine, number, now, 10 + number // 3)
    found, after = [], {}
    while True:
        answer = operator.get("/v1/expiring", limit=2, **after).get_json()
        found += [one["serial"] for one in answer["items"]]
        if answer["next"] is None:
            break
        after = {"after": answer["next"]}
    assert found == [f"{number:040x}" for number in range(1, 8)]
    assert operator.get("/v1/expiring", after="9999999999-" + "0" * 40).get_json()["items"] == []
    assert operator.get("/v1/expiring", after="nonsense").status_code == 422


def plain(page: str) -> str:
    words = re.sub(r"<[^>]+>", " ", page).replace("\u00a0", " ").replace("\u202f", " ")
    return " ".join(words.split())


def test_the_page_counts_and_names_nobody(anybody: Caller, engine: Engine, now: datetime) -> None:
    enrolled_by(engine, ending(engine, 1, now, 5), "CNOM")
    enrolled_by(engine, ending(engine, 2, now, 6), "CNOM")
    enrolled_by(engine, ending(engine, 3, now, 45), "CNOM")
    page = anybody.get("/expiring").text
    assert "messagerie personnelle personal mailbox CNOM 2 0 1" in plain(page)
    assert "≤ 7 j ≤ 7 d de 8 à 30 j 8 to 30 d de 31 à 60 j 31 to 60 d" in plain(page)
    assert "one.example" not in page


def test_the_page_without_anything_says_so(anybody: Caller) -> None:
    told_of = plain(anybody.get("/expiring").text)
    assert "Aucun certificat ne prend fin dans les 60 jours sans successeur." in told_of
    assert "There is no CA yet." in told_of


def test_what_of_ours_runs_out_is_red_on_the_page_and_degrades_readiness(
    issuing: Container, engine: Engine, now: datetime
) -> None:
    late = now + (4380 - 300) * DAY
    client = create_app(Container(issuing.settings, engine, issuing.signer, lambda: late)).test_client()
    page = plain(client.get("/expiring").text)
    assert "À renouveler · To be renewed now : autorité émettrice organisations-1, autorité émettrice" in page
    give_sign(engine)
    ready = client.get("/readyz").get_json()
    assert (ready["state"], ready["checks"]["lifetimes"]["state"]) == ("degraded", "degraded")
    assert "issuing-ca:persons-1" in ready["checks"]["lifetimes"]["reason"]
    figures = client.get("/metrics").text
    assert 'sceau_own_end_state{what="issuing-ca:persons-1"} 2.0' in figures


def test_the_command_lists_them(sceau: Sceau, engine: Engine) -> None:
    serial = ending(engine, 1, utc_now(), 10)
    taken = ending(engine, 2, utc_now(), 10)
    take_back(engine, taken, utc_now())
    found = told(sceau("expiring", "--json"))
    assert [(one["serial"], one["mailbox"]) for one in found["items"]] == [(serial, "person-1@one.example")]
    assert "person-1@one.example" in sceau("expiring").stdout
    assert told(sceau("expiring", "--within", "5", "--json"))["items"] == []

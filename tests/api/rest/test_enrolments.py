"""Two registrars, a key, a certificate: the whole act over REST, and each way of getting it wrong."""

import base64
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import Engine, text

from api.app import create_app
from api.wiring import Container
from directory.base.audit import Actor
from directory.sync.runs.run import run_register
from pki.record import enrolments
from tests.api.certificates import certify
from tests.api.conftest import Caller
from tests.api.signing import request_for
from tests.directory.sync.test_cells_are_compared_as_one_spells_them import student
from tests.factories import Seeded, depart, rpps, seed_organisation, seed_practitioner

PATH = "/v1/enrolments"
CHECKED = {"method": "in-person", "document": "carte nationale d'identité", "checked_on": "2026-09-01"}


@pytest.fixture
def container(issuing: Container) -> Container:
    return issuing


@pytest.fixture
def someone(engine: Engine) -> Seeded:
    return seed_practitioner(engine)


@pytest.fixture
def first(caller: Callable[..., Caller]) -> Caller:
    return caller("registrar", name="first")


@pytest.fixture
def second(caller: Callable[..., Caller]) -> Caller:
    return caller("registrar", name="second")


def asked(someone: Seeded, **changed: Any) -> dict[str, Any]:
    return {
        "practitioner": someone.national_id,
        "mailbox": someone.mailbox,
        "identity_check": CHECKED,
    } | changed


@pytest.fixture
def approved(first: Caller, second: Caller, someone: Seeded) -> str:
    """The path of an enrolment that two registrars agreed on."""
    path = f"{PATH}/{first.post(PATH, asked(someone)).get_json()['id']}"
    assert second.post(f"{path}/approval").status_code == 200
    return path


def refused(answer: Any) -> tuple[int, str]:
    assert answer.content_type == "application/problem+json"
    return answer.status_code, answer.get_json()["code"]


@pytest.mark.parametrize("cell", ["\N{NO-BREAK SPACE}", "0"])
def test_a_student_with_nothing_in_the_cell_of_a_sector_is_trusted_on_no_road(
    cell: str, *, container: Container, engine: Engine, approved: str, first: Caller, someone: Seeded,
    caller: Callable[..., Caller], tmp_path: Path,
) -> None:  # fmt: skip
    other = seed_practitioner(engine, 2)
    certify(engine, other.mailbox, container.clock() - timedelta(hours=1))
    operator = caller("operator")
    assert operator.get(f"/v1/recipients/{other.mailbox}").get_json()["verdict"] == "allowed"
    names = {"Nom d'exercice": "MARTIN", "Prénom d'exercice": "Camille"}
    day = student(tmp_path, {**names, "Code secteur d'activité": cell})
    row = day.read_text().splitlines(keepends=True)[1]
    day.write_text(day.read_text() + row.replace(someone.national_id[1:], other.national_id[1:]))
    report = run_register(
        engine, register="rpps", path=day, now=container.clock(), actor=Actor("test"), apply=True
    )
    assert (report.state, report.counts["changed"]) == ("applied", 2)
    asking, certifying = (
        first.post(PATH, asked(other)), first.post(f"{approved}/certificates", {"csr": request_for()}),
    )  # fmt: skip
    assert refused(asking) == refused(certifying) == (422, "holder-not-practising")
    verdict = operator.get(f"/v1/recipients/{other.mailbox}").get_json()
    assert (verdict["verdict"], verdict["reasons"]) == ("refused", ["holder-not-practising"])


def test_two_registrars_and_a_key_give_a_certificate_that_the_verdict_knows(
    first: Caller, second: Caller, someone: Seeded, caller: Callable[..., Caller]
) -> None:
    requested = first.post(PATH, asked(someone))
    assert requested.status_code == 201
    enrolment = requested.get_json()
    assert enrolment | {"id": ""} == {
        "id": "",
        "practitioner": someone.national_id,
        "mailbox": someone.mailbox,
        "authority": "CNOM",
        "state": "requested",
        "requested_at": "2026-09-01T12:00:00Z",
        "approved_at": None,
        # What the second person is to see, and what is certified.
        "names": {
            "kind": "PER",
            "address": someone.mailbox,
            "given_name": "Camille",
            "family_name": "MARTIN",
            "national_id": someone.national_id,
            "professions": ["10"],
            "name": None,
            "finess": None,
            "siret": None,
            "service": None,
        },
    }
    path = f"{PATH}/{enrolment['id']}"
    assert second.post(f"{path}/approval").get_json()["state"] == "approved"
    key = ec.generate_private_key(ec.SECP256R1())
    issued = first.post(f"{path}/certificates", {"csr": request_for(key)})
    assert issued.status_code == 201
    certificate = x509.load_der_x509_certificate(base64.b64decode(issued.get_json()["der"]))
    assert certificate.public_key() == key.public_key()
    assert f"{certificate.serial_number:040x}" == issued.get_json()["serial"]
    verdict = caller("operator").get(f"/v1/recipients/{someone.mailbox}").get_json()
    assert (verdict["verdict"], verdict["certificates"][0]["der"]) == ("allowed", issued.get_json()["der"])


def test_the_request_may_also_be_der_in_base64(first: Caller, approved: str) -> None:
    der = x509.load_pem_x509_csr(request_for().encode()).public_bytes(Encoding.DER)
    answer = first.post(f"{approved}/certificates", {"csr": base64.b64encode(der).decode()})
    assert answer.status_code == 201


@pytest.mark.parametrize("road", ["certificates", "pkcs12", "batches"])
def test_a_name_corrected_after_approval_is_certified_on_no_road(
    first: Caller, approved: str, someone: Seeded, road: str
) -> None:
    correction = {
        "entity": "practitioner", "key": someone.national_id, "field": "family_name", "value": "CHOSEN",
        "reason": "as he says",
    }  # fmt: skip
    assert first.post("/v1/corrections", correction).status_code == 201
    if road == "batches":
        item = {"enrolment": approved.rpartition("/")[2], "csr": request_for()}
        (told,) = first.post("/v1/batches", {"items": [item]}).get_json()["items"]
        assert (told["state"], told["refusal"]["code"]) == ("refused", "enrolment-void")
    else:
        body = {"csr": request_for()} if road == "certificates" else None
        answer = first.post(f"{approved}/{road}", body)
        assert refused(answer) == (409, "enrolment-void")
        assert answer.get_json()["differs"] == ["family_name"]


def test_nobody_approves_his_own_request(first: Caller, someone: Seeded) -> None:
    path = f"{PATH}/{first.post(PATH, asked(someone)).get_json()['id']}"
    assert refused(first.post(f"{path}/approval")) == (403, "self-approval")


def test_without_anchors_no_act_is_judged(first: Caller, second: Caller, someone: Seeded) -> None:
    assert refused(first.post(f"{PATH}/drafts", asked(someone))) == (409, "no-anchors")
    assert refused(first.post(PATH, asked(someone, act="x"))) == (409, "no-anchors")
    path = f"{PATH}/{first.post(PATH, asked(someone)).get_json()['id']}"
    assert refused(second.get(f"{path}/draft")) == (409, "no-anchors")
    assert refused(second.post(f"{path}/approval", {"act": "x"})) == (409, "no-anchors")


def test_a_second_approval_is_a_conflict(second: Caller, approved: str) -> None:
    assert refused(second.post(f"{approved}/approval")) == (409, "already-approved")


def test_a_second_request_for_the_same_is_a_conflict(first: Caller, someone: Seeded) -> None:
    assert first.post(PATH, asked(someone)).status_code == 201
    assert refused(first.post(PATH, asked(someone))) == (409, "already-enrolled")


def test_a_registrar_of_another_ordre_may_not_enrol_approve_or_certify(
    caller: Callable[..., Caller], first: Caller, approved: str, someone: Seeded, engine: Engine
) -> None:
    stranger = caller("registrar", name="stranger", authority="CNOP")
    other = seed_practitioner(engine, 2)
    pending = f"{PATH}/{first.post(PATH, asked(other)).get_json()['id']}"
    assert refused(stranger.post(PATH, asked(someone))) == (403, "wrong-authority")
    assert refused(stranger.post(f"{pending}/approval")) == (404, "unknown-enrolment")
    assert refused(stranger.post(f"{approved}/certificates", {"csr": request_for()})) == (
        404,
        "unknown-enrolment",
    )


def test_without_approval_there_is_no_certificate(first: Caller, someone: Seeded) -> None:
    path = f"{PATH}/{first.post(PATH, asked(someone)).get_json()['id']}"
    assert refused(first.post(f"{path}/certificates", {"csr": request_for()})) == (409, "not-approved")


@pytest.mark.parametrize(
    ("changed", "status", "code"),
    [
        ({"practitioner": rpps(9)}, 404, "unknown-practitioner"),
        ({"practitioner": "810099000018"}, 400, "rpps-check-digit"),
        ({"practitioner": "8\u0000"}, 422, "invalid-request"),
        ({"practitioner": 12}, 422, "invalid-request"),
        ({"mailbox": "nowhere@one.example"}, 404, "unknown-mailbox"),
        ({"mailbox": "not an address"}, 400, "malformed-address"),
        ({"identity_check": {}}, 422, "invalid-request"),
        ({"identity_check": CHECKED | {"method": "hearsay"}}, 422, "invalid-request"),
        ({"identity_check": CHECKED | {"document": " "}}, 422, "invalid-request"),
        ({"identity_check": CHECKED | {"checked_on": "2026-09-02"}}, 400, "bad-identity-check"),
        ({"identity_check": CHECKED | {"checked_on": "0001-01-01"}}, 400, "bad-identity-check"),
        ({"approved": True}, 422, "invalid-request"),
    ],
)
def test_a_request_that_does_not_hold_is_refused(
    changed: dict[str, Any], status: int, code: str, first: Caller, engine: Engine
) -> None:
    assert refused(first.post(PATH, asked(seed_practitioner(engine), **changed))) == (status, code)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM enrolment")).scalar_one() == 0


def test_somebody_else_s_mailbox_is_not_enrolled(first: Caller, someone: Seeded, engine: Engine) -> None:
    other = seed_practitioner(engine, 2)
    assert refused(first.post(PATH, asked(someone, mailbox=other.mailbox))) == (422, "not-the-holder")


def test_who_left_the_register_between_approval_and_key_gets_nothing(
    first: Caller, approved: str, someone: Seeded, engine: Engine, now: datetime
) -> None:
    depart(engine, someone.national_id, now)
    assert refused(first.post(f"{approved}/certificates", {"csr": request_for()})) == (
        422,
        "holder-not-in-registry",
    )


def _with_wrong_signature() -> str:
    der = bytearray(x509.load_pem_x509_csr(request_for().encode()).public_bytes(Encoding.DER))
    der[-1] ^= 1
    return base64.b64encode(der).decode()


@pytest.mark.parametrize(
    ("csr", "status", "code"),
    [
        (_with_wrong_signature, 422, "bad-proof-of-possession"),
        (lambda: request_for(rsa.generate_private_key(65537, 1024)), 422, "weak-key"),
        (lambda: request_for(ec.generate_private_key(ec.SECP521R1())), 422, "weak-key"),
        (
            lambda: "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----",
            400,
            "bad-csr",
        ),
        (lambda: "AAAA", 400, "bad-csr"),
        (lambda: "é", 400, "bad-csr"),
        (lambda: "A", 400, "bad-csr"),
        (lambda: "A" * 16_385, 413, "csr-too-large"),
        (lambda: "", 422, "invalid-request"),
        (lambda: None, 422, "invalid-request"),
    ],
)
def test_a_key_that_must_not_be_certified_is_refused(
    csr: Callable[[], Any], status: int, code: str, first: Caller, approved: str
) -> None:
    assert refused(first.post(f"{approved}/certificates", {"csr": csr()})) == (status, code)


def test_a_key_is_certified_once(first: Caller, second: Caller, approved: str, engine: Engine) -> None:
    csr = request_for()
    assert first.post(f"{approved}/certificates", {"csr": csr}).status_code == 201
    other = seed_practitioner(engine, 2)
    path = f"{PATH}/{first.post(PATH, asked(other)).get_json()['id']}"
    second.post(f"{path}/approval")
    assert refused(first.post(f"{path}/certificates", {"csr": csr})) == (422, "key-already-certified")


ACTS = {"approval": None, "withdrawal": {"comment": "x"}, "certificates": {"csr": request_for()}}


@pytest.mark.parametrize("act", ACTS)
def test_an_enrolment_nobody_asked_for_is_not_found(act: str, first: Caller) -> None:
    path = f"{PATH}/3f0e6f0e-7a4b-4c39-9f0e-0a4f7b1c2d3e"
    assert refused(first.get(path)) == (404, "unknown-enrolment")
    assert refused(first.post(f"{path}/{act}", ACTS[act])) == (404, "unknown-enrolment")
    assert refused(first.post(f"{PATH}/not-a-uuid/{act}", {"csr": ""})) == (404, "no-such-resource")


@pytest.fixture
def auditor(caller: Callable[..., Caller]) -> Caller:
    return caller("auditor")


@pytest.mark.usefixtures("approved")
def test_a_registrar_sees_what_awaits_an_approval_and_on_what_proof(
    first: Caller, second: Caller, someone: Seeded, engine: Engine
) -> None:
    other = seed_practitioner(engine, 2)
    asked_for = first.post(PATH, asked(other)).get_json()
    page = second.get(PATH, state="requested").get_json()
    assert page["next"] is None
    (waiting,) = page["items"]
    registrar = waiting.pop("requested_by")
    assert registrar["name"] == "first"
    assert registrar["actor"].startswith("token:")
    assert waiting == asked_for | {"identity_check": CHECKED, "approved_by": None, "ended_at": None}
    (done,) = second.get(PATH, state="approved").get_json()["items"]
    assert (done["mailbox"], done["approved_by"]["name"]) == (someone.mailbox, "second")
    assert second.get(f"{PATH}/{done['id']}").get_json() == done


def test_every_enrolment_is_on_one_page_and_only_one(first: Caller, auditor: Caller, engine: Engine) -> None:
    wanted = [
        first.post(PATH, asked(seed_practitioner(engine, number))).get_json()["id"] for number in range(1, 6)
    ]
    found, following = [], {}
    for length in (2, 2, 1):
        page = auditor.get(PATH, limit=2, **following).get_json()
        assert len(page["items"]) == length
        found += [one["id"] for one in page["items"]]
        following = {"after": page["next"]}
    assert page["next"] is None
    assert sorted(found) == sorted(wanted)
    strange = auditor.get(PATH, after="3f0e6f0e-7a4b-4c39-9f0e-0a4f7b1c2d3e")
    assert refused(strange) == (400, "bad-cursor")


def test_enrolments_are_seen_by_their_own_authority_and_by_auditors_alone(
    caller: Callable[..., Caller], approved: str, auditor: Caller
) -> None:
    stranger = caller("registrar", name="stranger", authority="CNOP")
    assert stranger.get(PATH).get_json() == {"items": [], "next": None}
    assert refused(stranger.get(approved)) == (404, "unknown-enrolment")
    (seen,) = auditor.get(PATH).get_json()["items"]
    assert auditor.get(approved).get_json() == seen
    for other in (caller("operator"), caller("admin")):
        for path in (PATH, approved):
            assert refused(other.get(path)) == (403, "role-lacking")


def test_a_wrong_request_is_withdrawn_and_stands_in_nobody_s_way(
    first: Caller, second: Caller, someone: Seeded, engine: Engine
) -> None:
    path = f"{PATH}/{first.post(PATH, asked(someone)).get_json()['id']}"
    answer = second.post(f"{path}/withdrawal", {"comment": "Mauvaise boîte"})
    assert (answer.status_code, answer.get_json()["state"]) == (200, "ended")
    assert first.get(path).get_json()["ended_at"] == "2026-09-01T12:00:00Z"
    assert refused(first.post(f"{path}/withdrawal", {"comment": "x"})) == (409, "enrolment-ended")
    assert refused(second.post(f"{path}/approval")) == (409, "enrolment-ended")
    with engine.connect() as connection:
        query = "SELECT detail ->> 'comment' FROM audit_pending WHERE event = 'enrolment.ended'"
        assert connection.execute(text(query)).scalars().all() == ["Mauvaise boîte"]
    assert first.post(PATH, asked(someone)).status_code == 201


def test_only_its_own_authority_withdraws_a_request_and_only_before_approval(
    caller: Callable[..., Caller], first: Caller, approved: str, auditor: Caller, engine: Engine
) -> None:
    why = {"comment": "x"}
    pending = f"{PATH}/{first.post(PATH, asked(seed_practitioner(engine, 2))).get_json()['id']}"
    stranger = caller("registrar", name="stranger", authority="CNOP")
    assert refused(stranger.post(f"{pending}/withdrawal", why)) == (404, "unknown-enrolment")
    assert refused(auditor.post(f"{pending}/withdrawal", why)) == (403, "role-lacking")
    assert refused(first.post(f"{pending}/withdrawal", {})) == (422, "invalid-request")
    assert refused(first.post(f"{approved}/withdrawal", why)) == (409, "already-approved")
    # Who asked may take it back as well.
    assert first.post(f"{pending}/withdrawal", why).status_code == 200


def test_a_dead_signer_is_said_and_nothing_is_issued(
    container: Container, first: Caller, approved: str, engine: Engine
) -> None:
    from pki.signing.client import SignerClient

    dead = SignerClient(container.settings.state / "nobody.sock")
    app = create_app(Container(container.settings, engine, dead, container.clock))
    answer = Caller(app.test_client(), first.token).post(f"{approved}/certificates", {"csr": request_for()})
    assert refused(answer) == (503, "signer-unavailable")
    with engine.connect() as connection:
        issued = connection.execute(
            text("SELECT count(*) FROM certificate WHERE mailbox IS NOT NULL")
        ).scalar_one()
    assert issued == 0


LILACS = "750990012"


@pytest.fixture
def lilacs(first: Caller, engine: Engine) -> set[str]:
    """The mailboxes asked for at one establishment: its own, and two people's who practise there."""
    here = [seed_practitioner(engine, number, finess=LILACS) for number in (11, 12)]
    elsewhere = seed_practitioner(engine, 13)
    own = seed_organisation(engine, LILACS)
    # Who answers for the establishment's mailbox need not practise there.
    for one in (*here, Seeded(elsewhere.national_id, own), elsewhere):
        assert first.post(PATH, asked(one)).status_code == 201
    return {own, *(one.mailbox for one in here)}


def mailboxes(page: dict[str, Any]) -> set[str]:
    return {one["mailbox"] for one in page["items"]}


def test_the_enrolments_of_an_establishment_are_its_mailboxes_and_its_people(
    first: Caller, second: Caller, auditor: Caller, lilacs: set[str]
) -> None:
    for who in (first, second, auditor):
        page = who.get(PATH, establishment=LILACS).get_json()
        assert (mailboxes(page), len(page["items"]), page["next"]) == (lilacs, 3, None)
    assert second.get(PATH, establishment="250990033").get_json() == {"items": [], "next": None}


@pytest.mark.usefixtures("lilacs")
def test_an_establishment_is_read_page_by_page(second: Caller) -> None:
    known = [one["id"] for one in second.get(PATH, establishment=LILACS).get_json()["items"]]
    page = second.get(PATH, establishment=LILACS, limit="2").get_json()
    rest = second.get(PATH, establishment=LILACS, limit="2", after=page["next"]).get_json()
    assert [one["id"] for one in (*page["items"], *rest["items"])] == known
    assert rest["next"] is None


def test_an_establishment_is_listed_approved_and_certified_at_once(
    first: Caller, second: Caller, lilacs: set[str]
) -> None:
    waiting = second.get(PATH, establishment=LILACS, state="requested").get_json()["items"]
    ids = [one["id"] for one in waiting]
    approved = second.post(f"{PATH}/approvals", {"enrolments": ids}).get_json()["items"]
    assert {one["id"] for one in approved if one["refusal"] is None} == set(ids)
    assert second.get(PATH, establishment=LILACS, state="requested").get_json()["items"] == []
    ready = first.get(PATH, establishment=LILACS, state="approved").get_json()["items"]
    pem = [request_for(ec.generate_private_key(ec.SECP256R1())) for _ in ready]
    body = {"items": [{"enrolment": one["id"], "csr": csr} for one, csr in zip(ready, pem, strict=True)]}
    made = first.post("/v1/batches", body).get_json()["items"]
    assert {one["certificate"]["mailbox"] for one in made if one["state"] == "issued"} == lilacs


def test_a_batch_that_is_no_batch_is_refused_whole_and_an_unreadable_request_alone(
    first: Caller, second: Caller, lilacs: set[str]
) -> None:
    assert lilacs
    waiting = second.get(PATH, establishment=LILACS, state="requested").get_json()["items"]
    ids = [one["id"] for one in waiting]
    second.post(f"{PATH}/approvals", {"enrolments": ids})
    sound = {"enrolment": ids[0], "csr": request_for(ec.generate_private_key(ec.SECP256R1()))}
    for wrong, field in (
        ({"enrolment": ids[1], "csr": None}, "items.1.csr"),
        ({"enrolment": "x", "csr": sound["csr"]}, "items.1.enrolment"),
    ):
        answer = first.post("/v1/batches", {"items": [sound, wrong]})
        assert refused(answer) == (422, "invalid-request")
        assert [error["field"] for error in answer.get_json()["errors"]] == [field]
    made = first.post(
        "/v1/batches", {"items": [sound, {"enrolment": ids[1], "csr": "unreadable"}]}
    ).get_json()
    assert [one["state"] for one in made["items"]] == ["issued", "refused"]


def test_another_ordre_sees_nothing_of_an_establishments_enrolments(
    caller: Callable[..., Caller], lilacs: set[str]
) -> None:
    assert lilacs
    pharmacist = caller("registrar", name="pharmacist", authority="CNOP")
    assert pharmacist.get(PATH, establishment=LILACS).get_json()["items"] == []


@pytest.mark.parametrize(
    ("finess", "code"),
    [("chu", "malformed-finess"), ("75099001", "malformed-finess"), ("750990013", "finess-check-digit")],
)
def test_a_number_that_is_none_finds_no_establishment(first: Caller, finess: str, code: str) -> None:
    assert refused(first.get(PATH, establishment=finess)) == (400, code)


def test_an_establishment_is_found_by_indexes_alone(engine: Engine) -> None:
    """A nation's enrolments are read for nobody: sequential reading is put out of reach, and not needed."""
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        query = f"EXPLAIN SELECT id FROM enrolment WHERE {enrolments._LIVING_OF_ESTABLISHMENT.text}"
        plan = "\n".join(connection.execute(text(query), {"establishment": [LILACS]}).scalars())
    for index in (
        "mailbox_finess",
        "mailbox_siret",
        "practice_finess",
        "enrolment_live",
        "enrolment_practitioner",
    ):
        assert index in plan
    assert "Seq Scan" not in plan


def test_another_body_is_told_the_same_of_what_exists_and_of_what_does_not(
    caller: Callable[..., Caller], approved: str
) -> None:
    """Two refusals would tell how much another Ordre does, number by number."""
    stranger = caller("registrar", name="stranger", authority="CNOP")
    nothing = f"{PATH}/00000000-0000-4000-8000-000000000000"
    for act, body in (("", None), ("/approval", {}), ("/withdrawal", {"comment": "x"}),
                      ("/certificates", {"csr": request_for()})):  # fmt: skip
        there, absent = (
            stranger.get(one) if body is None else stranger.post(f"{one}{act}", body)
            for one in (approved, nothing)
        )
        told = [one.get_json() for one in (there, absent)]
        for one in told:
            one["detail"] = one["detail"].rpartition(" ")[0]
        assert told[0] == told[1], act

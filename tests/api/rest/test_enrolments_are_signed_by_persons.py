"""Where an installation has anchors, two registrars sign what they were shown: one by one, or many."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Engine, text

from api.wiring import Container
from directory.base.audit import Actor
from directory.base.db import transaction
from pki.acts.act import ActKind
from pki.powers.change import change_powers
from pki.powers.state import PowerLine
from pki.signing.inprocess import InProcessSigner
from pki.tlog import sequencer
from pki.tlog.checkpoint import AuditKey
from tests.api.conftest import Caller
from tests.api.rest.test_enrolments import PATH, asked, refused
from tests.api.signing import request_for
from tests.conftest import NOON as AT
from tests.factories import Seeded, seed_practitioner
from tests.persons import ANCHORS, ANNE, BRUNO, CHLOE, DAVID, Person, add, freeze, registrars, revoke

CHLOE_AGAIN = Person(CHLOE.name, Ed25519PrivateKey.generate())
Tell = Callable[..., None]


@pytest.fixture
def container(issuing: Container) -> Container:
    issuing.settings.anchors.write_bytes(ANCHORS.text())
    followed = issuing.powers
    assert followed is not None
    assert isinstance(issuing.signer, InProcessSigner)
    issuing.signer._powers = followed.current
    return issuing


@pytest.fixture
def tell(container: Container, engine: Engine) -> Tell:
    """Queue changes of powers, and give them a number."""
    key = AuditKey(Ed25519PrivateKey.generate())

    def act(*lines: tuple[ActKind, PowerLine]) -> None:
        assert container.powers is not None
        for kind, line in lines:
            powers = container.powers.current()
            with transaction(engine) as connection:
                change_powers(
                    connection, now=AT, powers=powers, kind=kind, signed=line.signed, shown=line.shown,
                    actor=Actor("x"),
                )  # fmt: skip
            with transaction(engine) as connection:
                sequencer.sequence(connection, key, now=AT)

    return act


@pytest.fixture(autouse=True)
def powers(tell: Tell) -> None:
    tell(*registrars(CHLOE, DAVID), (ActKind.CREDENTIAL_ADD, add(CHLOE_AGAIN, ANNE, BRUNO)))


@pytest.fixture
def first(caller: Callable[..., Caller]) -> Caller:
    return caller("registrar", name="first")


@pytest.fixture
def second(caller: Callable[..., Caller]) -> Caller:
    return caller("registrar", name="second")


@pytest.fixture
def someone(engine: Engine) -> Seeded:
    return seed_practitioner(engine)


def signed(draft: Mapping[str, Any], by: Person, **other: Any) -> str:
    """What `sceau sign` makes of a draft."""
    given = {"subjects": tuple(draft["subjects"]), **other}
    return by.signs(ActKind(draft["act"]), draft["shown"], **given).decode()


def request_of(caller: Caller, someone: Seeded, by: Person = CHLOE, **other: Any) -> dict[str, Any]:
    drawn_up = caller.post(f"{PATH}/drafts", asked(someone)).get_json()
    return asked(someone, id=drawn_up["id"], act=signed(drawn_up["draft"], by, **other))


def approval_of(caller: Caller, path: str, by: Person = DAVID, **other: Any) -> dict[str, Any]:
    return {"act": signed(caller.get(f"{path}/draft").get_json(), by, **other)}


@pytest.fixture
def requested(first: Caller, someone: Seeded) -> str:
    """The path of an enrolment that Chloé signed."""
    made = first.post(PATH, request_of(first, someone))
    assert made.status_code == 201, made.get_json()
    return f"{PATH}/{made.get_json()['id']}"


def why(answer: Any) -> tuple[int, str, str]:
    return (*refused(answer), answer.get_json().get("why", ""))


def test_what_two_persons_signed_is_certified(
    requested: str, first: Caller, second: Caller, engine: Engine
) -> None:
    draft = second.get(f"{requested}/draft").get_json()
    assert draft["subjects"] == [f"enrolment:{requested.rpartition('/')[2]}"]
    assert draft["shown"]["names"]["family_name"]
    assert second.post(f"{requested}/approval", approval_of(second, requested)).status_code == 200
    assert first.post(f"{requested}/certificates", {"csr": request_for()}).status_code == 201
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT kind, person FROM enrolment_act"))
        kept = {row.kind: row.person for row in rows}
        told = connection.execute(
            text("SELECT detail FROM audit_pending WHERE event LIKE 'enrolment.%' ORDER BY id")
        ).scalars()
        assert all(len(detail["act"]) == 64 for detail in told)
    assert kept == {"enrolment.request": CHLOE.name, "enrolment.approve": DAVID.name}


def test_a_draft_keeps_nothing(first: Caller, someone: Seeded, engine: Engine) -> None:
    assert request_of(first, someone)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM enrolment")).scalar_one() == 0


def test_a_token_without_an_act_gives_no_trust(
    first: Caller, second: Caller, someone: Seeded, requested: str
) -> None:
    other = {"practitioner": someone.national_id, "mailbox": someone.mailbox}
    assert refused(first.post(PATH, asked(someone) | other)) == (422, "act-missing")
    assert refused(second.post(f"{requested}/approval")) == (422, "act-missing")
    assert refused(second.post(f"{requested}/approval", {})) == (422, "act-missing")


@pytest.mark.parametrize("by", [CHLOE, CHLOE_AGAIN])
def test_one_person_is_one_person_with_two_tokens_and_two_credentials(
    requested: str, second: Caller, by: Person
) -> None:
    answer = second.post(f"{requested}/approval", approval_of(second, requested, by))
    assert refused(answer) == (403, "self-approval")


@pytest.mark.parametrize(
    ("by", "other", "reason"),
    [
        (DAVID, {"at": AT - timedelta(hours=1), "expires": AT - timedelta(minutes=1)}, "expired"),
        (DAVID, {"at": AT + timedelta(minutes=1)}, "expired"),
        (DAVID, {"installation": "4d" * 16}, "another-installation"),
        (DAVID, {"subjects": (f"enrolment:{uuid4()}",)}, "another-subject"),
        (DAVID, {"seen": "5b" * 32}, "shown-otherwise"),
        (ANNE, {}, "no-registrar"),
        (Person.called(5), {}, "credential-unknown"),
    ],
)
def test_an_act_that_does_not_suffice_is_refused_when_it_is_handed_in(
    requested: str, second: Caller, by: Person, other: dict[str, Any], reason: str
) -> None:
    answer = second.post(f"{requested}/approval", approval_of(second, requested, by, **other))
    assert why(answer) == (422, "act-unfit", reason)


def test_the_act_of_a_request_is_no_approval(requested: str, second: Caller) -> None:
    draft = second.get(f"{requested}/draft").get_json() | {"act": "enrolment.request"}
    answer = second.post(f"{requested}/approval", {"act": signed(draft, DAVID)})
    assert why(answer) == (422, "act-unfit", "another-kind")


def test_what_is_no_act_is_refused(requested: str, second: Caller) -> None:
    for given in ("x", "é.é.é", "a.b.c"):
        answer = second.post(f"{requested}/approval", {"act": given})
        assert why(answer) == (422, "act-unfit", "no-act")


def test_a_request_is_asked_under_the_id_that_was_signed(first: Caller, someone: Seeded) -> None:
    body = request_of(first, someone)
    answer = first.post(PATH, body | {"id": str(uuid4())})
    assert why(answer) == (422, "act-unfit", "another-subject")
    assert first.post(PATH, body).status_code == 201
    assert refused(first.post(PATH, body)) == (409, "already-enrolled")


def test_a_credential_revoked_voids_what_waits_for_approval(
    requested: str, second: Caller, tell: Tell
) -> None:
    body = approval_of(second, requested)
    tell((ActKind.CREDENTIAL_REVOKE, revoke(CHLOE, ANNE)))
    assert why(second.post(f"{requested}/approval", body)) == (422, "act-unfit", "credential-revoked")


def test_a_credential_revoked_after_the_approval_gives_no_certificate(
    requested: str, first: Caller, second: Caller, tell: Tell
) -> None:
    assert second.post(f"{requested}/approval", approval_of(second, requested)).status_code == 200
    tell((ActKind.CREDENTIAL_REVOKE, revoke(DAVID, ANNE)))
    answer = first.post(f"{requested}/certificates", {"csr": request_for()})
    assert why(answer) == (409, "evidence-unfit", "credential-revoked")


def test_a_freeze_stops_requests_and_approvals(
    requested: str, first: Caller, second: Caller, tell: Tell
) -> None:
    body = approval_of(second, requested)
    tell((ActKind.FREEZE, freeze(ANNE)))
    assert refused(second.post(f"{requested}/approval", body)) == (409, "frozen")
    assert first.post(f"{requested}/withdrawal", {"comment": "wrong mailbox"}).status_code == 200


def test_a_token_of_a_person_hands_in_her_acts_alone(requested: str, second: Caller, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE api_token SET person = :p WHERE name = 'second'"), {"p": ANNE.name})
    answer = second.post(f"{requested}/approval", approval_of(second, requested))
    assert refused(answer) == (403, "another-person")


def test_many_are_approved_with_an_act_for_each(
    requested: str, first: Caller, second: Caller, engine: Engine
) -> None:
    other = first.post(PATH, request_of(first, seed_practitioner(engine, 2))).get_json()["id"]
    paths = [requested, f"{PATH}/{other}"]
    acts = [approval_of(second, path)["act"] for path in paths]
    body: dict[str, Any] = {"enrolments": [path.rpartition("/")[2] for path in paths]}
    assert refused(second.post(f"{PATH}/approvals", body | {"acts": acts[:1]})) == (422, "bad-batch")
    (one, _) = second.post(f"{PATH}/approvals", body).get_json()["items"]
    assert one["refusal"]["code"] == "act-missing"
    swapped = second.post(f"{PATH}/approvals", body | {"acts": acts[::-1]}).get_json()["items"]
    assert {item["refusal"]["code"] for item in swapped} == {"act-unfit"}
    done = second.post(f"{PATH}/approvals", body | {"acts": acts}).get_json()["items"]
    assert [item["refusal"] for item in done] == [None, None]
    items = [{"enrolment": item["id"], "csr": request_for()} for item in done]
    told = first.post("/v1/batches", {"items": items}).get_json()["items"]
    assert {item["state"] for item in told} == {"issued"}

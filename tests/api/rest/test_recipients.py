"""The verdict over REST: what an operator's program sees, alone and in bulk, now and in the past."""

import base64
import json
from datetime import datetime, timedelta
from hashlib import sha256
from time import perf_counter

import pytest
from sqlalchemy import Engine

from tests.api.certificates import certify, take_back
from tests.api.conftest import Caller
from tests.factories import seed_practitioner

BULK = "/v1/recipients/check"


@pytest.fixture
def mailbox(engine: Engine, now: datetime) -> str:
    """A mailbox against which nothing stands."""
    seeded = seed_practitioner(engine)
    certify(engine, seeded.mailbox, now - timedelta(days=1))
    return seeded.mailbox


def test_an_allowed_recipient_comes_with_the_certificate_to_encrypt_with(
    operator: Caller, mailbox: str
) -> None:
    answer = operator.get(f"/v1/recipients/{mailbox}")
    assert answer.status_code == 200
    assert answer.get_json() == {
        "address": mailbox,
        "verdict": "allowed",
        "reasons": [],
        "decided_at": "2026-09-01T12:00:00Z",
        "as_of": "2026-09-01T12:00:00Z",
        "valid_until": "2026-09-01T12:15:00Z",
        "sources": {"rpps": None, "finess": None, "mailboxes": None, "trusted-domains": None},
        "certificates": [
            {
                "serial": "0" * 39 + "1",
                "not_after": "2027-08-31T12:00:00Z",
                "sha256": sha256(b"certificate 1").hexdigest(),
                "der": base64.b64encode(b"certificate 1").decode(),
                "purposes": ["encryption", "signature"],
            }
        ],
    }


def test_an_address_may_be_written_in_any_case_and_percent_encoded(operator: Caller, mailbox: str) -> None:
    for spelling in (mailbox.upper(), mailbox.replace("@", "%40")):
        assert operator.get(f"/v1/recipients/{spelling}").get_json()["verdict"] == "allowed"


def test_a_parameter_given_twice_is_refused(operator: Caller, mailbox: str) -> None:
    answer = operator.get(f"/v1/recipients/{mailbox}", sender=[mailbox, "other@one.example"])
    assert (answer.status_code, answer.get_json()["code"]) == (422, "invalid-request")
    assert [error["field"] for error in answer.get_json()["errors"]] == ["sender"]


@pytest.mark.parametrize("again", ["addresses", "address\\u0065s"])
def test_a_name_that_stands_twice_in_a_body_is_refused(again: str, operator: Caller, mailbox: str) -> None:
    body = f'{{"addresses": ["nobody@one.example"], "{again}": ["{mailbox}"]}}'
    answer = operator.client.post(
        BULK, data=body, headers={**operator.headers, "Content-Type": "application/json"}
    )
    assert (answer.status_code, answer.content_type) == (400, "application/problem+json")
    assert (answer.get_json()["code"], answer.get_json()["key"]) == ("repeated-key", "addresses")


def test_the_sender_counts_too(operator: Caller, mailbox: str, engine: Engine) -> None:
    other = seed_practitioner(engine, 2).mailbox
    answer = operator.get(f"/v1/recipients/{mailbox}", sender=other).get_json()
    assert (answer["verdict"], answer["reasons"], answer["certificates"]) == (
        "refused",
        ["sender-no-certificate"],
        [],
    )


def test_after_a_revocation_the_next_answer_is_refused(
    operator: Caller, mailbox: str, engine: Engine, now: datetime
) -> None:
    take_back(engine, "0" * 39 + "1", now - timedelta(seconds=1))
    answer = operator.get(f"/v1/recipients/{mailbox}").get_json()
    assert (answer["verdict"], answer["reasons"]) == ("refused", ["certificate-revoked"])


@pytest.mark.parametrize(
    "address",
    [
        "no-at-sign",
        "a@b@c",
        "two words@one.example",
        "a\0b@one.example",
        "x" * 3000 + "@one.example",
    ],
)
def test_a_malformed_address_alone_is_a_bad_request_that_still_says_refused(
    address: str, operator: Caller
) -> None:
    answer = operator.get(f"/v1/recipients/{address}")
    assert answer.status_code == 400
    document = answer.get_json()
    assert document["type"] == "https://sceau.example/problems/malformed-address"
    assert (document["verdict"], document["reasons"]) == ("refused", ["malformed-address"])


def test_a_malformed_sender_is_told_apart_from_a_malformed_recipient(operator: Caller) -> None:
    alone = operator.get("/v1/recipients/a@one.example", sender="not an address")
    in_bulk = operator.post(BULK, {"addresses": ["a@one.example"], "sender": "not an address"})
    for answer in (alone, in_bulk):
        document = answer.get_json()
        assert (answer.status_code, document["code"]) == (400, "malformed-address")
        assert document["reasons"] == ["sender-malformed-address"]
        assert document["detail"] == "The sender is not a mailbox address."


def test_every_reason_of_a_verdict_is_in_the_description(anybody: Caller) -> None:
    schemas = anybody.get("/openapi.json").get_json()["components"]["schemas"]
    told = schemas["VerdictAnswer"]["properties"]["reasons"]["description"]
    for code in ("mailbox-closed", "no-answerable-professional", "certificate-revoked", "before-our-records"):
        assert f"`{code}`" in told


@pytest.mark.parametrize(
    ("at", "status", "code"),
    [
        ("2026-09-01T12:00:01Z", 400, "at-in-the-future"),
        ("0001-01-01T00:00:00+14:00", 422, "invalid-request"),
        ("2026-02-30T00:00:00Z", 422, "invalid-request"),
        ("2026-09-01T12:00:00", 422, "invalid-request"),
        ("yesterday", 422, "invalid-request"),
    ],
)
def test_an_instant_that_cannot_be_answered_for_is_refused(
    at: str, status: int, code: str, operator: Caller
) -> None:
    answer = operator.get("/v1/recipients/a@one.example", at=at)
    assert (answer.status_code, answer.get_json()["code"]) == (status, code)


def test_the_past_is_answered_from_the_history(operator: Caller) -> None:
    answer = operator.get("/v1/recipients/a@one.example", at="2026-08-01T14:00:00.5+02:00").get_json()
    assert answer["as_of"] == "2026-08-01T12:00:00.500000Z"
    assert answer["decided_at"] == "2026-09-01T12:00:00Z"


def test_a_bulk_answer_keeps_the_order_and_repeats_what_was_repeated(operator: Caller, mailbox: str) -> None:
    asked = [mailbox, "nonsense", mailbox.upper(), mailbox, ""]
    answer = operator.post(BULK, {"addresses": asked, "sender": None, "at": None}).get_json()
    assert [one["address"] for one in answer["items"]] == asked
    assert [one["verdict"] for one in answer["items"]] == [
        "allowed",
        "refused",
        "allowed",
        "allowed",
        "refused",
    ]
    assert answer["items"][1]["reasons"] == ["malformed-address"]
    assert (answer["decided_at"], answer["as_of"]) == ("2026-09-01T12:00:00Z", "2026-09-01T12:00:00Z")


def test_alone_and_in_bulk_the_answer_is_the_same(operator: Caller, mailbox: str) -> None:
    alone = operator.get(f"/v1/recipients/{mailbox}").get_json()
    many = operator.post(f"{BULK}?include=certificates", {"addresses": [mailbox]}).get_json()
    assert many["items"] == [{name: alone[name] for name in alone if name != "sources"}]
    assert many["sources"] == alone["sources"]


def test_ten_thousand_are_answered_and_one_more_is_not(operator: Caller) -> None:
    addresses = [f"person-{n}@a-domain-of-usual-length.mssante.invalid" for n in range(10_000)]
    begun = perf_counter()
    answer = operator.post(BULK, {"addresses": addresses})
    assert (answer.status_code, len(answer.get_json()["items"])) == (200, 10_000)
    # A bound against a query for each address, not a measurement: those are in scripts/bench.py.
    assert perf_counter() - begun < 10
    refused = operator.post(BULK, {"addresses": [*addresses, "one@more.example"]})
    assert (refused.status_code, refused.get_json()["errors"][0]["field"]) == (422, "addresses")


def test_an_unlisted_mailbox_is_answered_for_though_no_search_finds_it(
    operator: Caller, engine: Engine, now: datetime
) -> None:
    seeded = seed_practitioner(engine, 3, listed=False)
    certify(engine, seeded.mailbox, now, number=3)
    assert operator.get(f"/v1/recipients/{seeded.mailbox}").get_json()["verdict"] == "allowed"
    assert operator.get(f"/v1/practitioners/{seeded.national_id}").get_json()["mailboxes"] == []


def test_an_address_may_hold_a_slash(operator: Caller) -> None:
    answer = operator.get("/v1/recipients/a%2Fb@one.example").get_json()
    assert answer["address"] == "a/b@one.example"


@pytest.fixture
def care_home(engine: Engine, now: datetime) -> str:
    """A mailbox against which nothing stands, in the domain that others are mistaken for."""
    seeded = seed_practitioner(engine, address="x@medico-social.mssante.invalid")
    certify(engine, seeded.mailbox, now - timedelta(days=1))
    return seeded.mailbox


# IDNA 2003 turned each of these into the address above, which was then answered for.
OTHERS = {
    "x@medico-social.mßante.invalid": "domain-not-trusted",
    "x@medico-social.m\u017fsante.invalid": "malformed-address",
    "x@medico-social.\uff4dssante.invalid": "malformed-address",
    "x@medico-social\u3002mssante.invalid": "malformed-address",
}


@pytest.mark.parametrize("other", OTHERS)
def test_another_domain_is_not_answered_for_as_the_trusted_one(
    other: str, operator: Caller, care_home: str
) -> None:
    reason = OTHERS[other]
    alone = operator.get(f"/v1/recipients/{other}")
    in_bulk = operator.post(BULK, {"addresses": [other, care_home]}).get_json()["items"]
    for document in (alone.get_json(), in_bulk[0]):
        assert document["verdict"] == "refused"
        assert document["reasons"][0] == reason
        assert not document.get("certificates")
    assert in_bulk[1]["verdict"] == "allowed"
    by_sender = operator.get(f"/v1/recipients/{care_home}", sender=other)
    told = by_sender.get_json()
    assert (told["verdict"], told["reasons"][0]) == ("refused", f"sender-{reason}")


def test_another_spelling_of_the_same_domain_is_answered_for(operator: Caller, care_home: str) -> None:
    for spelling in (f"{care_home}.", f"{care_home}/", f"{care_home}./", care_home.upper()):
        answer = operator.get(f"/v1/recipients/{spelling}", sender=f"{care_home}.")
        assert (answer.status_code, answer.get_json()["verdict"]) == (200, "allowed")


def test_a_plus_that_came_as_a_space_is_named(operator: Caller, mailbox: str, engine: Engine) -> None:
    at_begin, within = "+x@one.example", "a+b@one.example"
    seed_practitioner(engine, 2, address="x@one.example")
    seed_practitioner(engine, 3, address=at_begin)
    seed_practitioner(engine, 4, address=within)
    for sender in (at_begin, within):
        unescaped = operator.client.get(f"/v1/recipients/{mailbox}?sender={sender}", headers=operator.headers)
        document = unescaped.get_json()
        assert (unescaped.status_code, document["code"]) == (400, "malformed-address")
        assert "`%2B`" in document["detail"]
        assert document["reasons"] == ["sender-malformed-address"]
        escaped = operator.get(f"/v1/recipients/{mailbox}", sender=sender).get_json()
        assert escaped["reasons"] == ["sender-no-certificate"]


def test_certificates_of_many_come_where_they_are_asked_for(operator: Caller, mailbox: str) -> None:
    whole = operator.get(f"/v1/recipients/{mailbox}").get_json()["certificates"]
    assert whole
    for include, expected in (
        ("certificates", whole),
        ("fingerprints", [{"sha256": certificate["sha256"]} for certificate in whole]),
    ):
        (item,) = operator.post(f"{BULK}?include={include}", {"addresses": [mailbox]}).get_json()["items"]
        assert (item["verdict"], item["certificates"]) == ("allowed", expected)
    (item,) = operator.post(BULK, {"addresses": [mailbox]}).get_json()["items"]
    assert "certificates" not in item
    assert operator.post(f"{BULK}?include=keys", {"addresses": [mailbox]}).status_code == 422


@pytest.mark.parametrize("number", [1, 700])
def test_many_come_one_a_line_to_who_wants_lines(operator: Caller, engine: Engine, number: int) -> None:
    asked = [seed_practitioner(engine).mailbox, *(f"nobody{n}@one.example" for n in range(number - 1))]
    headers = {**operator.headers, "Accept": "application/x-ndjson"}
    lines = operator.client.post(BULK, json={"addresses": asked}, headers=headers)
    assert (lines.status_code, lines.mimetype) == (200, "application/x-ndjson")
    assert "Accept" in lines.headers["Vary"]
    told = [json.loads(line) for line in lines.get_data().splitlines()]
    document = operator.post(BULK, {"addresses": asked}).get_json()
    for one in (*told, *document["items"]):
        del one["decided_at"], one["as_of"], one["valid_until"]
    assert told == document["items"]
    assert [one["address"] for one in told] == asked


@pytest.mark.parametrize(("method", "status"), [("OPTIONS", 200), ("GET", 405), ("PUT", 405)])
def test_the_check_of_many_says_that_it_takes_post(operator: Caller, method: str, status: int) -> None:
    answer = operator.client.open(BULK, method=method, headers=operator.headers)
    assert answer.status_code == status
    assert set(answer.headers["Allow"].split(", ")) == {"POST", "OPTIONS"}


@pytest.mark.parametrize("method", ["OPTIONS", "GET", "POST", "HEAD"])
def test_a_slash_behind_the_bulk_check_is_no_address_and_no_resource(operator: Caller, method: str) -> None:
    for behind in ("/", "//"):
        answer = operator.client.open(BULK + behind, method=method, headers=operator.headers)
        assert (answer.status_code, "Allow" in answer.headers) == (404, False)
        assert method == "HEAD" or answer.get_json()["code"] == "no-such-resource"
    # Of an address, only this one is taken.
    assert operator.get("/v1/recipients/check/a@one.example").status_code == 200

"""Very many recipients checked later: taken, carried out, fetched by who asked, deleted."""

import gzip
import json
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, text
from werkzeug.test import TestResponse

from api.app import create_app
from api.front.roads import LARGEST_DOCUMENT, prefers_async
from api.jobs import recipient_checks
from api.rest.recipient_schemas import MOST_DEFERRED
from api.wiring import Container
from directory.access import revoke_token
from directory.base.audit import Actor
from pki.verdict import check_files, checks_store
from tests.api.certificates import certify
from tests.api.conftest import Caller
from tests.factories import seed_practitioner, seed_token

BULK = "/v1/recipients/check"
NDJSON = "application/x-ndjson"
LATER = {"Prefer": "respond-async"}


@pytest.fixture
def mailbox(engine: Engine, now: datetime) -> str:
    """A mailbox against which nothing stands."""
    seeded = seed_practitioner(engine)
    certify(engine, seeded.mailbox, now - timedelta(days=1))
    return seeded.mailbox


def ask(who: Caller, addresses: list[str], more: dict[str, str] | None = None, **body: Any) -> TestResponse:
    headers = {**who.headers, **LATER, **(more or {})}
    return who.client.post(BULK, json={"addresses": addresses, **body}, headers=headers)


def asked(who: Caller, addresses: list[str], **body: Any) -> str:
    """Where the check is that was asked for."""
    answer = ask(who, addresses, **body)
    assert answer.status_code == 202, answer.get_json()
    return answer.headers["Location"]


def fetch(who: Caller, path: str, **headers: str) -> TestResponse:
    """The answer, read to its end: a file is closed by then."""
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    return who.client.get(path, headers={**who.headers, **more}, buffered=True)


def lines(answer: TestResponse) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.get_json()
    return [json.loads(line) for line in gzip.decompress(answer.data).splitlines()]


def of_operator(engine: Engine, number: int, *names: str) -> None:
    """Let these tokens act for an operator."""
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE api_token SET operator_id = :number WHERE name = ANY(:names)"),
            {"number": number, "names": list(names)},
        )


def operator_number(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(text("SELECT min(id) FROM operator")).scalar_one())


def files(container: Container) -> list[str]:
    return sorted(path.name for path in container.settings.checks.glob("*"))


def test_what_is_asked_comes_later_in_the_order_asked(
    container: Container, operator: Caller, mailbox: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_files, "PART", 3)
    addresses = ["nobody@one.example", mailbox.upper(), "no address", mailbox, "nobody@one.example", "a\nb@c"]
    taken = ask(operator, [*addresses, mailbox])
    document = taken.get_json()
    assert (taken.status_code, taken.headers["Preference-Applied"]) == (202, "respond-async")
    assert (document["state"], document["number"], document["decided"]) == ("waiting", 7, 0)
    assert (document["asked_at"], document["kept_until"]) == ("2026-09-01T12:00:00Z", "2026-09-02T12:00:00Z")
    assert taken.headers["Location"] == document["location"] == f"/v1/recipient-checks/{document['id']}"
    early = fetch(operator, document["location"] + "/result")
    assert (early.status_code, early.get_json()["code"]) == (409, "check-not-done")
    assert recipient_checks.carry_out(container) == "1 checks ended"
    done = operator.get(document["location"]).get_json()
    assert (done["state"], done["decided"], done["finished_at"]) == ("done", 7, "2026-09-01T12:00:00Z")
    result = fetch(operator, done["result"]["location"])
    assert (done["result"]["size"], done["result"]["sha256"]) == (
        len(result.data), sha256(result.data).hexdigest(),
    )  # fmt: skip
    at_once = operator.post(BULK, {"addresses": [*addresses, mailbox]}).get_json()["items"]
    assert lines(result) == at_once
    assert {line["as_of"] for line in at_once} == {"2026-09-01T12:00:00Z"}


def test_lines_ask_as_well(container: Container, operator: Caller, mailbox: str) -> None:
    body = b'"nobody@one.example"\n' + json.dumps(mailbox).encode() + b"\n"
    headers = {**operator.headers, **LATER, "Content-Type": NDJSON}
    query = {"include": "fingerprints", "sender": mailbox}
    taken = operator.client.post(BULK, data=body, headers=headers, query_string=query)
    assert taken.status_code == 202, taken.get_json()
    recipient_checks.carry_out(container)
    first, second = lines(fetch(operator, taken.headers["Location"] + "/result"))
    assert (first["verdict"], second["verdict"]) == ("unknown", "allowed")
    assert second["certificates"] == [{"sha256": sha256(b"certificate 1").hexdigest()}]
    past = asked(operator, [mailbox], at="2026-09-01T13:00:00+02:00")
    recipient_checks.carry_out(container)
    (line,) = lines(fetch(operator, f"{past}/result"))
    assert line["as_of"] == "2026-09-01T11:00:00Z"


def test_more_than_a_document_holds_is_sent_in_lines(operator: Caller) -> None:
    long = "a" * 60 + "@b.example"
    number = LARGEST_DOCUMENT // len(long)
    answer = ask(operator, [long] * number)
    assert (answer.status_code, answer.get_json()["largest"]) == (413, LARGEST_DOCUMENT)
    assert "NDJSON" in answer.get_json()["detail"]
    body = b"\n".join([b'"%s"' % long.encode()] * number)
    headers = operator.headers | LATER | {"Content-Type": "application/x-ndjson"}
    taken = operator.client.post(BULK, data=body, headers=headers)
    assert (taken.status_code, taken.get_json()["number"]) == (202, number)


@pytest.mark.parametrize("value", ["1", '"a"'])
def test_very_many_tiny_values_are_refused_before_they_are_parsed(operator: Caller, value: str) -> None:
    headers = operator.headers | LATER
    for media, body in (
        ("application/x-ndjson", f"{value}\n" * (MOST_DEFERRED + 2_000)),
        ("application/json", f'{{"addresses":[{",".join([value] * (MOST_DEFERRED + 2_000))}]}}'),
    ):
        sent = operator.client.post(BULK, data=body, headers=headers | {"Content-Type": media})
        assert (sent.status_code, sent.get_json()["code"]) == (422, "invalid-request")
        assert "1,000,000" in sent.get_json()["detail"]


def test_lines_that_are_no_addresses_are_refused(operator: Caller) -> None:
    headers = {**operator.headers, "Content-Type": NDJSON}
    for body in (b"", b'"a@b.c"\n\n"c@d.e"', b'"a@b.c", "c@d.e"', b'"a\nb"', b'["a",\n"b"]', b"{", b"1"):
        answer = operator.client.post(BULK, data=body, headers={**headers, **LATER})
        assert answer.status_code in {400, 422}, body
    at_once = operator.client.post(BULK, data=b'"a@b.example"\n', headers=headers)
    assert at_once.get_json()["code"] == "unsupported-media-type"


@pytest.mark.parametrize(
    ("prefer", "deferred"),
    [
        ("respond-async", True),
        ("wait=10, Respond-Async", True),
        ("respond-async;a=1, handling=lenient", True),
        ("", False),
        ("return=minimal", False),
        ('x="a, respond-async"', False),
        ("no-respond-async", False),
    ],
)
def test_the_preference_is_read_as_rfc_7240_writes_it(prefer: str, *, deferred: bool) -> None:
    assert prefers_async(prefer) is deferred


def test_what_would_be_refused_at_once_is_refused_at_once(container: Container, operator: Caller) -> None:
    for body, code in (
        ({"sender": "no address"}, "malformed-address"),
        ({"at": "2026-09-01T12:00:01Z"}, "at-in-the-future"),
        ({"unknown": 1}, "invalid-request"),
        ({"addresses": ["a"] * 1_000_001}, "invalid-request"),
    ):
        assert ask(operator, **{"addresses": ["a@b.example"], **body}).get_json()["code"] == code
    twice = operator.client.post(
        BULK, json={"addresses": ["a@b.example"], "sender": "a@b.example"},
        query_string={"sender": "a@b.example"}, headers={**operator.headers, **LATER},
    )  # fmt: skip
    assert (twice.status_code, twice.get_json()["code"]) == (422, "invalid-request")
    assert files(container) == []
    many = operator.post(BULK, {"addresses": ["a@b.example"] * 10_001})
    assert "`Prefer: respond-async`" in many.get_json()["errors"][0]["message"]


def test_a_red_listed_mailbox_is_answered_by_its_exact_address(
    container: Container, operator: Caller, engine: Engine, now: datetime
) -> None:
    hidden = seed_practitioner(engine, 2, listed=False).mailbox
    certify(engine, hidden, now - timedelta(days=1), number=2)
    location = asked(operator, [hidden])
    recipient_checks.carry_out(container)
    (line,) = lines(fetch(operator, f"{location}/result"))
    (at_once,) = operator.post(BULK, {"addresses": [hidden]}).get_json()["items"]
    assert line == at_once
    assert line["verdict"] == "allowed"


def test_it_is_there_for_its_token_and_those_of_its_operator_alone(
    container: Container, operator: Caller, caller: Callable[..., Caller], engine: Engine, mailbox: str
) -> None:
    colleague, stranger = caller("operator", name="colleague"), caller("operator", name="stranger")
    auditor = caller("auditor")
    of_operator(engine, operator_number(engine), "operator", "colleague")
    location = asked(operator, [mailbox])
    recipient_checks.carry_out(container)
    for who, status in ((operator, 200), (colleague, 200), (stranger, 404), (auditor, 404)):
        for path in (location, f"{location}/result"):
            assert fetch(who, path).status_code == status
    for who in (stranger, auditor):
        assert who.client.delete(location, headers=who.headers).get_json()["code"] == "unknown-check"
    assert fetch(operator, location).status_code == 200


def test_a_revoked_token_leaves_nothing(
    container: Container, operator: Caller, caller: Callable[..., Caller], engine: Engine, mailbox: str
) -> None:
    colleague = caller("operator", name="colleague")
    of_operator(engine, operator_number(engine), "operator", "colleague")
    done, waiting = asked(operator, [mailbox]), ""
    recipient_checks.carry_out(container)
    waiting = asked(operator, [mailbox])
    with engine.begin() as connection:
        token_id = connection.execute(text("SELECT id FROM api_token WHERE name = 'operator'")).scalar_one()
        revoke_token(connection, now=container.clock(), actor=Actor("test"), token_id=token_id)
    for location in (done, waiting):
        assert colleague.get(location).status_code == 404
        assert colleague.get(f"{location}/result").status_code == 404
    assert recipient_checks.carry_out(container) == ""
    assert recipient_checks.remove(container) == "2 checks removed"
    assert files(container) == []


def test_deleted_it_is_gone_with_its_files(container: Container, operator: Caller, mailbox: str) -> None:
    waiting, done = asked(operator, [mailbox]), asked(operator, [mailbox])
    answer = operator.client.delete(waiting, headers=operator.headers)
    assert (answer.status_code, answer.get_json()["state"]) == (200, "deleted")
    recipient_checks.carry_out(container)
    operator.client.delete(done, headers=operator.headers)
    assert files(container) == []
    for location in (waiting, done):
        assert fetch(operator, location).get_json()["code"] == "unknown-check"


def test_a_token_has_three_that_wait(operator: Caller, container: Container) -> None:
    for _ in range(checks_store.MOST_WAITING):
        asked(operator, ["a@b.example"])
    answer = ask(operator, ["a@b.example"])
    assert (answer.status_code, answer.get_json()["code"]) == (429, "too-many-checks")
    # Said before the body is read: what cannot be read is not even looked at.
    unread = operator.client.post(BULK, data=b"{", headers=operator.headers | LATER)
    assert unread.get_json()["code"] == "too-many-checks"
    recipient_checks.carry_out(container)
    asked(operator, ["a@b.example"])


@pytest.fixture
def frugal(container: Container) -> Container:
    return replace(container, settings=replace(container.settings, reading_addresses_hour=10))


def test_all_addresses_count_when_they_are_taken(frugal: Container, engine: Engine) -> None:
    seed_token(engine, "frugal", role="operator")
    who = Caller(create_app(frugal).test_client(), "sceau_frugal")
    taken = ask(who, ["a@b.example"] * 10)
    assert (taken.status_code, ";r=0;" in taken.headers["RateLimit"]) == (202, True)
    refused = ask(who, ["a@b.example"])
    assert (refused.status_code, refused.get_json()["code"]) == (429, "reading-quota-reached")
    assert len(files(frugal)) == 1


def test_asked_twice_under_one_key_it_is_one(container: Container, operator: Caller, mailbox: str) -> None:
    key = {"Idempotency-Key": '"one"'}
    first, again = (ask(operator, [mailbox], key) for _ in range(2))
    assert (again.status_code, again.headers["Location"]) == (202, first.headers["Location"])
    assert again.headers["Preference-Applied"] == "respond-async"
    assert again.data == first.data
    assert len(files(container)) == 1
    assert ask(operator, ["other@one.example"], key).get_json()["code"] == "idempotency-key-reused"


def test_the_result_comes_in_parts_until_its_file_is_gone(
    container: Container, operator: Caller, mailbox: str
) -> None:
    location = asked(operator, [mailbox] * 50) + "/result"
    recipient_checks.carry_out(container)
    whole = fetch(operator, location)
    assert whole.content_type == "application/gzip"
    assert whole.headers["Cache-Control"] == "private, no-cache"
    rest = fetch(operator, location, Range="bytes=10-")
    assert (rest.status_code, rest.data) == (206, whole.data[10:])
    assert fetch(operator, location, If_None_Match=whole.headers["ETag"]).status_code == 304
    assert fetch(operator, location, Range=f"bytes={len(whole.data)}-").status_code == 416


def test_a_result_whose_file_is_gone_is_unknown(container: Container, operator: Caller, mailbox: str) -> None:
    location = asked(operator, [mailbox])
    recipient_checks.carry_out(container)
    check_files.result_path(container.settings.checks, UUID(location[-36:])).unlink()
    answer = fetch(operator, f"{location}/result")
    assert (answer.status_code, answer.get_json()["code"]) == (404, "unknown-check")


def test_its_files_are_for_the_service_alone(
    container: Container, operator: Caller, mailbox: str, caplog: pytest.LogCaptureFixture
) -> None:
    asked(operator, [mailbox])
    folder = container.settings.checks
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.iterdir())}
    recipient_checks.carry_out(container)
    modes |= {path: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert {modes.pop(folder), *modes.values()} == {0o700, 0o600}
    assert mailbox not in caplog.text


def test_what_cannot_be_taken_leaves_no_file(
    container: Container, operator: Caller, mailbox: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise OSError("no")

    with monkeypatch.context() as patched:
        patched.setattr(checks_store, "add", fails)
        assert ask(operator, [mailbox]).status_code == 500
    monkeypatch.setattr(check_files, "ROOM", 1 << 60)
    answer = ask(operator, [mailbox])
    assert (answer.status_code, answer.get_json()["code"]) == (503, "no-room-for-checks")
    assert files(container) == []


def test_after_a_day_all_of_it_is_gone(
    container: Container, operator: Caller, mailbox: str, now: datetime
) -> None:
    location = asked(operator, [mailbox])
    recipient_checks.carry_out(container)
    asked(operator, [mailbox])
    late = replace(container, clock=lambda: now + timedelta(hours=24))
    tomorrow = Caller(create_app(late).test_client(), operator.token)
    assert tomorrow.get(location).status_code == 404
    assert recipient_checks.carry_out(late) == ""
    assert recipient_checks.remove(late) == "2 checks removed"
    assert files(container) == []


def test_strays_are_removed_once_nobody_can_be_making_them(
    container: Container, operator: Caller, mailbox: str, now: datetime, tmp_path: Path
) -> None:
    del tmp_path
    asked(operator, [mailbox])
    folder = container.settings.checks
    (kept,) = folder.iterdir()
    old, young = folder / f"{UUID(int=1)}.asked.gz", folder / f"{UUID(int=2)}.asked.gz.new"
    odd = folder / "odd"
    for path, hours in ((kept, 2), (old, 2), (young, 0), (odd, 2)):
        path.touch()
        touch(path, now - timedelta(hours=hours))
    recipient_checks.remove(container)
    assert files(container) == sorted([kept.name, young.name])


def touch(path: Path, at: datetime) -> None:
    os.utime(path, (at.timestamp(), at.timestamp()))

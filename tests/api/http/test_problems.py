"""Whatever goes wrong ends in a problem document with a stable type, and tells nothing that it should not."""

import ast
import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from markupsafe import escape
from sqlalchemy import Engine, text

from api.app import LARGEST_BODY, create_app
from api.http.problems import CODE_OF_STATUS, STATUS, flattened
from api.wiring import Container
from api.words.problems import CATALOGUE, ENTRIES
from directory.base.db import connect_engine
from directory.base.errors import Kind
from directory.model import MailboxStanding
from tests.api.conftest import Caller

ROOT = Path(__file__).resolve().parents[3]
# Commands and jobs only: their refusals are read on a terminal or in a log.
NEVER_OVER_HTTP = (
    "directory/base/failpoints.py",
    "directory/base/unix_sockets.py",
    "directory/sync/",
    "directory/ldap/",
    "directory/access.py",
    "directory/base/rights.py",
    "directory/measures.py",
    "pki/crl/",
    "pki/acts/key_file.py",
    "pki/rollback/high_water.py",
    "pki/ocsp/",
    "pki/recovery/restore.py",
    "pki/tlog/",
    "pki/ceremony/",
    "pki/signing/journal.py",
)
OVER_HTTP_ALL_THE_SAME = ("directory/sync/runs/approvals.py", "directory/sync/runs/history.py")
# The signer refuses these to those who ask it wrongly, and the terminal the last to whoever brings a file.
NEVER_TO_CLIENTS = {
    "unknown-crl", "crl-number-reused", "too-many-at-once", "ca-key-exists", "bad-key-list",
}  # fmt: skip


def refusals_in_the_source(*, everywhere: bool = False) -> Iterator[tuple[str, str, str]]:
    """Each `Refusal(Kind.X, "code", …)` with where it stands."""
    for folder in (
        "directory",
        "pki",
        "api/rest",
        "api/http",
        "api/pages",
        "api/health",
        "api/front",
        "api/auth",
        "api/process/writing.py",
    ):
        for path in sorted((ROOT / folder).rglob("*.py")) or [ROOT / folder]:
            place = path.relative_to(ROOT).as_posix()
            if place.startswith(NEVER_OVER_HTTP) and place not in OVER_HTTP_ALL_THE_SAME and not everywhere:
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                if (
                    isinstance(node, ast.Call)
                    and getattr(node.func, "id", "") == "Refusal"
                    and len(node.args) > 1
                ):
                    kind, code = node.args[:2]
                    if isinstance(code, ast.Constant) and isinstance(kind, ast.Attribute):
                        yield place, kind.attr, code.value


def test_every_kind_of_refusal_has_a_status() -> None:
    assert set(STATUS) == set(Kind)


def test_every_refusal_in_the_source_is_explained_with_the_status_it_gets() -> None:
    found = set(refusals_in_the_source())
    assert len(found) > 30, "the search of the source finds what is there"
    wrong = {
        (place, code, CATALOGUE[code].status if code in CATALOGUE else None)
        for place, kind, code in found
        if code not in NEVER_TO_CLIENTS
        if code not in CATALOGUE or CATALOGUE[code].status != STATUS[Kind[kind]]
    }
    assert wrong == set()


def test_nothing_is_explained_that_nobody_refuses() -> None:
    of_the_edge = {*CODE_OF_STATUS.values(), "database-unavailable", "internal-error"}
    raised = {code for _, _, code in refusals_in_the_source(everywhere=True)}
    assert set(CATALOGUE) - raised - of_the_edge - {standing.value for standing in MailboxStanding} == set()


def test_each_code_is_explained_once_in_both_languages() -> None:
    assert len(CATALOGUE) == len(ENTRIES)
    for entry in ENTRIES:
        assert all((entry.title, entry.english, entry.french_title, entry.french)), entry.code


def test_the_reference_tells_of_every_problem() -> None:
    reference = (ROOT / "docs/reference/problems.md").read_text()
    missing = [
        e.code
        for e in ENTRIES
        if f"| {e.status} | `{e.code}` | {e.title} | {e.french_title} |" not in reference
    ]
    assert missing == []


def test_a_problem_type_leads_to_its_explanation(app: Flask) -> None:
    client = app.test_client()
    for code, entry in CATALOGUE.items():
        page = client.get(f"/problems/{code}")
        assert page.status_code == 200, code
        assert str(escape(entry.french_title)) in page.text, code


def test_a_problem_has_the_members_of_rfc_9457(anybody: Caller) -> None:
    answer = anybody.get("/v1/nothing-here")
    assert answer.content_type == "application/problem+json"
    assert answer.get_json() == {
        "type": "https://sceau.example/problems/no-such-resource",
        "title": "There is nothing at this address",
        "status": 404,
        "code": "no-such-resource",
        "detail": "Compare the path with /openapi.json; every resource of this service is listed there.",
    }


def test_an_unknown_method_is_told_the_known_ones(operator: Caller) -> None:
    answer = operator.client.delete("/v1/revocations/bulk", headers=operator.headers)
    assert (answer.status_code, answer.get_json()["code"]) == (405, "method-not-allowed")
    assert {"GET", "POST"} <= set(answer.headers["Allow"].split(", "))


def test_a_body_above_one_megabyte_is_refused_unread(operator: Caller) -> None:
    answer = operator.post("/v1/recipients/check", {"addresses": ["a" * LARGEST_BODY]})
    assert (answer.status_code, answer.get_json()["code"]) == (413, "body-too-large")


def test_a_body_without_a_length_has_the_same_limit(operator: Caller) -> None:
    """Chunked: the length shows only at the end, and a body cut off there could still be read as JSON."""
    body = b'{"addresses": ["a@one.example"]}'.ljust(LARGEST_BODY + 1)
    answer = operator.client.post(
        "/v1/recipients/check",
        input_stream=io.BytesIO(body),
        content_type="application/json",
        headers=operator.headers,
        environ_overrides={"wsgi.input_terminated": True},
    )
    assert (answer.status_code, answer.get_json()["code"]) == (413, "body-too-large")


@pytest.mark.parametrize(
    ("body", "media_type", "status", "code"),
    [
        (b"{", "application/json", 400, "malformed-request"),
        (b'{"addresses": ["\\ud800@one.example"]}', "application/json", 400, "malformed-request"),
        (b"\xff\xfe", "application/json", 400, "malformed-request"),
        (b"[" * 5000, "application/json", 400, "malformed-request"),
        (b"addresses=a", "application/x-www-form-urlencoded", 415, "unsupported-media-type"),
        (b"", "application/json", 422, "invalid-request"),
        (b"[]", "application/json", 422, "invalid-request"),
        (b"{}", "application/json", 422, "invalid-request"),
        (b'{"addresses": []}', "application/json", 422, "invalid-request"),
        (b'{"addresses": [1]}', "application/json", 422, "invalid-request"),
        (b'{"addresses": ["a@b.example"], "adresses": []}', "application/json", 422, "invalid-request"),
        (b'{"addresses": ["a@b.example"], "at": "2026-09-01"}', "application/json", 422, "invalid-request"),
        (
            b'{"addresses": ["a@b.example"], "at": "2026-09-01T12:00:00"}',
            "application/json",
            422,
            "invalid-request",
        ),
        (
            b'{"addresses": ["a@b.example"], "sender": "a\\u0000@b"}',
            "application/json",
            422,
            "invalid-request",
        ),
    ],
)
def test_a_body_that_does_not_fit_is_refused(
    body: bytes, media_type: str, status: int, code: str, operator: Caller
) -> None:
    answer = operator.client.post(
        "/v1/recipients/check", data=body, content_type=media_type, headers=operator.headers
    )
    assert (answer.status_code, answer.get_json()["code"]) == (status, code)


def test_validation_names_each_field_as_the_caller_wrote_it(operator: Caller) -> None:
    answer = operator.post("/v1/recipients/check", {"addresses": ["a@b.example", 7], "adresses": []})
    assert {line["field"] for line in answer.get_json()["errors"]} == {"addresses.1", "adresses"}


def test_an_unknown_query_parameter_is_refused_rather_than_ignored(operator: Caller) -> None:
    answer = operator.get("/v1/practitioners", nom="martin")
    assert answer.get_json()["errors"] == [{"field": "nom", "message": "Unknown field."}]


def test_the_tree_of_messages_becomes_lines() -> None:
    tree = {"json": {"identity_check": {"method": ["no"]}, "_schema": ["bad"]}}
    assert flattened(tree) == [
        {"field": "identity_check.method", "message": "no"},
        {"field": "", "message": "bad"},
    ]


def test_a_bug_shows_a_reference_and_nothing_else(
    container: Container, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(container)

    @app.get("/broken")
    def broken() -> str:
        raise RuntimeError("secret of the machine")

    with caplog.at_level(logging.ERROR, "sceau.error"):
        answer = app.test_client().get("/broken")
    document = answer.get_json()
    assert (answer.status_code, document["code"]) == (500, "internal-error")
    assert "secret" not in answer.text
    assert document["reference"] in caplog.text
    assert "secret of the machine" in caplog.text, "the log has it all"


def test_without_the_database_nothing_is_answered_but_that(container: Container) -> None:
    nowhere = connect_engine("postgresql+psycopg://nobody@/nothing?host=/nonexistent")
    app = create_app(Container(container.settings, nowhere, container.signer, container.clock))
    answer = app.test_client().get("/v1/recipients/a@b.example", headers={"Authorization": "Bearer sceau_x"})
    assert (answer.status_code, answer.get_json()["code"]) == (503, "database-unavailable")
    assert answer.headers["Retry-After"]


def test_a_failing_query_does_not_log_what_was_asked(
    operator: Caller, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE mailbox RENAME TO elsewhere"))
    engine.hide_parameters = True  # as api.wiring.build does
    answer = operator.get("/v1/recipients/someone.sought@one.example")
    assert answer.status_code == 500
    assert "UndefinedTable" in caplog.text
    assert "someone.sought" not in caplog.text


def test_every_answer_carries_the_guarding_headers(anybody: Caller) -> None:
    for path in ("/docs", "/v1/practitioners", "/healthz", "/nowhere", "/static/pages.css"):
        with anybody.get(path) as answer:
            headers = answer.headers
        assert headers["X-Content-Type-Options"] == "nosniff", path
        assert "default-src 'none'" in headers["Content-Security-Policy"], path
        assert headers["Strict-Transport-Security"], path
    assert anybody.get("/v1/practitioners").headers["Cache-Control"] == "no-store"


def test_details_never_displace_the_standard_members() -> None:
    from api.http.problems import problem

    made = problem("https://b", "bad-token", 401, "no", {"status": 200, "type": "x", "more": 1})
    document = json.loads(made.data)
    assert (document["status"], document["type"], document["more"]) == (
        401,
        "https://b/problems/bad-token",
        1,
    )

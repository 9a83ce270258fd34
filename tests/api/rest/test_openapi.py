"""The OpenAPI document: frozen, described in docs, obeyed by every answer that schemathesis can provoke."""

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from flask import Flask
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy
from jsonschema import Draft202012Validator
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from sqlalchemy import Engine

from api.app import create_app
from api.http.schemas import Shape
from api.rest.organisations import OrganisationsQuery
from api.rest.practitioners import PractitionersQuery
from api.wiring import Container
from directory.access import Role
from tests.api.certificates import certify, take_back
from tests.api.conftest import Caller
from tests.factories import seed_organisation, seed_practitioner, seed_token

ROOT = Path(__file__).resolve().parents[3]
GOLDEN = ROOT / "tests/golden/openapi.json"
PROMISES = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
# For each operation, role and mode; always others, and many in the long run.
EXAMPLES = int(os.environ.get("SCEAU_EXAMPLES", "3"))
METHODS = {"get", "post", "put", "patch", "delete"}


@schemathesis.serializer("application/jose")
def as_it_is(_: schemathesis.SerializationContext, value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode(errors="replace")


@pytest.fixture
def document(anybody: Caller) -> dict[str, Any]:
    return anybody.get("/openapi.json").get_json()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method in METHODS & set(methods):
            yield method.upper(), path, methods[method]


def test_the_document_is_as_frozen(document: dict[str, Any]) -> None:
    """Operators generate their clients from it: a renamed field or a new required one breaks mail to doctors.

    Additions are accepted by deleting the file and running this once; anything else needs a /v2.
    """
    if not GOLDEN.exists():
        GOLDEN.write_text(json.dumps(document, indent=1, ensure_ascii=False, sort_keys=True) + "\n")
        pytest.fail("openapi.json was written: look at it and commit it")
    assert document == json.loads(GOLDEN.read_text())


def test_it_is_openapi_3_1_and_its_examples_fit_their_schemas(document: dict[str, Any]) -> None:
    assert document["openapi"] == "3.1.0"
    for name, schema in document["components"]["schemas"].items():
        Draft202012Validator.check_schema(schema)
        for member, described in schema.get("properties", {}).items():
            if "example" in described:
                Draft202012Validator(described).validate(described["example"]), f"{name}.{member}"


def test_every_operation_is_told_in_both_languages_and_says_who_may(document: dict[str, Any]) -> None:
    for method, path, one in operations(document):
        assert set(one["x-titles"]) == {"fr", "en"}, (method, path)
        assert all(one["x-titles"].values()), (method, path)
        assert one["description"].count("\n\n") == 1, (method, path)
        assert one["security"] == ([{"bearer": []}] if one["x-roles"] else []), (method, path)


# For people: HTML, style sheets, and this document itself.
PAGES = {
    "/", "/docs", "/openapi.json", "/static/{filename}", "/problems", "/problems/{code}", "/registers",
    "/registers/runs/{run_id}", "/expiring",
}  # fmt: skip


def test_all_that_is_served_is_described(app: Flask, document: dict[str, Any]) -> None:
    served = {re.sub(r"<(?:[a-z]+:)?([a-z_]+)>", r"{\1}", rule.rule) for rule in app.url_map.iter_rules()}
    status = {
        "/ocsp", "/ocsp/{request}", "/crl/{ca}/{shard}.crl", "/crl/{ca}/{shard}-delta.crl", "/ca/{ca}.cer",
        "/ca/{ca}.p7c", "/ca/bundle.p7b",
    }  # fmt: skip
    assert set(document["paths"]) == (served - PAGES) | status


def test_the_reference_has_every_operation_and_no_other(document: dict[str, Any]) -> None:
    page = (ROOT / "docs/reference/rest.md").read_text()
    described = set(re.findall(r"^\| `(GET|POST|PUT|DELETE) (/[^`]+)` \| ([a-z, ]+) \|", page, re.MULTILINE))
    assert described == {
        (method, path, ", ".join(one["x-roles"]) or "anybody") for method, path, one in operations(document)
    }


def test_the_page_for_people_shows_every_operation_and_needs_nothing_from_outside(
    anybody: Caller, document: dict[str, Any]
) -> None:
    page = anybody.get("/docs").text
    for _, path, one in operations(document):
        assert f'id="{one["operationId"]}"' in page
        assert path in page
    assert "<script" not in page
    assert re.findall(r'(?:src|href)="(?:https?:)?//', page) == []
    with anybody.get("/static/pages.css") as sheet:
        assert sheet.status_code == 200
        assert "url(" not in sheet.text


PATTERNS_IN_A_JAVASCRIPT_CLIENT = """
const Ajv = require("ajv"), document = JSON.parse(require("fs").readFileSync(0)), ajv = new Ajv();
let compiled = 0;
const walk = (value) => {
  if (value === null || typeof value !== "object") return;
  if (typeof value.pattern === "string") {
    new RegExp(value.pattern, "u");
    if (ajv.compile({type: "string", pattern: value.pattern})("no such value\\n")) throw Error(value.pattern);
    compiled += 1;
  }
  Object.values(value).forEach(walk);
};
walk(document);
console.log(compiled);
"""


def test_every_pattern_compiles_in_a_javascript_client(document: dict[str, Any]) -> None:
    """ajv, and the flag `u` that its version 8 sets: `\\Z` is no ECMA-262 (8 of 10 patterns had it)."""
    done = subprocess.run(
        ["node", "-e", PATTERNS_IN_A_JAVASCRIPT_CLIENT],
        input=json.dumps(document), env=os.environ | {"NODE_PATH": "/usr/share/nodejs"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == json.dumps(document).count('"pattern": "') >= 10


# Beside each of two of these and each number of three digits: what is no department, and other codes.
SIGNS = "0123456789ABDGJKabdgjkz "
CODES = [
    *map("".join, product(SIGNS, repeat=2)), *SIGNS, *(f"{number:03}" for number in range(1000)),
    " 2a ", "SM04", "sm04", "\u017fm04", "m\u0131", "10\n", "A" * 10, "a" * 11, "é",
]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "query", "name", "lenient"),
    [
        ("/v1/practitioners", PractitionersQuery, "department", "9j"),
        ("/v1/organisations", OrganisationsQuery, "department", "1"),
        ("/v1/practitioners", PractitionersQuery, "profession", "a"),
        ("/v1/practitioners", PractitionersQuery, "skill", "sm04"),
    ],
)
def test_the_document_allows_just_the_codes_that_are_read(
    path: str, query: type[Shape], name: str, lenient: str, document: dict[str, Any]
) -> None:
    parameters = {one["name"]: one["schema"] for one in document["paths"][path]["get"]["parameters"]}
    check = re.compile(parameters[name]["pattern"])
    read = {code for code in CODES if not query().validate({name: code})}
    assert {code for code in CODES if check.search(code)} == read
    assert lenient in read


def test_a_line_end_is_no_part_of_a_code(operator: Caller) -> None:
    assert operator.get("/v1/practitioners", name="martin", department="7\n5").status_code == 422


def resolved(schema: Any, document: dict[str, Any]) -> dict[str, Any]:
    """The schema on its own feet, with the document's components beside it."""
    return {**schema, "components": document["components"]}


def test_verdicts_made_by_hand_fit_the_schema_that_documents_them(
    operator: Caller, document: dict[str, Any], engine: Engine, now: datetime
) -> None:
    mailbox = seed_practitioner(engine).mailbox
    certify(engine, mailbox, now)
    answers = {
        "/v1/recipients/{address}": operator.get(f"/v1/recipients/{mailbox}").get_json(),
        "/v1/recipients/check": operator.post(
            "/v1/recipients/check", {"addresses": [mailbox, "x"]}
        ).get_json(),
    }
    for path, answer in answers.items():
        one = next(iter(document["paths"][path][m] for m in METHODS & set(document["paths"][path])))
        schema = one["responses"]["200"]["content"]["application/json"]["schema"]
        Draft202012Validator(resolved(schema, document)).validate(answer)


@pytest.fixture
def container(issuing: Container) -> Container:
    return issuing


@pytest.mark.parametrize("role", [role.value for role in Role])
def test_no_request_whatever_makes_the_service_fail_or_answer_off_the_document(
    role: str, container: Container, engine: Engine, now: datetime
) -> None:
    """Schemathesis: requests that fit the document and requests that do not, as each role."""
    people = [seed_practitioner(engine, number) for number in range(1, 4)]
    seed_organisation(engine)
    for number, someone in enumerate(people, 1):
        certify(engine, someone.mailbox, now - timedelta(days=1), number=number, holder=someone.national_id)
    take_back(engine, f"{3:040x}", now)
    seed_token(engine, role, role=role)
    schema = schemathesis.openapi.from_wsgi("/openapi.json", create_app(container))
    headers = {"Authorization": f"Bearer sceau_{role}"}
    tried: list[int] = []

    def run(case: schemathesis.Case) -> None:
        answer = case.call(headers=headers)
        tried.append(answer.status_code)
        case.validate_response(answer, checks=PROMISES)

    # Status is answered in front of Flask; tests/api/status/test_status_over_http.py asks it with openssl.
    # Readiness answers 503 where it should (test_health.py), and a trust list takes nothing that could be
    # wrong (test_the_trust_list.py).
    open_acts = () if role == Role.AUDITOR.value else ("open-acts",)
    for result in schema.exclude(tag=["status", "operation", "trust", *open_acts]).get_all_operations():
        operation = result.ok()
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            _each(operation.as_strategy(generation_mode=mode), run)
    assert len(tried) > 100


def _each(cases: SearchStrategy[schemathesis.Case], run: Callable[[schemathesis.Case], None]) -> None:
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases)
    def tried(case: schemathesis.Case) -> None:
        run(case)

    tried()

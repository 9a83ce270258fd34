"""Who may do what: each operation against no token, a wrong one, and each role, as the document says."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import Engine, text

from directory.access import Role
from tests.api.conftest import Caller

VALUES = {
    "address": "a@one.example",
    "national_id": "810099000019",
    "serial": "2a",
    "finess": "250990033",
    "stamp": "latest",
    "file": "manifest.json",
    "measure_id": "12",
    "bulk_id": "3",
    "correction_id": "7",
    "batch_id": "3f0e6f0e-7a4b-4c39-9f0e-0a4f7b1c2d3e",
    "enrolment_id": "3f0e6f0e-7a4b-4c39-9f0e-0a4f7b1c2d3e",
    "run_id": "41",
    "check_id": "3f0e6f0e-7a4b-4c39-9f0e-0a4f7b1c2d3e",
}


def described(app: Flask) -> Iterator[tuple[str, str, dict[str, Any]]]:
    document = app.test_client().get("/openapi.json").get_json()
    for path, methods in document["paths"].items():
        for method, one in methods.items():
            if method != "parameters":
                yield method.upper(), path, one


def operations(app: Flask) -> Iterator[tuple[str, str, set[str]]]:
    """Those that ask for a token."""
    for method, path, one in described(app):
        if one["security"]:
            yield method, path.format(**VALUES), set(one["x-roles"])


def test_what_asks_for_no_token_is_what_is_published_anyway(app: Flask) -> None:
    found = {path for _, path, one in described(app) if not one["security"]}
    assert found == {
        "/ca/bundle.p7b", "/ca/{ca}.cer", "/ca/{ca}.p7c", "/crl/{ca}/{shard}.crl",
        "/crl/{ca}/{shard}-delta.crl", "/ocsp", "/ocsp/{request}", "/healthz", "/readyz", "/metrics",
        "/trust-list.xml", "/trust-list.xml.jws", "/trust-list.xml.sha256", "/v1/trust-list",
        "/v1/trust-list/{version}",
        # Proved by the key itself.
        "/v1/revocations",
    }  # fmt: skip
    assert all(not one["x-roles"] for _, _, one in described(app) if not one["security"])


def refused_for_the_role(caller: Caller, method: str, path: str) -> bool:
    asked = caller.client.open(
        path, method=method, json=None if method == "GET" else {}, headers=caller.headers
    )
    # A role that may act can still be refused: a token that names no operator, for one.
    return asked.status_code == 403 and asked.get_json()["type"].endswith("/role-lacking")


def test_each_operation_refuses_every_role_it_does_not_name(
    app: Flask, caller: Callable[..., Caller]
) -> None:
    callers = {role.value: caller(role.value) for role in Role}
    for method, path, roles in operations(app):
        for role, one in callers.items():
            refused = refused_for_the_role(one, method, path)
            assert refused == (role not in roles), (method, path, role)


def test_the_roles_are_those_promised(app: Flask) -> None:
    promised = {
        ("GET", "/v1/expiring"): {"operator", "registrar", "auditor", "admin"},
        ("GET", "/v1/recipients/a@one.example"): {"operator", "registrar", "auditor"},
        ("POST", "/v1/recipients/check"): {"operator", "registrar", "auditor"},
        ("GET", f"/v1/recipient-checks/{VALUES['check_id']}"): {"operator", "registrar", "auditor"},
        ("GET", f"/v1/recipient-checks/{VALUES['check_id']}/result"): {"operator", "registrar", "auditor"},
        ("DELETE", f"/v1/recipient-checks/{VALUES['check_id']}"): {"operator", "registrar", "auditor"},
        ("GET", "/v1/practitioners"): {"operator", "registrar", "auditor"},
        ("GET", "/v1/practitioners/810099000019"): {"operator", "registrar", "auditor"},
        ("GET", "/v1/organisations"): {"operator", "registrar", "auditor"},
        ("GET", "/v1/organisations/250990033"): {"operator", "registrar", "auditor"},
        ("POST", "/v1/measures/12/prolongation"): {"registrar"},
        ("POST", "/v1/measures/12/shortening"): {"registrar"},
        ("POST", "/v1/measures/12/annulment"): {"registrar"},
        ("POST", "/v1/enrolments"): {"registrar"},
        ("POST", "/v1/enrolments/drafts"): {"registrar"},
        ("GET", f"/v1/enrolments/{VALUES['enrolment_id']}/draft"): {"registrar"},
        ("GET", "/v1/enrolments"): {"registrar", "auditor"},
        ("GET", f"/v1/enrolments/{VALUES['enrolment_id']}"): {"registrar", "auditor"},
        ("POST", f"/v1/enrolments/{VALUES['enrolment_id']}/withdrawal"): {"registrar"},
        ("POST", f"/v1/enrolments/{VALUES['enrolment_id']}/approval"): {"registrar"},
        ("POST", f"/v1/enrolments/{VALUES['enrolment_id']}/certificates"): {"registrar"},
        ("POST", f"/v1/enrolments/{VALUES['enrolment_id']}/pkcs12"): {"registrar"},
        ("POST", "/v1/keys/compromised"): {"admin", "auditor", "operator", "registrar"},
        ("POST", "/v1/batches"): {"registrar"},
        ("GET", f"/v1/batches/{VALUES['enrolment_id']}"): {"registrar", "auditor"},
        ("POST", "/v1/enrolments/approvals"): {"registrar"},
        ("POST", "/v1/operator/certificates"): {"operator"},
        ("GET", "/v1/operator/certificates"): {"operator"},
        ("GET", "/v1/operator/contacts"): {"operator"},
        ("PUT", "/v1/operator/contacts"): {"operator"},
        ("GET", "/v1/certificates/2a"): {"operator", "registrar", "auditor"},
        ("GET", "/v1/certificates/2a/history"): {"auditor"},
        ("POST", "/v1/certificates/2a/revocation"): {"registrar", "operator", "admin"},
        ("POST", "/v1/certificates/2a/release"): {"registrar", "operator", "admin"},
        ("POST", "/v1/certificates/2a/reason"): {"registrar", "operator", "admin"},
        ("POST", "/v1/revocations/bulk"): {"admin"},
        ("GET", "/v1/revocations/bulk"): {"admin", "auditor"},
        ("GET", "/v1/revocations/bulk/3"): {"admin", "auditor"},
        ("POST", "/v1/revocations/bulk/3/approvals"): {"admin"},
        ("POST", "/v1/revocations/bulk/3/stop"): {"admin"},
        ("POST", "/v1/practitioners/810099000019/measures"): {"registrar"},
        ("GET", "/v1/practitioners/810099000019/measures"): {"auditor", "registrar"},
        ("POST", "/v1/measures/12/lifting"): {"registrar"},
        ("POST", "/v1/corrections"): {"admin", "registrar"},
        ("GET", "/v1/corrections"): {"admin", "auditor", "registrar"},
        ("POST", "/v1/corrections/7/withdrawal"): {"admin", "registrar"},
        ("GET", "/v1/attention"): {"admin", "auditor", "registrar"},
        ("GET", "/v1/withdrawal-limits"): {"admin", "auditor", "operator", "registrar"},
        ("POST", "/v1/withdrawal-limits/agreements"): {"admin", "operator", "registrar"},
        ("GET", "/v1/clock/resets"): {"admin", "auditor"},
        ("POST", "/v1/clock/resets"): {"admin"},
        ("GET", "/v1/changes"): {"operator", "auditor"},
        ("GET", "/v1/exports"): {"operator", "auditor"},
        ("GET", "/v1/exports/latest"): {"operator", "auditor"},
        ("GET", "/v1/exports/latest/manifest.json"): {"operator", "auditor"},
        ("GET", "/v1/registers"): {"operator", "registrar", "auditor", "admin"},
        ("GET", "/v1/registers/runs"): {"operator", "registrar", "auditor", "admin"},
        ("GET", "/v1/registers/runs/41"): {"operator", "registrar", "auditor", "admin"},
        ("GET", "/v1/registers/runs/41/rejections"): {"auditor", "admin"},
        ("POST", "/v1/registers/runs/41/approvals"): {"admin"},
    }
    assert {(method, path): roles for method, path, roles in operations(app)} == promised


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, "no-token"),
        ("", "no-token"),
        ("Bearer", "no-token"),
        ("Bearer ", "no-token"),
        ("Basic c2NlYXU6eA==", "no-token"),
        ("Bearer sceau_wrong", "bad-token"),
        ("Bearer " + "x" * 5000, "bad-token"),
        ("Bearer sceau_é", "bad-token"),
    ],
)
def test_without_a_live_token_no_operation_answers(header: str | None, code: str, app: Flask) -> None:
    for method, path, _ in operations(app):
        headers = {} if header is None else {"Authorization": header}
        answer = app.test_client().open(path, method=method, headers=headers)
        assert (answer.status_code, answer.get_json()["code"]) == (401, code), (method, path)
        assert answer.headers["WWW-Authenticate"].startswith('Bearer realm="sceau"')


def test_a_token_stops_at_the_very_next_request_after_its_revocation(
    operator: Caller, engine: Engine
) -> None:
    assert operator.get("/v1/practitioners").status_code == 200
    with engine.begin() as connection:
        connection.execute(text("UPDATE api_token SET revoked_at = created_at"))
    assert operator.get("/v1/practitioners").status_code == 401


def test_an_expired_token_is_refused(operator: Caller, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE api_token SET expires_at = created_at + interval '1 second'"))
    assert operator.get("/v1/practitioners").status_code == 401


def test_who_has_no_token_is_told_so_before_the_body_is_looked_at(anybody: Caller) -> None:
    answer = anybody.client.post("/v1/enrolments", data=b"{", content_type="application/json")
    assert answer.status_code == 401

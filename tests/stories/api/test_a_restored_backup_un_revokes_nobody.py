"""The database put back to an older moment while what lies outside stays: nobody becomes good again by it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from sqlalchemy import text

from api.app import create_app
from api.installation import status as condition
from api.jobs import crl as crl_job
from api.jobs import table as jobs
from api.wiring import Container
from directory.base.db import transaction
from directory.base.errors import Refusal
from pki.crl import publish as crl
from pki.crl import store as crl_store
from pki.model import RevocationReason
from pki.rollback import high_water
from tests.factories import seed_token
from tests.restored import Machine, operator
from tests.statements import heard
from tests.wsgi_client import request

Reason = RevocationReason
AUDITED = "declared by command:restore"


def test_ocsp_calls_nothing_good_that_the_record_may_have_forgotten(
    machine: Machine, lost: dict[str, Any], tmp_path: Path
) -> None:
    status = machine.status()
    for name in ("revoked", "held", "good", "issued", "issued and revoked"):
        said = machine.asked_by_openssl(status, lost[name], tmp_path)
        assert "trylater" in said, (name, said)
    assert ": revoked" in machine.asked_by_openssl(status, lost["revoked before"], tmp_path)


def test_an_answer_in_memory_is_not_given_again(machine: Machine) -> None:
    issued = machine.issue()
    machine.run_jobs()
    copy = machine.back_up()
    machine.revoke(machine.issue(), Reason.SUPERSEDED)
    machine.run_jobs()
    status = machine.status()
    # As if the listener had been heard from: what is tested is the other condition.
    status.answers.replies.is_vouched_for = lambda: True  # type: ignore[method-assign]
    answers = status.answers
    key = "/ocsp/of-this-test"
    question = _question(machine, issued)
    assert answers.answer(question, key, is_get=True).etag
    assert answers.remembered(key) is not None
    machine.put_back(copy)
    # For the seconds that one look counts, and no longer.
    machine.later(seconds=4)
    assert answers.remembered(key) is not None
    machine.later(seconds=2)
    assert answers.remembered(key) is None
    assert answers.answer(question, key, is_get=True).body == b"\x30\x03\x0a\x01\x03"


def _question(machine: Machine, issued: Any) -> bytes:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509 import ocsp

    with machine.container.engine.connect() as connection:
        der = connection.execute(text("SELECT der FROM authority WHERE id = 'persons-1'")).scalar_one()
    issuer = x509.load_der_x509_certificate(der)
    leaf = x509.load_der_x509_certificate(issued.der)
    built = ocsp.OCSPRequestBuilder().add_certificate(leaf, issuer, hashes.SHA1())
    return built.build().public_bytes(Encoding.DER)


def test_no_crl_is_made_and_the_last_good_one_is_given(
    machine: Machine, lost: dict[str, Any], tmp_path: Path
) -> None:
    container, issued = machine.container, lost["revoked"]
    assert jobs.run_job(container, "crl") is None
    with pytest.raises(Refusal) as refused:
        jobs.run_job(container, "crl", forced=True)
    assert refused.value.code == "record-behind"
    with pytest.raises(Refusal, match="sceau restore check"):
        crl_job.publish_shards(container, every=True)
    served = machine.served_list(machine.status(), issued)
    assert "certificate revoked" in machine.verified_by_openssl(issued, served, tmp_path)


def test_without_a_copy_of_the_last_crl_none_older_is_given(machine: Machine, lost: dict[str, Any]) -> None:
    for kept in (machine.container.settings.kept.floor.parent / "lists").iterdir():
        kept.unlink()
    path = f"/crl/{lost['revoked'].authority_id}/{lost['revoked'].shard}.crl"
    assert request(machine.status(), "GET", path)[0].startswith("503")
    # What the floor does not say is forgotten is given as it is.
    assert request(machine.status(), "GET", "/crl/root-1/0.crl")[0].startswith("200")


def test_the_gate_stops_a_crl_that_rests_on_fewer_events_than_the_last(
    machine: Machine, lost: dict[str, Any]
) -> None:
    """Whoever writes into the database may number as he likes: the signer counts for itself."""
    container, issued = machine.container, lost["revoked"]
    place = (issued.authority_id, issued.shard)
    with transaction(container.engine) as connection:
        crl_store.raise_numbers(connection, high_water.numbers(container.settings.kept.floor))
    path = container.settings.kept.floor
    # The heads aside, only the count of events is left to tell.
    container.settings.kept.heads.rename(container.settings.kept.heads.with_suffix(".away"))
    with pytest.raises(Refusal) as refused:
        crl.publish(
            container.engine, container.signer, authority_id=place[0], shard=place[1], now=machine.clock.now,
            lifetime=crl_job.CRL_BYTES_KEPT, floor_file=path,
        )  # fmt: skip
    assert refused.value.code == "record-behind"


def test_verdicts_and_whatever_gives_trust_are_refused_and_revocations_are_not(
    machine: Machine, lost: dict[str, Any]
) -> None:
    client = create_app(machine.container).test_client()
    asks = operator(machine)
    for path in (f"/v1/recipients/{lost['revoked'].mailbox}", f"/v1/certificates/{lost['good'].serial}"):
        answer = client.get(path, headers=asks)
        assert (answer.status_code, answer.get_json()["code"]) == (503, "record-behind"), path
        assert "Retry-After" in answer.headers
    assert client.get("/v1/trust-list").status_code == 503
    seed_token(machine.container.engine, "registers")
    registrar = {"Authorization": "Bearer sceau_registers"}
    path = f"/v1/certificates/{lost['good'].serial}/revocation"
    done = client.post(path, json={"reason": "superseded"}, headers=registrar)
    assert done.status_code == 200
    with pytest.raises(Refusal) as refused:
        machine.issue()
    assert refused.value.code == "record-behind"


def test_health_status_and_jobs_say_what_to_do(machine: Machine, lost: dict[str, Any]) -> None:
    del lost
    client = create_app(machine.container).test_client()
    checks = client.get("/readyz").get_json()["checks"]
    assert checks["record"]["state"] == "degraded"
    assert "sceau restore check" in checks["record"]["reason"]
    assert "sceau_record_behind 1.0" in client.get("/metrics").text
    seen = condition.look(machine.container.settings)
    assert seen["record"]["state"] == "behind"
    assert seen["state"] != "ok"
    with pytest.raises(Refusal, match="sceau restore check"):
        jobs.run_job(machine.container, "completeness")


def test_a_dump_loaded_by_the_tools_of_postgresql_is_noticed(machine: Machine) -> None:
    issued = machine.issue()
    machine.run_jobs()
    dump = machine.dump()
    machine.revoke(issued, Reason.KEY_COMPROMISE)
    machine.run_jobs()
    assert machine.container.watch.look() == []
    machine.load(dump)
    assert len(machine.container.watch.look()) == 2


@pytest.mark.parametrize("witness", ["floor", "heads"])
def test_one_witness_is_enough(machine: Machine, lost: dict[str, Any], witness: str) -> None:
    del lost
    kept = machine.container.settings.kept
    (kept.heads if witness == "floor" else kept.floor).unlink()
    machine.forget()
    assert len(machine.container.watch.look()) == 1


def put_back_nothing(machine: Machine) -> None:
    """A normal restart."""
    machine.forget()


def lose_the_files(machine: Machine) -> None:
    kept = machine.container.settings.kept
    kept.floor.unlink()
    kept.heads.unlink()
    machine.forget()


@pytest.mark.parametrize("what", [put_back_nothing, lose_the_files])
def test_a_restart_and_lost_files_block_nobody(
    machine: Machine, what: Callable[[Machine], None], tmp_path: Path
) -> None:
    issued = machine.issue()
    machine.run_jobs()
    what(machine)
    assert machine.container.watch.look() == []
    assert ": good" in machine.asked_by_openssl(machine.status(), issued, tmp_path)
    machine.later(hours=2)
    machine.run_jobs()
    assert machine.issue().serial


def test_looking_costs_no_statement_for_each_answer(machine: Machine) -> None:
    issued = machine.issue()
    machine.run_jobs()
    statements: list[str] = []
    status, question = machine.status(), _question(machine, issued)
    client = create_app(machine.container).test_client()
    asks = operator(machine)
    with heard(machine.container.engine, statements.append):
        for _ in range(20):
            status.answers.answer(question, "", is_get=False)
            assert client.get(f"/v1/recipients/{issued.mailbox}", headers=asks).status_code == 200
    looks = [one for one in statements if "crl_shard" in one or "lost_head" in one]
    # One look of two statements by each part, for all answers of these seconds.
    assert len(looks) == 4


def test_an_empty_first_run_is_complete(container: Container) -> None:
    assert container.watch.look() == []
    assert container.watch.is_known_complete()

"""One bit is flipped in what the record keeps signed: it is refused, the last good one goes on, else 503."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from sqlalchemy import Engine, text

from api.app import create_app
from api.jobs.trust_list import publish
from api.status.answers import Answers
from api.status.files import Files
from api.wiring import Container
from directory.base.clock import utc_now
from pki.crl import parsing
from pki.ocsp import responders
from pki.publication.store import crls_in_force
from pki.rollback import high_water
from tests.conftest import NOON
from tests.factories import seed_practitioner
from tests.status_ca import ISSUING, PASSPHRASE, ROOT, StatusCa


def flipped(whole: bytes, at: int) -> bytes:
    """The same bytes but for one bit."""
    changed = bytearray(whole)
    changed[at] ^= 1
    return bytes(changed)


def put(engine: Engine, statement: str, **values: object) -> None:
    """Change a row as a disk does: past the triggers that would not have it."""
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        assert connection.execute(text(statement), values).rowcount == 1


def read(engine: Engine, query: str) -> bytes:
    with engine.connect() as connection:
        return bytes(connection.execute(text(query)).scalar_one())


@pytest.fixture
def ca(engine: Engine) -> StatusCa:
    return StatusCa(engine, utc_now()).establish()


@pytest.fixture
def files(engine: Engine) -> Callable[..., Files]:
    """A web process that has loaded nothing yet."""
    return lambda kept=None: Files(engine, lambda: False, kept)


NEWEST = "SELECT der FROM crl WHERE shard = 0 AND authority_id = 'persons-1' ORDER BY number DESC LIMIT 1"
SPOIL = "UPDATE crl SET der = :der WHERE authority_id = 'persons-1' AND shard = 0 AND der = :was"


@pytest.mark.parametrize("part", ["first octets", "an entry", "signature"])
def test_a_crl_is_refused_and_the_last_good_one_goes_on(
    part: str, ca: StatusCa, engine: Engine, files: Callable[..., Files], tmp_path: Path
) -> None:
    revoked = ca.issue()
    ca.revoke(revoked)
    ca.publish()
    running = files()
    good = running.crl(ISSUING, 0)
    assert good.status == "200 OK"
    ca.revoke(ca.issue())
    ca.now += timedelta(minutes=1)
    ca.publish()
    newest = read(engine, NEWEST)
    serial = int(revoked.serial, 16).to_bytes(20, "big")
    place = {"first octets": 6, "an entry": newest.index(serial) + 9, "signature": len(newest) - 5}[part]
    bad = flipped(newest, place)
    put(engine, SPOIL, der=bad, was=newest)
    assert running.crl(ISSUING, 0).body == good.body
    assert files().crl(ISSUING, 0).status == "503 Service Unavailable"
    # The copy beside the floor is the same CRL, unharmed.
    kept = tmp_path / "floor" / "crl.json"
    high_water.raise_to(kept, f"{ISSUING}/0", parsing.number_of(newest))
    high_water.keep_list(kept, f"{ISSUING}/0", newest)
    assert files(kept).crl(ISSUING, 0).body == newest
    high_water.keep_list(kept, f"{ISSUING}/0", bad)
    assert files(kept).crl(ISSUING, 0).status == "503 Service Unavailable"
    put(engine, SPOIL, der=newest, was=bad)
    assert files().crl(ISSUING, 0).body == newest


@pytest.mark.parametrize("delta", [False, True], ids=["complete", "delta"])
def test_ldap_is_given_no_shard_of_which_a_list_is_not_what_was_signed(
    ca: StatusCa, engine: Engine, *, delta: bool
) -> None:
    ca.publish()
    ca.revoke(ca.issue())
    ca.now += timedelta(minutes=1)
    ca.publish(delta=True)

    def shards() -> set[tuple[str, int]]:
        with engine.connect() as connection:
            return {(authority, shard) for authority, shard, *_ in crls_in_force(connection, None)}

    before = shards()
    assert (ISSUING, 0) in before
    whole = read(engine, NEWEST.replace("shard = 0", f"shard = 0 AND (base IS NOT NULL) = {delta}"))
    put(engine, SPOIL, der=flipped(whole, len(whole) - 5), was=whole)
    assert shards() == before - {(ISSUING, 0)}


def test_another_shards_crl_of_the_same_ca_is_no_substitute_for_its_number(
    ca: StatusCa, engine: Engine, files: Callable[..., Files]
) -> None:
    ca.publish()
    ca.now += timedelta(minutes=1)
    ca.publish()
    older = read(engine, NEWEST.replace("DESC", "ASC"))
    put(engine, SPOIL, der=older, was=read(engine, NEWEST))
    assert files().crl(ISSUING, 0).status == "503 Service Unavailable"


def test_the_certificate_of_a_ca_is_refused_alone_and_in_the_bundles(
    ca: StatusCa, engine: Engine, files: Callable[..., Files]
) -> None:
    running = files()
    good = running.certificate(ISSUING), running.certificates(ISSUING), running.bundle()
    assert {one.status for one in good} == {"200 OK"}
    whole = ca.certificates[ISSUING].public_bytes(Encoding.DER)
    put(engine, "UPDATE authority SET der = :der WHERE id = 'persons-1'", der=flipped(whole, len(whole) - 5))
    again = running.certificate(ISSUING), running.certificates(ISSUING), running.bundle()
    assert [one.body for one in again] == [one.body for one in good]
    fresh = files()
    refused = fresh.certificate(ISSUING), fresh.certificates(ISSUING), fresh.bundle()
    assert {one.status for one in refused} == {"503 Service Unavailable"}
    assert fresh.certificate(ROOT).status == "200 OK"


def test_an_ocsp_answer_signed_ahead_is_signed_anew(ca: StatusCa, engine: Engine, tmp_path: Path) -> None:
    responder = ca.add_responder(tmp_path)
    issued = ca.issue()
    with engine.connect() as connection:
        loaded = responders.load_responders(connection, tmp_path, PASSPHRASE, utc_now())
    assert responders.presign_due(engine, loaded, utc_now(), 8, 10)
    query = f"SELECT der FROM ocsp_answer WHERE serial = '{issued.serial}' AND hash = 'sha256'"
    signed = read(engine, query)
    answers = Answers(
        engine, keys_folder=tmp_path, passphrase=PASSPHRASE, hours=8, clock=utc_now, size=10
    )  # fmt: skip
    built = ocsp.OCSPRequestBuilder().add_certificate(
        issued.certificate, ca.certificates[ISSUING], hashes.SHA256()
    )
    request = built.build().public_bytes(Encoding.DER)
    assert answers.answer(request, b"one", is_get=True).body == signed
    place = ocsp.load_der_ocsp_response(signed).signature
    bad = flipped(signed, signed.index(place) + 20)
    put(
        engine,
        f"UPDATE ocsp_answer SET der = :der WHERE serial = '{issued.serial}' AND hash = 'sha256'",
        der=bad,
    )
    given = ocsp.load_der_ocsp_response(answers.answer(request, b"two", is_get=True).body)
    key = responder.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    key.verify(given.signature, given.tbs_response_bytes, ec.ECDSA(hashes.SHA256()))


@pytest.mark.parametrize("column", ["payload", "xml"])
def test_a_trust_list_is_refused_and_the_last_good_one_goes_on(
    column: str, issuing: Container, engine: Engine
) -> None:
    seed_practitioner(engine)
    publish(issuing)
    client = create_app(issuing).test_client()
    good = client.get("/v1/trust-list")
    assert good.status_code == 200
    whole = read(engine, f"SELECT {column} FROM trust_list")
    put(engine, f"UPDATE trust_list SET {column} = :it", it=flipped(whole, len(whole) // 2))
    assert client.get("/v1/trust-list").data == good.data
    for path in ("/v1/trust-list", "/v1/trust-list/1", "/trust-list.xml"):
        refused = create_app(issuing).test_client().get(path)
        assert (refused.status_code, refused.get_json()["code"]) == (503, "no-trust-list")
    # A further version, which nobody signed, gives way to the one before.
    put(engine, f"UPDATE trust_list SET {column} = :it, version = 2", it=flipped(whole, len(whole) // 2))
    later = Container(issuing.settings, engine, issuing.signer, lambda: NOON + timedelta(seconds=5))
    assert create_app(later).test_client().get("/v1/trust-list").status_code == 503

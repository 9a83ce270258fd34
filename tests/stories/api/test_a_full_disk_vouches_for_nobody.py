"""A full disk is red at once; what is given out is cut short, and after a minute nobody is vouched for."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from flask.testing import FlaskClient
from sqlalchemy import Engine, text

from api.app import create_app
from api.cli.main import main
from api.embedded.postgres import EmbeddedPostgres
from api.process.writing import APPLICATION, SHORTENED_AFTER, TRUSTED_SECONDS, Writing, without_room
from api.settings import Settings, save_settings
from api.status.answers import Answers
from api.wiring import Container, written_folders
from directory.base.clock import utc_now
from pki.model import RevocationReason
from pki.rollback.signing_clock import FILE
from tests.api.certificates import certify
from tests.api.commands import Sceau, told
from tests.api.health.test_health import Pinged
from tests.conftest import migrate
from tests.factories import seed_practitioner, seed_token
from tests.full_disk import fill, serving, small_disk
from tests.restored import Clock
from tests.status_ca import ISSUING, PASSPHRASE, Issued, StatusCa

LIFETIME = timedelta(minutes=15)


class Ticks:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def ticks() -> Ticks:
    return Ticks()


@pytest.fixture
def disk(passable: Path) -> Iterator[Path]:
    with small_disk(passable / "of-the-record") as folder:
        yield folder


@pytest.fixture
def record(disk: Path) -> Iterator[Engine]:
    cluster = EmbeddedPostgres(disk / "postgres")
    cluster.make()
    with serving(cluster) as engine:
        migrate(engine)
        yield engine


def writing_on(engine: Engine, ticks: Ticks, *folders: Path, keeps: bool = False) -> Writing:
    return Writing(engine.url.render_as_string(hide_password=False), folders, ticks, keeps=keeps)


def sessions(engine: Engine) -> list[int]:
    query = text("SELECT pid FROM pg_stat_activity WHERE application_name = :name ORDER BY pid")
    with engine.connect() as connection:
        return list(connection.execute(query, {"name": APPLICATION}).scalars())


def test_a_session_is_kept_from_look_to_look_and_another_tried_now_and_then(
    engine: Engine, ticks: Ticks, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing = writing_on(engine, ticks, keeps=True)
    seen = []
    for kept in (60.0, 60.0, 0.0):
        monkeypatch.setattr("api.process.writing._KEPT_SECONDS", kept)
        ticks.now += 4
        assert writing.wrong() == ""
        seen.append(sessions(engine))
    assert len(seen[0]) == 1
    assert seen[0] == seen[1] != seen[2]
    writing.close()


def test_a_session_that_was_ended_is_no_reason_to_doubt(engine: Engine, ticks: Ticks) -> None:
    writing = writing_on(engine, ticks, keeps=True)
    assert writing.wrong() == ""
    (ended,) = sessions(engine)
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_terminate_backend(:pid, 10000)"), {"pid": ended})
    ticks.now += 4
    assert writing.wrong() == ""
    assert ended not in sessions(engine)
    writing.close()


@pytest.mark.parametrize("keeps", [False, True])
def test_nothing_is_promised_beyond_a_minute_after_the_last_row_that_went_through(
    record: Engine, disk: Path, ticks: Ticks, *, keeps: bool
) -> None:
    writing = writing_on(record, ticks, keeps=keeps)
    assert (writing.wrong(), writing.shortened(LIFETIME)) == ("", LIFETIME)
    fill(disk / "filler")
    ticks.now += 4
    assert writing.wrong().startswith("the record takes no row")
    assert writing.shortened(LIFETIME) == LIFETIME
    ticks.now += SHORTENED_AFTER
    assert writing.shortened(LIFETIME) == timedelta(seconds=46)
    ticks.now += TRUSTED_SECONDS
    assert writing.shortened(LIFETIME) == timedelta()
    (disk / "filler").unlink()
    ticks.now += 4
    assert (writing.wrong(), writing.shortened(LIFETIME)) == ("", LIFETIME)
    writing.close()


@pytest.fixture
def client(record: Engine, ticks: Ticks, now: datetime, tmp_path: Path) -> FlaskClient:
    class WithTicks(Container):
        writing = writing_on(record, ticks)  # type: ignore[assignment]

    settings = Settings(state=tmp_path, public_url="https://sceau.example")
    made = WithTicks(settings=settings, engine=record, signer=Pinged(), clock=lambda: now)  # type: ignore[arg-type]
    return create_app(made).test_client()


@pytest.fixture
def sceau(record: Engine, now: datetime, tmp_path: Path, built: dict[str, Any]) -> Sceau:
    """A command on that record: a process of its own each time, which has written nothing before."""
    url = record.url.render_as_string(hide_password=False)
    save_settings(tmp_path, {"database_url": url, "public_url": "https://sceau.example"})
    built["clock"] = lambda: now

    def run(*words: str) -> Result:
        return CliRunner().invoke(main, [*words, "--json", "--state", str(tmp_path)])

    return run


@pytest.fixture
def mailbox(record: Engine, now: datetime) -> str:
    """One that is allowed, in a record with an operator's token."""
    address = seed_practitioner(record).mailbox
    certify(record, address, now - timedelta(days=1))
    seed_token(record, "operator", role="operator")
    return address


def test_nobody_is_allowed_once_nothing_can_be_withdrawn(
    client: FlaskClient, sceau: Sceau, mailbox: str, disk: Path, ticks: Ticks
) -> None:
    headers = {"Authorization": "Bearer sceau_operator"}

    def verdicts() -> list[tuple[int, dict[str, Any]]]:
        """That of the check of one, and that of the check of many."""
        one = client.get(f"/v1/recipients/{mailbox}", headers=headers)
        many = client.post("/v1/recipients/check", json={"addresses": [mailbox]}, headers=headers)
        first = many.get_json()["items"][0] if many.status_code == 200 else many.get_json()
        return [(one.status_code, one.get_json()), (many.status_code, first)]

    def given() -> set[tuple[int, str, str]]:
        return {(status, said["verdict"], said["valid_until"]) for status, said in verdicts()}

    assert given() == {(200, "allowed", "2026-09-01T12:15:00Z")}
    assert told(sceau("check", mailbox))["items"][0]["valid_until"] == "2026-09-01T12:15:00Z"
    assert told(sceau("status"))["parts"]["postgres"]["state"] == "ok"
    fill(disk / "filler")
    ticks.now += 30
    assert given() == {(200, "allowed", "2026-09-01T12:00:30Z")}
    ready = client.get("/readyz")
    assert (ready.status_code, ready.get_json()["checks"]["writing"]["state"]) == (503, "failed")
    # A command saw no row go through before: it says nothing good at once.
    checked = sceau("check", mailbox)
    assert checked.exit_code == 2
    assert told(checked)["type"].endswith("record-not-written")
    shown = sceau("status")
    assert shown.exit_code == 1
    assert told(shown)["parts"]["postgres"]["state"] == "down"
    assert told(shown)["parts"]["postgres"]["reason"].startswith("the record takes no row")
    ticks.now += 31
    assert {(status, said["code"]) for status, said in verdicts()} == {(503, "record-not-written")}
    (disk / "filler").unlink()
    ticks.now += 4
    assert {said["verdict"] for _, said in verdicts()} == {"allowed"}
    assert told(sceau("check", mailbox))["items"][0]["verdict"] == "allowed"


def test_ocsp_says_good_of_nobody_then_and_revoked_as_before(
    record: Engine, disk: Path, ticks: Ticks, tmp_path: Path
) -> None:
    ca = StatusCa(record, utc_now()).establish()
    ca.add_responder(tmp_path / "keys")
    good, revoked = ca.issue(), ca.issue()
    ca.revoke(revoked, RevocationReason.KEY_COMPROMISE)
    answers = Answers(
        record, keys_folder=tmp_path / "keys", passphrase=PASSPHRASE, hours=8, clock=utc_now, size=10,
        ticks=ticks, shortened=writing_on(record, ticks).shortened,
    )  # fmt: skip

    def asked(issued: Issued) -> ocsp.OCSPResponse:
        built = ocsp.OCSPRequestBuilder().add_certificate(
            issued.certificate,
            ca.certificates[ISSUING],
            hashes.SHA256(),
        )
        der = built.build().public_bytes(Encoding.DER)
        reply = answers.remembered(der) or answers.answer(der, der, is_get=True)
        kept = dict(reply.headers)["Cache-Control"] != "no-store"
        found = ocsp.load_der_ocsp_response(reply.body)
        assert kept == (ticks.now < 1010)
        return found

    assert asked(good).certificate_status is ocsp.OCSPCertStatus.GOOD
    assert asked(revoked).certificate_status is ocsp.OCSPCertStatus.REVOKED
    fill(disk / "filler")
    ticks.now += 30
    before = utc_now().replace(microsecond=0)
    cut = asked(good)
    assert cut.certificate_status is ocsp.OCSPCertStatus.GOOD
    assert cut.next_update_utc is not None
    # By the reader's clock: counted from thisUpdate, it would have ended before it left.
    assert before <= cut.next_update_utc - timedelta(seconds=30) <= utc_now()
    ticks.now += 31
    assert asked(good).response_status is ocsp.OCSPResponseStatus.TRY_LATER
    assert asked(revoked).certificate_status is ocsp.OCSPCertStatus.REVOKED


def test_a_full_disk_of_the_responders_keys_stops_good_and_not_revoked(
    engine: Engine, passable: Path, ticks: Ticks
) -> None:
    clock = Clock(utc_now())
    with small_disk(passable / "of-the-keys", "size=4m") as keys:
        ca = StatusCa(engine, clock.now).establish()
        ca.add_responder(keys)
        good, revoked = ca.issue(), ca.issue()
        ca.revoke(revoked, RevocationReason.KEY_COMPROMISE)
        settings = Settings(state=keys.parent, public_url="https://sceau.example")
        assert settings.web_keys in written_folders(settings)
        answers = Answers(
            engine, keys_folder=keys, passphrase=PASSPHRASE, hours=8, clock=clock, size=10, ticks=ticks,
            shortened=writing_on(engine, ticks, keys).shortened,
        )  # fmt: skip

        def said(issued: Issued, seconds: float = 0) -> object:
            ticks.now += seconds
            clock.now += timedelta(seconds=seconds)
            asked = ocsp.OCSPRequestBuilder().add_certificate(
                issued.certificate, ca.certificates[ISSUING], hashes.SHA256()
            )
            der = asked.build().public_bytes(Encoding.DER)
            found = ocsp.load_der_ocsp_response(answers.answer(der, der, is_get=False).body)
            if found.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
                return found.response_status
            return found.certificate_status

        assert said(good) is ocsp.OCSPCertStatus.GOOD
        fill(keys / "filler")
        # Longer than the mark of what was signed last waits to be written.
        assert said(revoked, 6) is ocsp.OCSPCertStatus.REVOKED
        assert said(good) is ocsp.OCSPCertStatus.GOOD
        assert said(good, 61) is ocsp.OCSPResponseStatus.TRY_LATER
        assert said(revoked) is ocsp.OCSPCertStatus.REVOKED
        assert not list(keys.glob("*.new"))
        (keys / "filler").unlink()
        assert said(good, 6) is ocsp.OCSPCertStatus.GOOD
        assert clock.now.isoformat() in (keys / FILE).read_text()


def test_the_disk_of_what_is_kept_beside_the_record_counts_as_well(
    engine: Engine, passable: Path, ticks: Ticks
) -> None:
    with small_disk(passable / "of-the-floor", "size=4m") as floor:
        writing = writing_on(engine, ticks, floor, floor / "not-there")
        assert writing.wrong() == ""
        fill(floor / "filler")
        assert without_room(floor) == "no room in of-the-floor: No space left on device"
        ticks.now += TRUSTED_SECONDS + 1
        assert writing.shortened(LIFETIME) == timedelta()
        (floor / "filler").unlink()
        assert without_room(floor) == ""
        assert list(floor.iterdir()) == []

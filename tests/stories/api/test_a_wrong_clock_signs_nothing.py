"""A host whose clock is wrong signs nothing and says so; what takes trust away is recorded all the same.

What was signed last is never signed before, and one jump of a clock stops nothing once two administrators
have looked at it.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from sqlalchemy import Engine, event, text

from api.app import create_app
from api.jobs import audit_log, crl, passphrases
from api.jobs import ocsp as ocsp_job
from api.settings import Settings
from api.status.wsgi import StatusApplication
from api.wiring import Container
from directory.base.clock import utc_now
from directory.base.db import transaction
from directory.base.errors import Kind, Refusal
from directory.base.instant import dated_by_database
from pki.crl import store as crl_store
from pki.issuance import for_enrolment
from pki.model import CrlForm, IssuedCertificate, RevocationReason
from pki.rollback.signing_clock import FILE, SigningClock
from tests.api.commands import Sceau
from tests.api.conftest import Caller
from tests.api.health.test_health import give_sign
from tests.api.signing import signer_in
from tests.factories import seed_practitioner, seed_token
from tests.pki.conftest import enrol, new_key, request_for
from tests.restored import Clock, Machine
from tests.wsgi_client import request

APART = timedelta(minutes=15)
# Four lists instead of 49 of two kinds, where it is not the lists that are asked about.
few_lists = pytest.mark.parametrize("crl_form", [CrlForm.PLAIN], ids=["plain"])


@dataclass
class Skewed:
    """The real time, so far off."""

    off: timedelta = field(default_factory=timedelta)

    def __call__(self) -> datetime:
        return utc_now() + self.off


@dataclass(frozen=True)
class Host:
    """A running host over a database that dates what is done, its clock and a certificate made on it."""

    container: Container
    clock: Skewed
    issued: IssuedCertificate


@pytest.fixture
def host(engine: Engine, tmp_path: Path) -> Iterator[Host]:
    dated_by_database(engine)
    clock, settings = Skewed(), Settings(state=tmp_path, public_url="https://sceau.example")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "web.passphrase").write_text("for a test")
    with signer_in(tmp_path, engine, utc_now(), settings.base_url) as signer:
        signer.clock = clock
        container = Container(settings=settings, engine=engine, signer=signer, clock=clock)
        ocsp_job.renew_responders(container)
        who = enrol(engine, utc_now(), seed_practitioner(engine))
        issued = for_enrolment.issue_for_enrolment(
            engine, signer, now=utc_now(), token=who.first, enrolment_id=who.id,
            csr=request_for(new_key()), base_url=settings.base_url, thorough=False,
        )  # fmt: skip
        yield Host(container, clock, issued)


def asked(
    container: Container, issued: IssuedCertificate, clock: Callable[[], datetime]
) -> ocsp.OCSPResponse:
    """What a web process that starts now answers about this certificate, signed for the question."""
    status = StatusApplication(
        container.engine, keys_folder=container.settings.web_keys,
        passphrase=passphrases.web_passphrase(container), hours=8, clock=clock,
    )  # fmt: skip
    return answered(status, container, issued)


def answered(status: StatusApplication, container: Container, issued: IssuedCertificate) -> ocsp.OCSPResponse:
    with container.engine.connect() as connection:
        query = text("SELECT der FROM authority WHERE id = :id")
        issuer = connection.execute(query, {"id": issued.authority_id}).scalar_one()
    made = ocsp.OCSPRequestBuilder().add_certificate(
        x509.load_der_x509_certificate(issued.der), x509.load_der_x509_certificate(issuer), SHA256()
    )
    nonced = made.add_extension(x509.OCSPNonce(b"n" * 16), critical=False).build()
    _, _, body = request(status, "POST", "/ocsp", nonced.public_bytes(Encoding.DER))
    return ocsp.load_der_ocsp_response(body)


def refused(code: str, act: Callable[..., Any], *parts: Any) -> None:
    with pytest.raises(Refusal) as refusal:
        act(*parts)
    assert (refusal.value.kind, refusal.value.code) == (Kind.UNAVAILABLE, code)


JOBS: dict[str, Callable[[Container], str]] = {
    "crl": crl.publish_crls,
    "ocsp-answers": ocsp_job.presign_ocsp,
    "ocsp-responders": ocsp_job.renew_responders,
    "checkpoints": audit_log.sign_checkpoint,
}


@pytest.mark.parametrize("off", [APART, -APART], ids=["ahead", "behind"])
def test_a_host_whose_clock_differs_signs_nothing_records_revocations_and_says_so(
    host: Host, off: timedelta, caplog: pytest.LogCaptureFixture
) -> None:
    host.clock.off = off
    for work in JOBS.values():
        refused("clock-differs", work, host.container)
    refused("clock-differs", host.container.signer.ping)
    assert "nothing is signed on this host" in caplog.text
    # OCSP says nothing, rather than what a clock cannot vouch for.
    assert asked(host.container, host.issued, host.clock).response_status is ocsp.OCSPResponseStatus.TRY_LATER
    # Trust is taken away, and dated by the database.
    seed_token(host.container.engine, "admin", role="admin")
    with host.container.engine.begin() as connection:
        connection.execute(text("UPDATE api_token SET expires_at = clock_timestamp() + interval '1 year'"))
    app = create_app(host.container)
    admin = Caller(app.test_client(), "sceau_admin")
    path = f"/v1/certificates/{host.issued.serial}/revocation"
    done = admin.post(path, {"reason": "superseded"})
    assert done.status_code == 200, done.get_json()
    assert abs(datetime.fromisoformat(done.get_json()["revoked_at"]) - utc_now()) < APART / 2
    # It is seen, also where a worker gives its sign.
    give_sign(host.container.engine)
    ready = app.test_client().get("/readyz")
    check = ready.get_json()["checks"]["clock"]
    assert (ready.status_code, check["state"]) == (200, "degraded")
    assert abs(check["difference_seconds"] - off.total_seconds()) < 30
    shown = app.test_client().get("/metrics").text
    (line,) = [one for one in shown.splitlines() if one.startswith("sceau_clock_difference_seconds ")]
    assert abs(float(line.split()[1]) - off.total_seconds()) < 30


def test_a_clock_set_right_signs_again_at_once(host: Host) -> None:
    host.clock.off = -APART
    refused("clock-differs", crl.publish_crls, host.container)
    host.clock.off = timedelta()
    assert crl.publish_crls(host.container)
    said = asked(host.container, host.issued, host.clock)
    assert said.certificate_status is ocsp.OCSPCertStatus.GOOD


def test_a_clock_that_jumps_between_two_looks_is_seen_to_jump(host: Host) -> None:
    host.container.signing.instant()
    host.clock.off = 2 * APART
    refused("clock-differs", host.container.signing.instant)


def test_nothing_is_signed_before_what_was_signed_last(machine: Machine) -> None:
    """The clock of all of it is put back, the database's too."""
    issued, status = machine.issue(), machine.status()
    machine.run_jobs()
    before = answered(status, machine.container, issued)
    assert before.certificate_status is ocsp.OCSPCertStatus.GOOD
    machine.later(minutes=-15)
    assert answered(status, machine.container, issued).response_status is ocsp.OCSPResponseStatus.TRY_LATER
    again = answered(machine.status(), machine.container, issued)
    assert again.response_status is ocsp.OCSPResponseStatus.TRY_LATER
    refused("clock-behind", ocsp_job.presign_ocsp, machine.container)
    refused("clock-behind", audit_log.sign_checkpoint, machine.container)
    refused("clock-behind", machine.container.signer.ping)
    # A revocation is recorded, and not before the issuance.
    machine.revoke(issued, RevocationReason.SUPERSEDED)
    (event,) = machine.events()
    assert event[3] >= issued.issued_at.replace(microsecond=0)


@few_lists
def test_a_clock_put_back_is_seen_by_whoever_watches(machine: Machine) -> None:
    def seen() -> tuple[str, str, float]:
        # Each time as a web process that starts now.
        client = create_app(machine.container).test_client()
        check = client.get("/readyz").get_json()["checks"]["clock"]
        (line,) = [
            one for one in client.get("/metrics").text.splitlines()
            if one.startswith("sceau_clock_signed_ahead_seconds ")
        ]  # fmt: skip
        return check["state"], check.get("reason", ""), float(line.split()[1])

    audit_log.sign_checkpoint(machine.container)
    assert seen() == ("ok", "", 0)
    machine.later(minutes=-15)
    state, reason, ahead = seen()
    assert (state, ahead > 60) == ("degraded", True)
    assert ahead <= APART.total_seconds()
    assert "two administrators" in reason
    machine.later(minutes=15)
    assert seen() == ("ok", "", 0)


def test_a_small_step_back_is_dated_like_the_last(machine: Machine) -> None:
    issued, status = machine.issue(), machine.status()
    before = answered(status, machine.container, issued)
    machine.later(seconds=-20)
    after = answered(status, machine.container, issued)
    assert after.certificate_status is ocsp.OCSPCertStatus.GOOD
    assert after.produced_at_utc >= before.produced_at_utc
    assert after.this_update_utc >= before.this_update_utc


def test_the_last_instant_is_known_after_a_restart(engine: Engine, now: datetime, tmp_path: Path) -> None:
    clock = Clock(now)
    assert SigningClock(engine, clock, tmp_path).instant() == now
    clock.now -= APART
    refused("clock-behind", SigningClock(engine, clock, tmp_path).instant)


def test_nothing_is_signed_before_what_another_process_of_this_host_signed_meanwhile(
    engine: Engine, now: datetime, tmp_path: Path
) -> None:
    clock, ahead = Clock(now), Clock(now + timedelta(seconds=20))
    signing, other = SigningClock(engine, clock, tmp_path), SigningClock(engine, ahead, tmp_path)
    assert signing.instant() == now
    assert other.instant() == ahead.now
    clock.now += timedelta(seconds=10)
    assert signing.instant() == ahead.now
    # Farther than is tolerated, it signs nothing, this time already.
    ahead.now += APART
    other.instant()
    clock.now += timedelta(seconds=15)
    refused("clock-behind", signing.instant)


@pytest.mark.parametrize("spoil", [lambda mark: mark.write_text("{"), lambda mark: mark.mkdir()])
def test_a_mark_that_cannot_be_read_signs_nothing(
    engine: Engine, now: datetime, tmp_path: Path, spoil: Callable[[Path], object]
) -> None:
    spoil(tmp_path / FILE)
    refused("clock-behind", SigningClock(engine, Clock(now), tmp_path).instant)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a file away")
def test_a_mark_written_by_root_stays_its_account_s(engine: Engine, now: datetime, tmp_path: Path) -> None:
    clock, mark = Clock(now), tmp_path / FILE
    signing = SigningClock(engine, clock, tmp_path)
    os.chown(tmp_path, 65534, 65534)
    signing.instant()
    for file in (mark, tmp_path / f"{FILE}.lock"):
        assert (file.stat().st_uid, file.stat().st_gid) == (65534, 65534)
    mark.chmod(0o640)
    os.chown(mark, 65533, 65534)
    clock.now += APART
    signing.instant()
    assert clock.now.isoformat() in mark.read_text()
    assert (mark.stat().st_uid, mark.stat().st_mode & 0o777) == (65533, 0o640)


def test_a_reset_does_not_put_a_mark_before_one_that_another_wrote_meanwhile(
    engine: Engine, now: datetime, tmp_path: Path
) -> None:
    SigningClock(engine, Clock(now + APART), tmp_path).instant()
    with engine.begin() as connection:
        query = text("INSERT INTO clock_reset VALUES (DEFAULT, 'jump', :one, :at, :two, :at)")
        tokens = {"one": seed_token(engine, "one"), "two": seed_token(engine, "two")}
        connection.execute(query, {**tokens, "at": now})
    later = now + timedelta(seconds=10)

    others = [SigningClock(engine, Clock(later), tmp_path)]

    def another_writes(*asked: Any) -> None:
        if "clock_reset" in asked[2] and others:
            others.pop().instant()

    event.listen(engine, "after_cursor_execute", another_writes)
    assert SigningClock(engine, Clock(now), tmp_path).instant() == later
    assert later.isoformat() in (tmp_path / FILE).read_text()


@dataclass(frozen=True)
class Jumped:
    """A machine whose clock was two days ahead for an hour, in which it signed."""

    machine: Machine
    revoked: IssuedCertificate
    lists: dict[str, int]


@pytest.fixture
def jumped(machine: Machine) -> Jumped:
    revoked = machine.issue()
    machine.revoke(revoked, RevocationReason.SUPERSEDED)
    machine.run_jobs()
    ocsp_job.presign_ocsp(machine.container)
    machine.later(days=2)
    machine.run_jobs()
    ocsp_job.presign_ocsp(machine.container)
    lists = machine.numbers()
    machine.later(days=-2)
    return Jumped(machine, revoked, lists)


def administrators(machine: Machine) -> tuple[Caller, Caller]:
    for name in ("first", "second"):
        seed_token(machine.container.engine, name, role="admin")
    with machine.container.engine.begin() as connection:
        connection.execute(text("UPDATE api_token SET expires_at = clock_timestamp() + interval '1 year'"))
    client = create_app(machine.container).test_client()
    return Caller(client, "sceau_first"), Caller(client, "sceau_second")


REASON = {"reason": "le serveur de temps donnait après-demain"}


def test_two_administrators_void_what_was_signed_in_the_future_and_all_resumes(jumped: Jumped) -> None:
    machine = jumped.machine
    first, second = administrators(machine)
    refused("clock-behind", ocsp_job.presign_ocsp, machine.container)
    refused("clock-behind", crl.publish_crls, machine.container)
    # One alone changes nothing, and does not confirm himself.
    made = first.post("/v1/clock/resets", REASON)
    assert (made.status_code, made.get_json()["confirmed_at"]) == (200, None)
    refused("clock-behind", crl.publish_crls, machine.container)
    alone = first.post("/v1/clock/resets", REASON)
    assert (alone.status_code, alone.get_json()["code"]) == (403, "self-approval")
    # Two do.
    done = second.post("/v1/clock/resets", REASON)
    assert (done.status_code, done.get_json()["id"]) == (200, made.get_json()["id"])
    assert done.get_json()["confirmed_at"] is not None
    machine.run_jobs()
    now = machine.clock.now
    with machine.container.engine.connect() as connection:
        for place, number in jumped.lists.items():
            authority, shard = place.split("/")
            newest = crl_store.newest(connection, authority, int(shard))
            assert newest is not None, place
            assert newest.number > number, place
            assert newest.this_update <= now, place
        lists = [
            crl_store.latest(connection, jumped.revoked.authority_id, jumped.revoked.shard, delta=delta)
            for delta in (False, True)
        ]
    complete = x509.load_der_x509_crl(lists[0].der if lists[0] else b"")
    assert complete.get_revoked_certificate_by_serial_number(int(jumped.revoked.serial, 16)) is not None
    assert complete.last_update_utc <= now
    # OCSP answers again, and what had been signed for days to come is not given.
    said = answered(machine.status(), machine.container, jumped.revoked)
    assert said.certificate_status is ocsp.OCSPCertStatus.REVOKED
    assert said.this_update_utc <= now
    with machine.container.engine.connect() as connection:
        events = connection.execute(
            text(
                "SELECT event FROM audit_entry WHERE event LIKE 'clock.%'"
                " UNION ALL SELECT event FROM audit_pending WHERE event LIKE 'clock.%'"
            )
        ).scalars()
        assert sorted(events) == ["clock.reset", "clock.reset-asked"]
    told = first.get("/v1/clock/resets").get_json()["items"]
    assert [one["id"] for one in told] == [made.get_json()["id"]]


@few_lists
def test_a_reset_voids_nothing_that_is_signed_in_the_future_after_it(jumped: Jumped) -> None:
    machine = jumped.machine
    for caller in administrators(machine):
        assert caller.post("/v1/clock/resets", REASON).status_code == 200
    machine.run_jobs()
    machine.later(days=2)
    machine.run_jobs()
    machine.later(days=-2)
    refused("clock-behind", crl.publish_crls, machine.container)


@few_lists
def test_what_expires_within_the_jump_stays_on_the_list(machine: Machine) -> None:
    """Dated ahead, a CRL lets go what has not expired: the next one has it again."""
    revoked = machine.issue()
    machine.revoke(revoked, RevocationReason.SUPERSEDED)
    machine.run_jobs()
    with machine.container.engine.connect() as connection:
        before = crl_store.newest_complete(connection, revoked.authority_id, revoked.shard)
    assert before is not None
    ahead = revoked.not_after - machine.clock.now + timedelta(hours=3)
    machine.later(seconds=ahead.total_seconds())
    machine.run_jobs()
    machine.later(hours=2)
    machine.run_jobs()
    machine.later(seconds=-ahead.total_seconds() - 7200)
    for caller in administrators(machine):
        assert caller.post("/v1/clock/resets", REASON).status_code == 200
    machine.run_jobs()
    with machine.container.engine.connect() as connection:
        latest = crl_store.latest(connection, revoked.authority_id, revoked.shard)
    assert latest is not None
    listed = x509.load_der_x509_crl(latest.der)
    assert listed.get_revoked_certificate_by_serial_number(int(revoked.serial, 16)) is not None


@few_lists
def test_what_was_used_of_an_hour_in_the_future_is_used_now(jumped: Jumped) -> None:
    machine = jumped.machine
    used = text("INSERT INTO withdrawal_use (scope, at, used) VALUES ('authority:CNOM', :at, 60)")
    with machine.container.engine.begin() as connection:
        connection.execute(used, {"at": machine.clock.now + timedelta(days=2)})
    for caller in administrators(machine):
        assert caller.post("/v1/clock/resets", REASON).status_code == 200
    with machine.container.engine.connect() as connection:
        at = connection.execute(text("SELECT at FROM withdrawal_use")).scalar_one()
    assert at == machine.clock.now


@few_lists
def test_what_was_read_in_the_future_is_forgotten(jumped: Jumped) -> None:
    machine, now = jumped.machine, jumped.machine.clock.now
    read = text(
        "INSERT INTO reading_use (reading, scope, minute, used) VALUES ('searches', 'token:1', :at, 60)"
    )
    with machine.container.engine.begin() as connection:
        connection.execute(read, [{"at": now + timedelta(days=2)}, {"at": now - timedelta(minutes=1)}])
    for caller in administrators(machine):
        assert caller.post("/v1/clock/resets", REASON).status_code == 200
    with machine.container.engine.connect() as connection:
        kept = connection.execute(text("SELECT minute FROM reading_use WHERE scope = 'token:1'")).scalars()
        assert list(kept) == [now - timedelta(minutes=1)]


def test_only_administrators_void_it(machine: Machine) -> None:
    seed_token(machine.container.engine, "registrar")
    with machine.container.engine.begin() as connection:
        connection.execute(text("UPDATE api_token SET expires_at = clock_timestamp() + interval '1 year'"))
    caller = Caller(create_app(machine.container).test_client(), "sceau_registrar")
    assert caller.post("/v1/clock/resets", REASON).status_code == 403


def test_the_command_shows_the_clock_and_resets_it(jumped: Jumped, sceau: Sceau) -> None:
    administrators(jumped.machine)
    shown = sceau("clock", "show")
    assert shown.exit_code == 1, shown.output
    assert "two administrators" in shown.output
    for name in ("first", "second"):
        file = jumped.machine.container.settings.state / name
        file.write_text(f"sceau_{name}")
        done = sceau("clock", "reset", "--reason", "time server", "--token-file", str(file))
        assert done.exit_code == 0, done.output
    assert sceau("clock", "show").exit_code == 0


@few_lists
def test_the_record_keeps_who_reset_it(jumped: Jumped) -> None:
    for caller in administrators(jumped.machine):
        assert caller.post("/v1/clock/resets", REASON).status_code == 200
    with (
        pytest.raises(Exception, match="never changed or removed"),
        transaction(jumped.machine.container.engine) as connection,
    ):
        connection.execute(text("DELETE FROM clock_reset"))

"""The signer, in process and behind its socket alike: what it signs, refuses, remembers, never lets out."""

import base64
import os
import resource
import select
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import psutil
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from sqlalchemy import Connection, Engine, text

from api.installation import questions
from directory.base.audit import Actor
from directory.base.db import transaction
from directory.base.errors import Kind, Refusal
from pki.ceremony import perform as ceremony
from pki.certificates.profiles import OCSP_SIGNER, ResponderNames
from pki.crl import publish as crl
from pki.issuance import pipeline
from pki.model import CrlForm, Serial, serial_of
from pki.record import authorities, reservations
from pki.revocation import blocked_keys
from pki.signing import process as signer_process
from pki.signing import wire
from pki.signing.client import SignerClient
from pki.signing.file import FileKeys
from pki.signing.inprocess import InProcessSigner
from pki.signing.journal import Journal
from pki.signing.keys import Keys
from pki.signing.pkcs11 import TokenKeys
from pki.signing.process import MOST_OPEN, MOST_SILENT, _Server
from pki.signing.seal import seal
from pki.signing.signer import Signer
from tests.pki.conftest import BASE_URL, PASSPHRASE, Established, new_key
from tests.pki.issuance.test_issuance import at_once
from tests.pki.lint.test_lint import rebuilt
from tests.soft_token import PIN, SoftToken, soft_token

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = """
import sys
from pathlib import Path
from pki.signing.file import FileKeys
from pki.signing.pkcs11 import TokenKeys
from directory.base.audit import Actor
from pki.ceremony.perform import establish
from pki.model import CrlForm
from pki.signing.process import serve
from pki.signing.token_uri import read
url, where, folder, secret, at = sys.argv[1:]
opened = Path(secret).read_bytes().strip()
keys = FileKeys(Path(folder), opened) if where == "file" else TokenKeys(read(where), opened)
def ceremony(engine, keys, now):
    establish(engine, keys, base_url="http://trust.example", now=now, actor=Actor("signer:ceremony"),
              crl_form=CrlForm.NATIONAL)
serve(database_url=url, keys=keys, journal_folder=Path(folder), socket_path=Path(at), establish=ceremony)
"""


def real_now() -> datetime:
    """The signer process reads the machine's clock; what it is asked must be of this moment."""
    return datetime.now(UTC)


@dataclass
class Process:
    """A signer process, and how to end and begin it again."""

    url: str
    folder: Path
    keys: str = "file"
    secret: bytes = PASSPHRASE
    running: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        return self.folder / "signer.sock"

    @property
    def client(self) -> SignerClient:
        return SignerClient(self.socket, timeout=10)

    def start(self) -> None:
        secret = self.folder / "secret"
        secret.write_bytes(self.secret + b"\n")
        arguments = (self.url, self.keys, str(self.folder / "keys"), str(secret), str(self.socket))
        self.running = subprocess.Popen([sys.executable, "-c", PROGRAM, *arguments], cwd=ROOT)
        deadline = time.monotonic() + 20
        while True:
            with suppress(Refusal):
                assert self.client.ping()
                return
            assert self.running.poll() is None, "the signer ended"
            assert time.monotonic() < deadline, "the signer does not answer"
            time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        assert self.running
        self.running.send_signal(how)
        return self.running.wait(timeout=20)


@dataclass(frozen=True)
class Taken:
    """A connection: the client's end, which does not wait, and the signer's."""

    client: socket.socket
    link: socket.socket

    def hung_up(self) -> bool:
        try:
            return self.client.recv(1) == b""
        except BlockingIOError:
            return False


@pytest.fixture
def process(database_url: str, tmp_path: Path) -> Iterator[Process]:
    made = Process(database_url, tmp_path)
    made.start()
    yield made
    if made.running and made.running.poll() is None:
        made.stop(signal.SIGKILL)


@pytest.fixture
def token(tmp_path: Path) -> Iterator[SoftToken]:
    with soft_token(tmp_path / "token") as made:
        yield made


@pytest.fixture
def process_on_token(database_url: str, tmp_path: Path, token: SoftToken) -> Iterator[Process]:
    made = Process(database_url, tmp_path, token.uri, PIN)
    made.start()
    yield made
    if made.running and made.running.poll() is None:
        made.stop(signal.SIGKILL)


@contextmanager
def in_process(engine: Engine, keys: Keys, folder: Path) -> Iterator[InProcessSigner]:
    ceremony.establish(
        engine, keys, base_url=BASE_URL, now=real_now(), actor=Actor("test"), crl_form=CrlForm.NATIONAL
    )
    journal = Journal(folder / "journal.jsonl")
    yield InProcessSigner(engine, keys, journal)
    journal.close()


@pytest.fixture(
    params=["file, in process", "file, behind a socket", "token, in process", "token, behind a socket"]
)
def signer(request: pytest.FixtureRequest, engine: Engine, tmp_path: Path) -> Iterator[Signer]:
    match request.param:
        case "file, behind a socket":
            yield request.getfixturevalue("process").client
        case "token, behind a socket":
            yield request.getfixturevalue("process_on_token").client
        case "token, in process":
            place = request.getfixturevalue("token").place
            with in_process(engine, TokenKeys(place, PIN), tmp_path / "keys") as made:
                yield made
        case _:
            with in_process(engine, FileKeys(tmp_path / "keys", PASSPHRASE), tmp_path / "keys") as made:
                yield made


def prepare(connection: Connection, at: datetime) -> pipeline.Prepared:
    return pipeline.prepare(
        connection, now=at, actor=Actor("test"), authority="persons-1", profile=OCSP_SIGNER,
        key=blocked_keys.check(connection, new_key().public_key()),
        names=ResponderNames("OCSP"), base_url=BASE_URL,
        thorough=False,
    )  # fmt: skip


def reserve(engine: Engine, at: datetime | None = None) -> pipeline.Prepared:
    with transaction(engine) as connection:
        return prepare(connection, at or real_now())


# The contract, for both.


def test_the_signer_answers_with_its_version(signer: Signer) -> None:
    assert signer.ping() == "sceau-signer/1"


def test_a_committed_reservation_is_signed_once_and_given_again(engine: Engine, signer: Signer) -> None:
    prepared = reserve(engine)
    serial = prepared.reservation.serial
    assert signer.journal(serial) is None
    signed = signer.sign_certificate(serial)
    pipeline.verify_signed(signed, prepared.reservation, prepared.authority)
    assert signer.sign_certificate(serial) == signer.journal(serial) == signed


def test_eight_who_ask_at_once_get_the_same_bytes(engine: Engine, signer: Signer) -> None:
    serial = reserve(engine).reservation.serial
    assert len(set(at_once(*[lambda: signer.sign_certificate(serial)] * 8))) == 1


def test_what_is_not_committed_is_not_signed(engine: Engine, signer: Signer) -> None:
    with engine.connect() as connection:
        prepared = prepare(connection, real_now())
        with pytest.raises(Refusal) as refused:
            signer.sign_certificate(prepared.reservation.serial)
    assert (refused.value.kind, refused.value.code) == (Kind.NOT_FOUND, "unknown-reservation")


def test_a_reservation_of_another_hour_is_not_signed(engine: Engine, signer: Signer) -> None:
    later = real_now() + timedelta(minutes=2)
    for at in (real_now() - timedelta(minutes=7), later):
        try:
            prepared = reserve(engine, at)
        except Refusal:
            # Before the CA began: refused even earlier.
            continue
        with pytest.raises(Refusal) as refused:
            signer.sign_certificate(prepared.reservation.serial)
        assert (refused.value.kind, refused.value.code) == (Kind.CONFLICT, "stale-reservation")


def test_a_committed_crl_is_signed_and_the_same_each_time(engine: Engine, signer: Signer) -> None:
    number = crl.publish(
        engine, signer, authority_id="persons-1", shard=3, now=real_now(), lifetime=timedelta(days=3)
    )
    with engine.connect() as connection:
        stored = connection.execute(text("SELECT der FROM crl WHERE shard = 3")).scalar_one()
    assert signer.sign_crl("persons-1", 3, number) == stored
    with pytest.raises(Refusal) as refused:
        signer.sign_crl("persons-1", 3, number + 1)
    assert (refused.value.kind, refused.value.code) == (Kind.NOT_FOUND, "unknown-crl")


def test_a_crl_whose_answer_was_lost_is_signed_again_over_the_same_bytes(
    engine: Engine, signer: Signer
) -> None:
    first: list[bytes] = []

    class Cut:
        """Hears the answer, and loses it."""

        def sign_crl(self, authority_id: str, shard: int, number: int) -> bytes:
            first.append(signer.sign_crl(authority_id, shard, number))
            raise Refusal(Kind.UNAVAILABLE, "signer-unavailable", "gone")

    with pytest.raises(Refusal):
        crl.publish(
            engine, Cut(), authority_id="persons-1", shard=0, now=real_now(), lifetime=timedelta(days=3)
        )
    again = x509.load_der_x509_crl(signer.sign_crl("persons-1", 0, 1))
    assert again.tbs_certlist_bytes == x509.load_der_x509_crl(first[0]).tbs_certlist_bytes
    with engine.connect() as connection:
        issuing = authorities.load_authority(connection, "persons-1")
    assert issuing
    public = x509.load_der_x509_certificate(issuing.der).public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    assert again.is_signature_valid(public)


def test_a_signer_whose_key_has_gone_since_it_was_loaded_is_not_well(authority: Established) -> None:
    assert authority.signer.ping()
    (authority.keys.folder / "persons-1.key").unlink()
    with pytest.raises(Refusal) as refused:
        authority.signer.ping()
    assert (refused.value.kind, refused.value.code) == (Kind.UNAVAILABLE, "ca-key-missing")


# Reservations forged in the database: each is refused for its own reason.


def forge(engine: Engine, prepared: pipeline.Prepared, tbs: bytes, **changed: Any) -> Serial:
    """A second reservation with these bytes, as someone who can write into the database would make it."""
    good = prepared.reservation
    serial = serial_of(x509.random_serial_number()) if "serial" not in changed else changed.pop("serial")
    forged = replace(good, serial=serial, tbs=tbs, tbs_sha256=sha256(tbs).digest(), **changed)
    with transaction(engine) as connection:
        assert reservations.add_reservation(connection, forged, [], "attacker")
    return serial


def good_and_key(prepared: pipeline.Prepared) -> x509.Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    return x509.load_der_x509_certificate(seal(prepared.reservation.tbs, key))


FORGED: dict[str, Callable[[x509.Certificate], x509.Certificate]] = {
    "basic-constraints": lambda good: rebuilt(good, add=x509.BasicConstraints(ca=True, path_length=None)),
    "extended-key-usage": lambda good: rebuilt(
        good, add=x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
    ),
    "issuer-name": lambda good: rebuilt(good, issuer=good.subject),
    "validity-length": lambda good: rebuilt(good, end=good.not_valid_before_utc + timedelta(days=31)),
    "backdated": lambda good: rebuilt(good, start=good.not_valid_before_utc - timedelta(hours=2)),
    "begins later": lambda good: rebuilt(good, start=good.not_valid_before_utc + timedelta(days=1)),
    "extension-set": lambda good: rebuilt(good, add=x509.SubjectAlternativeName([x509.DNSName("x.example")])),
}


@pytest.mark.parametrize("fault", FORGED)
def test_the_signer_judges_for_itself(
    engine: Engine, authority: Established, now: datetime, fault: str
) -> None:
    prepared = reserve(engine, now)
    forged = FORGED[fault](rebuilt(good_and_key(prepared), serial=1 << 158))
    serial = forge(engine, prepared, forged.tbs_certificate_bytes, serial=serial_of(1 << 158))
    with pytest.raises(Refusal) as refused:
        authority.signer.sign_certificate(serial)
    assert (refused.value.kind, refused.value.code) == (Kind.UNACCEPTABLE, "reservation-unfit")
    assert fault in refused.value.text
    assert authority.signer.journal(serial) is None


def test_bytes_that_are_not_those_of_the_reservation_are_not_signed(
    engine: Engine, authority: Established, now: datetime
) -> None:
    prepared = reserve(engine, now)
    tbs = prepared.reservation.tbs
    other_serial = forge(engine, prepared, tbs)
    for serial in (
        other_serial,
        forge(engine, prepared, b"\x30\x00"),
        forge(engine, prepared, tbs, profile="x"),
    ):
        with pytest.raises(Refusal) as refused:
            authority.signer.sign_certificate(serial)
        assert refused.value.code == "reservation-unfit"
    lying = replace(prepared.reservation, serial=serial_of(77 << 120), tbs_sha256=b"\x00" * 32)
    with transaction(engine) as connection:
        reservations.add_reservation(connection, lying, [], "attacker")
    with pytest.raises(Refusal) as refused:
        authority.signer.sign_certificate(lying.serial)
    assert "digest" in refused.value.text


def test_a_ca_certificate_is_not_signed_day_by_day(
    engine: Engine, authority: Established, now: datetime
) -> None:
    prepared = reserve(engine, now)
    serial = forge(engine, prepared, prepared.reservation.tbs, profile="issuing-ca")
    with pytest.raises(Refusal) as refused:
        authority.signer.sign_certificate(serial)
    assert refused.value.code == "reservation-unfit"


def test_a_certificate_the_journal_does_not_know_is_not_signed_again(
    engine: Engine, authority: Established, now: datetime, tmp_path: Path
) -> None:
    prepared = reserve(engine, now)
    pipeline.issue(engine, authority.signer, lambda _: prepared, now)
    fresh = Journal(tmp_path / "lost" / "journal.jsonl")
    forgetful = InProcessSigner(engine, authority.keys, fresh, clock=lambda: now)
    with pytest.raises(Refusal) as refused:
        forgetful.sign_certificate(prepared.reservation.serial)
    fresh.close()
    assert (refused.value.kind, refused.value.code) == (Kind.CONFLICT, "already-signed")


def test_two_who_write_into_the_journal_at_once_write_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, write = Journal(tmp_path / "journal.jsonl"), Journal._write

    def slowly(self: Journal, whole: bytes) -> None:
        time.sleep(0.01)
        write(self, whole)

    monkeypatch.setattr(Journal, "_write", slowly)
    places = [f"persons-1/0/{number}" for number in range(5, 15)]
    with ThreadPoolExecutor(len(places)) as many:
        list(many.map(lambda place: journal.add_list(place, sha256(place.encode()).digest()), places))
    journal.close()
    again = Journal(tmp_path / "journal.jsonl")
    assert [again.list_signed(place) for place in places] == [sha256(p.encode()).digest() for p in places]
    again.close()


def test_a_crl_number_given_out_twice_by_a_restored_database_is_not_signed_twice(
    engine: Engine, authority: Established, now: datetime
) -> None:
    class Cut:
        """Loses the answer, so that the row stays unsigned."""

        def sign_crl(self, authority_id: str, shard: int, number: int) -> bytes:
            authority.signer.sign_crl(authority_id, shard, number)
            raise Refusal(Kind.UNAVAILABLE, "signer-unavailable", "gone")

    with pytest.raises(Refusal):
        crl.publish(engine, Cut(), authority_id="persons-1", shard=0, now=now, lifetime=timedelta(days=3))
    with engine.begin() as connection:
        # What a restore does, and no statement may: the same number with another content.
        connection.execute(text("ALTER TABLE crl DISABLE TRIGGER ALL"))
        connection.execute(text("UPDATE crl SET tbs = tbs || 'x'"))
        connection.execute(text("ALTER TABLE crl ENABLE TRIGGER ALL"))
    with pytest.raises(Refusal) as refused:
        authority.signer.sign_crl("persons-1", 0, 1)
    assert refused.value.code == "crl-number-reused"


def test_a_crl_whose_key_is_away_leaves_no_line_in_the_journal(
    engine: Engine, authority: Established, now: datetime
) -> None:
    (authority.keys.folder / "root-1.key").unlink()
    lines = (authority.keys.folder / "journal.jsonl").read_bytes()
    with pytest.raises(Refusal) as refused:
        crl.publish(
            engine, authority.signer, authority_id="root-1", shard=0, now=now, lifetime=timedelta(days=3)
        )
    assert refused.value.code == "ca-key-missing"
    assert (authority.keys.folder / "journal.jsonl").read_bytes() == lines


# The ceremony.


def test_a_second_ceremony_changes_nothing(engine: Engine, authority: Established, now: datetime) -> None:
    ceremony.establish(
        engine,
        authority.keys,
        base_url="http://other.example",
        now=now,
        actor=Actor("test"),
        crl_form=CrlForm.NATIONAL,
    )
    with engine.connect() as connection:
        kept = {found.id: found.der for found in authorities.authorities(connection)}
        assert list(kept) == ["root-1", "organisations-1", "persons-1", "servers-1"]
        assert (kept["root-1"], kept["persons-1"]) == (authority.root.der, authority.issuing.der)
        shards = connection.execute(
            text("SELECT authority_id, count(*) FROM crl_shard GROUP BY 1 ORDER BY 1")
        )
        assert shards.all() == [
            ("organisations-1", 16), ("persons-1", 16), ("root-1", 1), ("servers-1", 16),
        ]  # fmt: skip


def test_a_ceremony_cut_short_goes_on_with_the_keys_it_made(
    engine: Engine, tmp_path: Path, now: datetime
) -> None:
    keys = FileKeys(tmp_path / "keys", PASSPHRASE)
    made = keys.make("root-1", ec.SECP384R1()).public_key()
    ceremony.establish(
        engine, keys, base_url=BASE_URL, now=now, actor=Actor("test"), crl_form=CrlForm.NATIONAL
    )
    with engine.connect() as connection:
        root = authorities.load_authority(connection, "root-1")
    assert root
    assert x509.load_der_x509_certificate(root.der).public_key() == made


# The journal and the keys on disk.


def test_a_line_cut_short_is_dropped_and_the_rest_kept(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    journal.add_certificate(serial_of(1), b"one")
    journal.add_list("persons-1/0/1", b"\x01" * 32)
    journal.close()
    whole = path.read_bytes()
    for cut in (1, 40, 90):
        path.write_bytes(whole + whole[:cut])
        again = Journal(path)
        assert again.certificate(serial_of(1)) == b"one"
        again.add_certificate(serial_of(2), b"two")
        again.close()
        third = Journal(path)
        assert (third.certificate(serial_of(1)), third.certificate(serial_of(2))) == (b"one", b"two")
        assert third.list_signed("persons-1/0/1") == b"\x01" * 32
        third.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_full_disk_leaves_nothing_of_what_was_not_signed(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    journal.add_certificate(serial_of(1), b"one")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 1000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            journal.add_certificates({serial_of(n): b"many" * n for n in range(2, 40)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    journal.add_certificate(serial_of(2), b"two")
    journal.close()
    again = Journal(path)
    assert [again.certificate(serial_of(n)) for n in (1, 2, 3)] == [b"one", b"two", None]
    again.close()


@pytest.mark.parametrize(
    "damage", [b"not json\n", b"{}\n", b'{"serial": "1", "sha256": "00", "der": "AAAA"}\n']
)
def test_a_damaged_journal_stops_the_signer(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "journal.jsonl"
    line = b'{"crl":"persons-1/0/1","tbs_sha256":"00"}\n'
    path.write_bytes(line + damage + line)
    with pytest.raises(Refusal) as refused:
        Journal(path)
    assert refused.value.code == "journal-damaged"
    assert str(len(line)) in refused.value.text


def test_two_signers_do_not_share_a_journal(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    with pytest.raises(Refusal) as refused:
        Journal(tmp_path / "journal.jsonl")
    assert refused.value.code == "journal-held"
    journal.close()


def test_keys_lie_encrypted_and_closed_to_others(authority: Established) -> None:
    folder = authority.keys.folder
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for name in ("root-1", "persons-1"):
        path = folder / f"{name}.key"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.read_bytes().startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
        opened = subprocess.run(
            ["openssl", "pkey", "-in", str(path), "-passin", f"pass:{PASSPHRASE.decode()}", "-check"],
            capture_output=True, check=False,
        )  # fmt: skip
        assert opened.returncode == 0
    assert PASSPHRASE.decode() not in repr(authority.keys)


def test_no_private_number_of_a_ca_is_written_anywhere(engine: Engine, authority: Established) -> None:
    secrets = []
    for name in ("root-1", "persons-1"):
        number = authority.keys.load(name).private_numbers().private_value
        raw = number.to_bytes(48 if name == "root-1" else 32, "big")
        secrets += [raw, raw.hex().encode(), base64.b64encode(raw)[:40]]
    for path in authority.folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not any(secret in content for secret in secrets), path
    with engine.connect() as connection:
        tables = ("authority", "reservation", "certificate", "audit_pending")
        for table in tables:
            rows = connection.execute(text(f"SELECT t::text FROM {table} t")).scalars()
            assert not any(secret.hex() in row for row in rows for secret in secrets)


def test_a_wrong_passphrase_and_a_missing_key_say_so(authority: Established) -> None:
    with pytest.raises(Refusal) as refused:
        replace(authority.keys, passphrase=b"wrong").load("root-1")
    assert refused.value.code == "ca-key-unreadable"
    with pytest.raises(Refusal) as refused:
        authority.keys.load("other")
    assert refused.value.code == "ca-key-missing"
    assert str(authority.folder) not in refused.value.text, "what the signer refuses, HTTP clients read"
    with pytest.raises(Refusal) as refused:
        authority.keys.make("root-1", ec.SECP384R1())
    assert (refused.value.kind, refused.value.code) == (Kind.CONFLICT, "ca-key-exists")


def test_the_key_of_another_installation_signs_nothing(
    engine: Engine, authority: Established, now: datetime
) -> None:
    (authority.keys.folder / "persons-1.key").unlink()
    authority.keys.make("persons-1", ec.SECP256R1())
    lines = (authority.keys.folder / "journal.jsonl").read_bytes()
    for act in (
        authority.signer.ping,
        lambda: crl.publish(
            engine, authority.signer, authority_id="persons-1", shard=0, now=now, lifetime=timedelta(days=3)
        ),
    ):
        with pytest.raises(Refusal) as refused:
            act()
        assert refused.value.code == "ca-key-unreadable"
    assert (authority.keys.folder / "journal.jsonl").read_bytes() == lines


# The process.


def test_the_process_and_its_socket_are_closed_to_others(process: Process) -> None:
    assert process.running
    assert stat.S_IMODE(process.socket.stat().st_mode) == 0o600
    status = Path(f"/proc/{process.running.pid}/limits").read_text()
    assert "Max core file size        0                    0" in status


@pytest.mark.waits
def test_a_process_that_is_hardened_leaves_no_dump_of_its_memory() -> None:
    program = (
        "import ctypes; from pki.signing.process import _harden; _harden();"
        "print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"  # PR_GET_DUMPABLE
    )
    told = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert told.stdout.strip() == "0"


def test_a_killed_signer_gives_the_same_certificate_when_it_is_back(engine: Engine, process: Process) -> None:
    client = process.client
    serial = reserve(engine).reservation.serial
    signed = client.sign_certificate(serial)
    process.stop(signal.SIGKILL)
    with pytest.raises(Refusal) as refused:
        client.sign_certificate(serial)
    assert (refused.value.kind, refused.value.code) == (Kind.UNAVAILABLE, "signer-unavailable")
    process.start()
    assert client.sign_certificate(serial) == signed
    assert process.stop() == 0
    assert not process.socket.exists()


def test_a_client_keeps_its_connection_and_outlives_the_signer_behind_it(
    engine: Engine, process: Process
) -> None:
    client, serial = process.client, reserve(engine).reservation.serial
    signed = client.sign_certificate(serial)
    at_once(*[lambda: client.journal(serial)] * 8)

    def held() -> int:
        # Of the whole machine: a process that is hardened shows its files to root alone. psutil takes sockets
        # whose file it may not see for one.
        known = Path("/proc/net/unix").read_text().splitlines()
        return sum(line.endswith(f" {process.socket}") for line in known) - 1

    def within_a_while(holds: Callable[[], bool]) -> None:
        # The kernel's list misses sockets now and then while others come and go.
        deadline = time.monotonic() + 20
        while not holds():
            assert time.monotonic() < deadline

    within_a_while(lambda: 1 <= held() <= 8)
    assert process.stop() == 0
    process.start()
    # As many went stale as it has tries, or more: none of them counts.
    assert client.journal(serial) == signed
    # What was asked to see whether it serves may still be hanging up.
    within_a_while(lambda: held() == 1)


def test_nonsense_on_the_socket_ends_that_conversation_only(process: Process) -> None:
    steady = process.client
    assert steady.ping()
    for nonsense in (
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x00\x00\x00\x02[]",
        b"\x00\x00\x00\x02{}",
        b"\x00\x00\x00\x09x",
    ):
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(5)
            link.connect(str(process.socket))
            link.sendall(nonsense)
            link.shutdown(socket.SHUT_WR)
            # Hung up politely or not: it read no further than the nonsense.
            with suppress(ConnectionResetError):
                assert link.recv(1) == b""
    assert steady.ping()


def test_whoever_holds_connections_takes_the_signer_from_nobody(engine: Engine, process: Process) -> None:
    assert process.running
    client, serial = process.client, reserve(engine).reservation.serial
    signer = psutil.Process(process.running.pid)
    # Some more than it lets be silent, and fewer than are held.
    most = MOST_SILENT + 60
    signer.rlimit(resource.RLIMIT_NOFILE, (most, most))
    with ExitStack() as held:
        for number in range(most + 40):
            link = held.enter_context(socket.socket(socket.AF_UNIX))
            link.connect(str(process.socket))
            if number % 2:
                # Half a question: more was announced than ever comes.
                link.sendall(b"\x00\x00\xff\x00\x00\x00\x00\x00{")
        assert client.sign_certificate(serial)
        assert client.ping()
        deadline = time.monotonic() + 20
        while signer.num_threads() > MOST_SILENT + 20:
            assert time.monotonic() < deadline


def test_whoever_asks_on_a_thousand_connections_takes_the_signer_from_nobody(
    engine: Engine, process: Process
) -> None:
    assert process.running
    client, serial = process.client, reserve(engine).reservation.serial
    signer, well = psutil.Process(process.running.pid), questions.signer(process.socket)
    # Some more than it lets be open, and fewer than ask.
    most = MOST_OPEN + 60
    signer.rlimit(resource.RLIMIT_NOFILE, (most, most))
    deadline = time.monotonic() + 60
    with ExitStack() as held:
        with engine.begin() as connection:
            # The first question waits for this, all others for the first: none is silent.
            connection.execute(text("LOCK TABLE crl IN ACCESS EXCLUSIVE MODE"))
            poll = select.poll()
            for _ in range(most + 40):
                link = held.enter_context(socket.socket(socket.AF_UNIX))
                link.connect(str(process.socket))
                poll.register(link, select.POLLIN)
                with suppress(ConnectionError):
                    wire.send(link, {"ask": "crl", "authority": "persons-1", "shard": 0, "number": 1})
            while len(poll.poll(100)) < most + 40 - MOST_OPEN:
                assert time.monotonic() < deadline
            # A hang-up is an answer: it is not ended for its silence.
            while not well():
                assert time.monotonic() < deadline
        # All are answered, and silent from then on.
        while signer.num_threads() > MOST_SILENT + 20:
            assert time.monotonic() < deadline
        assert client.sign_certificate(serial)
        assert client.ping()


@pytest.fixture
def taken_alone(authority: Established, tmp_path: Path) -> Iterator[tuple[_Server, Callable[[], Taken]]]:
    """The signer's server without its loop, and how one more client connects to it."""
    with _Server(tmp_path / "signer.sock", authority.signer) as server, ExitStack() as held:

        def connected() -> Taken:
            client = held.enter_context(socket.socket(socket.AF_UNIX))
            client.connect(str(server.path))
            client.settimeout(0)
            link, _ = server.get_request()
            return Taken(client, held.enter_context(link))

        yield server, connected


def test_the_longest_silent_gives_way_and_the_newcomer_where_none_is_silent(
    taken_alone: tuple[_Server, Callable[[], Taken]], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, connected = taken_alone
    monkeypatch.setattr(signer_process, "MOST_OPEN", 3)
    asking, silent, later = connected(), connected(), connected()
    with server.busy_with(asking.link):
        second = connected()
        assert [one.hung_up() for one in (asking, silent, later, second)] == [False, True, False, False]
        with server.busy_with(later.link), server.busy_with(second.link):
            newcomer = connected()
            assert newcomer.hung_up()
            assert not server.verify_request(newcomer.link, "")
    assert not any(one.hung_up() for one in (asking, later, second))


def test_those_answered_at_once_are_counted_among_the_silent(
    taken_alone: tuple[_Server, Callable[[], Taken]], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, connected = taken_alone
    monkeypatch.setattr(signer_process, "MOST_SILENT", 1)
    first = connected()
    with server.busy_with(first.link):
        second = connected()
        with server.busy_with(second.link):
            pass
        assert not second.hung_up()
    assert (first.hung_up(), second.hung_up()) == (False, True)


def test_a_question_of_whom_the_signer_hung_up_on_is_not_signed(
    engine: Engine,
    authority: Established,
    now: datetime,
    taken_alone: tuple[_Server, Callable[[], Taken]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server, connected = taken_alone
    monkeypatch.setattr(signer_process, "MOST_SILENT", 1)
    serial = reserve(engine, now).reservation.serial
    late = connected()
    wire.send(late.client, {"ask": "certificate", "serial": serial})
    other = connected()
    # Its thread reads the question only now.
    server.finish_request(late.link, "")
    assert authority.signer.journal(serial) is None
    assert not other.hung_up()


def test_nobody_begins_an_answer_between_the_choice_and_the_hang_up(
    taken_alone: tuple[_Server, Callable[[], Taken]], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, connected = taken_alone
    monkeypatch.setattr(signer_process, "MOST_SILENT", 1)
    longest = connected()
    at_release: list[bool] = []

    class Seen:
        """The server's lock; what others could see first once it is free."""

        lock = server._lock

        def __enter__(self) -> None:
            self.lock.acquire()

        def __exit__(self, *_: object) -> None:
            at_release.append(longest.hung_up())
            self.lock.release()

    monkeypatch.setattr(server, "_lock", Seen())
    connected()
    assert at_release == [True]


def test_a_socket_below_a_deep_folder_is_reached(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as link:
        with wire.short(deep / "signer.sock") as name:
            server.bind(name)
        server.listen()
        with wire.short(deep / "signer.sock") as name:
            link.connect(name)
        wire.send(link, {"ask": "ping"})
        taken, _ = server.accept()
        with taken:
            assert wire.receive(taken, 100) == ({"ask": "ping"}, b"")
    assert (deep / "signer.sock").exists()
    assert len(os.fsencode(deep)) > 107

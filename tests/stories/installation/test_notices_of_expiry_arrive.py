"""Notices of expiry through a Postfix: they arrive once, under TLS or not at all, or are tried again."""

import os
import shutil
import smtplib
import socket
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from sqlalchemy import Engine, text

from api.jobs import expiry_mail
from api.settings import Settings
from api.wiring import Container
from pki.monitoring import expiry_notices
from tests.api.certificates import certify, certify_operator, keep_contacts, take_back
from tests.directory.sync.sources import SIGNS_CERTIFICATES
from tests.factories import seed_practitioner
from tests.stories.installation.postfix import Postfix, postfix

DAY = timedelta(days=1)
pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("postfix") is None, reason="Postfix wants to be started by root"
)


class NoSigner:
    """Nothing is signed here."""


@pytest.fixture(scope="module")
def tls() -> tuple[bytes, bytes]:
    """A certificate for 127.0.0.1 that is its own CA, and its key."""
    key, today = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "mx.example")])
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - DAY)
        .not_valid_after(today + DAY)
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(SIGNS_CERTIFICATES, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(Encoding.PEM), key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )


@pytest.fixture(scope="module")
def server(passable: Path, tls: tuple[bytes, bytes]) -> Iterator[Postfix]:
    with postfix(passable / "postfix", *tls) as running:
        yield running


@pytest.fixture
def container(
    engine: Engine, now: datetime, tmp_path: Path, server: Postfix, tls: tuple[bytes, bytes]
) -> Iterator[Container]:
    (tmp_path / "ca.pem").write_bytes(tls[0])
    settings = Settings(
        state=tmp_path, smtp_host="127.0.0.1", smtp_port=server.port, smtp_from="sceau@trust.example",
        smtp_ca_file=str(tmp_path / "ca.pem"),
    )  # fmt: skip
    yield Container(settings=settings, engine=engine, signer=NoSigner(), clock=lambda: now)  # type: ignore[arg-type]
    shutil.rmtree(server.folder / "box" / "inbox", ignore_errors=True)


def send(container: Container, after: timedelta = timedelta(), **settings: object) -> str:
    moment = container.clock() + after
    changed = replace(container.settings, **settings)  # type: ignore[arg-type]
    return expiry_mail.send_notices(replace(container, settings=changed, clock=lambda: moment))


def test_a_notice_arrives_in_french_then_english_over_tls(
    container: Container, engine: Engine, now: datetime, server: Postfix
) -> None:
    mailbox = seed_practitioner(engine).mailbox
    serial = certify(engine, mailbox, now - 340 * DAY, lasts=365 * DAY)
    assert send(container) == "1 notices sent"
    (letter,) = server.delivered(1)
    assert (letter["To"], letter["From"]) == (mailbox, "sceau@trust.example")
    assert letter["Subject"] == "Certificat : fin dans 25 jours / Certificate ends in 25 days"
    body = letter.get_content()
    assert (
        0
        < body.index("prend fin le 26/09/2026 12:00 (UTC), dans 25 jours")
        < body.index("ends on 26/09/2026")
    )
    assert serial in body
    assert letter["Auto-Submitted"] == "auto-generated"
    # RFC 3848: the S says that it came under TLS.
    assert "with ESMTPS id" in letter["Received"]


def test_a_notice_says_what_runs_out_of_a_pair(
    container: Container, engine: Engine, now: datetime, server: Postfix
) -> None:
    mailbox = seed_practitioner(engine).mailbox
    for number, use in ((1, "sign"), (2, "encrypt")):
        certify(engine, mailbox, now - 340 * DAY, number=number, profile=f"practitioner-smime-{use}")
    assert send(container) == "2 notices sent"
    bodies = sorted(letter.get_content() for letter in server.delivered(2))
    for body, use, loss in (
        (bodies[0], "Use: encryption", "nobody can write to it"),
        (bodies[1], "Use: signature", "nothing that it sends is accepted"),
    ):
        assert use in body
        assert loss in body


def test_each_step_is_told_once(container: Container, engine: Engine, now: datetime, server: Postfix) -> None:
    mailbox = seed_practitioner(engine).mailbox
    certify(engine, mailbox, now, lasts=61 * DAY)
    days = [day for day in range(62) if send(container, day * DAY)]
    assert days == [1, 31, 54]
    letters = server.delivered(3)
    assert len({letter["Message-ID"] for letter in letters}) == 3


def test_what_was_renewed_revoked_or_held_gets_none(
    container: Container, engine: Engine, now: datetime
) -> None:
    for number in (1, 2, 4):
        mailbox = seed_practitioner(engine, number).mailbox
        certify(engine, mailbox, now - 340 * DAY, number=number)
    certify(engine, "person-1@one.example", now, number=11)
    take_back(engine, f"{2:040x}", now)
    take_back(engine, f"{4:040x}", now, action="hold", reason="certificateHold")
    assert send(container) == ""


def test_a_successor_that_was_revoked_is_none(container: Container, engine: Engine, now: datetime) -> None:
    mailbox = seed_practitioner(engine).mailbox
    certify(engine, mailbox, now - 340 * DAY)
    take_back(engine, certify(engine, mailbox, now, number=2), now)
    assert send(container) == "1 notices sent"


def test_a_server_that_is_away_is_tried_again_ever_more_seldom(
    container: Container, engine: Engine, now: datetime, server: Postfix
) -> None:
    certify(engine, seed_practitioner(engine).mailbox, now - 340 * DAY)
    minutes = [at for at in range(0, 60, 5) if send(container, timedelta(minutes=at), smtp_port=1)]
    assert minutes == [0, 5, 15, 35]
    with engine.begin() as connection:
        error = connection.execute(text("SELECT last_error FROM expiry_notice")).scalar_one()
    assert "ConnectionRefusedError" in error
    assert send(container, timedelta(hours=2)) == "1 notices sent"
    assert len(server.delivered(1)) == 1


def test_one_mailbox_that_is_refused_holds_up_no_other(
    container: Container, engine: Engine, now: datetime, server: Postfix
) -> None:
    for number in (1, 3, 5):
        certify(engine, seed_practitioner(engine, number).mailbox, now - 340 * DAY, number=number)
    assert send(container) == "2 notices sent, 1 to be tried again"
    assert sorted(letter["To"] for letter in server.delivered(2)) == [
        "person-1@one.example", "person-5@one.example",
    ]  # fmt: skip
    with engine.begin() as connection:
        error = connection.execute(text("SELECT max(last_error) FROM expiry_notice")).scalar_one()
    assert error.startswith("550 ")


def test_a_renewal_between_two_tries_closes_the_notice(
    container: Container, engine: Engine, now: datetime
) -> None:
    mailbox = seed_practitioner(engine).mailbox
    certify(engine, mailbox, now - 340 * DAY)
    send(container, smtp_port=1)
    certify(engine, mailbox, now, number=2)
    assert send(container, timedelta(hours=1)) == ""
    with engine.begin() as connection:
        assert connection.execute(text("SELECT next_attempt_at, sent_at FROM expiry_notice")).all() == [
            (None, None)
        ]


def test_a_certificate_of_somebody_else_gets_no_letter(
    container: Container, engine: Engine, now: datetime, server: Postfix
) -> None:
    certify(engine, seed_practitioner(engine).mailbox, now - 340 * DAY)
    # Known by the system's CAs alone, the server could be anybody.
    assert send(container, smtp_ca_file="") == "1 to be tried again"
    assert send(container, timedelta(hours=1), smtp_host="localhost") == "1 to be tried again"
    assert server.inbox == []


def test_a_server_without_tls_gets_no_letter_unless_it_is_allowed(
    container: Container, engine: Engine, now: datetime, passable: Path, tls: tuple[bytes, bytes]
) -> None:
    certify(engine, seed_practitioner(engine).mailbox, now - 340 * DAY)
    with postfix(passable / "plain", *tls, tls="none") as plain:
        assert send(container, smtp_port=plain.port) == "1 to be tried again"
        assert plain.inbox == []
        assert send(container, timedelta(hours=1), smtp_port=plain.port, smtp_starttls=False)
        assert len(plain.delivered(1)) == 1


def test_killed_between_sending_and_marking_it_sends_twice_rather_than_not_at_all(
    container: Container, engine: Engine, now: datetime, server: Postfix, monkeypatch: pytest.MonkeyPatch
) -> None:
    certify(engine, seed_practitioner(engine).mailbox, now - 340 * DAY)

    class KilledError(BaseException):
        """Nothing of ours runs after it."""

    def killed(*_: object) -> None:
        raise KilledError

    with monkeypatch.context() as patched:
        patched.setattr(expiry_notices.store, "mark_sent", killed)
        with pytest.raises(KilledError):
            send(container)
    assert send(container, timedelta(minutes=5)) == "1 notices sent"
    first, second = server.delivered(2)
    assert first["Message-ID"] == second["Message-ID"]


def test_without_a_mail_server_nothing_is_noted(container: Container, engine: Engine, now: datetime) -> None:
    certify(engine, seed_practitioner(engine).mailbox, now - 340 * DAY)
    assert send(container, smtp_host="") == ""
    with engine.begin() as connection:
        assert connection.execute(text("SELECT count(*) FROM expiry_notice")).scalar_one() == 0


def test_a_server_that_breaks_off_in_the_middle_is_told_the_rest_later(
    container: Container, engine: Engine, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2, 5):
        certify(engine, seed_practitioner(engine, number).mailbox, now - 340 * DAY, number=number)
    calls = iter(range(10))
    own = smtplib.SMTP.send_message

    def breaking(server: smtplib.SMTP, *given: object, **named: object) -> object:
        if next(calls) == 1:
            assert server.sock is not None
            server.sock.shutdown(socket.SHUT_RDWR)
        return own(server, *given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(smtplib.SMTP, "send_message", breaking)
    assert send(container) == "1 notices sent, 2 to be tried again"
    assert send(container, timedelta(minutes=5)) == "2 notices sent"


TEAM, NIGHT = "team@one.example", "night@one.example"
OTHER = "CN=other.example,O=Other operator,C=FR"


def test_the_contacts_of_an_operator_are_told_of_its_servers(
    container: Container, engine: Engine, now: datetime, server: Postfix
) -> None:
    seed_practitioner(engine)
    seed_practitioner(engine, 5, operator=OTHER, address="b@other.example")
    keep_contacts(engine, TEAM, NIGHT)
    keep_contacts(engine, "somebody@else.example", operator=OTHER)
    serial = certify_operator(engine, now - 340 * DAY, number=1)
    assert send(container) == "2 notices sent"
    letters = server.delivered(2)
    assert sorted(letter["To"] for letter in letters) == [NIGHT, TEAM]
    assert {letter["Message-ID"] for letter in letters} == {f"<expiry.{serial}.30@trust.example>"}
    body = letters[0].get_content()
    assert (
        0
        < body.index("certificat d'opérateur ci-dessous prend fin le 26/09/2026 12:00 (UTC), dans 25 jours")
        < body.index("Certificat : CN=mx.one.example")
        < body.index("ends on 26/09/2026")
        < body.index("Certificate: CN=mx.one.example")
    )
    assert serial in body
    assert "with ESMTPS id" in letters[0]["Received"]


def test_a_contact_is_told_each_step_once(
    container: Container, engine: Engine, now: datetime, server: Postfix
) -> None:
    seed_practitioner(engine)
    keep_contacts(engine, TEAM)
    certify_operator(engine, now, number=1, lasts=61 * DAY)
    assert [day for day in range(62) if send(container, day * DAY)] == [1, 31, 54]
    assert len({letter["Message-ID"] for letter in server.delivered(3)}) == 3


def test_who_becomes_a_contact_is_told_of_the_step_that_was_reached(
    container: Container, engine: Engine, now: datetime, server: Postfix
) -> None:
    seed_practitioner(engine)
    certify_operator(engine, now - 340 * DAY, number=1)
    assert send(container) == ""
    keep_contacts(engine, TEAM)
    assert send(container, DAY) == "1 notices sent"
    keep_contacts(engine, NIGHT, TEAM)
    assert send(container, 2 * DAY) == "1 notices sent"
    assert sorted(letter["To"] for letter in server.delivered(2)) == [NIGHT, TEAM]


def test_who_is_no_contact_any_more_gets_nothing_that_waited(
    container: Container, engine: Engine, now: datetime, server: Postfix
) -> None:
    seed_practitioner(engine)
    keep_contacts(engine, TEAM, NIGHT)
    certify_operator(engine, now - 340 * DAY, number=1)
    assert send(container, smtp_port=1) == "2 to be tried again"
    keep_contacts(engine, NIGHT)
    assert send(container, timedelta(hours=1)) == "1 notices sent"
    assert [letter["To"] for letter in server.delivered(1)] == [NIGHT]
    with engine.begin() as connection:
        waiting = "SELECT count(*) FROM expiry_notice WHERE next_attempt_at IS NOT NULL"
        assert connection.execute(text(waiting)).scalar_one() == 0


def test_a_contact_that_is_refused_is_tried_again_alone(
    container: Container, engine: Engine, now: datetime, server: Postfix
) -> None:
    seed_practitioner(engine)
    keep_contacts(engine, "person-3@one.example", TEAM)
    certify_operator(engine, now - 340 * DAY, number=1)
    assert send(container) == "1 notices sent, 1 to be tried again"
    assert send(container, timedelta(hours=1)) == "1 to be tried again"
    assert [letter["To"] for letter in server.delivered(1)] == [TEAM]


def test_an_operator_s_renewal_ends_its_notices_and_another_s_does_not(
    container: Container, engine: Engine, now: datetime
) -> None:
    seed_practitioner(engine)
    seed_practitioner(engine, 5, operator=OTHER, address="b@other.example")
    keep_contacts(engine, TEAM)
    certify_operator(engine, now - 340 * DAY, number=1)
    # A domain may be two operators': the other's server bears the same name.
    certify_operator(engine, now, number=2, operator=OTHER)
    assert send(container, smtp_port=1) == "1 to be tried again"
    certify_operator(engine, now, number=3)
    assert send(container, timedelta(hours=1)) == ""

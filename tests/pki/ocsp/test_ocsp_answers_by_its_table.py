"""Every line of the table of OCSP answers, through the callable; read by openssl, GnuTLS, `cryptography`."""

import base64
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from secrets import token_bytes
from tempfile import TemporaryDirectory

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp as library
from sqlalchemy import Engine, text

from api.database_timeout import impatient
from api.embedded.postgres import EmbeddedPostgres
from api.status.wsgi import StatusApplication
from directory.base.clock import utc_now
from directory.base.db import connect_engine, transaction
from pki.certificates import der, identifiers
from pki.model import RevocationReason, serial_of
from pki.ocsp import responders
from pki.ocsp import response as ocsp
from pki.ocsp import store as ocsp_store
from pki.ocsp.response import Outcome
from tests.status_ca import ISSUING, PASSPHRASE, ROOT, Issued, StatusCa
from tests.wsgi_client import request

HASHES = {"sha1": hashes.SHA1(), "sha256": hashes.SHA256()}
Status = library.OCSPCertStatus
Error = library.OCSPResponseStatus


@pytest.fixture
def ca(engine: Engine) -> StatusCa:
    # The tools that judge know no other day than today.
    return StatusCa(engine, utc_now()).establish()


@pytest.fixture
def application(ca: StatusCa, tmp_path: Path) -> StatusApplication:
    ca.add_responder(tmp_path)
    return StatusApplication(ca.engine, keys_folder=tmp_path, passphrase=PASSPHRASE, hours=8)


def asked(
    ca: StatusCa, number: int, algorithm: str = "sha1", nonce: bytes | None = None, of: str = ISSUING
) -> bytes:
    builder = library.OCSPRequestBuilder()
    issuer = ocsp.issuer(of, *ocsp_fields(ca, of), ca.now)
    builder = builder.add_certificate_by_hash(
        issuer.name_hashes[algorithm], issuer.key_hashes[algorithm], number, HASHES[algorithm]
    )
    if nonce is not None:
        builder = builder.add_extension(x509.OCSPNonce(nonce), critical=False)
    return builder.build().public_bytes(Encoding.DER)


def ocsp_fields(ca: StatusCa, name: str) -> tuple[bytes, bytes]:
    return identifiers.issuer_fields(ca.der(name))


def about(ca: StatusCa, issued: Issued, algorithm: str = "sha1", nonce: bytes | None = None) -> bytes:
    return asked(ca, int(issued.serial, 16), algorithm, nonce)


def said(application: StatusApplication, question: bytes) -> library.OCSPResponse:
    status, _, body = request(application, "POST", "/ocsp", question)
    assert status.startswith("200")
    return library.load_der_ocsp_response(body)


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
def test_an_issued_certificate_is_good_under_the_hash_that_was_asked(
    ca: StatusCa, application: StatusApplication, algorithm: str
) -> None:
    issued = ca.issue()
    answer = said(application, about(ca, issued, algorithm))
    assert answer.certificate_status is Status.GOOD
    assert answer.hash_algorithm.name == algorithm
    assert serial_of(answer.serial_number) == issued.serial
    assert answer.next_update_utc is not None
    assert answer.next_update_utc - answer.produced_at_utc == timedelta(hours=8)


@pytest.mark.parametrize("reason", RevocationReason)
def test_a_revoked_or_held_certificate_is_revoked_with_its_time_and_reason(
    ca: StatusCa, application: StatusApplication, reason: RevocationReason
) -> None:
    issued = ca.issue()
    at = (ca.now - timedelta(hours=5)).replace(microsecond=0)
    ca.revoke(
        issued, reason, at=at, action="hold" if reason is RevocationReason.CERTIFICATE_HOLD else "revoke"
    )
    answer = said(application, about(ca, issued))
    assert answer.certificate_status is Status.REVOKED
    assert answer.revocation_time_utc == at
    assert answer.revocation_reason is not None
    assert answer.revocation_reason.value == reason.value


def test_a_certificate_released_from_hold_is_good_again(ca: StatusCa, application: StatusApplication) -> None:
    issued = ca.issue()
    ca.revoke(issued, RevocationReason.CERTIFICATE_HOLD, action="hold")
    ca.revoke(issued, RevocationReason.CERTIFICATE_HOLD, action="release")
    assert said(application, about(ca, issued)).certificate_status is Status.GOOD


def test_an_expired_certificate_keeps_its_status_back_to_the_archive_cutoff(
    ca: StatusCa, application: StatusApplication
) -> None:
    ca.now -= timedelta(days=30)
    issued = ca.issue(days=1)
    _, _, body = request(application, "POST", "/ocsp", about(ca, issued))
    assert library.load_der_ocsp_response(body).certificate_status is Status.GOOD
    start = ca.certificates[ISSUING].not_valid_before_utc
    assert der.oid("1.3.6.1.5.5.7.48.1.6") in body
    assert der.generalized_time(start) in body


def test_a_positive_statement_carries_the_certificates_own_digest(
    ca: StatusCa, application: StatusApplication
) -> None:
    issued = ca.issue()
    _, _, body = request(application, "POST", "/ocsp", about(ca, issued))
    assert issued.certificate.fingerprint(hashes.SHA256()) in body


def test_serials_never_issued_are_never_good(ca: StatusCa, application: StatusApplication) -> None:
    for _ in range(200):
        answer = said(application, asked(ca, x509.random_serial_number()))
        assert answer.certificate_status is Status.UNKNOWN


def test_a_serial_that_is_only_reserved_is_unknown_and_revoked_once_taken_back(
    ca: StatusCa, application: StatusApplication
) -> None:
    serial = serial_of(x509.random_serial_number())
    ca.reserve(serial)
    assert said(application, asked(ca, int(serial, 16))).certificate_status is Status.UNKNOWN
    issued = Issued(serial, 0, ca.certificates[ISSUING], ca.now + timedelta(days=1))
    ca.revoke(issued)
    assert said(application, asked(ca, int(serial, 16))).certificate_status is Status.REVOKED


def test_a_serial_of_another_ca_of_ours_is_unknown_here(ca: StatusCa, application: StatusApplication) -> None:
    issued = ca.issue(authority=ROOT)
    assert said(application, about(ca, issued)).certificate_status is Status.UNKNOWN


def test_an_issuer_that_is_not_ours_is_unauthorized(ca: StatusCa, application: StatusApplication) -> None:
    builder = library.OCSPRequestBuilder().add_certificate_by_hash(b"a" * 20, b"b" * 20, 5, hashes.SHA1())
    foreign = builder.build().public_bytes(Encoding.DER)
    assert said(application, foreign).response_status is Error.UNAUTHORIZED
    assert said(application, asked(ca, 5, of=ROOT)).response_status is Error.UNAUTHORIZED


@pytest.mark.parametrize("length", [1, 16, 32, 128])
def test_a_nonce_of_an_allowed_length_comes_back(
    ca: StatusCa, application: StatusApplication, length: int
) -> None:
    nonce = token_bytes(length)
    answer = said(application, about(ca, ca.issue(), nonce=nonce))
    assert answer.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce == nonce
    assert answer.certificate_status is Status.GOOD


def single(request_octets: bytes) -> bytes:
    """The one question inside a request."""
    (tbs, *_) = der.elements(der.content(request_octets))
    (requests, *_) = der.elements(der.content(tbs))
    return der.content(requests)


def together(*octets: bytes, nonce: bytes | None = None) -> bytes:
    """One request about all that these ask about."""
    questions = der.sequence(*(single(one) for one in octets))
    if nonce is None:
        return der.sequence(der.sequence(questions))
    extension = der.extension("1.3.6.1.5.5.7.48.1.2", der.octet_string(nonce))
    return der.sequence(der.sequence(questions, der.explicit(2, der.sequence(extension))))


def too_many(ca: StatusCa) -> bytes:
    return together(*[asked(ca, number) for number in range(1, 102)])


def one_of_two_is_wrong(ca: StatusCa) -> bytes:
    return together(asked(ca, 5), with_serial(der.integer(0))(ca))


def with_critical_extension_of_one(ca: StatusCa) -> bytes:
    (identity,) = der.elements(der.content(single(asked(ca, 5))))
    strange = der.explicit(0, der.sequence(der.extension("1.3.6.1.4.1.99999.1", der.NULL, critical=True)))
    return der.sequence(der.sequence(der.sequence(der.sequence(identity, strange))))


def with_critical_extension_of_one_of_two(ca: StatusCa) -> bytes:
    return together(asked(ca, 6), with_critical_extension_of_one(ca))


def none_at_all(_: StatusCa) -> bytes:
    return der.sequence(der.sequence(der.sequence()))


def with_serial(encoded: bytes) -> Callable[[StatusCa], bytes]:
    def build(ca: StatusCa) -> bytes:
        one = asked(ca, 0x1122334455667788)
        (tbs,) = der.elements(der.content(one))
        (requests,) = der.elements(der.content(tbs))
        (single,) = der.elements(der.content(requests))
        (identity,) = der.elements(der.content(single))
        *parts, _ = der.elements(der.content(identity))
        return der.sequence(der.sequence(der.sequence(der.sequence(der.sequence(*parts, encoded)))))

    return build


def with_unknown_critical_extension(ca: StatusCa) -> bytes:
    (tbs,) = der.elements(der.content(asked(ca, 5)))
    strange = der.explicit(2, der.sequence(der.extension("1.3.6.1.4.1.99999.1", der.NULL, critical=True)))
    return der.sequence(der.sequence(der.content(tbs), strange))


@pytest.mark.parametrize(
    "build",
    [
        lambda _: b"",
        lambda _: b"garbage",
        lambda _: b"\x30\x80\x00\x00",
        lambda ca: asked(ca, 5) + b"\x00",
        lambda ca: asked(ca, 5)[:-1],
        lambda ca: asked(ca, 5, nonce=b""),
        lambda ca: asked(ca, 5, nonce=bytes(129)),
        lambda ca: asked(ca, 5, nonce=bytes(11_000)),
        lambda _: bytes(50_000),
        too_many,
        one_of_two_is_wrong,
        with_critical_extension_of_one,
        with_critical_extension_of_one_of_two,
        none_at_all,
        with_unknown_critical_extension,
        with_serial(der.integer(0)),
        with_serial(der.integer(-5)),
        with_serial(der.integer(1 << 159)),
        with_serial(der.integer(1 << 20_000)),
        with_serial(der.NULL),
    ],
)
def test_what_is_no_well_formed_question_is_malformed(
    ca: StatusCa, application: StatusApplication, build: Callable[[StatusCa], bytes]
) -> None:
    status, headers, body = request(application, "POST", "/ocsp", build(ca))
    assert (status, headers["Cache-Control"]) == ("200 OK", "no-store")
    assert library.load_der_ocsp_response(body).response_status is Error.MALFORMED_REQUEST


def each_of(
    ca: StatusCa, application: StatusApplication, asking: bytes
) -> tuple[list[tuple[int, str]], bytes]:
    """Serial and status of each certificate in the answer, as openssl prints them, and the answer."""
    _, headers, body = request(application, "POST", "/ocsp", asking)
    assert headers["Cache-Control"] == "no-store"
    with TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "answer").write_bytes(body)
        (folder / "chain.pem").write_bytes(ca.pem())
        judged = run("openssl", "ocsp", "-respin", folder / "answer", "-CAfile", folder / "chain.pem",
                     "-no_nonce", "-text")  # fmt: skip
    assert "Response verify OK" in judged.stderr, judged.stdout + judged.stderr
    serials = [
        int(found, 16) for found in re.findall(r"    Serial Number: (\w+)\n    Cert Status", judged.stdout)
    ]
    return list(zip(serials, re.findall(r"Cert Status: (\w+)", judged.stdout), strict=True)), body


def test_several_certificates_are_answered_one_by_one_in_the_order_asked(
    ca: StatusCa, application: StatusApplication
) -> None:
    good, revoked = ca.issue(), ca.issue()
    ca.revoke(revoked)
    nonce = token_bytes(32)
    asking = together(
        about(ca, revoked, "sha256"), about(ca, good), asked(ca, 5), about(ca, good, "sha256"), nonce=nonce
    )
    found, body = each_of(ca, application, asking)
    assert found == [
        (int(revoked.serial, 16), "revoked"), (int(good.serial, 16), "good"), (5, "unknown"),
        (int(good.serial, 16), "good"),
    ]  # fmt: skip
    assert nonce in body
    assert good.certificate.fingerprint(hashes.SHA256()) in body


def test_a_hundred_certificates_are_answered_together(ca: StatusCa, application: StatusApplication) -> None:
    found, _ = each_of(ca, application, together(*[asked(ca, number) for number in range(1, 101)]))
    assert found == [(number, "unknown") for number in range(1, 101)]


def test_two_cas_in_one_request_have_no_key_that_speaks_for_both(
    ca: StatusCa, application: StatusApplication
) -> None:
    """OpenSSL refuses all of an answer, also about its own CA, in which a second CA is named."""
    ca.add_issuing("organisations-1")
    mine = about(ca, ca.issue())
    builder = library.OCSPRequestBuilder().add_certificate_by_hash(b"a" * 20, b"b" * 20, 7, hashes.SHA1())
    foreign = builder.build().public_bytes(Encoding.DER)
    for other in (asked(ca, 5, of="organisations-1"), foreign):
        for both in (together(mine, other), together(other, mine)):
            assert said(application, both).response_status is Error.UNAUTHORIZED


def test_answers_about_several_are_never_kept(ca: StatusCa, application: StatusApplication) -> None:
    one, other = ca.issue(), ca.issue()
    asking = together(about(ca, one), about(ca, other))
    application.answers.replies.vouch(time.monotonic())
    path = "/ocsp/" + base64.b64encode(asking).decode()
    assert request(application, "GET", path)[1]["Cache-Control"] == "no-store"
    assert application.answers.remembered(path) is None
    ca.revoke(other)
    found, _ = each_of(ca, application, asking)
    assert [status for _, status in found] == ["good", "revoked"]


def test_what_was_never_issued_is_revoked_in_the_extended_sense_where_that_is_set(
    ca: StatusCa, application: StatusApplication, tmp_path: Path
) -> None:
    application = StatusApplication(
        ca.engine, keys_folder=tmp_path, passphrase=PASSPHRASE, hours=8, never_issued=Outcome.NEVER_ISSUED
    )
    answer = said(application, asked(ca, 5, nonce=b"n" * 16))
    assert answer.certificate_status is Status.REVOKED
    assert answer.revocation_time_utc == datetime(1970, 1, 1, tzinfo=UTC)
    assert answer.revocation_reason is x509.ReasonFlags.certificate_hold
    assert "1.3.6.1.5.5.7.48.1.9" in [extension.oid.dotted_string for extension in answer.extensions]
    headers = request(application, "POST", "/ocsp", asked(ca, 5))[1]
    assert headers["Cache-Control"] == "no-store"
    issued = said(application, about(ca, ca.issue()))
    assert issued.certificate_status is Status.GOOD
    assert not list(issued.extensions)
    found, _ = each_of(ca, application, together(asked(ca, 5), about(ca, ca.issue())))
    assert [status for _, status in found] == ["revoked", "good"]


def test_the_largest_and_the_smallest_serial_are_answered(
    ca: StatusCa, application: StatusApplication
) -> None:
    for number in (1, (1 << 159) - 1):
        assert said(application, asked(ca, number)).certificate_status is Status.UNKNOWN


def test_a_record_out_of_reach_is_try_later_and_never_good(ca: StatusCa, tmp_path: Path) -> None:
    question = about(ca, ca.issue())
    ca.add_responder(tmp_path)
    gone = connect_engine("postgresql+psycopg://nobody@/nowhere?host=/nonexistent")
    for warm in (False, True):
        application = StatusApplication(gone, keys_folder=tmp_path, passphrase=PASSPHRASE, hours=8)
        if warm:
            with ca.engine.connect() as connection:
                known = responders.load_responders(connection, tmp_path, PASSPHRASE, ca.now)
            application.answers._responders = known
        status, headers, body = request(application, "POST", "/ocsp", question)
        assert (status, headers["Cache-Control"]) == ("200 OK", "no-store")
        assert library.load_der_ocsp_response(body).response_status is Error.TRY_LATER


def test_a_record_that_hangs_is_try_later_within_seconds_and_good_when_it_is_back(
    ca: StatusCa, tmp_path: Path, postgres: EmbeddedPostgres
) -> None:
    ca.add_responder(tmp_path)
    question = about(ca, ca.issue())
    record = impatient(connect_engine(ca.engine.url, application="hangs"), 0.5)
    app = StatusApplication(record, keys_folder=tmp_path, passphrase=PASSPHRASE, hours=8).start()
    assert said(app, question).certificate_status is Status.GOOD
    with hanging(ca.engine, postgres):
        since = time.monotonic()
        assert said(app, question).response_status is Error.TRY_LATER
        assert time.monotonic() - since < 6
        # One thread waits for the database; whoever comes meanwhile does not.
        waiting = threading.Thread(target=said, args=(app, question))
        waiting.start()
        time.sleep(0.2)
        since = time.monotonic()
        assert said(app, question).response_status is Error.TRY_LATER
        assert time.monotonic() - since < 1
        waiting.join()
    deadline = time.monotonic() + 10
    while said(app, question).response_status is not Error.SUCCESSFUL:
        assert time.monotonic() < deadline
    app.listener.stop()
    record.dispose()


@contextmanager
def hanging(engine: Engine, postgres: EmbeddedPostgres) -> Iterator[None]:
    """The server and whoever serves this database stand still: connections open, and nothing answers."""
    with engine.connect() as connection:
        query = "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
        pids = list(connection.execute(text(query)).scalars())
    pids.append(int((postgres.data / "postmaster.pid").read_text().split()[0]))
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def test_a_long_spelling_is_answered_and_not_remembered(ca: StatusCa, application: StatusApplication) -> None:
    encoded = base64.b64encode(about(ca, ca.issue())).decode()
    short, long = f"/ocsp/{encoded}", f"/ocsp/{'/' * 60_000}{encoded}"
    for path in (short, long):
        assert library.load_der_ocsp_response(request(application, "GET", path)[2]).certificate_status is (
            Status.GOOD
        )
    application.answers.replies.vouch(time.monotonic())
    assert application.answers.remembered(short)
    assert application.answers.remembered(long) is None


def test_without_a_responders_key_the_answer_is_try_later(ca: StatusCa, tmp_path: Path) -> None:
    application = StatusApplication(ca.engine, keys_folder=tmp_path, passphrase=PASSPHRASE, hours=8)
    assert said(application, about(ca, ca.issue())).response_status is Error.TRY_LATER


def test_an_answer_of_a_responder_s_last_minutes_has_not_expired_when_it_is_signed(
    ca: StatusCa, tmp_path: Path
) -> None:
    issued, end = ca.issue(), ca.add_responder(tmp_path).not_valid_after_utc
    now = end - timedelta(minutes=2)
    late = StatusApplication(
        ca.engine, keys_folder=tmp_path, passphrase=PASSPHRASE, hours=8, clock=lambda: now
    )
    assert said(late, about(ca, issued)).next_update_utc == end
    assert presign(ca, tmp_path, now)
    with ca.engine.connect() as connection:
        ends = connection.execute(text("SELECT DISTINCT next_update FROM ocsp_answer")).scalars().all()
    assert ends == [end]


def presign(ca: StatusCa, folder: Path, now: datetime | None = None, limit: int = 10_000) -> int:
    with transaction(ca.engine) as connection:
        known = responders.load_responders(connection, folder, PASSPHRASE, now or ca.now)
    return responders.presign_due(ca.engine, known, now or ca.now, 8, limit)


def test_answers_signed_ahead_are_given_as_they_are(
    ca: StatusCa, application: StatusApplication, tmp_path: Path
) -> None:
    issued = ca.issue()
    assert presign(ca, tmp_path) == 4, "the certificate's and the responder's, under two hashes each"
    first, second = (request(application, "POST", "/ocsp", about(ca, issued))[2] for _ in range(2))
    assert first == second
    assert library.load_der_ocsp_response(first).certificate_status is Status.GOOD


def test_signing_ahead_does_nothing_until_answers_age_and_then_renews_them(
    ca: StatusCa, tmp_path: Path
) -> None:
    ca.add_responder(tmp_path)
    for _ in range(7):
        ca.issue()
    assert presign(ca, tmp_path, limit=5) == 5, "bounded"
    assert presign(ca, tmp_path) == 11
    assert presign(ca, tmp_path) == 0
    assert presign(ca, tmp_path, ca.now + timedelta(hours=3)) == 0
    assert presign(ca, tmp_path, ca.now + timedelta(hours=3, minutes=30)) == 16, "before half is gone"


def test_a_ca_whose_responder_is_missing_holds_up_no_other(ca: StatusCa, tmp_path: Path) -> None:
    ca.add_issuing("persons-2")
    for _ in range(3):
        ca.issue(authority="persons-2")
    ca.add_responder(tmp_path)
    ca.issue()
    # A batch smaller than what waits for the other.
    assert presign(ca, tmp_path, limit=4) == 4


def test_a_revocation_empties_what_was_signed_ahead_and_it_is_signed_anew(
    ca: StatusCa, application: StatusApplication, tmp_path: Path
) -> None:
    issued = ca.issue()
    presign(ca, tmp_path)
    ca.revoke(issued)
    assert presign(ca, tmp_path) == 2
    for algorithm in HASHES:
        assert said(application, about(ca, issued, algorithm)).certificate_status is Status.REVOKED


def test_an_answer_signed_ahead_that_disagrees_with_the_record_is_not_given(
    ca: StatusCa, application: StatusApplication, tmp_path: Path
) -> None:
    """No path of ours stores one; a restored table or a bug might."""
    good, revoked = ca.issue(), ca.issue()
    presign(ca, tmp_path)
    ca.revoke(revoked)
    with transaction(ca.engine) as connection:
        connection.execute(
            text(
                "UPDATE ocsp_answer a SET der = b.der, responder = b.responder, this_update = b.this_update,"
                " next_update = b.next_update FROM ocsp_answer b"
                " WHERE a.serial = :revoked AND b.serial = :good AND a.hash = b.hash"
            ),
            {"revoked": revoked.serial, "good": good.serial},
        )
    answer = said(application, about(ca, revoked))
    assert answer.certificate_status is Status.REVOKED
    assert serial_of(answer.serial_number) == revoked.serial


def test_answers_of_expired_certificates_are_no_longer_signed_ahead(ca: StatusCa, tmp_path: Path) -> None:
    ca.add_responder(tmp_path)
    ca.issue(days=1)
    assert presign(ca, tmp_path) == 4
    assert presign(ca, tmp_path, ca.now + timedelta(days=2)) == 2
    with transaction(ca.engine) as connection:
        assert connection.execute(text("SELECT count(*) FROM ocsp_answer")).scalar_one() == 2


def test_expired_certificates_by_the_batch_hold_up_no_living_one(
    ca: StatusCa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(responders, "_BATCH", 2)
    ca.issue(days=1)
    ca.add_responder(tmp_path)
    assert presign(ca, tmp_path, ca.now + timedelta(days=2)) == 2


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False, timeout=20
    )


@pytest.mark.parametrize("revoked", [False, True])
@pytest.mark.parametrize("digest", ["sha1", "sha256"])
def test_openssl_reads_question_and_answer(
    ca: StatusCa, application: StatusApplication, tmp_path: Path, digest: str, *, revoked: bool
) -> None:
    issued = ca.issue()
    if revoked:
        ca.revoke(issued)
    (tmp_path / "chain.pem").write_bytes(ca.pem())
    (tmp_path / "issuing.pem").write_bytes(ca.certificates[ISSUING].public_bytes(Encoding.PEM))
    (tmp_path / "leaf.pem").write_bytes(issued.pem)
    names = (
        "openssl",
        "ocsp",
        "-issuer",
        tmp_path / "issuing.pem",
        f"-{digest}",
        "-cert",
        tmp_path / "leaf.pem",
    )
    assert run(*names, "-reqout", tmp_path / "question").returncode == 0
    answer = request(application, "POST", "/ocsp", (tmp_path / "question").read_bytes())[2]
    (tmp_path / "answer").write_bytes(answer)
    judged = run(*names, "-no_nonce", "-respin", tmp_path / "answer", "-CAfile", tmp_path / "chain.pem")
    assert "Response verify OK" in judged.stderr, judged.stderr
    assert f"leaf.pem: {'revoked' if revoked else 'good'}" in judged.stdout
    assert ("Reason: keyCompromise" in judged.stdout) is revoked


@pytest.mark.parametrize("revoked", [False, True])
def test_gnutls_reads_question_and_answer(
    ca: StatusCa, application: StatusApplication, tmp_path: Path, *, revoked: bool
) -> None:
    issued = ca.issue()
    if revoked:
        ca.revoke(issued)
    (tmp_path / "chain.pem").write_bytes(ca.pem())
    (tmp_path / "issuing.pem").write_bytes(ca.certificates[ISSUING].public_bytes(Encoding.PEM))
    (tmp_path / "leaf.pem").write_bytes(issued.pem)
    made = run(
        "ocsptool", "--generate-request", "--load-issuer", tmp_path / "issuing.pem",
        "--load-cert", tmp_path / "leaf.pem", "--outfile", tmp_path / "question", "--outder",
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    (tmp_path / "answer").write_bytes(
        request(application, "POST", "/ocsp", (tmp_path / "question").read_bytes())[2]
    )
    judged = run(
        "ocsptool",
        "--verify-response",
        "--load-response",
        tmp_path / "answer",
        "--load-trust",
        tmp_path / "chain.pem",
    )
    shown = run("ocsptool", "--response-info", "--load-response", tmp_path / "answer")
    assert "Success" in judged.stdout, judged.stdout + judged.stderr
    assert f"Certificate Status: {'revoked' if revoked else 'good'}" in shown.stdout


@pytest.mark.parametrize("kind", ["good", "revoked", "unknown", "nonce"])
def test_pkilint_finds_nothing_against_an_answer(
    ca: StatusCa, application: StatusApplication, kind: str
) -> None:
    from pkilint import loader, pkix, report, validation
    from pkilint.pkix import extension, name
    from pkilint.pkix import ocsp as ocsp_lint

    issued = ca.issue()
    if kind == "revoked":
        ca.revoke(issued)
    number = 5 if kind == "unknown" else int(issued.serial, 16)
    question = asked(ca, number, nonce=token_bytes(32) if kind == "nonce" else None)
    answer = request(application, "POST", "/ocsp", question)[2]
    document = loader.RFC6960OCSPResponseDocumentLoader().load_der_document(answer, "answer")
    container = ocsp_lint.create_pkix_ocsp_response_validator_container(
        [
            ocsp_lint.create_response_decoder(),
            pkix.create_attribute_decoder(name.ATTRIBUTE_TYPE_MAPPINGS),
            pkix.create_extension_decoder(extension.EXTENSION_MAPPINGS),
        ],
        [],
    )
    results = container.validate(document.root)
    least = validation.ValidationFindingSeverity.NOTICE
    found = report.ReportGeneratorPlaintext(results, least).generate()
    assert not report.get_findings_count(results, least), found


def test_what_is_to_be_signed_ahead_is_found_by_index_alone(ca: StatusCa) -> None:
    """One CA's refresh went from 2 to 50 minutes as its table grew: answers of 32 hours ago were served."""
    with transaction(ca.engine) as connection:
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        for query in (ocsp_store._UNSIGNED, ocsp_store._AGEING):
            given = {"limit": 5, "before": ca.now, "now": ca.now, "authorities": [ISSUING]}
            given |= {"older": ca.now, "whole": timedelta(hours=8)}
            given = {name: given[name] for name in query.compile().params}
            plan = connection.execute(text(f"EXPLAIN {query.text}"), given).scalars()
            lines = "\n".join(plan)
            assert "ocsp_answer_due" in lines
            assert "Index Cond: (next_update" in lines
            assert "certificate_pkey" in lines


def test_a_bug_of_ours_is_try_later_or_503_and_never_a_stack_trace(application: StatusApplication) -> None:
    application.answers = application.files = None  # type: ignore[assignment]
    status, headers, body = request(application, "POST", "/ocsp", b"")
    assert (status, headers["Cache-Control"]) == ("200 OK", "no-store")
    assert library.load_der_ocsp_response(body).response_status is Error.TRY_LATER
    status, headers, body = request(application, "POST", "/crl/persons-1/0.crl")
    assert status.startswith("405")
    status, headers, body = request(application, "HEAD", "/crl/persons-1/0.crl")
    assert (status, headers["Cache-Control"], body) == ("503 Service Unavailable", "no-store", b"")


def test_a_reader_whose_clock_runs_late_takes_the_answer(
    ca: StatusCa, application: StatusApplication
) -> None:
    before = utc_now().replace(microsecond=0)
    answer = said(application, about(ca, ca.issue()))
    assert answer.this_update_utc <= ca.now - timedelta(seconds=5)
    assert before <= answer.produced_at_utc <= utc_now()


@pytest.mark.parametrize("action", ["revoke", "hold", "release"])
def test_nothing_is_said_to_be_known_since_before_it_was_done(
    ca: StatusCa, application: StatusApplication, action: str
) -> None:
    issued = ca.issue()
    if action == "release":
        ca.revoke(issued, RevocationReason.CERTIFICATE_HOLD, action="hold", at=ca.now - timedelta(minutes=1))
    done = ca.now - timedelta(seconds=20)
    ca.revoke(issued, RevocationReason.CERTIFICATE_HOLD, action=action, at=done)
    answer = said(application, about(ca, issued))
    assert answer.this_update_utc == done.replace(microsecond=0)

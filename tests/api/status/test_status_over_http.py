"""Status through a running Granian of two workers: paths, headers, methods, the moment after a revocation."""

import base64
import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import timedelta
from email.utils import format_datetime, parsedate_to_datetime
from functools import partial
from pathlib import Path
from secrets import choice, randbelow
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp as library
from sqlalchemy import Engine, text

from api.status.listener import APPLICATION
from directory.base.clock import utc_now
from pki.ocsp import responders
from tests.ports import free_port
from tests.status_ca import ISSUING, PASSPHRASE, ROOT, Issued, StatusCa

ROOT_FOLDER = Path(__file__).resolve().parents[3]
Status = library.OCSPCertStatus


@pytest.fixture
def ca(engine: Engine) -> StatusCa:
    return StatusCa(engine, utc_now()).establish()


@pytest.fixture
def port(ca: StatusCa, database_url: str, tmp_path: Path) -> Iterator[int]:
    """Granian with two workers on the CA's record; gone afterwards."""
    ca.add_responder(tmp_path / "keys")
    free = free_port()
    told = {
        "TEST_DATABASE_URL": database_url,
        "TEST_KEYS": str(tmp_path / "keys"),
        "TEST_PASSPHRASE": PASSPHRASE.decode(),
    }
    command = [sys.executable, "-m", "granian", "--interface", "wsgi", "--port", str(free), "--workers", "2",
               "--blocking-threads", "1", "--no-ws", "--log-level", "warning", "--workers-kill-timeout", "3",
               "tests.status_app:application"]  # fmt: skip
    process = subprocess.Popen(command, cwd=ROOT_FOLDER, env=os.environ | told)
    try:
        wait_until(lambda: len(listeners(ca)) == 2, seconds=20)
        yield free
    finally:
        process.terminate()
        process.wait(timeout=10)


def listeners(ca: StatusCa) -> list[int]:
    """Backends of the workers' listeners."""
    query = text(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = :name"
    )
    with ca.engine.connect() as connection:
        return list(connection.execute(query, {"name": APPLICATION}).scalars())


def wait_until(happened: Callable[[], bool], *, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def send(
    port: int, method: str, target: str, content: bytes | None = None, **headers: str
) -> http.client.HTTPResponse:
    """One request on a connection of its own, so that both workers get theirs; the target goes out raw."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as link:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        link.putrequest(method, target, skip_accept_encoding=True)
        for name, value in named.items():
            link.putheader(name, value)
        if content is not None:
            link.putheader("Content-Length", str(len(content)))
        link.endheaders(content)
        answer = link.getresponse()
        answer.octets = answer.read()  # type: ignore[attr-defined]
        return answer


def question(
    ca: StatusCa, issued: Issued, algorithm: hashes.HashAlgorithm | None = None, nonce: bytes = b""
) -> bytes:
    builder = library.OCSPRequestBuilder().add_certificate(
        issued.certificate, ca.certificates[ISSUING], algorithm or hashes.SHA1()
    )
    if nonce:
        builder = builder.add_extension(x509.OCSPNonce(nonce), critical=False)
    return builder.build().public_bytes(Encoding.DER)


def in_path(asked: bytes) -> str:
    return "/ocsp/" + quote(base64.b64encode(asked).decode(), safe="")


def body(answer: http.client.HTTPResponse) -> bytes:
    return answer.octets  # type: ignore[attr-defined,no-any-return]


def said(answer: http.client.HTTPResponse) -> library.OCSPResponse:
    return library.load_der_ocsp_response(body(answer))


def test_get_may_be_kept_a_minute_and_post_not_at_all(ca: StatusCa, port: int) -> None:
    asked = question(ca, ca.issue())
    got = send(port, "GET", in_path(asked))
    assert said(got).certificate_status is Status.GOOD
    assert got.headers["Content-Type"] == "application/ocsp-response"
    assert got.headers["Cache-Control"] == "public, no-transform, must-revalidate, max-age=60"
    assert parsedate_to_datetime(got.headers["Last-Modified"]) == said(got).this_update_utc
    assert parsedate_to_datetime(got.headers["Expires"]) <= said(got).next_update_utc
    posted = send(port, "POST", "/ocsp", asked)
    assert said(posted).certificate_status is Status.GOOD
    assert posted.headers["Cache-Control"] == "no-store"
    assert posted.headers["ETag"] is None


def test_who_has_the_answer_already_gets_304(ca: StatusCa, port: int, tmp_path: Path) -> None:
    path = in_path(question(ca, ca.issue()))
    with ca.engine.connect() as connection:
        known = responders.load_responders(connection, tmp_path / "keys", PASSPHRASE, ca.now)
    # Signed ahead, an answer is the same from every worker.
    responders.presign_due(ca.engine, known, ca.now, 8, 100)
    tag = send(port, "GET", path).headers["ETag"]
    for _ in range(6):
        answer = send(port, "GET", path, If_None_Match=f'"x", W/{tag}')
        assert (answer.status, answer.headers["ETag"], body(answer)) == (304, tag, b"")
        assert answer.headers["Content-Length"] is None
    assert send(port, "GET", path, If_None_Match='"x"').status == 200


def test_errors_and_unknown_are_never_kept(ca: StatusCa, port: int) -> None:
    own = library.load_der_ocsp_request(question(ca, ca.issue()))
    unknown = library.OCSPRequestBuilder().add_certificate_by_hash(
        own.issuer_name_hash, own.issuer_key_hash, 7, hashes.SHA1()
    )
    foreign = library.OCSPRequestBuilder().add_certificate_by_hash(b"a" * 20, b"b" * 20, 7, hashes.SHA1())
    asked = [in_path(builder.build().public_bytes(Encoding.DER)) for builder in (unknown, foreign)]
    for path in ("/ocsp/AAAA", "/ocsp/***", *asked):
        answer = send(port, "GET", path)
        assert (answer.status, answer.headers["Cache-Control"]) == (200, "no-store")
        successful = said(answer).response_status is library.OCSPResponseStatus.SUCCESSFUL
        assert not successful or said(answer).certificate_status is Status.UNKNOWN
    assert said(send(port, "GET", asked[0])).certificate_status is Status.UNKNOWN


def test_each_path_has_its_methods(port: int) -> None:
    for method, path, status, allow in (
        ("PUT", "/ocsp", 405, "POST"),
        ("GET", "/ocsp", 405, "POST"),
        ("POST", "/ocsp/MEM=", 405, "GET, HEAD"),
        ("POST", "/ca/root-1.cer", 405, "GET, HEAD"),
        ("DELETE", "/crl/persons-1/0.crl", 405, "GET, HEAD"),
        ("GET", "/crl/persons-1/00.crl", 404, None),
        ("GET", "/crl/persons-1/99.crl", 404, None),
        ("GET", "/crl/root-1/0-delta.crl", 404, None),
        ("GET", "/crl/nobody/0.crl", 404, None),
        ("GET", "/ca/nobody.cer", 404, None),
        ("GET", "/ca/../ca/root-1.cer", 404, None),
        ("GET", "/ocspx", 418, None),
        ("GET", "/", 418, None),
    ):
        answer = send(port, method, path, b"" if method in {"PUT", "POST"} else None)
        assert (method, path, answer.status, answer.headers["Allow"]) == (method, path, status, allow)


def test_a_body_beyond_the_limit_is_malformed_and_the_server_goes_on(ca: StatusCa, port: int) -> None:
    answer = send(port, "POST", "/ocsp", bytes(10_001))
    assert said(answer).response_status is library.OCSPResponseStatus.MALFORMED_REQUEST
    # Far beyond, the server answers and hangs up while we still send: a client may see only the latter.
    with suppress(BrokenPipeError, ConnectionResetError):
        answer = send(port, "POST", "/ocsp", bytes(2_000_000))
        assert said(answer).response_status is library.OCSPResponseStatus.MALFORMED_REQUEST
    assert said(send(port, "POST", "/ocsp", question(ca, ca.issue()))).certificate_status is Status.GOOD


def test_get_finds_the_question_whatever_slashes_its_base64_holds(ca: StatusCa, port: int) -> None:
    """Slashes merged or left encoded on the way cost one CA an outage; here in three spellings."""
    own = library.load_der_ocsp_request(question(ca, ca.issue()))
    doubled = 0
    for _ in range(300):
        # Half of the octets 0xFF, which base64 writes as slashes.
        number = int.from_bytes(bytes(choice((0xFF, randbelow(256))) for _ in range(19)), "big") + 1
        builder = library.OCSPRequestBuilder().add_certificate_by_hash(
            own.issuer_name_hash, own.issuer_key_hash, number, hashes.SHA1()
        )
        plain = base64.b64encode(builder.build().public_bytes(Encoding.DER)).decode()
        doubled += "//" in plain
        for path in (plain, quote(plain, safe=""), "/" + plain.rstrip("=")):
            assert said(send(port, "GET", "/ocsp/" + path)).serial_number == number
    assert doubled > 100


def test_crls_and_ca_certificates_come_with_their_media_types(ca: StatusCa, port: int) -> None:
    listed = ca.publish()
    for _ in range(2):
        got = send(port, "GET", "/crl/persons-1/0.crl")
        assert body(got) == listed.public_bytes(Encoding.DER)
        assert got.headers["Content-Type"] == "application/pkix-crl"
        assert got.headers["Cache-Control"].endswith("max-age=60")
        assert parsedate_to_datetime(got.headers["Last-Modified"]) == listed.last_update_utc
        assert send(port, "GET", "/crl/persons-1/0.crl", If_None_Match=got.headers["ETag"]).status == 304
    ca.now += timedelta(seconds=1)
    delta = ca.publish(delta=True)
    got = send(port, "GET", "/crl/persons-1/0-delta.crl")
    assert body(got) == delta.public_bytes(Encoding.DER)
    assert got.headers["Content-Type"] == "application/pkix-crl"
    assert send(port, "GET", "/crl/persons-1/0-delta.crl", If_None_Match=got.headers["ETag"]).status == 304
    for name in (ROOT, ISSUING):
        got = send(port, "GET", f"/ca/{name}.cer")
        assert body(got) == ca.der(name)
        assert got.headers["Content-Type"] == "application/pkix-cert"
    head = send(port, "HEAD", "/crl/persons-1/0.crl")
    assert (head.status, head.headers["Content-Length"]) == (200, str(len(listed.public_bytes(Encoding.DER))))


def test_who_sends_the_date_of_a_file_gets_304(ca: StatusCa, port: int) -> None:
    ca.publish()
    for path in ("/crl/persons-1/0.crl", "/ca/persons-1.cer", "/ca/persons-1.p7c", "/ca/bundle.p7b"):
        got = send(port, "GET", path)
        dated = got.headers["Last-Modified"]
        for method in ("GET", "HEAD"):
            known = send(port, method, path, If_Modified_Since=dated)
            assert (known.status, body(known), known.headers["Last-Modified"]) == (304, b"", dated)
        for form in ("%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"):
            written = parsedate_to_datetime(dated).strftime(form)
            assert send(port, "GET", path, If_Modified_Since=written).status == 304, written
        # RFC 9110 13.2.2: a tag counts before a date; 13.1.3: what is no date is passed over.
        assert send(port, "GET", path, If_Modified_Since=dated, If_None_Match='"another"').status == 200
        assert send(port, "GET", path, If_Modified_Since="yesterday").status == 200
        # thisUpdate may be earlier than the publication: who asks by his own clock may hold the one before.
        later = format_datetime(parsedate_to_datetime(dated) + timedelta(seconds=30), usegmt=True)
        assert send(port, "GET", path, If_Modified_Since=later).status == 200


def test_a_revocation_within_the_second_of_a_crl_is_no_304(ca: StatusCa, port: int) -> None:
    ca.publish()
    dated = send(port, "GET", "/crl/persons-1/0.crl").headers["Last-Modified"]
    ca.revoke(ca.issue())
    listed = ca.publish()
    # Made within one second, they are dated apart all the same.
    assert parsedate_to_datetime(dated) < listed.last_update_utc
    deadline = time.monotonic() + 20
    while body(send(port, "GET", "/crl/persons-1/0.crl")) != listed.public_bytes(Encoding.DER):
        assert time.monotonic() < deadline
    for _ in range(6):
        assert send(port, "GET", "/crl/persons-1/0.crl", If_Modified_Since=dated).status == 200


def test_an_ocsp_answer_is_never_held_by_its_date_alone(ca: StatusCa, port: int) -> None:
    """Good and revoked may be of one second."""
    path = in_path(question(ca, ca.issue()))
    dated = send(port, "GET", path).headers["Last-Modified"]
    assert send(port, "GET", path, If_Modified_Since=dated).status == 200


def test_a_new_crl_is_given_at_once_by_every_worker(ca: StatusCa, port: int) -> None:
    for _ in range(3):
        ca.revoke(ca.issue())
        listed = ca.publish().public_bytes(Encoding.DER)
        deadline = time.monotonic() + 1
        while any(body(send(port, "GET", "/crl/persons-1/0.crl")) != listed for _ in range(6)):
            assert time.monotonic() < deadline


Ask = Callable[[], http.client.HTTPResponse]


def variants(ca: StatusCa, port: int, issued: Issued) -> list[Ask]:
    """GET and POST, both hashes, two spellings of the path, and a nonce."""
    made: list[Ask] = []
    for algorithm in (hashes.SHA1(), hashes.SHA256()):
        asked = question(ca, issued, algorithm)
        plain = "/ocsp/" + base64.b64encode(asked).decode()
        made += [partial(send, port, "GET", path) for path in (in_path(asked), plain)]
        nonced = question(ca, issued, algorithm, b"n" * 32)
        made += [partial(send, port, "POST", "/ocsp", octets) for octets in (asked, nonced)]
    return made


def warm(asking: list[Ask]) -> None:
    """Let both workers keep every variant as good."""
    for ask in asking * 6:
        assert said(ask()).certificate_status is Status.GOOD


def seconds_until_revoked(asking: list[Ask]) -> float:
    """From now until nobody says good any more, whichever worker and spelling; each must say revoked then."""
    since = time.monotonic()
    last_good = since
    while time.monotonic() < last_good + 1.0:
        for ask in asking:
            status = said(ask()).certificate_status
            assert status in {Status.GOOD, Status.REVOKED}
            if status is Status.GOOD:
                last_good = time.monotonic()
        assert last_good - since < 10, "hard limit of promise P1"
    return last_good - since


def test_a_revocation_shows_within_a_second_at_every_worker_in_every_spelling(
    ca: StatusCa, port: int
) -> None:
    issued = ca.issue()
    asking = variants(ca, port, issued)
    warm(asking)
    ca.revoke(issued)
    assert seconds_until_revoked(asking) < 1


def test_a_revocation_shows_even_when_the_listeners_have_just_lost_the_database(
    ca: StatusCa, port: int
) -> None:
    issued = ca.issue()
    asking = variants(ca, port, issued)
    warm(asking)
    killed = listeners(ca)
    with ca.engine.connect() as connection:
        for pid in killed:
            connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
    ca.revoke(issued)
    assert seconds_until_revoked(asking) < 1.5
    wait_until(lambda: len(listeners(ca)) == 2 and not {*killed} & {*listeners(ca)}, seconds=5)


def test_a_listener_that_hears_nothing_more_leaves_no_cached_good(ca: StatusCa, port: int) -> None:
    """A stopped backend, like a cut network, closes nothing and sends nothing."""
    issued = ca.issue()
    asking = variants(ca, port, issued)
    warm(asking)
    stopped = listeners(ca)
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        ca.revoke(issued)
        assert seconds_until_revoked(asking) < 1.5
        wait_until(lambda: len({*listeners(ca)} - {*stopped}) == 2, seconds=10)
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)


def test_openssl_asks_by_itself(ca: StatusCa, port: int, tmp_path: Path) -> None:
    issued = ca.issue()
    for name, pem in (("chain", ca.pem()), ("leaf", issued.pem),
                      ("issuing", ca.certificates[ISSUING].public_bytes(Encoding.PEM))):  # fmt: skip
        (tmp_path / f"{name}.pem").write_bytes(pem)
    command = ["openssl", "ocsp", "-issuer", "issuing.pem", "-cert", "leaf.pem", "-CAfile", "chain.pem",
               "-url", f"http://127.0.0.1:{port}/ocsp"]  # fmt: skip

    def judged(expected: str) -> bool:
        told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=20)
        assert "Response verify OK" in told.stderr
        return f"leaf.pem: {expected}" in told.stdout

    assert judged("good")
    ca.revoke(issued)
    # Each process hears of it within a second, and not at the same instant.
    wait_until(lambda: judged("revoked"), seconds=1.5)

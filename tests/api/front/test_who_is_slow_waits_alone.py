"""Under the real server: who sends slowly, or much, or asks for much at a time, keeps nobody else waiting.

Each case is one that stopped OCSP, CRLs and revocation, or slowed them, before there was a front.
"""

import base64
import gzip
import socket
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp as library
from sqlalchemy import Engine, text

from api.embedded.postgres import EmbeddedPostgres
from api.front.application import SENDERS
from api.front.packing import zstd
from api.front.roads import LARGEST_BODY, LONGEST_TARGET
from api.front.shares import OF_A_CREDENTIAL, OF_A_SOURCE
from api.front.unnamed import Unnamed, last_unnamed
from tests.api.serving import Reply, answer_of, connect, exchange, head_of, post, web_server
from tests.conftest import fresh_engine
from tests.factories import seed_practitioner, seed_token

SECONDS, RATE = 2, 100
CHECK = "/v1/recipients/check"
REVOKE = "/v1/certificates/00/revocation"
PROBLEM = "application/problem+json"
# As many as took all threads of both processes.
SILENT = 57
# A whole answer from OCSP to what is no request, a CRL nobody has, a token nobody knows.
AT_ONCE = (
    (head_of("GET", "/ocsp/AAAA"), 200),
    (head_of("GET", "/crl/persons-1/0.crl"), 404),
    (post(REVOKE, b"{}", "sceau_nobody"), 401),
    (head_of("GET", "/healthz"), 200),
)


@pytest.fixture(scope="module")
def engine(postgres: EmbeddedPostgres) -> Iterator[Engine]:
    """One record for all: what is tested here writes nothing into it."""
    with fresh_engine(postgres) as made:
        yield made


@pytest.fixture(scope="module")
def port(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    for number in range(4):
        seed_token(engine, f"operator-{number}", role="operator")
    seed_token(engine, "admin", role="admin")
    seed_practitioner(engine)
    state = tmp_path_factory.mktemp("web") / "state"
    url = engine.url.render_as_string(hide_password=False)
    with web_server(state, url, body_seconds=SECONDS, body_rate=RATE) as free:
        yield free


def assert_answered_at_once(port: int, address: str = "127.0.0.1") -> None:
    for sent, status in AT_ONCE:
        started = time.monotonic()
        assert exchange(port, sent, address).status == status
        assert time.monotonic() - started < SECONDS, "waited for those who are slow"


def _send_all(link: socket.socket, octets: bytes) -> None:
    with suppress(OSError):
        link.sendall(octets)


def assert_cut_off(link: socket.socket) -> None:
    """A whole answer that says why, and then the end of the connection."""
    told = answer_of(link)
    assert (told.status, told.headers["content-type"]) == (408, PROBLEM)
    assert told.document["code"] == "body-too-slow"
    assert int(told.headers["retry-after"])
    with suppress(ConnectionResetError):
        assert link.recv(1) == b""


@pytest.mark.parametrize(
    ("method", "paths"),
    [("POST", (CHECK, "/ocsp", REVOKE)), ("GET", ("/v1/revocations", "/crl/persons-1/0.crl")),
     pytest.param("POST", ("/v1/revocations", "/crl/persons-1/0.crl"), marks=pytest.mark.long),
     pytest.param("GET", (CHECK, "/ocsp", REVOKE), marks=pytest.mark.long)],
)  # fmt: skip
def test_57_silent_bodies_hold_up_nobody_and_are_cut_off(
    method: str, paths: tuple[str, ...], port: int
) -> None:
    for path in paths:
        with ExitStack() as held:
            silent = [held.enter_context(closing(connect(port))) for _ in range(SILENT)]
            for number, link in enumerate(silent):
                chunked = {"Transfer_Encoding": "chunked"} if number % 2 else {"Content_Length": "900"}
                # A chunk and then nothing, or nothing at all.
                link.sendall(head_of(method, path, **chunked) + (b"2\r\nab\r\n" if number % 2 else b""))
            assert_answered_at_once(port)
            for link in silent:
                assert_cut_off(link)


def test_a_body_that_drips_is_cut_off_and_a_slow_one_is_read(port: int) -> None:
    body = b'{"addresses": ["a@b.example"]}'.ljust(4 * SECONDS * RATE)
    head = post(CHECK, body, "sceau_operator-0").removesuffix(body)
    with closing(connect(port)) as dripping, closing(connect(port)) as slow:
        dripping.sendall(head)
        slow.sendall(head)
        for start in range(0, len(body), RATE // 2):
            slow.sendall(body[start : start + RATE // 2])
            with suppress(OSError):
                dripping.sendall(body[start // 10 : start // 10 + RATE // 20])
            time.sleep(0.25)
        assert answer_of(slow).status == 200
        assert_cut_off(dripping)


def test_who_begins_quickly_and_then_falls_silent_is_cut_off(port: int) -> None:
    with closing(connect(port)) as link:
        link.sendall(head_of("POST", CHECK, Content_Length="200000") + b" " * 100_000)
        assert_cut_off(link)


def assert_no_more_than_its_share(links: list[socket.socket], most: int) -> None:
    """As many as its share have a place until they are too slow; what comes beyond is refused at once."""
    told = [answer_of(link) for link in links]
    refused = [one for one in told if one.status == 429]
    assert refused
    assert {one.document["code"] for one in refused} == {"share-used-up"}
    assert all(int(one.headers["retry-after"]) for one in refused)
    # A machine that is late gives a place twice, when its first holder is cut off.
    assert len(told) - len(refused) >= most


def test_one_address_holds_a_quarter_of_the_places_and_the_others_find_theirs(port: int) -> None:
    most = SENDERS // OF_A_SOURCE
    with ExitStack() as held:
        links = [held.enter_context(closing(connect(port, "127.0.0.2"))) for _ in range(2 * most)]
        for link in links:
            link.sendall(head_of("POST", CHECK, Content_Length="9"))
        assert_answered_at_once(port, "127.0.0.3")
        asked = post(CHECK, b'{"addresses": ["a@b.example"]}', "sceau_operator-0")
        assert exchange(port, asked, "127.0.0.3").status == 200
        assert_no_more_than_its_share(links, most)


def test_one_token_holds_an_eighth_from_wherever_it_comes(port: int) -> None:
    most = SENDERS // OF_A_CREDENTIAL
    with ExitStack() as held:
        addresses = [f"127.0.0.{2 + number % 4}" for number in range(2 * most)]
        links = [held.enter_context(closing(connect(port, address))) for address in addresses]
        for link in links:
            link.sendall(head_of("POST", CHECK, "sceau_operator-0", Content_Length="9"))
        asked = post(CHECK, b'{"addresses": ["a@b.example"]}', "sceau_operator-1")
        assert exchange(port, asked, "127.0.0.2").status == 200
        assert_no_more_than_its_share(links, most)


def test_500_connections_of_50_addresses_hold_up_nobody(port: int) -> None:
    with ExitStack() as held:
        for number in range(500):
            link = held.enter_context(closing(connect(port, f"127.0.0.{2 + number % 50}")))
            link.sendall(head_of("POST", (CHECK, "/ocsp", REVOKE)[number % 3], Content_Length="900"))
        assert_answered_at_once(port, "127.0.0.200")


def test_sixty_checks_that_wait_for_the_record_hold_up_neither_ocsp_nor_a_revocation(
    port: int, engine: Engine
) -> None:
    """Not even from the same address and with the same token: each trade has threads of its own."""
    asked = post(CHECK, b'{"addresses": ["a@b.example"]}', "sceau_operator-0")
    with ExitStack() as held, engine.connect() as connection:
        # What a verdict reads is out of reach until this transaction ends.
        connection.execute(text("LOCK TABLE mailbox IN ACCESS EXCLUSIVE MODE"))
        waiting = [held.enter_context(closing(connect(port))) for _ in range(60)]
        for link in waiting:
            link.sendall(asked)
        time.sleep(0.5)
        assert_answered_at_once(port)
        admin = post(REVOKE, b'{"reason": "superseded"}', "sceau_admin")
        started = time.monotonic()
        assert exchange(port, admin).document["code"] == "malformed-serial"
        assert time.monotonic() - started < SECONDS
        connection.rollback()
        for link in waiting:
            link.settimeout(20)
            assert answer_of(link).status == 200


def test_another_token_does_not_queue_behind_one_that_asks_sixty_times(port: int, engine: Engine) -> None:
    asked = post(CHECK, b'{"addresses": ["a@b.example"]}', "sceau_operator-0")
    with ExitStack() as held, engine.connect() as connection:
        connection.execute(text("LOCK TABLE mailbox IN ACCESS EXCLUSIVE MODE"))
        for _ in range(60):
            held.enter_context(closing(connect(port, "127.0.0.2"))).sendall(asked)
        time.sleep(0.5)
        other = head_of("GET", "/v1/changes?limit=1", "sceau_operator-1")
        assert exchange(port, other, "127.0.0.3").status == 200
        other = head_of("GET", "/v1/exports", "sceau_operator-1")
        assert exchange(port, other, "127.0.0.3").status == 200
        connection.rollback()


def test_behind_a_trusted_proxy_each_client_has_a_share_and_nobody_else_chooses_his_address(
    engine: Engine, tmp_path: Path
) -> None:
    url = engine.url.render_as_string(hide_password=False)
    with web_server(tmp_path / "state", url, trusted_proxies="127.0.0.0/30") as port:

        def asked(said: str, address: str = "127.0.0.1") -> int:
            sent = head_of("POST", "/v1/revocations", Content_Length="0", Forwarded=said)
            return exchange(port, sent, address).status

        def is_held_back(said: str) -> bool:
            # A second gives one back: who is slow tonight asks more than once.
            return any(asked(said) == 429 for _ in range(20))

        assert {asked("for=192.0.2.1") for _ in range(60)} == {415}
        assert is_held_back("for=192.0.2.1")
        # What the client itself wrote stands to the left, and does not count.
        assert is_held_back("for=198.51.100.9, for=192.0.2.1;proto=https")
        assert is_held_back("for=198.51.100.9, for=192.0.2.1, for=127.0.0.2")
        assert asked('for="[2001:db8::1]:4711"') == 415
        assert asked("for=192.0.2.2") == 415
        # One who is no proxy speaks for himself, whatever he says.
        alone = [asked(f"for=192.0.2.{number}", "127.0.0.9") for number in range(10, 72)]
        assert alone.count(429) >= 1


def test_a_proxy_that_nobody_named_is_said(engine: Engine, tmp_path: Path) -> None:
    url, state = engine.url.render_as_string(hide_password=False), tmp_path / "state"
    with web_server(state, url, trusted_proxies="127.0.0.4") as port:
        head = head_of("GET", "/healthz", Forwarded="for=192.0.2.1")
        assert exchange(port, head, "127.0.0.4").status == 200
        assert exchange(port, head_of("GET", "/healthz"), "127.0.0.5").status == 200
        assert last_unnamed(state) is None
        assert exchange(port, head, "127.0.0.6").status == 200
        assert last_unnamed(state) == "127.0.0.6"
        head = head_of("GET", "/healthz", X_Forwarded_For="192.0.2.1")
        assert exchange(port, head, "127.0.0.7").status == 200
        assert last_unnamed(state) == "127.0.0.7"


def test_a_proxy_is_said_once_in_an_hour_and_strangers_do_not_fill_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    now = [0.0]
    unnamed = Unnamed(tmp_path, lambda: now[0])
    for number in range(100):
        unnamed.note("192.0.2.1")
        unnamed.note(f"198.51.100.{number}")
    assert len(caplog.records) == 16
    now[0] = 3601
    unnamed.note("192.0.2.1")
    assert len(caplog.records) == 17
    assert "name it in `trusted_proxies`" in caplog.text


def ocsp_request() -> bytes:
    """A question about a CA that nobody knows: answered, and with what it asks."""
    built = library.OCSPRequestBuilder().add_certificate_by_hash(b"a" * 20, b"b" * 20, 7, hashes.SHA1())
    return built.build().public_bytes(Encoding.DER)


def test_ocsp_by_post_takes_whole_chunked_and_too_long_bodies(port: int) -> None:
    asked = ocsp_request()
    whole = exchange(port, post("/ocsp", asked, Content_Type="application/ocsp-request"))
    pieces = b"".join(b"%x\r\n%s\r\n" % (len(one), one) for one in (asked[:9], asked[9:])) + b"0\r\n\r\n"
    chunked = exchange(port, head_of("POST", "/ocsp", Transfer_Encoding="chunked") + pieces)
    assert whole.status == chunked.status == 200
    assert whole.body == chunked.body
    long = exchange(port, head_of("POST", "/ocsp", Content_Length="2000000"))
    malformed = library.OCSPResponseStatus.MALFORMED_REQUEST
    assert library.load_der_ocsp_response(long.body).response_status is malformed
    path = "/ocsp/" + base64.b64encode(asked).decode().replace("/", "%2F")
    assert exchange(port, head_of("GET", path)).body == whole.body


ONE = b'{"addresses": ["a@b.example"]}'


def asked(port: int, body: bytes, **headers: str) -> Reply:
    return exchange(port, post(CHECK, body, "sceau_operator-0", **headers))


def test_a_body_with_a_byte_order_mark_is_read(port: int) -> None:
    assert asked(port, b"\xef\xbb\xbf" + ONE).status == 200


def test_a_body_in_gzip_is_read_in_one_member_or_several(port: int) -> None:
    assert asked(port, gzip.compress(ONE), Content_Encoding="gzip").status == 200
    halves = gzip.compress(ONE[:9]) + gzip.compress(ONE[9:])
    assert asked(port, halves, Content_Encoding="GZIP").status == 200


REFUSED = (
    (ONE, "gzip", 400, "malformed-request"),
    (gzip.compress(ONE)[:-4], "gzip", 400, "malformed-request"),
    (gzip.compress(ONE) + b"more", "gzip", 400, "malformed-request"),
    (zlib.compress(ONE), "deflate", 415, "unknown-encoding"),
    (ONE, "br", 415, "unknown-encoding"),
    # Five thousand octets that would become five million.
    (gzip.compress(bytes(5 * LARGEST_BODY)), "gzip", 413, "body-too-large"),
)


def test_what_is_packed_otherwise_is_refused(port: int) -> None:
    for body, encoding, status, code in REFUSED:
        told = asked(port, body, Content_Encoding=encoding)
        assert (told.status, told.document["code"]) == (status, code)
        if status == 415:
            assert told.headers["accept-encoding"] == "gzip"


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /v1/registers HTTP/1.1\r\n\r\n", 400),
        (b"GET /v1/registers HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /v1/registers HTTP/1.1\r\nHost: a\r\n\r\n", 401),
        (b"GET /v1/registers HTTP/1.0\r\n\r\n", 401),
    ],
)
def test_a_request_names_its_host_once(port: int, head: bytes, status: int) -> None:
    assert exchange(port, head).status == status


def test_who_sends_an_octet_a_chunk_keeps_nobody_waiting(port: int) -> None:
    head = b"POST /v1/batches HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    with closing(connect(port, "127.0.0.9")) as link:
        # Read as fast as they come, these were half a minute of the process.
        writer = threading.Thread(target=_send_all, args=(link, head + b"1\r\n \r\n" * 500_000), daemon=True)
        writer.start()
        assert_answered_at_once(port)
        link.shutdown(socket.SHUT_RDWR)
        writer.join(SECONDS)


def test_a_long_answer_comes_in_gzip_to_who_takes_it(port: int) -> None:
    many = ONE.replace(b'"a@', b'"nobody@b.example", ' * 500 + b'"a@')
    plain = asked(port, many)
    assert "content-encoding" not in plain.headers
    assert plain.headers["vary"] == "Accept-Encoding"
    packed = asked(port, many, Accept_Encoding="br;q=1, gzip;q=0.5")
    assert packed.headers["content-encoding"] == "gzip"
    assert len(packed.body) < len(plain.body) / 5
    assert len(gzip.decompress(packed.body)) == len(plain.body)
    liked = asked(port, many, Accept_Encoding="gzip, zstd")
    assert liked.headers["content-encoding"] == "zstd"
    assert len(zstd.decompress(liked.body)) == len(plain.body)
    for unwilling in ("identity", "gzip;q=0", "*;q=0", "br", "gzip;q=0, *;q=0"):
        assert "content-encoding" not in asked(port, many, Accept_Encoding=unwilling).headers


def test_who_leaves_or_reads_nothing_gives_its_turn_back(port: int) -> None:
    """One token has one turn of the eight: left with a stream that nobody takes, it could ask no more."""
    many = b'{"addresses":[' + b",".join(b'"nobody%d@b.example"' % n for n in range(10_000)) + b"]}"
    sent = post(CHECK, many, "sceau_operator-1", Accept="application/x-ndjson")
    with closing(connect(port)) as leaving:
        leaving.sendall(sent)
        assert leaving.recv(1024).startswith(b"HTTP/1.1 200")
    deaf = [connect(port) for _ in range(3)]
    for link in deaf:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        link.sendall(sent)
    began = time.monotonic()
    with closing(connect(port)) as link:
        link.sendall(sent)
        told = answer_of(link)
    assert told.body.count(b"\n") == 10_000
    # Each of the deaf is let go once it took nothing for so long.
    assert time.monotonic() - began < 3 * SECONDS + 4
    for link in deaf:
        link.close()


def test_a_body_beyond_the_limit_is_told_the_limit_before_it_is_sent(port: int) -> None:
    head = head_of("POST", CHECK, "sceau_operator-0", Content_Length=str(LARGEST_BODY + 1))
    told = exchange(port, head)
    assert (told.status, told.headers["content-type"]) == (413, PROBLEM)
    assert told.document["largest"] == LARGEST_BODY
    assert f"{LARGEST_BODY:,}" in told.document["detail"]


def test_a_chunked_body_beyond_the_limit_is_refused_when_it_gets_there(port: int) -> None:
    with closing(connect(port)) as link:
        link.sendall(head_of("POST", "/v1/revocations", Transfer_Encoding="chunked"))
        with suppress(OSError):
            for _ in range(100):
                link.sendall(b"1000\r\n" + bytes(4096) + b"\r\n")
        told = answer_of(link)
    assert (told.status, told.document["code"]) == (413, "body-too-large")


def test_a_batch_may_be_longer_than_other_bodies(port: int) -> None:
    body = b'{"items": []}'.ljust(LARGEST_BODY + 1)
    told = exchange(port, post("/v1/batches", body, "sceau_operator-0"))
    assert told.document["code"] == "role-lacking"


def test_a_body_that_ends_before_its_length_is_refused(port: int) -> None:
    with closing(connect(port)) as link:
        link.sendall(head_of("POST", CHECK, "sceau_operator-0", Content_Length="900") + ONE)
        link.shutdown(socket.SHUT_WR)
        told = answer_of(link)
    assert (told.status, told.document["code"]) == (400, "body-cut-short")


def test_a_chunked_body_whose_last_chunk_never_comes_is_refused(port: int) -> None:
    with closing(connect(port)) as link:
        head = head_of("POST", CHECK, "sceau_operator-0", Transfer_Encoding="chunked")
        link.sendall(head + b"%x\r\n%s\r\n" % (len(ONE), ONE))
        link.shutdown(socket.SHUT_WR)
        told = answer_of(link)
    assert (told.status, told.document["code"]) == (400, "body-cut-short")


def test_a_target_that_is_too_long_is_told_so(port: int) -> None:
    told = exchange(port, head_of("GET", "/v1/practitioners?name=" + "a" * LONGEST_TARGET))
    assert (told.status, told.document["code"]) == (414, "target-too-long")
    assert told.document["type"].endswith("/problems/target-too-long")
    # docs/divergences.md: beyond this nobody of ours is asked.
    path = "/v1/practitioners?name=".ljust(65_534, "a")
    assert exchange(port, head_of("GET", path)).document["code"] == "target-too-long"
    unread = exchange(port, head_of("GET", f"{path}a"))
    assert (unread.status, unread.body) == (414, b"")


def test_what_http_promises_holds_through_the_front(port: int) -> None:
    # HEAD: the length, and no octet of it.
    with closing(connect(port)) as link:
        link.sendall(head_of("HEAD", "/docs") + head_of("GET", "/healthz"))
        told = answer_of(link, without_body=True)
        assert (told.status, int(told.headers["content-length"]) > 1000) == (200, True)
        # On the same connection, and asked before the first was answered.
        assert answer_of(link).document["state"] == "ok"
    # HTTP/1.0: the answer, and the end.
    with closing(connect(port)) as link:
        link.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert b"".join(iter(lambda: link.recv(4096), b"")).startswith(b"HTTP/1.0 200")
    # A client that waits for leave to send (RFC 9110 10.1.1).
    with closing(connect(port)) as link:
        sent = post(CHECK, ONE, "sceau_operator-0", Expect="100-continue")
        link.sendall(sent.removesuffix(ONE))
        assert answer_of(link).status == 100
        link.sendall(ONE)
        assert answer_of(link).status == 200
    # A body that no view reads does not end the connection.
    with closing(connect(port)) as link:
        link.sendall(head_of("GET", "/healthz", Content_Length="3") + b"abc" + head_of("GET", "/healthz"))
        assert [answer_of(link).status, answer_of(link).status] == [200, 200]


def test_a_header_with_an_underscore_is_not_the_one_it_looks_like(port: int) -> None:
    sent = head_of("GET", "/v1/exports").replace(b"Host: x", b"Host: x\r\nAuthorization_: Bearer a")
    assert exchange(port, sent).document["code"] == "no-token"


def test_an_answer_that_is_asked_for_many_times_at_once_is_given_each_time(port: int) -> None:
    statuses: list[int] = []

    def ask() -> None:
        with closing(connect(port)) as link:
            for _ in range(20):
                link.sendall(post(CHECK, ONE, "sceau_operator-0"))
                statuses.append(answer_of(link).status)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert statuses == [200] * 160

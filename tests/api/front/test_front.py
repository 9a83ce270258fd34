"""The parts of the front by themselves: shares, turns, whom a proxy speaks for, what is read of JSON."""

import gzip
import http.client
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from ipaddress import ip_network

import pytest
from granian import _futures

from api.front import shortcut
from api.front.askers import X_FORWARDED_FOR, Asker, Proxies, source_of
from api.front.connections import Connections
from api.front.roads import LARGEST_DEFERRED
from api.front.senders import Senders
from api.front.shares import Shares
from api.front.turns import Turns
from api.http.rate_limit import Pace
from directory.base.errors import Kind, Refusal
from directory.base.json_text import RepeatedKeyError, read_json

HALF = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\nhalf of it"
ONE, OTHER = Asker("192.0.2.1", "192.0.2.1", b"one"), Asker("192.0.2.2", "192.0.2.2", b"other")
PROXIES = Proxies([ip_network("10.0.0.0/8"), ip_network("2001:db8:1::/48")])


@pytest.mark.parametrize(
    ("said", "found"),
    [
        (None, "10.0.0.1"),
        ("for=192.0.2.60;proto=http;by=203.0.113.43", "192.0.2.60"),
        ("For = 192.0.2.60", "192.0.2.60"),
        ("for=198.51.100.7, for=192.0.2.60", "192.0.2.60"),
        ("for=198.51.100.7, for=192.0.2.60, for=10.3.3.3", "192.0.2.60"),
        ('for="[2001:db8:cafe::17]:4711"', "2001:db8:cafe::17"),
        ('for="192.0.2.43:47011"', "192.0.2.43"),
        ('for="[::ffff:192.0.2.43]"', "192.0.2.43"),
        # Commas and semicolons within a quoted string divide nothing.
        ('for=192.0.2.9;host="a, for=198.51.100.7;b"', "192.0.2.9"),
        # Who names nobody, or nonsense, stands for himself.
        ("for=unknown", "10.0.0.1"),
        ("for=_hidden, for=10.2.2.2", "10.2.2.2"),
        ("proto=https", "10.0.0.1"),
        ("for=1.2.3.4.5", "10.0.0.1"),
        ("", "10.0.0.1"),
    ],
)
def test_the_rightmost_address_that_is_no_trusted_proxy_counts(said: str | None, found: str) -> None:
    assert PROXIES.address_behind("10.0.0.1", said) == found


def test_who_is_no_proxy_speaks_for_nobody() -> None:
    assert PROXIES.address_behind("192.0.2.1", "for=198.51.100.7") == "192.0.2.1"
    assert Proxies([]).address_behind("10.0.0.1", "for=198.51.100.7") == "10.0.0.1"


def test_x_forwarded_for_is_read_where_the_setting_says_so() -> None:
    proxies = Proxies([ip_network("10.0.0.0/8")], X_FORWARDED_FOR)
    assert proxies.address_behind("10.0.0.1", "198.51.100.7, 192.0.2.60, 10.1.1.1") == "192.0.2.60"
    assert proxies.address_behind("10.0.0.1", "192.0.2.60:4711") == "192.0.2.60"
    assert proxies.address_behind("10.0.0.1", "2001:db8::7") == "2001:db8::7"


@pytest.mark.parametrize("said", ['for="' + '\\"' * 8000, 'for=";' * 300, "for=192.0.2.60, " * 400])
def test_a_header_that_never_ends_takes_no_time(said: str) -> None:
    began = time.thread_time()
    assert PROXIES.address_behind("10.0.0.1", said) == "10.0.0.1"
    assert time.thread_time() - began < 0.1, "everybody waits meanwhile"


def test_a_site_of_ipv6_is_one_source() -> None:
    assert source_of("2001:db8:1:2::1") == source_of("2001:db8:1:2:ffff::9") != source_of("2001:db8:1:3::1")
    assert source_of("::ffff:192.0.2.1") == source_of("192.0.2.1")


def test_a_source_has_a_quarter_and_a_credential_an_eighth() -> None:
    shares = Shares(16, "seats")
    for number in range(4):
        shares.take(Asker("192.0.2.1", "192.0.2.1", bytes([number])))
    with pytest.raises(Refusal, match="Your address holds a quarter") as refused:
        shares.take(Asker("192.0.2.1", "192.0.2.1", None))
    assert (refused.value.kind, refused.value.code) == (Kind.TOO_MANY, "share-used-up")
    for number in (5, 6):
        shares.take(Asker(f"192.0.2.{number}", f"192.0.2.{number}", b"same"))
    with pytest.raises(Refusal, match="This token holds an eighth"):
        shares.take(Asker("192.0.2.7", "192.0.2.7", b"same"))
    for number in range(8, 13):
        shares.take(Asker(f"192.0.2.{number}", f"192.0.2.{number}", None), 2)
    with pytest.raises(Refusal) as full:
        shares.take(OTHER)
    assert (full.value.kind, full.value.code) == (Kind.UNAVAILABLE, "process-full")
    shares.give_back(Asker("192.0.2.8", "192.0.2.8", None), 2)
    shares.take(OTHER)


@dataclass(frozen=True, eq=False)
class Sending:
    name: str
    asker: Asker
    began: float = 0.0


def sending(name: str, host: int, began: float = 0.0) -> Sending:
    address = f"192.0.2.{host}"
    return Sending(name, Asker(address, address, None), began)


def test_when_all_places_are_taken_the_longest_of_the_heaviest_source_makes_room() -> None:
    senders = Senders[Sending](8)
    # Two each of three sources, one each of two: all eight places.
    a1, *others = [
        sending(name, host)
        for name, host in (
            ("a1", 1),
            ("a2", 1),
            ("b1", 2),
            ("b2", 2),
            ("c1", 3),
            ("c2", 3),
            ("d", 4),
            ("e", 5),
        )
    ]
    assert [senders.enter(one) for one in (a1, *others)] == [None] * 8
    assert senders.enter(sending("new", 9)) is a1
    assert not senders.leave(a1), "who made room has no place to give back"
    assert senders.enter(sending("again", 9)) is others[1]
    with pytest.raises(Refusal, match="quarter"):
        senders.enter(sending("third", 9))
    assert senders.leave(others[0])
    assert senders.enter(sending("f", 6)) is None


def test_nobody_makes_room_for_one_who_is_refused() -> None:
    senders = Senders[Sending](8)
    first, *_ = held = [sending(str(number), number // 2) for number in range(8)]
    token = b"one token"
    held[-1] = Sending("7", Asker("192.0.2.3", "192.0.2.3", token))
    for one in held:
        senders.enter(one)
    with pytest.raises(Refusal, match="eighth"):
        senders.enter(Sending("new", Asker("192.0.2.9", "192.0.2.9", token)))
    assert senders.leave(first)


def test_those_who_send_since_a_second_are_told_in_the_order_of_their_coming() -> None:
    senders = Senders[Sending](8)
    for host in range(1, 5):
        senders.enter(sending(f"at {host}", host, began=float(host)))
    assert [one.name for one in senders.since(2.0)] == ["at 1", "at 2"]


class Asked:
    """What is asked of turns, and waited for."""

    def __init__(self, turns: Turns, asker: Asker, act: Callable[[], object]) -> None:
        self.done = threading.Event()
        self.turn = turns.ask(asker, lambda: (act(), self.done.set())[0])


def test_who_asks_a_hundred_times_has_an_eighth_of_the_threads_and_the_other_is_next() -> None:
    turns, lock, most, now, served = Turns("test", 16), threading.Lock(), 0, 0, 0

    def work() -> None:
        nonlocal most, now, served
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.01)
        with lock:
            now -= 1
            served += 1

    many = [Asked(turns, ONE, work) for _ in range(100)]
    assert Asked(turns, OTHER, lambda: None).done.wait(20)
    before = served
    assert all(one.done.wait(20) for one in many)
    assert most == 2
    assert before < 50, "served behind those of somebody else"


def test_a_turn_that_nobody_wants_any_more_is_not_taken() -> None:
    turns, done, begun, end = Turns("test", 8), [], threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        end.wait(10)
        done.append("first")

    first = Asked(turns, ONE, work)
    assert begun.wait(10)
    second = turns.ask(ONE, lambda: done.append("second"))
    assert turns.ask_at_once(ONE, lambda: None) is None, "his eighth is at work"
    assert turns.withdraw(second)
    assert not turns.withdraw(second)
    assert not turns.withdraw(first.turn)
    end.set()
    assert Asked(turns, ONE, lambda: done.append("third")).done.wait(10)
    assert done == ["first", "third"]


def test_a_turn_that_fails_leaves_its_thread_to_the_next(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise Refusal(Kind.CONFLICT, "no", "No.")

    turns = Turns("test", 1)
    turns.ask(ONE, fail)
    assert Asked(turns, OTHER, lambda: None).done.wait(10)
    assert "told nobody" in caplog.text


def test_what_is_no_exception_ends_no_thread(caplog: pytest.LogCaptureFixture) -> None:
    def panic() -> None:
        raise SystemExit(1)

    turns = Turns("test", 1)
    turns.ask(ONE, panic)
    assert Asked(turns, OTHER, lambda: None).done.wait(10)
    assert "told nobody" in caplog.text


def test_where_no_thread_can_be_had_nothing_waits_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise RuntimeError("can't start new thread")

    none, one, done = Turns("none", 2), Turns("one", 2), threading.Event()
    begun, end = threading.Event(), threading.Event()
    one.ask(ONE, lambda: (begun.set(), end.wait(10), None)[2])
    assert begun.wait(10)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError):
            none.ask(ONE, done.set)
        late = Asked(one, OTHER, lambda: None)
    end.set()
    assert late.done.wait(10), "the thread there is serves him too"
    assert Asked(none, OTHER, lambda: None).done.wait(10)
    assert not done.is_set(), "who was refused has nothing done"


def test_one_source_that_floods_does_not_use_up_what_all_have_together() -> None:
    pace = Pace(10)
    assert [pace.allows("flood") for _ in range(1000)].count(True) == 10
    assert all(pace.allows(f"source-{number}") for number in range(89))
    assert sum(pace.allows(f"more-{number}") for number in range(100)) < 20


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as made:
        yield made


def until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def is_open(link: socket.socket) -> bool:
    link.settimeout(0)
    try:
        return link.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def test_idle_connections_beyond_a_source_s_quarter_are_ended_and_no_other(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    with ExitStack() as held:
        links = [
            held.enter_context(
                closing(socket.create_connection(("127.0.0.1", port), source_address=(host, 0)))
            )
            for host in ["127.0.0.2"] * 10 + ["127.0.0.3"] * 4
        ]
        for _ in links:
            held.enter_context(closing(listener.accept()[0]))
        busy = "{}:{}".format(*links[0].getsockname())
        # Looked at once, by this thread: one that goes on would end connections of the tests after this one.
        Connections(lambda peer: peer == busy, lambda _: False, most=16)._look()
        until(lambda: len([link for link in links[:10] if is_open(link)]) == 4)
        assert is_open(links[0]), "one that is being served is let be"
        assert all(is_open(link) for link in links[10:])


def test_the_end_of_a_connection_is_told(listener: socket.socket) -> None:
    connections, told = Connections(lambda _: True, lambda _: False), threading.Event()
    connections.start()
    with closing(socket.create_connection(("127.0.0.1", listener.getsockname()[1]))) as link:
        ours = listener.accept()[0]
        connections.when_closed("{}:{}".format(*link.getsockname()), told.set)
        time.sleep(2)
        assert not told.is_set()
    with suppress(OSError):
        ours.close()
    assert told.wait(20)


class Slow(Connections):
    """Takes long to look at all, as with thousands of them: `looks` tells when each look began and ended."""

    def __init__(self) -> None:
        super().__init__(lambda _: True, lambda _: False)
        self.looks: list[list[float]] = []

    def _look(self) -> None:
        self.looks.append([time.monotonic()])
        super()._look()
        time.sleep(0.2)
        self.looks[-1].append(time.monotonic())


def test_while_a_download_runs_looking_at_all_connections_takes_a_twentieth_of_a_core(
    listener: socket.socket,
) -> None:
    connections = Slow()
    with (
        closing(socket.create_connection(("127.0.0.1", listener.getsockname()[1]))) as link,
        closing(listener.accept()[0]),
    ):
        connections.when_closed("{}:{}".format(*link.getsockname()), lambda: None)
        connections.start()
        until(lambda: len(connections.looks) == 2)
    (began, ended), (again, *_) = connections.looks
    assert again - ended >= 19 * (ended - began), "whoever is served waits for each look"


def test_the_end_of_a_download_is_told_before_all_connections_are_looked_at_again(
    listener: socket.socket,
) -> None:
    connections, begun, told = Slow(), [0], threading.Event()

    def tell() -> None:
        begun.append(len(connections.looks))
        told.set()

    with closing(socket.create_connection(("127.0.0.1", listener.getsockname()[1]))) as link:
        with closing(listener.accept()[0]):
            connections.when_closed("{}:{}".format(*link.getsockname()), tell)
            connections.start()
            until(lambda: bool(connections.looks) and len(connections.looks[0]) == 2)
            assert not told.is_set()
        assert told.wait(20)
    assert begun[-1] == 1


def test_this_granian_lets_the_front_take_requests_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it they go by the event loop, at a third of the rate."""
    monkeypatch.setattr(_futures, "_cbsched_aioschedule", _futures._cbsched_aioschedule)
    assert shortcut.install(lambda _, __, ended: ended())

    class Watcher:
        scope = proto = None
        ended = False

        def done(self) -> None:
            self.ended = True

    watcher = Watcher()
    _futures._cbsched_aioschedule(None, None, None)(watcher)
    assert watcher.ended


@pytest.fixture
def alone() -> Iterator[int]:
    """The port of a front with nothing behind it, in a process of its own."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    command = ["granian", "--interface", "rsgi", "--http", "1", "--no-ws", "--port", str(port)]
    with subprocess.Popen(
        [sys.executable, "-m", *command, "tests.api.front.front_alone:application"],
        stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        try:
            until(lambda: answers(port))
            yield port
        finally:
            process.terminate()


def answers(port: int) -> bool:
    try:
        return asked(port, "GET", "/kept").startswith(b"1")
    except OSError:
        return False


def asked(
    port: int, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> bytes:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as link:
        link.request(method, path, body, headers or {})
        return link.getresponse().read()


def test_who_prefers_to_be_answered_later_may_send_more(alone: int) -> None:
    """What a packed body may become is memory that is taken, and given back: ten would be more than all."""
    later, packed = {"Prefer": "respond-async"}, {"Content-Encoding": "gzip"}
    body, largest = b"a" * (2 << 20), gzip.compress(b"a" * LARGEST_DEFERRED, 1)
    length = str(len(body)).encode()
    # Announced alone: what is refused unread is not taken to its end.
    for coding, sent in (({"Content-Length": length.decode()}, None), (packed, gzip.compress(body, 1))):
        refused = asked(alone, "POST", "/many", sent, coding)
        assert (b"body-too-large" in refused, b"Prefer: respond-async" in refused) == (True, True)
        assert b"body-too-large" in asked(alone, "POST", "/", sent, coding | later)
        assert asked(alone, "POST", "/many", sent or body, coding | later) == length
    answers = {asked(alone, "POST", "/many", largest, packed | later) for _ in range(10)}
    assert answers == {str(LARGEST_DEFERRED).encode()}
    longer = gzip.compress(b"a" * (LARGEST_DEFERRED + 1), 1)
    assert b"body-too-large" in asked(alone, "POST", "/many", longer, packed | later)


def test_a_stream_that_breaks_does_not_look_whole(alone: int) -> None:
    """Whoever reads lines could not tell the first three from all."""
    assert asked(alone, "GET", "/pieces?10") == b"a line\n" * 10
    for _ in range(10):
        with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
            asked(alone, "GET", "/pieces?3")
    until(lambda: asked(alone, "GET", "/kept") == b"1")


def test_nothing_is_kept_of_a_request_that_is_over(alone: int) -> None:
    for body in (b"a" * 100, b"a" * 100_000):
        assert [asked(alone, "POST", "/", body) for _ in range(5)] == [str(len(body)).encode()] * 5
    asked(alone, "GET", "/slow")
    for sent in (b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n", HALF, HALF.replace(b"99", b"99999")):
        with closing(socket.create_connection(("127.0.0.1", alone))) as link:
            link.sendall(sent)
            time.sleep(0.4)
    with closing(socket.create_connection(("127.0.0.1", alone), timeout=10)) as late:
        late.sendall(HALF)
        assert late.recv(12) == b"HTTP/1.1 408"
    assert b'"code":"internal-error"' in asked(alone, "GET", "/panic")
    # The one that asks is there.
    until(lambda: asked(alone, "GET", "/kept") == b"1")


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": 1, "a": 2}',
        b'{"a": {"b": [1, {"c": 1, "c": 1}]}}',
        b'[{"a": 1, "\\u0061": 2}]',
        b'\xef\xbb\xbf{"a": 1, "b": 2, "a": null}',
    ],
)
def test_a_name_twice_in_one_object_is_refused_at_any_depth(body: bytes) -> None:
    with pytest.raises(RepeatedKeyError):
        read_json(body)


def test_the_same_name_in_different_objects_is_none_twice() -> None:
    assert read_json(b'\xef\xbb\xbf{"a": {"a": [{"a": 1}, {"a": 2}]}}') == {"a": {"a": [{"a": 1}, {"a": 2}]}}


@pytest.mark.parametrize("body", [b"[" * 990 + b"]" * 990, b"[" * 5000, b"\xff\xfe", b"", b"1" * 5000])
def test_what_python_and_orjson_read_differently_raises_nothing_but_a_value_error(body: bytes) -> None:
    with suppress(ValueError):
        read_json(body)

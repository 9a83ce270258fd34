"""The API is asked at its own pace, believed in nothing, and its refusals are told in its words.

Each case speaks to a real server on this machine, with a CA made for the test.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from directory.base.errors import Kind, Refusal
from directory.sync.sources.fhir_client import PAUSES, Api, Client, Pace
from directory.sync.sources.https import Origin
from tests.directory.sync import annuaire as stand_in
from tests.directory.sync.annuaire import KEY, Annuaire, outcome
from tests.directory.sync.sources import Answer, Authority, Server, authority

NOW = datetime(2026, 9, 1, 12, tzinfo=UTC)


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def annuaire(ca: Authority) -> Iterator[Annuaire]:
    yield from stand_in.serving(ca, Annuaire(NOW))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def api(ca: Authority, tmp_path: Path) -> Callable[[int], Api]:
    (tmp_path / "key").write_text(f"{KEY}\n")

    def of(port: int) -> Api:
        url = f"https://localhost:{port}/fhir/v2"
        origin = Origin("annuaire", "", url, "", trust_anchor=ca.anchor, allow_private=True)
        return Api(origin, tmp_path / "key")

    return of


@pytest.fixture
def client(api: Callable[[int], Api], server: Server, clock: Clock) -> Client:
    return Client(api(server.port), Pace(clock=clock, sleep=clock.sleep))


def answer(found: Any, status: int = 200, **headers: str) -> Answer:
    body = found if isinstance(found, bytes) else json.dumps(found).encode()
    given = {"Content-Length": str(len(body))} | {n.replace("_", "-"): v for n, v in headers.items()}
    return lambda handler: handler.say(status, given, body)


def page(*ids: str, then: object = None) -> Answer:
    links = [{"relation": "next", "url": then}] if then is not None else []
    entries = [{"resource": {"resourceType": "Organization", "id": one}} for one in ids]
    return answer({"resourceType": "Bundle", "link": links, "entry": entries})


def refusal_of(client: Client) -> Refusal:
    with pytest.raises(Refusal) as caught:
        list(client.search("Organization", {}))
    assert KEY not in caught.value.text
    return caught.value


def people(number: int) -> list[dict[str, Any]]:
    return [{"resourceType": "Practitioner", "id": f"p-{one:04}"} for one in range(number)]


def test_all_pages_of_a_search_come_once_each_though_people_change_meanwhile(
    annuaire: Annuaire, api: Callable[[int], Api]
) -> None:
    annuaire.put(people(450), NOW - timedelta(hours=1))
    search = Client(api(annuaire.port)).search("Practitioner", {"_lastUpdated": "ge2026-09-01T00:00:00Z"})
    first = next(search)
    annuaire.retire("Practitioner", "p-0449", NOW)
    found = [first, *search]
    assert [one["id"] for one in found] == [f"p-{one:04}" for one in range(450)]
    assert (found[-1].get("active"), len(annuaire.asked)) == (None, 3)


@pytest.mark.waits
def test_the_server_is_never_asked_more_than_17_times_a_second(
    annuaire: Annuaire, api: Callable[[int], Api]
) -> None:
    """Forty pages of five, on the clock of the wall: the server would answer 429 to the eighteenth."""
    annuaire.put(people(200), NOW)
    annuaire.largest_page = 5
    client = Client(api(annuaire.port))
    assert len(list(client.search("Practitioner", {}))) == 200
    assert (len(annuaire.asked), annuaire.most_within_a_second <= 17) == (40, True)


def test_the_pace_lets_17_pass_at_once_and_the_next_wait(clock: Clock) -> None:
    pace = Pace(clock=clock, sleep=clock.sleep)
    for _ in range(40):
        with pace.call():
            pass
    assert clock.slept == [1.0, 1.0]


def test_a_busy_server_is_asked_again_after_longer_and_longer_pauses(
    client: Client, server: Server, clock: Clock
) -> None:
    busy = answer(outcome("throttled", "Too many."), 429)
    server.answers = [busy, answer(b"", 503), answer(b"", 500, Retry_After="20"), page("a")]
    assert [one["id"] for one in client.search("Organization", {})] == ["a"]
    assert clock.slept == [1.0, 2.0, 20.0]


def test_one_that_stays_busy_is_left_alone_until_the_next_time(
    client: Client, server: Server, clock: Clock
) -> None:
    server.answers = [answer(outcome("throttled", "Trop de requêtes."), 429)] * 10
    refusal = refusal_of(client)
    assert (refusal.kind, refusal.code) == (Kind.UNAVAILABLE, "source-busy")
    assert "Trop de requêtes" in refusal.text
    assert (clock.slept, len(server.asked)) == (list(PAUSES), 5)


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (400, Kind.UNACCEPTABLE, "api-refused"),
        (401, Kind.UNACCEPTABLE, "api-key-refused"),
        (403, Kind.UNACCEPTABLE, "api-key-refused"),
        (404, Kind.UNACCEPTABLE, "api-refused"),
        (410, Kind.UNAVAILABLE, "page-expired"),
        (412, Kind.UNACCEPTABLE, "api-refused"),
    ],
)
def test_a_refusal_is_told_in_the_words_of_the_server(
    status: int, kind: Kind, code: str, client: Client, server: Server
) -> None:
    server.answers = [answer(outcome("x", "Paramètre inconnu.\x1b[31m"), status)]
    refusal = refusal_of(client)
    assert (refusal.kind, refusal.code) == (kind, code)
    assert "Paramètre inconnu" in refusal.text
    assert "\x1b" not in refusal.text


def test_without_the_right_key_nothing_is_answered(annuaire: Annuaire, api: Callable[[int], Api]) -> None:
    asked = api(annuaire.port)
    asked.key_file.write_text("another")
    assert refusal_of(Client(asked)).code == "api-key-refused"


@pytest.mark.parametrize("key", ["", "two\nlines", "clé", None])
def test_a_key_that_no_header_carries_is_refused_before_anybody_is_asked(
    key: str | None, api: Callable[[int], Api], server: Server
) -> None:
    asked = api(server.port)
    asked.key_file.unlink() if key is None else asked.key_file.write_text(key)
    with pytest.raises(Refusal) as caught:
        Client(asked)
    assert (caught.value.code, server.asked) == ("bad-source", [])


ELSEWHERE = ("https://example.invalid/x", "http://localhost:{port}/x", "https://localhost/x",
             "https://127.0.0.1:{port}/x", "//example.invalid/x", "https://[/x", 7, ["x"])  # fmt: skip


@pytest.mark.parametrize("then", ELSEWHERE)
def test_the_key_follows_no_link_to_another_host(then: object, client: Client, server: Server) -> None:
    there = then.format(port=server.port) if isinstance(then, str) else then
    server.answers = [page("a", then=there)]
    assert refusal_of(client).code == "foreign-next"
    assert len(server.asked) == 1


def test_the_key_follows_no_redirect_to_another_host(client: Client, server: Server) -> None:
    server.answers = [answer(b"", 302, Location="https://example.invalid/x")]
    assert refusal_of(client).code == "redirected-elsewhere"


def test_pages_without_end_are_refused(client: Client, server: Server) -> None:
    """The same link, the same people under new links, empty pages under new links."""
    loops: tuple[list[Answer], ...] = (
        [page("a", then="/1"), page("b", then="/1"), page("c")],
        [page("a", "b", then="/1"), page("b", "a", then="/2"), page("c")],
        [page(then=f"/{one}") for one in range(9)],
    )
    for answers in loops:
        server.answers = answers
        assert refusal_of(client).code == "paging-loop"


@pytest.mark.parametrize(
    "body",
    [
        b"", b"no json", b"[]", b"{}", b'{"resourceType":"Bundle","entry":{}}',
        b'{"resourceType":"Bundle","entry":[1]}', b'{"resourceType":"Bundle","entry":[{"resource":{}}]}',
        b'{"resourceType":"Bundle","entry":[{"resource":{"id":7}}]}', b'{"resourceType":"Bundle","link":1}',
        b'{"resourceType":"OperationOutcome"}', b"[" * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_bundle_is_refused(body: bytes, client: Client, server: Server) -> None:
    server.answers = [answer(body)]
    assert refusal_of(client).code == "no-bundle"


def test_an_answer_that_was_cut_is_no_answer(client: Client, server: Server) -> None:
    server.answers = [
        lambda handler: handler.say(200, {"Content-Length": "900"}, b'{"resourceType":"Bundle"}')
    ]
    refusal = refusal_of(client)
    assert (refusal.kind, refusal.code) == (Kind.UNAVAILABLE, "truncated-download")


def test_another_ca_is_not_believed(
    api: Callable[[int], Api], server: Server, tmp_path: Path, clock: Clock
) -> None:
    (tmp_path / "other").mkdir()
    asked = api(server.port)
    other = replace(asked.origin, trust_anchor=authority(tmp_path / "other").anchor)
    client = Client(replace(asked, origin=other), Pace(clock=clock, sleep=clock.sleep))
    assert (refusal_of(client).code, server.asked) == ("untrusted-server", [])


def test_what_the_server_says_about_a_search_is_nobody_found(client: Client, server: Server) -> None:
    note = {"resource": outcome("x", "…"), "search": {"mode": "outcome"}}
    server.answers = [answer({"resourceType": "Bundle", "entry": [note]})]
    assert list(client.search("Organization", {})) == []

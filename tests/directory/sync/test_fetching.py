"""A register's file comes over HTTPS from the host that was named, whole, under its own name, or not at all.

Each case speaks to a real server on this machine, with a CA made for the test.
"""

import subprocess
import threading
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from directory.base.errors import Kind, Refusal
from directory.sync.sources import https as fetching
from directory.sync.sources.https import Fetched, Origin, Version, fetch, is_public
from tests.directory.sync.sources import (
    BODY,
    NAME,
    Answer,
    Authority,
    Handler,
    Server,
    authority,
    chunked,
    cut,
    rest,
    serving,
    status,
    whole,
)

MODIFIED = datetime(2026, 8, 26, 0, 5, tzinfo=UTC)


@pytest.fixture
def origin(server: Server, ca: Authority) -> Origin:
    return Origin(
        "rpps-public",
        "rpps",
        f"https://localhost:{server.port}/PS_LibreAcces",
        "PS_LibreAcces_*.zip",
        trust_anchor=ca.anchor,
        allow_private=True,
    )


def refused(origin: Origin, folder: Path, last: Version = Version()) -> Refusal:  # noqa: B008 - frozen
    with pytest.raises(Refusal) as caught:
        fetch(origin, folder, last)
    assert list(folder.iterdir()) == []
    return caught.value


def test_a_file_is_asked_for_then_brought_whole_under_the_name_the_server_gives(
    server: Server, origin: Origin, tmp_path: Path
) -> None:
    when = format_datetime(MODIFIED, usegmt=True)
    server.answers = [whole(), whole(ETag='"v1"', Last_Modified=when)]
    fetched = fetch(origin, tmp_path, Version())
    assert fetched == Fetched(tmp_path / NAME, Version(NAME, '"v1"', when))
    assert (tmp_path / NAME).read_bytes() == BODY
    assert (tmp_path / NAME).stat().st_mtime == MODIFIED.timestamp()
    assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o600
    assert server.methods == ["HEAD", "GET"]
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


@pytest.mark.parametrize(
    ("answer", "last"),
    [
        (whole(), Version(NAME)),
        (whole("listeblanche.zip", ETag='"v1"'), Version("listeblanche.zip", '"v1"')),
        (whole("listeblanche.zip", Last_Modified="then"), Version("listeblanche.zip", "", "then")),
    ],
)
def test_what_was_fetched_last_is_not_fetched_again(
    answer: Answer, last: Version, server: Server, origin: Origin, tmp_path: Path
) -> None:
    server.answers = [answer]
    assert fetch(replace(origin, files="*.zip"), tmp_path, last) is None
    assert server.methods == ["HEAD"]


@pytest.mark.parametrize(
    ("answer", "last"),
    [
        (whole(), Version("PS_LibreAcces_202608250200.zip", '"v1"')),
        (whole(ETag='"v1"'), Version("PS_LibreAcces_202608250200.zip", '"v1"')),
        (whole("listeblanche.zip", ETag='"v2"'), Version("listeblanche.zip", '"v1"')),
        (whole("listeblanche.zip"), Version("listeblanche.zip")),
    ],
)
def test_what_is_newer_or_cannot_be_told_is_fetched(
    answer: Answer, last: Version, server: Server, origin: Origin, tmp_path: Path
) -> None:
    server.answers = [answer, answer]
    assert fetch(replace(origin, files="*.zip"), tmp_path, last) is not None


def test_a_server_that_does_not_know_head_is_asked_whether_the_file_changed(
    server: Server, origin: Origin, tmp_path: Path
) -> None:
    server.answers = [status(405), status(304)]
    assert fetch(origin, tmp_path, Version(NAME, '"v1"')) is None
    assert server.asked[1][2]["If-None-Match"] == '"v1"'


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        (status(429), None),
        (status(503, Retry_After="120"), 120),
        (
            status(429, Retry_After="Wed, 26 Aug 2026 00:03:00 GMT", Date="Wed, 26 Aug 2026 00:01:00 GMT"),
            120,
        ),
        (status(429, Retry_After="soon"), None),
    ],
)
def test_a_busy_server_says_when_to_come_back(
    answer: Answer, seconds: int | None, server: Server, origin: Origin, tmp_path: Path
) -> None:
    server.answers = [answer]
    refusal = refused(origin, tmp_path)
    assert (refusal.kind, refusal.code) == (Kind.UNAVAILABLE, "source-busy")
    assert refusal.details["retry_after"] == seconds


@pytest.mark.parametrize("code", [204, 206, 400, 403, 404, 410, 500, 502])
def test_any_other_answer_is_no_file(code: int, server: Server, origin: Origin, tmp_path: Path) -> None:
    server.answers = [status(code)]
    refusal = refused(origin, tmp_path)
    assert (refusal.code, str(code) in refusal.text) == ("source-answered", True)


def test_a_redirect_on_the_same_host_is_followed(server: Server, origin: Origin, tmp_path: Path) -> None:
    moved = status(302, Location="/there?day=1")
    server.answers = [moved, whole(), moved, whole()]
    assert fetch(origin, tmp_path, Version()) is not None
    assert [path for _, path, _ in server.asked] == ["/PS_LibreAcces", "/there?day=1"] * 2


ELSEWHERE = (
    "https://example.invalid/x", "http://localhost/x", "https://localhost/x", "https://localhost:1/x",
    "https://127.0.0.1:{port}/x", "https://user@localhost:{port}/x", "file:///etc/passwd",
    "//example.invalid/x", "https://[/x", "", "https://localhost:99999/x", "ftp://localhost:{port}/x",
)  # fmt: skip


@pytest.mark.parametrize("location", ELSEWHERE)
def test_a_redirect_elsewhere_is_refused(
    location: str, server: Server, origin: Origin, tmp_path: Path
) -> None:
    server.answers = [status(302, Location=location.format(port=server.port))]
    refusal = refused(origin, tmp_path)
    assert (refusal.kind, refusal.code) == (Kind.UNACCEPTABLE, "redirected-elsewhere")
    assert len(server.asked) == 1


def test_redirects_without_end_are_refused(server: Server, origin: Origin, tmp_path: Path) -> None:
    server.answers = [status(301, Location="/again")] * 10
    assert refused(origin, tmp_path).code == "redirected-elsewhere"
    assert len(server.asked) == 4


def test_the_ca_of_these_tests_stands_the_strict_validation_of_later_pythons(tmp_path: Path) -> None:
    """From 3.13 on, a default context asks for what RFC 5280 asks; on 3.11 only this test would tell."""
    folder = tmp_path / "strict"
    folder.mkdir()
    certificate, _ = authority(folder).issue("server")
    asked = ["openssl", "verify", "-x509_strict", "-CAfile", str(folder / "ca.pem"), str(certificate)]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    assert done.stdout == f"{certificate}: OK\n", done.stderr


def test_another_ca_is_not_believed(server: Server, origin: Origin, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    drop = tmp_path / "drop"
    drop.mkdir()
    refusal = refused(replace(origin, trust_anchor=authority(other).anchor), drop)
    assert (refusal.kind, refusal.code) == (Kind.UNAVAILABLE, "untrusted-server")
    assert refused(replace(origin, trust_anchor=None), drop).code == "untrusted-server"
    assert server.asked == []


def test_a_certificate_of_another_name_is_not_believed(
    server: Server, origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolves(monkeypatch, {"registers.example": "127.0.0.1"})
    elsewhere = replace(origin, url=f"https://registers.example:{server.port}/x")
    assert refused(elsewhere, tmp_path).code == "untrusted-server"


def resolves(monkeypatch: pytest.MonkeyPatch, names: dict[str, str]) -> list[str]:
    """Let names resolve as given, and say which were asked for."""
    real, asked = fetching.socket.getaddrinfo, []

    def answer(host: str, *rest: Any, **more: Any) -> Any:
        asked.append(host)
        return real(names.get(host, host), *rest, **more)

    monkeypatch.setattr(fetching.socket, "getaddrinfo", answer)
    return asked


def test_a_name_is_looked_up_once_for_all_questions(
    server: Server, origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = resolves(monkeypatch, {"localhost": "127.0.0.1"})
    server.answers = [status(302, Location="/x"), whole(), cut(1000), whole()]
    assert fetch(origin, tmp_path, Version()) is not None
    assert asked.count("localhost") == 1


PRIVATE = ("localhost", "127.0.0.1", "[::1]", "169.254.169.254", "10.0.0.1", "192.168.1.1",
           "[::ffff:127.0.0.1]", "[fe80::1]", "0.0.0.0", "100.64.0.1", "[fd00::1]",
           "[2002:7f00:1::]", "224.0.0.1")  # fmt: skip


@pytest.mark.parametrize("host", PRIVATE)
def test_a_host_within_a_private_network_is_refused_unless_its_source_says_so(
    host: str, server: Server, origin: Origin, tmp_path: Path
) -> None:
    within = replace(origin, url=f"https://{host}:{server.port}/x", allow_private=False)
    refusal = refused(within, tmp_path)
    assert (refusal.kind, refusal.code) == (Kind.UNACCEPTABLE, "private-address")
    assert server.asked == []


def test_public_addresses_are_told_from_the_others() -> None:
    assert is_public("8.8.8.8")
    assert is_public("2001:4860:4860::8888")
    assert not is_public("2001:db8::1")


@pytest.mark.parametrize(
    "url", ["http://localhost/x", "https://u@localhost/x", "file:///x", "https://localhost/ x"]
)
def test_an_address_that_is_not_plain_https_is_refused(url: str, origin: Origin, tmp_path: Path) -> None:
    assert refused(replace(origin, url=url), tmp_path).code == "foreign-address"


@pytest.mark.parametrize(
    "name",
    ["../evil.zip", "/etc/evil.zip", "..", "evil.so", '"PS_LibreAcces_\\..\\x.zip"', ".PS_LibreAcces_1.zip",
     "PS_LibreAcces_" + "1" * 200 + ".zip", '"PS_LibreAcces_1 .zip"', "PS_LibreAcces_1.zip.exe",
     "PS_LibreAcces_%2e%2e%2f.zip"],
)  # fmt: skip
def test_a_name_that_is_not_the_registers_is_refused(
    name: str, server: Server, origin: Origin, tmp_path: Path
) -> None:
    server.answers = [whole(), whole(name)]
    refusal = refused(origin, tmp_path)
    assert (refusal.kind, refusal.code) == (Kind.UNACCEPTABLE, "foreign-name")


def test_without_a_name_from_the_server_the_url_names_the_file(
    server: Server, origin: Origin, tmp_path: Path
) -> None:
    nameless = {"Content-Length": str(len(BODY))}
    server.answers = [lambda handler: handler.say(200, nameless, BODY)] * 2
    fetched = fetch(replace(origin, url=f"https://localhost:{server.port}/a/{NAME}"), tmp_path, Version())
    assert fetched is not None
    assert fetched.path.name == NAME


def test_a_file_above_the_cap_is_refused_announced_or_not(
    server: Server, origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "LARGEST", len(BODY) - 1)
    server.answers = [whole(), whole()]
    assert refused(origin, tmp_path).code == "too-large"
    server.answers = [whole(), chunked(BODY)]
    assert refused(origin, tmp_path).code == "too-large"


def test_a_body_in_chunks_is_whole_with_its_last_chunk_only(
    server: Server, origin: Origin, tmp_path: Path
) -> None:
    server.answers = [whole(), *[chunked(BODY, ends=False)] * 4]
    assert refused(origin, tmp_path).code == "truncated-download"
    server.answers = [whole(), chunked(BODY, ends=False), chunked(BODY)]
    fetched = fetch(origin, tmp_path, Version())
    assert fetched is not None
    assert fetched.path.read_bytes() == BODY


def test_a_body_without_length_or_chunks_is_never_taken_for_whole(
    server: Server, origin: Origin, tmp_path: Path
) -> None:
    endless = {"Content-Disposition": f"attachment; filename={NAME}", "Connection": "close"}
    server.answers = [whole(), *[lambda handler: handler.say(200, endless, BODY)] * 4]
    assert refused(origin, tmp_path).code == "truncated-download"


@pytest.mark.parametrize("tag", ['"v1"', ""])
def test_a_cut_download_is_taken_up_where_it_ended(
    tag: str, server: Server, origin: Origin, tmp_path: Path
) -> None:
    when = format_datetime(MODIFIED, usegmt=True)
    tags = {"ETag": tag} if tag else {}
    server.answers = [whole(), cut(5000, Last_Modified=when, **tags), rest(5000)]
    fetched = fetch(origin, tmp_path, Version())
    assert fetched is not None
    assert fetched.path.read_bytes() == BODY
    assert fetched.version == Version(NAME, tag, when)
    asked = server.asked[2][2]
    assert (asked["Range"], asked["If-Range"]) == ("bytes=5000-", tag or when)


@pytest.mark.parametrize(
    "second",
    [
        pytest.param([whole(ETag='"v2"')], id="the file changed meanwhile"),
        pytest.param([rest(5000, told=6000), whole()], id="another part than the one asked for"),
    ],
)
def test_what_cannot_be_taken_up_is_begun_again(
    second: list[Answer], server: Server, origin: Origin, tmp_path: Path
) -> None:
    server.answers = [whole(), cut(5000, ETag='"v1"'), *second]
    fetched = fetch(origin, tmp_path, Version())
    assert fetched is not None
    assert fetched.path.read_bytes() == BODY


@pytest.mark.parametrize("tags", [{}, {"ETag": 'W/"v1"'}])
def test_a_part_that_nothing_vouches_for_is_thrown_away(
    tags: dict[str, str], server: Server, origin: Origin, tmp_path: Path
) -> None:
    server.answers = [whole(), cut(5000, **tags), whole()]
    fetched = fetch(origin, tmp_path, Version())
    assert fetched is not None
    assert fetched.path.read_bytes() == BODY
    assert "Range" not in server.asked[2][2]


def test_a_download_cut_each_time_is_refused(server: Server, origin: Origin, tmp_path: Path) -> None:
    server.answers = [whole(), *[cut(5000)] * 4]
    refusal = refused(origin, tmp_path)
    assert (refusal.kind, refusal.code) == (Kind.UNAVAILABLE, "truncated-download")


@pytest.mark.waits
def test_a_server_that_falls_silent_is_given_up(
    server: Server, origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "READ_SECONDS", 0.2)
    monkeypatch.setattr(fetching, "MOST_CUTS", 1)
    over = threading.Event()

    def stall(handler: Handler) -> None:
        handler.say(200, {"Content-Length": "9", "Content-Disposition": f"attachment; filename={NAME}"}, b"1")
        over.wait(5)

    server.answers = [whole(), stall]
    assert refused(origin, tmp_path).code == "truncated-download"
    server.answers = [lambda _: over.wait(5) and None]  # type: ignore[list-item, return-value]
    assert refused(origin, tmp_path).code == "source-unreachable"
    over.set()


def test_a_server_that_drips_is_given_up(
    server: Server, origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "WHOLE_SECONDS", -1)
    server.answers = [whole(), whole()]
    assert refused(origin, tmp_path).code == "too-slow"


def test_nobody_listening_is_said_so(origin: Origin, tmp_path: Path) -> None:
    assert refused(replace(origin, url="https://localhost:1/x"), tmp_path).code == "source-unreachable"
    unknown = replace(origin, url="https://nobody.invalid/x")
    assert refused(unknown, tmp_path).code == "source-unreachable"


def test_a_restricted_source_is_shown_our_certificate(ca: Authority, tmp_path: Path) -> None:
    folder = tmp_path / "drop"
    folder.mkdir()
    for server in serving(ca, clients=True):
        certificate, key = ca.issue("client")
        stranger = Origin("psc", "rpps", f"https://localhost:{server.port}/x", "*.zip",
                          trust_anchor=ca.anchor, allow_private=True)  # fmt: skip
        assert refused(stranger, folder).code == "source-unreachable"
        known = replace(stranger, client_certificate=certificate, client_key=key)
        server.answers = [whole(), whole()]
        assert fetch(known, folder, Version()) is not None


def test_a_key_that_cannot_be_read_is_said_so(origin: Origin, tmp_path: Path) -> None:
    folder = tmp_path / "drop"
    folder.mkdir()
    missing = replace(origin, client_certificate=tmp_path / "none.pem")
    assert refused(missing, folder).code == "bad-source"
    assert refused(replace(origin, trust_anchor=tmp_path / "none.pem"), folder).code == "bad-source"


def test_a_link_in_the_folder_is_replaced_and_not_followed(
    server: Server, origin: Origin, tmp_path: Path
) -> None:
    drop, treasure = tmp_path / "drop", tmp_path / "treasure"
    drop.mkdir()
    treasure.write_text("kept")
    (drop / NAME).symlink_to(treasure)
    (drop / ".rpps-public.part").symlink_to(treasure)
    server.answers = [whole(), whole()]
    assert fetch(origin, drop, Version()) is not None
    assert treasure.read_text() == "kept"
    assert not (drop / NAME).is_symlink()


def test_a_folder_that_cannot_be_written_is_said_so(server: Server, origin: Origin, tmp_path: Path) -> None:
    (tmp_path / "drop").write_text("a file")
    server.answers = [whole()]
    with pytest.raises(Refusal) as caught:
        fetch(origin, tmp_path / "drop", Version())
    assert caught.value.code == "no-room"

"""How a file ends, what stands in its place, how old it is: taken where it is whole, named where not."""

import os
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from directory.sync.formats import files as source
from directory.sync.formats.files import Member, oldest, register_file, written_at
from directory.sync.runs.run import REGISTERS
from tests.directory.sync.evenings import SOURCES, Night
from tests.directory.sync.files import (
    ACTIVITIES,
    FINESS,
    KNOW_HOW,
    MAILBOXES,
    TRUSTED,
    VECTORS,
    Rows,
    Run,
    header,
    someone,
    zipped,
)
from tests.directory.sync.test_bad_files_change_nothing import many, number
from tests.directory.sync.test_cells_are_compared_as_one_spells_them import increment

Fingerprint = Callable[[], object]
GOOD = (VECTORS / ACTIVITIES).read_bytes()
BLANKS = {
    "one": b"\n",
    "many": b"\n" * 40,
    "of another system": b"\r\n\r\n",
    "with spaces": b"  \n\t\n\xc2\xa0\n",
}


@pytest.mark.parametrize("blank", BLANKS.values(), ids=BLANKS)
@pytest.mark.parametrize("source_name", SOURCES)
def test_blank_lines_at_the_end_of_any_register_are_left_out(
    source_name: str, blank: bytes, *, night: Night, fingerprint: Fingerprint
) -> None:
    if source_name in {"finess-json", "trusted-domains"} and b"\xc2" in blank:
        blank = blank.replace(b"\xc2\xa0", b"")
    expected = night.bring(night.text, apply=False).counts
    before = fingerprint()
    report = night.bring(night.text + blank)
    assert (report.state, report.counts) == ("applied", expected)
    assert fingerprint() == before


def test_a_blank_line_within_a_file_is_a_row_that_cannot_be_read(tmp_path: Path, run: Run) -> None:
    (tmp_path / ACTIVITIES).write_text(many(30) + "\n\n" + someone(number(31)))
    report = run("rpps", tmp_path / ACTIVITIES)
    assert [(r.line_number, r.reason) for r in report.rejections] == [
        (32, "wrong-cell-count"),
        (33, "wrong-cell-count"),
    ]
    assert report.counts["created"] == 31


@pytest.mark.parametrize("source_name", ["rpps", "rpps-psc", "finess", "mailboxes"])
def test_a_last_row_that_is_whole_needs_no_line_end(night: Night, fingerprint: Fingerprint) -> None:
    expected = night.bring(night.text, apply=False).counts
    before = fingerprint()
    for text in (night.text.rstrip(b"\n"), night.text.replace(b"\n", b"\r\n").removesuffix(b"\r\n")):
        report = night.bring(text)
        assert (report.state, report.counts) == ("applied", expected)
        assert [(found.name, found.needed) for found in report.findings] == [("no-line-end", 0)]
    assert fingerprint() == before


@pytest.mark.parametrize("source_name", ["rpps", "rpps-psc", "finess", "mailboxes"])
def test_a_last_row_that_lacks_a_cell_was_cut(
    source_name: str, night: Night, fingerprint: Fingerprint
) -> None:
    separator = b";" if source_name == "finess" else b"|"
    before = fingerprint()
    text = night.text.rstrip(b"\n")
    for end in (b"", b"\n", b"\n\n"):
        cut = text.removesuffix(separator).rpartition(separator)[0]
        assert night.bring(cut + end).reason == "truncated"
    assert fingerprint() == before


def test_where_each_row_ends_with_a_separator_the_last_must_too(tmp_path: Path, run: Run) -> None:
    (tmp_path / ACTIVITIES).write_text(many(30).removesuffix("|\n"))
    assert run("rpps", tmp_path / ACTIVITIES).reason == "truncated"


@pytest.mark.parametrize("end", ["", "\n\n\n"])
def test_an_increment_may_end_so_too(end: str, tmp_path: Path, run: Run) -> None:
    (tmp_path / ACTIVITIES).write_bytes(GOOD)
    run("rpps", tmp_path / ACTIVITIES)
    assert run("rpps", increment(tmp_path, {"role": "004-1"}, end=end)).state == "applied"


@given(
    st.lists(st.sampled_from([b"a", b"\n", b"b|c", b" ", b"\r\n"]), max_size=30).map(b"".join),
    st.integers(1, 5),
)
def test_chunks_are_the_lines_without_blank_ones_at_the_end(text: bytes, block: int) -> None:
    member = Member("x", lambda: nullcontext(BytesIO(text)), len(text))
    before, source.BLOCK = source.BLOCK, block
    try:
        found = [line for chunk in member.chunks() for line in chunk.split(b"\n")] if text else []
    finally:
        source.BLOCK = before
    expected = text.split(b"\n")
    while expected and not expected[-1].strip():
        expected.pop()
    assert found == expected


PAGE = b"\n<!DOCTYPE html><html><head><title>503 Service Unavailable</title></head></html>\n"
# What stands in the place of the text, and the reason.
INSTEAD: dict[str, tuple[bytes, str]] = {
    "a web page": (PAGE, "web-page"),
    "a web page without a doctype": (b"\xef\xbb\xbf<HTML><body>503</body></HTML>", "web-page"),
    "nothing": (b"", "empty-file"),
}
WIDE = ["utf-16", "utf-16-le", "utf-16-be", "utf-32"]


@pytest.mark.parametrize("case", INSTEAD)
@pytest.mark.parametrize("source_name", SOURCES)
def test_what_stands_in_the_place_of_a_register_is_named(
    case: str, *, night: Night, run: Run, tmp_path: Path, fingerprint: Fingerprint
) -> None:
    text, reason = INSTEAD[case]
    before = fingerprint()
    assert night.bring(text).reason == reason
    if night.register in {"rpps", "mailboxes"}:
        archive = zipped(tmp_path / f"{night.register}.zip", {night.name: text})
        report = run(night.register, archive)
        assert (report.reason, night.name in report.text) == (reason, True)
    assert fingerprint() == before


@pytest.mark.parametrize("encoding", WIDE)
@pytest.mark.parametrize("source_name", ["rpps", "rpps-psc", "finess", "finess-json", "mailboxes"])
def test_a_wide_encoding_is_named(encoding: str, night: Night) -> None:
    assert night.bring(night.text.decode().encode(encoding)).reason == "wrong-encoding"


def test_an_empty_second_text_of_an_archive_is_named(tmp_path: Path, run: Run) -> None:
    report = run(
        "rpps", zipped(tmp_path / "PS_LibreAcces_202608260200.zip", {ACTIVITIES: GOOD, KNOW_HOW: b""})
    )
    assert (report.reason, report.text) == ("empty-file", f"{KNOW_HOW} is empty.")


@pytest.mark.parametrize(
    ("text", "reason"),
    [(PAGE, "web-page"), (b"503 Service Unavailable\n", "no-archive"), (GOOD, "no-archive")],
)
def test_what_is_called_an_archive_and_is_none_is_named(
    text: bytes, reason: str, tmp_path: Path, run: Run
) -> None:
    (tmp_path / "PS_LibreAcces_202608260200.zip").write_bytes(text)
    assert run("rpps", tmp_path / "PS_LibreAcces_202608260200.zip").reason == reason


NEW = "20261001"
RENAMED = [
    "PS_LibreAcces.zip",
    f"PS_LibreAcces_{NEW}.zip",
    f"PS_LibreAcces_{NEW}0200.zip",
    "PS_LibreAcces_2026-10-01.zip",
]


@pytest.mark.parametrize("name", RENAMED)
def test_an_archive_is_as_old_as_the_texts_in_it_say(name: str, tmp_path: Path, run: Run, rows: Rows) -> None:
    (tmp_path / "today").mkdir()
    (tmp_path / "today" / ACTIVITIES.replace("0826", "0830")).write_text(many(30))
    assert run("rpps", tmp_path / "today" / ACTIVITIES.replace("0826", "0830")).state == "applied"
    old = zipped(tmp_path / name, {ACTIVITIES: (many(30) + someone(number(31))).encode()})
    report = run("rpps", old)
    assert (report.state, report.reason) == ("refused", "older-than-applied")
    assert report.generated_at == datetime(2026, 8, 26, 0, tzinfo=UTC)
    assert rows("SELECT count(*) FROM practitioner") == [(30,)]


def test_the_day_in_the_name_of_an_archive_counts_too(tmp_path: Path, run: Run) -> None:
    archive = zipped(tmp_path / "PS_LibreAcces_20260801.zip", {ACTIVITIES: GOOD})
    assert run("rpps", archive).generated_at == datetime(2026, 7, 31, 22, tzinfo=UTC)


def test_a_day_gives_way_to_a_time_of_the_same_day(tmp_path: Path, run: Run) -> None:
    archive = zipped(tmp_path / "PS_LibreAcces_20260826.zip", {ACTIVITIES: GOOD})
    assert run("rpps", archive).generated_at == datetime(2026, 8, 26, 0, tzinfo=UTC)


@pytest.mark.parametrize("age", [0, 4_000_000])
def test_an_archive_that_tells_no_day_is_refused_whatever_its_own_time(
    age: int, tmp_path: Path, run: Run
) -> None:
    archive = zipped(tmp_path / "PS_LibreAcces.zip", {"PS_LibreAcces_Personne_activite.txt": GOOD})
    os.utime(archive, (1_787_000_000 - age,) * 2)
    assert run("rpps", archive).reason == "undated-archive"


@pytest.mark.parametrize(
    ("register", "sample", "name"),
    [("finess", FINESS, "etalab-cs1100502-stock-20261001-0338.csv"),
     ("trusted-domains", TRUSTED, "listeblanchemssante-202610010200.xml")],
)  # fmt: skip
def test_a_text_that_says_its_own_day_is_no_younger_for_its_name(
    register: str, sample: str, name: str, tmp_path: Path, run: Run
) -> None:
    (tmp_path / name).write_bytes((VECTORS / sample).read_bytes())
    said = run(register, VECTORS / sample, apply=False).generated_at
    found = run(register, tmp_path / name, apply=False).generated_at
    assert found.date() <= said.date()


def test_dates_within_an_archive_are_those_of_the_registers_own_texts(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "PS_LibreAcces.zip", {ACTIVITIES: GOOD, "LISEZMOI_20190101.txt": b"x\n"})
    with register_file(archive) as file:
        assert written_at(file, REGISTERS["rpps"].roles) == datetime(2026, 8, 26, 0, tzinfo=UTC)
    with register_file(VECTORS / MAILBOXES) as file:
        assert written_at(file, REGISTERS["mailboxes"].roles) == datetime(2026, 8, 26, 0, 13, tzinfo=UTC)
    assert oldest() is None
    assert header()

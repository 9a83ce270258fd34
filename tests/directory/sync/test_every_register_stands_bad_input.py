"""Every register, every way of being wrong: the file or the row is refused by name, and nobody is taken away.

The record holds the file of the day before; the night brings the same people, told badly.
"""

import gzip
import io
import re
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from directory.base.errors import Refusal
from directory.sync.formats import files as source
from directory.sync.runs.run import RunReport
from tests.directory.sync.evenings import SOURCES, Night
from tests.directory.sync.files import Rows, Run
from tests.examples import examples

each_source = pytest.mark.parametrize("source_name", SOURCES)
TABLES = {
    "rpps": "practitioner",
    "finess": "organisation",
    "mailboxes": "mailbox",
    "trusted-domains": "trusted_domain",
}
Fingerprint = Callable[[], object]


def add_up(report: RunReport) -> bool:
    counts = report.counts
    return counts["accepted"] + counts["rejected"] + counts["unchanged"] == counts["lines"]


@each_source
def test_the_same_people_told_well_change_nothing(night: Night, fingerprint: Fingerprint) -> None:
    before = fingerprint()
    report = night.bring(night.text)
    assert (report.state, report.counts["accepted"]) == ("applied", 0)
    assert add_up(report)
    assert fingerprint() == before


@pytest.mark.parametrize("source_name", SOURCES)
@settings(
    max_examples=examples(5), suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(share=st.floats(0, 1, exclude_max=True), packing=st.sampled_from(["plain", "gzip"]))
def test_a_file_cut_anywhere_takes_nobody_away(
    share: float, packing: str, *, night: Night, run: Run, rows: Rows
) -> None:
    register, name, text = night.register, night.name, night.text
    present = f"SELECT count(*) FROM {TABLES[register]} WHERE departed_at IS NULL"
    before = rows(present)
    whole = gzip.compress(text, 1) if packing == "gzip" else text
    part = whole[: int(share * len(whole))]
    # After a whole row it is a shorter file: the next test's.
    assume(packing == "gzip" or not ends_whole(register, text, part))
    # XML is whole without the end of its last line.
    assume(part != text.rstrip())
    with TemporaryDirectory() as folder:
        path = Path(folder) / (name + ".gz" * (packing == "gzip"))
        path.write_bytes(part)
        try:
            report = run(register, path)
        except Refusal as refusal:
            # These very bytes wait for somebody already.
            assume(refusal.code != "run-held")
            raise
    assert report.state == "refused"
    assert rows(present) == before


def ends_whole(register: str, text: bytes, part: bytes) -> bool:
    """Whether a part ends with a row that has all its cells, or with the list of domains closed."""
    if register == "trusted-domains":
        return part.rstrip().endswith(b"</ListeDomaines>")
    separator = b";" if register == "finess" else b"|"
    last, whole = (each.rstrip().rpartition(b"\n")[2] for each in (part, text))
    return part.endswith(b"\n") or last.count(separator) == whole.count(separator)


@pytest.mark.parametrize("source_name", ["rpps", "rpps-psc", "finess", "mailboxes"])
def test_a_file_cut_between_two_lines_waits_for_somebody(night: Night, fingerprint: Fingerprint) -> None:
    lines = night.text.splitlines(keepends=True)
    before = fingerprint()
    # Twenty rows fewer are an ordinary night, however small the register.
    for kept in range(1, len(lines) - 20, 13):
        assert night.bring(b"".join(lines[:kept])).state in {"refused", "held"}
    assert fingerprint() == before


@each_source
def test_a_byte_order_mark_and_crlf_are_read_over(night: Night, fingerprint: Fingerprint) -> None:
    before = fingerprint()
    report = night.bring(b"\xef\xbb\xbf" + night.text.replace(b"\n", b"\r\n"))
    assert (report.state, report.counts["changed"], report.counts["rejected"]) == (
        "applied",
        0,
        night.bring(night.text, apply=False).counts["rejected"],
    )
    assert fingerprint() == before


@each_source
def test_windows_1252_is_read_as_what_it_is_or_refused(night: Night, fingerprint: Fingerprint) -> None:
    before = fingerprint()
    lettered = night.text.replace(b"FICTI", "FICTÉ".encode(), 1)
    report = night.bring(lettered.decode().encode("cp1252"))
    if night.source in {"finess-json", "trusted-domains"}:
        assert (report.state, report.reason) == ("refused", "truncated")
        assert fingerprint() == before
    else:
        assert report.state == "applied"
        assert (report.counts["recoded"] > 0, report.counts["removed"]) == (not lettered.isascii(), 0)


@each_source
def test_a_line_of_ten_megabytes_is_refused_by_name(night: Night, fingerprint: Fingerprint) -> None:
    before = fingerprint()
    long = b"A" * (10 << 20)
    swollen = {
        "finess-json": re.sub(rb'"nomEgeCourt": "[^"]*"', b'"nomEgeCourt": "%s"' % long, night.text, count=1),
        "trusted-domains": night.text.replace(b"</Description>", long + b"</Description>", 1),
    }.get(night.source, night.text + long)
    report = night.bring(swollen)
    reasons = {report.reason} | {rejection.reason for rejection in report.rejections}
    assert "line-too-long" in reasons
    assert (report.state == "refused") == (night.source not in {"finess-json", "trusted-domains"})
    assert fingerprint() == before


@each_source
def test_a_row_told_twice_is_one(night: Night, fingerprint: Fingerprint) -> None:
    if night.source == "finess-json":
        twice = re.sub(rb"\n(\{.*\}),\n", rb"\n\1,\n\1,\n", night.text, count=1)
    elif night.source == "trusted-domains":
        twice = re.sub(rb"(<Domaine>.*?</Domaine>)", rb"\1\1", night.text, count=1, flags=re.DOTALL)
    else:
        header, first, rest = night.text.split(b"\n", 2)
        twice = b"\n".join([header, first, first, rest])
    assert twice != night.text
    before = fingerprint()
    report = night.bring(twice)
    assert (report.state, report.counts["changed"], report.counts["created"]) == ("applied", 0, 0)
    assert add_up(report)
    assert fingerprint() == before


def swapped(text: bytes, one: int, other: int, delimiter: bytes, *, header: bool) -> bytes:
    """Two cells of each row in each other's place; of the header alone where there is one."""
    lines = text.split(b"\n")
    for number, line in enumerate(lines):
        cells = line.split(delimiter)
        if len(cells) > max(one, other) and header == (number == 0):
            cells[one], cells[other] = cells[other], cells[one]
            lines[number] = delimiter.join(cells)
    return b"\n".join(lines)


@each_source
def test_columns_in_each_others_place_are_refused(night: Night, fingerprint: Fingerprint) -> None:
    told = {
        "rpps": lambda text: swapped(text, 1, 2, b"|", header=True),
        "rpps-psc": lambda text: swapped(text, 2, 16, b"|", header=True),
        "finess": lambda text: swapped(text, 1, 3, b";", header=False),
        "finess-json": lambda text: text.replace(b'"siret"', b'"x"').replace(b'"numFinessEge"', b'"siret"'),
        "mailboxes": lambda text: swapped(text, 0, 1, b"|", header=True),
        "trusted-domains": lambda text: text.replace(b"Nom>", b"x>").replace(
            b"DNCertificatOperateur", b"Nom"
        ),
    }[night.source](night.text)
    before = fingerprint()
    report = night.bring(told)
    assert (report.state, report.reason) == ("refused", "too-many-rejections")
    assert fingerprint() == before


@pytest.mark.parametrize("source_name", ["rpps", "rpps-psc", "finess", "mailboxes"])
def test_another_delimiter_is_refused(source_name: str, night: Night, fingerprint: Fingerprint) -> None:
    own = b";" if source_name == "finess" else b"|"
    before = fingerprint()
    for other in {b"|", b";", b"\t", b","} - {own}:
        report = night.bring(night.text.replace(own, other))
        assert (report.state, report.reason) in {("refused", "missing-column"), ("refused", "missing-header")}
    assert fingerprint() == before


def with_a_bad_row(night: Night) -> tuple[bytes, str]:
    """Tonight's text with one row of an unknown code or a wrong day; the reason it shall have."""
    text = night.text
    if night.source == "finess":
        return text.replace(b"1979-02-13", b"1979-02-31", 1), "bad-date"
    if night.source == "finess-json":
        return text.replace(b"1979-02-13", b"1979-02-31", 1), "bad-date"
    if night.source == "trusted-domains":
        return text.replace(b"2026-03-01T", b"2026-03-51T", 1), "bad-date"
    if night.source == "mailboxes":
        return text.replace(b"\nPER|", b"\nZZZ|", 1), "unknown-mailbox-kind"
    return text.replace(b"\n8|", b"\n9|", 1), "identifier-disagrees"


@each_source
def test_a_wrong_day_or_an_unknown_code_rejects_its_row_alone(night: Night) -> None:
    told, reason = with_a_bad_row(night)
    assert told != night.text
    report = night.bring(told)
    assert report.state == "applied"
    assert reason in {rejection.reason for rejection in report.rejections}
    assert (report.counts["removed"], add_up(report)) == (0, True)


@pytest.mark.parametrize("source_name", ["rpps", "rpps-psc"])
def test_professions_that_nobody_knows_are_not_let_through(night: Night, fingerprint: Fingerprint) -> None:
    before = fingerprint()
    report = night.bring(re.sub(rb"\|(10|60|70|21|40|50|80)\|", rb"|ZZ|", night.text))
    assert report.state in {"held", "refused"}
    assert report.counts["removed"] == 0
    assert fingerprint() == before


def with_a_cell(night: Night, place: int, letters: str, separator: str) -> tuple[bytes, list[str]]:
    """Tonight's text with this in a cell of its first row; the cells of that row."""
    header, first, rest = night.text.decode().split("\n", 2)
    cells = first.split(separator)
    cells[place] = letters
    return "\n".join([header, separator.join(cells), rest]).encode(), cells


QUOTES = ('"', '""', '"X', 'X"', 'D"ESTE "DIT', "'", "\\", "\\N", "\\.", "{}", "%s", "</x>", "é\u2028é", "�")


@pytest.mark.parametrize("letters", QUOTES)
@pytest.mark.parametrize("source_name", ["rpps"])
def test_quotes_and_escapes_in_a_name_are_letters_or_reject_their_row(
    letters: str, night: Night, rows: Rows
) -> None:
    told, cells = with_a_cell(night, 7, f"AUBRE{letters}LUNE", "|")
    report = night.bring(told)
    assert (report.state, report.counts["removed"], add_up(report)) == ("applied", 0, True)
    kept = rows(f"SELECT family_name FROM practitioner WHERE national_id = '{cells[2]}'")
    rejected = {rejection.reason for rejection in report.rejections}
    assert kept == [(cells[7],)] or "control-character" in rejected


@pytest.mark.parametrize("letters", ['"', 'A"B', '"A', 'A"', '"A" B', '""', '"A;B'])
@pytest.mark.parametrize("source_name", ["finess"])
def test_quotes_that_do_not_match_in_finess_shift_no_cell(letters: str, night: Night, rows: Rows) -> None:
    told, cells = with_a_cell(night, 3, letters, ";")
    report = night.bring(told)
    assert (report.state, report.counts["removed"], add_up(report)) == ("applied", 0, True)
    kept = rows(f"SELECT siret FROM organisation WHERE finess = '{cells[1]}'")
    assert kept == [(cells[22],)]


def archive(members: dict[str, bytes], *, link: str = "") -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in members.items():
            packed.writestr(name, data)
        if link:
            info = zipfile.ZipInfo(link)
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            packed.writestr(info, "/etc/passwd")
    return made.getvalue()


def damaged(made: bytes) -> bytes:
    """An archive whose table says that it begins before the file does."""
    end = made.rindex(b"PK\x05\x06")
    return made[: end + 12] + (1 << 20).to_bytes(4, "little") + made[end + 16 :]


@each_source
def test_archives_that_no_register_makes_are_refused(
    night: Night, fingerprint: Fingerprint, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = fingerprint()
    monkeypatch.setattr(source, "RATIO_MATTERS_ABOVE", 1 << 16)
    bomb = night.text + b"\n" * (1 << 20)
    name = "listeblanche.xml" if night.source == "finess-json" else night.name
    cases = {
        "foreign-member": [
            archive({name: night.text, "../../evil.txt": b"x\n"}),
            archive({f"../{name}": night.text}),
            archive({name: night.text}, link="link.txt"),
            archive({name: night.text, "a/b.txt": b"x\n"}),
        ],
        "too-large": [archive({name: bomb}), gzip.compress(bomb)],
        "too-many-members": [archive({f"{number}.txt": b"" for number in range(30)})],
        "damaged-archive": [
            damaged(archive({name: night.text})),
            gzip.compress(night.text)[:-9],
            gzip.compress(night.text) + b"PK\x03\x04more",
        ],
    }
    for reason, files in cases.items():
        for data in files:
            report = night.bring(data)
            # Blank lines are no rows of FINESS: too many of them are found before too large a text.
            assert report.state == "refused"
            assert report.reason == reason or (night.source, reason) == ("finess", "too-large")
    assert fingerprint() == before

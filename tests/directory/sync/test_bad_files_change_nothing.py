"""Cut, forged, swollen or mistaken files: each is refused with its reason, and the record stays as it was."""

import io
import os
import re
import stat
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from directory.base.audit import Actor
from directory.base.db import transaction
from directory.base.errors import Kind, Refusal
from directory.base.locks import try_lock
from directory.identifiers import luhn_key
from directory.sync.formats import files as source
from directory.sync.runs.run import REGISTERS, run_register
from tests.directory.sync.files import (
    ACTIVITIES,
    FINESS,
    KNOW_HOW,
    MAILBOXES,
    TRUSTED,
    VECTORS,
    Rows,
    Run,
    activity,
    header,
    someone,
    zipped,
)
from tests.examples import examples

Fingerprint = Callable[[], object]
ARCHIVE = "PS_LibreAcces_202608260200.zip"
GOOD = (VECTORS / ACTIVITIES).read_bytes()
PAIR = "Identifiant PP|Identification nationale PP"
SWAPPED = "Identification nationale PP|Identifiant PP"


def number(index: int) -> str:
    return f"10099{index:05d}" + luhn_key(f"10099{index:05d}")


def bomb(path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(ACTIVITIES, "w") as member:
        member.write(header().encode())
        for _ in range(20):
            member.write(b"0" * (1 << 20))
    return path


def with_a_link(path: Path) -> Path:
    zipped(path, {ACTIVITIES: GOOD})
    info = zipfile.ZipInfo(KNOW_HOW)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(info, "/etc/passwd")
    return path


def lying_about_its_size(path: Path) -> Path:
    zipped(path, {ACTIVITIES: GOOD * 200})
    data = bytearray(path.read_bytes())
    size = (len(GOOD) * 200).to_bytes(4, "little")
    assert data.count(size) == 2
    path.write_bytes(data.replace(size, (100).to_bytes(4, "little")))
    return path


def with_a_wrong_checksum(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(ACTIVITIES, GOOD)
    path.write_bytes(path.read_bytes().replace(b"ALICE", b"MALIC", 1))
    return path


def with_an_odd_member(path: Path, *, version: int = 20, flags: int = 0) -> Path:
    """Its entry in the table says that another format version, or other features, are needed to read it."""
    zipped(path, {ACTIVITIES: GOOD})
    data = bytearray(path.read_bytes())
    entry = data.index(b"PK\x01\x02")
    data[entry + 6 : entry + 10] = version.to_bytes(2, "little") + flags.to_bytes(2, "little")
    path.write_bytes(data)
    return path


ARCHIVES: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "no member": ("missing-member", lambda path: zipped(path, {})),
    "no required member": ("missing-member", lambda path: zipped(path, {KNOW_HOW: GOOD})),
    "two of one kind": (
        "ambiguous-member",
        lambda path: zipped(path, {ACTIVITIES: GOOD, ACTIVITIES.replace("0200", "0300"): GOOD}),
    ),
    "path upwards": ("foreign-member", lambda path: zipped(path, {ACTIVITIES: GOOD, "../evil.txt": b"x\n"})),
    "absolute path": (
        "foreign-member",
        lambda path: zipped(path, {ACTIVITIES: GOOD, "/etc/evil.txt": b"x\n"}),
    ),
    "program": ("foreign-member", lambda path: zipped(path, {ACTIVITIES: GOOD, "evil.so": b"x\n"})),
    "link": ("foreign-member", with_a_link),
    "bomb": ("too-large", bomb),
    "many members": (
        "too-many-members",
        lambda path: zipped(path, {ACTIVITIES: GOOD} | {f"a{n}.txt": b"" for n in range(30)}),
    ),
    "lying about its size": ("damaged-archive", lying_about_its_size),
    "wrong checksum": ("damaged-archive", with_a_wrong_checksum),
    "of a later format": ("damaged-archive", partial(with_an_odd_member, version=64)),
    "a patch of another archive": ("damaged-archive", partial(with_an_odd_member, flags=1 << 5)),
    "sealed": ("damaged-archive", partial(with_an_odd_member, flags=1 << 6)),
    "archive of an archive": (
        "foreign-member",
        lambda path: zipped(path, {"PS_LibreAcces_Personne_activite.zip": GOOD}),
    ),
}


@pytest.mark.parametrize("case", ARCHIVES)
def test_an_archive_that_no_register_makes_is_refused(
    case: str, tmp_path: Path, run: Run, rows: Rows
) -> None:
    reason, make = ARCHIVES[case]
    report = run("rpps", make(tmp_path / ARCHIVE))
    assert (report.state, report.reason) == ("refused", reason)
    assert rows("SELECT count(*) FROM practitioner") == [(0,)]


def many(count: int, first: int = 1) -> str:
    return header() + "".join(someone(number(n)) for n in range(first, first + count))


TEXTS: dict[str, tuple[str, str]] = {
    "empty": ("empty-file", ""),
    "header alone": ("no-rows", header()),
    "blank line": ("missing-column", "\n"),
    "wrong delimiter": ("missing-column", GOOD.decode().replace("|", ";")),
    "column renamed away": ("missing-column", GOOD.decode().replace("Code mode exercice", "Mode", 1)),
    "column twice": ("ambiguous-column", GOOD.decode().replace("Code civilité|", "Code profession|", 1)),
    "last line cut": ("truncated", GOOD.decode().rstrip("\n|") + "\n"),
    "no end of line, nor of its cells": ("truncated", GOOD.decode().removesuffix("|\n")),
    "endless line": ("line-too-long", header() + "x" * (2 << 20)),
    "cells under wrong headings": (
        "too-many-rejections",
        GOOD.decode().replace(PAIR, SWAPPED, 1),
    ),
    "a row in nine unreadable": (
        "too-many-rejections",
        many(808) + someone("10099000018") * 101,
    ),
    "a web page": ("web-page", "<html><body>502 Bad Gateway</body></html>\n"),
}  # fmt: skip


@pytest.mark.parametrize("case", TEXTS)
def test_a_text_that_is_no_whole_register_is_refused(
    case: str, tmp_path: Path, run: Run, rows: Rows, fingerprint: Fingerprint
) -> None:
    run("rpps", VECTORS / ACTIVITIES)
    before = fingerprint()
    reason, content = TEXTS[case]
    (tmp_path / ACTIVITIES).write_text(content)
    report = run("rpps", tmp_path / ACTIVITIES)
    assert (report.state, report.reason) == ("refused", reason)
    assert report.text
    assert fingerprint() == before
    assert rows("SELECT state, reason FROM register_run ORDER BY id") == [
        ("applied", None),
        ("refused", reason),
    ]
    assert rows("SELECT event, detail ->> 'reason' FROM audit_pending ORDER BY id") == [
        ("register.applied", None),
        ("register.refused", reason),
    ]


@settings(
    max_examples=examples(12), suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(cut=st.integers(0, len(GOOD) - 1))
def test_a_file_cut_anywhere_is_refused_or_holds_whole_rows_only(cut: int, run: Run, rows: Rows) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / ACTIVITIES
        path.write_bytes(GOOD[:cut])
        report = run("rpps", path, apply=False)
    # A last row with all its cells needs no end.
    last = GOOD[:cut].removesuffix(b"\n").rpartition(b"\n")[2]
    all_cells = last.endswith(b"|") and last.count(b"|") == header().count("|")
    whole = GOOD[:cut].removesuffix(b"\n").count(b"\n") > 0 and all_cells
    assert report.state == ("planned" if whole else "refused")
    if not whole:
        assert report.reason in {"empty-file", "truncated", "no-rows", "missing-column"}
    assert rows("SELECT count(*) FROM practitioner") == [(0,)]


@settings(
    max_examples=examples(10), suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(cut=st.integers(0, 10_000))
def test_an_archive_cut_anywhere_is_refused(cut: int, run: Run) -> None:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(ACTIVITIES, GOOD)
    whole = made.getvalue()
    with TemporaryDirectory() as folder:
        path = Path(folder) / ARCHIVE
        path.write_bytes(whole[: cut % len(whole)])
        assert run("rpps", path, apply=False).state == "refused"


SAMPLES = {"rpps": ACTIVITIES, "finess": FINESS, "mailboxes": MAILBOXES, "trusted-domains": TRUSTED}
# Pieces that mean something to one of the readers, between bytes that mean nothing.
PIECES = st.sampled_from(
    [b"|", b";", b'"', b"\n", b"\r", b"\\N", b"\t", b"\0", b"\xe9", b"\xc3", b"<", b">", b"@", b"PK"]
)


@pytest.mark.parametrize("register", SAMPLES)
@settings(
    max_examples=examples(12), suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(junk=st.lists(PIECES | st.binary(max_size=8), max_size=12).map(b"".join), place=st.integers(0, 5000))
def test_whatever_bytes_stand_in_a_file_the_run_ends_in_a_report_that_adds_up(
    register: str, junk: bytes, place: int, run: Run
) -> None:
    good = (VECTORS / SAMPLES[register]).read_bytes()
    place %= len(good) + 1
    with TemporaryDirectory() as folder:
        path = Path(folder) / SAMPLES[register]
        path.write_bytes(good[:place] + junk + good[place:])
        try:
            report = run(register, path)
        except Refusal as refusal:
            # These very bytes wait for somebody already.
            assume(refusal.code != "run-held")
            raise
    counts = report.counts
    assert report.state in {"applied", "held", "refused"}
    if report.state != "refused":
        assert counts["accepted"] + counts["rejected"] + counts["unchanged"] == counts["lines"]


@pytest.mark.parametrize(
    ("register", "sample", "content", "reason"),
    [
        ("finess", FINESS, "structureet;1\n", "missing-header"),
        ("finess", FINESS, "finess;etalab;111;2026-13-45\n", "missing-header"),
        # Shifted to UTC these are instants of years that Python cannot read back.
        (
            "finess",
            FINESS,
            (VECTORS / FINESS).read_text().replace("2026-05-12", "0001-01-01", 1),
            "missing-header",
        ),
        (
            "trusted-domains",
            TRUSTED,
            "<a><DateDeGeneration>9999-12-31T23:59:59-12:00</DateDeGeneration></a>",
            "bad-date",
        ),
        *(
            ("trusted-domains", TRUSTED, f'<?xml version="1.0" encoding="{encoding}"?><a/>', "truncated")
            for encoding in ("utf-7", "hex", "idna", "punycode", "utf-32", "none-such")
        ),
        ("finess", FINESS, "finess;etalab;111;2026-05-12\n", "no-rows"),
        ("finess", FINESS, (VECTORS / FINESS).read_text()[:-60] + "\n", "truncated"),
        ("mailboxes", MAILBOXES, (VECTORS / MAILBOXES).read_text()[:-20], "truncated"),
        ("mailboxes", MAILBOXES, GOOD.decode(), "missing-column"),
        ("trusted-domains", TRUSTED, (VECTORS / TRUSTED).read_text()[:-20], "truncated"),
        ("trusted-domains", TRUSTED, "<ListeBlancheMSSante/>", "no-rows"),
        ("trusted-domains", TRUSTED, "<a>" * 50 + "</a>" * 50, "too-large"),
        (
            "trusted-domains",
            TRUSTED,
            '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]>' + (VECTORS / TRUSTED).read_text(),
            "foreign-member",
        ),
    ],
)
def test_the_other_registers_refuse_what_is_not_theirs(
    register: str,
    sample: str,
    content: str,
    reason: str,
    *,
    tmp_path: Path,
    run: Run,
    fingerprint: Fingerprint,
) -> None:
    run(register, VECTORS / sample)
    before = fingerprint()
    (tmp_path / sample).write_text(content)
    report = run(register, tmp_path / sample)
    assert (report.state, report.reason) == ("refused", reason)
    assert fingerprint() == before


def test_a_file_with_half_the_rows_of_the_last_is_refused(tmp_path: Path, run: Run) -> None:
    (tmp_path / "PS_LibreAcces_Personne_activite_202608260200.txt").write_text(many(60))
    (tmp_path / "PS_LibreAcces_Personne_activite_202608270200.txt").write_text(many(29))
    run("rpps", tmp_path / "PS_LibreAcces_Personne_activite_202608260200.txt")
    assert run("rpps", tmp_path / "PS_LibreAcces_Personne_activite_202608270200.txt").reason == "too-few-rows"


def test_a_file_that_would_remove_a_fifth_is_refused(
    tmp_path: Path, run: Run, fingerprint: Fingerprint
) -> None:
    (tmp_path / "PS_LibreAcces_Personne_activite_202608260200.txt").write_text(many(100))
    (tmp_path / "PS_LibreAcces_Personne_activite_202608270200.txt").write_text(many(79))
    run("rpps", tmp_path / "PS_LibreAcces_Personne_activite_202608260200.txt")
    before = fingerprint()
    report = run("rpps", tmp_path / "PS_LibreAcces_Personne_activite_202608270200.txt")
    assert (report.reason, report.counts["removed"]) == ("too-many-removals", 21)
    assert fingerprint() == before


def test_a_file_older_than_the_last_applied_is_refused(tmp_path: Path, run: Run) -> None:
    (tmp_path / "PS_LibreAcces_Personne_activite_202608270200.txt").write_bytes(GOOD)
    assert run("rpps", tmp_path / "PS_LibreAcces_Personne_activite_202608270200.txt").state == "applied"
    assert run("rpps", VECTORS / ACTIVITIES).reason == "older-than-applied"


def test_a_file_from_the_future_is_refused_and_stands_in_nobodys_way(tmp_path: Path, run: Run) -> None:
    (tmp_path / "PS_LibreAcces_Personne_activite_203608270200.txt").write_bytes(GOOD)
    assert (
        run("rpps", tmp_path / "PS_LibreAcces_Personne_activite_203608270200.txt").reason == "from-the-future"
    )
    assert run("rpps", VECTORS / ACTIVITIES).state == "applied"


def test_a_text_larger_than_any_register_is_refused(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "LARGEST_TEXT", 1000)
    (tmp_path / ACTIVITIES).write_bytes(GOOD)
    assert run("rpps", tmp_path / ACTIVITIES).reason == "too-large"


def test_a_file_larger_than_any_register_is_not_even_read(tmp_path: Path, run: Run) -> None:
    """A file with a hole claims 60 GB and takes none: hashed or copied it would take the night."""
    (tmp_path / ACTIVITIES).touch()
    os.truncate(tmp_path / ACTIVITIES, 60 << 30)
    with pytest.raises(Refusal, match="takes 61440 MB") as caught:
        run("rpps", tmp_path / ACTIVITIES)
    assert caught.value.code == "too-large"


def claiming(path: Path, table: int, entries: int = 1) -> Path:
    """An archive whose end record, in its form of 64 bits, says that its table takes so much."""
    begins = b"PK\x03\x04"
    end = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, entries, entries, table, len(begins))
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, len(begins) + table, 1)
    with path.open("wb") as file:
        file.write(begins)
        file.seek(len(begins) + table)
        most = (1 << 16) - 1, (1 << 32) - 1
        last = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, most[0], most[0], most[1], most[1], 0)
        file.write(end + locator + last)
    return path


def test_an_archive_is_not_read_for_the_table_it_claims(tmp_path: Path) -> None:
    """Two gigabytes that lie in a hole: `zipfile` would read them at once."""
    roles = REGISTERS["rpps"].roles
    with source.register_file(claiming(tmp_path / ARCHIVE, 2 << 30)) as file:
        tracemalloc.start()
        try:
            assert source.written_at(file, roles) == source.stamp_of(tmp_path / ARCHIVE)
            with pytest.raises(Refusal) as caught, source.opened(file, roles):
                pass
            assert tracemalloc.get_traced_memory()[1] < 8 << 20
        finally:
            tracemalloc.stop()
    assert caught.value.code == "too-large"


def test_an_archive_of_very_many_files_is_refused_unlisted(tmp_path: Path, run: Run) -> None:
    entry = struct.pack("<4s4B4HL2L5H2L", b"PK\x01\x02", 20, 3, 20, *[0] * 8, 5, *[0] * 6) + b"a.txt"
    table = entry * 30_000
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 30_000, 30_000, len(table), 30, 0)
    (tmp_path / ARCHIVE).write_bytes(b"PK\x03\x04" + bytes(26) + table + end)
    assert run("rpps", tmp_path / ARCHIVE).reason == "too-large"


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        (
            {"Identifiant PP": "10099000018", "Identification nationale PP": "810099000018"},
            "rpps-check-digit",
        ),
        ({"Identifiant PP": "1009", "Identification nationale PP": "81009"}, "malformed-rpps"),
        ({"Identifiant PP": number(5)}, "identifier-disagrees"),
        ({"Type d'identifiant PP": "0"}, "identifier-disagrees"),
        ({"Identification nationale PP": "99"}, "malformed-national-id"),
        ({"Nom d'exercice": " "}, "no-name"),
        ({"Code profession": ""}, "no-profession"),
        ({"Nom d'exercice": "A\0B"}, "control-character"),
        ({"Nom d'exercice": "A\x1b[2J"}, "control-character"),
        ({"Nom d'exercice": "A|B"}, "wrong-cell-count"),
        ({"Nom d'exercice": "A" * 70_000}, "line-too-long"),
    ],
)
def test_a_row_that_cannot_be_taken_is_kept_with_its_number_and_reason(
    cells: dict[str, str], reason: str, tmp_path: Path, run: Run, rows: Rows
) -> None:
    lines = many(12, first=10).splitlines(keepends=True)
    (tmp_path / ACTIVITIES).write_text("".join([*lines[:5], activity(**cells), *lines[5:]]))
    report = run("rpps", tmp_path / ACTIVITIES)
    assert report.state == "applied"
    assert [(r.line_number, r.reason) for r in report.rejections] == [(6, reason)]
    assert rows("SELECT line_number, reason, length(excerpt) <= 200 FROM register_rejection") == [
        (6, reason, True)
    ]
    assert (report.counts["accepted"], report.counts["rejected"], report.counts["lines"]) == (12, 1, 13)


def test_test_numbers_are_taken_where_the_setting_says_so(tmp_path: Path, run: Run, rows: Rows) -> None:
    (tmp_path / ACTIVITIES).write_text(header() + someone("10003461033"))
    assert run("rpps", tmp_path / ACTIVITIES).reason == "too-many-rejections"
    assert run("rpps", tmp_path / ACTIVITIES, strict_rpps=False).state == "applied"
    assert rows("SELECT national_id FROM practitioner") == [("810003461033",)]


def test_a_known_person_whose_row_cannot_be_read_is_left_alone(
    tmp_path: Path, run: Run, fingerprint: Fingerprint
) -> None:
    (tmp_path / "PS_LibreAcces_Personne_activite_202608260200.txt").write_text(many(12))
    run("rpps", tmp_path / "PS_LibreAcces_Personne_activite_202608260200.txt")
    before = fingerprint()
    spoilt = many(12).replace(someone(number(3)), someone(number(3), **{"Nom d'exercice": "A|B"}))
    (tmp_path / "PS_LibreAcces_Personne_activite_202608270200.txt").write_text(spoilt)
    report = run("rpps", tmp_path / "PS_LibreAcces_Personne_activite_202608270200.txt")
    assert (report.state, report.counts["removed"], report.counts["rejected"]) == ("applied", 0, 1)
    assert fingerprint() == before


UNREADABLE = {
    "cells too many": {"Raison Sociale structure BAL": "A|B|C"},
    "no such kind": {"Type de BAL": "ZZZ"},
}
SPELLINGS = ("X@A.invalid", "x@é.invalid", "x@" + "a" * 60 + "." + "b" * 60 + ".invalid")


@pytest.mark.parametrize("cells", UNREADABLE.values(), ids=UNREADABLE)
@pytest.mark.parametrize("address", SPELLINGS, ids=["upper case", "accents", "long"])
def test_a_known_mailbox_whose_row_cannot_be_read_is_left_alone_however_it_is_spelt(
    address: str, cells: dict[str, str], tmp_path: Path, run: Run, fingerprint: Fingerprint
) -> None:
    stamps = ("202608260213", "202608270213")
    first, second = (tmp_path / f"Extraction_Correspondance_MSSante_{stamp}.txt" for stamp in stamps)
    run("mailboxes", mailboxes(first, mailbox_line(1, address)))
    before = fingerprint()
    report = run("mailboxes", mailboxes(second, mailbox_line(1, address, **cells)))
    assert (report.state, report.counts["removed"], report.counts["rejected"]) == ("applied", 0, 1)
    assert fingerprint() == before


def test_a_right_to_a_domain_whose_entry_cannot_be_read_is_left_alone(
    tmp_path: Path, run: Run, fingerprint: Fingerprint
) -> None:
    start, entry, end = re.split(r"(<Domaine>.*</Domaine>)", (VECTORS / TRUSTED).read_text(), flags=re.DOTALL)
    others = "".join(entry.replace("exemple.mssante", f"d{n}.mssante") for n in range(20))
    accented = entry.replace("exemple.mssante", "émile.mssante")
    (tmp_path / TRUSTED).write_text(start + others + accented + end)
    run("trusted-domains", tmp_path / TRUSTED)
    before = fingerprint()
    spoilt = accented.replace("2025-03-01", "2025-13-01")
    (tmp_path / TRUSTED).write_text(start + others + spoilt + end)
    report = run("trusted-domains", tmp_path / TRUSTED)
    assert [(r.line_number, r.reason) for r in report.rejections] == [(21, "bad-date")]
    assert fingerprint() == before


def mailbox_line(index: int, address: str, **cells: str) -> str:
    lines = (VECTORS / MAILBOXES).read_text().splitlines()
    values = dict(zip(lines[0].split("|"), lines[1].split("|"), strict=True))
    person = {"Identifiant PP": number(index), "Identification nationale PP": f"8{number(index)}"}
    return "|".join((values | {"Adresse BAL": address} | person | cells).values()) + "\n"


def mailboxes(path: Path, *lines: str) -> Path:
    first = (VECTORS / MAILBOXES).read_text().splitlines(keepends=True)[0]
    path.write_text(
        first + "".join(lines) + "".join(mailbox_line(n, f"p{n}@a.invalid") for n in range(20, 60))
    )
    return path


def test_an_address_two_people_claim_goes_to_the_first_and_moves_from_nobody(
    tmp_path: Path, run: Run, rows: Rows
) -> None:
    holder = "SELECT holder FROM mailbox WHERE address = 'x@a.invalid'"
    one, two = mailbox_line(1, "x@a.invalid"), mailbox_line(2, "X@A.invalid")
    report = run(
        "mailboxes", mailboxes(tmp_path / "Extraction_Correspondance_MSSante_202608260213.txt", one, two)
    )
    assert [(r.line_number, r.reason) for r in report.rejections] == [(3, "address-claimed-twice")]
    assert rows(holder) == [(f"8{number(1)}",)]
    run("mailboxes", mailboxes(tmp_path / "Extraction_Correspondance_MSSante_202608270213.txt", two, one))
    assert rows(holder) == [(f"8{number(1)}",)]


def test_lines_of_one_holder_are_one_mailbox_attached_to_each_structure(
    tmp_path: Path, run: Run, rows: Rows
) -> None:
    structure = {"Type identifiant structure": "1", "Identification Structure": "250990033"}
    lines = [
        mailbox_line(1, "x@a.invalid", **structure, **{"Service de rattachement": service})
        for service in ("URGENCES", "CARDIOLOGIE", "URGENCES")
    ]
    day_1 = mailboxes(tmp_path / "Extraction_Correspondance_MSSante_202608260213.txt", *lines)
    assert run("mailboxes", day_1).counts["rejected"] == 0
    assert rows("SELECT service FROM mailbox WHERE address = 'x@a.invalid'") == [("CARDIOLOGIE",)]
    assert rows("SELECT address, service FROM mailbox_attachment") == [("x@a.invalid", "URGENCES")]
    run("mailboxes", mailboxes(tmp_path / "Extraction_Correspondance_MSSante_202608270213.txt", lines[0]))
    assert rows("SELECT service FROM mailbox WHERE address = 'x@a.invalid'") == [("URGENCES",)]
    assert rows("SELECT count(*) FROM mailbox_attachment") == [(0,)]


@pytest.mark.parametrize(
    ("address", "cells", "reason"),
    [
        ("not an address", {}, "malformed-address"),
        ("x@a.invalid", {"Type de BAL": "ZZZ"}, "unknown-mailbox-kind"),
        ("x@a.invalid", {"Type de BAL": "ORG"}, "no-structure"),
        ("x@a.invalid", {"Type Identifiant PP": "0"}, "identifier-disagrees"),
        ("x@a.invalid", {"Identification nationale PP": "810099000018"}, "rpps-check-digit"),
        (
            "x@a.invalid",
            {"Type Identifiant PP": "", "Identifiant PP": "", "Identification nationale PP": ""},
            "no-holder",
        ),
        (
            "x@a.invalid",
            {"Type identifiant structure": "1", "Identification Structure": "250990034"},
            "finess-check-digit",
        ),
    ],
)
def test_a_mailbox_that_makes_no_sense_is_rejected(
    address: str, cells: dict[str, str], reason: str, tmp_path: Path, run: Run
) -> None:
    report = run("mailboxes", mailboxes(tmp_path / MAILBOXES, mailbox_line(1, address, **cells)))
    assert (report.state, [(r.line_number, r.reason) for r in report.rejections]) == (
        "applied",
        [(2, reason)],
    )


def test_another_domain_in_a_mailbox_register_is_never_the_trusted_one(
    tmp_path: Path, run: Run, rows: Rows
) -> None:
    others = (
        "x@mßante.invalid",
        "x@m\u017fsante.invalid",
        "x@mss\u00adante.invalid",
        "x@\uff4dssante.invalid",
    )
    lines = [mailbox_line(n, address) for n, address in enumerate(others, 1)]
    lines.append(mailbox_line(9, "Y@Mssante.invalid."))
    report = run("mailboxes", mailboxes(tmp_path / MAILBOXES, *lines))
    assert [(r.line_number, r.reason) for r in report.rejections] == [
        (line, "malformed-address") for line in (3, 4, 5)
    ]
    assert rows("SELECT address FROM mailbox WHERE domain <> 'a.invalid' ORDER BY address") == [
        ("x@xn--mante-lqa.invalid",),
        ("y@mssante.invalid",),
    ]


def test_two_different_rows_for_one_establishment_are_settled_for_the_first(
    tmp_path: Path, run: Run, rows: Rows
) -> None:
    first, row = (VECTORS / FINESS).read_text().splitlines(keepends=True)
    others = [
        row.replace("250990033", luhn_key_finess(n)).replace("CHI FICTIF", f"SITE {n}") for n in range(20, 40)
    ]
    (tmp_path / FINESS).write_text("".join([first, *others, row, row, row.replace("CHI FICTIF", "AUTRE")]))
    report = run("finess", tmp_path / FINESS)
    assert [r.reason for r in report.rejections] == ["number-claimed-twice"]
    assert rows("SELECT name FROM organisation WHERE finess = '250990033'") == [("CHI FICTIF",)]
    assert report.counts["accepted"] + report.counts["rejected"] == report.counts["lines"] == 23


def luhn_key_finess(index: int) -> str:
    body = f"250{index:05d}"
    return body + luhn_key(body)


def test_no_such_file_and_no_such_register_are_refused_without_a_run(
    tmp_path: Path, run: Run, rows: Rows
) -> None:
    for register, path in (
        ("rpps", tmp_path / "none"),
        ("rpps", tmp_path),
        ("nonsense", VECTORS / ACTIVITIES),
    ):
        with pytest.raises(Refusal) as caught:
            run(register, path)
        assert caught.value.kind is Kind.NOT_FOUND
    assert rows("SELECT count(*) FROM register_run") == [(0,)]


def test_two_runs_of_one_register_at_once_are_refused(engine: Engine, run: Run) -> None:
    with try_lock(engine, "sync:rpps") as free:
        assert free
        with pytest.raises(Refusal) as caught:
            run("rpps", VECTORS / ACTIVITIES)
        assert caught.value.kind is Kind.CONFLICT
    assert run("rpps", VECTORS / ACTIVITIES).state == "applied"


def test_reading_a_file_holds_no_transaction_open(
    engine: Engine, now: object, actor: Actor, tmp_path: Path
) -> None:
    """A run that did would stop every reader of the change feed for as long as it parses."""
    (tmp_path / ACTIVITIES).write_text(many(50))
    seen: list[int] = []

    def look(step: str, _: int) -> None:
        if step == "read":
            with transaction(engine, read_only=True) as connection:
                busy = (
                    "SELECT count(*) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND backend_xid IS NOT NULL"
                )
                seen.append(connection.execute(text(busy)).scalar_one())

    run_register(
        engine, register="rpps", path=tmp_path / ACTIVITIES, now=now, actor=actor, apply=True, progress=look
    )
    assert seen == [0]


def test_a_device_is_refused_instead_of_read_for_ever(engine: Engine, now: datetime, actor: Actor) -> None:
    with pytest.raises(Refusal) as refused:
        run_register(engine, register="rpps", path=Path("/dev/zero"), now=now, actor=actor, apply=False)
    assert refused.value.code == "no-such-file"

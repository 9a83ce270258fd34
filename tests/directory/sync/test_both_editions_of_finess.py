"""The daily JSON of FINESS tells the same places as the frozen CSV, and its first night changes nobody."""

import gzip
import json
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from directory.sync.formats import files as source
from directory.sync.formats import finess_json
from directory.sync.formats.files import opened, register_file
from directory.sync.formats.finess import ROLES
from tests.directory.sync.files import Rows, Run
from tests.examples import examples

DAILY = "finess-structures-journalier-20260901.json.gz"
COLUMNS = (
    "finess, legal_finess, siret, name, long_name, category_code, category_label, street, postal_line,"
    " commune, department, telephone, opened_on, closed_on, row_hash, departed_at"
)
ORGANISATIONS = f"SELECT {COLUMNS} FROM organisation ORDER BY finess"


def site(finess: str = "250000015", **more: Any) -> dict[str, Any]:
    """An establishment as the sample of the national agency shapes them."""
    about = {"egeId": "799", "nomEgeCourt": "CLINIQUE FICTIVE", "nomEgeLong": "CLINIQUE FICTIVE DU DOUBS",
             "numFinessEge": finess, "dateOuverture": "1956-11-16", "siret": "99900000300015"}  # fmt: skip
    place = {"usageAdresse": "03", "numeroVoie": "62", "typeVoie": "AV  ", "libelleVoie": "DES TILLEULS",
             "cogCommune": "25056", "ligneAcheminement": "BESANCON", "codePostal": "25000"}  # fmt: skip
    made = {
        "informationsGeneralesEGE": about,
        "categorieentiteGeographiqueExercice": "365",
        "adresse": [place],
        "contact": [{"telecom": {}}, {"telecom": {"telephone": "0300000000"}}],
        "etatObjet": "A",
        "dateDerniereMaj": "2021-10-18 00:00:00",
    }
    for name, value in more.items():
        (about if name in {*about, "dateFermeture"} else place if name in place else made)[name] = value
    return made


def entity(*sites: Any) -> dict[str, Any]:
    return {"informationsGeneralesPMEJ": {"numFinessPm": "250000007"}, "ege": list(sites)}


def edition(*entities: Any, **more: Any) -> dict[str, Any]:
    return {
        "schemaVersion": "v1.0.0",
        "generatedAt": "2026-09-01T02:49:37.615611300Z",
        "gcc": [{"gccId": "1", "pmejDuGcc": [{}, []]}],
        "pmej": list(entities),
    } | more


def packed(folder: Path, content: Any, name: str = DAILY) -> Path:
    text = content if isinstance(content, bytes) else json.dumps(content, ensure_ascii=False).encode()
    (folder / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    return folder / name


def test_the_first_json_night_after_the_csv_changes_nobody(
    tmp_path: Path, maker: ModuleType, run: Run, rows: Rows
) -> None:
    plan = {"practitioners": 0, "organisations": 210, "mailboxes": 0, "seed": 3}
    frozen = maker.make(tmp_path / "a", maker.Plan(**plan))["finess"]
    daily = maker.make(tmp_path / "b", maker.Plan(**plan, next_day=True, finess_json=True))["finess"]
    assert run("finess", frozen).counts["created"] == 210
    before = rows(ORGANISATIONS)
    report = run("finess", daily)
    assert (report.state, report.layout) == ("applied", "finess-json-1.0.0")
    assert (report.counts["unchanged"], report.counts["lines"], report.counts["ignored"]) == (210, 210, 4)
    assert rows(ORGANISATIONS) == before


def test_both_editions_make_the_same_rows_but_for_the_names_of_categories(
    tmp_path: Path, maker: ModuleType, run: Run, rows: Rows
) -> None:
    plan = {"practitioners": 0, "organisations": 160, "mailboxes": 0, "seed": 3}
    daily = maker.make(tmp_path / "b", maker.Plan(**plan, finess_json=True))["finess"]
    frozen = maker.make(tmp_path / "a", maker.Plan(**plan, next_day=True))["finess"]
    run("finess", daily)
    before = rows(ORGANISATIONS)
    assert run("finess", frozen).counts["unchanged"] == 160
    assert rows(ORGANISATIONS) == before
    assert {row[6] for row in before} == {""}
    rows_of_csv = {row[1:3] for row in rows("SELECT 0, name, street FROM organisation")}
    assert ("CHU FICTIF DE BESANCON", "2 FG SAINT ETIENNE") in rows_of_csv


def test_a_category_keeps_the_name_that_the_record_knows(
    tmp_path: Path, maker: ModuleType, run: Run, rows: Rows
) -> None:
    plan = {"practitioners": 0, "organisations": 20, "mailboxes": 0, "seed": 3}
    run("finess", maker.make(tmp_path / "a", maker.Plan(**plan))["finess"])
    known = maker.make(tmp_path / "b", maker.Plan(**plan, next_day=True, finess_json=True))["finess"]
    told = json.loads(gzip.decompress(known.read_bytes()))
    told["pmej"][0]["ege"][0]["informationsGeneralesEGE"]["nomEgeLong"] = "RENAMED"
    told["pmej"].append(entity(site(categorieentiteGeographiqueExercice="355")))
    assert run("finess", packed(tmp_path, told)).counts["changed"] == 1
    assert rows("SELECT DISTINCT category_code, category_label FROM organisation ORDER BY 1") == [
        ("355", "Centre Hospitalier (C.H.)"),
        ("500", "EHPAD"),
    ]


def test_an_establishment_is_read_to_its_last_cell(tmp_path: Path, run: Run, rows: Rows) -> None:
    report = run("finess", packed(tmp_path, edition(entity(site()))))
    assert report.state == "applied"
    assert str(report.generated_at) == "2026-09-01 02:49:37.615611+00:00"
    told = rows(ORGANISATIONS.replace("opened_on, closed_on", "opened_on::text, closed_on::text"))
    assert [row[:-2] for row in told] == [
        ("250000015", "250000007", "99900000300015", "CLINIQUE FICTIVE", "CLINIQUE FICTIVE DU DOUBS", "365",
         "", "62 AV DES TILLEULS", "25000 BESANCON", "25056", "25", "0300000000", "1956-11-16", None)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("more", "stands"),
    [
        ({"dateFermeture": "2026-08-30"}, ("2026-08-30", False)),
        ({"dateFermeture": "2026-10-01"}, ("2026-10-01", False)),
        ({"etatObjet": "I", "dateDerniereMaj": "2026-08-29 10:00:00"}, ("2026-08-29", False)),
        ({"etatObjet": {"code": "I"}, "dateFermeture": "2026-08-30 00:00:00"}, ("2026-08-30", False)),
        ({"etatObjet": {"code": "A", "system": "TRE_R386"}}, (None, False)),
        ({"etatObjet": "I", "dateFermeture": "1993-01-01"}, (None, True)),
    ],
)
def test_a_closed_establishment_has_its_day_and_departs_a_year_later(
    more: dict[str, Any], stands: tuple[str | None, bool], tmp_path: Path, run: Run, rows: Rows
) -> None:
    keeper = site("250000023")
    run("finess", packed(tmp_path, edition(entity(site(), keeper), generatedAt="2026-08-31T02:00:00Z")))
    report = run("finess", packed(tmp_path, edition(entity(site(**more), keeper))))
    assert report.state == "applied"
    assert rows(
        "SELECT closed_on::text, departed_at IS NOT NULL FROM organisation WHERE finess = '250000015'"
    ) == [stands]


def test_the_order_of_keys_and_the_shape_of_spaces_do_not_matter(tmp_path: Path, run: Run) -> None:
    run("finess", packed(tmp_path, edition(entity(site()), generatedAt="2026-08-31T02:00:00Z")))
    turned = json.loads(json.dumps(edition(entity(site()))), object_pairs_hook=lambda p: dict(reversed(p)))
    assert next(iter(turned)) == "pmej"
    text = b"\xef\xbb\xbf" + json.dumps(turned, indent=3).replace("\n", "\r\n").encode()
    report = run("finess", packed(tmp_path, text))
    assert (report.state, report.counts["unchanged"]) == ("applied", 1)


REJECTED: dict[str, tuple[str, Any]] = {
    "no name": ("no-name", site(nomEgeCourt="  ")),
    "no number": ("malformed-finess", site("")),
    "a number with a wrong key": ("finess-check-digit", site("250000016")),
    "a day that is none": ("bad-date", site(dateOuverture="1956-13-45")),
    "closed on no day": ("bad-date", site(dateFermeture="19/03/2019")),
    "closed nobody knows when": ("bad-date", site(etatObjet="I", dateDerniereMaj="")),
    "a character of control": ("control-character", site(nomEgeCourt="A\0B")),
    "half a character": ("control-character", site(nomEgeCourt="A\ud800B")),
    "a number that is half a character": ("malformed-finess", site("\ud800")),
    "a text where a thing should be": ("malformed-finess", "CLINIQUE"),
    "nothing": ("malformed-finess", None),
    "a list": ("malformed-finess", [1, [2]]),
    "things where texts should be": ("malformed-finess", site([], nomEgeCourt={"code": {"code": 1}})),
}


@pytest.mark.parametrize("case", REJECTED)
def test_an_establishment_that_cannot_be_taken_is_rejected_and_takes_nothing_away(
    case: str, tmp_path: Path, run: Run, rows: Rows
) -> None:
    reason, bad = REJECTED[case]
    others = [site(finess) for finess in numbers(12)]
    run("finess", packed(tmp_path, edition(entity(site(), *others), generatedAt="2026-08-31T02:00:00Z")))
    text = json.dumps(edition(entity(*others, bad))).encode()
    report = run("finess", packed(tmp_path, text))
    assert (report.state, [r.reason for r in report.rejections]) == ("applied", [reason])
    counts = report.counts
    assert (counts["lines"], counts["unchanged"], counts["rejected"]) == (13, 12, 1)
    if isinstance(bad, dict) and bad["informationsGeneralesEGE"]["numFinessEge"] == "250000015":
        assert rows("SELECT departed_at FROM organisation WHERE finess = '250000015'") == [(None,)]


def numbers(count: int) -> list[str]:
    """Luhn-valid FINESS numbers of invented places."""
    found = []
    for serial in range(99_000, 99_000 + 10 * count):
        number = f"25{serial:07d}"
        doubled = [int(d) * (2 if place % 2 else 1) for place, d in enumerate(reversed(number))]
        if sum(sum(divmod(value, 10)) for value in doubled) % 10 == 0:
            found.append(number)
    return found[:count]


WHOLE = json.dumps(edition(entity(site()), entity(site("250000023"))), ensure_ascii=False, indent=1).encode()
FILES: dict[str, tuple[str, bytes]] = {
    "empty object": ("missing-header", b"{}"),
    "no entity": ("no-rows", json.dumps(edition()).encode()),
    "entities without establishments": ("no-rows", json.dumps(edition(entity(), {}, 3, None)).encode()),
    "another edition": ("missing-header", WHOLE.replace(b"v1.0.0", b"v2.0.0")),
    "no edition": ("missing-header", WHOLE.replace(b"schemaVersion", b"schemaVersiom")),
    "made nobody knows when": ("missing-header", WHOLE.replace(b"generatedAt", b"generatedOn")),
    "made on no day": ("missing-header", WHOLE.replace(b"2026-09-01T02", b"2026-19-01T02")),
    "made in no zone": ("missing-header", WHOLE.replace(b"300Z", b"300")),
    "more after the end": ("truncated", WHOLE + b"{}"),
    "a comma too many": ("truncated", WHOLE[:-3] + b",]}"),
    "not UTF-8": ("truncated", WHOLE.replace(b"CLINIQUE", b"CLINIQU\xe9")),
    "single quotes": ("truncated", WHOLE.replace(b'"pmej"', b"'pmej'")),
    "a list": ("missing-header", b"[]"),
    "deep": ("too-large", WHOLE.replace(b'"ege": [', b'"ege": [' + b"[" * 100_000, 1)),
    "a web page": ("web-page", b"<html>{}</html>\n"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_text_that_is_no_whole_edition_is_refused(
    case: str, tmp_path: Path, run: Run, fingerprint: Callable[[], object]
) -> None:
    run("finess", packed(tmp_path, edition(entity(site()), generatedAt="2026-08-31T02:00:00Z")))
    before = fingerprint()
    reason, text = FILES[case]
    report = run("finess", packed(tmp_path, text))
    assert (report.state, report.reason) == ("refused", reason)
    assert fingerprint() == before


@settings(
    max_examples=examples(12), suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(cut=st.integers(0, len(WHOLE) - 1))
def test_an_edition_cut_anywhere_is_refused_and_removes_nobody(cut: int, run: Run) -> None:
    with TemporaryDirectory() as folder:
        report = run("finess", packed(Path(folder), WHOLE[:cut], DAILY.removesuffix(".gz")), apply=False)
    assert report.state == "refused"
    assert report.reason in {"empty-file", "truncated", "missing-header", "no-rows"}


@settings(
    max_examples=examples(10), suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(cut=st.integers(0, 10_000))
def test_a_gzip_cut_anywhere_is_refused(cut: int, run: Run) -> None:
    whole = gzip.compress(WHOLE)
    with TemporaryDirectory() as folder:
        path = Path(folder) / DAILY
        path.write_bytes(whole[: cut % len(whole)])
        assert run("finess", path, apply=False).state == "refused"


@pytest.mark.parametrize("size", [1, 7, 100])
def test_wherever_a_block_ends_the_same_is_read(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    monkeypatch.setattr(source, "BLOCK", size)
    text = WHOLE.replace(b"CLINIQUE", "CLINIQUE É €".encode()).replace(b'"A"', b'"A", "n": 12.5e3')
    report = run("finess", packed(tmp_path, text))
    assert (report.state, report.counts["lines"]) == ("applied", 2)


def test_a_gzip_bomb_is_stopped_before_it_is_unpacked(tmp_path: Path, run: Run) -> None:
    path = tmp_path / DAILY
    with gzip.open(path, "wb") as text:
        text.write(WHOLE[:-2] + b',"x":"')
        for _ in range(64):
            text.write(b"0" * (1 << 20))
    tracemalloc.start()
    report = run("finess", path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (report.state, report.reason) == ("refused", "too-large")
    assert peak < 100 << 20


def test_an_entity_larger_than_any_is_refused(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finess_json, "LARGEST_ELEMENT", 1000)
    monkeypatch.setattr(source, "BLOCK", 500)
    report = run("finess", packed(tmp_path, edition(entity(*map(site, numbers(9))))))
    assert (report.state, report.reason) == ("refused", "too-large")


def test_what_gzip_holds_is_known_by_the_name_without_gz(tmp_path: Path) -> None:
    with register_file(packed(tmp_path, edition())) as file, opened(file, ROLES) as members:
        name = members["structures"].name
    assert re.fullmatch(ROLES["structures"], name)

"""The samples of each register, in each of the shapes they come in, become exactly these rows."""

from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from tests.directory.sync.files import (
    ACTIVITIES,
    DIPLOMAS,
    FINESS,
    KNOW_HOW,
    MAILBOXES,
    TRUSTED,
    VECTORS,
    Rows,
    Run,
    activity,
    header,
    zipped,
)

PEOPLE = (
    "SELECT national_id, title, civility, family_name, given_name, search_name FROM practitioner ORDER BY 1"
)
PRACTICES = (
    "SELECT national_id, mode, sector, finess, legal_finess, siret, structure_id, structure_name, street,"
    " postal_code, town, department, registered_by FROM practice ORDER BY 1, 2 DESC"
)
THREE = [
    ("0012990016", "", "M", "MODELE", "BRUNO", "MODELE BRUNO"),
    ("810099000019", "DR", "MME", "EXEMPLE", "ALICE", "EXEMPLE ALICE"),
    ("810099000027", "", "MME", "ÉCHANTILLON-DÉMO", "ZOË", "ECHANTILLON DEMO ZOE"),
]


def test_activities_make_people_their_professions_skills_and_practices(run: Run, rows: Rows) -> None:
    report = run("rpps", VECTORS / ACTIVITIES)
    assert (report.state, report.layout) == ("applied", "rpps-56")
    assert report.generated_at == datetime(2026, 8, 26, 0, 0, tzinfo=UTC)  # 02:00 in Paris
    assert rows(PEOPLE) == THREE
    assert rows(PRACTICES) == [
        ("0012990016", "S", "SA42", "", "", "99900002900010", "C99900002900010", "AUDIO FICTIF", "", "01000",
         "BOURG EN BRESSE", "01", "ARS/Variable/Variable"),
        ("810099000019", "S", "SA01", "250990033", "750990012", "99900001100018", "F250990033", "CHI FICTIF",
         "2 Faubourg SAINT ETIENNE", "25304", "Pontarlier", "25", "CNOM/CNOM/ARS"),
        ("810099000019", "L", "SA07", "", "", "", "R10100000999999", "", "", "25000", "BESANCON", "25",
         "CNOM/CNOM/CNOM"),
    ]  # fmt: skip
    assert rows("SELECT national_id, code, category FROM profession ORDER BY 1") == [
        ("0012990016", "26", "C"),
        ("810099000019", "10", "C"),
        ("810099000027", "10", "E"),
    ]
    assert rows("SELECT national_id, skill_type, skill_code FROM skill") == [("810099000019", "S", "SM53")]


def without_last_columns(text: str, count: int) -> str:
    return "".join("|".join(line.split("|")[: -count - 1]) + "|\n" for line in text.splitlines())


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda text: text.encode("cp1252"), id="windows-1252"),
        pytest.param(lambda text: b"\xef\xbb\xbf" + text.encode(), id="byte order mark"),
        pytest.param(lambda text: text.replace("\n", "\r\n").encode(), id="CRLF"),
        pytest.param(lambda text: text.replace("|\n", "\n").encode(), id="no trailing pipe"),
        pytest.param(lambda text: text.replace("|\n", "\n", 1).encode(), id="header without trailing pipe"),
        pytest.param(lambda text: without_last_columns(text, 4).encode(), id="52 columns"),
        pytest.param(
            lambda text: text.replace("(coord. structure)", "(coord. Structure)").encode(), id="case"
        ),
        pytest.param(
            lambda text: (
                text.replace("Code Département (structure)", "Code département (coord. structure)", 1)
                .replace(
                    "Code rôle|Libellé rôle|Code genre activité", "Code fonction|x|Code genre d'activité", 1
                )
                .encode()
            ),
            id="drifted headings",
        ),
    ],
)
def test_the_same_people_come_out_of_each_generation_of_the_file(
    spoil: object, tmp_path: Path, run: Run, rows: Rows
) -> None:
    assert callable(spoil)
    (tmp_path / ACTIVITIES).write_bytes(spoil((VECTORS / ACTIVITIES).read_text()))
    assert run("rpps", tmp_path / ACTIVITIES).state == "applied"
    assert rows(PEOPLE) == THREE
    assert rows("SELECT count(*) FROM practice") == [(3,)]


def test_lines_that_are_not_utf8_are_counted_and_spoil_no_other_line(
    tmp_path: Path, run: Run, rows: Rows
) -> None:
    text = (VECTORS / ACTIVITIES).read_bytes()
    (tmp_path / ACTIVITIES).write_bytes(text.replace(b"CHI FICTIF", b"H\xd4PITAL FICTIF", 1))
    report = run("rpps", tmp_path / ACTIVITIES)
    assert report.counts["recoded"] == 1
    assert rows(PEOPLE) == THREE
    assert ("HÔPITAL FICTIF",) in rows("SELECT structure_name FROM practice")


def test_columns_in_another_order_are_found_by_their_headings(tmp_path: Path, run: Run, rows: Rows) -> None:
    lines = [line.removesuffix("|").split("|") for line in (VECTORS / ACTIVITIES).read_text().splitlines()]
    width = len(lines[0])
    swapped = ["|".join([*reversed([*line, *[""] * width][:width])]) + "|\n" for line in lines]
    (tmp_path / ACTIVITIES).write_text("".join(swapped))
    run("rpps", tmp_path / ACTIVITIES)
    assert rows(PEOPLE) == THREE


def test_the_order_and_repetition_of_lines_change_nobody(tmp_path: Path, run: Run) -> None:
    run("rpps", VECTORS / ACTIVITIES)
    first, *lines = (VECTORS / ACTIVITIES).read_text().splitlines(keepends=True)
    again = tmp_path / ACTIVITIES
    again.write_text("".join([first, *reversed(lines), *lines]))
    counts = run("rpps", again).counts
    assert (counts["lines"], counts["unchanged"], counts["changed"]) == (8, 8, 0)


def test_the_archive_adds_know_how_and_ignores_diplomas(tmp_path: Path, run: Run, rows: Rows) -> None:
    members = {name: (VECTORS / name).read_bytes() for name in (ACTIVITIES, KNOW_HOW, DIPLOMAS)}
    charles = {
        "Identifiant PP": "10099000035",
        "Identification nationale PP": "810099000035",
        "Nom d'exercice": "DUPONT-TEST",
        "Prénom d'exercice": "CHARLES",
        "Code type savoir-faire": "",
        "Code savoir-faire": "",
    }
    members[ACTIVITIES] += activity(**charles).encode()
    report = run("rpps", zipped(tmp_path / "PS_LibreAcces_202608260200.zip", members))
    assert report.state == "applied"
    assert (report.counts["lines"], report.counts["accepted"], report.counts["ignored"]) == (6, 6, 1)
    assert rows("SELECT skill_code FROM skill WHERE national_id = '810099000035'") == [("SM04",)]


def test_know_how_of_somebody_without_activity_makes_nobody(tmp_path: Path, run: Run, rows: Rows) -> None:
    lines = "".join(activity(**{"Numéro Voie (coord. structure)": str(n)}) for n in range(20))
    members = {ACTIVITIES: (header() + lines).encode(), KNOW_HOW: (VECTORS / KNOW_HOW).read_bytes()}
    report = run("rpps", zipped(tmp_path / "PS_LibreAcces_202608260200.zip", members))
    assert [(r.line_number, r.reason) for r in report.rejections] == [(2, "know-how-without-activity")]
    assert rows("SELECT national_id FROM practitioner") == [("810099000019",)]


def test_a_person_with_a_name_for_each_profession_is_shown_under_the_first_in_order(
    tmp_path: Path, run: Run, rows: Rows
) -> None:
    other = activity(**{"Nom d'exercice": "ABRICOT", "Code profession": "40"})
    (tmp_path / ACTIVITIES).write_text(header() + activity() + other)
    run("rpps", tmp_path / ACTIVITIES)
    assert rows("SELECT family_name FROM practitioner") == [("ABRICOT",)]
    assert rows("SELECT code FROM profession ORDER BY 1") == [("10",), ("40",)]


def test_dirt_of_the_real_file_is_taken_as_it_stands(tmp_path: Path, run: Run, rows: Rows) -> None:
    dirty = {
        "Nom d'exercice": 'EXEMPLE "DIT" L\'AUTRE\\N',
        "Prénom d'exercice": r"\N",
        "Code postal (coord. structure)": "GL",
        "Numéro Voie (coord. structure)": "P",
        "Code commune (coord. structure)": "",
        "Code pays (coord. structure)": "99132",
        "Raison sociale site": "A\tB\\tC",
    }
    (tmp_path / ACTIVITIES).write_text(header() + activity(**dirty))
    assert run("rpps", tmp_path / ACTIVITIES).state == "applied"
    assert rows("SELECT family_name, given_name FROM practitioner") == [('EXEMPLE "DIT" L\'AUTRE\\N', "\\N")]
    practice = "SELECT postal_code, street, country, structure_name, department FROM practice"
    assert rows(practice) == [("GL", "P Faubourg SAINT ETIENNE", "99132", "A B\\tC", "")]


def test_mailboxes_know_their_holder_or_their_establishment(run: Run, rows: Rows) -> None:
    report = run("mailboxes", VECTORS / MAILBOXES)
    assert (report.state, report.layout, report.counts["created"]) == ("applied", "mailboxes-31", 3)
    sql = "SELECT address, kind, holder, finess, service, paperless, listed FROM mailbox ORDER BY 1"
    assert rows(sql) == [
        ("a.exemple@chi-fictif.mssante.invalid", "PER", "810099000019", "250990033", "URGENCES", False, True),
        ("alice.exemple@medecin.exemple.mssante.invalid", "PER", "810099000019", "", "", True, True),
        ("urgences@chi-fictif.mssante.invalid", "ORG", None, "250990033", "URGENCES", False, True),
    ]


@pytest.mark.parametrize(
    ("spelling", "meaning"),
    [("O", True), ("oui", True), ("true", True), ("1", True), ("N", False), ("NON", False), ("0", False),
     ("False", False), ("", None), ("peut-être", None)],
)  # fmt: skip
def test_paperless_is_read_in_each_spelling(
    spelling: str, *, meaning: bool | None, tmp_path: Path, run: Run, rows: Rows
) -> None:
    first, line, *_ = (VECTORS / MAILBOXES).read_text().splitlines(keepends=True)
    (tmp_path / MAILBOXES).write_text(first + line.replace("|O|", f"|{spelling}|"))
    run("mailboxes", tmp_path / MAILBOXES)
    assert rows("SELECT paperless FROM mailbox") == [(meaning,)]


def test_establishments_come_with_their_edition(run: Run, rows: Rows) -> None:
    report = run("finess", VECTORS / FINESS)
    assert (report.state, report.layout) == ("applied", "finess-111")
    sql = "SELECT finess, legal_finess, siret, name, category_code, street, commune, opened_on"
    assert rows(f"{sql} FROM organisation") == [
        ("250990033", "750990012", "99900001100018", "CHI FICTIF", "355", "2 FG SAINT ETIENNE", "25462",
         date(1979, 2, 13))
    ]  # fmt: skip


def test_an_edition_without_a_stamp_in_its_name_is_dated_by_its_first_line(tmp_path: Path, run: Run) -> None:
    (tmp_path / "finess.csv").write_bytes((VECTORS / FINESS).read_bytes())
    assert run("finess", tmp_path / "finess.csv").generated_at == datetime(2026, 5, 11, 22, tzinfo=UTC)


def test_quotes_in_an_establishment_s_row_hold_the_separator(tmp_path: Path, run: Run, rows: Rows) -> None:
    text = (VECTORS / FINESS).read_text().replace(";CHI FICTIF;", ';"CHI ""FICTIF""; SITE NORD";')
    text += "geolocalisation;250990033;1.0;2.0;x;2026-01-01\n"
    (tmp_path / FINESS).write_text(text)
    report = run("finess", tmp_path / FINESS)
    assert (report.counts["lines"], report.counts["ignored"]) == (1, 1)
    assert rows("SELECT name FROM organisation") == [('CHI "FICTIF"; SITE NORD',)]


def test_trusted_domains_come_under_their_operators(run: Run, rows: Rows) -> None:
    report = run("trusted-domains", VECTORS / TRUSTED)
    assert report.generated_at == datetime(2025, 3, 13, 14, 54, 10, tzinfo=UTC)
    sql = "SELECT d.name, o.name, d.updated_at FROM trusted_domain d JOIN operator o ON o.id = d.operator_id"
    when = datetime(2025, 3, 1, 8, tzinfo=UTC)
    assert rows(sql) == [("exemple.mssante.invalid", "OPERATEUR FICTIF", when)]


def test_a_domain_may_stand_under_two_operators_and_in_unicode(tmp_path: Path, run: Run, rows: Rows) -> None:
    text = (VECTORS / TRUSTED).read_text()
    entry = text[text.index("<Domaine>") : text.index("</ListeDomaines>")]
    second = entry.replace("O=OPERATEUR FICTIF", r"O=AUTRE\, ET FILS").replace(
        "exemple.mssante", "Santé.mssante"
    )
    third = second.replace("<Nom>Santé.mssante", "<Nom>exemple.mssante")
    (tmp_path / TRUSTED).write_text(text.replace("</ListeDomaines>", second + third + "</ListeDomaines>"))
    run("trusted-domains", tmp_path / TRUSTED)
    sql = "SELECT d.name, o.name FROM trusted_domain d JOIN operator o ON o.id = d.operator_id ORDER BY 1, 2"
    assert rows(sql) == [
        ("exemple.mssante.invalid", "AUTRE, ET FILS"),
        ("exemple.mssante.invalid", "OPERATEUR FICTIF"),
        ("xn--sant-epa.mssante.invalid", "AUTRE, ET FILS"),
    ]

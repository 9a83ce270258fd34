"""What anybody may read of the nights: figures in words, alarms, a chart, and nobody's name."""

import re
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from flask import Flask
from sqlalchemy import Engine, text

from api.app import create_app
from api.pages.register_chart import BAND, chart
from api.wiring import Container
from api.words import registers as words
from api.words.figures import age
from directory.base.db import transaction
from directory.sync.runs import history
from directory.sync.runs.bounds import load_bounds
from directory.sync.runs.history import RunState
from tests.api.conftest import Caller
from tests.api.runs import FINDING, seed_rejection, seed_run
from tests.factories import seed_token
from tests.statements import heard

ROOT = Path(__file__).resolve().parents[3]


def plain(page: str) -> str:
    """The text of a page, spaces made ordinary."""
    return " ".join(re.sub(r"<[^>]+>", " ", page).replace("\u00a0", " ").replace("\u202f", " ").split())


def test_the_state_of_each_register_is_a_sentence_in_both_languages(
    anybody: Caller, engine: Engine, now: datetime
) -> None:
    seed_run(engine, "rpps", now - timedelta(hours=10))
    told = plain(anybody.get("/registers").text)
    assert (
        "Données du 1er septembre 2026 à 4 h 00 , il y a 10 h . Data of 2026-09-01 02:00 UTC, 10 h ago."
        in told
    )
    assert "Professionnels (RPPS) Professionals (RPPS) à jour · fresh" in told
    assert told.count("jamais lu · never read") == 3
    assert "En retard" not in told


def test_a_late_register_raises_the_alarm_on_top_of_the_page(
    anybody: Caller, engine: Engine, now: datetime
) -> None:
    seed_run(engine, "finess", now - timedelta(hours=49))
    told = plain(anybody.get("/registers").text)
    assert "En retard · Late : Établissements (FINESS) (il y a 49 h)." in told
    assert "Au-delà de 48 h : l'alarme est donnée." in told


def test_a_held_run_is_shown_with_what_it_needs_and_why_in_sentences(
    anybody: Caller, engine: Engine, now: datetime
) -> None:
    before = seed_run(engine, "rpps", now - timedelta(days=1), lines=2250000)
    held = seed_run(engine, "rpps", now - timedelta(hours=3), state="held", needed=2, findings=[FINDING])
    overview = anybody.get("/registers")
    assert f"Le passage {held} est retenu : rien n'a changé, il faut l'accord de deux personnes." in plain(
        overview.text
    )
    told = plain(anybody.get(f"/registers/runs/{held}").text)
    assert "Rien n'a changé : 0 accord sur 2." in told
    assert "1,2 % des professionnels quitteraient le registre. Seuil : 0,5 %." in told
    assert FINDING["sentence"] in told
    assert "2 250 000" in told
    assert f'href="/registers/runs/{before}"' in anybody.get(f"/registers/runs/{held}").text


def test_a_refused_run_says_why_and_what_could_not_be_read(
    anybody: Caller, engine: Engine, now: datetime
) -> None:
    run = seed_run(engine, "rpps", now, state="refused", reason="truncated")
    for line in (2, 3):
        seed_rejection(engine, run, line)
    told = plain(anybody.get(f"/registers/runs/{run}").text)
    assert "Le fichier a été coupé. The file was cut. truncated Rien n'a changé." in told
    assert "clé du numéro RPPS fausse RPPS number fails its check digit rpps-check-digit 2" in told


def test_no_page_shows_a_file_s_name_a_line_of_it_or_who_agreed(
    anybody: Caller, engine: Engine, now: datetime
) -> None:
    run = seed_run(engine, "rpps", now - timedelta(hours=3), state="held", needed=2, findings=[FINDING])
    seed_rejection(engine, run, 2, excerpt="8|1|SECRETNAME")
    token = seed_token(engine, "Dr-Nommé", role="admin")
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO register_approval VALUES (:run, :token, 'SECRETCOMMENT', :at)"),
            {"run": run, "token": token, "at": now},
        )
    for path in ("/registers", f"/registers/runs/{run}"):
        page = anybody.get(path)
        assert page.status_code == 200
        assert re.search(r"SECRET|Dr-Nommé|file\.txt|told so", page.text) is None
    assert "1 accord sur 2" in plain(page.text)


def test_the_chart_is_whole_xml_says_what_it_shows_and_asks_for_nothing(
    anybody: Caller, engine: Engine, now: datetime
) -> None:
    for day in range(100, 0, -1):
        state = {7: "refused", 3: "held", 50: "planned"}.get(day, "applied")
        seed_run(engine, "rpps", now - timedelta(days=day), state=state, needed=int(state == "held"),
                 reason="truncated" if state == "refused" else None, created=day)  # fmt: skip
    page = anybody.get("/registers")
    assert page.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert re.search(r"<script|style=|(?:src|href)=\"(?:https?:)?//", page.text) is None
    (drawn,) = re.findall(r"<svg class=\"bars\".*?</svg>", page.text, re.DOTALL)
    root = ET.fromstring(drawn)
    assert root.find("title").text == "Professionnels (RPPS) : 90 derniers passages"  # type: ignore[union-attr]
    assert "1 refusé. 1 retenu." in root.find("desc").text  # type: ignore[union-attr, operator]
    columns = root.findall("rect")
    assert [float(one.get("x", "")) for one in columns] == list(range(90))
    assert "retenu" in columns[-3].find("title").text  # type: ignore[union-attr, operator]


def test_a_first_load_flattens_no_other_night(engine: Engine, now: datetime) -> None:
    for day in range(20, 0, -1):
        seed_run(engine, "rpps", now - timedelta(days=day), created=1950000 if day == 20 else 300 + day)
    with transaction(engine) as connection:
        made = chart(history.runs(connection, register="rpps", limit=90))
    created = made.bands[0]
    heights = [float(one) for one in re.findall(r"v-([0-9.]+)h", created.path)]
    assert (created.highest, created.cut, heights[0]) == (1950000, True, BAND)
    assert min(heights[1:]) > BAND / 3
    assert max(heights[1:]) < BAND
    assert not made.bands[1].cut


def test_a_plan_made_by_hand_is_no_night(engine: Engine, anybody: Caller, now: datetime) -> None:
    run = seed_run(engine, "rpps", now, state="planned")
    assert f"/registers/runs/{run}" not in anybody.get("/registers").text
    assert anybody.get(f"/registers/runs/{run}").status_code == 200


@pytest.mark.parametrize("path", ["/registers/runs/1", f"/registers/runs/{2**70}", "/registers/runs/x"])
def test_a_run_that_never_was_is_not_found(path: str, anybody: Caller) -> None:
    assert anybody.get(path).status_code == 404


def test_however_many_look_the_record_is_asked_once_in_five_seconds(
    container: Container, engine: Engine, now: datetime
) -> None:
    clock = [now]
    client = create_app(replace(container, clock=lambda: clock[0])).test_client()
    asked: list[str] = []
    with heard(engine, asked.append):
        client.get("/registers")
        once = len(asked)
        for _ in range(5):
            client.get("/registers")
        assert len(asked) == once
        clock[0] += timedelta(seconds=5)
        client.get("/registers")
    assert len(asked) == 2 * once


def test_a_run_that_is_over_is_counted_once_in_ten_minutes_and_one_that_waits_is_not(
    container: Container, engine: Engine, now: datetime
) -> None:
    clock = [now]
    client = create_app(replace(container, clock=lambda: clock[0])).test_client()
    over = seed_run(engine, "rpps", now, state="refused", reason="truncated")
    waits = seed_run(engine, "rpps", now, state="held", needed=1)
    pages = [f"/registers/runs/{run}" for run in (over, waits)]
    before = [client.get(page).text for page in pages]
    clock[0] += timedelta(minutes=9)
    for run in (over, waits):
        seed_rejection(engine, run, 2)
    after = [client.get(page).text for page in pages]
    assert (after[0] == before[0], after[1] == before[1]) == (True, False)


def test_pages_may_be_kept_only_to_be_asked_about_again(app: Flask) -> None:
    assert app.test_client().get("/registers").headers["Cache-Control"] == "no-cache"


def test_every_bound_has_its_sentence_in_french() -> None:
    """When this fails: add the bound's sentence to `_FINDINGS` in api/words/registers.py."""
    bounds = [(register, bound.name) for register, all_of in load_bounds().items() for bound in all_of.bounds]
    assert len(bounds) > 20
    assert [one for one in bounds if not words.has_words_for(*one)] == []


def test_every_state_and_every_documented_reason_has_words_in_both_languages() -> None:
    """When this fails: add the reason to api/words/registers.py."""
    assert set(words.STATE_WORDS) == set(RunState)
    page = (ROOT / "docs/reference/registers.md").read_text()
    of_files, of_rows = (
        page.partition(heading)[2].partition("\n## ")[0]
        for heading in ("## Reasons a whole file is refused", "## Reasons a row is rejected")
    )
    codes = {
        code
        for line in of_files.splitlines()
        if line.startswith("| `")
        for code in re.findall(r"`([a-z-]+)`", line.split("|")[1])
    }
    assert len(codes) > 10
    assert {code for code in codes if words.refusal_words("rpps", code).fr == code} == set()
    reasons = {
        code
        for line in of_rows.splitlines()
        if line.startswith("| `")
        for code in re.findall(r"`([a-z-]+)`", line.split("|")[1])
    } - set(history.REGISTERS)
    assert len(reasons) > 10
    assert {code for code in reasons if words.row_reason_words(code).fr == code} == set()


@pytest.mark.parametrize(
    ("time", "fr", "en"),
    [
        (timedelta(seconds=-5), "il y a 0 min", "0 min ago"),
        (timedelta(minutes=59), "il y a 59 min", "59 min ago"),
        (timedelta(hours=48), "il y a 48 h", "48 h ago"),
        (timedelta(hours=72), "il y a 3 jours", "3 days ago"),
    ],
)
def test_ages_are_told_in_the_unit_people_think_in(time: timedelta, fr: str, en: str) -> None:
    said = age(time)
    assert (said.fr.replace("\u00a0", " "), said.en) == (fr, en)


@pytest.mark.parametrize(
    ("value", "written"),
    [(0.0123, "1,2 %"), (0.02, "2 %"), (0.0004, "0,04 %"), (0.00001, "0,001 %"), (1.5, "150 %")],
)
def test_shares_have_as_many_digits_as_they_need(value: float, written: str) -> None:
    assert words.share(value).replace("\u00a0", " ") == written


def test_a_register_of_a_day_to_come_is_said_to_be_ahead() -> None:
    hours = timedelta(hours=4, minutes=10)
    assert (age(hours).en, age(-hours).en) == ("4 h ago", "in 4 h")
    assert age(-hours).fr.startswith("dans 4")
    # A clock that is a little behind is none.
    assert age(-timedelta(seconds=30)).en == "0 min ago"

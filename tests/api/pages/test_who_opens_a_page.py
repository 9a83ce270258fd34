"""Whoever opens a page finds the others, on a telephone too, and reads it in French or in English."""

from datetime import datetime, timedelta

import pytest
from sqlalchemy import Engine

from tests.api.conftest import Caller
from tests.api.pages.test_register_pages import plain
from tests.api.runs import seed_run

PAGES = ("/docs", "/registers", "/expiring", "/problems")


@pytest.mark.parametrize("path", PAGES)
def test_every_page_leads_to_the_others_and_says_which_it_is(path: str, anybody: Caller) -> None:
    page = anybody.get(path).text
    assert [one for one in PAGES if f'<a href="{one}"' not in page] == []
    assert page.count('aria-current="page"') == 1
    assert f'<a href="{path}" aria-current="page">' in page


def test_the_contents_of_the_reference_are_a_menu_in_both_languages(anybody: Caller) -> None:
    page = anybody.get("/docs").text
    assert '<a class="menu" href="#menu">' in page
    contents = plain(page.partition('<nav id="menu"')[2].partition("</nav>")[0])
    assert "Destinataires Recipients Vérifier un destinataire Check one recipient" in contents


def test_nothing_that_ends_is_offered_where_nothing_ends(anybody: Caller) -> None:
    told = plain(anybody.get("/expiring").text)
    assert "No certificate ends within 60 days without a successor." in told
    assert "Which ones" not in told


def test_the_legend_of_the_nights_is_in_both_languages(
    anybody: Caller, engine: Engine, now: datetime
) -> None:
    run = seed_run(engine, "rpps", now - timedelta(hours=10), ignored=7)
    assert "refusé refused , retenu held , interrompu cut off ." in plain(anybody.get("/registers").text)
    assert "lignes laissées de côté lines left aside 7" in plain(anybody.get(f"/registers/runs/{run}").text)

"""A night beyond the bounds: it waits, a page says why, two named persons let it go on, and it does."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.stories.installation.conftest import Installation, within

ROOT = Path(__file__).resolve().parents[3]
MAKER = str(ROOT / "scripts" / "make_registers.py")


@pytest.fixture
def many_new_places(installation: Installation, tmp_path: Path) -> Path:
    """Today's establishments, and 300 that nobody heard of: harmless to other tests, beyond every bound."""
    (today,) = (installation.state / "registers").glob("etalab-cs1100502-stock-*.csv")
    stamp = today.stem.split("-")[3]
    day = f"{stamp[:4]}-{stamp[4:6]}-{stamp[6:]}"
    command = (sys.executable, MAKER, str(tmp_path), "--practitioners", "2000", "--organisations", "500",
               "--mailboxes", "1500", "--seed", "1", "--day", day)  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    return tmp_path / today.name


def headers(installation: Installation, name: str) -> dict[str, str]:
    made = installation.ask("token", "create", name, "--role", "admin")
    return {"Authorization": f"Bearer {made['secret']}"}


def page(installation: Installation, path: str) -> str:
    answer = requests.get(installation.web + path, timeout=10)
    assert answer.status_code == 200
    return answer.text


def told(installation: Installation) -> dict[str, Any]:
    items = installation.get("/v1/registers").json()["items"]
    return next(dict(one) for one in items if one["register"] == "finess")


def test_a_held_night_goes_on_once_two_persons_agreed_over_rest(
    installation: Installation, many_new_places: Path
) -> None:
    run = installation.ask("sync", "run", "finess", str(many_new_places), "--apply")
    assert (run["state"], run["approvals_needed"]) == ("held", 2)
    # What waits no longer needs the file where it lay.
    many_new_places.unlink()
    before = told(installation)
    assert before["held"]["id"] == run["run"]
    # The page may be five seconds old.
    within(30, lambda: f"/registers/runs/{run['run']}" in page(installation, "/registers"))
    report = page(installation, f"/registers/runs/{run['run']}")
    assert "Seuils dépassés" in report
    assert "0 accord sur 2" in report
    metrics = 'sceau_register_held{register="finess"} 1.0'
    within(30, lambda: metrics in page(installation, "/metrics"))

    path = f"{installation.web}/v1/registers/runs/{run['run']}/approvals"
    for number, name in enumerate(("first of two", "second of two"), 1):
        given = requests.post(
            path, json={"comment": "300 new places"}, headers=headers(installation, name), timeout=10
        )
        assert (given.status_code, given.json()["approvals"]) == (201, number)
        if number == 1:
            assert told(installation)["held"]["id"] == run["run"]

    within(60, lambda: told(installation)["last"]["id"] == run["run"])
    after = told(installation)
    assert (after["held"], after["last"]["counts"]["created"]) == (None, 300)
    within(30, lambda: "appliqué" in page(installation, f"/registers/runs/{run['run']}"))
    header = installation.get("/v1/practitioners", name="a").headers["Sceau-Registers"]
    assert f"finess={after['generated_at']}" in header
    shown = installation.sceau("sync", "show", str(run["run"])).stdout
    assert "second of two" in shown
    assert installation.ask("audit", "verify")["findings"] == []

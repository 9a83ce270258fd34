"""A flood of revocations: LDAP is loaded whole, or, where that fails, written entry by entry all the same."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from api.jobs import ldap as ldap_job
from api.jobs.ldap import LOADED_WITHIN
from api.wiring import Container
from directory.base.db import transaction
from directory.base.errors import Kind, Refusal
from directory.feed.readers import horizon, save_cursor
from directory.ldap.publish import CONSUMER as PUBLISHER
from directory.ldap.publish import PublishReport
from directory.ldap.rebuild import RebuildReport
from pki.withdrawal.reconcile import CONSUMER


@dataclass
class Flooded:
    """A publisher with 30 entries to write that would rather have them loaded, as long as it may say so."""

    floods: int | None = None
    fills: int | None = None
    left: int = 30
    renews: bool = False

    def publish_once(self, now: datetime) -> PublishReport:
        del now
        if self.left and (self.floods is not None or self.fills is not None or self.renews):
            flooded = self.fills is None and not self.renews
            return PublishReport(changes=self.left, whole=True, flooded=flooded)
        written, self.left = min(self.left, 20), max(0, self.left - 20)
        return PublishReport(changes=written, modified=written, more=self.left > 0)


@pytest.fixture
def flooded(monkeypatch: pytest.MonkeyPatch) -> Flooded:
    made = Flooded()
    monkeypatch.setattr(ldap_job, "publisher_of", lambda _: made)
    return made


def refused(*_: Any) -> Any:
    raise Refusal(Kind.UNAVAILABLE, "slapd-does-not-stop", "no")


def test_where_the_tree_cannot_be_loaded_every_entry_is_written(
    container: Container, flooded: Flooded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ldap_job, "rebuild", refused)
    assert ldap_job.publish(container) == "30 entries written"
    assert flooded.left == 0


def test_a_tree_of_a_former_form_that_cannot_be_loaded_is_followed_all_the_same(
    container: Container, flooded: Flooded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ldap_job, "rebuild", refused)
    flooded.renews = True
    assert ldap_job.publish(container) == "30 entries written"
    assert not flooded.renews


def test_a_tree_that_is_missing_whole_is_not_written_by_hand(
    container: Container, flooded: Flooded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ldap_job, "rebuild", refused)
    flooded.fills = 10
    with pytest.raises(Refusal, match="no"):
        ldap_job.publish(container)
    assert flooded.left == 30


def test_a_server_that_is_not_ours_is_never_loaded(container: Container, flooded: Flooded) -> None:
    elsewhere = replace(container, settings=replace(container.settings, ldap_url="ldaps://elsewhere"))
    assert ldap_job.publish(elsewhere) == "30 entries written"
    assert flooded.floods is None


def test_a_tree_is_loaded_when_trust_has_been_withdrawn_or_that_takes_too_long(
    container: Container, flooded: Flooded, engine: Engine, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = RebuildReport(entries=3, seconds_loading=1.0, seconds_away=0.1)
    monkeypatch.setattr(ldap_job, "rebuild", lambda *_: loaded)
    change = text("INSERT INTO change (entity, key, urgent) VALUES ('practitioner', 'x', true) RETURNING at")
    with transaction(engine) as connection:
        for reader in (CONSUMER, PUBLISHER):
            save_cursor(connection, reader, horizon(connection), now)
        at = connection.execute(change).scalar_one()
    early, late = (
        replace(container, clock=lambda at=at + timedelta(seconds=LOADED_WITHIN + more): at)
        for more in (-1, 1)
    )
    assert ldap_job.publish(early) == ""
    # Those who withdraw trust get on, and always have something before them: LDAP has waited all the same.
    with transaction(engine) as connection:
        save_cursor(connection, CONSUMER, horizon(connection), now)
    with transaction(engine) as connection:
        connection.execute(change)
    assert ldap_job.publish(late) == "3 entries loaded"
    # A tree that is missing is loaded at once.
    flooded.fills = 10
    assert ldap_job.publish(early) == "3 entries loaded"
    flooded.fills = None
    with transaction(engine) as connection:
        save_cursor(connection, CONSUMER, horizon(connection), now)
    assert ldap_job.publish(early) == "3 entries loaded"
    assert flooded.left == 30

"""What we write in the white list's format our own reader takes in again, to the same rows."""

from datetime import timedelta
from pathlib import Path

from defusedxml.ElementTree import fromstring
from sqlalchemy import Engine, text

from directory.base.audit import Actor
from directory.base.db import transaction
from directory.sync.runs.run import run_register
from pki.publication import trust_list
from tests.conftest import NOON
from tests.directory.sync.files import TRUSTED, VECTORS

ACTOR = Actor("test:someone")


def test_the_reader_of_the_national_list_finds_nothing_changed(engine: Engine, tmp_path: Path) -> None:
    run_register(
        engine, register="trusted-domains", path=VECTORS / TRUSTED, now=NOON, actor=ACTOR, apply=True,
        strict_rpps=True,
    )  # fmt: skip
    with transaction(engine) as connection:
        connection.execute(text("UPDATE trusted_domain SET description = 'A <b> & « c »', row_hash = ''"))
        content = trust_list.compose(connection, None)
    made = tmp_path / TRUSTED
    made.write_bytes(trust_list.as_xml(content, NOON + timedelta(hours=1)))
    rows = text(
        "SELECT d.name, o.certificate_dn, o.name, d.description, d.updated_at, d.departed_at"
        " FROM trusted_domain d JOIN operator o ON o.id = d.operator_id ORDER BY 1, 2"
    )
    with transaction(engine) as connection:
        before = connection.execute(rows).all()
    assert before
    report = run_register(
        engine, register="trusted-domains", path=made, now=NOON + timedelta(hours=2), actor=ACTOR, apply=True,
        strict_rpps=True,
    )  # fmt: skip
    assert (report.state, report.generated_at) == ("applied", NOON + timedelta(hours=1))
    with transaction(engine) as connection:
        assert connection.execute(rows).all() == before


def test_elements_stand_in_the_order_of_the_official_sample(engine: Engine) -> None:
    run_register(
        engine, register="trusted-domains", path=VECTORS / TRUSTED, now=NOON, actor=ACTOR, apply=True,
        strict_rpps=True,
    )  # fmt: skip
    with transaction(engine) as connection:
        made = fromstring(trust_list.as_xml(trust_list.compose(connection, None), NOON))
    sample = fromstring((VECTORS / TRUSTED).read_bytes())
    ours, theirs = ([[one.tag for one in entry] for entry in root[1]] for root in (made, sample))
    assert (made.tag, [one.tag for one in made]) == (sample.tag, [one.tag for one in sample])
    assert ours == theirs

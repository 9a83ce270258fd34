"""A thousand domains pass from one operator to another in a day: the night goes on, and nobody is cut off."""

from datetime import datetime
from pathlib import Path

from sqlalchemy import Engine, text

from directory.base.db import transaction
from directory.rules import visible
from directory.store import mailbox_facts
from tests.directory.sync.files import Rows, Run
from tests.factories import seed_practitioner

DOMAINS, MOVED = 4500, 1000
OPERATOR = "CN=op{}.example,O=OPERATOR {},C=FR"


def white_list(path: Path, day: int, moved: int) -> Path:
    """All domains, of which the first `moved` are of the second operator."""
    entries = "".join(
        f"<Domaine><Nom>d{number}.example</Nom><Description>x</Description><DNCertificatOperateur>"
        f"{OPERATOR.format(*(2 * [2 if number < moved else 1]))}</DNCertificatOperateur>"
        f"<DateMAJ>2026-08-{day:02}T08:00:00Z</DateMAJ></Domaine>"
        for number in range(DOMAINS)
    )
    file = path / f"{day}" / "listeblanchemssante.xml"
    file.parent.mkdir()
    file.write_text(
        '<ListeBlancheMSSante xmlns="https://listeblanche.mssante.fr/schema">'
        f"<DateDeGeneration>2026-08-{day:02}T14:54:10Z</DateDeGeneration>"
        f"<ListeDomaines>{entries}</ListeDomaines></ListeBlancheMSSante>"
    )
    return file


def test_a_move_of_a_thousand_needs_nobody_and_at_no_instant_is_a_domain_without_trust(
    tmp_path: Path, run: Run, rows: Rows, *, engine: Engine, now: datetime
) -> None:
    assert run("trusted-domains", white_list(tmp_path, 20, 0)).state == "applied"
    addresses = [
        seed_practitioner(engine, n, address=f"a@d{n * 10}.example", operator=OPERATOR.format(1, 1)).mailbox
        for n in range(1, 100)
    ]
    told = rows("SELECT max(id) FROM change")[0][0]
    report = run("trusted-domains", white_list(tmp_path, 21, MOVED))
    assert (report.state, report.approvals_needed) == ("applied", 0), report.findings
    # 1. The record of now: all of it moved, nothing else did.
    assert rows(
        "SELECT o.name, count(*) FROM trusted_domain d JOIN operator o ON o.id = d.operator_id"
        " WHERE d.departed_at IS NULL GROUP BY 1 ORDER BY 1"
    ) == [("OPERATOR 1", DOMAINS - MOVED), ("OPERATOR 2", MOVED)]
    # 2. The record of then: before, at and after each instant at which anything changed.
    trusted = rows("""
        WITH changed AS (
            SELECT sys_from AS at FROM trusted_domain
            UNION SELECT sys_from FROM trusted_domain_history UNION SELECT sys_to FROM trusted_domain_history
        ), asked AS (
            SELECT at + step AS at FROM changed, unnest(ARRAY[interval '0', interval '1 microsecond',
                                                              interval '-1 microsecond']) AS step
            WHERE at + step >= (SELECT min(at) FROM changed)
        )
        SELECT DISTINCT (SELECT count(DISTINCT d.name) FROM trusted_domain_at(asked.at) d
                         WHERE d.departed_at IS NULL AND d.name LIKE 'd%') FROM asked
    """)
    assert trusted == [(DOMAINS,)]
    # 3. What feed and LDAP are told of: each such mailbox shows, whenever a reader looks.
    (when,) = rows("SELECT max(sys_from) FROM trusted_domain")[0]
    fed = rows(f"SELECT DISTINCT key FROM change WHERE entity = 'mailbox' AND id > {told}")
    assert {key for (key,) in fed} == set(addresses)
    assert isinstance(when, datetime)
    with transaction(engine, read_only=True) as connection:
        before = connection.execute(text("SELECT max(sys_from) FROM practitioner")).scalar_one()
        for at in (None, before, when):
            facts = mailbox_facts(connection, addresses, at)
            assert all(visible(known, now) for known in facts.values()), at

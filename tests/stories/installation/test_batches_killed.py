"""kill -9 in the middle of a batch: sent again, each key has one certificate and none is unaccounted for."""

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson
import psutil
import psycopg
import pytest
import requests
from sqlalchemy import text

from api.embedded.postgres import EmbeddedPostgres
from directory import access
from directory.base.db import connect_engine, transaction
from pki.issuance import batch
from pki.model import Enrolment
from pki.registration import enrolment
from pki.signing.process import JOURNAL
from tests.factories import seed_practitioner
from tests.stories.installation.conftest import Installation, within
from tests.stories.installation.test_kills import csr, green

# Three parts, two of them at a time: while the first is stored, the last is not begun.
SIZE = 600
FAR_FROM_THE_DEMO = 60_000
_STORED = "SELECT count(*) FROM batch_item JOIN certificate USING (serial)"
_IN_FORCE = """
    SELECT r.enrolment_id, count(*) FROM reservation r JOIN certificate c USING (serial)
    WHERE r.enrolment_id = ANY(%s) AND NOT EXISTS (SELECT FROM revocation v WHERE v.serial = c.serial)
    GROUP BY r.enrolment_id
"""


def record_of(installation: Installation) -> EmbeddedPostgres:
    return EmbeddedPostgres(installation.state / "postgres")


def enrolled(installation: Installation) -> list[UUID]:
    """As many people as the batch is large, each asked for by one registrar and approved by the other."""
    now = datetime.now(UTC)
    engine = connect_engine(record_of(installation).url)
    try:
        with engine.connect() as connection:
            rows = connection.execute(
                text("SELECT name, id, expires_at FROM api_token WHERE authority = 'CNOM'")
            )
            tokens = {
                name: access.Token(number, name, access.Role.REGISTRAR, "CNOM", expires)
                for name, number, expires in rows
            }
        checked = {"method": "in-person", "document": "CPS", "checked_on": now.date()}
        people = [seed_practitioner(engine, FAR_FROM_THE_DEMO + number) for number in range(SIZE)]
        with transaction(engine) as connection:
            ids = [
                enrolment.request_enrolment(
                    connection, now=now, token=tokens["registrar_a"], practitioner=one.national_id,
                    mailbox=one.mailbox, identity_check=checked,
                ).id
                for one in people
            ]  # fmt: skip
        with transaction(engine) as connection:
            results = batch.approve_all(connection, now=now, token=tokens["registrar_b"], enrolment_ids=ids)
        assert all(isinstance(one, Enrolment) for one in results.values())
    finally:
        engine.dispose()
    return ids


def sent(installation: Installation, body: Any) -> requests.Response | None:
    """The answer to the batch, None when whoever was to give it is gone."""
    with suppress(requests.ConnectionError):
        return installation.post("/v1/batches", "registrar_a", body)
    return None


def processes_of(installation: Installation, part: str) -> list[psutil.Process]:
    """The part and all that it started: each leads a session of its own."""
    leader = int(installation.ask("status")["parts"][part]["pid"])
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            if os.getsid(process.pid) == leader:
                found.append(process)
    return found


def signed(installation: Installation) -> set[str]:
    (journal,) = installation.state.rglob(JOURNAL)
    lines = map(orjson.loads, journal.read_bytes().splitlines())
    return {line["serial"] for line in lines if "serial" in line}


@pytest.mark.parametrize("part", ["web", "signer"])
@pytest.mark.long
def test_a_batch_cut_off_by_a_kill_is_finished_by_sending_it_again(copied: Installation, part: str) -> None:
    ids = enrolled(copied)
    body = {"items": [{"enrolment": str(one), "csr": csr()} for one in ids]}
    doomed, info = processes_of(copied, part), record_of(copied).conninfo
    with ThreadPoolExecutor(1) as pool, psycopg.connect(info, autocommit=True) as link:

        def number_stored() -> int:
            return int(link.execute(_STORED).fetchone()[0])  # type: ignore[index]

        # 1. Cut off while some are stored; the last part waits for one enrolment, and so cannot have ended.
        with psycopg.connect(info) as holding:
            holding.execute("SELECT FROM enrolment WHERE id = %s FOR UPDATE", [ids[-1]])
            first = pool.submit(sent, copied, body)
            within(30, lambda: number_stored() > 0)
            for process in doomed:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            assert number_stored() < SIZE
        cut = first.result()
        if part == "web":
            assert cut is None
        within(30, lambda: green(copied))
        # 2. The very same again, by a colleague, whose quota is whole: all of it.
        answer = copied.post("/v1/batches", "registrar_b", body)
        assert answer.status_code == 201, answer.text
        items = answer.json()["items"]
        assert [item["enrolment"] for item in items] == [str(one) for one in ids]
        assert {item["state"] for item in items} == {"issued"}
        # 3. One certificate in force for each, and nothing signed that the record does not know.
        assert dict(link.execute(_IN_FORCE, [ids]).fetchall()) == dict.fromkeys(ids, 1)
        known = {str(serial) for (serial,) in link.execute("SELECT serial FROM certificate")}
        assert signed(copied) <= known
        assert link.execute("SELECT count(*) FROM batch").fetchone() == (1,)
    assert copied.ask("audit", "verify")["findings"] == []

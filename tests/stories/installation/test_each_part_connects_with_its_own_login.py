"""In a running installation each part is in the record with its own login, which is none of a superuser."""

import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from alembic import command
from psycopg.conninfo import make_conninfo
from sqlalchemy import Connection, text

from api.embedded.postgres import EmbeddedPostgres
from api.settings import DATABASE_PARTS
from directory.base import rights
from directory.base.db import connect_engine
from directory.base.unix_sockets import postgres_password
from tests.ports import free_port
from tests.repo.test_migrations import config
from tests.stories.installation.conftest import Installation, keep_owners, run, within

# Whose session is whose, by the name that each gives; the supervisor's and ours are the owner's.
LOGINS = {
    "sceau-web": "sceau_web", "sceau-readiness": "sceau_web", "sceau-status-listener": "sceau_web",
    "sceau-worker": "sceau_worker", "sceau-log": "sceau_log", "sceau-signer": "sceau_signer",
    "sceau-ldap-gate": "sceau_gate",
}  # fmt: skip
OWNERS = {"sceau-up", "sceau-supervisor", "", "sceau-migrate"}


def sessions(installation: Installation) -> dict[str, set[str]]:
    cluster = EmbeddedPostgres(installation.state / "postgres")
    found: dict[str, set[str]] = {}
    with psycopg.connect(cluster.conninfo) as link:
        for name, login in link.execute(
            "SELECT application_name, usename FROM pg_stat_activity WHERE datname = 'sceau'"
        ):
            found.setdefault(name, set()).add(login)
    return found


def test_each_part_has_the_rights_of_its_own_work(installation: Installation) -> None:
    def asked() -> bool:
        assert installation.get("/v1/registers").status_code == 200
        run(*installation.ldapsearch, "(mail=nobody@one.example)", check=False)
        return set(LOGINS) <= set(sessions(installation))

    within(60, asked)
    found = sessions(installation)
    assert {name: found[name] for name in LOGINS} == {name: {login} for name, login in LOGINS.items()}
    as_owner = {name for name, logins in found.items() if "sceau" in logins}
    assert as_owner <= OWNERS
    assert {"sceau_worker", "sceau"} >= found.get("", set())


def test_whatever_it_did_so_far_no_right_was_lacking(installation: Installation) -> None:
    """The demo has read registers, enrolled, issued, revoked, published and answered by then."""
    logs = sorted((installation.state / "log").glob("*.log"))
    assert "worker.log" in {log.name for log in logs}
    lacking = re.compile("permission denied for|must be owner of|InsufficientPrivilege")
    assert [line for log in logs for line in log.read_text().splitlines() if lacking.search(line)] == []
    failed = [name for name, job in installation.ask("status")["jobs"].items() if job["last_error"]]
    assert failed == []


def test_no_part_is_more_than_its_role(installation: Installation) -> None:
    cluster = EmbeddedPostgres(installation.state / "postgres")
    query = """
        SELECT rolname FROM pg_roles WHERE rolname LIKE 'sceau\\_%%'
        AND (rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls
             OR EXISTS (SELECT FROM pg_auth_members WHERE member = pg_roles.oid))
    """
    with psycopg.connect(cluster.conninfo) as link:
        assert link.execute(query.replace("%%", "%")).fetchall() == []


def test_each_has_a_password_that_only_we_read(installation: Installation) -> None:
    files = [postgres_password(installation.state / "postgres", part) for part in ("", *DATABASE_PARTS)]
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    assert len({file.read_text() for file in files}) == len(files)


def as_release_0_3_0_left_it(state: Path) -> dict[str, int]:
    """Its schema, one superuser for all, nobody asked for a password; gives how many rows tables had."""
    cluster, made = EmbeddedPostgres(state / "postgres"), config()
    with served(cluster):
        engine = connect_engine(cluster.url)
        with engine.connect() as connection:
            made.attributes["connection"] = connection
            command.downgrade(made, "0043")
            connection.commit()
            for role in rights.roles():
                connection.execute(text(f"DROP OWNED BY {role}"))
                connection.execute(text(f"DROP ROLE {role}"))
            connection.execute(text("ALTER ROLE sceau PASSWORD NULL"))
            connection.commit()
            rows = rows_of(connection)
        engine.dispose()
    (cluster.data / "pg_hba.conf").write_text("local all all trust\nlocal replication all trust\n")
    for part in ("", *DATABASE_PARTS):
        postgres_password(cluster.folder, part).unlink()
    return rows


def rows_of(connection: Connection) -> dict[str, int]:
    return {
        table: connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()
        for table in ("certificate", "revocation", "enrolment", "api_token", "practitioner", "audit_entry")
    }


@contextmanager
def served(cluster: EmbeddedPostgres) -> Iterator[None]:
    with subprocess.Popen(cluster.command(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            cluster.wait_ready()
            yield
        finally:
            process.send_signal(signal.SIGINT)


@pytest.mark.waits
def test_a_state_folder_of_0_3_0_is_taken_over_and_loses_nothing(passable: Path, stopped: Path) -> None:
    ports = (free_port(), free_port(), free_port())
    old = Installation(passable / f"of-0-3-0-{ports[0]}", ports)
    shutil.copytree(stopped, old.state, symlinks=True)
    keep_owners(stopped, old.state)
    before = as_release_0_3_0_left_it(old.state)
    old.up()
    try:
        assert sessions(old)["sceau-signer"] == {"sceau_signer"}
        engine = connect_engine(EmbeddedPostgres(old.state / "postgres").url)
        with engine.connect() as connection:
            after = rows_of(connection)
        engine.dispose()
        assert before["certificate"] > 0
        assert {table for table, count in before.items() if after[table] < count} == set()
        assert old.ask("audit", "verify")["intact"] is True
        within(60, lambda: old.ask("status")["parts"]["worker"]["state"] == "ok")
        open_to_all = make_conninfo(
            host=str(EmbeddedPostgres(old.state / "postgres").socket_folder),
            user="sceau",
            passfile="/dev/null",
        )
        with pytest.raises(psycopg.OperationalError, match="no password supplied"):
            psycopg.connect(open_to_all)
    finally:
        old.sceau("down", check=False)
        shutil.rmtree(old.state)

"""Whoever holds the connection of one part does that part's work and no more: PostgreSQL refuses the rest.

Each line says whose connection, what is tried, and what refuses: the role's rights (42501), or a guard of the
record that holds for its owner too. What is not refused here is said in docs/how-to/database-roles.md.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from sqlalchemy import Engine, text

from api.embedded.postgres import EmbeddedPostgres
from directory.base import rights
from directory.base.db import libpq
from tests.conftest import NOON, fresh_engine
from tests.factories import seed_practitioner, seed_token
from tests.status_ca import StatusCa

WORD = "of a test"
RIGHTS, GUARD = "42501", "23001"
EVERYBODY = tuple(rights.parts())
READERS = ("signer", "log", "gate", "auditor")
BUT_WEB, BUT_WORKER, BUT_LOG = (
    tuple(part for part in EVERYBODY if part != one) for one in ("web", "worker", "log")
)


@dataclass(frozen=True)
class Attempt:
    """What is tried by whom; `state` is the SQLSTATE of the refusal."""

    what: str
    statement: str
    by: tuple[str, ...] = EVERYBODY
    state: str = RIGHTS


ATTEMPTS = (
    # The server behind the database.
    Attempt("read a file of the server", "SELECT pg_read_file('postgresql.conf')"),
    Attempt("read a file of the server by its bytes", "SELECT pg_read_binary_file('PG_VERSION')"),
    Attempt("list a folder of the server", "SELECT pg_ls_dir('.')"),
    Attempt("import a file of the server", "SELECT lo_import('/etc/passwd')"),
    Attempt("write a file of the server", "SELECT lo_export(1, '/tmp/out')"),
    Attempt("run a program", "COPY (SELECT 1) TO PROGRAM 'true'"),
    Attempt("write a file by COPY", "COPY (SELECT 1) TO '/tmp/out'"),
    Attempt("load a library", "LOAD 'auto_explain'"),
    Attempt("make a function in C", "CREATE FUNCTION f() RETURNS int LANGUAGE c AS 'libc', 'getpid'"),
    Attempt("change the server's settings", "ALTER SYSTEM SET fsync = off"),
    Attempt("end others' sessions", "SELECT pg_reload_conf()"),
    Attempt("read the passwords of roles", "SELECT rolpassword FROM pg_authid"),
    # Rights and roles.
    Attempt("become the owner", "SET ROLE sceau"),
    Attempt("become another part", "SET ROLE {other}"),
    Attempt("become another login", "SET SESSION AUTHORIZATION sceau"),
    Attempt("make a role", "CREATE ROLE friend SUPERUSER"),
    Attempt("make itself superuser", "ALTER ROLE {me} SUPERUSER"),
    Attempt("give itself another role", "GRANT {other} TO {me}"),
    Attempt("make a database", "CREATE DATABASE mine"),
    Attempt("make a table in our schema", "CREATE TABLE public.mine (a int)"),
    Attempt("make a schema", "CREATE SCHEMA mine"),
    Attempt("hide the log's table behind one of its own", "CREATE TEMP TABLE change (a int)", BUT_WORKER),
    # Guards.
    Attempt("switch triggers off for its session", "SET session_replication_role = replica"),
    Attempt("switch the triggers of a table off", "ALTER TABLE revocation DISABLE TRIGGER ALL"),
    Attempt("drop a trigger", "DROP TRIGGER append_only ON revocation"),
    Attempt("replace a guard",
            "CREATE OR REPLACE FUNCTION sceau_refuse() RETURNS trigger LANGUAGE plpgsql AS ''"),
    Attempt("write to a history by a trigger of its own",
            "CREATE TRIGGER mine AFTER DELETE ON mailbox FOR EACH ROW EXECUTE FUNCTION sceau_archive()"),
    Attempt("let rows pass unseen", "ALTER TABLE revocation ENABLE ROW LEVEL SECURITY"),
    Attempt("rewrite queries", "CREATE RULE mine AS ON INSERT TO revocation DO INSTEAD NOTHING"),
    # A revocation.
    Attempt("delete a revocation", "DELETE FROM revocation"),
    Attempt("turn a revocation into a release", "UPDATE revocation SET action = 'release'"),
    Attempt("date a revocation otherwise", "UPDATE revocation SET revoked_at = now()"),
    Attempt("empty the revocations", "TRUNCATE revocation"),
    Attempt("release what is revoked for good", "INSERT INTO revocation (serial, authority_id, shard, action,"
            " reason, actor, revoked_at, not_after) SELECT serial, authority_id, shard, 'release', reason,"
            " actor, now(), not_after FROM revocation LIMIT 1", ("web", "worker"), GUARD),
    Attempt("release what is revoked for good", "INSERT INTO revocation (serial) VALUES ('1')",
            READERS),
    Attempt("answer good by hand", "UPDATE ocsp_answer SET der = ''", BUT_WORKER),
    Attempt("take a revocation out of the next CRL", "DELETE FROM crl_event",
            BUT_WORKER),
    Attempt("number a CRL anew", "UPDATE crl_shard SET last_number = 0",
            BUT_WORKER),
    Attempt("number a CRL anew", "UPDATE crl_shard SET last_number = -1", ("worker",), GUARD),
    Attempt("free a blocked key", "DELETE FROM blocked_key"),
    # What was decided.
    Attempt("change what a certificate is", "UPDATE certificate SET der = ''"),
    Attempt("delete a certificate", "DELETE FROM certificate"),
    Attempt("make a CA", "INSERT INTO authority (id) VALUES ('mine')"),
    Attempt("activate a CA", "UPDATE authority SET state = 'active'"),
    Attempt("change a reservation", "UPDATE reservation SET tbs = ''"),
    Attempt("change a reservation by the right to lock it", "UPDATE reservation SET lints = '[]'",
            ("web", "worker"), GUARD),
    Attempt("reserve a serial", "INSERT INTO reservation (serial) VALUES ('1')",
            READERS),
    Attempt("store a certificate", "INSERT INTO certificate (serial) VALUES ('1')",
            READERS),
    Attempt("enrol", "INSERT INTO enrolment (id) VALUES (gen_random_uuid())",
            BUT_WEB),
    Attempt("approve while asking", "INSERT INTO enrolment (id, approved_by) VALUES (gen_random_uuid(), 1)"),
    Attempt("approve an enrolment", "UPDATE enrolment SET approved_by = 1",
            BUT_WEB),
    Attempt("change whom an enrolment is of", "UPDATE enrolment SET practitioner = '8'"),
    Attempt("change what two persons saw", "UPDATE enrolment_names SET names = '{}'"),
    Attempt("delete a measure", "DELETE FROM measure"),
    Attempt("change whom a measure is of", "UPDATE measure SET national_id = '8'"),
    Attempt("take a measure", "INSERT INTO measure (national_id) VALUES ('8')",
            BUT_WEB),
    Attempt("let a run through", "UPDATE register_run SET state = 'running'",
            BUT_WORKER),
    Attempt("approve a run", "INSERT INTO register_approval (run_id) VALUES (1)",
            BUT_WEB),
    # Tokens.
    Attempt("make a token", "INSERT INTO api_token (name, secret_hash, role) VALUES ('mine', '', 'admin')"),
    Attempt("make a token an administrator's", "UPDATE api_token SET role = 'admin'"),
    Attempt("bring back a revoked token", "UPDATE api_token SET revoked_at = NULL"),
    Attempt("read what tokens are known by", "SELECT secret_hash FROM api_token",
            ("signer", "log", "auditor")),
    # The log and the past.
    Attempt("change a line of the log", "UPDATE audit_entry SET actor = 'nobody'"),
    Attempt("delete lines of the log", "DELETE FROM audit_entry"),
    Attempt("write a line into the numbered log", "INSERT INTO audit_entry (index) VALUES (0)",
            BUT_LOG),
    Attempt("sign a head", "INSERT INTO audit_checkpoint (size) VALUES (0)",
            BUT_LOG),
    Attempt("change a head", "UPDATE audit_checkpoint SET note = ''"),
    Attempt("drop a line that waits", "DELETE FROM audit_pending", BUT_LOG),
    Attempt("change a line that waits", "UPDATE audit_pending SET actor = 'nobody'"),
    Attempt("change a history", "UPDATE practitioner_history SET family_name = 'OTHER'"),
    Attempt("write into a history", "INSERT INTO mailbox_history SELECT * FROM mailbox_history"),
    Attempt("forget a change", "DELETE FROM change"),
    Attempt("forget changes by the function", "SELECT sceau_forget_changes(now(), 9)", BUT_WORKER),
    # Many at once.
    Attempt("delete all practitioners", "DELETE FROM practitioner"),
    Attempt("delete all mailboxes", "DELETE FROM mailbox"),
    Attempt("empty the directory", "TRUNCATE practitioner CASCADE"),
    Attempt("drop a table", "DROP TABLE certificate CASCADE"),
)  # fmt: skip
CASES = [
    pytest.param(attempt, part, id=f"{part}: {attempt.what}") for attempt in ATTEMPTS for part in attempt.by
]


@pytest.fixture(scope="module")
def record(postgres: EmbeddedPostgres) -> Iterator[Engine]:
    """A person, a token, a certificate and its revocation, and a login for each part, as a thief has it."""
    with fresh_engine(postgres) as engine:
        seed_practitioner(engine, 1)
        seed_token(engine, "registrar")
        ca = StatusCa(engine, NOON).establish()
        ca.revoke(ca.issue())
        with engine.begin() as connection:
            connection.execute(text("INSERT INTO crl_shard SELECT id, 0, 7 FROM authority"))
            rights.grant(connection)
            known = connection.execute(text("SELECT rolname FROM pg_roles")).scalars().all()
            for part in EVERYBODY:
                if f"thief_{part}" not in known:
                    login = f"CREATE ROLE thief_{part} LOGIN IN ROLE sceau_{part} PASSWORD '{WORD}'"
                    connection.execute(text(login))
        yield engine


@pytest.mark.parametrize(("attempt", "part"), CASES)
def test_it_is_refused_by_postgresql(record: Engine, attempt: Attempt, part: str) -> None:
    others = [one for one in EVERYBODY if one != part]
    statement = attempt.statement.replace("{other}", f"sceau_{others[0]}").replace("{me}", f"thief_{part}")
    # By a login of its own: what `SET ROLE` gave up, `RESET ROLE` would give back.
    login = make_conninfo(libpq(record.url), user=f"thief_{part}", password=WORD)
    with psycopg.connect(login, autocommit=True) as link, pytest.raises(psycopg.Error) as refused:
        link.execute(statement)
    assert refused.value.sqlstate == attempt.state, refused.value

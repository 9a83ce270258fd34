"""What the matrix grants works, and PostgreSQL refuses all else: each right, of each role, on each column."""

from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
import pytest
from sqlalchemy import Connection, Engine, make_url, text

from api.embedded.postgres import EmbeddedPostgres
from api.installation import schema
from directory.base import rights
from directory.base.db import connect_engine, transaction
from directory.base.errors import Kind, Refusal
from tests.conftest import fresh_database
from tests.factories import seed_practitioner

COLUMNS = text("""
    SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), c.relkind = 'v', a.attgenerated <> ''
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'v')
    AND a.attnum > 0 AND NOT a.attisdropped ORDER BY c.relname, a.attnum
""")
FUNCTIONS = text("""
    SELECT proname, pg_get_function_identity_arguments(oid), prorettype = 'trigger'::regtype,
           ARRAY(SELECT format_type(kind, NULL) FROM unnest(proargtypes) AS kind)
    FROM pg_proc WHERE pronamespace = 'public'::regnamespace ORDER BY proname
""")
# Each by itself, undone at once. Whatever else stops it, its right was there: PostgreSQL asks for that first.
TRY = text("""
    CREATE FUNCTION pg_temp.tried(role text, statements text[]) RETURNS SETOF boolean LANGUAGE plpgsql AS $$
    DECLARE
        statement text;
        refused boolean;
    BEGIN
        FOREACH statement IN ARRAY statements LOOP
            refused := false;
            BEGIN
                EXECUTE format('SET LOCAL ROLE %I', role);
                EXECUTE statement;
                RAISE EXCEPTION USING ERRCODE = 'ZZ000';
            EXCEPTION
                WHEN insufficient_privilege THEN refused := true;
                WHEN OTHERS THEN NULL;
            END;
            RETURN NEXT NOT refused;
        END LOOP;
    END $$
""")


@dataclass(frozen=True)
class Attempt:
    """One statement, and the rights of which one is enough for it."""

    statement: str
    rights: frozenset[tuple[str, str, str]]


def attempts(connection: Connection) -> Iterator[Attempt]:
    tables: dict[str, None] = {}
    for table, column, kind, is_view, is_generated in connection.execute(COLUMNS):
        yield attempt(f'SELECT "{column}" FROM {table} LIMIT 0', table, "SELECT", column)
        if is_view:
            continue
        tables[table] = None
        yield attempt(f'UPDATE {table} SET "{column}" = DEFAULT WHERE false', table, "UPDATE", column)
        if not is_generated:
            values = f'("{column}") OVERRIDING SYSTEM VALUE SELECT NULL::{kind} WHERE false'
            yield attempt(f"INSERT INTO {table} {values}", table, "INSERT", column)
    for table in tables:
        yield attempt(f"DELETE FROM {table} WHERE false", table, "DELETE")
        yield attempt(f"TRUNCATE {table}", table, "TRUNCATE")
        yield attempt(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE", table, "MAINTAIN", also=LOCKING)
        yield attempt(f"ALTER TABLE {table} DISABLE TRIGGER ALL", table, "OWNER")
        yield attempt(f"DROP TABLE {table}", table, "OWNER")
    for name, arguments, is_trigger, kinds in connection.execute(FUNCTIONS):
        # Not constants: of those a strict function is not called, and nobody's right to it is asked.
        nothing = ", ".join(f"(SELECT NULL::{kind})" for kind in kinds)
        if not is_trigger:
            yield attempt(f"SELECT count(*) FROM {name}({nothing})", name, "EXECUTE")
        yield attempt(f"ALTER FUNCTION {name}({arguments}) SECURITY INVOKER", name, "OWNER")


# LOCK TABLE takes any right to change rows; it blocks, and changes nothing.
LOCKING = ("UPDATE", "DELETE")


def attempt(
    statement: str, name: str, privilege: str, column: str = "", also: tuple[str, ...] = ()
) -> Attempt:
    enough = {(name, each, where) for each in (privilege, *also) for where in ("", column)}
    return Attempt(statement, frozenset(enough))


def allowed(connection: Connection, role: str, statements: list[str]) -> list[bool]:
    """Whether each was allowed to this role."""
    tried = text("SELECT * FROM pg_temp.tried(:role, CAST(:statements AS text[]))")
    return list(connection.execute(tried, {"role": role, "statements": statements}).scalars())


@pytest.mark.parametrize("role", rights.roles())
def test_what_is_granted_works_and_all_else_is_refused(engine: Engine, role: str) -> None:
    has = {(one.object, one.privilege, one.column) for one in rights.wanted() if one.role == role}
    with engine.connect() as connection, connection.begin():
        connection.execute(TRY)
        made = list(attempts(connection))
        outcome = allowed(connection, role, [one.statement for one in made])
        wrong = [
            f"{'allowed' if was else 'refused'}: {one.statement}"
            for one, was in zip(made, outcome, strict=True)
            if was != bool(one.rights & has)
        ]
        connection.rollback()
    assert len(made) > 2000
    assert wrong == []


def test_the_catalogue_says_what_the_matrix_says(database_url: str) -> None:
    """Also of the database itself: a copy of a database is without the rights on it."""
    assert schema.migrate(database_url).granted == 1
    engine = connect_engine(database_url)
    try:
        with transaction(engine) as connection:
            assert sorted(rights.granted(connection) ^ rights.wanted()) == []
    finally:
        engine.dispose()


def test_every_table_and_view_stands_in_the_matrix_and_every_name_in_it_exists(engine: Engine) -> None:
    """When this fails: give a new table its line in directory/base/rights.toml, then scripts/describe.py."""
    with transaction(engine) as connection:
        tables = {row[0] for row in connection.execute(COLUMNS)}
        known = {row[0] for row in connection.execute(FUNCTIONS)}
    assert set(rights.objects()) ^ tables == set()
    assert set(rights.functions()) - known == set()


def test_what_has_its_owners_rights_looks_nowhere_else_than_in_our_schema(engine: Engine) -> None:
    """A table that its caller made in pg_temp would be taken for ours by a function that may more than he."""
    query = "SELECT proname, proconfig FROM pg_proc WHERE prosecdef AND pronamespace = 'public'::regnamespace"
    with transaction(engine) as connection:
        paths = connection.execute(text(query)).all()
    path = "search_path=pg_catalog, public, pg_temp"
    assert len(paths) > 30
    assert [name for name, settings in paths if path not in (settings or ())] == []


def test_triggers_that_write_elsewhere_write_with_the_owners_rights(engine: Engine) -> None:
    """When this fails: CREATE OR REPLACE made a function INVOKER again; say SECURITY DEFINER and the path."""
    query = """
        SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND NOT prosecdef
        AND prorettype = 'trigger'::regtype
        AND prosrc ~* '\\m(INSERT INTO|DELETE FROM|FOR UPDATE|UPDATE \\w+ \\w* ?SET)'
    """
    with transaction(engine) as connection:
        assert connection.execute(text(query)).scalars().all() == []


def test_a_lock_is_of_a_table_whose_rows_nobody_changes(engine: Engine) -> None:
    for table, column in rights.locked():
        with transaction(engine) as connection:
            triggers = connection.execute(
                text(
                    "SELECT p.proname FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid"
                    " WHERE t.tgrelid = CAST(:table AS regclass) AND t.tgtype & 19 = 19 AND t.tgenabled = 'O'"
                ),
                {"table": table},
            ).scalars()
            assert "sceau_refuse" in triggers.all(), (table, column)


def test_rights_given_or_taken_by_hand_are_put_right(database_url: str) -> None:
    schema.migrate(database_url)
    engine = connect_engine(database_url)
    by_hand = (
        "GRANT DELETE ON revocation TO sceau_web",
        "GRANT UPDATE (reason) ON revocation TO sceau_worker",
        "REVOKE SELECT ON certificate FROM sceau_signer",
        "GRANT SELECT ON api_token TO PUBLIC",
        "GRANT EXECUTE ON FUNCTION sceau_archive() TO PUBLIC",
    )
    try:
        with transaction(engine) as connection:
            for statement in by_hand:
                connection.execute(text(statement))
        assert schema.migrate(database_url).granted == 4
        assert schema.migrate(database_url).granted == 0
        with transaction(engine) as connection:
            assert rights.granted(connection) == rights.wanted()
    finally:
        engine.dispose()


def test_an_owner_that_may_make_no_role_is_told_what_to_ask_for(postgres: EmbeddedPostgres) -> None:
    """Before anything is changed. Of a server without our roles, as another's is."""
    with fresh_database(postgres) as url:
        engine = connect_engine(url)
        try:
            with engine.connect() as connection, connection.begin():
                for role in rights.roles():
                    # Within the transaction the server lacks it; other databases' grants go by its number.
                    connection.execute(text(f"ALTER ROLE {role} RENAME TO {role}_away"))
                connection.execute(text("CREATE ROLE plain NOLOGIN"))
                connection.execute(text("SET LOCAL ROLE plain"))
                with pytest.raises(Refusal) as refused:
                    rights.make_roles(connection)
                connection.rollback()
        finally:
            engine.dispose()
    assert (refused.value.kind, refused.value.code) == (Kind.FORBIDDEN, "database-roles-missing")
    assert refused.value.details["statements"] == [
        f"CREATE ROLE {role} NOLOGIN" for role in sorted(rights.roles())
    ]
    assert "CREATE ROLE sceau_web NOLOGIN; " in refused.value.text


def test_a_worker_loads_a_country_for_the_first_time(engine: Engine) -> None:
    """The indexes of what is searched are then dropped and made again, and statistics gathered."""
    seed_practitioner(engine, 1)
    with engine.connect() as connection, connection.begin():
        connection.execute(text("TRUNCATE search_person"))
        connection.execute(text("SET LOCAL ROLE sceau_worker"))
        keys = "ARRAY(SELECT CAST(n AS text) FROM generate_series(1, 10001) AS n)"
        connection.execute(text(f"SELECT sceau_analyse_people(), sceau_search_people({keys})"))
        assert connection.execute(text("SELECT count(*) FROM search_person")).scalar_one() == 1
        connection.rollback()


def test_an_owner_who_is_no_superuser_migrates_and_grants(postgres: EmbeddedPostgres) -> None:
    """As on a server of one's own; what triggers do with his rights is no superuser's work then."""
    with psycopg.connect(postgres.conninfo, autocommit=True) as link:
        link.execute("CREATE ROLE plain_owner LOGIN CREATEROLE PASSWORD 'of a test'")
        link.execute("CREATE DATABASE owned OWNER plain_owner TEMPLATE template0")
        try:
            url = make_url(postgres.url).set(username="plain_owner", password="of a test", database="owned")
            url = url.difference_update_query(["passfile"])
            assert schema.migrate(url.render_as_string(hide_password=False)).before is None
            engine = connect_engine(url.render_as_string(hide_password=False))
            try:
                with transaction(engine) as connection:
                    assert rights.granted(connection) == rights.wanted()
                seed_practitioner(engine, 1)
            finally:
                engine.dispose()
        finally:
            link.execute("DROP DATABASE owned WITH (FORCE)")
            link.execute("DROP ROLE plain_owner")

"""What each part of the service may do in the database: read from `rights.toml`, granted, and compared.

The roles are groups without a login. An installation gives each part a login of its own that is a member of
one. The owner of the tables, who migrates, needs no grant and has all rights.
"""

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import psycopg
from sqlalchemy import Connection, text

from directory.base.errors import Kind, Refusal

SHIPPED = Path(__file__).with_name("rights.toml")
PREFIX = "sceau_"
PUBLIC = "PUBLIC"
_TABLE, _FUNCTION, _DATABASE = "table", "function", "database"
_VERBS = {"select": "SELECT", "insert": "INSERT", "update": "UPDATE", "delete": "DELETE", "lock": "UPDATE"}
_RIGHT = re.compile(r"(select|insert|update|delete|lock)(?:\(([a-z0-9_, ]+)\))?")
_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True, order=True)
class Right:
    """One right of one role: on a whole object, or on one column of a table."""

    kind: str
    object: str
    role: str
    privilege: str
    column: str = ""


# What PUBLIC and our roles have. An extension's own objects are for who installed it.
_GRANTED = text("""
    WITH object AS (
        SELECT 'table' AS kind, c.relname AS name, '' AS of_column,
               coalesce(c.relacl, acldefault('r', c.relowner)) AS acl, c.relowner AS owner
        FROM pg_class c WHERE c.relnamespace = CAST('public' AS regnamespace)
        AND c.relkind IN ('r', 'p', 'v', 'm') AND NOT EXISTS (SELECT FROM pg_depend d
            WHERE d.classid = CAST('pg_class' AS regclass) AND d.objid = c.oid AND d.deptype = 'e')
        UNION ALL
        SELECT 'table', c.relname, a.attname, a.attacl, c.relowner
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        WHERE c.relnamespace = CAST('public' AS regnamespace) AND c.relkind IN ('r', 'p', 'v', 'm')
        AND a.attacl IS NOT NULL AND NOT a.attisdropped
        UNION ALL
        SELECT 'function', p.proname, '', coalesce(p.proacl, acldefault('f', p.proowner)), p.proowner
        FROM pg_proc p WHERE p.pronamespace = CAST('public' AS regnamespace)
        AND NOT EXISTS (SELECT FROM pg_depend d
            WHERE d.classid = CAST('pg_proc' AS regclass) AND d.objid = p.oid AND d.deptype = 'e')
        UNION ALL
        SELECT 'database', '', '', coalesce(d.datacl, acldefault('d', d.datdba)), d.datdba
        FROM pg_database d WHERE d.datname = current_database()
    )
    SELECT o.kind, o.name, coalesce(r.rolname, 'PUBLIC'), granted.privilege_type, o.of_column
    FROM object o, aclexplode(o.acl) AS granted LEFT JOIN pg_roles r ON r.oid = granted.grantee
    WHERE granted.grantee <> o.owner AND (granted.grantee = 0 OR r.rolname = ANY (:roles))
    AND (o.kind <> 'database' OR granted.privilege_type = 'TEMPORARY')
""")
_ABSENT = text("""
    SELECT name FROM unnest(CAST(:roles AS text[])) AS name
    WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) ORDER BY name
""")
_MAY_MAKE_ROLES = text("SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user")
_UNLESS_MADE = """
    DO $$ BEGIN {}; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$
"""
_DATABASE_NAME = text("SELECT quote_ident(current_database())")


@cache
def _shipped() -> Mapping[str, Any]:
    return MappingProxyType(tomllib.loads(SHIPPED.read_text()))


def parts() -> Mapping[str, str]:
    """The parts that have a role, and what each is."""
    return MappingProxyType(dict(_shipped()["roles"]))


def roles() -> list[str]:
    """The roles by name, as PostgreSQL knows them."""
    return [PREFIX + part for part in parts()]


def objects() -> Mapping[str, Mapping[str, str]]:
    """The tables and views by name, with the words that `rights.toml` has for each part."""
    return MappingProxyType({**_shipped()["tables"], **_shipped()["views"]})


def functions() -> Mapping[str, list[str]]:
    """The functions that a part may call, with those parts."""
    return MappingProxyType(dict(_shipped()["functions"]))


def locked() -> frozenset[tuple[str, str]]:
    """The tables and columns whose right of UPDATE only locks rows."""
    return frozenset(
        (name, column)
        for name, given in objects().items()
        for words in given.values()
        for verb, columns in _RIGHT.findall(words)
        if verb == "lock"
        for column in columns.split(", ")
    )


def wanted() -> frozenset[Right]:
    """Every right that `rights.toml` gives."""
    return frozenset(_wanted())


def _wanted() -> Iterator[Right]:
    for part in _shipped()["database"]["temporary"]:
        yield Right(_DATABASE, "", PREFIX + part, "TEMPORARY")
    for name, callers in functions().items():
        yield from (Right(_FUNCTION, _plain(name), PREFIX + part, "EXECUTE") for part in callers)
    for name, given in objects().items():
        for part, words in given.items():
            yield from _of_words(_plain(name), PREFIX + part, words)


def _of_words(table: str, role: str, words: str) -> Iterator[Right]:
    if _RIGHT.sub("", words).strip(", "):
        raise ValueError(f"rights.toml: {table}: {words!r}")
    for verb, columns in _RIGHT.findall(words):
        for column in columns.split(", ") if columns else [""]:
            yield Right(_TABLE, table, role, _VERBS[verb], _plain(column) if column else "")


def _plain(name: str) -> str:
    """A name that needs no quotes: it becomes part of a statement."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"rights.toml: {name!r}")
    return name


def granted(connection: Connection) -> frozenset[Right]:
    """Every right that PUBLIC or a role of ours has, by PostgreSQL's own catalogue."""
    rows = connection.execute(_GRANTED, {"roles": roles()})
    return frozenset(Right(kind, name, role, verb, column) for kind, name, role, verb, column in rows)


def make_roles(connection: Connection) -> list[str]:
    """Make the roles that the server lacks; gives their names.

    Refuses `database-roles-missing`, with the statements for its administrator, where this login may make
    none.
    """
    absent = list(connection.execute(_ABSENT, {"roles": roles()}).scalars())
    made = [f"CREATE ROLE {role} NOLOGIN" for role in absent]
    if absent and not connection.execute(_MAY_MAKE_ROLES).scalar_one():
        text_ = f"This login may make no role. Have the server's administrator run: {'; '.join(made)};"
        raise Refusal(Kind.FORBIDDEN, "database-roles-missing", text_, statements=made)
    for statement in made:
        # Roles are of the whole server: another database's migration may make the same at this moment.
        connection.execute(text(_UNLESS_MADE.format(statement)))
    return absent


def grant(connection: Connection) -> int:
    """Make what is granted what `rights.toml` says; gives how many objects were changed.

    Also what somebody granted or took away by hand, and all of it after a dump was restored without rights.
    """
    should, has = wanted(), granted(connection)
    changed = sorted({(right.kind, right.object) for right in should ^ has})
    for kind, name in changed:
        of_object = [right for right in should if (right.kind, right.object) == (kind, name)]
        for statement in _statements(kind, _target(connection, kind, name), of_object):
            connection.execute(text(statement))
    return len(changed)


def _target(connection: Connection, kind: str, name: str) -> str:
    if kind == _DATABASE:
        return f"DATABASE {connection.execute(_DATABASE_NAME).scalar_one()}"
    return f"{kind.upper()} public.{name}"


def _statements(kind: str, target: str, should: Iterable[Right]) -> Iterator[str]:
    """All is taken first: what is left then is what is granted below, and nothing of before."""
    everything = "TEMPORARY" if kind == _DATABASE else "ALL"
    yield f"REVOKE {everything} ON {target} FROM {', '.join([PUBLIC, *roles()])}"
    by_role: dict[str, list[str]] = {}
    for right in sorted(should):
        by_role.setdefault(right.role, []).append(
            f"{right.privilege} ({right.column})" if right.column else right.privilege
        )
    for role, privileges in by_role.items():
        yield f"GRANT {', '.join(privileges)} ON {target} TO {role}"


def let_in(connection: Connection, part: str, password: str) -> None:
    """Let this part's role itself log in with this password, of which PostgreSQL is given a digest alone."""
    role, link = PREFIX + part, connection.connection.driver_connection
    assert isinstance(link, psycopg.Connection)
    digest = link.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256").decode()
    # As it stands: a colon begins a parameter elsewhere, and digests have some.
    connection.exec_driver_sql(f"ALTER ROLE {role} LOGIN PASSWORD '{digest}'")

"""What a migration may not do while the release before serves: judged by the SQL that its `upgrade` reaches.

It reads, and runs nothing. Whether the result is right is for the tests of migrations and of releases.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

# Migrations from before there were these rules.
EXEMPT = frozenset(f"{number:04d}" for number in range(1, 41))
# Tables of some rows, whatever the country: to write them all takes no time.
SMALL = frozenset((
    "api_token", "audit_head", "authority", "beat", "feed_clock", "feed_cursor", "feed_floor", "feed_key",
    "job_run",
))  # fmt: skip
# Emptied each second: an index of them is built in no time.
QUEUES = frozenset({"audit_pending"})
LONGEST_LOCK_SECONDS = 5
_NAME = r'(?:public\.)?"?(\w+)"?'
_BODY = re.compile(r"\$(\w*)\$.*?\$\1\$", re.DOTALL)
_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_LOCK = re.compile(r"SET (?:LOCAL )?lock_timeout (?:=|TO) '(\d+)s'", re.IGNORECASE)
_STATEMENT = re.compile(r"SET (?:LOCAL )?statement_timeout (?:=|TO) '[1-9]\d*(?:ms|s|min|h)'", re.IGNORECASE)
_VOLATILE = re.compile(
    r"DEFAULT [^,]*\b(?:random|clock_timestamp|gen_random_uuid|nextval|timeofday)\b", re.IGNORECASE
)


@dataclass(frozen=True)
class Statement:
    """One statement on one line, without comments and bodies of functions."""

    words: str

    def match(self, pattern: str) -> re.Match[str] | None:
        return re.match(pattern, self.words, re.IGNORECASE)

    def has(self, pattern: str) -> bool:
        return re.search(pattern, self.words, re.IGNORECASE) is not None


def findings(source: str, unread: frozenset[str] = frozenset()) -> list[str]:
    """Everything wrong with a migration, a sentence each.

    `unread` are columns ("table.column") that the release before names no more: they may be dropped.
    """
    sql = "\n;\n".join(_reached(ast.parse(source)))
    statements = [
        Statement(" ".join(part.split())) for part in _COMMENT.sub(" ", _BODY.sub("''", sql)).split(";")
    ]
    made = {
        match[1] for one in statements if (match := one.match(rf"CREATE TABLE (?:IF NOT EXISTS )?{_NAME}"))
    }
    found = list(_timeouts(sql))
    for statement in statements:
        found.extend(
            f"{words}: {statement.words[:80]}" for words in _wrong(statement, statements, made, unread)
        )
    if any(statement.has(r"\bINDEX CONCURRENTLY\b") for statement in statements):
        found.extend(
            []
            if "autocommit_block()" in source
            else ["CONCURRENTLY needs op.get_context().autocommit_block()"]
        )
    return found


def _reached(tree: ast.Module) -> Iterator[str]:
    """Every text that `upgrade` names, through constants and functions of the module."""
    known: dict[str, ast.AST] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign):
            known.update({target.id: node.value for target in node.targets if isinstance(target, ast.Name)})
        if isinstance(node, ast.FunctionDef):
            known[node.name] = node
    waiting, seen = ["upgrade"], set()
    while waiting:
        name = waiting.pop()
        seen.add(name)
        for node in ast.walk(known[name]):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
            if isinstance(node, ast.Name) and node.id in known and node.id not in seen:
                waiting.append(node.id)


def _timeouts(sql: str) -> Iterator[str]:
    lock = _LOCK.search(sql)
    if lock is None or not 1 <= int(lock[1]) <= LONGEST_LOCK_SECONDS:
        yield f"SET LOCAL lock_timeout is missing, or not '1s' to '{LONGEST_LOCK_SECONDS}s'"
    if _STATEMENT.search(sql) is None:
        yield "SET LOCAL statement_timeout is missing, or has no unit"


def _wrong(
    statement: Statement, statements: list[Statement], made: set[str], unread: frozenset[str]
) -> Iterator[str]:
    yield from _index(statement, statements, made)
    yield from _written(statement, made)
    table = statement.match(rf"ALTER TABLE (?:ONLY )?(?:IF EXISTS )?{_NAME}")
    if table is not None and table[1] not in made:
        yield from _altered(statement, table[1], unread)
    if statement.has(r"^DROP (?:TABLE|VIEW|MATERIALIZED VIEW|TYPE|SCHEMA)\b"):
        yield "The release before may read what is dropped"
    dropped = statement.match(rf"DROP FUNCTION (?:IF EXISTS )?{_NAME}")
    if dropped is not None and not any(one.has(rf"^CREATE .*FUNCTION {dropped[1]}\b") for one in statements):
        yield "The release before may call the function that is dropped"
    if statement.has(r"\b(?:CLUSTER|VACUUM|REINDEX|LOCK TABLE)\b"):
        yield "It locks or rewrites a whole table"


def _index(statement: Statement, statements: list[Statement], made: set[str]) -> Iterator[str]:
    index = statement.match(
        rf"CREATE (?:UNIQUE )?INDEX (CONCURRENTLY )?(?:IF NOT EXISTS )?{_NAME} ON (?:ONLY )?{_NAME}"
    )
    if index is None or index[3] in made | QUEUES:
        return
    if index[1] is None:
        yield "An index on a table that is in use is built CONCURRENTLY"
    elif not any(one.match(rf"DROP INDEX CONCURRENTLY IF EXISTS {index[2]}\b") for one in statements):
        yield f"A build cut short leaves an invalid index: DROP INDEX CONCURRENTLY IF EXISTS {index[2]}"


def _written(statement: Statement, made: set[str]) -> Iterator[str]:
    rows = statement.match(rf"(?:UPDATE|DELETE FROM) (?:ONLY )?{_NAME}") or statement.match(
        rf"TRUNCATE (?:TABLE )?{_NAME}"
    )
    if rows is not None and rows[1] not in made | SMALL:
        yield "A large table is written in portions, by a job"


def _altered(statement: Statement, table: str, unread: frozenset[str]) -> Iterator[str]:
    if statement.has(r"\bRENAME\b"):
        yield "The release before knows the old name"
    for column in re.findall(r"\bDROP COLUMN (?:IF EXISTS )?\"?(\w+)", statement.words, re.IGNORECASE):
        if f"{table}.{column}" not in unread:
            yield f"The release before reads {table}.{column}"
    if statement.has(r"\bALTER (?:COLUMN )?\w+ (?:SET DATA )?TYPE\b"):
        yield "A change of type rewrites the table"
    if statement.has(r"\bSET NOT NULL\b"):
        yield "SET NOT NULL reads the table under its lock: a CHECK that is NOT VALID, then VALIDATE"
    if statement.has(r"\bADD COLUMN\b"):
        yield from _added_column(statement)
    if statement.has(r"\bADD (?:CONSTRAINT \w+ )?(?:CHECK|FOREIGN KEY)\b") and not statement.has(
        r"\bNOT VALID\b"
    ):
        yield "A constraint is added NOT VALID, and validated by a statement of its own"
    if statement.has(r"\bADD (?:CONSTRAINT \w+ )?(?:UNIQUE|PRIMARY KEY|EXCLUDE)\b") and not statement.has(
        r"\bUSING INDEX\b"
    ):
        yield "A unique constraint is added USING INDEX, from one built CONCURRENTLY"
    if statement.has(r"\bSET (?:UNLOGGED|LOGGED|TABLESPACE|ACCESS METHOD)\b"):
        yield "It rewrites the table"


def _added_column(statement: Statement) -> Iterator[str]:
    if statement.has(r"\bNOT NULL\b") and not statement.has(r"\bDEFAULT\b"):
        yield "The release before writes rows without the new column: it needs a default"
    if _VOLATILE.search(statement.words) or statement.has(r"\b(?:GENERATED|(?:small|big)?serial)\b"):
        yield "Each row would be written: the default is a constant"
    if statement.has(r"\bREFERENCES\b"):
        yield "A reference is added NOT VALID, by a statement of its own"

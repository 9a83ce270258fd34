"""Which kinds of rows a schema knows, and which of them a record has no example of."""

import re
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Engine, text

from directory.attention import Concern
from pki.certificates.profiles import PROFILES
from pki.impediments.causes import GRACES
from pki.model import RevocationReason

Rows = dict[str, list[dict[str, Any]]]
# Each value of one column that a CHECK lists.
_CHECKS = text("""
    SELECT r.relname, a.attname, pg_get_constraintdef(c.oid)
    FROM pg_constraint c JOIN pg_class r ON r.oid = c.conrelid JOIN pg_namespace n ON n.oid = r.relnamespace
    JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum = c.conkey[1]
    WHERE n.nspname = 'public' AND c.contype = 'c' AND cardinality(c.conkey) = 1
""")
_LISTED = re.compile(r"= ANY \(+ARRAY\[(.*?)\]")
# Columns whose values the code lists, and no CHECK.
OF_THE_CODE: Mapping[tuple[str, str], frozenset[str]] = {
    ("attention", "kind"): frozenset(concern.value for concern in Concern),
    ("certificate", "profile"): frozenset(PROFILES),
    ("revocation", "reason"): frozenset(reason.value for reason in RevocationReason),
    ("withdrawal_due", "cause"): frozenset(cause.value for cause, grace in GRACES.items() if grace),
}


def kinds(engine: Engine) -> dict[tuple[str, str], frozenset[str]]:
    """The values of each column of kinds, as text, by table and column."""
    with engine.connect() as connection:
        checks = connection.execute(_CHECKS).all()
    found = dict(OF_THE_CODE)
    for table, column, check in checks:
        if listed := _LISTED.search(check):
            found[table, column] = frozenset(
                value.partition("::")[0].strip(" '") for value in listed[1].split(",")
            )
    return found


def without_example(rows: Rows, known: Mapping[tuple[str, str], frozenset[str]]) -> set[str]:
    """Tables without a row, as "table", and kinds that no row has, as "table.column=kind"."""
    missing = {table for table, found in rows.items() if not found}
    for (table, column), values in known.items():
        seen = {str(row[column]) for row in rows.get(table, ())}
        missing |= {f"{table}.{column}={value}" for value in values - seen if rows.get(table)}
    return missing

"""Which source wins: one rule for each column a register fills, the same in the reference."""

import re
from pathlib import Path

from directory.corrections import spelled
from directory.feed.changes import Entity
from directory.precedence import CORRECTABLE, PRECEDENCE, Source
from directory.tables import metadata

REFERENCE = Path(__file__).resolve().parents[2] / "docs/reference/registers.md"
# Keys, what the record works out itself, and who wrote it when.
OWN = {
    "national_id", "finess", "address", "name", "operator_id", "digest", "id", "domain", "search_name",
    "row_hash", "sys_from", "suspended_at", "recorded_by", "recorded_at",
}  # fmt: skip


def test_each_column_that_comes_from_outside_has_one_rule() -> None:
    ruled = [(rule.table, field) for rule in PRECEDENCE for field in rule.fields]
    assert len(ruled) == len(set(ruled))
    for table in {rule.table for rule in PRECEDENCE}:
        known = {column.name for column in metadata.tables[table].columns}
        named = {field for of, field in ruled if of == table}
        assert named <= known, table
        assert known - named <= OWN, table


def test_the_reference_says_the_same() -> None:
    said = re.findall(r"^\| `(\w+)`: ((?:`\w+`(?:, )?)+) \| (.+) \|$", REFERENCE.read_text(), re.MULTILINE)
    ours = [
        (
            rule.table,
            ", ".join(f"`{field}`" for field in rule.fields),
            " > ".join(source.value for source in rule.sources),
        )
        for rule in PRECEDENCE
    ]
    assert said == ours


def test_nothing_that_trust_rests_on_is_corrected_but_a_closing_day() -> None:
    trusted = {"departed_at", "holder", "kind", "structure_id", "suspended_at", "profession_code", "finess"}
    corrected = {field for fields in CORRECTABLE.values() for field in fields}
    assert corrected.isdisjoint(trusted)
    first = {source for rule in PRECEDENCE for source in rule.sources[1:]}
    assert Source.CORRECTION not in first


def test_keys_are_found_under_any_spelling_that_the_record_reads() -> None:
    assert spelled(Entity.MAILBOX, "Camille.Martin@One.Example") == "camille.martin@one.example"
    assert spelled(Entity.ORGANISATION, " 750990012 ") == "750990012"

"""Rows of register runs to test upon, as a night would have left them."""

from datetime import datetime, timedelta
from typing import Any

import orjson
from sqlalchemy import Engine, text

COUNTS = {
    "lines": 200, "accepted": 12, "rejected": 3, "unchanged": 185, "created": 5, "changed": 4, "removed": 3,
    "ignored": 0, "recoded": 0,
}  # fmt: skip
# A bound passed, as the engine writes it down.
FINDING = {
    "name": "too-many-removals", "value": 0.0123, "bound": 0.005, "needed": 1,
    "sentence": "24,000 of 1,950,000 people of the RPPS would leave the register.",
}  # fmt: skip


def seed_run(
    engine: Engine,
    register: str,
    generated_at: datetime,
    *,
    state: str = "applied",
    reason: str | None = None,
    needed: int = 0,
    findings: list[dict[str, Any]] | None = None,
    measures: dict[str, float] | None = None,
    started_at: datetime | None = None,
    **counts: int,
) -> int:
    """A run of a file generated then, begun two hours later unless told, a minute long; gives its number."""
    began = started_at or generated_at + timedelta(hours=2)
    open_ended = state in ("running", "interrupted")
    with engine.begin() as connection:
        return int(
            connection.execute(
                text(
                    "INSERT INTO register_run (register, file_name, file_sha256, layout, generated_at,"
                    " started_at, finished_at, state, reason, counts, findings, measures, approvals_needed)"
                    " VALUES (:register, 'file.txt', sha256(''), 'test-layout', :made, :began, :ended,"
                    " :state, :reason, CAST(:counts AS jsonb), CAST(:findings AS jsonb),"
                    " CAST(:measures AS jsonb), :needed) RETURNING id"
                ),
                {"register": register, "made": generated_at, "began": began,
                 "ended": None if open_ended else began + timedelta(minutes=1), "state": state,
                 "reason": reason, "counts": orjson.dumps({**COUNTS, **counts}).decode(),
                 "findings": orjson.dumps(findings or []).decode(),
                 "measures": orjson.dumps(measures or {}).decode(), "needed": needed},
            ).scalar_one()
        )  # fmt: skip


def seed_rejection(
    engine: Engine,
    run_id: int,
    line: int,
    reason: str = "rpps-check-digit",
    excerpt: str = "8|10099000018|MARTIN",
) -> None:
    """A line that the run could not take."""
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO register_rejection VALUES (:run, :line, :reason, 'told so', :excerpt)"),
            {"run": run_id, "line": line, "reason": reason, "excerpt": excerpt},
        )

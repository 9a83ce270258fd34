"""Named persons let through a run that is beyond a bound: one, or two above a second bound.

What is beyond which bound is for `bounds.py`; to go on with an approved run is for `run.py`. The log tells of
each approval in its own transaction.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, func, select, text
from sqlalchemy.dialects.postgresql import insert

from directory.access import Role, Token
from directory.base.audit import Event, record
from directory.base.comments import LONGEST_SENTENCE, check_comment
from directory.base.errors import Kind, Refusal
from directory.tables import api_token, register_approval, register_run

_LOCK = text("SELECT sceau_lock_run(:run)")


@dataclass(frozen=True)
class Approval:
    """A held run after one more person agreed: how many have, and how many must."""

    run_id: int
    approvals: int
    needed: int


def approve(connection: Connection, *, now: datetime, token: Token, run_id: int, comment: str) -> Approval:
    """Let a held run through, as far as the holder of `token` may; the comment says what was looked at.

    Refuses `role-lacking` (of any role but admin), `comment-missing`, `comment-too-long`, `unknown-run`,
    `run-not-held`, and `run-already-approved` by this token or by as many as are needed.
    """
    _check(token, comment)
    # Two who approve at once queue here, so that the second sees the first. By a function: PostgreSQL locks a
    # row only for who may change it, and who approves a run may not.
    connection.execute(_LOCK, {"run": run_id})
    run = connection.execute(select(register_run).where(register_run.c.id == run_id)).one_or_none()
    if run is None:
        raise Refusal(Kind.NOT_FOUND, "unknown-run", f"There is no run {run_id}.")
    if run.state != "held":
        raise Refusal(Kind.CONFLICT, "run-not-held", f"Run {run_id} is {run.state}: it waits for nobody.")
    if approvals_of(connection, run_id) >= run.approvals_needed:
        raise Refusal(Kind.CONFLICT, "run-already-approved", f"Run {run_id} has the approvals it needs.")
    row = {"run_id": run_id, "token_id": token.id, "comment": comment.strip(), "approved_at": now}
    made = (
        insert(register_approval).values(row).on_conflict_do_nothing().returning(register_approval.c.run_id)
    )
    if connection.execute(made).one_or_none() is None:
        words = f"You let run {run_id} through already: the second person is somebody else."
        raise Refusal(Kind.CONFLICT, "run-already-approved", words)
    approval = Approval(run_id, approvals_of(connection, run_id), run.approvals_needed)
    detail = {
        "run": run_id, "approvals": approval.approvals, "needed": approval.needed, "comment": comment.strip(),
        "sha256": run.file_sha256.hex(),
    }  # fmt: skip
    record(
        connection, now=now, actor=token.actor, event=Event.REGISTER_APPROVED, subject=run.register,
        detail=detail,
    )  # fmt: skip
    return approval


def approvals_of(connection: Connection, run_id: int) -> int:
    """How many persons let this run through; what a token said that was revoked since counts no more."""
    query = (
        select(func.count())
        .select_from(register_approval.join(api_token, api_token.c.id == register_approval.c.token_id))
        .where(register_approval.c.run_id == run_id, api_token.c.revoked_at.is_(None))
    )
    return int(connection.execute(query).scalar_one())


def _check(token: Token, comment: str) -> None:
    if token.role is not Role.ADMIN:
        words = "Only an admin lets a held run through."
        raise Refusal(Kind.FORBIDDEN, "role-lacking", words, roles=[Role.ADMIN.value])
    if not comment.strip():
        words = "Say what you looked at before letting this run through."
        raise Refusal(Kind.MALFORMED, "comment-missing", words)
    check_comment(comment, LONGEST_SENTENCE)

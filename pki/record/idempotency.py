"""One act for one key of one caller: what was asked under it, whether it is under way, what was answered.

The answer is kept in the transaction of the act, so that neither is there without the other. Only answers of
acts that were done are kept: a refusal changed nothing and may be different the next time.
`api/http/idempotency.py` reads the header and waits; secrets must never come here (decision 123).
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, and_, delete, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from directory.base.errors import Kind, Refusal
from pki.record.tables import idempotent_request

KEPT = timedelta(hours=24)
# A worker that was killed leaves its request under way: longer than any issuance takes, then another may.
LEASE = timedelta(seconds=20)

_ROW = idempotent_request.c


@dataclass(frozen=True)
class IdempotencyClaim:
    """A request as it is known again: whose, under which key, and the digest of what was asked."""

    token_id: int
    key: str
    digest: bytes

    def __post_init__(self) -> None:
        """Refuse to exist with other than a SHA-256."""
        if len(self.digest) != 32:  # noqa: PLR2004 - octets of SHA-256
            raise ValueError("the digest is a SHA-256")


@dataclass(frozen=True)
class KeptAnswer:
    """An answer that was given; `body` as it went out."""

    status: int
    body: bytes


def claim(connection: Connection, asked: IdempotencyClaim, now: datetime) -> KeptAnswer | None:
    """The answer given before, or None: then the act is the caller's, until `LEASE` is over.

    Waits for a transaction that claims the same key. Refuses `idempotency-key-reused` when something else was
    asked under this key within `KEPT`, and `request-in-progress` while another works on it.
    """
    row = {**vars(asked), "asked_at": now, "busy_until": now + LEASE}
    gone = _ROW.asked_at <= now - KEPT
    left = and_(_ROW.digest == asked.digest, _ROW.status.is_(None), _ROW.busy_until <= now)
    query = (
        insert(idempotent_request)
        .values(row)
        .on_conflict_do_update(
            index_elements=[_ROW.token_id, _ROW.key],
            set_={**row, "status": None, "body": None},
            where=or_(gone, left),
        )
        .returning(_ROW.key)
    )
    if connection.execute(query).one_or_none() is not None:
        return None
    known = connection.execute(select(_ROW.digest, _ROW.status, _ROW.body).where(*_of(asked))).one()
    if known.digest != asked.digest:
        text = "Something else was asked under this Idempotency-Key: use a new key for a new request."
        raise Refusal(Kind.UNACCEPTABLE, "idempotency-key-reused", text)
    if known.status is None:
        text = "The same request is being worked on: ask again in a moment, with the same key."
        raise Refusal(Kind.CONFLICT, "request-in-progress", text, retry_after=1)
    return KeptAnswer(known.status, known.body)


def keep(connection: Connection, asked: IdempotencyClaim, answer: KeptAnswer) -> None:
    """Remember the answer of a claimed request, in the transaction of its act."""
    query = update(idempotent_request).where(*_of(asked), _ROW.digest == asked.digest, _ROW.status.is_(None))
    connection.execute(query.values(vars(answer)))


def release_claim(connection: Connection, asked: IdempotencyClaim) -> None:
    """Forget a claimed request that came to nothing: the next under this key is decided anew."""
    query = delete(idempotent_request).where(*_of(asked), _ROW.digest == asked.digest, _ROW.status.is_(None))
    connection.execute(query)


def forget_old(connection: Connection, now: datetime) -> int:
    """Drop what was asked longer than `KEPT` ago; how many."""
    return connection.execute(delete(idempotent_request).where(_ROW.asked_at <= now - KEPT)).rowcount


def _of(asked: IdempotencyClaim) -> tuple[ColumnElement[bool], ...]:
    return _ROW.token_id == asked.token_id, _ROW.key == asked.key

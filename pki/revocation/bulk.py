"""Revoking many: select and count, write down, have a second person agree, then do it batch by batch.

The selection is frozen with its digest before anybody approves, so that the selection seen is the one that
runs. Each batch commits with its progress: a worker killed anywhere goes on where the last batch ended.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from hmac import compare_digest

from sqlalchemy import Connection

from directory.access import Role, Token
from directory.base.audit import Actor, Event, record
from directory.base.comments import LONGEST_SENTENCE, check_comment
from directory.base.errors import Kind, Refusal
from directory.base.failpoints import passing
from directory.identifiers import read_place
from directory.search import sites_of
from directory.withdrawal_limits import charge
from pki.model import RevocationAction, RevocationReason, Serial
from pki.record import revocations
from pki.revocation import bulk_store, key_compromise, revoke
from pki.revocation.bulk_store import Bulk, Selected, Selection
from pki.revocation.revoke import RevocationOrder

# Above this a second administrator agrees: a slip of the hand takes a ward off the air, not a region.
ALONE_UP_TO = 100
LARGEST = 1_000_000
SAMPLES = 20
USUAL_RATE = 2000
# About half a second of locks: who waits for one of these certificates waits no longer.
BATCH = 2000
_ACTOR = Actor("job:bulk-revocations")


@dataclass(frozen=True)
class Preview:
    """What a revocation of many would do: how many, a digest over all serials, the first and last few."""

    total: int
    digest: bytes
    needed: int
    samples: tuple[Selected, ...]


def preview(connection: Connection, *, now: datetime, token: Token, selection: Selection) -> Preview:
    """Count without writing anything; refuses `role-lacking`, `empty-selection`, `nothing-selected`,
    `too-many-selected`, and an establishment that is no number as `read_place` does.
    """
    _check_admin(token)
    return _preview(_select(connection, selection, now), token)


def plan(
    connection: Connection,
    *,
    now: datetime,
    token: Token,
    selection: Selection,
    reason: RevocationReason,
    comment: str,
    per_second: int = USUAL_RATE,
) -> Bulk:
    """Write down what is to be revoked and why; nothing is revoked before `approve`.

    Refuses what `preview` does, and `comment-missing`, `comment-too-long`.
    """
    _check_admin(token)
    comment = _said(comment)
    selected = _select(connection, selection, now)
    seen = _preview(selected, token)
    row = {
        "selection": selection.told(), "reason": reason.value, "comment": comment, "per_second": per_second,
        "total": seen.total, "digest": seen.digest, "needed": seen.needed, "asked_by": token.id,
        "asked_at": now, "state": "planned",
    }  # fmt: skip
    made = _load(
        connection, bulk_store.add(connection, row, [certificate.serial for certificate in selected])
    )
    _tell(connection, Event.BULK_REVOCATION_PLANNED, made, now=now, actor=token.actor, comment=comment)
    return made


def approve(
    connection: Connection, *, now: datetime, token: Token, number: int, digest: bytes, comment: str
) -> Bulk:
    """Give one's word to what has this digest; with as many as are needed it begins.

    Refuses `role-lacking`, `unknown-bulk`, `comment-missing`, `comment-too-long`, `bulk-not-planned`,
    `digest-differs`, `withdrawal-limit-reached` to who decides alone, and `self-approval` to who agreed
    already. Who planned it may be one of the two.
    """
    _check_admin(token)
    comment = _said(comment)
    bulk = _load(connection, number, lock=True)
    if bulk.state != "planned":
        raise Refusal(Kind.CONFLICT, "bulk-not-planned", f"Revocation {number} is {bulk.state}.")
    if not compare_digest(bulk.digest, digest):
        text = "This is not the digest of what was selected: look at it again."
        raise Refusal(Kind.CONFLICT, "digest-differs", text)
    if bulk_store.approved_by(connection, number, token.id):
        text = "You agreed already: the second person is somebody else."
        raise Refusal(Kind.FORBIDDEN, "self-approval", text)
    bulk_store.approve(connection, number, token.id, comment, now)
    bulk = _load(connection, number)
    _tell(connection, Event.BULK_REVOCATION_APPROVED, bulk, now=now, actor=token.actor, comment=comment)
    if bulk.approvals >= bulk.needed:
        if bulk.needed == 1:
            # Two have agreed to all others: that is the second person whom the limit asks for.
            charge(connection, token, now=now, number=bulk.total)
        bulk_store.change(connection, number, state="running", started_at=now)
    return _load(connection, number)


def stop(connection: Connection, *, now: datetime, token: Token, number: int, comment: str) -> Bulk:
    """End one that is planned or running, for good: what is revoked stays so, the rest is left alone.

    Refuses `role-lacking`, `unknown-bulk`, `comment-missing`, `comment-too-long`, `bulk-ended`.
    """
    _check_admin(token)
    comment = _said(comment)
    bulk = _load(connection, number, lock=True)
    if bulk.finished_at is not None:
        raise Refusal(Kind.CONFLICT, "bulk-ended", f"Revocation {number} is {bulk.state}.")
    bulk_store.change(connection, number, state="stopped", finished_at=now)
    bulk = _load(connection, number)
    _tell(connection, Event.BULK_REVOCATION_STOPPED, bulk, now=now, actor=token.actor, comment=comment)
    return bulk


def seen(connection: Connection, *, token: Token, number: int) -> Bulk:
    """One as it stands, for administrators and auditors; refuses `role-lacking`, `unknown-bulk`."""
    _check_reader(token)
    return _load(connection, number)


def all_seen(connection: Connection, *, token: Token, before: int | None, limit: int) -> list[Bulk]:
    """The newest first, for administrators and auditors; refuses `role-lacking`."""
    _check_reader(token)
    return bulk_store.newest(connection, before, limit)


def waiting(connection: Connection) -> Bulk | None:
    """The oldest that runs, locked for `step`; None when there is none or somebody else works on it."""
    return bulk_store.take_running(connection)


def step(connection: Connection, bulk: Bulk, now: datetime, limit: int = BATCH) -> Bulk:
    """Do the next batch of one that `waiting` gave, its progress in the same transaction."""
    serials = bulk_store.next_items(connection, bulk, min(limit, bulk.per_second))
    revoked = _revoke(connection, bulk, serials, now)
    reached = bulk.reached + len(serials)
    progress = {"reached": reached, "revoked": bulk.revoked + revoked}
    progress["skipped"] = reached - progress["revoked"]
    if reached == bulk.total:
        bulk_store.change(connection, bulk.id, **progress, state="done", finished_at=now)
        done = _load(connection, bulk.id)
        _tell(connection, Event.BULK_REVOCATION_DONE, done, now=now, actor=_ACTOR, comment=bulk.comment)
        return done
    bulk_store.change(connection, bulk.id, **progress)
    passing("bulk.batch")
    return _load(connection, bulk.id)


def _revoke(connection: Connection, bulk: Bulk, serials: Sequence[Serial], now: datetime) -> int:
    acts = []
    if bulk.reason is RevocationReason.KEY_COMPROMISE:
        key_compromise.lock_families(connection, serials)
    for revocable in revocations.revocable_of(connection, serials):
        # Revoked by somebody else since, or swept up with a sibling of an earlier batch.
        if revocable.last is RevocationAction.REVOKE or revocable.certificate.not_after < now:
            continue
        if revocable.last is RevocationAction.HOLD and bulk.reason is RevocationReason.CERTIFICATE_HOLD:
            continue
        acts.append(RevocationOrder(revocable, bulk.reason, f"{bulk.comment} (revocation {bulk.id} of many)"))
    revoke.revoke_or_suspend(connection, acts, now=now, actor=_ACTOR)
    return len(acts)


def _select(connection: Connection, selection: Selection, now: datetime) -> list[Selected]:
    if not selection:
        text = (
            "Say which: serials, a CA, a profile, an establishment, an operator, days of issuance, or keys."
        )
        raise Refusal(Kind.MALFORMED, "empty-selection", text)
    selected = bulk_store.selected(connection, selection, _places(connection, selection), now)
    if not selected:
        text = "No certificate that is in force and not revoked meets this selection."
        raise Refusal(Kind.NOT_FOUND, "nothing-selected", text)
    if len(selected) > LARGEST:
        text = f"This selects {len(selected)} certificates; at most {LARGEST} go in one."
        raise Refusal(Kind.UNACCEPTABLE, "too-many-selected", text)
    return selected


def _places(connection: Connection, selection: Selection) -> list[str]:
    if selection.establishment is None:
        return []
    number = read_place(selection.establishment)
    return [number, *sites_of(connection, number)]


def _preview(selected: Sequence[Selected], token: Token) -> Preview:
    digest = sha256("".join(f"{certificate.serial}\n" for certificate in selected).encode()).digest()
    shown = selected if len(selected) <= SAMPLES else [*selected[: SAMPLES // 2], *selected[-SAMPLES // 2 :]]
    # More than an hour's limit nobody may take alone in any case.
    alone = min(ALONE_UP_TO, token.allowance.token)
    return Preview(len(selected), digest, 1 if len(selected) <= alone else 2, tuple(shown))


def _check_admin(token: Token) -> None:
    if token.role is not Role.ADMIN:
        text = "Only an administrator revokes many at once."
        raise Refusal(Kind.FORBIDDEN, "role-lacking", text, roles=[Role.ADMIN.value])


def _check_reader(token: Token) -> None:
    if token.role not in {Role.ADMIN, Role.AUDITOR}:
        text = "Administrators and auditors see revocations of many."
        raise Refusal(
            Kind.FORBIDDEN, "role-lacking", text, roles=sorted([Role.ADMIN.value, Role.AUDITOR.value])
        )


def _said(comment: str) -> str:
    if not comment.strip():
        raise Refusal(Kind.MALFORMED, "comment-missing", "Say why, in a sentence: the log keeps it.")
    check_comment(comment, LONGEST_SENTENCE)
    return comment.strip()


def _load(connection: Connection, number: int, *, lock: bool = False) -> Bulk:
    bulk = bulk_store.load(connection, number, lock=lock)
    if bulk is None:
        raise Refusal(Kind.NOT_FOUND, "unknown-bulk", f"There is no revocation of many {number}.")
    return bulk


def _tell(
    connection: Connection, event: Event, bulk: Bulk, *, now: datetime, actor: Actor, comment: str
) -> None:
    detail = {
        "selection": bulk.selection, "reason": bulk.reason.value, "total": bulk.total,
        "digest": bulk.digest.hex(), "revoked": bulk.revoked, "skipped": bulk.skipped, "comment": comment,
    }  # fmt: skip
    record(connection, now=now, actor=actor, event=event, subject=str(bulk.id), detail=detail)

"""Many lists of many days, read as one: what a restored record must be told, and what it must not."""

from datetime import UTC, datetime, timedelta

import pytest

from pki.model import Authority, AuthorityState, CrlForm, RevocationAction, RevocationReason, serial_of
from pki.record.revocations import LastEvent
from pki.recovery.restore import PublishedEntry, PublishedList, lacks_event, together

NOON = datetime(2026, 9, 1, 12, tzinfo=UTC)
CA = Authority(
    "persons-1", "issuing", "root-1", "CN=x", "persons-1", 1, b"", NOON, NOON, "persons", 1,
    AuthorityState.ACTIVE, offline=False, crl_form=CrlForm.NATIONAL,
)  # fmt: skip
ONE = serial_of(1)
HOLD, LOST, REPLACED = (
    RevocationReason.CERTIFICATE_HOLD,
    RevocationReason.KEY_COMPROMISE,
    RevocationReason.SUPERSEDED,
)
REVOKE, RELEASE, HELD = RevocationAction.REVOKE, RevocationAction.RELEASE, RevocationAction.HOLD


def listed(
    number: int, reason: RevocationReason | None, *, delta: bool = False, at: int = 0
) -> PublishedList:
    """A list of the hour `number` that tells of serial 1, revoked in hour `at`."""
    told = PublishedEntry(ONE, CA, NOON + timedelta(hours=at), reason, number)
    return PublishedList(
        (CA.id, None), number, NOON + timedelta(hours=number), complete=not delta, told=(told,)
    )


def empty(number: int, scope: str | None = None) -> PublishedList:
    return PublishedList((CA.id, scope), number, NOON + timedelta(hours=number), complete=True, told=())


@pytest.mark.parametrize(
    ("lists", "reason"),
    [
        ([listed(1, REPLACED)], REPLACED),
        ([listed(2, LOST), listed(1, REPLACED)], LOST),
        ([listed(1, HOLD), listed(2, REPLACED)], REPLACED),
        # It expired and left the list; to say so again harms nobody.
        ([listed(1, REPLACED), empty(2)], REPLACED),
        # A hold that is gone from a later list was lifted; another shard's list says nothing of it.
        ([listed(1, HOLD), empty(2)], None),
        ([listed(1, HOLD), empty(2, "other")], HOLD),
        ([empty(1), listed(2, HOLD)], HOLD),
        ([listed(1, HOLD), listed(2, None, delta=True)], None),
        ([listed(1, HOLD), listed(2, HOLD, delta=True)], HOLD),
    ],
)
def test_the_later_list_is_believed(lists: list[PublishedList], reason: RevocationReason | None) -> None:
    told = together(lists)
    assert {serial: one.reason for serial, one in told.items()} == ({} if reason is None else {ONE: reason})


def last(action: RevocationAction, reason: RevocationReason, hour: float) -> LastEvent:
    return LastEvent(7, action, "x", reason, NOON + timedelta(hours=hour, microseconds=5))


@pytest.mark.parametrize(
    ("known", "told", "entered"),
    [
        (None, (REPLACED, 1), REPLACED),
        (None, (HOLD, 1), HOLD),
        (last(REVOKE, REPLACED, 1), (REPLACED, 1), None),
        (last(REVOKE, REPLACED, 1), (HOLD, 0), None),
        # Revoked is final; only a lost key has no way back, so it was said last.
        (last(REVOKE, REPLACED, 1), (LOST, 1), LOST),
        (last(REVOKE, LOST, 1), (REPLACED, 1), None),
        (last(REVOKE, REPLACED, 1), (RevocationReason.PRIVILEGE_WITHDRAWN, 1), None),
        (last(HELD, HOLD, 1), (HOLD, 1), None),
        (last(HELD, HOLD, 1), (REPLACED, 1), REPLACED),
        # On hold, released in the second hour: the list of the first hour tells the record nothing.
        (last(RELEASE, HOLD, 2), (HOLD, 1), None),
        (last(RELEASE, HOLD, 2), (HOLD, 3), HOLD),
        (last(RELEASE, HOLD, 2), (REPLACED, 1), REPLACED),
    ],
)
def test_what_the_record_knows_already_is_not_entered_twice(
    known: LastEvent | None, told: tuple[RevocationReason, int], entered: RevocationReason | None
) -> None:
    reason, hour = told
    missing = lacks_event(PublishedEntry(ONE, CA, NOON + timedelta(hours=hour), reason, 9), known)
    assert (missing and missing.reason) is entered

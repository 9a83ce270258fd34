"""A change of powers handed in: judged at once, so that who brings it hears why not, and queued for the log.

The log alone gives it force (`state.py`), for the same reasons or none.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any

from sqlalchemy import Connection

from directory.base.audit import Actor, Event, record
from directory.base.errors import Kind, Refusal
from directory.base.locks import lock_until_commit
from pki.acts.act import ActKind
from pki.powers.state import NoForceError, PowerLine, Powers, subject_of

# Who may not, or not alone; what stands against it; everything else is no such change.
_KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        **dict.fromkeys(
            ("another-person", "credential-revoked", "credential-unknown", "too-few-persons"), Kind.FORBIDDEN
        ),
        **dict.fromkeys(
            ("expired", "held-already", "key-known", "not-held", "too-few-administrators", "used-before"),
            Kind.CONFLICT,
        ),
    }
)


def change_powers(
    connection: Connection,
    *,
    now: datetime,
    powers: Powers,
    kind: ActKind,
    signed: Sequence[bytes],
    shown: Mapping[str, Any],
    actor: Actor,
) -> None:
    """Queue the line of this change; refuses what would have no force, or was signed for another `kind`.

    `powers` are those of now (`Followed.current`). Two changes handed in at once may both be queued, and the
    second have no force: `sceau person list` tells what became of each.
    """
    lock_until_commit(connection, "powers")
    line = PowerLine(now, tuple(signed), shown)
    try:
        agreed = powers.copy().follow(line)
    except NoForceError as error:
        raise refused(error) from error
    if agreed is not kind:
        text = f"Those who signed did not sign {kind.value}, but {agreed.value}."
        raise Refusal(Kind.UNACCEPTABLE, "no-agreement", text)
    detail = {"signed": [text.decode() for text in signed], "shown": dict(shown)}
    subject = subject_of(kind, shown, powers.anchors.installation)
    record(connection, now=now, actor=actor, event=Event.POWER_CHANGED, subject=subject, detail=detail)


def refused(error: NoForceError) -> Refusal:
    """What has no force, as it is told to who asks."""
    return Refusal(_KINDS.get(error.code, Kind.UNACCEPTABLE), error.code, str(error))

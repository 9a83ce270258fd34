"""A token and its body take trust from so many within a rolling hour; beyond, a second person agrees."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from directory import withdrawal_limits
from directory.access import Allowance, Role, Token, revoke_token
from directory.attention import Noted, matters_noted
from directory.base.audit import Actor
from directory.base.db import connect_engine, transaction
from directory.base.errors import Refusal
from directory.withdrawal_limits import ADMINISTRATORS, Agreement
from tests.factories import seed_token

ROOT = Path(__file__).resolve().parents[2]
SMALL = Allowance(3, 5)
MINUTE = timedelta(minutes=1)
WINDOW = timedelta(hours=1)
Holder = Callable[..., Token]
# What each of the two processes runs: six connections ask twenty times each, all at once.
ASKING = """
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from directory import withdrawal_limits
from directory.access import Role, Token
from directory.base.db import connect_engine, transaction
from directory.base.errors import Refusal

engine, now = connect_engine(sys.argv[1]), datetime.fromisoformat(sys.argv[3])
token = Token(int(sys.argv[2]), "stolen", Role.REGISTRAR, "CNOM", now)
print("ready", flush=True)
sys.stdin.readline()

def ask(_):
    try:
        with transaction(engine) as connection:
            withdrawal_limits.charge(connection, token, now=now)
    except Refusal as refusal:
        return refusal.code
    return "ok"

with ThreadPoolExecutor(6) as threads:
    answers = list(threads.map(ask, range(120)))
print(answers.count("ok"), answers.count("withdrawal-limit-reached"))
engine.dispose()
"""


@pytest.fixture
def holder(engine: Engine, now: datetime) -> Holder:
    """`holder("a")`, `holder("b", Role.ADMIN)`: a token with a small allowance, live for days."""

    def made(name: str, role: Role = Role.REGISTRAR, authority: str = "CNOM") -> Token:
        authority = authority if role is Role.REGISTRAR else ""
        number = seed_token(engine, name, role=role.value, authority=authority)
        return Token(number, name, role, authority, now + timedelta(days=9), allowance=SMALL)

    return made


def charge(engine: Engine, token: Token, at: datetime, number: int = 1) -> str | Refusal:
    """'ok', or the refusal."""
    try:
        with withdrawal_limits.audit_limit_refusals(engine, at), transaction(engine) as connection:
            withdrawal_limits.charge(connection, token, now=at, number=number)
    except Refusal as refusal:
        return refusal
    return "ok"


def charged(engine: Engine, token: Token, at: datetime, times: int) -> list[str]:
    answers = [charge(engine, token, at) for _ in range(times)]
    return [one if isinstance(one, str) else f"{one.details['scope']}" for one in answers]


def agree(engine: Engine, token: Token, token_id: int, at: datetime) -> Agreement | str:
    try:
        with transaction(engine) as connection:
            return withdrawal_limits.agree(
                connection, now=at, token=token, token_id=token_id, reason="list read again"
            )
    except Refusal as refusal:
        return refusal.code


def noted(engine: Engine, authority: str | None = None) -> list[Noted]:
    with engine.connect() as connection:
        return matters_noted(
            connection, authority=authority, kind="withdrawals-half-used", closed=False, after=None, limit=9
        )


def audited(engine: Engine, event: str) -> list[tuple[str, str, dict[str, Any]]]:
    query = text("SELECT actor, subject, detail FROM audit_pending WHERE event = :event ORDER BY id")
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(query, {"event": event})]


def let_go(engine: Engine, at: datetime) -> int:
    with transaction(engine) as connection:
        return withdrawal_limits.close_matters(connection, SMALL, at)


def test_a_token_stops_at_its_limit_and_is_told_when_more_opens(
    engine: Engine, now: datetime, holder: Holder
) -> None:
    first = holder("first")
    assert charged(engine, first, now, 2) == ["ok", "ok"]
    assert charge(engine, first, now + MINUTE) == "ok"
    refused = charge(engine, first, now + 2 * MINUTE)
    assert isinstance(refused, Refusal)
    assert (refused.code, dict(refused.details)) == (
        "withdrawal-limit-reached",
        {
            "scope": f"token:{first.id}", "limit": 3, "token": first.id,
            "opens_at": (now + WINDOW).isoformat(), "retry_after": 58 * 60 + 1,
        },
    )  # fmt: skip
    two = charge(engine, first, now + 2 * MINUTE, number=3)
    assert isinstance(two, Refusal)
    assert two.details["opens_at"] == (now + MINUTE + WINDOW).isoformat()


def test_the_window_rolls_and_the_turn_of_the_hour_gives_nothing(
    engine: Engine, now: datetime, holder: Holder
) -> None:
    first, before = holder("first"), now - MINUTE
    assert charged(engine, first, before, 3) == ["ok"] * 3
    assert charged(engine, first, now + MINUTE, 1) == [f"token:{first.id}"]
    assert charged(engine, first, before + WINDOW, 4) == [*["ok"] * 3, f"token:{first.id}"]


def test_all_tokens_of_one_body_stop_at_its_limit_and_no_other_body_does(
    engine: Engine, now: datetime, holder: Holder
) -> None:
    first, second, other = holder("first"), holder("second"), holder("other", authority="CNOP")
    assert charged(engine, first, now, 3) == ["ok"] * 3
    assert charged(engine, second, now, 3) == ["ok", "ok", "authority:CNOM"]
    assert charged(engine, other, now, 3) == ["ok"] * 3


def test_administrators_are_one_body_and_each_operator_another(
    engine: Engine, now: datetime, holder: Holder
) -> None:
    one, two = holder("one", Role.ADMIN), holder("two", Role.ADMIN)
    assert charged(engine, one, now, 3) + charged(engine, two, now, 3) == [*["ok"] * 5, ADMINISTRATORS]
    mine = replace(holder("mine", Role.OPERATOR), operator_id=1)
    theirs = replace(holder("theirs", Role.OPERATOR), operator_id=2)
    assert charged(engine, mine, now, 3) + charged(engine, theirs, now, 3) == ["ok"] * 6
    auditor = charge(engine, holder("auditor", Role.AUDITOR), now)
    assert isinstance(auditor, Refusal)
    assert auditor.code == "role-lacking"


def test_an_act_on_more_than_the_limit_takes_nothing_and_never_opens_by_waiting(
    engine: Engine, now: datetime, holder: Holder
) -> None:
    first = holder("first")
    refused = charge(engine, first, now, number=4)
    assert isinstance(refused, Refusal)
    assert "opens_at" not in refused.details
    assert "not in one act" in refused.text
    assert charged(engine, first, now, 3) == ["ok"] * 3


def test_a_row_of_a_host_whose_clock_is_ahead_counts(engine: Engine, now: datetime, holder: Holder) -> None:
    first = holder("first")
    assert charged(engine, first, now + MINUTE, 3) == ["ok"] * 3
    assert charged(engine, first, now, 1) == [f"token:{first.id}"]


def test_what_a_clock_that_jumped_dated_ahead_holds_up_nobody(
    engine: Engine, now: datetime, holder: Holder
) -> None:
    first, second, ahead = holder("first"), holder("second"), now + timedelta(days=8)
    assert charged(engine, first, ahead, 4) == [*["ok"] * 3, f"token:{first.id}"]
    assert isinstance(agree(engine, second, first.id, ahead), Agreement)
    # Neither what was used in the future counts, nor what was agreed there.
    assert charged(engine, first, now, 4) == [*["ok"] * 3, f"token:{first.id}"]
    assert len(audited(engine, "withdrawal-limit.reached")) == 2
    # Voided with the instants signed there, it is used now, and gone within the hour.
    with transaction(engine) as connection:
        withdrawal_limits.redate(connection, now + WINDOW)
    assert charged(engine, first, now + WINDOW, 1) == [f"token:{first.id}"]
    assert charged(engine, first, now + 2 * WINDOW, 1) == ["ok"]


def test_the_refused_act_itself_does_not_say_when_more_opens(
    engine: Engine, now: datetime, holder: Holder
) -> None:
    first, earlier = holder("first"), now - MINUTE / 2
    assert charged(engine, first, now, 3) == ["ok"] * 3
    refused = charge(engine, first, earlier)
    assert isinstance(refused, Refusal)
    assert refused.details["opens_at"] == (now + WINDOW).isoformat()


def test_two_processes_with_six_connections_each_do_not_go_beyond(
    engine: Engine, database_url: str, now: datetime, holder: Holder
) -> None:
    stolen = replace(holder("stolen"), allowance=Allowance())
    asked = [sys.executable, "-c", ASKING, database_url, str(stolen.id), now.isoformat()]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    processes = [
        subprocess.Popen(asked, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(2)
    ]
    for one in processes:
        assert one.stdout
        assert one.stdout.readline() == "ready\n"
    for one in processes:
        assert one.stdin
        one.stdin.write("go\n")
        one.stdin.flush()
    answers = [tuple(map(int, one.communicate()[0].split())) for one in processes]
    assert sum(done for done, _ in answers) == stolen.allowance.token
    assert sum(refused for _, refused in answers) == 240 - stolen.allowance.token
    with engine.connect() as connection:
        query = text("SELECT scope, sum(used) FROM withdrawal_use GROUP BY scope ORDER BY scope")
        assert [tuple(row) for row in connection.execute(query)] == [
            ("authority:CNOM", 60), (f"token:{stolen.id}", 60),
        ]  # fmt: skip


def test_a_restart_forgets_nothing(engine: Engine, database_url: str, now: datetime, holder: Holder) -> None:
    first, second = holder("first"), holder("second")
    charged(engine, first, now, 3)
    agree(engine, second, first.id, now)
    charged(engine, first, now, 3)
    again = connect_engine(database_url)
    assert charged(again, first, now, 1) == [f"token:{first.id}"]
    again.dispose()


def test_a_second_person_opens_one_more_allotment_for_an_hour(
    engine: Engine, now: datetime, holder: Holder
) -> None:
    first, second = holder("first"), holder("second")
    assert charged(engine, first, now, 4)[-1] == f"token:{first.id}"
    made = agree(engine, second, first.id, now + MINUTE)
    assert made == Agreement(
        first.id, (f"token:{first.id}", "authority:CNOM"), 3, f"token:{second.id}", now + MINUTE,
        now + MINUTE + WINDOW,
    )  # fmt: skip
    assert charged(engine, first, now + MINUTE, 4) == [*["ok"] * 3, f"token:{first.id}"]
    ((actor, subject, detail),) = audited(engine, "withdrawal-limit.agreed")
    assert (actor, subject, detail["body"], detail["number"]) == (
        f"token:{second.id}", f"token:{first.id}", "authority:CNOM", 3,
    )  # fmt: skip
    # The body's limit grew by as much, and by no more: 5 and 3.
    assert charged(engine, second, now + MINUTE, 3) == ["ok", "ok", "authority:CNOM"]
    # An hour later the agreement is gone with what it let through.
    assert charged(engine, first, now + MINUTE + WINDOW, 4) == [*["ok"] * 3, f"token:{first.id}"]


def test_a_body_at_its_limit_goes_on_when_a_second_person_agrees(
    engine: Engine, now: datetime, holder: Holder
) -> None:
    first, second, third = (holder(name) for name in ("first", "second", "third"))
    assert charged(engine, first, now, 3) + charged(engine, second, now, 2) == ["ok"] * 5
    assert charged(engine, third, now, 1) == ["authority:CNOM"]
    assert isinstance(agree(engine, first, third.id, now), Agreement)
    assert charged(engine, third, now, 4) == [*["ok"] * 3, "authority:CNOM"]


def test_who_may_not_agree(engine: Engine, now: datetime, holder: Holder) -> None:
    first, admin, other = holder("first"), holder("admin", Role.ADMIN), holder("other", authority="CNOP")
    charged(engine, first, now, 3)
    revoked, second = holder("revoked"), holder("second")
    with transaction(engine) as connection:
        revoke_token(connection, now=now, actor=Actor("test"), token_id=revoked.id)
    answers = {
        "oneself": agree(engine, first, first.id, now),
        "an administrator": agree(engine, admin, first.id, now),
        "another body": agree(engine, other, first.id, now),
        "an auditor": agree(engine, holder("auditor", Role.AUDITOR), first.id, now),
        "for nobody": agree(engine, first, 999_999, now),
        "for who may do nothing": agree(engine, second, revoked.id, now),
    }
    assert answers == {
        "oneself": "self-approval", "an administrator": "unknown-token", "another body": "unknown-token",
        "an auditor": "role-lacking", "for nobody": "unknown-token",
        "for who may do nothing": "unknown-token",
    }  # fmt: skip
    assert charged(engine, first, now, 1) == [f"token:{first.id}"]


def test_nobody_agrees_in_advance_to_more_than_one_allotment(
    engine: Engine, now: datetime, holder: Holder
) -> None:
    first, second = holder("first"), holder("second")
    assert isinstance(agree(engine, second, first.id, now), Agreement)
    assert agree(engine, second, first.id, now) == "allotment-open"
    charged(engine, first, now, 3)
    assert isinstance(agree(engine, second, first.id, now), Agreement)
    assert charged(engine, first, now, 7) == [*["ok"] * 6, f"token:{first.id}"]


def test_half_of_a_limit_is_in_attention_until_its_hour_has_passed(
    engine: Engine, now: datetime, holder: Holder
) -> None:
    first, second = holder("first"), holder("second")
    charged(engine, first, now, 1)
    assert noted(engine) == []
    charged(engine, first, now, 1)
    (matter,) = noted(engine)
    assert (matter.subject, matter.authorities, matter.detail) == (
        f"token:{first.id}", ("CNOM",), {"limit": 3, "within_minutes": 60},
    )  # fmt: skip
    charged(engine, second, now + MINUTE, 1)
    assert [one.subject for one in noted(engine, "CNOM")] == [f"token:{first.id}", "authority:CNOM"]
    assert noted(engine, "CNOP") == []
    # What was refused has not been used, and an agreement does not put the look off.
    assert let_go(engine, now + WINDOW - MINUTE) == 0
    assert let_go(engine, now + WINDOW) == 2
    assert noted(engine) == []
    charged(engine, first, now + WINDOW + MINUTE, 2)
    assert [one.subject for one in noted(engine)] == [f"token:{first.id}"]


def test_the_largest_share_of_each_kind_is_counted_and_nobody_named(
    engine: Engine, now: datetime, holder: Holder
) -> None:
    charged(engine, holder("first"), now, 2)
    charged(engine, holder("second"), now, 1)
    with engine.connect() as connection:
        found = dict(withdrawal_limits.shares(connection, SMALL, now))
        later = dict(withdrawal_limits.shares(connection, SMALL, now + WINDOW))
    assert found == {"token": 2 / 3, "authority": 3 / 5, "operator": 0, ADMINISTRATORS: 0}
    assert set(later.values()) == {0.0}


def test_the_log_hears_once_in_a_window_that_a_limit_was_reached(
    engine: Engine, now: datetime, holder: Holder
) -> None:
    first = holder("first")
    charged(engine, first, now, 6)
    assert audited(engine, "withdrawal-limit.reached") == [
        (
            f"token:{first.id}", f"token:{first.id}",
            {"limit": 3, "opens_at": (now + WINDOW).isoformat()},
        ),
    ]  # fmt: skip
    charged(engine, first, now + WINDOW, 5)
    assert len(audited(engine, "withdrawal-limit.reached")) == 2


def test_a_body_sees_its_own_and_auditors_see_all(engine: Engine, now: datetime, holder: Holder) -> None:
    first, other = holder("first"), holder("other", authority="CNOP")
    charged(engine, first, now, 2)
    charged(engine, other, now, 1)
    with engine.connect() as connection:
        seen = {
            role.name: [
                (one.scope, one.used, one.left)
                for one in withdrawal_limits.standings_seen(connection, token=role, now=now)
            ]
            for role in (first, holder("auditor", Role.AUDITOR))
        }
    mine = [("authority:CNOM", 2, 3), (f"token:{first.id}", 2, 1)]
    theirs = [("authority:CNOP", 1, 4), (f"token:{other.id}", 1, 2)]
    assert seen == {"first": mine, "auditor": sorted([*mine, *theirs])}


def test_what_was_counted_over_a_day_ago_is_forgotten(engine: Engine, now: datetime, holder: Holder) -> None:
    charged(engine, holder("first"), now, 2)
    let_go(engine, now + timedelta(days=1, minutes=1))
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM withdrawal_use")).scalar_one() == 0


@pytest.mark.parametrize(("token", "authority"), [(0, 5), (6, 5), (-1, -1)])
def test_an_allowance_lets_somebody_act(token: int, authority: int) -> None:
    with pytest.raises(ValueError, match="limit"):
        Allowance(token, authority)

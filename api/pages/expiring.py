"""Certificates that run out without a successor: a page of figures for anybody.

Which these are is `pki/monitoring/expiry_notices.py`'s; the list for who has a token is
`api/rest/expiring.py`.
"""

from datetime import datetime, timedelta

from flask import Blueprint, render_template

from api.wiring import Container
from api.words.expiring import CONDITION_WORDS, KIND_WORDS, PROFILE_WORDS
from api.words.figures import Said, number
from api.words.registers import instant
from directory.base.db import transaction
from pki.monitoring import expiry_notices, service_expiry
from pki.monitoring.service_expiry import Condition

# Counting passes over what ends within 60 days; anybody may ask.
_HELD = timedelta(seconds=5)
# As the house's style sheet names what is well, what waits and what is late.
CONDITION_STYLE = {Condition.OK: "fresh", Condition.SOON: "held", Condition.DUE: "late"}


def expiring_page(container: Container) -> Blueprint:
    """/expiring on `container`: figures only, made anew at most every five seconds."""
    made = Blueprint("expiring_page", __name__)
    kept: list[tuple[datetime, str]] = []

    @made.get("/expiring")
    def page() -> str:
        now = container.clock()
        if not kept or not timedelta() <= now - kept[-1][0] < _HELD:
            kept[:] = [(now, _page(container, now))]
        return kept[-1][1]

    return made


def _page(container: Container, now: datetime) -> str:
    with transaction(container.engine, read_only=True) as connection:
        counted, untold = expiry_notices.counts(connection, now), expiry_notices.untold(connection, now)
        own = [(lifetime, lifetime.condition(now)) for lifetime in service_expiry.ours(connection, now)]
    rows = [
        (PROFILE_WORDS.get(profile, Said(profile, profile)), authority, numbers)
        for (profile, authority), numbers in counted.items()
    ]
    return render_template(
        "expiring.html", rows=rows, own=own, untold=untold, kinds=KIND_WORDS, conditions=CONDITION_WORDS,
        styles=CONDITION_STYLE, instant=instant, number=number, now=now, steps=sorted(expiry_notices.STEPS),
    )  # fmt: skip

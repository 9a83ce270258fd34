"""How fast people and places are found, asked as people ask, over REST.

`--size 1950000` is the nation. Registers are made and taken as the figures of a night make and take them.
"""

import http.client
import json
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from http import HTTPStatus
from random import Random
from typing import Any, Self
from urllib.parse import urlencode, urlsplit

from benches.harness import Bench, Figure, fresh_record, granian
from benches.night import ORDER, made, take
from sqlalchemy import Connection, Engine, text

# Two who ask without a pause, on two cores that they share with what they ask.
ASKING = 2
DIFFERENT = 2_000
DEEP, DEEP_SHARE = 5, 0.2
TARGET_MS = 100
COMMON = """
    SELECT lower(split_part(sort_name, ' ', 1)) FROM search_person
    GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT 30
"""
PEOPLE = """
    SELECT lower(p.family_name) AS family, lower(p.given_name) AS given, r.profession_code AS profession,
           s.skill_code AS skill, r.department, r.town, r.structure_name AS place
    FROM practitioner p JOIN practice r USING (national_id) JOIN skill s USING (national_id)
    WHERE r.department <> '' AND r.town <> '' AND r.structure_name <> ''
    ORDER BY hashtext(p.national_id) LIMIT :count
"""
SERVED = """
import dataclasses
from pathlib import Path
from api.app import create_app
from api.settings import load_settings
from api.wiring import build
settings = dataclasses.replace(load_settings(Path({state!r})), database_url={url!r})
application = create_app(build(settings))
"""


def search(bench: Bench) -> Figure:
    """p99 in ms of searches over REST, first pages and deep ones, beside one person by number."""
    day1, _ = made(bench.size or 100_000)
    with fresh_record(bench) as engine:
        for register in ORDER:
            take(engine, day1, register)
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE"))
        admit(engine, bench)
        with engine.connect() as connection:
            questions = asked(connection, Random(1))  # noqa: S311 - inventions
            numbers = connection.execute(text("SELECT national_id FROM practitioner LIMIT 500")).scalars()
            by_number = [f"/v1/practitioners/{number}" for number in numbers]
        source = SERVED.format(
            state=str(bench.settings.state), url=engine.url.render_as_string(hide_password=False)
        )
        with granian(bench, "searched", source) as url:
            # What is asked is asked all day: the figure is not that of the first morning.
            Asking(bench, url, questions).run(bench.seconds)
            searching = Asking(bench, url, questions).run(max(20, 3 * bench.seconds))
            one = Asking(bench, url, by_number).run(bench.seconds)
    told = {
        "p50": searching.within(0.5), "most": searching.within(1), "answers": len(searching.took),
        "one person by number, p50": one.within(0.5), "one person by number, p99": one.within(0.99),
    }  # fmt: skip
    ours, beside = searching.within(0.99), one.within(0.99)
    return Figure("search", ours, "ms, p99", told, beside / ours, f"< {TARGET_MS} ms", ours < TARGET_MS)


def admit(engine: Engine, bench: Bench) -> None:
    """Let the installation's operator into this record too."""
    secret = bench.operator["Authorization"].removeprefix("Bearer ")
    now = datetime.now(UTC)
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO api_token (name, secret_hash, role, created_at, expires_at)"
                " VALUES ('bench', :hash, 'operator', :now, :ends)"
            ),
            {"hash": sha256(secret.encode()).digest(), "now": now, "ends": now + timedelta(days=1)},
        )


def asked(connection: Connection, dice: Random) -> list[str]:
    """Questions as people ask them, about people of the record."""
    common = list(connection.execute(text(COMMON)).scalars())
    people = connection.execute(text(PEOPLE), {"count": DIFFERENT}).mappings()
    return [question(person, common, dice) for person in people]


def question(person: Mapping[str, str], common: Sequence[str], dice: Random) -> str:
    """One question, of the kinds that people ask and about as often."""
    family, given = person["family"], person["given"]
    letters = "".join(filter(str.isalpha, family))
    kinds = {
        "common name": (12, {"name": dice.choice(common)}),
        "name as it comes": (12, {"name": family}),
        "family and given name": (
            22,
            {"name": dice.choice((f"{given} {family[:5]}", f"{family} {given}"))},
        ),
        "two or three letters": (14, {"name": letters[: dice.choice((2, 3))]}),
        "name and department": (10, {"name": family[:4], "department": person["department"]}),
        "profession and department": (10, {field: person[field] for field in ("profession", "department")}),
        "town and skill": (8, {field: person[field] for field in ("town", "skill")}),
        "place of practice": (7, {"organisation": person["place"]}),
        "establishment": (5, {"name": person["place"]}),
    }
    weights = [weight for weight, _ in kinds.values()]
    kind = dice.choices(list(kinds), weights)[0]
    resource = "organisations" if kind == "establishment" else "practitioners"
    return f"/v1/{resource}?{urlencode(kinds[kind][1])}"


class Asking:
    """Some who ask one question after another, and note how long each answer took."""

    def __init__(self, bench: Bench, url: str, paths: list[str]) -> None:
        self._headers, self._address = bench.operator, urlsplit(url)
        self._paths = iter(paths * 1000)
        self.took: list[float] = []

    def run(self, seconds: float) -> Self:
        """Ask for so long; ends the bench on any answer but 200."""
        ends = time.monotonic() + seconds
        with ThreadPoolExecutor(ASKING) as threads:
            for asking in [threads.submit(self._ask, ends) for _ in range(ASKING)]:
                asking.result()
        self.took.sort()
        return self

    def within(self, share: float) -> float:
        """Milliseconds that this share of the answers took at most."""
        return 1000 * self.took[min(len(self.took) - 1, int(len(self.took) * share))]

    def _ask(self, ends: float) -> None:
        link = http.client.HTTPConnection(self._address.hostname, self._address.port)
        dice = Random(2)  # noqa: S311 - same
        while time.monotonic() < ends:
            path = next(self._paths)
            answer = self._answer(link, path)
            pages = DEEP if dice.random() < DEEP_SHARE else 0
            while pages and (cursor := answer.get("next")):
                answer, pages = self._answer(link, f"{path}&after={cursor}"), pages - 1

    def _answer(self, link: http.client.HTTPConnection, path: str) -> dict[str, Any]:
        started = time.monotonic()
        link.request("GET", path, headers=self._headers)
        answer = link.getresponse()
        body = answer.read()
        self.took.append(time.monotonic() - started)
        if answer.status != HTTPStatus.OK:
            raise SystemExit(f"{path}: {answer.status} {body[:200]!r}")
        return json.loads(body)


FIGURES = {figure.__name__: figure for figure in (search,)}

"""One recipient checked before the framework: what every message of a country asks.

All that is not plain is left to `recipients.py`: an instant in the past, another spelling, an address to try.
So are refusals, and a record that is behind or cannot be written. Of what is plain both say the same.
"""

import logging
import re
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import NamedTuple
from urllib.parse import unquote

from api.auth.bearer import LONGEST_SECRET
from api.front.answers import Answer, Scope
from api.front.application import Answered
from api.front.askers import Asker
from api.http import freshness, prices
from api.http.access_log import note, note_soon
from api.http.guarding import guarding
from api.http.verdict_json import octets, written
from api.process.gathering import Finding, Gathering, Question
from api.rest.recipient_schemas import MAY_CHECK
from api.rest.recipients import PATH, check_recipient
from api.wiring import Container
from directory.base.errors import Refusal
from directory.identifiers import address_or_none
from pki.verdict.decide import Occasion, decide
from pki.verdict.trial_addresses import DOMAIN

_LOG = logging.getLogger("sceau.verdict")
_PREFIX = PATH.partition("<")[0]
_PLAIN = re.compile(r"[A-Za-z0-9._%+'-]{1,64}@[A-Za-z0-9.-]{3,253}")
_SENDER = re.compile(r"sender=([A-Za-z0-9._@%-]{3,400})")
_SCHEME = "Bearer sceau_"


class _Plain(NamedTuple):
    """The recipient as it was spelt, the canonical addresses of a question, and who asks it."""

    spelt: str
    addresses: tuple[str, ...]
    secret: str


class QuickRecipient:
    """Takes plain questions on any thread; what is not answered at once is, on the gathering's."""

    def __init__(self, container: Container, gathering: Gathering) -> None:
        self._container, self._gathering = container, gathering
        self._trials = container.settings.trial_addresses
        self._told: tuple[Mapping[str, datetime | None], str] = ({}, "")
        self._guarding = [
            ("Content-Type", "application/json"),
            *guarding(secure=container.settings.base_url.startswith("https:")),
            ("Cache-Control", "no-store"),
        ]

    def at_once(self, scope: Scope, source: str) -> Answer | None:
        """The answer to a plain question, where the last look at the record vouches for it."""
        began = time.perf_counter()
        plain = self._plain(scope)
        if plain is None or not self._container.writing.looked_lately():
            return None
        finding = self._gathering.at_once(plain.addresses, plain.secret)
        if finding is None:
            return None
        return self._answer(plain.spelt, finding, source, began, note_soon)

    def take(self, scope: Scope, asker: Asker) -> Callable[[Answered], None] | None:
        """What asks a plain question, and tells its answer, None for what others answer; None otherwise."""
        began = time.perf_counter()
        plain = self._plain(scope)
        if plain is None:
            return None

        def ask(answered: Answered) -> None:
            def told(finding: Finding | None) -> Callable[[], None]:
                given = None
                try:
                    if finding is not None:
                        given = self._answer(plain.spelt, finding, asker.source, began, note)
                except Exception:  # noqa: BLE001 - who asked is answered otherwise
                    _LOG.exception("a verdict could not be given before the framework")
                return partial(answered, given)

            self._gathering.ask(Question(plain.addresses, plain.secret, told))

        return ask

    def _plain(self, scope: Scope) -> "_Plain | None":
        path = scope.path
        if (
            scope.method != "GET"
            or not path.startswith(_PREFIX)
            or not self._container.watch.is_known_complete()
        ):
            return None
        asked = self._addresses(path[len(_PREFIX) :], scope.query_string)
        secret = _presented(scope)
        return None if asked is None or secret is None else _Plain(*asked, secret)

    def _addresses(self, spelt: str, query: str) -> tuple[str, tuple[str, ...]] | None:
        """The recipient as it was spelt, and the canonical addresses; None for what is not plain."""
        if not query and not self._trials and "/" not in spelt and self._gathering.remembers(spelt):
            return spelt, (spelt,)
        if not _PLAIN.fullmatch(spelt):
            return None
        parties = [spelt]
        if query:
            named = _SENDER.fullmatch(query)
            if named is None or not _PLAIN.fullmatch(sender := unquote(named[1])):
                return None
            parties.append(sender)
        canonical = tuple(address for address in map(address_or_none, parties) if address is not None)
        if len(canonical) < len(parties):
            return None
        if self._trials and any(address.endswith(f"@{DOMAIN}") for address in canonical):
            return None
        return spelt, canonical

    def _answer(
        self, spelt: str, finding: Finding, source: str, began: float, tell: Callable[..., None]
    ) -> Answer | None:
        container, token, now = self._container, finding.token, self._container.clock()
        if token is None or token.role not in MAY_CHECK:
            return None
        try:
            lifetime: timedelta = container.verdict_lifetime
        except Refusal:
            return None
        occasion = Occasion(now, now, lifetime, finding.sources)
        sides = finding.sides
        verdict = decide(spelt, sides[0], sides[1] if len(sides) > 1 else None, occasion)
        body = octets(written(verdict))
        # Last: what fails is asked again another way, and counted once.
        limits = prices.spent(container.readers, token, source, prices.ONE_ADDRESS.reading)
        if limits is None:
            return None
        headers = [
            *self._guarding,
            ("Content-Length", str(len(body))),
            (freshness.HEADER, self._dates(finding.sources)),
            (prices.POLICY_HEADER, limits[0]),
            (prices.HEADER, limits[1]),
        ]
        tell("GET", check_recipient.rule, 200, time.perf_counter() - began, token.id)
        return Answer(200, headers, body)

    def _dates(self, sources: Mapping[str, datetime | None]) -> str:
        """The header of these dates: the same until they are read anew."""
        known, told = self._told
        if known is not sources:
            told = freshness.written(sources)
            self._told = sources, told
        return told


def _presented(scope: Scope) -> str | None:
    """The secret of the one Authorization header; None for what the framework is to judge."""
    shown = scope.headers.get_all("authorization")
    if len(shown) != 1 or not shown[0].startswith(_SCHEME) or len(shown[0]) > LONGEST_SECRET:
        return None
    return str(shown[0].removeprefix("Bearer "))

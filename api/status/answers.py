"""One OCSP request to one reply: from memory, from the answers signed ahead, or signed now.

The table of answers is `pki.ocsp.decide`; here is only where the truth is read and how long it may be kept.
"""

import logging
import time
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from api.status.cache import AnswerCache, Kept
from api.status.reply import Reply, cacheable, uncacheable
from directory.base.clock import Clock
from pki import ocsp, ocsp_store
from pki.model import Standing
from pki.ocsp import Issuer, Outcome, Question
from pki.ocsp_store import Presigned
from pki.responders import Responder, Responders, load_responders

_LOG = logging.getLogger("sceau.status")
_Truth = tuple[Standing | None, Presigned | None]
MEDIA_TYPE = "application/ocsp-response"
# New keys and CAs are noticed within the first time; while one is missing, within the second.
_RELOAD_SECONDS = 60.0
_MISSING_RELOAD_SECONDS = 1.0
# RFC 9919 (was 5019) has GET used up to 255 octets; a longer path or body is answered, and not remembered,
# or a stranger could fill memory with spellings of one question.
_LONGEST_KEY = 512
# The listener forgets a standing at once; this only bounds how long an unused one stays.
_STANDING_LIFE = timedelta(minutes=10)


class Answers:
    """Answers the OCSP requests of one process; holds the responders' keys and what memory may keep.

    `engine` must reach the primary: a replica may not know yet what has been revoked.
    """

    def __init__(
        self, engine: Engine, *, keys_folder: Path, passphrase: bytes, hours: int, clock: Clock, size: int
    ) -> None:
        # One SELECT is one snapshot by itself: no BEGIN and ROLLBACK around it.
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._keys_folder = keys_folder
        self._passphrase = passphrase
        self._lifetime = timedelta(hours=hours)
        self._clock = clock
        self.replies: AnswerCache[Reply] = AnswerCache(size)
        self.standings: AnswerCache[Standing] = AnswerCache(size)
        self._responders = Responders((), {})
        self._reload_at = float("-inf")

    def remembered(self, key: str | bytes) -> Reply | None:
        """The reply given before to the same path or body, if it may still be given."""
        return self.replies.get(key, self._clock())

    def answer(self, request: bytes, key: str | bytes, *, is_get: bool) -> Reply:
        """The reply to a DER request; kept under `key` where that is allowed and it is short."""
        now = self._clock()
        # Counted before anything is read: what is heard in between forbids keeping what was read.
        generation = self.replies.generation
        question = ocsp.parse(request)
        responders = self._current(now)
        issuer = None if question is None else ocsp.find_issuer(responders.issuers, question)
        standing, presigned = self._truth(issuer, question, now) if issuer and question else (None, None)
        if question is None or issuer is None or standing is None:
            # Not to know our own CAs is our failure, not a stranger's question.
            mute = question is not None and not responders.issuers
            return _error(Outcome.TRY_LATER if mute else ocsp.decide(question, issuer, standing))
        responder = responders.by_authority.get(issuer.authority_id)
        if responder is None or responder.not_after <= now:
            return _error(Outcome.TRY_LATER)
        if presigned is None:
            presigned = self._sign(responder, issuer, question, standing, now)
        if question.nonce is not None or ocsp.decide(question, issuer, standing) is Outcome.UNKNOWN:
            # `unknown` may become `good` the next moment: a certificate is in the record before it leaves.
            return uncacheable(MEDIA_TYPE, presigned.der)
        reply = _reply(presigned, is_get=is_get)
        if len(key) <= _LONGEST_KEY:
            self.replies.keep(key, question.serial, Kept(reply, _half_life(presigned)), generation)
        return reply

    def _truth(self, issuer: Issuer, question: Question, now: datetime) -> _Truth:
        """What stands about the serial, and an answer signed ahead that still says so."""
        if question.nonce is not None:
            return self._standing(issuer, question, now), None
        standing, presigned = self._read(issuer, question)
        if standing is None or presigned is None:
            return standing, None
        young = presigned.this_update <= now < _half_life(presigned)
        usable = young and ocsp.agrees(presigned.der, issuer, question, standing)
        return standing, presigned if usable else None

    def _standing(self, issuer: Issuer, question: Question, now: datetime) -> Standing | None:
        key = (issuer.authority_id, question.serial)
        remembered = self.standings.get(key, now)
        if remembered is not None:
            return remembered
        generation = self.standings.generation
        standing, _ = self._read(issuer, question)
        # What is not issued yet may be the next moment: only what exists is remembered.
        if standing is not None and standing != Standing(None):
            self.standings.keep(key, question.serial, Kept(standing, now + _STANDING_LIFE), generation)
        return standing

    def _read(self, issuer: Issuer, question: Question) -> _Truth:
        """The record's word, now; no standing when it cannot be had."""
        try:
            with self._engine.connect() as connection:
                return ocsp_store.standing(connection, issuer.authority_id, question.serial, question.hash)
        except SQLAlchemyError:
            _LOG.exception("the record could not be read for OCSP")
            return None, None

    def _sign(
        self, responder: Responder, issuer: Issuer, question: Question, standing: Standing, now: datetime
    ) -> Presigned:
        lifetime = min(self._lifetime, responder.not_after - now)
        der = ocsp.sign(responder, issuer, question, standing, now=now, lifetime=lifetime)
        this_update = now.replace(microsecond=0)
        return Presigned(der, this_update, this_update + lifetime)

    def _current(self, now: datetime) -> Responders:
        """The CAs and keys, read again from time to time; the last ones known while the record is away."""
        if time.monotonic() < self._reload_at:
            return self._responders
        try:
            with self._engine.connect() as connection:
                self._responders = load_responders(connection, self._keys_folder, self._passphrase, now)
        except SQLAlchemyError:
            _LOG.exception("the responders could not be read")
        complete = 0 < len(self._responders.issuers) == len(self._responders.by_authority)
        self._reload_at = time.monotonic() + (_RELOAD_SECONDS if complete else _MISSING_RELOAD_SECONDS)
        return self._responders


def _reply(answer: Presigned, *, is_get: bool) -> Reply:
    if not is_get:
        return uncacheable(MEDIA_TYPE, answer.der)
    return cacheable(MEDIA_TYPE, answer.der, answer.this_update, answer.next_update)


def _error(outcome: Outcome) -> Reply:
    return uncacheable(MEDIA_TYPE, ocsp.refuse(outcome))


def _half_life(answer: Presigned) -> datetime:
    return answer.this_update + (answer.next_update - answer.this_update) / 2

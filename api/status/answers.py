"""One OCSP request to one reply: from memory, from the answers signed ahead, or signed now.

The table of answers is `pki.ocsp.response.decide`; here is only where the truth is read and how long it may
be kept.
"""

import logging
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from api.status.cache import AnswerCache, CachedValue
from api.status.reply import Reply, cacheable, uncacheable
from directory.base.clock import Clock
from directory.base.errors import Refusal
from pki.model import Serial, SerialStatus
from pki.ocsp import request as ocsp_request
from pki.ocsp import response as ocsp
from pki.ocsp import store as ocsp_store
from pki.ocsp.request import Question, Request
from pki.ocsp.responders import Responder, Responders, load_responders
from pki.ocsp.response import Finding, Issuer, Outcome
from pki.ocsp.store import Presigned
from pki.publication import intact
from pki.publication.intact import DamagedError
from pki.rollback.detection import Watch
from pki.rollback.signing_clock import SigningClock

_LOG = logging.getLogger("sceau.status")
MEDIA_TYPE = "application/ocsp-response"
# New keys and CAs are noticed within the first time; while one is missing, within the second.
_RELOAD_SECONDS = 60.0
_MISSING_RELOAD_SECONDS = 1.0
# RFC 9919 (was 5019) has GET used up to 255 octets. A longer path or body is answered, and not remembered: a
# stranger could fill memory with spellings of one question.
_LONGEST_KEY = 512
# The listener forgets a standing at once; this only bounds how long an unused one stays.
_STANDING_LIFE = timedelta(minutes=10)


class Answers:
    """Answers the OCSP requests of one process; holds the responders' keys and what memory may keep.

    `engine` must reach the primary: a replica may not know yet what has been revoked. `never_issued` is what
    is said of such a serial (`pki.ocsp.response.decide`); `ticks` counts seconds, as `time.monotonic` does.
    `watch` tells whether the record may be believed when it says nothing against a certificate. `shortened`
    tells for how long that may be said, instead of so long: not at all once nothing could be written for too
    long.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        keys_folder: Path,
        passphrase: bytes,
        hours: int,
        clock: Clock,
        size: int,
        never_issued: Outcome = Outcome.UNKNOWN,
        ticks: Callable[[], float] = time.monotonic,
        watch: Watch | None = None,
        shortened: Callable[[timedelta], timedelta] = lambda lifetime: lifetime,
    ) -> None:
        # One SELECT is one snapshot by itself: no BEGIN and ROLLBACK around it.
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._keys_folder = keys_folder
        self._passphrase = passphrase
        self._lifetime = timedelta(hours=hours)
        self._clock = clock
        self._never_issued = never_issued
        self._ticks = ticks
        self._watch = watch
        self._signing = SigningClock(engine, clock, keys_folder, ticks)
        self._shortened = shortened
        self.replies: AnswerCache[Reply] = AnswerCache(size)
        self.standings: AnswerCache[SerialStatus] = AnswerCache(size)
        self._responders = Responders((), {})
        self._loaded_at = float("-inf")

    def remembered(self, key: str | bytes) -> Reply | None:
        """The reply given before to the same path or body, if it may still be given."""
        if self._watch is not None and not self._watch.is_known_complete():
            return None
        if self._shortened(self._lifetime) < self._lifetime:
            return None
        return self.replies.get(key, self._clock())

    def answer(  # noqa: PLR0911 - each is a reason to say nothing yet
        self, request: bytes, key: str | bytes, *, is_get: bool
    ) -> Reply:
        """The reply to a DER request; kept under `key` where that is allowed and it is short."""
        now = self._clock()
        # Counted before anything is read: what is heard in between forbids keeping what was read.
        generation = self.replies.generation
        asked = ocsp_request.parse(request)
        if asked is None:
            return _error(ocsp.decide(None, None, None))
        issuer, responder = self._who_answers(asked, now)
        if issuer is None:
            # Not to know our own CAs is our failure, not a stranger's question.
            mute = not self._responders.issuers
            return _error(Outcome.TRY_LATER if mute else ocsp.decide(asked, None, None))
        if responder is None or responder.not_after <= now:
            return _error(Outcome.TRY_LATER)
        lifetime = self._shortened(self._lifetime)
        in_full = lifetime == self._lifetime
        # What could not be withdrawn for too long is not vouched for: as where the record lacks something.
        complete = bool(lifetime) and self._is_complete()
        findings, presigned = self._findings(asked, issuer, now, complete=complete)
        if not findings or any(finding.outcome is Outcome.TRY_LATER for finding in findings):
            # An error is about the whole answer.
            return _error(Outcome.TRY_LATER)
        if presigned is not None:
            presigned = _as_signed(presigned, responder)
        cut = not in_full and any(finding.outcome is Outcome.GOOD for finding in findings)
        if presigned is None or cut:
            signs_at = self._may_sign_at()
            if signs_at is None:
                return _error(Outcome.TRY_LATER)
            presigned = self._sign(
                responder, issuer, findings, asked.nonce, signs_at, lifetime if cut else self._lifetime
            )
        if not (complete and in_full and _may_be_kept(asked, findings)):
            return uncacheable(MEDIA_TYPE, presigned.der)
        reply = _reply(presigned, is_get=is_get)
        if len(key) <= _LONGEST_KEY:
            kept = CachedValue(reply, _half_life(presigned), presigned.this_update)
            self.replies.keep(key, asked.questions[0].serial, kept, generation)
        return reply

    def _who_answers(self, asked: Request, now: datetime) -> tuple[Issuer | None, Responder | None]:
        """The one CA of ours that is asked about, and its responder."""
        known = self._current(now, _RELOAD_SECONDS)
        issuer = ocsp.find_issuer(known.issuers, asked)
        if issuer is None:
            # A CA made a moment ago may have issued already (rule 13 of the incidents: fresh, and unknown).
            known = self._current(now, _MISSING_RELOAD_SECONDS)
            issuer = ocsp.find_issuer(known.issuers, asked)
        return issuer, None if issuer is None else known.by_authority.get(issuer.authority_id)

    def _is_complete(self) -> bool:
        """Whether the record knows all that was shown of it; not when that cannot be found out."""
        try:
            return self._watch is None or not self._watch.lacks()
        except SQLAlchemyError:
            _LOG.exception("whether the record is complete could not be read")
            return False

    def _may_sign_at(self) -> datetime | None:
        """The instant to sign under; None while this host's clock does not let it sign."""
        try:
            return self._signing.instant()
        except Refusal:
            return None
        except (SQLAlchemyError, OSError):
            _LOG.exception("whether this host's clock agrees with the database's could not be found out")
            return None

    def _findings(
        self, asked: Request, issuer: Issuer, now: datetime, *, complete: bool
    ) -> tuple[list[Finding], Presigned | None]:
        """What is to be said, [] when the record is out of reach; an answer signed ahead that says it."""
        question, presigned = asked.questions[0], None
        standing: SerialStatus | None
        if len(asked.questions) > 1:
            standings = self._read_several(asked, issuer)
        else:
            if asked.nonce is not None:
                standing = self._standing(issuer, question, now)
            else:
                standing, presigned = self._read(issuer, question)
            standings = {} if standing is None else {question.serial: standing}
        if not standings:
            return [], None
        findings = ocsp.find(asked, issuer, standings, self._never_issued, complete=complete)
        if presigned is None or findings[0].outcome is Outcome.TRY_LATER:
            return findings, None
        young = presigned.this_update <= now < _half_life(presigned)
        return findings, presigned if young and ocsp.agrees(presigned.der, findings[0]) else None

    def _standing(self, issuer: Issuer, question: Question, now: datetime) -> SerialStatus | None:
        key = (issuer.authority_id, question.serial)
        remembered = self.standings.get(key, now)
        if remembered is not None:
            return remembered
        generation = self.standings.generation
        standing, _ = self._read(issuer, question)
        # What is not issued yet may be the next moment: only what exists is remembered.
        if standing is not None and standing != SerialStatus(None):
            until = min(now + _STANDING_LIFE, standing.changes_at or now + _STANDING_LIFE)
            self.standings.keep(key, question.serial, CachedValue(standing, until), generation)
        return standing

    def _read(self, issuer: Issuer, question: Question) -> tuple[SerialStatus | None, Presigned | None]:
        """The record's word, now; no standing when it cannot be had."""
        try:
            with self._engine.connect() as connection:
                return ocsp_store.standing(connection, issuer.authority_id, question.serial, question.hash)
        except SQLAlchemyError:
            _LOG.exception("the record could not be read for OCSP")
            return None, None

    def _read_several(self, asked: Request, issuer: Issuer) -> dict[Serial, SerialStatus]:
        """The record's word about all of them at one instant; empty when it cannot be had."""
        serials = [question.serial for question in asked.questions]
        try:
            with self._engine.connect() as connection:
                return ocsp_store.standings(connection, issuer.authority_id, serials)
        except SQLAlchemyError:
            _LOG.exception("the record could not be read for OCSP")
            return {}

    def _sign(  # noqa: PLR0917 - what an answer is made of
        self,
        responder: Responder,
        issuer: Issuer,
        findings: list[Finding],
        nonce: bytes | None,
        now: datetime,
        lifetime: timedelta,
    ) -> Presigned:
        lifetime = min(lifetime, responder.not_after - now)
        der = ocsp.sign(responder, issuer, findings, now=now, lifetime=lifetime, nonce=nonce)
        return Presigned(der, *ocsp.validity(findings, now, lifetime))

    def _current(self, now: datetime, seconds: float) -> Responders:
        """The CAs and keys, read again after so long; the last ones known while the record is away."""
        known = self._responders
        complete = 0 < len(known.issuers) == len(known.by_authority)
        if self._ticks() - self._loaded_at < (seconds if complete else _MISSING_RELOAD_SECONDS):
            return known
        try:
            with self._engine.connect() as connection:
                self._responders = load_responders(
                    connection, self._keys_folder, self._passphrase, now, known.by_authority
                )
        except SQLAlchemyError:
            _LOG.exception("the responders could not be read")
        self._loaded_at = self._ticks()
        return self._responders


def _as_signed(presigned: Presigned, responder: Responder) -> Presigned | None:
    """The answer signed ahead, None when it is not what this responder signed: then one is signed now."""
    try:
        intact.check_answer(presigned.der, responder.certificate)
    except DamagedError as damaged:
        _LOG.warning("signed anew: %s", damaged)
        return None
    return presigned


def _may_be_kept(asked: Request, findings: list[Finding]) -> bool:
    """Whether the next who asks the same may have the same answer, by any cache."""
    if asked.nonce is not None or len(findings) > 1:
        return False
    # These may become `good` the next moment: a certificate is in the record before it leaves.
    return findings[0].outcome not in {Outcome.UNKNOWN, Outcome.NEVER_ISSUED}


def _reply(answer: Presigned, *, is_get: bool) -> Reply:
    if not is_get:
        return uncacheable(MEDIA_TYPE, answer.der)
    return cacheable(MEDIA_TYPE, answer.der, answer.this_update, answer.next_update)


def _error(outcome: Outcome) -> Reply:
    return uncacheable(MEDIA_TYPE, ocsp.refuse(outcome))


def _half_life(answer: Presigned) -> datetime:
    return answer.this_update + (answer.next_update - answer.this_update) / 2

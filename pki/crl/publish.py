"""Certificate revocation lists: the order in which one is numbered, signed and stored.

A complete list says all that is revoked in a shard, a delta what changed since a complete one. Each kind is
due, made and fails by itself. The signature is the signer's, the last look at the bytes is `checks`'s, the
bytes are `encoding`'s, the queries `store`'s.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hashlib import sha256
from itertools import repeat
from pathlib import Path
from typing import Protocol

from sqlalchemy import Connection, Engine

from directory.attention import Concern, Matter, keep
from directory.base.audit import Actor, Event, record
from directory.base.db import transaction
from directory.base.errors import Kind, Refusal
from directory.base.pools import Pool
from directory.feed.changes import place_of_crl
from pki.certificates.profiles import MOST_IN_PLAIN
from pki.crl import checks
from pki.crl import store as crl_store
from pki.crl.encoding import removal_der, tbs_der, this_update
from pki.model import Authority, CrlForm
from pki.record import authorities
from pki.rollback import detection, high_water

# Every shard is made again each hour, empty or not: silence and "nothing revoked" must look different.
INTERVAL = timedelta(hours=1)
# Readers fetch the next delta when the one they hold ends. Shorter than complete ones, or deltas would serve
# nobody who keeps lists to their end.
DELTA_LIFETIME = timedelta(hours=24)
_LET_GO_AT_ONCE = 500
# While one shard is with the signer, the next is read.
_AT_ONCE = 2
_ACTOR = Actor("job:crl")


class ListSigner(Protocol):
    """What a CRL needs of the signer (`pki.signing`)."""

    def sign_crl(self, authority_id: str, shard: int, number: int) -> bytes:
        """The signed DER of a CRL whose bytes are committed; refuses what the gate refuses."""
        ...

    def ping(self) -> str:
        """The signer's version, when it is there and has its keys."""
        ...


@dataclass(frozen=True)
class _Turn:
    """One publication under its number, at a whole second."""

    authority: Authority
    shard: int
    number: int
    now: datetime
    lifetime: timedelta

    @property
    def place(self) -> tuple[str, int]:
        return self.authority.id, self.shard


def publish(
    engine: Engine,
    signer: ListSigner,
    *,
    authority_id: str,
    shard: int,
    now: datetime,
    lifetime: timedelta,
    floor_file: Path | None = None,
    delta: bool = False,
) -> int:
    """Number, sign and store one shard's CRL or delta; gives its number. In transactions of its own.

    Whatever fails in between burns the number and leaves the last good CRL in service. `floor_file` remembers
    what is published outside the database. Refusal: NOT_FOUND, UNACCEPTABLE from the gate, CONFLICT for a
    delta of a plain CA or without a complete CRL in force. UNAVAILABLE `record-behind` for a number given out
    before.
    """
    place = place_of_crl(authority_id, shard)
    least = 0 if floor_file is None else high_water.known(floor_file, place)
    with transaction(engine) as connection:
        authority = _authority(connection, authority_id, shard)
        # The number first: its row's lock makes every publisher of the shard wait for the one before.
        number = crl_store.take_number(connection, authority.id, shard, 0)
        if number <= least:
            raise detection.behind()
        turn = _Turn(authority, shard, number, now.replace(microsecond=0), lifetime)
        tbs, listed = _reserve_delta(connection, turn) if delta else _reserve_complete(connection, turn)
    if floor_file is not None:
        # Before anyone can see it, so that no restored record can be taken for one that knows as much.
        high_water.raise_to(floor_file, place, number, listed.events)
    signed = signer.sign_crl(authority_id, shard, number)
    checks.check_signed(signed, tbs, authority)
    with transaction(engine) as connection:
        crl_store.store(connection, authority_id, shard, number, signed)
        # The digest outlives the bytes (`close_matters`).
        detail = {"number": number, "bytes": len(signed), "sha256": sha256(signed).hexdigest()}
        detail |= {"kind": "delta"} if delta else {}
        record(connection, now=now, actor=_ACTOR, event=Event.CRL_PUBLISHED, subject=place, detail=detail)
        if authority.crl_form is CrlForm.PLAIN:
            _note_large(connection, authority, listed.number, now)
    if floor_file is not None:
        high_water.keep_list(floor_file, place, signed, delta=delta)
    return number


def due(connection: Connection, now: datetime, *, delta: bool = False) -> list[tuple[str, int]]:
    """The (CA, shard) pairs of a kind to publish now, those with unpublished revocations first."""
    return crl_store.due(connection, now, now - INTERVAL, delta=delta)


def publish_due(
    engine: Engine, signer: ListSigner, now: datetime, lifetime: timedelta, floor_file: Path | None = None
) -> int:
    """Publish what is due; gives how many. The refusal of one shard or kind does not hold up the others.

    Deltas go first, being small; the complete CRL of a shard whose delta was made follows in the next run.
    """

    def attempt(place: tuple[str, int], delta: bool) -> Refusal | None:  # noqa: FBT001 - for `map`
        try:
            publish(
                engine, signer, authority_id=place[0], shard=place[1], now=now, lifetime=lifetime,
                floor_file=floor_file, delta=delta,
            )  # fmt: skip
        except Refusal as refusal:
            return refusal
        return None

    published, refusals = 0, list[Refusal]()
    for delta in (True, False):
        with transaction(engine, read_only=True) as connection:
            waiting = due(connection, now, delta=delta)
        if waiting:
            # Without a signer each try would burn every shard's number and keep its bytes for nothing.
            signer.ping()
        with Pool(_AT_ONCE) as pool:
            failed = [failure for failure in pool.map(attempt, waiting, repeat(delta)) if failure is not None]
        published += len(waiting) - len(failed)
        refusals += failed
    if refusals:
        tried = published + len(refusals)
        raise ExceptionGroup(f"{len(refusals)} of {tried} CRLs were not published", refusals)
    return published


def delete_superseded_bytes(connection: Connection, now: datetime, kept: timedelta) -> int:
    """Empty the bytes of CRLs made more than `kept` ago that later ones followed, a batch; gives how many.

    A shard of 60,000 entries makes 3 MB an hour. Number, times and digest stay, in the record and in the log.
    """
    return crl_store.delete_superseded_bytes(connection, now - kept, _LET_GO_AT_ONCE)


def _note_large(connection: Connection, authority: Authority, entries: int, now: datetime) -> None:
    """Half of what the plain form is for is time to plan the next generation. Publication goes on, whatever
    the number: a list too long for some is better than none for all.
    """
    large = entries * 2 >= MOST_IN_PLAIN
    matters = [Matter(authority.id, detail={"entries": entries, "most": MOST_IN_PLAIN})] if large else []
    concern = Concern.PLAIN_CRL_LARGE
    keep(connection, concern, matters, among=[authority.id], now=now, actor=_ACTOR)


def _authority(connection: Connection, authority_id: str, shard: int) -> Authority:
    authority = authorities.load_authority(connection, authority_id)
    if authority is None or not 0 <= shard < authority.shards:
        raise Refusal(Kind.NOT_FOUND, "unknown-authority", "There is no such CA or shard.")
    return authority


def _reserve_complete(connection: Connection, turn: _Turn) -> tuple[bytes, crl_store.Entries]:
    # 1. What this number has seen, before the entries are read: none can be taken for seen that is not.
    events = crl_store.mark_events_listed(connection, *turn.place, turn.number)
    # 2. The entries. Each stays on one scheduled CRL after notAfter (RFC 5280 3.3); one made for a revocation
    #    is none.
    previous = crl_store.newest_complete(connection, *turn.place)
    kept = None if previous is None else previous.this_update - INTERVAL
    seen = 0 if previous is None else previous.number
    count, joined = crl_store.entries(connection, *turn.place, kept, previous=seen)
    if turn.authority.crl_form is CrlForm.PLAIN:
        # No delta will ask what was new when.
        crl_store.forget(connection, *turn.place, seen)
    # 3. The bytes, committed before the CA key is touched.
    listed = crl_store.Entries(events, count, joined)
    return _keep(connection, turn, listed), listed


def _reserve_delta(connection: Connection, turn: _Turn) -> tuple[bytes, crl_store.Entries]:
    if turn.authority.crl_form is CrlForm.PLAIN:
        text = f"The CRL of {turn.authority.id} is plain: it has no deltas."
        raise Refusal(Kind.CONFLICT, "crl-without-deltas", text)
    base = crl_store.base_of_delta(connection, *turn.place, turn.now)
    if base is None:
        text = "There is no complete CRL in force that a delta could complete."
        raise Refusal(Kind.CONFLICT, "crl-without-base", text)
    events = crl_store.mark_events_listed(connection, *turn.place, turn.number)
    changed = crl_store.changed(connection, *turn.place, base, turn.number)
    removals = [removal_der(serial, at) for serial, at in changed.released.items()]
    listed = crl_store.Entries(events, changed.number, b"".join((changed.joined, *removals)))
    return _keep(connection, replace(turn, lifetime=min(turn.lifetime, DELTA_LIFETIME)), listed, base), listed


def _keep(connection: Connection, turn: _Turn, listed: crl_store.Entries, base: int | None = None) -> bytes:
    begins = _this_update(connection, turn)
    span = {"this_update": begins, "next_update": begins + turn.lifetime}
    points = crl_store.points(connection, turn.authority, turn.shard)
    tbs = tbs_der(turn.authority, points, turn.number, joined=listed.joined, base=base, **span)
    place, number = turn.authority.id, turn.number
    crl_store.reserve(
        connection, place, turn.shard, number, tbs=tbs, listed=listed, base=base, made_at=turn.now, **span
    )
    return tbs


def _this_update(connection: Connection, turn: _Turn) -> datetime:
    newest = crl_store.newest(connection, *turn.place)
    known = 0 if newest is None else newest.number
    # One dated by a clock that had jumped ahead waits for nothing: a CRL of the future serves nobody.
    listed = crl_store.last_listed(connection, *turn.place, known, turn.now + checks.CLOCK_SKEW)
    return this_update(turn.now, before=None if newest is None else newest.this_update, listed=listed)

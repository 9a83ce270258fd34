"""The powers as the log tells them now, for a process that gives trust or signs.

It follows the log from its anchors and keeps what it followed outside the database. So what took a power away
stands, whatever an edited or restored database says. What gives a power counts once its line has a number;
what takes one away counts while it waits.
"""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from threading import Lock
from types import MappingProxyType
from typing import Any

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import Engine

from directory.base.audit import Event
from directory.base.db import asking, transaction
from directory.base.durable_files import make_private, onto_disk, own_draft, replacing
from directory.base.errors import Kind, Refusal
from pki.acts.act import ActKind
from pki.powers.anchors import Anchors
from pki.powers.needs import TAKING_AWAY
from pki.powers.state import NoForceError, PowerLine, Powers
from pki.tlog import follower
from pki.tlog.follower import Position
from pki.tlog.store import Line

# Of lines without force so many are remembered: whoever may queue lines may queue any number of them.
MOST_WITHOUT_FORCE = 1_000
# A crash has so many lines followed again, unless one of them told of powers.
SAVED_AFTER = 1_000


@dataclass
class _Followed:
    """What is kept: how far, which lines, which of them wait, which had no force and why."""

    powers: Powers
    position: Position
    lines: list[PowerLine]
    waiting: list[PowerLine]
    without_force: dict[int, str]
    of_lost_log: frozenset[tuple[bytes, ...]] = frozenset()

    def take(self, index: int, line: Line) -> None:
        """Let a numbered line take effect, or remember why it has none."""
        told = power_line(line, index)
        if told is None:
            self._forceless(index, "no-act")
            return
        if told.signed in self.of_lost_log:
            # It had its effect there.
            return
        # It waits no more, whether it has force or not.
        self.waiting = [other for other in self.waiting if other.signed != told.signed]
        try:
            self.powers.follow(told)
        except NoForceError as error:
            self._forceless(index, error.code)
        else:
            self.lines.append(told)

    def _forceless(self, index: int, code: str) -> None:
        self.without_force[index] = code
        while len(self.without_force) > MOST_WITHOUT_FORCE:
            del self.without_force[next(iter(self.without_force))]

    def copy(self) -> "_Followed":
        """The same, which goes on by itself: what a rewrite cuts short changes nothing."""
        return _Followed(
            self.powers.copy(),
            self.position,
            list(self.lines),
            list(self.waiting),
            dict(self.without_force),
            self.of_lost_log,
        )


class Followed:
    """For all threads of a process; `kept` is its own file (0600), None follows the whole log at a start.

    `key` is the log's, where it is at hand: then heads must be signed by it.
    """

    def __init__(
        self, engine: Engine, anchors: Anchors, kept: Path | None = None, key: Ed25519PublicKey | None = None
    ) -> None:
        self._engine = engine
        self._anchors = anchors
        self._kept = kept
        self._key = key
        self._alone = Lock()
        self._state = _read(kept, anchors)
        self._saved = self._state.position.size
        self._now = self._state.powers

    def current(self) -> Powers:
        """Who holds which power now; whoever is given it changes nothing in it.

        Refuses `log-rewritten` where what was followed is gone from the log.
        """
        with self._alone:
            try:
                self._follow()
            except Refusal as refusal:
                if refusal.code != "log-rewritten" or not self._accepted():
                    raise
                self._follow()
            return self._now

    def remembered(self) -> Powers:
        """Who held which power when the log was last followed, whatever has become of it since."""
        with self._alone:
            return self._now

    def keep(self) -> None:
        """Write the file now, so that other anchors are noticed from the first start on."""
        with self._alone:
            self._keep(self._state, urgent=True)

    def without_force(self) -> Mapping[int, str]:
        """Numbers of the last lines that changed nothing, each with the code that says why."""
        with self._alone:
            return MappingProxyType(dict(self._state.without_force))

    def _follow(self) -> None:
        with asking(self._engine) as connection:
            end = follower.look(connection, self._state.position, Event.POWER_CHANGED)
        if end.size > self._state.position.size:
            self._go_on(end)
        self._see_waiting(end.waiting)

    def _accepted(self) -> bool:
        """Whether two persons have accepted the log as it stands: then it is followed from its first line.

        What was followed of the other one stays in force, and used.
        """
        subject = f"installation:{self._anchors.installation}"
        with transaction(self._engine, read_only=True) as connection:
            told = follower.lines_about(connection, subject, Event.POWER_CHANGED)
            if not any(
                line is not None and _accepts(self._state.powers, line)
                and follower.is_head(connection, int(line.shown["size"]), bytes.fromhex(line.shown["root"]))
                for line in (power_line(line, index) for index, line in told)
            ):  # fmt: skip
                return False
        state = self._state.copy()
        powers, taking = _taken_away(state.powers, state.waiting)
        lines = [*state.lines, *taking]
        lost = frozenset(line.signed for line in lines)
        self._keep(_Followed(powers, Position(), lines, [], state.without_force, lost), urgent=True)
        return True

    def _go_on(self, end: follower.End) -> None:
        with transaction(self._engine, read_only=True) as connection:
            for position, lines in follower.follow(
                connection, self._state.position, end, Event.POWER_CHANGED, self._key
            ):
                # Handed to others perhaps: it is never changed under them.
                state = self._state.copy() if lines else self._state
                for index, line in lines:
                    state.take(index, line)
                state.position = position
                self._keep(state, urgent=bool(lines))

    def _see_waiting(self, waiting: Iterable[Line]) -> None:
        """Add what waits and takes power away; refuse where a line that took some is gone unnumbered."""
        told = [line for line in map(power_line, waiting) if line is not None]
        signed = {line.signed for line in told}
        if any(line.signed not in signed for line in self._state.waiting):
            follower.rewritten("a line that waited for its number is gone", self._state.position)
        powers, effective = _taken_away(self._state.powers, told)
        if effective != self._state.waiting:
            state = self._state.copy()
            state.waiting = effective
            self._keep(state, urgent=True)
        self._now = powers

    def _keep(self, state: _Followed, *, urgent: bool) -> None:
        # On disk first: what took a power away is not to be forgotten by a crash once it was obeyed.
        if self._kept is not None and (urgent or state.position.size >= self._saved + SAVED_AFTER):
            _write(self._kept, state, self._anchors)
            self._saved = state.position.size
        self._state = state


def power_line(line: Line, index: int | None = None) -> PowerLine | None:
    """What a line of the log tells of powers; None where it is written in no form that this has."""
    match line.detail:
        case {"signed": list(signed), "shown": dict(shown)} if len(line.detail) == 2:  # noqa: PLR2004 - both
            try:
                return PowerLine(line.at, tuple(str(text).encode("ascii") for text in signed), shown, index)
            except UnicodeEncodeError:
                return None
        case _:
            return None


def _accepts(powers: Powers, line: PowerLine) -> bool:
    try:
        return powers.agreed(line) is ActKind.RESTORE_ACCEPT and _names_a_head(line.shown)
    except NoForceError:
        return False


def _names_a_head(shown: Mapping[str, Any]) -> bool:
    return type(shown["size"]) is int and re.fullmatch(r"[0-9a-f]{64}", str(shown["root"])) is not None


def _taken_away(powers: Powers, told: Iterable[PowerLine]) -> tuple[Powers, list[PowerLine]]:
    """The powers without what these lines take, and those of them that took something."""
    left, effective = powers, list[PowerLine]()
    for line in told:
        try:
            if left.agreed(line) in TAKING_AWAY:
                left = left.copy() if left is powers else left
                left.follow(line)
                effective.append(line)
        except NoForceError:
            # What it says once it has a number is remembered then.
            continue
    return left, effective


def _read(kept: Path | None, anchors: Anchors) -> _Followed:
    state = _Followed(Powers(anchors), Position(), [], [], {})
    if kept is None or not kept.exists():
        return state
    try:
        told = orjson.loads(kept.read_bytes())
        if told["anchors"] != _digest(anchors):
            text = "The anchors are not those that the powers were followed from."
            raise Refusal(Kind.UNAVAILABLE, "anchors-changed", text)
        state.position = Position(
            told["size"], tuple(map(bytes.fromhex, told["frontier"])), str(told["origin"])
        )
        state.lines = [_line_read(line) for line in told["lines"]]
        state.waiting = [_line_read(line) for line in told["waiting"]]
        state.without_force = {int(index): str(code) for index, code in told["without_force"]}
        # An edited file is noticed by the signatures.
        for line in state.lines:
            state.powers.follow(line)
    except (ValueError, KeyError, TypeError) as error:
        text = f"{kept.name} was damaged or edited: remove it, and the log is followed from its first line."
        raise Refusal(Kind.UNAVAILABLE, "powers-damaged", text) from error
    return state


def _write(kept: Path, state: _Followed, anchors: Anchors) -> None:
    told = {
        "anchors": _digest(anchors), "frontier": [node.hex() for node in state.position.frontier],
        "lines": [_line_written(line) for line in state.lines], "origin": state.position.origin,
        "size": state.position.size, "waiting": [_line_written(line) for line in state.waiting],
        "without_force": list(state.without_force.items()),
    }  # fmt: skip
    make_private(kept.parent)
    with replacing(kept, draft=own_draft(kept)) as file:
        if os.geteuid() == 0:
            # Written by a command of root, it is read by a service with an account of its own.
            owner = kept.parent.stat()
            os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
        file.write(orjson.dumps(told))
    onto_disk(kept.parent)


def _digest(anchors: Anchors) -> str:
    return sha256(anchors.text()).hexdigest()


def _line_written(line: PowerLine) -> dict[str, Any]:
    signed = [text.decode() for text in line.signed]
    return {"at": line.at.isoformat(), "index": line.index, "shown": dict(line.shown), "signed": signed}


def _line_read(told: Mapping[str, Any]) -> PowerLine:
    at = datetime.fromisoformat(told["at"]).astimezone(UTC)
    signed = tuple(str(text).encode() for text in told["signed"])
    return PowerLine(at, signed, dict(told["shown"]), told["index"])

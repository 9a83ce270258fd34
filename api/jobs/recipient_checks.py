"""Checks that are answered later: carried out one at a time, beside everything else, and removed in a day.

What is decided is `pki/verdict`'s; how they are asked for and handed out, `api/rest/recipient_checks.py`'s.
"""

import time
from datetime import timedelta

from api.http.verdict_json import Included, in_lines
from api.wiring import Container
from directory.base.db import transaction
from directory.base.errors import Kind, Refusal
from pki.verdict import check_files, checks_store
from pki.verdict.answer import Gathered, gather
from pki.verdict.check_files import AskedFor
from pki.verdict.checks_store import RecipientCheck

# Whoever takes a check writes its file before its row: what is younger may become one.
_STRAY_AFTER = timedelta(hours=1)


class _RemovedError(Exception):
    """The check was deleted while it was carried out, or its token revoked."""


def carry_out(container: Container) -> str:
    """The job: carry out the checks that wait, the oldest first.

    A check that was cut off begins again. Nothing is decided while the record is behind or takes no row, or
    while the disk is nearly full: then the check waits.
    """
    ended = 0
    while (check := _taken(container)) is not None:
        _carry_out(container, check)
        ended += 1
    return f"{ended} checks ended" if ended else ""


def remove(container: Container) -> str:
    """The job: remove the checks of a day ago and those of revoked tokens, and files that are of none."""
    folder, now = container.settings.checks, container.present()
    with transaction(container.engine) as connection:
        ended = checks_store.remove_ended(connection, now)
    for check_id in ended:
        check_files.forget(folder, check_id)
    strays = check_files.owners(folder, now - _STRAY_AFTER)
    with transaction(container.engine, read_only=True) as connection:
        known = checks_store.known(connection)
    for path, owner in strays.items():
        if owner not in known:
            path.unlink(missing_ok=True)
    return f"{len(ended)} checks removed" if ended else ""


def _taken(container: Container) -> RecipientCheck | None:
    with transaction(container.engine) as connection:
        return checks_store.take(connection, container.present(connection))


def _carry_out(container: Container, check: RecipientCheck) -> None:
    try:
        _decide(container, check)
    except check_files.UnreadableError:
        with transaction(container.engine) as connection:
            checks_store.fail(connection, check.id, container.present(connection))
    except _RemovedError:
        check_files.forget(container.settings.checks, check.id)
    except OSError:
        # Of the disk; what was asked is there.
        with transaction(container.engine) as connection:
            still_there = checks_store.put_back(connection, check.id)
        if still_there:
            raise
    except Refusal as refusal:
        if refusal.kind is not Kind.UNAVAILABLE:
            raise
        with transaction(container.engine) as connection:
            checks_store.put_back(connection, check.id)
        raise


def _decide(container: Container, check: RecipientCheck) -> None:
    folder, included, decided = container.settings.checks, Included(check.included), 0
    with (
        check_files.asked(folder, check.id) as (asked_for, parts),
        check_files.result(folder, check.id) as write,
    ):
        for addresses in parts:
            started = time.monotonic()
            _need_leave(container)
            gathered = _gathered(container, addresses, asked_for, included)
            for piece in in_lines(gathered, addresses, included):
                write(piece)
            decided += len(addresses)
            _note(container, check, decided)
            # Half of the time is for the others.
            time.sleep(time.monotonic() - started)
        if decided != check.number:
            raise check_files.UnreadableError
    _finish(container, check)


def _need_leave(container: Container) -> None:
    """Refusal while nothing good may be said (`record-behind`), or as `need_room`."""
    container.watch.need()
    check_files.need_room(container.settings.checks)


def _gathered(
    container: Container, addresses: list[str], asked_for: AskedFor, included: Included
) -> Gathered:
    with transaction(container.engine, read_only=True) as connection:
        return gather(
            connection, addresses, sender=asked_for.sender, at=asked_for.at, now=container.clock(),
            lifetime=container.verdict_lifetime, trials=container.settings.trial_addresses,
            with_der=included is Included.CERTIFICATES,
        )  # fmt: skip


def _note(container: Container, check: RecipientCheck, decided: int) -> None:
    with transaction(container.engine) as connection:
        if not checks_store.progress(connection, check.id, decided):
            raise _RemovedError


def _finish(container: Container, check: RecipientCheck) -> None:
    size, digest = check_files.measured(check_files.result_path(container.settings.checks, check.id))
    with transaction(container.engine) as connection:
        if not checks_store.finish(connection, check, size, digest, container.present(connection)):
            raise _RemovedError
    # What was asked is needed no more.
    check_files.asked_path(container.settings.checks, check.id).unlink(missing_ok=True)

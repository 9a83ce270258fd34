"""What keeps the record in order and says whether it stands: the jobs that no other file of this wing has.

Each function is one job's work (`table.py`), also called by the command of the same subject.
"""

import logging

from cryptography import x509

from api.process.writing import without_room
from api.wiring import Container, written_folders
from directory import measures_due as measures
from directory import reading_quotas, withdrawal_limits
from directory.base.beats import WORKER, beat
from directory.base.db import transaction, unpromised
from directory.base.errors import Kind, Refusal
from pki.issuance import restitution
from pki.model import serial_of
from pki.monitoring import privacy_watch, relying_party_check
from pki.record import idempotency
from pki.recovery import orphans
from pki.revocation import earlier_keys
from pki.rollback import detection

_LOG = logging.getLogger("sceau.worker")


def heartbeat(container: Container) -> str:
    """Give the worker's sign of life; Refusal `job-hangs`, and no sign, while a job of this process hangs.

    What is wrong with its disks goes along with the sign: to be ended and started again would not help.
    """
    if hung := container.work.hung():
        raise Refusal(Kind.UNAVAILABLE, "job-hangs", f"The worker hangs: {', '.join(hung)}.")
    wrong = next(filter(None, map(without_room, written_folders(container.settings))), "")
    with transaction(container.engine) as connection:
        unpromised(connection)
        beat(connection, WORKER, wrong)
    return ""


def watch_completeness(container: Container) -> str:
    """Refuse `record-behind` while the record lacks what was shown of it; the log says what shows it."""
    if lacks := container.watch.look():
        _LOG.error("the record is behind: %s", "; ".join(lacks))
        raise detection.behind()
    return ""


def measures_due(container: Container) -> str:
    """Tell the feed of the measures that begin or end by their dates, and of those told otherwise before."""
    with transaction(container.engine) as connection:
        told = measures.tell(connection, container.present(connection))
    return f"{told} measures began or ended" if told else ""


def watch_privacy(container: Container) -> str:
    """List what is held back from publication: once in all that shows, then in what changes."""
    with transaction(container.engine, read_only=True) as connection:
        begun = privacy_watch.has_begun(connection)
    if not begun:
        number = privacy_watch.look_at_all(container.engine, container.present())
        return f"all was looked at, {number} are held back"
    while True:
        with transaction(container.engine) as connection:
            if privacy_watch.step(connection, container.present(connection)) < privacy_watch.BATCH:
                return ""


def replace_revoked_in_error(container: Container) -> str:
    """Certify anew what an annulled strike-off revoked."""
    made = restitution.replace_all(
        container.engine, container.signer, now=container.present, base_url=container.settings.base_url
    )
    return f"{made} certificates replaced" if made else ""


def recover_issuance(container: Container) -> str:
    """Store and revoke what a crash left signed but not stored (rule 27 of docs/explanation/issuance.md)."""
    serials = orphans.recover(container.engine, container.signer, container.present())
    return f"found signed but not stored, and revoked: {', '.join(serials)}" if serials else ""


def number_earlier_keys(container: Container) -> str:
    """Number the keys that an earlier release certified, and take back what is on a reported one."""
    keys, revoked = 0, 0
    while True:
        with transaction(container.engine) as connection:
            done = earlier_keys.number(connection, now=container.present())
        keys, revoked = keys + done.keys, revoked + len(done.revoked)
        if done.keys < earlier_keys.AT_ONCE:
            break
    return f"{keys} keys of an earlier release numbered, {revoked} certificates revoked" if keys else ""


def let_withdrawals_go(container: Container) -> str:
    """Close the matters of limits that are no longer half used; forget what was read over an hour ago."""
    with transaction(container.engine) as connection:
        reading_quotas.forget(connection, container.present(connection))
        closed = withdrawal_limits.close_matters(connection, container.settings.allowance, container.clock())
    return f"{closed} limits no longer half used" if closed else ""


def forget_requests(container: Container) -> str:
    """Drop what was kept for requests sent again, once that is over."""
    with transaction(container.engine) as connection:
        count = idempotency.forget_old(connection, container.clock())
    return f"{count} answers forgotten" if count else ""


def look_from_outside(container: Container) -> str:
    """Hold a sample of what is published against the record; Refusal `outside-disagrees` if they differ."""
    now = container.clock()
    with transaction(container.engine, read_only=True) as connection:
        start = serial_of(x509.random_serial_number())
        looked, disagreed = relying_party_check.look(connection, now=now, start=start)
    if disagreed:
        first = disagreed[0]
        text = (
            f"{len(disagreed)} of {looked} certificates are seen otherwise than recorded:"
            f" {first.serial} of {first.authority_id} is {first.recorded}, outside: {first.seen}."
        )
        raise Refusal(
            Kind.UNACCEPTABLE,
            "outside-disagrees",
            text,
            serials=[disagreement.serial for disagreement in disagreed],
        )
    return f"{looked} certificates seen as recorded"

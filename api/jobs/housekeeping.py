"""The work of the jobs that keep trust fresh.

Consequences of departures, CRLs, OCSP answers and signers, what a crash left half issued, the log's head.
Each function is one job's work (`api/jobs/table.py`), also called by the command of the same subject.
"""

import logging
from datetime import timedelta
from functools import lru_cache
from pathlib import Path

from cryptography import x509
from sqlalchemy import select, text

from api.beats import WORKER, beat
from api.settings import Secret, passphrase
from api.wiring import Container, written_folders
from api.writing import without_room
from directory import measures_due as measures
from directory import reading_quotas, withdrawal_limits
from directory.base.db import transaction
from directory.base.errors import Kind, Refusal
from directory.feed import retention
from directory.feed.retention import tell_of_time
from pki import earlier_keys, privacy_watch, restitution, servers_authority
from pki.crl import publish as crl
from pki.issuance import for_enrolment as use_cases
from pki.issuance import for_service as renewal
from pki.model import serial_of
from pki.monitoring import relying_party_check as outside_view
from pki.ocsp import responders
from pki.record import idempotency, tables
from pki.rollback import detection as completeness
from pki.tlog import checkpoint as signed_note
from pki.tlog import sequencer as transparency
from pki.tlog import store as transparency_store
from pki.withdrawal import operators as operators_withdrawal
from pki.withdrawal.reconcile import BATCH, Follower, Outcome, list_claims, settle_due

_LOG = logging.getLogger("sceau.worker")
# As long as the longest a reader may hold one by default: a fault found later has the digest to go by.
CRL_BYTES_KEPT = timedelta(days=3)
# Some 50 ms of locks each, and at most some minutes of an hour.
TRIMMED_AT_ONCE = 5_000
MOST_TRIMMED = 2_000_000


def heartbeat(container: Container) -> str:
    """Give the worker's sign of life; Refusal `job-hangs`, and no sign, while a job of this process hangs.

    What is wrong with its disks goes along with the sign: to be ended and started again would not help.
    """
    if hung := container.work.hung():
        raise Refusal(Kind.UNAVAILABLE, "job-hangs", f"The worker hangs: {', '.join(hung)}.")
    wrong = next(filter(None, map(without_room, written_folders(container.settings))), "")
    with transaction(container.engine) as connection:
        connection.execute(text("SET LOCAL synchronous_commit = off"))
        beat(connection, WORKER, wrong)
    return ""


def watch_completeness(container: Container) -> str:
    """Refuse `record-behind` while the record lacks what was shown of it; the log says what shows it."""
    if found := container.watch.look():
        _LOG.error("the record is behind: %s", "; ".join(found))
        raise completeness.behind()
    return ""


@lru_cache(maxsize=4)
def _follower(container: Container) -> Follower:
    """The follower of this process: it remembers how far it looked ahead of its place in the feed."""
    return Follower(container.engine, container.graces)


def consequences(container: Container) -> str:
    """Withdraw trust from whom the feed tells of; what commits meanwhile is for the next run.

    The place in the feed and the revocations commit together: a crash repeats a batch, and a repeated batch
    revokes nothing twice.
    """
    follower, done = _follower(container), Outcome()
    while True:
        step = follower.step(container.present())
        done += step
        # Fewer than a batch are all there were. To go on until nothing more came would be to go on as long as
        # anybody enrols, five times a second for a few changes each.
        if step.changes < BATCH:
            return str(done)


def withdraw_due(container: Container) -> str:
    """Revoke what has come to the end of its grace, unless the cause has gone; list what files contradict."""
    done = Outcome()
    while True:
        with transaction(container.engine) as connection:
            now = container.present(connection)
            step = settle_due(connection, graces=container.graces, now=now)
            if not step.changes:
                list_claims(connection, now)
                done += operators_withdrawal.settle(connection, graces=container.graces, now=now)
                return str(done)
        done += step


def due_changes(container: Container) -> str:
    """Tell the feed what time alone changed, for LDAP to follow; have it begin anew where it was moved."""
    with transaction(container.engine) as connection:
        moved = retention.begin_anew_if_moved(connection)
    with transaction(container.engine) as connection:
        told = tell_of_time(connection, container.present(connection))
    done = [f"the feed begins anew in this cluster, {moved} rows removed"] if moved else []
    return ", ".join([*done, *([f"{told} changes told"] if told else [])])


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
        found = privacy_watch.look_at_all(container.engine, container.present())
        return f"all was looked at, {found} are held back"
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


def trim_feed(container: Container) -> str:
    """Remove from the feed what is older than promised, a small batch at a time."""
    # A day more than promised: a row is dated by the beginning of its transaction, and read after its end.
    before = container.clock() - timedelta(days=container.settings.feed_days + 1)
    removed = 0
    while removed < MOST_TRIMMED:
        with transaction(container.engine) as connection:
            batch = retention.cut(connection, before, TRIMMED_AT_ONCE)
        removed += batch
        if batch < TRIMMED_AT_ONCE:
            break
    return f"{removed} changes removed" if removed else ""


def publish_crls(container: Container) -> str:
    """Publish the shards that are due."""
    count = publish_shards(container)
    return f"{count} shards published" if count else ""


def publish_shards(container: Container, *, every: bool = False) -> int:
    """Publish the shards that are due, or all of them; gives how many."""
    lifetime = timedelta(hours=container.settings.crl_hours)
    if not every:
        return crl.publish_due(
            container.engine,
            container.signer,
            container.signing.instant(),
            lifetime,
            container.settings.crl_floor,
        )
    with transaction(container.engine) as connection:
        # An offline root's CRL comes by hand (`sceau ca crl`).
        shards = select(tables.crl_shard.c.authority_id, tables.crl_shard.c.shard).join(tables.authority)
        found = connection.execute(shards.where(~tables.authority.c.offline)).all()
    for row in found:
        crl.publish(
            container.engine, container.signer, authority_id=row.authority_id, shard=row.shard,
            now=container.signing.instant(), lifetime=lifetime, floor_file=container.settings.crl_floor,
        )  # fmt: skip
    return len(found)


def let_crl_bytes_go(container: Container) -> str:
    """Empty the bytes of CRLs that nobody can hold any more."""
    with transaction(container.engine) as connection:
        count = crl.let_go(connection, container.clock(), CRL_BYTES_KEPT)
    return f"bytes of {count} CRLs let go" if count else ""


def renew_responders(container: Container) -> str:
    """See that each issuing CA has an OCSP signer with more than half of its life before it."""
    made = [
        authority_id
        for authority_id in _issuing(container)
        if renewal.ensure_responder(
            container.engine,
            container.signer,
            authority_id=authority_id,
            keys_folder=container.settings.web_keys,
            passphrase=web_passphrase(container),
            base_url=container.settings.base_url,
            now=container.signing.instant(),
        )
    ]
    with transaction(container.engine) as connection:
        servers_authority.note_missing(connection, container.present(connection))
    return f"made OCSP signers for {', '.join(made)}" if made else ""


def presign_ocsp(container: Container) -> str:
    """Sign the OCSP answers that are missing or getting old."""
    now = container.signing.instant()
    with transaction(container.engine) as connection:
        loaded = responders.load_responders(
            connection, container.settings.web_keys, web_passphrase(container), now
        )
    signed = responders.presign_due(container.engine, loaded, now, container.settings.ocsp_hours, 50_000)
    return f"{signed} answers signed" if signed else ""


def recover_issuance(container: Container) -> str:
    """Store and revoke what a crash left signed but not stored (rule 27 of docs/explanation/issuance.md)."""
    found = use_cases.recover(container.engine, container.signer, container.present())
    return f"found signed but not stored, and revoked: {', '.join(found)}" if found else ""


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
        closed = withdrawal_limits.let_go(connection, container.settings.allowance, container.clock())
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
        looked, disagreed = outside_view.look(connection, now=now, start=start)
    if disagreed:
        first = disagreed[0]
        text = (
            f"{len(disagreed)} of {looked} certificates are seen otherwise than recorded:"
            f" {first.serial} of {first.authority_id} is {first.recorded}, outside: {first.seen}."
        )
        raise Refusal(Kind.UNACCEPTABLE, "outside-disagrees", text, serials=[one.serial for one in disagreed])
    return f"{looked} certificates seen as recorded"


def sign_checkpoint(container: Container) -> str:
    """Number waiting audit lines and sign the new head, kept in the database and in a file beside it."""
    file = checkpoint_file(container)
    with transaction(container.engine) as connection:
        count = transparency.sequence(
            connection, audit_key(container), now=container.signing.instant(), checkpoint_file=file
        )
    transparency.publish_heads(container.engine, file)
    return f"{count} audit lines" if count else ""


def verify_log(container: Container) -> tuple[int, transparency.Verified]:
    """The log's size, everything found wrong with it, and what it says itself that it has lost."""
    public_key = audit_key(container).public_key()
    with transaction(container.engine, read_only=True) as connection:
        found = transparency.examine(connection, public_key, checkpoint_file(container))
        return transparency_store.size(connection), found


def audit_key(container: Container) -> signed_note.AuditKey:
    """The key that signs the log's heads, made by the first who asks."""
    return signed_note.ensure_key(container.settings.audit_folder / "key.pem", web_passphrase(container))


def checkpoint_file(container: Container) -> Path:
    """Where signed heads are kept outside the database."""
    return container.settings.kept.heads


def web_passphrase(container: Container) -> bytes:
    """The passphrase of the keys that live with web and worker."""
    return passphrase(container.settings, Secret.WEB)


def _issuing(container: Container) -> list[str]:
    with transaction(container.engine) as connection:
        # Retired ones too: what they issued is asked about to its last day.
        query = select(tables.authority.c.id).where(
            tables.authority.c.kind == "issuing", tables.authority.c.not_after > container.clock()
        )
        return list(connection.execute(query).scalars())

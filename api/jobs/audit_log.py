"""The audit log numbered, its heads signed, and the whole of it checked."""

from pathlib import Path

from api.jobs.passphrases import web_passphrase
from api.wiring import Container
from directory.base.db import transaction
from pki.tlog import checkpoint, sequencer, verifier
from pki.tlog import store as tlog_store


def sign_checkpoint(container: Container) -> str:
    """Number waiting audit lines and sign the new head, kept in the database and in a file beside it."""
    file = checkpoint_file(container)
    with transaction(container.numbering or container.engine) as connection:
        count = sequencer.sequence(
            connection, audit_key(container), now=container.signing.instant(), checkpoint_file=file
        )
    sequencer.publish_heads(container.engine, file)
    return f"{count} audit lines" if count else ""


def verify_log(container: Container) -> tuple[int, verifier.Verified]:
    """The log's size, everything found wrong with it, and what it says itself that it has lost."""
    public_key = audit_key(container).public_key()
    with transaction(container.engine, read_only=True) as connection:
        examination = verifier.examine(connection, public_key, checkpoint_file(container))
        return tlog_store.size(connection), examination


def audit_key(container: Container) -> checkpoint.AuditKey:
    """The key that signs the log's heads, made by the first who asks."""
    return checkpoint.ensure_key(container.settings.audit_folder / "key.pem", web_passphrase(container))


def checkpoint_file(container: Container) -> Path:
    """Where signed heads are kept outside the database."""
    return container.settings.kept.heads

"""Publishing the CRLs that are due, and letting go of bytes that nobody can hold any more."""

from datetime import timedelta

from api.wiring import Container
from directory.base.db import transaction
from pki.crl import publish as crl
from pki.crl import store

# As long as the longest a reader may hold one by default: a fault found later has the digest to go by.
CRL_BYTES_KEPT = timedelta(days=3)


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
        shards = store.online_shards(connection)
    for authority_id, shard in shards:
        crl.publish(
            container.engine, container.signer, authority_id=authority_id, shard=shard,
            now=container.signing.instant(), lifetime=lifetime, floor_file=container.settings.crl_floor,
        )  # fmt: skip
    return len(shards)


def let_crl_bytes_go(container: Container) -> str:
    """Empty the bytes of CRLs that nobody can hold any more."""
    with transaction(container.engine) as connection:
        count = crl.delete_superseded_bytes(connection, container.clock(), CRL_BYTES_KEPT)
    return f"bytes of {count} CRLs let go" if count else ""

"""The rows of CAs: found by their number or their role, and in chains."""

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection, Select, bindparam, select, text
from sqlalchemy.dialects.postgresql import insert

from directory.base.errors import Kind, Refusal
from directory.base.prepared_statement import Statement
from pki.model import Authority, AuthorityState, CrlForm
from pki.record.tables import authority, crl_shard

AUTHORITY_COLUMNS = (
    authority.c.id, authority.c.kind, authority.c.issuer_id, authority.c.subject, authority.c.key_name,
    authority.c.shards, authority.c.der, authority.c.not_before, authority.c.not_after, authority.c.role,
    authority.c.generation, authority.c.state, authority.c.offline, authority.c.crl_form,
)  # fmt: skip
_AUTHORITY_FIELDS = tuple(column.name for column in AUTHORITY_COLUMNS)
# On hold as well: whoever doubts a CA does not want it to go on. Begun from the few certificates of CAs.
_NOT_REVOKED = text("""
    authority.sha256 NOT IN (SELECT c.sha256 FROM certificate c CROSS JOIN LATERAL (
        SELECT action FROM revocation_state r WHERE r.serial = c.serial LIMIT 1
    ) AS last WHERE c.profile = 'issuing-ca' AND last.action <> 'release')
""")

# Made once: a statement of the road to a certificate that is put together at each call costs as much again as
# its answer.
_AUTHORITY_OF_ID: Select[Any] = select(*AUTHORITY_COLUMNS).where(authority.c.id == bindparam("id"))
_ACTIVE_OF_ROLE = Statement(
    select(*AUTHORITY_COLUMNS)
    .where(
        authority.c.role == bindparam("role"),
        authority.c.state == AuthorityState.ACTIVE.value,
        _NOT_REVOKED,
    )
    .order_by(authority.c.generation.desc())
)


def load_authority(connection: Connection, authority_id: str) -> Authority | None:
    """The CA of that name, or None."""
    row = connection.execute(_AUTHORITY_OF_ID, {"id": authority_id}).one_or_none()
    return None if row is None else authority_in(row)


def issuing_authority(connection: Connection, role: str, now: datetime) -> Authority:
    """The CA that issues for this role: of those active, valid and not revoked the newest generation.

    Refuses `unknown-authority` when none is active, `authority-expired` when none of those is valid.
    """
    active = [authority_in(row) for row in _ACTIVE_OF_ROLE.rows(connection, {"role": role})]
    if not active:
        raise Refusal(Kind.NOT_FOUND, "unknown-authority", f"No authority issues for {role}.")
    for candidate in active:
        if candidate.not_before <= now < candidate.not_after:
            return candidate
    raise Refusal(
        Kind.UNAVAILABLE, "authority-expired", f"The authority {active[0].id} is not valid at this time."
    )


def authorities(connection: Connection) -> list[Authority]:
    """Every CA, roots first, then by age."""
    query: Select[Any] = select(*AUTHORITY_COLUMNS)
    query = query.order_by(authority.c.kind.desc(), authority.c.created_at, authority.c.id)
    return [authority_in(row) for row in connection.execute(query)]


def answered_for(connection: Connection, now: datetime) -> list[str]:
    """The issuing CAs of which certificates may be asked about: retired ones too, to their last day."""
    query = select(authority.c.id).where(authority.c.kind == "issuing", authority.c.not_after > now)
    return list(connection.execute(query).scalars())


def chain_of(connection: Connection, authority_id: str) -> list[bytes]:
    """The certificates (DER) of that CA and of those above it, the root last."""
    known = {ca.id: ca for ca in authorities(connection)}
    chain, at = [], known.get(authority_id)
    while at is not None:
        chain.append(at.der)
        at = known.get(at.issuer_id or "")
    return chain


def add_authority(connection: Connection, made: Authority, now: datetime) -> None:
    """Store a CA and the counters of its shards, all at zero."""
    words = {"state": made.state.value, "crl_form": made.crl_form.value}
    row = {**vars(made), **words, "sha256": sha256(made.der).digest(), "created_at": now}
    connection.execute(insert(authority).values(row))
    shards = [{"authority_id": made.id, "shard": shard} for shard in range(made.shards)]
    connection.execute(insert(crl_shard), shards)


def authority_in(row: Sequence[Any]) -> Authority:
    """The CA that a row tells of."""
    return _authority_of(tuple(row))


@lru_cache(maxsize=64)
def _authority_of(row: tuple[Any, ...]) -> Authority:
    """There are few, and each certificate asks for one twice."""
    known = dict(zip(_AUTHORITY_FIELDS, row, strict=True))
    words = {"state": AuthorityState(known["state"]), "crl_form": CrlForm(known["crl_form"])}
    return Authority(**{**known, **words})

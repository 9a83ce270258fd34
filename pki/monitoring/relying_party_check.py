"""What somebody outside would decide with nothing but what is published: a sample, held against the record.

A certificate that stands must lead to a root and be covered by a CRL; one taken back must be seen so. The
judgement is `pki/certificates/path_validation.py`'s. It finds faults that no part finds of itself. Examples
are a CRL of the wrong shard, a CA certificate left out, a list or a delta that lost an entry.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import chain as chained

from cryptography import x509
from sqlalchemy import Connection, text

from directory.base.errors import Refusal
from pki.certificates import path_validation
from pki.certificates.profiles import ISSUING, PROFILES
from pki.crl import store as crl_store
from pki.model import Authority, Serial
from pki.record import authorities

# From a random place on, so that in the end every shard has had its turn.
SAMPLE = 64
Lists = dict[tuple[str, int], list[x509.CertificateRevocationList]]
# Those that name no CRL are covered by none: roots, which are trusted for being known, and OCSP signers.
_COVERED = [profile.name for profile in PROFILES.values() if profile.names_crl and not profile.is_authority]
_SAMPLE = text("""
    SELECT c.serial, c.authority_id, c.shard, c.der, last.action, last.revoked_at FROM (
        (SELECT * FROM certificate
         WHERE serial >= :start AND profile = ANY(:covered) AND not_after > :now ORDER BY serial LIMIT :limit)
        UNION ALL SELECT * FROM certificate WHERE profile = :issuing AND not_after > :now
    ) AS c
    LEFT JOIN LATERAL (
        SELECT action, revoked_at FROM revocation_state r WHERE r.serial = c.serial LIMIT 1
    ) AS last ON true
""")


@dataclass(frozen=True)
class Disagreement:
    """A certificate of which outside and record say different things; `seen` is `trusted` or a refusal."""

    serial: Serial
    authority_id: str
    seen: str
    recorded: str


@dataclass(frozen=True)
class _Sampled:
    serial: Serial
    authority_id: str
    shard: int
    der: bytes
    action: str | None
    revoked_at: datetime | None


def look(connection: Connection, *, now: datetime, start: Serial) -> tuple[int, list[Disagreement]]:
    """How many certificates were looked at, from `start` on, and on which outside and record disagree."""
    known = authorities.authorities(connection)
    asked = {"start": start, "now": now, "limit": SAMPLE, "covered": _COVERED, "issuing": ISSUING.name}
    sampled = [_Sampled(*row) for row in connection.execute(_SAMPLE, asked)]
    lists = _lists(connection, known, sampled)
    made = crl_store.last_made(connection)
    disagreed = []
    for certificate in sampled:
        recorded = "revoked" if certificate.action in {"revoke", "hold"} else "trusted"
        seen = _seen(certificate, known, lists, now)
        if (recorded == "trusted") != (seen == "trusted") and not _still_to_come(certificate, made):
            disagreed.append(Disagreement(certificate.serial, certificate.authority_id, seen, recorded))
    return len(sampled), disagreed


def _lists(connection: Connection, known: Collection[Authority], sampled: Iterable[_Sampled]) -> Lists:
    """By shard, the published CRL and delta of these certificates, and of the CAs' own."""
    wanted = {(certificate.authority_id, certificate.shard) for certificate in sampled}
    wanted |= {(authority.id, 0) for authority in known if authority.issuer_id is None}
    crls = {
        place: [crl_store.latest(connection, *place, delta=delta) for delta in (False, True)]
        for place in wanted
    }
    return {
        place: [x509.load_der_x509_crl(crl.der) for crl in both if crl is not None]
        for place, both in crls.items()
    }


def _seen(
    sampled: _Sampled,
    known: Collection[Authority],
    lists: Lists,
    now: datetime,
) -> str:
    seen = "path-not-found"
    certificates = {authority.id: x509.load_der_x509_certificate(authority.der) for authority in known}
    anchors = [certificates[authority.id] for authority in known if authority.issuer_id is None]
    others = [certificate for certificate in certificates.values() if certificate not in anchors]
    for anchor in anchors:
        try:
            path_validation.find_path(
                x509.load_der_x509_certificate(sampled.der),
                anchor,
                others,
                list(chained.from_iterable(lists.values())),
                now,
            )
        except Refusal as refusal:
            seen = refusal.code
        else:
            return "trusted"
    return seen


def _still_to_come(certificate: _Sampled, made: Mapping[tuple[str, int], datetime]) -> bool:
    """Whether the record changed after the last CRL or delta was made, which is later than the thisUpdate it
    bears. The next will say so, within the minute.
    """
    last = made.get((certificate.authority_id, certificate.shard))
    return last is not None and certificate.revoked_at is not None and certificate.revoked_at >= last

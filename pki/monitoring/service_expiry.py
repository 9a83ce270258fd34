"""How long what this service itself stands on still holds: CAs, CRLs, signers, its own TLS certificate.

Each kind has its own two leads: `soon`, when somebody should know, and `due`, when what renews it has failed
and somebody must act. Certificates of subscribers are `expiry_notices`'s.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from types import MappingProxyType

from sqlalchemy import Connection, text

from directory.feed.changes import PLACE_OF_CRL
from pki.certificates.profiles import LIST_SIGNER, SERVICE_TLS

_DAY = timedelta(days=1)


class Kind(Enum):
    """What it is; each has its own way and time of being renewed."""

    ROOT = "root"
    ISSUING = "issuing-ca"
    OCSP_SIGNER = "ocsp-signer"
    LIST_SIGNER = "list-signer"
    SERVICE_TLS = "service-tls"
    CRL = "crl"


class Condition(Enum):
    """Well; somebody should plan; somebody must act (or it is over)."""

    OK = "ok"
    SOON = "soon"
    DUE = "due"


@dataclass(frozen=True)
class Lead:
    """How long before the end: whichever is shorter, the time or the share of the whole life."""

    soon: timedelta
    soon_share: float
    due: timedelta
    due_share: float


LEADS: Mapping[Kind, Lead] = MappingProxyType(
    {
        # Under a root with less, a new issuing CA no longer gets its twelve years.
        Kind.ROOT: Lead(4380 * _DAY, 1, 1825 * _DAY, 0.5),
        # Under a CA with less, certificates are cut short; a roll-over takes people, keys and months.
        Kind.ISSUING: Lead(824 * _DAY, 1, 365 * _DAY, 0.5),
        # Renewed hourly from half on; the slack keeps one late run from raising the alarm.
        Kind.OCSP_SIGNER: Lead(15 * _DAY, 0.5, 14 * _DAY, 0.45),
        # Renewed when something is signed, which may be half a week after half.
        Kind.LIST_SIGNER: Lead(15 * _DAY, 0.5, 11 * _DAY, 0.35),
        # Renewed with 60 days left, under the running slapd.
        Kind.SERVICE_TLS: Lead(59 * _DAY, 0.3, 30 * _DAY, 0.15),
        # A CRL expired unseen for eight hours elsewhere: less than half is an alarm. One that an offline root
        # signs for a year takes a meeting, so a month.
        Kind.CRL: Lead(60 * _DAY, 0.6, 30 * _DAY, 0.5),
    }
)

# Of each kind the last to end counts: what was replaced may run out. A CA that another generation has
# followed may too, but its CRLs and OCSP signers are wanted to its last day.
_OURS = text(f"""
    SELECT CASE a.kind WHEN 'root' THEN 'root' ELSE 'issuing-ca' END AS kind, a.id AS name,
           a.not_before AS begins, a.not_after AS ends
    FROM authority a WHERE NOT EXISTS (
        SELECT FROM authority n
        WHERE n.role = a.role AND n.generation > a.generation AND n.state = 'active')
    UNION ALL
    SELECT * FROM (
        SELECT DISTINCT ON (r.authority_id) 'ocsp-signer', r.authority_id, r.not_before, r.not_after
        FROM ocsp_responder r JOIN authority a ON a.id = r.authority_id WHERE a.not_after > :now
        ORDER BY r.authority_id, r.not_after DESC) AS responders
    UNION ALL
    SELECT * FROM (
        SELECT DISTINCT ON (c.profile) c.profile, c.profile, c.not_before, c.not_after FROM certificate c
        WHERE c.profile IN (:list_signer, :service_tls)
        AND NOT EXISTS (SELECT FROM revocation_state v WHERE v.serial = c.serial AND v.action <> 'release')
        ORDER BY c.profile, c.not_after DESC) AS services
    UNION ALL
    SELECT 'crl', a.id || '/0', a.not_before, a.not_before FROM authority a
    WHERE a.offline AND NOT EXISTS (SELECT FROM crl c WHERE c.authority_id = a.id AND c.der IS NOT NULL)
    UNION ALL
    SELECT * FROM (
        SELECT DISTINCT ON (s.authority_id, k.delta) 'crl', {PLACE_OF_CRL.format(row="s")} || k.word,
               last.this_update, last.next_update
        FROM crl_shard s JOIN authority a ON a.id = s.authority_id
        CROSS JOIN (VALUES (false, ''), (true, '-delta')) AS k (delta, word) CROSS JOIN LATERAL (
            SELECT c.this_update, c.next_update FROM crl c
            WHERE c.authority_id = s.authority_id AND c.shard = s.shard AND c.der IS NOT NULL
              AND (c.base IS NOT NULL) = k.delta
            ORDER BY c.number DESC LIMIT 1) AS last
        WHERE a.not_after > :now ORDER BY s.authority_id, k.delta, last.next_update, s.shard) AS lists
""")  # noqa: S608 - of our own


@dataclass(frozen=True)
class Lifetime:
    """One thing of ours: from when until when it holds; of a CA's CRLs, or deltas, the first to end."""

    kind: Kind
    name: str
    begins: datetime
    ends: datetime

    @property
    def label(self) -> str:
        """What people and monitors call it."""
        return self.kind.value if self.kind.value == self.name else f"{self.kind.value}:{self.name}"

    def condition(self, now: datetime) -> Condition:
        """How it stands with so much left."""
        lead, left, life = LEADS[self.kind], self.ends - now, self.ends - self.begins
        if left < min(lead.due, life * lead.due_share):
            return Condition.DUE
        return Condition.SOON if left < min(lead.soon, life * lead.soon_share) else Condition.OK


def ours(connection: Connection, now: datetime) -> list[Lifetime]:
    """Everything of ours that ends, the first to end first."""
    asked = {"now": now, "list_signer": LIST_SIGNER.name, "service_tls": SERVICE_TLS.name}
    lifetimes = [Lifetime(Kind(kind), *rest) for kind, *rest in connection.execute(_OURS, asked)]
    return sorted(lifetimes, key=lambda lifetime: (lifetime.ends, lifetime.label))

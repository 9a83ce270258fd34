"""The PKI's rows a verdict rests on: certificates with what became of them, and who answers for whom.

One statement per question, for any number of mailboxes. `at` None is the present: everything recorded counts,
whatever the clock of the machine that recorded it.
"""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection

from directory.store import present_and_past
from pki.certificates.profiles import served_by
from pki.model import Serial
from pki.verdict.model import CertificateFacts

# The array stands in a subquery for the reason given in directory/store.py: one plan, whatever its size.
# The last event as of an instant, which the view `revocation_state` cannot tell.
CERTIFICATES = """SELECT c.mailbox, c.serial, c.der, c.sha256, c.not_before, c.not_after, c.profile,
       coalesce(u.successor, c.practitioner), last.action, last.revoked_at, sceau_establishment_of(c.subject)
FROM unnest((SELECT CAST(:mailboxes AS text[]))) AS asked (mailbox)
JOIN certificate c ON c.mailbox = asked.mailbox
LEFT JOIN {succession} u ON u.national_id = c.practitioner
LEFT JOIN LATERAL (
    SELECT r.action, r.revoked_at FROM revocation r WHERE r.serial = c.serial
    AND (CAST(:at AS timestamptz) IS NULL
        OR coalesce(r.recorded_at, r.revoked_at) <= CAST(:at AS timestamptz))
    ORDER BY r.id DESC LIMIT 1) AS last ON true
WHERE CAST(:at AS timestamptz) IS NULL OR c.issued_at <= CAST(:at AS timestamptz)
ORDER BY c.not_after DESC, c.serial"""

# Of an enrolment `e`: whether it names who answers for its mailbox.
ANSWERS = """(e.state = 'approved'
    -- Before migration 0032 a request ended it: whoever answered did so until that was approved or ended.
    OR e.state = 'ended' AND e.approved_at IS NOT NULL AND EXISTS (
        SELECT FROM {enrolment} n WHERE n.mailbox = e.mailbox AND n.practitioner = e.practitioner
        AND n.state = 'requested' AND n.requested_at = e.ended_at))"""

ANSWERABLE = f"""SELECT DISTINCT e.mailbox, coalesce(u.successor, e.practitioner) AS whose
FROM {{enrolment}} e LEFT JOIN {{succession}} u ON u.national_id = e.practitioner
WHERE e.mailbox = ANY(CAST(:mailboxes AS text[])) AND {ANSWERS} ORDER BY whose"""  # noqa: S608 - of this module

_TABLES = ("enrolment", "succession")
_CERTIFICATES = present_and_past(CERTIFICATES, _TABLES)
_ANSWERABLE = present_and_past(ANSWERABLE, _TABLES)


def certificates_of(
    connection: Connection, mailboxes: Sequence[str], at: datetime | None
) -> dict[str, tuple[CertificateFacts, ...]]:
    """Each mailbox's certificates issued by `at`, longest-lived first, with their revocation as of `at`."""
    by_mailbox: dict[str, list[CertificateFacts]] = defaultdict(list)
    rows = connection.execute(_CERTIFICATES[at is not None], {"mailboxes": list(mailboxes), "at": at})
    for mailbox, serial, der, sha256, not_before, not_after, profile, whose, action, acted_at, place in rows:
        by_mailbox[mailbox].append(
            CertificateFacts(
                Serial(serial),
                der,
                sha256,
                not_before,
                not_after,
                served_by(profile),
                practitioner=whose,
                revoked_at=acted_at if action == "revoke" else None,
                on_hold=action == "hold",
                establishment=place,
            )
        )
    return {mailbox: tuple(certificates) for mailbox, certificates in by_mailbox.items()}


def answerable_for(
    connection: Connection, mailboxes: Sequence[str], at: datetime | None
) -> dict[str, tuple[str, ...]]:
    """The national ids of those whose approved enrolment names them for each mailbox, at `at`."""
    by_mailbox: dict[str, list[str]] = defaultdict(list)
    asked = {"mailboxes": list(mailboxes)} | ({} if at is None else {"at": at})
    for mailbox, national_id in connection.execute(_ANSWERABLE[at is not None], asked):
        by_mailbox[mailbox].append(national_id)
    return {mailbox: tuple(national_ids) for mailbox, national_ids in by_mailbox.items()}

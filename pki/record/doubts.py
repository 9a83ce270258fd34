"""Doubts that outlive the certificate: somebody's hold that another's revocation, or a job's, made final.

An act that gives trust back takes two persons, or the one who took it. A revocation takes the certificate
away, and the doubt about whom it names stays. The enrolment behind it certifies nothing more, until two
persons vouch anew. A measure's hold ends with the measure, and a holder's own doubt is of the key, which is
gone. SQL only.
"""

from sqlalchemy import Connection, text

from pki.model import Enrolment

# Of the certificate c and the enrolment e. The hold of a certificate made on e came after its approval,
# whatever a clock said. Whoever put it settles it by revoking himself, or by restating the reason afterwards.
UNSETTLED = """EXISTS (
    SELECT FROM revocation h WHERE h.serial = c.serial AND h.action = 'hold'
    AND left(h.actor, 4) NOT IN ('job:', 'key:')
    AND (coalesce(h.recorded_at, h.revoked_at) > e.approved_at OR EXISTS (
        SELECT FROM reservation made WHERE made.serial = c.serial AND made.enrolment_id = e.id))
    AND EXISTS (SELECT FROM revocation r WHERE r.serial = h.serial AND r.id > h.id AND r.action = 'revoke')
    AND NOT EXISTS (
        SELECT FROM revocation r WHERE r.serial = h.serial AND r.id > h.id
        AND (r.action = 'release' OR r.action = 'revoke' AND r.actor = h.actor)))"""
_OF_ENROLMENT = text(f"""
    SELECT EXISTS (
        SELECT FROM enrolment e
        JOIN certificate c ON c.mailbox = e.mailbox AND c.practitioner = e.practitioner
        WHERE e.id = :id AND {UNSETTLED})
""")  # noqa: S608 - a constant of this module


def stands(connection: Connection, enrolment: Enrolment) -> bool:
    """Whether somebody's doubt since its approval was never settled by him, nor by a release."""
    return bool(connection.execute(_OF_ENROLMENT, {"id": enrolment.id}).scalar_one())

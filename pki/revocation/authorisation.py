"""Who may take which certificate back: the registrars of its holder, a server's operator, the CA's owner.

The holder himself shows his key instead of a token: `pki/revocation/proof_of_possession.py`.
"""

from collections.abc import Collection

from sqlalchemy import Connection, select

from directory import privacy
from directory import store as directory_store
from directory.access import Role, Token, actor_of
from directory.base.errors import Kind, Refusal
from directory.red_list import is_red_listed
from directory.rules import registering_authorities
from directory.tables import api_token
from pki.model import IssuedCertificate, RevocationReason
from pki.record.revocations import Revocable
from pki.record.tables import operator_certificate
from pki.registration import eligibility
from pki.revocation.reasons import HOLDERS


def check_may_revoke(
    connection: Connection, token: Token, revocable: Revocable, reason: RevocationReason | None = None
) -> None:
    """Refuse `not-a-registrar`, `wrong-authority`, `reserved-to-owner` to whom it is not for.

    A registrar acts for people of his authority: those it registers now, or enrolled for this certificate. An
    operator acts for its own servers and clients, with the reasons of a holder.
    """
    if token.role is Role.ADMIN:
        return
    if reason is RevocationReason.CA_COMPROMISE:
        raise reserved_to_owner("Only the owner of the CA says that its key is compromised.")
    if token.role is Role.OPERATOR:
        _check_operator(connection, token, revocable, reason)
        return
    eligibility.check_registrar(token)
    holder = revocable.certificate.practitioner
    if holder is None:
        raise reserved_to_owner("This is a certificate of the service itself: no registrar revokes it.")
    if token.authority not in _acting_for(connection, holder, revocable.authority):
        raise eligibility.wrong_authority(token.authority)


def may_see_holder(
    connection: Connection, token: Token, certificate: IssuedCertificate, authority: str | None
) -> bool:
    """Whether this reader may learn whose a certificate is from its serial number, which CRLs tell everybody.

    Some mailboxes are red-listed, or their subject has private data. Only those may who act for its holder,
    auditors, and the owner of the CA. `authority` enrolled for it.
    """
    if certificate.mailbox is None:
        return True
    withheld = privacy.secrets_in_subject(certificate.subject, certificate.mailbox)
    if not withheld and not is_red_listed(connection, certificate.mailbox):
        return True
    if token.role is not Role.REGISTRAR:
        return token.role in (Role.AUDITOR, Role.ADMIN)
    return token.authority in _acting_for(connection, certificate.practitioner, authority)


def _acting_for(connection: Connection, holder: str | None, enrolled_by: str | None) -> set[str | None]:
    """Whoever departed has no profession left: then it is for those who enrolled."""
    people = directory_store.practitioners(connection, [holder]) if holder is not None else {}
    return {enrolled_by, *(body for person in people.values() for body in registering_authorities(person))}


def check_may_release(
    connection: Connection, token: Token, revocable: Revocable, holders: Collection[str]
) -> None:
    """As `check_may_revoke`; an operator lifts its own holds only: a doubt about it is not its to undo.

    `holders` are those whose holds stand on it, by their names in the log.
    """
    check_may_revoke(connection, token, revocable)
    if token.role is not Role.OPERATOR:
        return
    own = select(api_token.c.id).where(api_token.c.operator_id == token.operator_id)
    actors = {actor_of(token_id).name for token_id in connection.execute(own).scalars()}
    if not set(holders) <= {*actors, f"key:{revocable.certificate.serial}"}:
        raise reserved_to_owner("This hold is not the operator's: whoever put it there lifts it.")


def check_holder_may_say(reason: RevocationReason) -> None:
    """Refuse `reason-reserved`: what a registrar or the owner of the CA decides is not for holders to say."""
    if reason not in HOLDERS:
        words = ", ".join(sorted(holder_reason.value for holder_reason in HOLDERS))
        raise Refusal(Kind.FORBIDDEN, "reason-reserved", f"A holder says one of {words}.")


def _check_operator(
    connection: Connection, token: Token, revocable: Revocable, reason: RevocationReason | None
) -> None:
    query = select(operator_certificate.c.operator_id).where(
        operator_certificate.c.serial == revocable.certificate.serial
    )
    whose = connection.execute(query).scalar_one_or_none()
    if whose is None or whose != token.operator_id:
        text = "An operator revokes the certificates of its own servers and clients."
        raise Refusal(Kind.FORBIDDEN, "not-your-certificate", text)
    if reason is not None:
        check_holder_may_say(reason)
        if revocable.event is not None:
            # Nor does he reword what was decided over his head.
            check_holder_may_say(revocable.event.reason)


def reserved_to_owner(text: str) -> Refusal:
    """The refusal of what only the CA's owner does."""
    return Refusal(Kind.FORBIDDEN, "reserved-to-owner", text)

"""What a revocation does to what went before, and which reasons may be corrected. Pure."""

from directory.base.audit import Actor
from directory.base.errors import Kind, Refusal
from pki.model import RevocationAction, RevocationReason


def revoking_action(reason: RevocationReason, last: RevocationAction | None) -> RevocationAction:
    """What a revocation for this reason does when `last` is the last event; refuses what is final."""
    if last is RevocationAction.REVOKE:
        text = "This certificate is revoked already, and for good."
        raise Refusal(Kind.CONFLICT, "already-revoked", text)
    if reason is not RevocationReason.CERTIFICATE_HOLD:
        return RevocationAction.REVOKE
    if last is RevocationAction.HOLD:
        raise Refusal(Kind.CONFLICT, "already-on-hold", "This certificate is on hold already.")
    return RevocationAction.HOLD


def check_restatement(
    last: RevocationAction | None, told: RevocationReason | None, reason: RevocationReason
) -> None:
    """Refuse to correct the reason of what is not revoked for good, to no other reason, or of a lost key.

    A key once said to be lost stays so: others have acted upon it, and it is blocked.
    """
    if last is not RevocationAction.REVOKE:
        text = "This certificate is not revoked for good: there is no reason to correct."
        raise Refusal(Kind.CONFLICT, "not-revoked", text)
    if reason is RevocationReason.CERTIFICATE_HOLD:
        text = "A certificate revoked for good is never again only on hold."
        raise Refusal(Kind.CONFLICT, "already-revoked", text)
    if told is reason:
        raise Refusal(Kind.CONFLICT, "same-reason", f"It is revoked for {reason.value} already.")
    if told in {RevocationReason.KEY_COMPROMISE, RevocationReason.CA_COMPROMISE}:
        text = "A key once reported compromised stays so."
        raise Refusal(Kind.CONFLICT, "compromise-stays", text)


# Under this name, whoever sets it off. The measure's own line names its author. By this name a hold put here
# is told from one that a registrar put, which stays.
ACTOR = Actor("job:consequences")

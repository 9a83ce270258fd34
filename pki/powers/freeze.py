"""What an administrator's freeze stops: everything that gives trust; what takes it away goes on."""

from directory.base.errors import Kind, Refusal
from pki.powers.state import Powers


def need_thawed(powers: Powers) -> None:
    """Refuse `frozen` from the act of one administrator on, until two lift it."""
    if powers.frozen:
        text = "An administrator has frozen this installation: nothing gives trust until two lift it."
        raise Refusal(Kind.CONFLICT, "frozen", text)

"""How many persons an act takes, and of which role. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

from pki.acts.act import ActKind


class Role(Enum):
    """What a person may do; a word once granted keeps its meaning for ever. `directory.access` has those of
    tokens.
    """

    ADMINISTRATOR = "administrator"
    REGISTRAR = "registrar"
    AUDITOR = "auditor"


@dataclass(frozen=True)
class Needs:
    """So many different persons, all of this role.

    `own_suffices`: the person alone, for what is hers. `recoverable`: two recovery keys may stand in.
    """

    persons: int
    role: Role = Role.ADMINISTRATOR
    own_suffices: bool = False
    recoverable: bool = False


# The kinds that change who holds which power: `state.py` follows these and no others.
OF_POWERS: Mapping[ActKind, Needs] = MappingProxyType(
    {
        ActKind.ROLE_GRANT: Needs(2, recoverable=True),
        ActKind.ROLE_END: Needs(1, own_suffices=True, recoverable=True),
        ActKind.CREDENTIAL_ADD: Needs(2, recoverable=True),
        ActKind.CREDENTIAL_REVOKE: Needs(1, own_suffices=True, recoverable=True),
        ActKind.FREEZE: Needs(1),
        ActKind.UNFREEZE: Needs(2, recoverable=True),
        ActKind.RESTORE_ACCEPT: Needs(2, recoverable=True),
    }
)
# What takes effect before it has a number: whoever withdraws a power does not wait.
TAKING_AWAY = frozenset({ActKind.ROLE_END, ActKind.CREDENTIAL_REVOKE, ActKind.FREEZE})

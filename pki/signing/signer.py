"""What the rest of the service knows of the signer: questions that are all safe to repeat."""

from collections.abc import Sequence
from typing import Protocol

from directory.base.errors import Refusal
from pki.model import Serial

# Half a second of the signer, for which a single request would wait.
MOST_AT_ONCE = 1000
MOST_LISTED = 10_000


class Signer(Protocol):
    """Signs what is committed in the record, and each thing once.

    A question asked twice gets the same certificate, octet for octet. It gets the same CRL but for its
    signature if the first answer was never stored.
    """

    def sign_certificate(self, serial: Serial) -> bytes:
        """The DER of the reserved certificate.

        Refuses `unknown-reservation`, `stale-reservation`, `reservation-unfit`, `already-signed`. Where the
        installation has anchors, refuses `evidence-missing` and `evidence-unfit`, and `frozen`. Refuses
        `record-behind` while the record is behind what was published. Refuses `clock-differs` and
        `clock-behind` of a signer whose clock does not let it sign; `signer-unavailable` when it cannot be
        reached.
        """
        ...

    def sign_certificates(self, serials: Sequence[Serial]) -> list[bytes | Refusal]:
        """As `sign_certificate` for each of at most `MOST_AT_ONCE`: its DER, or what would be refused.

        Refuses `too-many-at-once`; `signer-unavailable` when it cannot be reached.
        """
        ...

    def sign_crl(self, authority_id: str, shard: int, number: int) -> bytes:
        """The reserved CRL in DER; refuses `unknown-crl`, `crl-number-reused`, and what the gate refuses."""
        ...

    def journal(self, serial: Serial) -> bytes | None:
        """The certificate that was signed under this serial, None when none was."""
        ...

    def signed(self, after: int) -> list[Serial]:
        """The serials of certificates signed, in that order, from the `after`-th on; [] at the end."""
        ...

    def ping(self) -> str:
        """The signer's version, when it is there and has its keys."""
        ...

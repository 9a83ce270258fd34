"""Certificate revocation lists: rows to DER, and the order in which one is numbered, signed and stored.

The signature is the signer's, the last look at the bytes is `gate`'s, the queries are `crl_store`'s.
"""

from datetime import datetime

from pki import der
from pki.model import REASON_CODES, RevocationReason, Serial


def entry_der(serial: Serial, revoked_at: datetime, reason: RevocationReason) -> bytes:
    """One element of revokedCertificates (RFC 5280 5.1.2.6), made once, when the revocation is recorded."""
    code = der.extension("2.5.29.21", der.enumerated(REASON_CODES[reason]))
    return der.sequence(der.integer(int(serial, 16)), der.time(revoked_at), der.sequence(code))

"""The signer's own look at a reservation: writing into the database must not be enough to get a signature.

Reads the bytes again and holds them against the profile, the CA and the clock; does not trust that anyone
linted.
"""

from datetime import datetime, timedelta
from hashlib import sha256

from cryptography import x509

from directory.base.errors import Kind, Refusal
from pki.certificates.builder import certificate_of
from pki.certificates.profiles import LONGEST_BACKDATING, PROFILES, RESERVATION_LIFE
from pki.certificates.signature_algorithms import unsealed
from pki.lint.catalogue import LINTS
from pki.lint.lint import Case, run
from pki.model import Authority, Reservation

# The web's clock and the signer's are on machines of one site.
CLOCK_SKEW = timedelta(minutes=1)


def inspect(reserved: Reservation, authority: Authority, now: datetime) -> x509.Certificate:
    """What these bytes say, when they may be signed; refuses `stale-reservation` and `reservation-unfit`."""
    if not now - RESERVATION_LIFE - CLOCK_SKEW <= reserved.reserved_at <= now + CLOCK_SKEW:
        text = "This reservation is not of the last five minutes."
        raise Refusal(Kind.CONFLICT, "stale-reservation", text)
    if sha256(reserved.tbs).digest() != reserved.tbs_sha256:
        raise _unfit("the bytes do not match their digest")
    try:
        certificate = unsealed(reserved.tbs)
    except (ValueError, IndexError) as error:
        raise _unfit("the bytes are not a certificate's") from error
    profile = PROFILES.get(reserved.profile)
    if profile is None or profile.is_authority:
        raise _unfit("the profile is not one that is issued day by day")
    if int(reserved.serial, 16) != certificate.serial_number:
        raise _unfit("the serial number is another")
    if certificate.not_valid_before_utc < now - LONGEST_BACKDATING - RESERVATION_LIFE:
        raise _unfit("it is backdated")
    if certificate.not_valid_before_utc > now + CLOCK_SKEW:
        raise _unfit("it begins later")
    issuer = certificate_of(authority.der)
    case = Case(certificate, profile, issuer, reserved.mailbox, authority.crl_form, authority.role)
    for finding in run(LINTS, case):
        raise _unfit(f"{finding.lint}: {finding.text}")
    return certificate


def _unfit(reason: str) -> Refusal:
    return Refusal(Kind.UNACCEPTABLE, "reservation-unfit", f"The signer does not sign this: {reason}.")

"""An address for each verdict and each reason, so that an operator who connects a mail service can try all of
them.

Their domain is reserved (RFC 2606), so that nobody ever has a mailbox there. They are no rows of the record.
The facts of each are made here and judged by the same rules as any other (`pki/verdict/decide.py`). So no
directory, export, feed or search can take one for a professional. Towards a mailbox of the record none is a
sender (`verdicts` there). Pure, and off unless a setting says so.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from types import MappingProxyType
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, derive_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from directory.base.errors import Refusal
from directory.identifiers import parse_address
from directory.model import (
    Mailbox,
    MailboxFacts,
    MailboxKind,
    MailboxStanding,
    Organisation,
    Practice,
    Practitioner,
    Trust,
)
from pki.certificates.builder import NOTHING
from pki.certificates.profiles import ARC
from pki.model import BEFORE_OUR_RECORDS, JOINED, serial_of
from pki.verdict.model import CertificateFacts, CertificateReason

DOMAIN = "reasons.test"
ALLOWED, UNKNOWN = "allowed", "unknown"
# What no spelling of a domain makes an address: it needs no row here, since it is refused as it stands.
MALFORMED = f".{MailboxStanding.MALFORMED_ADDRESS.value}@{DOMAIN}"
FOR_TRIAL = x509.ObjectIdentifier(f"{ARC}.3.1")
_YEAR = timedelta(days=365)


@dataclass(frozen=True)
class Trial:
    """What would be known of such an address; `recorded` is whether the record reaches back that far."""

    facts: MailboxFacts
    certificates: tuple[CertificateFacts, ...] = ()
    recorded: bool = True


def address_of(word: str) -> str:
    """The address that is answered with this reason, or this verdict."""
    return MALFORMED if word == MailboxStanding.MALFORMED_ADDRESS.value else f"{word}@{DOMAIN}"


def words() -> tuple[str, ...]:
    """All that can be tried: the verdicts that have no reason of their own, then each reason."""
    return (
        ALLOWED,
        UNKNOWN,
        BEFORE_OUR_RECORDS,
        *(member.value for member in (*MailboxStanding, *CertificateReason)),
    )


def trial_of(asked: str, at: datetime) -> Trial | None:
    """What is to be judged for this address as of `at`; None for any that is not one of these."""
    try:
        local, _, domain = parse_address(asked).rpartition("@")
    except Refusal:
        return None
    if domain != DOMAIN or local not in _TRIALS:
        return None
    return _TRIALS[local](_allowed(at), at)


def _person(**other: bool) -> Practitioner:
    someone = Practitioner(
        "0", "", "TEST", "TEST", professions=(("10", "C"),), practices=(Practice("10", "C"),)
    )
    return replace(someone, **other)  # type: ignore[arg-type]


def _allowed(at: datetime) -> Trial:
    address = f"{ALLOWED}@{DOMAIN}"
    mailbox = Mailbox(address, MailboxKind.PERSON, "0", "", "", "", "", listed=False)
    trust = Trust("CN=TEST", "TEST")
    facts = MailboxFacts(address, well_formed=True, trusts=(trust,), mailbox=mailbox, holder=_person())
    return Trial(facts, (_certificate(at.astimezone(UTC).year),))


def _with(trial: Trial, **facts: object) -> Trial:
    return replace(trial, facts=replace(trial.facts, **facts))  # type: ignore[arg-type]


def _trusted(trial: Trial, *, domain: bool = False, operator: bool = False) -> Trial:
    (trust,) = trial.facts.trusts
    return _with(trial, trusts=(replace(trust, domain_suspended=domain, operator_suspended=operator),))


def _closed(trial: Trial, at: datetime) -> Trial:
    mailbox = trial.facts.mailbox
    return _with(trial, mailbox=None if mailbox is None else replace(mailbox, departed_at=at))


def _of_place(trial: Trial, place: Organisation | None, *, answered: bool = True) -> Trial:
    mailbox = Mailbox(
        trial.facts.address, MailboxKind.ORGANISATION, None, "1", "000000000", "TEST", "", listed=False
    )
    people = (_person(),) if answered else ()
    return _with(trial, mailbox=mailbox, holder=None, organisation=place, answerable=people)


def _certified(trial: Trial, **other: Any) -> Trial:
    (known,) = trial.certificates
    return replace(trial, certificates=(known._replace(**other),))


_OPEN = Organisation("000000000", "TEST")
_CLOSED = replace(_OPEN, closed_on=date(2000, 1, 1))
_TRIALS: Mapping[str, Callable[[Trial, datetime], Trial]] = MappingProxyType(
    {
        ALLOWED: lambda good, _: good,
        UNKNOWN: lambda good, _: replace(_with(good, mailbox=None, holder=None), certificates=()),
        BEFORE_OUR_RECORDS: lambda good, _: replace(good, recorded=False),
        MailboxStanding.DOMAIN_NOT_TRUSTED.value: lambda good, _: _with(good, trusts=()),
        MailboxStanding.DOMAIN_SUSPENDED.value: lambda good, _: _trusted(good, domain=True),
        MailboxStanding.OPERATOR_SUSPENDED.value: lambda good, _: _trusted(good, operator=True),
        MailboxStanding.MAILBOX_UNKNOWN.value: lambda good, _: replace(
            _with(good, mailbox=None, holder=None), certificates=()
        ),
        MailboxStanding.MAILBOX_CLOSED.value: _closed,
        MailboxStanding.HOLDER_NOT_IN_REGISTRY.value: lambda good, _: _with(good, holder=None),
        MailboxStanding.HOLDER_NOT_PRACTISING.value: lambda good, _: _with(
            good, holder=replace(_person(), practices=())
        ),
        MailboxStanding.HOLDER_SUSPENDED.value: lambda good, _: _with(good, holder=_person(suspended=True)),
        MailboxStanding.HOLDER_STRUCK_OFF.value: lambda good, _: _with(good, holder=_person(struck_off=True)),
        MailboxStanding.ORGANISATION_UNKNOWN.value: lambda good, _: _of_place(good, None),
        MailboxStanding.ORGANISATION_CLOSED.value: lambda good, _: _of_place(good, _CLOSED),
        MailboxStanding.NO_ANSWERABLE_PROFESSIONAL.value: lambda good, _: _of_place(
            good, _OPEN, answered=False
        ),
        CertificateReason.NO_CERTIFICATE.value: lambda good, _: replace(good, certificates=()),
        CertificateReason.REVOKED.value: lambda good, at: _certified(good, revoked_at=at),
        CertificateReason.EXPIRED.value: lambda good, at: _certified(good, not_after=at - _YEAR),
        CertificateReason.ON_HOLD.value: lambda good, _: _certified(good, on_hold=True),
    }
)


@lru_cache(maxsize=8)
def _certificate(year: int) -> CertificateFacts:
    """A certificate that no authority made, the same in every process: who follows its chain trusts nobody.

    Anyone can work out its key, which is derived from the name of the domain: it protects nothing. So a
    critical extension that no program knows has it refused even where somebody trusts it (RFC 5280 4.2).
    """
    seed = sha256(f"{DOMAIN} {year}".encode()).digest()
    names = [(NameOID.COMMON_NAME, f"TEST {year}: nobody, certified by nobody ({DOMAIN})")]
    name = x509.Name([x509.NameAttribute(oid, value[:64]) for oid, value in names])
    serial = int.from_bytes(seed[:19], "big")
    # Years that a certificate can be dated by (RFC 5280 4.1.2.5, and the end of the calendar).
    begin = datetime(max(year, 1951), 1, 1, tzinfo=UTC)
    end = datetime(min(year + 1, 9998), 12, 31, tzinfo=UTC)
    made = (
        x509.CertificateBuilder(name, name, serial_number=serial)
        .public_key(derive_private_key(int.from_bytes(seed, "big") >> 1, SECP256R1()).public_key())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.SubjectAlternativeName([x509.RFC822Name(f"{ALLOWED}@{DOMAIN}")]), critical=False)
        .add_extension(x509.UnrecognizedExtension(FOR_TRIAL, NOTHING), critical=True)
        # Ed25519 signs the same in the same way: of two web processes each gives the same octets.
        .sign(Ed25519PrivateKey.from_private_bytes(seed), None)
    )
    der = made.public_bytes(Encoding.DER)
    return CertificateFacts(
        serial_of(serial), der, sha256(der).digest(), begin, end, JOINED, practitioner="0"
    )

"""What stands against giving trust, or giving it back: a measure, a departure, a blocked key, another's hold.

Issuance, renewal, batches, the release of a hold and the lifting of a measure all ask `standing`. So no road
forgets a reason that another one knows. Who may act is in `pki/revocation/authorisation.py`; what follows
when a reason appears, in `pki/withdrawal/reconcile.py`.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime

from sqlalchemy import Connection, text

from directory import store as directory_store
from directory.base.errors import Kind, Refusal
from directory.base.locks import lock_until_commit
from directory.model import MailboxFacts, Practitioner
from pki.certificates.profiles import OF_OPERATORS
from pki.impediments.causes import Bond, Present, WithdrawalCause, causes, kind_of_profile
from pki.model import Enrolment, IssuedCertificate, Serial
from pki.record import key_locks
from pki.record.revocations import Revocable
from pki.registration import eligibility, operators_store, vouched_names

KEY_BLOCKED = "key-blocked"
ON_HOLD = "certificate-on-hold"
# The person goes on under the new number: by what stands there the certificate is judged for its grace.
_STANDS_DESPITE = frozenset({WithdrawalCause.RENUMBERED})
_BLOCKED = text("""
    SELECT c.serial, found.cause FROM certificate c
    CROSS JOIN LATERAL (SELECT sceau_key_blocked(c.spki_sha256) AS cause) AS found
    WHERE c.serial = ANY(CAST(:serials AS text[])) AND found.cause IS NOT NULL
""")
_OPERATOR_OF = text("SELECT operator_id FROM operator_certificate WHERE serial = :serial")


def standing(
    withdrawal_causes: Iterable[WithdrawalCause], *, blocked: str | None = None, held: Serial | None = None
) -> tuple[str, ...]:
    """The words for all that stands against trust; () when nothing does.

    `withdrawal_causes` are those that hold against the bond, and `blocked` is why the key is blocked. `held`
    is another certificate of the same person and mailbox that is on hold, or whose hold was never settled.
    """
    reasons = [cause.value for cause in withdrawal_causes if cause not in _STANDS_DESPITE]
    return (*reasons, *[KEY_BLOCKED] * (blocked is not None), *[ON_HOLD] * (held is not None))


def check(reasons: Sequence[str]) -> None:
    """Refuse `reason-stands`, naming every reason, while there is one."""
    if reasons:
        sentence = f"Nothing is given while this stands: {', '.join(reasons)}."
        if ON_HOLD in reasons:
            sentence += " A revocation by somebody else does not end a hold: two persons vouch anew then."
        raise Refusal(Kind.CONFLICT, "reason-stands", sentence, reasons=list(reasons))


def check_subject(
    enrolment: Enrolment, person: Practitioner, facts: MailboxFacts, now: datetime
) -> vouched_names.VouchedNames:
    """The names to certify on this enrolment, while nothing stands against whom it is for.

    Refuses as `eligibility.check_enrolment`, `vouched_names.check_unchanged` and `check_given`.
    """
    eligibility.check_enrolment(enrolment.authority, person, facts, now)
    names = vouched_names.check_unchanged(enrolment, person, facts)
    check_given(enrolment, person, facts, now=now)
    return names


def key_blocked(cause: str) -> Refusal:
    """The refusal of a key that is blocked for this cause."""
    text = f"This key must never be certified again: {cause}. Make a new one."
    return Refusal(Kind.UNACCEPTABLE, "key-blocked", text, cause=cause)


def check_given(
    enrolment: Enrolment,
    person: Practitioner,
    facts: MailboxFacts,
    *,
    blocked: str | None = None,
    held: Serial | None = None,
    now: datetime,
) -> None:
    """Refuse `key-blocked`, `reason-stands` to a certificate that is asked for on this enrolment.

    The caller holds the person's lock, and has found `blocked` and `held` under the key's.
    """
    if blocked is not None:
        raise key_blocked(blocked)
    bond = Bond(enrolment.practitioner, enrolment.mailbox)
    check(standing(causes(bond, Present(person, facts), now), held=held))


def lock_holder(connection: Connection, issued: IssuedCertificate) -> None:
    """Hold whom the certificate names, and its key, before its reservation is locked.

    A measure, a departure, a report of the key and an issuance queue there: what `of_certificates` then says
    stays true until the commit.
    """
    if issued.practitioner is not None:
        directory_store.lock_person(connection, issued.practitioner)
    operator = connection.execute(_OPERATOR_OF, {"serial": issued.serial}).scalar_one_or_none()
    if operator is not None:
        lock_until_commit(connection, f"operator:{operator}")
    key_locks.lock_keys(connection, [issued.spki_sha256])


def of_certificates(
    connection: Connection, held: Sequence[Revocable], now: datetime
) -> dict[Serial, tuple[str, ...]]:
    """What stands against giving each of these back, by the present record; those free of it are absent."""
    mail = [
        revocable
        for revocable in held
        if revocable.certificate.practitioner and revocable.certificate.mailbox
    ]
    bonds = {revocable.certificate.serial: bond_of(revocable) for revocable in mail}
    present = present_of(connection, list(bonds.values()))
    withdrawal_causes: dict[Serial, tuple[WithdrawalCause, ...]] = {
        serial: causes(bond, present[bond], now) for serial, bond in bonds.items()
    }
    withdrawal_causes |= _of_operators(connection, [revocable.certificate for revocable in held], now)
    serials = [revocable.certificate.serial for revocable in held]
    keys = blocked_among(connection, serials)
    reasons = {
        serial: standing(withdrawal_causes.get(serial, ()), blocked=keys.get(serial)) for serial in serials
    }
    return {serial: against for serial, against in reasons.items() if against}


def blocked_among(connection: Connection, serials: Collection[Serial]) -> dict[Serial, str]:
    """Of these certificates, those whose key is blocked, with the cause."""
    if not serials:
        return {}
    rows = connection.execute(_BLOCKED, {"serials": list(serials)})
    return {Serial(serial): cause for serial, cause in rows}


def bond_of(revocable: Revocable) -> Bond:
    """What a certificate ties together, as it was when it was made."""
    issued = revocable.certificate
    return Bond(
        issued.practitioner or "",
        issued.mailbox or "",
        revocable.establishment,
        kind_of_profile(issued.profile),
    )


def present_of(connection: Connection, bonds: Sequence[Bond]) -> dict[Bond, Present]:
    """What the record says now of both ends of each bond."""
    if not bonds:
        return {}
    ids = sorted({bond.practitioner for bond in bonds})
    successors = directory_store.successors(connection, ids)
    people = directory_store.practitioners(connection, [*ids, *successors.values()])
    facts = directory_store.mailbox_facts(connection, sorted({bond.mailbox for bond in bonds}))
    return {
        bond: Present(
            people.get(bond.practitioner),
            facts[bond.mailbox],
            people.get(successors.get(bond.practitioner, "")),
        )
        for bond in bonds
    }


def _of_operators(
    connection: Connection, issued: Iterable[IssuedCertificate], now: datetime
) -> Mapping[Serial, tuple[WithdrawalCause, ...]]:
    serials = [certificate.serial for certificate in issued if certificate.profile in OF_OPERATORS]
    if not serials:
        return {}
    return {
        operator_standing.serial: (WithdrawalCause.DOMAIN_WITHDRAWN,) * operator_standing.withdrawn
        + (WithdrawalCause.SUSPENDED,) * operator_standing.suspended
        for operator_standing in operators_store.standing(connection, now, serials)
    }

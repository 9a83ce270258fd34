"""Whether two persons signed for what a certificate would say: the signer trusts no row. Pure.

Rows tell where the signatures are, and what was shown. What counts is that the signatures hold, that both
saw this, and that the to-be-signed bytes name whom they saw.
"""

from collections.abc import Sequence
from datetime import datetime

from cryptography import x509

from directory.base.errors import Kind, Refusal
from pki.acts.act import ActKind
from pki.certificates.builder import extensions_of, subject_of
from pki.certificates.profiles import OF_MAILBOXES
from pki.model import Enrolment, EnrolmentAct, Reservation
from pki.powers.state import NoForceError, Powers
from pki.registration import eligibility
from pki.registration.shown import signer_of
from pki.registration.vouched_names import VouchedNames, kept_names

_WANTED = (ActKind.ENROLMENT_REQUEST, ActKind.ENROLMENT_APPROVE)
# What says whom a certificate is for, beside its subject.
_NAMING = (x509.SubjectAlternativeName, x509.Admissions)


def needs_evidence(reserved: Reservation) -> bool:
    """Whether it is a certificate of a mailbox, or says that it is of an enrolment."""
    return reserved.profile in OF_MAILBOXES or reserved.enrolment_id is not None


def check_evidence(
    powers: Powers,
    enrolment: Enrolment | None,
    acts: Sequence[EnrolmentAct],
    reserved: Reservation,
    certificate: x509.Certificate,
    *,
    now: datetime,
) -> None:
    """Refuse `evidence-missing` and `evidence-unfit`; return when two persons vouch for these bytes.

    `certificate` is what the reserved bytes say, `enrolment` what the record says of the one they name.
    """
    # 1. The reservation is of this enrolment, and of no other.
    if enrolment is None or reserved.enrolment_id != enrolment.id:
        raise _missing("it names no enrolment of the record")
    if (reserved.mailbox, reserved.practitioner) != (enrolment.mailbox, enrolment.practitioner):
        raise _unfit("it names another mailbox or another person than its enrolment")
    # 2. Two persons, who may, and who saw what the enrolment says.
    _check_persons(powers, enrolment, acts)
    # 3. What they saw of the person's identity still holds.
    if not _is_identified(enrolment, now):
        raise _unfit("the identity was checked more than 825 days ago")
    # 4. The bytes name whom they saw.
    _check_named(certificate, _names(enrolment))


def _check_persons(powers: Powers, enrolment: Enrolment, acts: Sequence[EnrolmentAct]) -> None:
    by_kind = {act.kind: act for act in acts if act.enrolment_id == enrolment.id}
    persons = set()
    for kind in _WANTED:
        act = by_kind.get(kind.value)
        if act is None:
            raise _missing(f"nobody signed {kind.value} for its enrolment")
        try:
            persons.add(signer_of(powers, enrolment, kind, act.signed, act.at)[0])
        except NoForceError as error:
            raise _unfit(f"{kind.value} has no force: {error}", error.code) from error
    if len(persons) < len(_WANTED):
        raise _unfit("one person signed the request and the approval", "self-approval")


def _is_identified(enrolment: Enrolment, now: datetime) -> bool:
    try:
        return eligibility.is_identified(enrolment, now)
    except (KeyError, TypeError, ValueError) as error:
        raise _unfit("the enrolment says no day on which the identity was checked") from error


def _names(enrolment: Enrolment) -> VouchedNames:
    try:
        return kept_names(enrolment.names or {})
    except (KeyError, TypeError, ValueError) as error:
        raise _unfit("the enrolment names nobody as this release names people") from error


def _check_named(certificate: x509.Certificate, names: VouchedNames) -> None:
    if certificate.subject.public_bytes() != subject_of(names).public_bytes():
        raise _unfit("its subject is not whom both persons saw")
    wanted = {type(value): (value.public_bytes(), critical) for value, critical in extensions_of(names)}
    if {kind: found for kind in _NAMING if (found := _found(certificate, kind))} != wanted:
        raise _unfit("its address, national number or professions are not those that both persons saw")


def _found(
    certificate: x509.Certificate, kind: type[x509.SubjectAlternativeName] | type[x509.Admissions]
) -> tuple[bytes, bool] | None:
    try:
        extension: x509.Extension[x509.ExtensionType] = certificate.extensions.get_extension_for_class(kind)
    except x509.ExtensionNotFound:
        return None
    return extension.value.public_bytes(), extension.critical


def _missing(reason: str) -> Refusal:
    text = f"The signer does not sign this: {reason}."
    return Refusal(Kind.CONFLICT, "evidence-missing", text)


def _unfit(reason: str, why: str = "") -> Refusal:
    text = f"The signer does not sign this: {reason.removesuffix('.')}."
    return Refusal(Kind.CONFLICT, "evidence-unfit", text, **({"why": why} if why else {}))

"""Each way in which two signatures do not suffice for a certificate; one that does, to compare with."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from directory.base.errors import Kind, Refusal
from pki.acts.act import ActKind
from pki.certificates.builder import Issuer, unsigned
from pki.certificates.profiles import ORGANISATION, PRACTITIONER, OrganisationNames, PersonNames, Urls
from pki.model import CrlForm, Enrolment, EnrolmentAct, EnrolmentState, Reservation, Serial
from pki.powers.needs import Role
from pki.powers.state import Powers
from pki.registration.shown import shown
from pki.registration.vouched_names import VouchedNames, recorded
from pki.signing.evidence import check_evidence, needs_evidence
from tests.conftest import NOON as AT
from tests.persons import ANCHORS, ANNE, BRUNO, CHLOE, DAVID, Person, add, end, registrars, revoke

ID, OTHER = UUID(int=1), UUID(int=2)
NUMBER, ADDRESS = "810000000011", "anna.dupont@medecin.example"
PERSON = PersonNames("ANNA", "DUPONT", NUMBER, ("10",), ADDRESS)
PLACE = OrganisationNames("HOPITAL", "750000001", "hopital@hopital.example")
CA_KEY = ec.generate_private_key(ec.SECP256R1()).public_key()
KEY = ec.generate_private_key(ec.SECP256R1()).public_key()
# A second key of Chloé's.
CHLOE_AGAIN = Person(CHLOE.name, Ed25519PrivateKey.generate())


def powers() -> Powers:
    made = Powers(ANCHORS)
    for _, line in registrars(CHLOE, DAVID):
        made.follow(line)
    return made


def certificate(names: VouchedNames) -> x509.Certificate:
    profile = PRACTITIONER if isinstance(names, PersonNames) else ORGANISATION
    return unsigned(
        serial=Serial("0a" * 16), profile=profile, names=names, public_key=KEY,
        issuer=Issuer("persons-1", None, CA_KEY, CrlForm.PLAIN), validity=(AT, AT + timedelta(days=300)),
        urls=Urls("http://trust.example"), shard=0,
    )  # fmt: skip


def enrolment(names: VouchedNames = PERSON) -> Enrolment:
    return Enrolment(
        id=ID, practitioner=NUMBER, mailbox=names.address, authority="CNOM",
        identity_check={"method": "in-person", "document": "card", "checked_on": "2026-08-31"},
        state=EnrolmentState.APPROVED, requested_by=1, requested_at=AT, names=recorded(names),
    )  # fmt: skip


def signed(person: Person, kind: ActKind, of: Enrolment, **other: Any) -> EnrolmentAct:
    text = person.signs(kind, shown(of), **{"subjects": (f"enrolment:{of.id}",), **other})
    return EnrolmentAct(of.id, kind.value, person.name, person.credential, text, AT)


@dataclass
class Asked:
    """What the signer judges; all of it suffices until a test changes something."""

    enrolment: Enrolment | None = field(default_factory=enrolment)
    names: VouchedNames = PERSON
    powers: Powers = field(default_factory=powers)
    acts: dict[ActKind, EnrolmentAct] = field(default_factory=dict)
    reserved: dict[str, Any] = field(default_factory=dict)
    after: timedelta = timedelta(minutes=1)

    def __post_init__(self) -> None:
        if self.enrolment is not None and not self.acts:
            self.acts = {
                ActKind.ENROLMENT_REQUEST: signed(CHLOE, ActKind.ENROLMENT_REQUEST, self.enrolment),
                ActKind.ENROLMENT_APPROVE: signed(DAVID, ActKind.ENROLMENT_APPROVE, self.enrolment),
            }

    def judged(self) -> None:
        whole: dict[str, Any] = {
            "serial": Serial("0a" * 16), "authority_id": "persons-1", "profile": PRACTITIONER.name,
            "shard": 0, "mailbox": self.names.address, "practitioner": NUMBER, "enrolment_id": ID,
            "spki_sha256": b"", "tbs": b"", "tbs_sha256": b"", "reserved_at": AT,
        }  # fmt: skip
        reserved = Reservation(**{**whole, **self.reserved})
        acts, made = tuple(self.acts.values()), certificate(self.names)
        check_evidence(self.powers, self.enrolment, acts, reserved, made, now=AT + self.after)


def code_of(asked: Asked) -> tuple[str, str]:
    with pytest.raises(Refusal) as refusal:
        asked.judged()
    assert refusal.value.kind is Kind.CONFLICT
    return refusal.value.code, str(refusal.value.details.get("why", ""))


def test_two_registrars_suffice_for_a_person_and_for_an_establishment() -> None:
    Asked().judged()
    # The acts have expired by then: that counts on the day they are handed in.
    Asked(after=timedelta(days=800)).judged()
    Asked(enrolment=enrolment(PLACE), names=PLACE).judged()


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (replace(PERSON, address="other@medecin.example"), "address"),
        (replace(PERSON, family_name="DURAND"), "subject"),
        (replace(PERSON, national_id="810000000022"), "subject"),
        (replace(PERSON, professions=("10", "40")), "professions"),
        (replace(PERSON, professions=()), "professions"),
        (PLACE, "subject"),
    ],
)
def test_the_bytes_name_whom_both_saw(names: VouchedNames, says: str) -> None:
    asked = Asked(reserved={"mailbox": ADDRESS}, names=names)
    with pytest.raises(Refusal, match=says) as refusal:
        asked.judged()
    assert refusal.value.code == "evidence-unfit"


@pytest.mark.parametrize(
    "reserved",
    [{"mailbox": "other@medecin.example"}, {"practitioner": "810000000022"}, {"mailbox": None}],
)
def test_a_reservation_is_of_the_mailbox_and_the_person_of_its_enrolment(reserved: dict[str, Any]) -> None:
    assert code_of(Asked(reserved=reserved)) == ("evidence-unfit", "")


@pytest.mark.parametrize("named", [None, OTHER])
def test_a_reservation_names_its_enrolment(named: UUID | None) -> None:
    assert code_of(Asked(reserved={"enrolment_id": named})) == ("evidence-missing", "")
    assert code_of(Asked(enrolment=None)) == ("evidence-missing", "")


@pytest.mark.parametrize("kind", [ActKind.ENROLMENT_REQUEST, ActKind.ENROLMENT_APPROVE])
def test_both_sign(kind: ActKind) -> None:
    asked = Asked()
    act = asked.acts.pop(kind)
    assert code_of(asked) == ("evidence-missing", "")
    # The same text under another word in the row is not another act.
    (left,) = asked.acts.values()
    asked.acts[kind] = replace(left, kind=kind.value)
    assert code_of(asked) == ("evidence-unfit", "another-kind")
    # Nor is the act of another enrolment.
    asked.acts[kind] = replace(act, enrolment_id=OTHER)
    assert code_of(asked) == ("evidence-missing", "")


def _approved_by(*said: object, by: Person = DAVID, **other: Any) -> Callable[[Asked], None]:
    def change(asked: Asked) -> None:
        assert asked.enrolment is not None
        asked.acts[ActKind.ENROLMENT_APPROVE] = signed(
            by, ActKind.ENROLMENT_APPROVE, asked.enrolment, **other
        )
        for line in said:
            asked.powers.follow(line)  # type: ignore[arg-type]

    return change


def _forged(asked: Asked) -> None:
    # Whoever writes the table: a name in the row, and a text that somebody else signed.
    act = asked.acts[ActKind.ENROLMENT_APPROVE]
    head, _, tail = act.signed.rpartition(b".")
    asked.acts[ActKind.ENROLMENT_APPROVE] = replace(act, signed=head + b"." + tail[::-1])


def _renamed(asked: Asked) -> None:
    assert asked.enrolment is not None
    asked.names = replace(PERSON, family_name="DURAND")
    asked.enrolment = replace(asked.enrolment, names=recorded(asked.names))


def _moved(asked: Asked) -> None:
    assert asked.enrolment is not None
    asked.enrolment = replace(asked.enrolment, authority="CNOP")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (_approved_by(by=CHLOE), "self-approval"),
        (_approved_by(add(CHLOE_AGAIN, ANNE, BRUNO), by=CHLOE_AGAIN), "self-approval"),
        (_approved_by(revoke(DAVID, ANNE)), "credential-revoked"),
        (_approved_by(end(DAVID, Role.REGISTRAR, ANNE, authority="CNOM")), "no-registrar"),
        (_approved_by(by=ANNE), "no-registrar"),
        (_approved_by(by=CHLOE_AGAIN), "credential-unknown"),
        (_approved_by(installation="4d" * 16), "another-installation"),
        (_approved_by(subjects=(f"enrolment:{OTHER}",)), "another-subject"),
        (_approved_by(seen="5b" * 32), "shown-otherwise"),
        (_approved_by(at=AT + timedelta(minutes=5)), "expired"),
        (_forged, "no-act"),
        (_renamed, "shown-otherwise"),
        (_moved, "shown-otherwise"),
    ],
)
def test_what_does_not_suffice(change: Callable[[Asked], None], why: str) -> None:
    asked = Asked()
    change(asked)
    assert code_of(asked) == ("evidence-unfit", why)


def test_an_identity_is_built_upon_for_825_days() -> None:
    assert code_of(Asked(after=timedelta(days=826))) == ("evidence-unfit", "")


def test_an_enrolment_that_names_nobody_is_signed_by_nobody() -> None:
    asked = replace(enrolment(), names=None)
    assert code_of(Asked(enrolment=asked)) == ("evidence-unfit", "")
    unknown = replace(enrolment(), names={"kind": "PER", "address": ADDRESS})
    assert code_of(Asked(enrolment=unknown)) == ("evidence-unfit", "")
    undated = replace(enrolment(), identity_check={})
    assert code_of(Asked(enrolment=undated)) == ("evidence-unfit", "")


def test_only_what_is_of_no_mailbox_needs_no_evidence() -> None:
    reserved = Reservation(
        Serial("0a" * 16), "persons-1", "ocsp-responder", 0, None, None, None, b"", b"", b"", AT
    )
    assert not needs_evidence(reserved)
    assert needs_evidence(replace(reserved, enrolment_id=ID))
    assert needs_evidence(replace(reserved, profile=PRACTITIONER.name))

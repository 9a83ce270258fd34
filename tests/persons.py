"""Persons of a test with their keys, anchors that name two of them, and lines of the log that they sign."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from secrets import token_urlsafe
from typing import Any
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy import Connection

from pki.acts.act import Act, ActKind, seen_digest
from pki.acts.signature import credential_of, sign
from pki.model import EnrolmentAct
from pki.powers.anchors import Anchors
from pki.powers.needs import Role
from pki.powers.state import PowerLine
from pki.record import enrolment_acts, enrolments
from pki.registration.shown import shown, subject_named
from tests.conftest import NOON as AT

HERE = "3c" * 16


@dataclass(frozen=True)
class Person:
    name: str
    key: Ed25519PrivateKey

    @classmethod
    def called(cls, number: int) -> "Person":
        return cls(f"person:{number:032x}", Ed25519PrivateKey.generate())

    @property
    def credential(self) -> str:
        return credential_of(self.key.public_key())

    @property
    def pem(self) -> str:
        return self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    def signs(self, act: ActKind, shown: Mapping[str, Any], **other: Any) -> bytes:
        subject = shown.get("person", f"installation:{HERE}")
        written = Act(
            act, HERE, self.name, self.credential, AT, AT + timedelta(minutes=10), token_urlsafe(16),
            seen_digest(shown), (subject,),
        )  # fmt: skip
        return sign(replace(written, **other), self.key)


ANNE, BRUNO, CHLOE, DAVID = (Person.called(number) for number in range(1, 5))
LOST = [Person.called(number) for number in range(7, 10)]
RECOVERY = [replace(keeper, name=f"person:{keeper.credential[5:37]}") for keeper in LOST]
ANCHORS = Anchors(
    HERE,
    {person.name: person.key.public_key() for person in (ANNE, BRUNO)},
    tuple(keeper.key.public_key() for keeper in RECOVERY),
)


def registrars(*persons: Person, authority: str = "CNOM") -> Iterator[tuple[ActKind, PowerLine]]:
    """What makes them registrars, by both administrators."""
    for person in persons:
        yield ActKind.CREDENTIAL_ADD, add(person, ANNE, BRUNO)
        yield ActKind.ROLE_GRANT, grant(person, Role.REGISTRAR, ANNE, BRUNO, authority=authority)


def sign_enrolment(connection: Connection, kind: ActKind, of: UUID, by: Person) -> EnrolmentAct:
    """Let a person sign for an enrolment as the record has it, and keep the act."""
    enrolment = enrolments.load_enrolment(connection, of)
    assert enrolment is not None
    signed = by.signs(kind, shown(enrolment), subjects=(subject_named(of),))
    made = EnrolmentAct(of, kind.value, by.name, by.credential, signed, AT)
    assert enrolment_acts.add(connection, made)
    return made


def line(kind: ActKind, shown: Mapping[str, Any], *by: Person) -> PowerLine:
    return PowerLine(AT, tuple(person.signs(kind, shown) for person in by), shown)


def grant(person: Person, role: Role, *by: Person, authority: str = "") -> PowerLine:
    shown = {"person": person.name, "role": role.value, "authority": authority}
    return line(ActKind.ROLE_GRANT, shown, *by)


def end(person: Person, role: Role, *by: Person, authority: str = "") -> PowerLine:
    shown = {"person": person.name, "role": role.value, "authority": authority}
    return line(ActKind.ROLE_END, shown, *by)


def add(person: Person, *by: Person) -> PowerLine:
    return line(ActKind.CREDENTIAL_ADD, {"person": person.name, "public_key": person.pem}, *by)


def revoke(person: Person, *by: Person) -> PowerLine:
    return line(ActKind.CREDENTIAL_REVOKE, {"person": person.name, "credential": person.credential}, *by)


def freeze(*by: Person) -> PowerLine:
    return line(ActKind.FREEZE, {"installation": HERE}, *by)


def unfreeze(*by: Person) -> PowerLine:
    return line(ActKind.UNFREEZE, {"installation": HERE}, *by)

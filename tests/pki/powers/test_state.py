"""Powers follow the log: every road to one leads through two persons, and none leaves fewer than two."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from secrets import token_urlsafe
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pki.acts.act import Act, ActKind, seen_digest
from pki.acts.signature import credential_of, sign
from pki.powers.anchors import Anchors, read_anchors
from pki.powers.needs import Role
from pki.powers.state import NoForceError, PowerLine, Powers

AT = datetime(2026, 12, 1, 9, 0, tzinfo=UTC)
HERE, ELSEWHERE = "3c" * 16, "4d" * 16


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


@pytest.fixture
def powers() -> Powers:
    return Powers(ANCHORS)


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


def refused(powers: Powers, told: PowerLine) -> str:
    """The code, having seen that nothing changed."""
    before = repr(powers)
    with pytest.raises(NoForceError) as refusal:
        powers.follow(told)
    assert repr(powers) == before
    return refusal.value.code


def test_anchors_are_read_as_they_were_written() -> None:
    assert read_anchors(ANCHORS.text()).text() == ANCHORS.text()


@pytest.mark.parametrize(
    "other",
    [
        {"administrators": {ANNE.name: ANNE.key.public_key()}}, {"recovery": ANCHORS.recovery[:2]},
        {"recovery": (*ANCHORS.recovery[:2], ANCHORS.recovery[0])},
        {"administrators": {ANNE.name: ANNE.key.public_key(), BRUNO.name: ANNE.key.public_key()}},
    ],
)  # fmt: skip
def test_anchors_that_one_could_turn_are_none(other: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"administrator|recovery"):
        replace(ANCHORS, **other)


def test_two_administrators_give_a_role_and_a_credential(powers: Powers) -> None:
    powers.follow(add(CHLOE, ANNE, BRUNO))
    assert not powers.holds(CHLOE.name, Role.REGISTRAR, "CNOM")
    powers.follow(grant(CHLOE, Role.REGISTRAR, ANNE, BRUNO, authority="CNOM"))
    assert powers.holds(CHLOE.name, Role.REGISTRAR, "CNOM")
    assert not powers.holds(CHLOE.name, Role.REGISTRAR, "CNOP")
    assert not powers.holds(CHLOE.name, Role.ADMINISTRATOR)


@pytest.mark.parametrize(
    ("told", "code"),
    [
        (lambda: grant(CHLOE, Role.ADMINISTRATOR, ANNE), "too-few-persons"),
        (lambda: grant(CHLOE, Role.ADMINISTRATOR, ANNE, ANNE), "too-few-persons"),
        (lambda: grant(CHLOE, Role.ADMINISTRATOR), "too-few-persons"),
        (lambda: grant(CHLOE, Role.ADMINISTRATOR, ANNE, CHLOE), "credential-unknown"),
        (lambda: grant(CHLOE, Role.ADMINISTRATOR, RECOVERY[0], ANNE), "too-few-persons"),
        (lambda: grant(CHLOE, Role.ADMINISTRATOR, RECOVERY[0], RECOVERY[0]), "too-few-persons"),
        (lambda: grant(CHLOE, Role.REGISTRAR, ANNE, BRUNO), "bad-role"),
        (lambda: add(ANNE, ANNE, BRUNO), "key-known"),
        (lambda: add(RECOVERY[0], ANNE, BRUNO), "key-known"),
        (lambda: revoke(ANNE, BRUNO), "too-few-administrators"),
        (lambda: end(ANNE, Role.ADMINISTRATOR, ANNE), "too-few-administrators"),
        (lambda: end(CHLOE, Role.AUDITOR, ANNE), "not-held"),
    ],
)
def test_what_does_not_suffice_has_no_force(powers: Powers, told: Callable[[], PowerLine], code: str) -> None:
    assert refused(powers, told()) == code


SHOWN = {"person": CHLOE.name, "role": "administrator", "authority": ""}


@pytest.mark.parametrize(
    ("other", "code"),
    [
        ({"installation": ELSEWHERE}, "another-installation"), ({"by": CHLOE.name}, "another-person"),
        ({"at": AT + timedelta(seconds=1)}, "expired"),
        ({"at": AT - timedelta(hours=2), "expires": AT}, "expired"),
        ({"subjects": (DAVID.name,)}, "no-agreement"), ({"kind": ActKind.ROLE_END}, "no-agreement"),
        ({"seen": "00" * 32}, "no-agreement"),
    ],
    ids=str,
)  # fmt: skip
def test_an_act_counts_for_what_it_says_alone(powers: Powers, other: dict[str, Any], code: str) -> None:
    both = (ANNE.signs(ActKind.ROLE_GRANT, SHOWN), BRUNO.signs(ActKind.ROLE_GRANT, SHOWN, **other))
    assert refused(powers, PowerLine(AT, both, SHOWN)) == code


def test_what_both_signed_is_what_the_line_shows(powers: Powers) -> None:
    told = grant(CHLOE, Role.AUDITOR, ANNE, BRUNO)
    assert refused(powers, replace(told, shown={**told.shown, "role": "administrator"})) == "shown-otherwise"
    elsewhere = [p.signs(ActKind.ROLE_GRANT, SHOWN, subjects=(DAVID.name,)) for p in (ANNE, BRUNO)]
    assert refused(powers, PowerLine(AT, tuple(elsewhere), SHOWN)) == "another-subject"


def test_an_act_is_used_once(powers: Powers) -> None:
    told = grant(CHLOE, Role.AUDITOR, ANNE, BRUNO)
    powers.follow(told)
    powers.follow(end(CHLOE, Role.AUDITOR, ANNE))
    assert refused(powers, told) == "used-before"


def test_two_credentials_of_one_person_are_one_person(powers: Powers) -> None:
    again = replace(Person.called(0), name=ANNE.name)
    powers.follow(add(again, ANNE, BRUNO))
    assert refused(powers, grant(CHLOE, Role.ADMINISTRATOR, ANNE, again)) == "too-few-persons"
    powers.follow(revoke(ANNE, BRUNO))
    powers.follow(grant(CHLOE, Role.ADMINISTRATOR, again, BRUNO))


def test_the_order_of_lines_says_what_was_valid(powers: Powers) -> None:
    for person in (CHLOE, DAVID):
        powers.follow(add(person, ANNE, BRUNO))
        powers.follow(grant(person, Role.ADMINISTRATOR, ANNE, BRUNO))
    signed_before = grant(CHLOE, Role.AUDITOR, CHLOE, DAVID)
    powers.follow(revoke(DAVID, ANNE))
    assert refused(powers, signed_before) == "credential-revoked"
    assert powers.administrators() == {ANNE.name, BRUNO.name, CHLOE.name}


def test_one_freezes_and_two_thaw(powers: Powers) -> None:
    shown = {"installation": HERE}
    powers.follow(line(ActKind.FREEZE, shown, ANNE))
    assert powers.frozen
    assert refused(powers, line(ActKind.UNFREEZE, shown, BRUNO)) == "too-few-persons"
    powers.follow(line(ActKind.UNFREEZE, shown, ANNE, BRUNO))
    assert not powers.frozen


def test_two_recovery_keys_replace_administrators(powers: Powers) -> None:
    assert refused(powers, add(CHLOE, RECOVERY[0])) == "too-few-persons"
    for person in (CHLOE, DAVID):
        powers.follow(add(person, *RECOVERY[:2]))
        powers.follow(grant(person, Role.ADMINISTRATOR, *RECOVERY[1:]))
    for person in (ANNE, BRUNO):
        powers.follow(revoke(person, *RECOVERY[:2]))
    assert powers.administrators() == {CHLOE.name, DAVID.name}


@pytest.mark.parametrize("seed", range(20))
def test_no_history_leaves_fewer_than_two_nor_gives_by_one(seed: int) -> None:
    """Random lines by random persons: what took force had two of those who could act before it."""
    chance, powers = random.Random(seed), Powers(ANCHORS)
    people = [ANNE, BRUNO, CHLOE, DAVID]
    for _ in range(60):
        before = powers.administrators()
        who, by = chance.choice(people), chance.sample(people, chance.randint(1, 3))
        told = chance.choice((grant, end))(who, Role.ADMINISTRATOR, *by)
        if chance.random() < 0.5:
            told = chance.choice((add, revoke))(who, *by)
        try:
            powers.follow(told)
        except NoForceError:
            assert powers.administrators() == before
            continue
        assert len(powers.administrators()) >= 2
        if powers.administrators() - before:
            assert len({person.name for person in by} & before) >= 2

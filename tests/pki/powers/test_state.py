"""Powers follow the log: every road to one leads through two persons, and none leaves fewer than two."""

import random
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from pki.acts.act import ActKind
from pki.powers.anchors import read_anchors
from pki.powers.needs import Role
from pki.powers.state import Held, NoForceError, PowerLine, Powers
from tests.persons import (
    ANCHORS,
    ANNE,
    AT,
    BRUNO,
    CHLOE,
    DAVID,
    HERE,
    RECOVERY,
    Person,
    add,
    end,
    freeze,
    grant,
    line,
    revoke,
    unfreeze,
)

ELSEWHERE = "4d" * 16


KEY = {"person": CHLOE.name, "public_key": CHLOE.pem}


@pytest.fixture
def powers() -> Powers:
    return Powers(ANCHORS)


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
        (lambda: grant(ANNE, Role.ADMINISTRATOR, ANNE, BRUNO), "held-already"),
        (lambda: grant(CHLOE, Role.REGISTRAR, ANNE, BRUNO, authority="CN\nOM"), "bad-role"),
        (lambda: grant(CHLOE, Role.AUDITOR, ANNE, BRUNO, authority="CNOM"), "bad-role"),
        (lambda: line(ActKind.FREEZE, {"installation": ELSEWHERE}, ANNE), "another-installation"),
        (lambda: line(ActKind.FREEZE, {"installation": HERE, "why": "Dr X"}, ANNE), "bad-shown"),
        (
            lambda: line(ActKind.CREDENTIAL_ADD, {**KEY, "public_key": f"x\n{CHLOE.pem}"}, ANNE, BRUNO),
            "bad-key",
        ),
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
    powers.follow(freeze(ANNE))
    assert powers.frozen
    assert refused(powers, unfreeze(BRUNO)) == "too-few-persons"
    powers.follow(unfreeze(ANNE, BRUNO))
    assert not powers.frozen


def test_two_recovery_keys_replace_administrators(powers: Powers) -> None:
    assert refused(powers, add(CHLOE, RECOVERY[0])) == "too-few-persons"
    for person in (CHLOE, DAVID):
        powers.follow(add(person, *RECOVERY[:2]))
        powers.follow(grant(person, Role.ADMINISTRATOR, *RECOVERY[1:]))
    for person in (ANNE, BRUNO):
        powers.follow(revoke(person, *RECOVERY[:2]))
    assert powers.administrators() == {CHLOE.name, DAVID.name}


def test_a_role_that_ended_was_held(powers: Powers) -> None:
    """Who had which power on which line is told for ever: an access review asks for it."""
    held = Held(CHLOE.name, Role.REGISTRAR, "CNOM")
    told = [
        add(CHLOE, ANNE, BRUNO), grant(CHLOE, Role.REGISTRAR, ANNE, BRUNO, authority="CNOM"),
        end(CHLOE, Role.REGISTRAR, CHLOE, authority="CNOM"),
        grant(CHLOE, Role.REGISTRAR, ANNE, BRUNO, authority="CNOM"), revoke(CHLOE, CHLOE),
    ]  # fmt: skip
    for index, given in enumerate(told):
        powers.follow(replace(given, index=index))
    spans = [(t.since and t.since.index, t.until and t.until.index) for t in powers.roles()[held]]
    assert spans == [(1, 2), (3, None)]
    tenure = powers.credentials()[CHLOE.credential].tenure
    assert (tenure.since.index, tenure.until.index) == (0, 4)  # type: ignore[union-attr]
    assert not powers.holds(CHLOE.name, Role.REGISTRAR, "CNOM")
    assert powers.credentials()[ANNE.credential].tenure.since is None


def test_a_copy_goes_on_by_itself(powers: Powers) -> None:
    for given in (
        add(CHLOE, ANNE, BRUNO),
        grant(CHLOE, Role.ADMINISTRATOR, ANNE, BRUNO),
        revoke(ANNE, BRUNO),
    ):
        powers.follow(given)
    other, before = powers.copy(), repr(powers)
    assert repr(other) == before
    assert other.administrators() == {BRUNO.name, CHLOE.name}
    other.follow(freeze(BRUNO))
    assert repr(powers) == before


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

"""One plan makes an entry right, and a second finds nothing to do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from directory.base.errors import Refusal
from directory.ldap.entry import Entry, digest
from directory.ldap.plan import Add, Delete, Modify, brake, plan

DN = "mail=a@one.example,ou=mailboxes,o=sceau,c=fr"
VALUES = st.dictionaries(
    st.sampled_from(["cn", "sn", "o", "userCertificate;binary"]),
    st.sets(st.binary(min_size=1, max_size=3), min_size=1, max_size=4).map(tuple),
)


def carry_out(found: Entry, operation: Modify) -> Entry:
    """What a server does with a modification, which must hold for each value it names."""
    after = {name: set(values) for name, values in found.attributes.items()}
    for name, (gone, new) in operation.changes.items():
        held = after.setdefault(name, set())
        assert set(gone) <= held
        after[name] = held = held - set(gone)
        assert not set(new) & held
        held |= set(new)
    return Entry(found.dn, {name: tuple(values) for name, values in after.items() if values})


@given(VALUES, VALUES)
def test_a_plan_carried_out_leaves_nothing_to_plan(wants: dict, finds: dict) -> None:  # type: ignore[type-arg]
    wanted, found = Entry(DN, wants), Entry(DN, {**finds, "sceauVersion": (b"7",)})
    operation = plan(wanted, found, 8)
    if operation is None:
        assert {n: set(v) for n, v in wants.items()} == {n: set(v) for n, v in finds.items()}
        return
    assert isinstance(operation, Modify)
    after = carry_out(found, operation)
    assert after.attributes["sceauVersion"] == (b"8",)
    assert plan(wanted, after, 9) is None


@given(VALUES)
def test_an_absent_entry_is_added_whole(wants: dict) -> None:  # type: ignore[type-arg]
    operation = plan(Entry(DN, wants), None, 5)
    assert operation == Add(DN, {**wants, "sceauVersion": (b"5",), "sceauDigest": (digest(wants),)})


def test_an_unwanted_entry_is_deleted_and_an_absent_one_left_alone() -> None:
    assert plan(None, Entry(DN, {}), 5) == Delete(DN, 5)
    assert plan(None, Entry(DN, {}), 5, overwrite=True) == Delete(DN)
    assert plan(None, None, 5) is None


def test_certificates_are_taken_away_one_by_one() -> None:
    name = "userCertificate;binary"
    operation = plan(Entry(DN, {name: (b"kept",)}), Entry(DN, {name: (b"kept", b"revoked")}), 5)
    assert isinstance(operation, Modify)
    assert operation.changes[name] == ((b"revoked",), ())


def test_an_attribute_in_other_letters_is_the_same_attribute() -> None:
    assert plan(Entry(DN, {"givenName": (b"A",)}), Entry(DN, {"GIVENNAME": (b"A",)}), 5) is None


def test_a_record_that_went_back_can_take_an_entry_back_with_it() -> None:
    wanted = Entry(DN, {"cn": (b"A",)})
    marks = {"sceauVersion": (b"900",), "sceauDigest": (digest(wanted.attributes),)}
    found = Entry(DN, {**wanted.attributes, **marks})
    assert plan(wanted, found, 5) is None
    assert plan(wanted, found, 5, overwrite=True) == Modify(DN, {"sceauVersion": ((b"900",), (b"5",))})


@pytest.mark.parametrize(("deletions", "entries"), [(21, 100), (51, 1000), (1000, 1000)])
def test_a_mass_deletion_waits_for_a_person(deletions: int, entries: int) -> None:
    with pytest.raises(Refusal) as refused:
        brake(deletions, entries, force=False)
    assert refused.value.code == "too-many-deletions"
    brake(deletions, entries, force=True)


@pytest.mark.parametrize(("deletions", "entries"), [(20, 20), (50, 1000), (0, 0)])
def test_an_ordinary_night_needs_nobody(deletions: int, entries: int) -> None:
    brake(deletions, entries, force=False)

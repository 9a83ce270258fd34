"""What people type into an address book is found, whatever accents and hyphens the registers have."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from importlib import util
from pathlib import Path
from types import ModuleType

import pytest
from sqlalchemy import Engine, text

from api.embedded.slapd import EmbeddedSlapd
from directory.base.audit import Actor
from directory.ldap.entry import FOLDED, FOLDED_TOO, Attributes, Entry, mailbox_entry, organisation_entry
from directory.ldap.plan import FORM, PLACE, Modify, form_of
from directory.ldap.publish import Publisher
from directory.ldap.rebuild import rebuild
from directory.ldap.reconcile import reconcile
from directory.model import Organisation
from tests.conftest import NOON, ROOT
from tests.directory.ldap.conftest import SUFFIX, Guarded, PublisherOf, Running, Server
from tests.directory.ldap.test_entries import facts, person, practice
from tests.factories import seed_practitioner
from tests.ports import free_port

DN = f"mail=person-1@one.example,ou=mailboxes,{SUFFIX}"
PAGES = ("thunderbird", "outlook", "postfix")
# As it is typed, by which attribute; the registers write Agnès SAINT-BRÉZEAU, HÔPITAL D'ESSAI.
TYPED = (
    "(cn=agnes*)", "(cn=agnes saint brezeau)", "(sn=saint brezeau*)", "(sn=Saint-Brézeau)",
    "(sn=saint-bréz*)", "(givenName=agnes)", "(givenName=agnès)", "(o=hopital*)", "(o=hopital d essai)",
    "(o=hôpital d'essai)", "(cn=*brezeau*)", "(o=*essai*)",
)  # fmt: skip
# Of beginnings that many, few and none have.
WORDS = ("ma", "mar", "saqua", "jean marc", "jean-marc m", "agnes", "zzz")
RENAME = "UPDATE practitioner SET given_name = :given, family_name = :family"


def folded(name: str) -> str:
    return f"{name}{FOLDED}"


def seed(engine: Engine) -> None:
    seed_practitioner(engine, given_name="Agnès", family_name="SAINT-BRÉZEAU")
    with engine.begin() as connection:
        connection.execute(text("UPDATE practice SET structure_name = 'HÔPITAL D''ESSAI'"))


def found(slapd: EmbeddedSlapd, asked: str) -> str:
    """What the publisher's own connection finds; ldapsearch writes the filter as bytes."""
    command = ("ldapsearch", "-Q", "-Y", "EXTERNAL", "-LLL", "-o", "ldif-wrap=no", "-H", slapd.url,
               "-b", SUFFIX, asked, "mail")  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def not_found(slapd: EmbeddedSlapd, *asked: str) -> list[str]:
    return [each for each in asked if f"dn: {DN}" not in found(slapd, each)]


def test_folded_values_stand_beside_the_true_ones() -> None:
    places = (practice(structure_name="HÔPITAL D'ESSAI"), practice(structure_name="CLINIQUE"))
    entry = mailbox_entry(facts(holder=person("SAINT-BRÉZEAU", "Agnès", practices=places)), [], SUFFIX, NOON)
    assert entry is not None
    told = entry.attributes
    # A client that shows `cn` shows the true one: it is alone under that name.
    assert told["cn"] == ("Agnès SAINT-BRÉZEAU".encode(),)
    assert {name: told[folded(name)] for name in FOLDED_TOO} == {
        "cn": (b"agnes saint brezeau",),
        "sn": (b"saint brezeau",),
        "givenName": (b"agnes",),
        "o": (b"hopital d essai",),
    }
    assert set(told) - {folded(name) for name in FOLDED_TOO} == {
        "objectClass", "mail", "cn", "sn", "givenName", "displayName", "title", "uid", "o", "hcIdentifier",
        "hcProfession", "hcSpecialisation", "sceauMailboxKind",
    }  # fmt: skip


def test_what_ldap_holds_for_equal_is_not_said_twice() -> None:
    entry = mailbox_entry(facts(holder=person("MARTIN", "Camille")), [], SUFFIX, NOON)
    assert entry is not None
    assert [name for name in entry.attributes if name.endswith(FOLDED)] == []
    place = organisation_entry(Organisation("750990012", "HÔPITAL"), SUFFIX, NOON)
    assert place is not None
    assert place.attributes[folded("o")] == (b"hopital",)
    # What has no letter to fold to has no folded value.
    entry = mailbox_entry(facts(holder=person("王", "—")), [], SUFFIX, NOON)
    assert entry is not None
    assert folded("givenName") not in entry.attributes


def test_an_entry_written_is_found_as_it_is_typed(
    engine: Engine, guarded: Guarded, publisher: Publisher, now: datetime
) -> None:
    seed(engine)
    publisher.publish_once(now)
    answers = {asked: guarded.search("-b", SUFFIX, asked, "mail").stdout for asked in TYPED}
    assert [asked for asked, answer in answers.items() if f"dn: {DN}" not in answer] == []
    shown = guarded.search("-b", "", "(sn=saint brezeau*)", "sn").stdout.splitlines()
    assert [line for line in shown if line.startswith("sn")] == [
        "sn:: U0FJTlQtQlLDiVpFQVU=", "sn;lang-x-folded: saint brezeau",
    ]  # fmt: skip


def test_a_name_that_changes_takes_its_folded_form_along(
    engine: Engine, slapd: EmbeddedSlapd, publisher: Publisher, now: datetime
) -> None:
    seed(engine)
    publisher.publish_once(now)
    with engine.begin() as connection:
        connection.execute(text(RENAME), {"given": "Agnès", "family": "L'ÉCHALIER-BRÉZEAU"})
    publisher.publish_once(now)
    # What both names have in common is found by the index still.
    assert not_found(slapd, "(sn=l echalier*)", "(cn=agnes l echalier*)", "(cn=*brezeau*)") == []
    assert f"dn: {DN}" not in found(slapd, "(sn=saint*)")
    with engine.begin() as connection:
        connection.execute(text(RENAME), {"given": "Agnes", "family": "MARTIN"})
    publisher.publish_once(now)
    entry = publisher.client.read(DN)
    assert entry is not None
    assert [name for name in entry.attributes if name.endswith(FOLDED)] == [folded("o")]
    assert not_found(slapd, "(cn=agnes*)", "(sn=martin)", "(o=hopital*)") == []
    assert f"dn: {DN}" not in found(slapd, "(cn=*brezeau*)")


def test_a_tree_loaded_whole_says_the_same(
    engine: Engine, own_server: Server, publisher_of: PublisherOf, now: datetime, actor: Actor
) -> None:
    seed(engine)
    publisher = publisher_of(own_server.slapd)

    def swap() -> None:
        own_server.stop()
        own_server.slapd.swap()
        own_server.start()

    rebuild(publisher, now=now, actor=actor, load=own_server.slapd.load, swap=swap)
    assert not_found(own_server.slapd, *TYPED) == []
    report = reconcile(publisher, now=now, apply=False)
    assert (report.compared, report.agrees) == (1, True)
    assert reconcile(publisher, now=now, apply=False, quick=True).agrees


def test_a_comparison_gives_a_former_tree_the_new_form(
    engine: Engine, slapd: EmbeddedSlapd, publisher: Publisher, now: datetime
) -> None:
    seed(engine)
    publisher.publish_once(now)
    become_former(publisher)
    assert reconcile(publisher, now=now, apply=False).different == 1
    assert form_of(top_of(publisher)) == ""
    assert reconcile(publisher, now=now, apply=True).repaired == 1
    assert form_of(top_of(publisher)) == FORM
    assert not_found(slapd, *TYPED) == []
    # And says so no more.
    assert publisher.publish_once(now).written == 0
    assert form_of(top_of(publisher)) == FORM


def top_of(publisher: Publisher) -> Entry:
    top = publisher.client.read(SUFFIX)
    assert top is not None
    return top


def become_former(publisher: Publisher) -> None:
    """The tree as the release before left it: no folded value, and a place without a form."""
    entry, top = publisher.client.read(DN), publisher.client.read(SUFFIX)
    assert entry is not None
    assert top is not None
    gone = {name: (values, ()) for name, values in entry.attributes.items() if name.endswith(FOLDED)}
    publisher.client.apply(Modify(DN, gone))
    (place,) = top.attributes[PLACE]
    former = b"/".join(place.split(b"/")[:2])
    publisher.client.apply(Modify(SUFFIX, {PLACE: ((place,), (former,))}))


def test_a_former_tree_is_left_to_whoever_can_load_one_whole(
    engine: Engine, slapd: EmbeddedSlapd, publisher: Publisher, now: datetime
) -> None:
    seed(engine)
    publisher.publish_once(now)
    publisher.renews = True
    assert not publisher.publish_once(now).whole
    become_former(publisher)
    assert publisher.publish_once(now).whole
    # Where it cannot be loaded, changes are followed all the same.
    publisher.renews = False
    with engine.begin() as connection:
        connection.execute(text("UPDATE mailbox SET departed_at = now()"))
    assert publisher.publish_once(now).deleted == 1
    assert form_of(top_of(publisher)) == ""
    assert "dn: mail" not in found(slapd, "(mail=*)")


def filters() -> dict[str, str]:
    """The filters of the how-to pages, by program; X is what is typed."""
    told = {}
    for page in PAGES:
        blocks = (ROOT / "docs" / "how-to" / f"{page}.md").read_text().split("```filter\n")[1:]
        for number, block in enumerate(blocks):
            told[f"{page} {number + 1}"] = block.partition("\n```")[0].strip()
    return told


def test_the_filters_of_the_pages_find_by_what_is_typed(
    engine: Engine, guarded: Guarded, publisher: Publisher, now: datetime
) -> None:
    seed(engine)
    publisher.publish_once(now)
    missed = []
    for name, words in filters().items():
        typed = "person-1@one.example" if "=X)" in words else "brezeau" if "*X*" in words else "saint br"
        if f"dn: {DN}" not in guarded.search("-b", "", words.replace("X", typed), "mail").stdout:
            missed.append(name)
    assert len(filters()) == 5
    assert missed == []


@pytest.fixture(scope="session")
def book() -> Iterator[ModuleType]:
    """scripts/make_address_book.py, which is no module of ours."""
    path = ROOT / "scripts" / "make_address_book.py"
    spec = util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    made = util.module_from_spec(spec)
    sys.modules[path.stem] = made
    spec.loader.exec_module(made)
    yield made
    del sys.modules[path.stem]


@pytest.mark.long
def test_the_filters_of_the_pages_are_answered_over_sixty_thousand_mailboxes(
    guarded: Guarded, book: ModuleType, tmp_path: Path
) -> None:
    """Each is answered with what there is, up to a hundred, and with no administrative limit."""
    own = Server(EmbeddedSlapd(tmp_path / "holder", SUFFIX))
    own.slapd.make()
    own.slapd.load(book.entries(60_000))
    own.slapd.swap()
    reader = Running(
        replace(guarded.slapd, folder=tmp_path / "guarded", data=own.slapd.data, port=free_port())
    )
    own.start()
    reader.start()
    try:
        known = [one.attributes for one in book.mailboxes(60_000)]
        asking = replace(guarded, slapd=reader.slapd)
        wrong = [told for told in _asked(known) if _answered(asking, told[0]) != told[1]]
    finally:
        reader.stop()
        own.stop()
    assert wrong == []


def _asked(known: Sequence[Attributes]) -> Iterator[tuple[str, tuple[int, int]]]:
    """Each filter with each of some words, and what it is to be answered with: a code, how many entries."""
    address = known[7]["mail"][0].decode()
    for words in filters().values():
        typed = (
            (address,)
            if "=X)" in words
            else ("ma", "mar", "saqua", "jean marc", "jean-marc m", "agnes", "zzz")
        )
        for word in typed:
            if "*X*" in words and len(word) < 3:
                continue
            asked = words.replace("X", word)
            count = sum(matches(asked, one) for one in known)
            yield asked, (4 if count > 100 else 0, min(count, 100))


def _answered(asking: Guarded, asked: str) -> tuple[int, int]:
    answer = asking.search("-b", "", asked, "mail")
    return answer.returncode, answer.stdout.count("dn: ")


def matches(asked: str, entry: Attributes) -> bool:
    """Whether an entry fits a filter of the page, by its plain meaning."""
    inside = asked[1:-1]
    if inside[0] in "&|":
        parts = (matches(part, entry) for part in parts_of(inside[1:]))
        return any(parts) if inside[0] == "|" else all(parts)
    name, _, wanted = inside.partition("=")
    values = [value.decode().lower() for key in (name, folded(name)) for value in entry.get(key, ())]
    beginning, middle = wanted.rstrip("*"), wanted.strip("*")
    if wanted.startswith("*"):
        return any(middle in value for value in values)
    return any(value.startswith(beginning) if "*" in wanted else value == wanted for value in values)


def parts_of(words: str) -> Iterator[str]:
    depth, start = 0, 0
    for place, letter in enumerate(words):
        depth += (letter == "(") - (letter == ")")
        if not depth:
            yield words[start : place + 1]
            start = place + 1

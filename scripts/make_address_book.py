#!/usr/bin/env python3
"""An invented country's mailboxes as LDIF, as `sceau ldap rebuild` would load them: without record and CA.

    scripts/make_address_book.py COUNT > tree.ldif

For tests and figures of what address books ask. Names are put together from syllables, some much more often
than others, as people's are; a third have an accent, a hyphen or an apostrophe. The same count gives the same
people.
"""

import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import accumulate, islice
from random import Random

from directory.feed.changes import Cursor
from directory.ldap.entry import Entry, base_entries, mailbox_entry, publisher_name
from directory.ldap.plan import FORM, MODIFIER, Add, place_plan, plan
from directory.ldap.rebuild import ldif_entry
from directory.model import Mailbox, MailboxFacts, MailboxKind, Practice, Practitioner, Trust
from directory.rules import search_form

SUFFIX = "o=sceau,c=fr"
DAY = datetime(2026, 9, 1, 12, tzinfo=UTC)
TRUSTED = (Trust("CN=operator", "Operator"),)
BEGINNINGS = (
    "BRU",
    "CHA",
    "DEL",
    "FON",
    "GAR",
    "LE",
    "MAR",
    "MO",
    "PER",
    "RO",
    "SA",
    "TRE",
    "VAL",
    "É",
    "D'A",
)
MIDDLES = ("BE", "DI", "GUÈ", "LA", "MI", "NA", "RI", "SSO", "TÉ", "VO", "ZE", "PHI", "QUA")
ENDINGS = ("", "C", "L", "NE", "RD", "S", "T", "UX", "LLE", "NTEAU", "GNY")
GIVEN = ("Abel", "Agnès", "Bérénice", "Céleste", "Damien", "Élodie", "Fabrice", "Gaël", "Hélène", "Inès",
         "Jean-Marc", "Karim", "Loïc", "Maëlle", "Noémie", "Oscar", "Paulin", "Quentin", "Rémi", "Solène",
         "Théo", "Ulysse", "Violette", "Wassim", "Yaëlle", "Zoé")  # fmt: skip
PLACES = ("CABINET MEDICAL", "CENTRE HOSPITALIER", "CLINIQUE", "HÔPITAL", "MAISON DE SANTÉ", "PHARMACIE")
DOMAINS = 4_000


def entries(count: int, certificates: Sequence[bytes] = ()) -> Iterator[bytes]:
    """The tree, entry by entry, parents first; each certificate serves many."""
    writer = {MODIFIER: (publisher_name(SUFFIX).encode(),)}
    top, *units = base_entries(SUFFIX)
    placed = place_plan(top, Cursor(1, 1), FORM)
    assert placed is not None
    said = {name: new for name, (_, new) in placed.changes.items()}
    for entry in (Entry(top.dn, {**top.attributes, **said}), *units):
        yield ldif_entry(entry, writer)
    for entry in mailboxes(count, certificates):
        operation = plan(entry, None, 1)
        assert isinstance(operation, Add)
        yield ldif_entry(operation, writer)


def mailboxes(count: int, certificates: Sequence[bytes] = (), start: int = 0) -> Iterator[Entry]:
    """Their entries, without the first ones where `start` says so."""
    for number, facts in islice(enumerate(people(count)), start, None):
        held = (certificates[number % len(certificates)],) if certificates else ()
        entry = mailbox_entry(facts, held, SUFFIX, DAY)
        assert entry is not None
        yield entry


def people(count: int) -> Iterator[MailboxFacts]:
    """So many, each with a mailbox called after him."""
    chance = Random(20_260_901)  # noqa: S311 - invents names
    families = [first + middle + last for first in BEGINNINGS for middle in MIDDLES for last in ENDINGS]
    families += [f"{one}-{other}" for one, other in zip(families[::3], families[1::5], strict=False)]
    chance.shuffle(families)
    chosen = chance.choices(families, cum_weights=_rarer_and_rarer(len(families)), k=count)
    given = chance.choices(GIVEN, cum_weights=_rarer_and_rarer(len(GIVEN)), k=count)
    for number, (family, name) in enumerate(zip(chosen, given, strict=True)):
        yield _person(number, family, name, chance)


def _person(number: int, family: str, given: str, chance: Random) -> MailboxFacts:
    said = "-".join(search_form(f"{given} {family}").lower().split())
    address = f"{said}.{number}@domain-{chance.randrange(DOMAINS)}.invalid"
    national = f"810{number:09}"
    place = f"{chance.choice(PLACES)} {family}-{chance.choice(MIDDLES)}"
    practice = Practice(
        "10", "C", structure_name=place, street=f"{number % 90} RUE {family}",
        postal_code=f"{number % 95000:05}", town=f"VILLE {number % 3000}", department=f"{number % 95:02}",
    )  # fmt: skip
    holder = Practitioner(
        national, family_name=family, given_name=given, title="DR", professions=(("10", "C"),),
        practices=(practice,),
    )  # fmt: skip
    mailbox = Mailbox(address, MailboxKind.PERSON, national, "", "", "", "", listed=True)
    return MailboxFacts(address, well_formed=True, trusts=TRUSTED, mailbox=mailbox, holder=holder)


def _rarer_and_rarer(count: int) -> list[float]:
    """A weight for each place in the order of frequency (Zipf)."""
    return list(accumulate(1 / (place + 2) for place in range(count)))


if __name__ == "__main__":
    sys.stdout.buffer.writelines(entries(int(sys.argv[1])))

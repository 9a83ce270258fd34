#!/usr/bin/env python3
"""Invent national register files: same columns and same dirt as the real ones, nobody real in them.

Everything about person number `i` follows from the seed and `i`. So files of any size are written as a
stream, and two runs give the same bytes. The next day holds the same people but for the shares asked for.

    make_registers.py OUT --practitioners 2000 --organisations 200 --mailboxes 1500 --seed 1
    make_registers.py OUT --practitioners 2000 … --seed 1 --next-day --departures 0.5% --without 810099000019

Numbers pass their check digits and lie where registers attribute none; domains end in `.invalid`. From
50,000 people on, names, towns and employers are as many, and as unequally common, as those of a nation:

    make_registers.py OUT --practitioners 1950000 --organisations 100000 --mailboxes 536000 --domains 8655
"""

import argparse
import gzip
import json
import sys
import unicodedata
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import cache, lru_cache
from itertools import accumulate, product
from pathlib import Path
from random import Random
from tempfile import TemporaryFile
from typing import IO
from xml.sax.saxutils import escape

FAMILIES = (
    "Aubrelune", "Bellegarenne", "Brindeval", "Champfleuri", "Clairemousse", "Courtebise", "Doucemarne",
    "Échalier", "Fauvelande", "Garancieux", "Hautebruyère", "Jolimaret", "Lafougeraie", "Maisonclos",
    "Noirépine", "Orgevaux", "Passeligne", "Quatremare", "Rougecombe", "Sablonneau", "Tournefeuil",
    "Valserine", "Verdonnet", "Boisgaillard", "L'Hermitière", "D'Aubépine", "De La Bruyelle",
    "Du Clos-Perrin", "Le Goëllic", "Saint-Brézeau", "N'Diarrame", "Mézièreau", "Pontcorbel", "Ferrandelle",
    "Grisolante", "Mirabeauval", "Castelbrun", "Roncevigne",
)  # fmt: skip
GIVEN = (
    "Alice", "Bruno", "Zoë", "Chloé", "Éloïse", "François", "Jean-Baptiste", "Marie-Hélène", "Anaïs",
    "Noël", "Rémi", "Maëlle", "Gaëtan", "Inès", "Loïc", "Agnès", "Benoît", "Cécile", "Désiré", "Félicie",
    "Hervé", "Irène", "Jérôme", "Léa", "Mathéo", "Nadège", "Océane", "Théo", "Ursule", "Véronique",
    "Xavier", "Yaëlle", "Samuel", "Karim", "Fatou",
)  # fmt: skip
TOWNS = (
    ("25", "25056", "25000", "BESANCON", "besancon"), ("75", "75112", "75012", "PARIS", "paris"),
    ("69", "69383", "69003", "LYON", "lyon"), ("13", "13205", "13005", "MARSEILLE", "marseille"),
    ("35", "35238", "35000", "RENNES", "rennes"), ("59", "59350", "59000", "LILLE", "lille"),
    ("33", "33063", "33000", "BORDEAUX", "bordeaux"), ("67", "67482", "67000", "STRASBOURG", "strasbourg"),
    ("31", "31555", "31000", "TOULOUSE", "toulouse"), ("44", "44109", "44000", "NANTES", "nantes"),
    ("29", "29019", "29200", "BREST", "brest"),
    ("63", "63113", "63000", "CLERMONT FERRAND", "clermont-ferrand"),
)  # fmt: skip
# Parts of names that nobody need bear, some tens of thousands once put together.
STARTS = (
    "Aub", "Bel", "Ber", "Bour", "Bré", "Cas", "Cham", "Char", "Cla", "Cor", "Dau", "Del", "Dou", "Fal",
    "Fer", "Gar", "Ger", "Gui", "Hau", "Jol", "Laf", "Lam", "Mar", "Mau", "Mé", "Mon", "Noi", "Ol", "Per",
    "Pou", "Qué", "Ra", "Rou", "Sab", "Ser", "Tour", "Val", "Ver", "Vil", "Yv",
)  # fmt: skip
MIDDLES = (
    "a", "an", "ar", "bel", "bo", "cha", "da", "de", "di", "don", "fo", "gar", "ge", "go", "la", "le", "li",
    "ma", "mi", "mon", "na", "nè", "pi", "ra", "ro", "sa", "ti", "van", "vé", "zo",
)  # fmt: skip
ENDS = (
    "ard", "aud", "beau", "bert", "bois", "cé", "chon", "court", "del", "delle", "don", "eau", "el", "er",
    "ès", "fleur", "gny", "ier", "in", "jac", "lan", "let", "lier", "lon", "maux", "mont", "neau", "nel",
    "ont", "ot", "quin", "rade", "rel", "seau", "ssé", "tel", "tin", "vière", "ville", "zan",
)  # fmt: skip
PARTICLES = ("De ", "De La ", "Du ", "D'", "Le ", "La ", "Des ", "L'", "N'", "El ", "Saint-", "Ben ")
GIVEN_STARTS = (
    "Al", "An", "Ar", "Ca", "Chris", "Cla", "Da", "Do", "É", "Em", "Fa", "Flo", "Ga", "Ha", "I", "Jo", "Ju",
    "Ka", "Lau", "Lé", "Ma", "Mi", "Na", "No", "Pa", "Ré", "Sa", "So", "Ta", "Va",
)  # fmt: skip
GIVEN_ENDS = (
    "bien", "cia", "delle", "dine", "drien", "ël", "elle", "ette", "fane", "gane", "ia", "ïs", "lène",
    "lian", "lie", "line", "lle", "mir", "na", "nic", "nie", "nor", "phine", "rane", "ric", "rine", "ron",
    "sandre", "thias", "tine", "trice", "vier", "wen", "xime", "yane", "zélie",
)  # fmt: skip
TOWN_ENDS = ("ville", "court", "gny", "ac", "bourg", "mont", "fontaine")
CORSICA = str.maketrans("AB", "00")
STREETS = ("DES TILLEULS", "SAINT ETIENNE", "DE L'EGLISE", "DU MARECHAL FICTIF", "DES ÉCOLES", "BELLE-VUE")


@dataclass(frozen=True)
class Profession:
    """A profession of TRE_G15: its register, its share of the people, the domain of its Ordre."""

    code: str
    label: str
    authority: str
    weight: int
    ordre_domain: str = ""
    skills: tuple[tuple[str, str], ...] = ()


# The seven Ordres, then professions without one, which the health agencies register.
PROFESSIONS = (
    Profession("10", "Médecin", "CNOM", 30, "medecin", (
        ("SM04", "Cardiologie et maladies vasculaires"), ("SM53", "Spécialiste en Médecine Générale"),
        ("SM54", "Médecine générale"), ("SM02", "Anesthésie-réanimation"))),
    Profession("60", "Infirmier", "ONI", 22, "infirmier"),
    Profession("70", "Masseur-Kinésithérapeute", "CNOMK", 9, "masseur-kinesitherapeute"),
    Profession("21", "Pharmacien", "CNOP", 8, "pharmacien"),
    Profession("40", "Chirurgien-Dentiste", "ONCD", 6, "chirurgien-dentiste", (
        ("SCD01", "Orthopédie dento-faciale"),)),
    Profession("50", "Sage-Femme", "CNOSF", 4, "sage-femme"),
    Profession("80", "Pédicure-Podologue", "CNOPP", 3, "pedicure-podologue"),
    Profession("91", "Orthophoniste", "ARS", 5),
    Profession("94", "Ergothérapeute", "ARS", 4),
    Profession("96", "Psychomotricien", "ARS", 4),
    Profession("93", "Psychologue", "ARS", 2),
    Profession("98", "Manipulateur ERM", "ARS", 1),
    Profession("26", "Audioprothésiste", "ARS", 2),
)  # fmt: skip
PHARMACIST, AUDIOLOGIST = "21", "26"
WEIGHTS = [profession.weight for profession in PROFESSIONS]
HOSPITAL, MEDICO_SOCIAL = 0, 1

ACTIVITY_COLUMNS = (
    "Type d'identifiant PP", "Identifiant PP", "Identification nationale PP", "Code civilité d'exercice",
    "Libellé civilité d'exercice", "Code civilité", "Libellé civilité", "Nom d'exercice",
    "Prénom d'exercice", "Code profession", "Libellé profession", "Code catégorie professionnelle",
    "Libellé catégorie professionnelle", "Code type savoir-faire", "Libellé type savoir-faire",
    "Code savoir-faire", "Libellé savoir-faire", "Code mode exercice", "Libellé mode exercice",
    "Numéro SIRET site", "Numéro SIREN site", "Numéro FINESS site", "Numéro FINESS établissement juridique",
    "Identifiant technique de la structure", "Raison sociale site", "Enseigne commerciale site",
    "Complément destinataire (coord. structure)", "Complément point géographique (coord. structure)",
    "Numéro Voie (coord. structure)", "Indice répétition voie (coord. structure)",
    "Code type de voie (coord. structure)", "Libellé type de voie (coord. structure)",
    "Libellé Voie (coord. structure)", "Mention distribution (coord. structure)",
    "Bureau cedex (coord. structure)", "Code postal (coord. structure)", "Code commune (coord. structure)",
    "Libellé commune (coord. structure)", "Code pays (coord. structure)", "Libellé pays (coord. structure)",
    "Téléphone (coord. structure)", "Téléphone 2 (coord. structure)", "Télécopie (coord. structure)",
    "Adresse e-mail (coord. structure)", "Code Département (structure)", "Libellé Département (structure)",
    "Ancien identifiant de la structure", "Autorité d'enregistrement", "Code secteur d'activité",
    "Libellé secteur d'activité", "Code section tableau pharmaciens", "Libellé section tableau pharmaciens",
    "Code rôle", "Libellé rôle", "Code genre activité", "Libellé genre activité",
)  # fmt: skip
PERSON_COLUMNS = (
    "Type d'identifiant PP", "Identifiant PP", "Identification nationale PP", "Nom d'exercice",
    "Prénom d'exercice",
)  # fmt: skip
KNOW_HOW_COLUMNS = (
    *PERSON_COLUMNS, "Code profession", "Libellé profession", "Code catégorie professionnelle",
    "Libellé catégorie professionnelle", "Code type savoir-faire", "Libellé type savoir-faire",
    "Code savoir-faire", "Libellé savoir-faire",
)  # fmt: skip
DIPLOMA_COLUMNS = (
    *PERSON_COLUMNS, "Code type diplôme obtenu", "Libellé type diplôme obtenu", "Code diplôme obtenu",
    "Libellé diplôme obtenu", "Code type autorisation", "Libellé type autorisation",
    "Code discipline autorisation", "Libellé discipline autorisation",
)  # fmt: skip
MAILBOX_COLUMNS = (
    "Type de BAL", "Adresse BAL", "Type Identifiant PP", "Identifiant PP", "Identification nationale PP",
    "Type identifiant structure", "Identification Structure", "Service de rattachement",
    "Civilité d'exercice", "Nom d'exercice", "Prénom d'exercice", "Catégorie profession",
    "Libellé de catégorie profession", "Code Profession", "Libellé Profession", "Code savoir-faire",
    "Libellé savoir-faire", "Dématérialisation", "Raison Sociale structure BAL",
    "Enseigne commerciale structure BAL", "L2COMPLEMENTLOCALISATION structure BAL",
    "L3COMPLEMENTDISTRIBUTION structure BAL", "L4NUMEROVOIE structure BAL",
    "L4COMPLEMENTNUMEROVOIE structure BAL", "NL4TYPEVOIE structure BAL", "L4LIBELLEVOIE structure BAL",
    "L5LIEUDITMENTION structure BAL", "L6LIGNEACHEMINEMENT structure BAL", "Code postal structure BAL",
    "Département structure BAL", "Pays structure BAL",
)  # fmt: skip
# The restricted extraction: no labels, fewer codes, and what only its readers may know of a person.
PSC_PRIVATE_COLUMNS = (
    "Nom de famille", "Prénoms", "Date de naissance", "Code commune de naissance", "Code pays de naissance",
    "Lieu de naissance", "Code sexe", "Téléphone (coord. correspondance)",
    "Adresse e-mail (coord. correspondance)",
)  # fmt: skip
PSC_DEPARTMENT = "Code département (coord. structure)"
PSC_COLUMNS = (
    *PERSON_COLUMNS[:3], *PSC_PRIVATE_COLUMNS, "Code civilité", "Code profession",
    "Code catégorie professionnelle", "Code civilité d'exercice", "Nom d'exercice", "Prénom d'exercice",
    "Code type savoir-faire", "Code savoir-faire", "Code mode exercice", "Code secteur d'activité",
    "Code section tableau pharmaciens", "Code rôle", "Numéro SIRET site", "Numéro SIREN site",
    "Numéro FINESS site", "Numéro FINESS établissement juridique", "Identifiant technique de la structure",
    "Raison sociale site", "Enseigne commerciale site", "Complément destinataire (coord. structure)",
    "Complément point géographique (coord. structure)", "Numéro Voie (coord. structure)",
    "Indice répétition voie (coord. structure)", "Code type de voie (coord. structure)",
    "Libellé Voie (coord. structure)", "Mention distribution (coord. structure)",
    "Bureau cedex (coord. structure)", "Code postal (coord. structure)", "Code commune (coord. structure)",
    "Code pays (coord. structure)", "Téléphone (coord. structure)", "Téléphone 2 (coord. structure)",
    "Télécopie (coord. structure)", "Adresse e-mail (coord. structure)", PSC_DEPARTMENT,
    "Ancien identifiant de la structure", "Autorité d'enregistrement",
)  # fmt: skip
OLD_WIDTH = 52
DEFAULT_DAY = date(2026, 9, 1)
NATIONAL_FROM = 50_000
# What FINESS numbers leave in the ranges that nobody uses.
MOST_ORGANISATIONS, MOST_AT_NATIONAL_SIZE = len(TOWNS) * 500, 100_000
# RPPS numbers 10099… are left free by the register; beyond them, 99… is of no series it uses.
IN_FIRST_SERIES = 100_000
# Shares of people, near those of the real register; then what is unclean in it.
STUDENTS, WOMEN, DOUBLE_NAMES, SKILLED = 0.03, 0.55, 0.2, 0.8
OWN_PRACTICE, BOTH = 0.6, 0.05
NO_ADDRESS = 0.25
HOSPITALS = (
    "HOPITAL", "CLINIQUE", "CENTRE HOSPITALIER DE", "CENTRE DE SANTE", "POLYCLINIQUE", "HOPITAL PRIVE",
    "HAD DE", "CENTRE DE READAPTATION",
)  # fmt: skip
MEDICO_SOCIAL_PLACES = (
    "EHPAD", "EHPAD RESIDENCE", "FOYER", "SSIAD DE", "PHARMACIE", "LABORATOIRE", "IME", "ESAT", "SESSAD DE",
    "MAISON DE SANTE DE",
)  # fmt: skip
FEWEST_DOMAINS = sum(bool(one.ordre_domain) for one in PROFESSIONS) + len(TOWNS) + 3
MOST_OPERATORS = 150
SERVICES = ("SECRETARIAT", "URGENCES", "CARDIOLOGIE", "COORDINATION", "PHARMACIE", "ADMISSIONS")


@dataclass(frozen=True)
class Drawn:
    """Things to draw from, equally often or by weight."""

    things: Sequence[str]
    cumulative: Sequence[float] | None = None

    def by(self, dice: Random) -> str:
        """One of them."""
        if self.cumulative is None:
            return dice.choice(self.things)
        return dice.choices(self.things, cum_weights=self.cumulative)[0]


@dataclass(frozen=True)
class Land:
    """Names and towns of people: `double` is the share of double names, `both` that of people with a practice
    of their own and an employer. `town_weights` are cumulative, None for equally common towns.
    """

    families: Drawn
    second_families: Drawn
    given: Drawn
    towns: tuple[tuple[str, str, str, str, str], ...]
    town_weights: Sequence[float] | None
    double: float
    both: float

    def town(self, dice: Random) -> int:
        """The number of a town."""
        if self.town_weights is None:
            return dice.randrange(len(self.towns))
        return dice.choices(range(len(self.towns)), cum_weights=self.town_weights)[0]


@cache
def land(*, national: bool) -> Land:
    """The small world of a demonstration, or a nation."""
    if not national:
        given, second = Drawn(GIVEN), Drawn(FAMILIES[:24])
        return Land(Drawn(FAMILIES), second, given, TOWNS, None, DOUBLE_NAMES, BOTH)
    families = zipf(list(_national_families()), flat=20)
    simple = [f"{start}{end}" for start, end in product(GIVEN_STARTS, GIVEN_ENDS)]
    composed = [f"{simple[n]}-{simple[(7 * n + 5) % len(simple)]}" for n in range(0, 400, 2)]
    more = dice_of("given").sample([*simple, *composed], len(simple) + len(composed))
    given = zipf([*GIVEN, *more], flat=5)
    others = list(_national_towns())
    towns = (*TOWNS, *dice_of("towns").sample(others, len(others)))
    weights = list(accumulate(1 / (rank + 4) ** 0.9 for rank in range(len(towns))))
    return Land(families, families, given, towns, weights, double=0.1, both=0.195)


def zipf(things: Sequence[str], *, flat: int) -> Drawn:
    """The things with the frequencies of names: the n-th 1 / (n + flat) ** 0.9. It gives the commonest family
    name of a nation 0.35 % of the people.
    """
    return Drawn(things, list(accumulate(1 / (rank + flat) ** 0.9 for rank in range(1, len(things) + 1))))


def _national_families() -> Iterator[str]:
    """All that the parts give, without repetition; one in twenty behind a particle."""
    long = ["".join(parts) for parts in product(STARTS, MIDDLES, ENDS)]
    names = list(dict.fromkeys([*("".join(parts) for parts in product(STARTS, ENDS)), *long]))
    for rank, name in enumerate(dice_of("families").sample(names, len(names))):
        yield PARTICLES[rank // 20 % len(PARTICLES)] + name if one_in(20, rank) else name


def departments() -> Sequence[str]:
    """Those of the nation, overseas included."""
    mainland = [f"{number:02d}" for number in (*range(1, 20), *range(21, 96))]
    return (*mainland, "2A", "2B", "971", "972", "973", "974", "976")


def _national_towns() -> Iterator[tuple[str, str, str, str, str]]:
    dice = dice_of("town names")
    for department, place in product(departments(), range(30)):
        name = dice.choice(STARTS) + dice.choice(MIDDLES) + dice.choice(TOWN_ENDS)
        if one_in(4, place):
            name = f"Saint {dice.choice(GIVEN)} {dice.choice(('sur', 'en', 'les'))} {name}"
        shown = _plain(name).replace("-", " ").upper()
        number = str(990 - place)[len(department) - 2 :]
        # Corsica has two departments and one beginning of postal codes.
        postal_code = department.translate(CORSICA) + number
        yield department, department + number, postal_code, shown, shown.lower().replace(" ", "-")


@dataclass(frozen=True)
class Plan:
    """What to make: sizes, seed, day, and for a next day the shares of people who come, move and go."""

    practitioners: int = 2000
    organisations: int = 200
    mailboxes: int = 1500
    seed: int = 1
    day: date = DEFAULT_DAY
    next_day: bool = False
    arrivals: float = 0.005
    moves: float = 0.01
    departures: float = 0.005
    columns: int = len(ACTIVITY_COLUMNS)
    without: frozenset[str] = frozenset()
    domains: int = 0
    psc: bool = False
    finess_json: bool = False

    @property
    def written_on(self) -> date:
        """The day in the names of the files."""
        return self.day + timedelta(days=1) if self.next_day else self.day

    @property
    def people(self) -> int:
        """How many numbers of people to go through, those who are gone included."""
        return self.practitioners + (round(self.practitioners * self.arrivals) if self.next_day else 0)

    @property
    def national(self) -> bool:
        """Whether names, towns and places are those of a nation."""
        return self.practitioners >= NATIONAL_FROM

    @property
    def land(self) -> Land:
        """Where names and towns come from."""
        return land(national=self.national)

    @property
    def own_domains(self) -> int:
        """How many hospitals have a domain of their own, so that there are `domains` entries in all."""
        return max(0, self.domains - FEWEST_DOMAINS)


@dataclass(frozen=True)
class Organisation:
    """An invented establishment, hospital or medico-social."""

    kind: int
    finess: str
    legal_finess: str
    siret: str
    name: str
    town: tuple[str, str, str, str, str]
    domain: str


@dataclass(frozen=True)
class Person:
    """An invented person; `town`: where he practises on his own, `works_at`: his establishment's number."""

    index: int
    id_type: str
    number: str
    female: bool
    family: str
    given: str
    profession: Profession
    student: bool
    on_his_own: bool
    works_at: int | None
    town: int
    skill: tuple[str, str] | None

    @property
    def national_id(self) -> str:
        """Type digit and number."""
        return self.id_type + self.number


def dice_of(*parts: object) -> Random:
    """Dice of their own for each thing invented: what one is does not depend on how many came before it."""
    return Random(":".join(map(str, parts)))  # noqa: S311 - inventions, not secrets


def one_in(period: int, number: int) -> bool:
    """Whether this is the one of `period` that gets the dirt."""
    return number % period == period - 1


def with_key(digits: str) -> str:
    """The digits and their Luhn key (ISO/IEC 7812-1 annex B)."""
    doubled = sum(sum(divmod(2 * int(digit), 10)) for digit in digits[::-2])
    plain = sum(int(digit) for digit in digits[-2::-2])
    return digits + str(-(doubled + plain) % 10)


def siret_of(number: int) -> str:
    """An invented SIRET: its SIREN passes Luhn, and so does the whole."""
    series, number = divmod(number, 100_000)
    return with_key(with_key(f"{999 - series}{number:05d}") + "0001")


def organisation(plan: Plan, number: int) -> Organisation:
    """Establishment `number`, counted from 0."""
    if plan.national:
        return _national_organisation(plan.seed, number, plan.own_domains)
    return _organisation(plan.seed, number)


@lru_cache(maxsize=4096)
def _organisation(seed: int, number: int) -> Organisation:
    dice = dice_of(seed, "organisation", number)
    town = TOWNS[number % len(TOWNS)]
    # A third are hospitals; the first of each town is its university hospital.
    serial = number // len(TOWNS)
    kind = HOSPITAL if serial % 3 == 0 else MEDICO_SOCIAL
    if number < len(TOWNS):
        name = f"CHU FICTIF DE {town[3]}"
    elif kind == HOSPITAL:
        name = f"HOPITAL {dice.choice(FAMILIES).upper()} DE {town[3]}"
    else:
        name = f"EHPAD {dice.choice(FAMILIES).upper()}"
    domain = _hospital_domain(town) if kind == HOSPITAL else "medico-social.mssante.invalid"
    finess, legal = (with_key(f"{town[0]}099{2 * serial + step:03d}") for step in (1, 0))
    return Organisation(kind, finess, legal, siret_of(number), name, town, domain)


@lru_cache(maxsize=200_000)
def _national_organisation(seed: int, number: int, own_domains: int) -> Organisation:
    dice = dice_of(seed, "organisation", number)
    world = land(national=True)
    town = world.towns[world.town(dice)]
    kind = HOSPITAL if number % 3 == 0 else MEDICO_SOCIAL
    if number < 3 * len(TOWNS):
        what = "CHU FICTIF DE" if kind == HOSPITAL else "EHPAD"
    else:
        what = dice.choice(HOSPITALS if kind == HOSPITAL else MEDICO_SOCIAL_PLACES)
    name = f"{what} {town[3]}" if what.endswith(" DE") else f"{what} {world.families.by(dice).upper()}"
    domain = "medico-social.mssante.invalid"
    if kind == HOSPITAL:
        rank = number // 3
        domain = _own_domain(rank) if rank < own_domains else _hospital_domain(TOWNS[rank % len(TOWNS)])
    # Ten places to a legal entity; no two places share a number, whatever their department.
    department = town[0][:2].translate(CORSICA)
    finess, legal = with_key(f"{department}9{number:05d}"), with_key(f"{department}89{number // 10:04d}")
    return Organisation(kind, finess, legal, siret_of(number), name, town, domain)


def _hospital_domain(town: tuple[str, str, str, str, str]) -> str:
    return f"chu-{town[4]}.hopital.mssante.invalid"


def _own_domain(rank: int) -> str:
    return f"h{rank:05d}.hopital.mssante.invalid"


def person(plan: Plan, index: int) -> Person:
    """Person `index`, as on the first day."""
    world, dice = plan.land, dice_of(plan.seed, "person", index)
    profession = dice.choices(PROFESSIONS, WEIGHTS)[0]
    by_adeli = profession.code == AUDIOLOGIST
    student = dice.random() < STUDENTS
    worker = _establishment(plan, dice, hospital=bool(profession.ordre_domain))
    share = dice.random()
    on_his_own = bool(profession.ordre_domain) and (
        worker is None or share < OWN_PRACTICE or share > 1 - world.both
    )
    family = world.families.by(dice)
    if dice.random() < world.double:
        family = f"{family}-{world.second_families.by(dice)}"
    return Person(
        index=index,
        id_type="0" if by_adeli else "8",
        number=_adeli(index) if by_adeli else _rpps(index),
        female=dice.random() < WOMEN,
        family=family.upper() + (' "DIT LE BRAVE"' if one_in(499, index) else ""),
        given=world.given.by(dice).upper(),
        profession=profession,
        student=student and not by_adeli,
        on_his_own=on_his_own or worker is None,
        works_at=worker if not on_his_own or share > 1 - world.both else None,
        town=world.town(dice),
        skill=dice.choice(profession.skills) if profession.skills and dice.random() < SKILLED else None,
    )


def _establishment(plan: Plan, dice: Random, *, hospital: bool) -> int | None:
    """The number of an establishment of the wanted kind, None when there is none."""
    if plan.organisations == 0:
        return None
    wanted = HOSPITAL if hospital else MEDICO_SOCIAL
    if plan.national:
        # A few places employ thousands, most a handful.
        start = int(plan.organisations * dice.random() ** 2.5)
    else:
        start = dice.randrange(plan.organisations)
    near = ((start + step) % plan.organisations for step in range(min(plan.organisations, 3 * len(TOWNS))))
    return next((number for number in near if organisation(plan, number).kind == wanted), start)


def _rpps(index: int) -> str:
    return with_key(f"10099{index + 1:05d}" if index + 1 < IN_FIRST_SERIES else f"99{index + 1:08d}")


def _adeli(index: int) -> str:
    return with_key(f"{index % 95 + 1:02d}9{index // 95:05d}")


def people(plan: Plan) -> Iterator[Person]:
    """Everybody in the file of that day."""
    for index in range(plan.people):
        found = person(plan, index)
        if plan.next_day and index < plan.practitioners:
            fate = dice_of(plan.seed, "fate", index).random()
            if fate < plan.departures:
                continue
            if fate < plan.departures + plan.moves:
                found = _moved(plan, found)
        if found.national_id not in plan.without:
            yield found


def _moved(plan: Plan, found: Person) -> Person:
    """The same person, practising on his own in the next town."""
    return replace(found, town=(found.town + 1) % len(plan.land.towns), on_his_own=True, student=False)


def activity_rows(plan: Plan, found: Person) -> Iterator[tuple[str, ...]]:
    """The rows of one person in Personne_activite."""
    profession, skill = found.profession, found.skill
    doctor = ("DR", "Docteur") if profession.code in ("10", "40") and not found.student else ("", "")
    civility = ("MME", "Madame") if found.female else ("M", "Monsieur")
    category = ("E", "Etudiant") if found.student else ("C", "Civil")
    known = ("S", "Spécialité ordinale", *skill) if skill and not found.student else ("",) * 4
    head = (found.id_type, found.number, found.national_id, *doctor, *civility, found.family, found.given,
            profession.code, profession.label, *category, *known)  # fmt: skip
    if found.student:
        yield (*head, *("",) * 39)
        return
    if found.on_his_own:
        yield (*head, *_own_practice(plan, found))
    if found.works_at is not None:
        yield (*head, *_salaried_practice(found, organisation(plan, found.works_at)))


def _own_practice(plan: Plan, found: Person) -> tuple[str, ...]:
    dice = dice_of("own", found.index, found.town)
    department, commune, postal_code, town, _ = plan.land.towns[found.town]
    structure = f"R10100{found.index % 10**9:09d}"
    number, street = str(dice.randrange(1, 180)), dice.choice(STREETS)
    if dice.random() < NO_ADDRESS:
        # A quarter of the practices in town have no address in the real files.
        place: tuple[str, ...] = ("",) * 18
    else:
        number = "P" if one_in(311, found.index) else number
        postal_code = "GL" if one_in(397, found.index) else postal_code
        place = ("", "", number, "", "R", "Rue", street, "", f"{postal_code} {town}", postal_code, commune,
                 town.title(), "", "", f"03{found.index % 10**8:08d}", "", "", "")  # fmt: skip
    authority = (
        "/".join([found.profession.authority] * 3)
        if found.profession.ordre_domain
        else "ARS/Variable/Variable"
    )
    spare = 200_000 + found.index % 600_000 if plan.national else 50000 + found.index % 40000
    siret = siret_of(spare) if found.profession.code == PHARMACIST else ""
    name = f"PHARMACIE {found.family}" if siret else ""
    sector = ("SA33", "Pharmacie d'officine") if siret else ("SA07", "Cabinet individuel")
    table = ("A", "Titulaire d'officine") if siret else ("", "")
    return ("L", "Libéral, indépendant, artisan, commerçant", siret, siret[:9], "", "", structure, name, "",
            *place, department if place[2] else "", "", f"4{found.number}001", authority, *sector, *table,
            "", "", "", "")  # fmt: skip


def _salaried_practice(found: Person, site: Organisation) -> tuple[str, ...]:
    department, commune, postal_code, town, _ = site.town
    authority = found.profession.authority
    authority = f"{authority}/{authority}/ARS" if found.profession.ordre_domain else "ARS/Variable/Variable"
    sector = ("SA01", "Etablissement Public de santé") if site.kind == HOSPITAL else ("SA17", "EHPAD")
    place = ("", "", "2", "", "FG", "Faubourg", "SAINT ETIENNE", "CS 10000", f"{postal_code} {town} CEDEX",
             postal_code, commune, town.title(), "", "", "0300000000", "", "", "")  # fmt: skip
    return ("S", "Salarié", site.siret, "", site.finess, site.legal_finess, f"F{site.finess}", site.name, "",
            *place, department, "", f"1{site.finess}", authority, *sector, "", "", "FON-AU", "Autre fonction",
            "GENR01", "Activité standard de soin ou de pharmacien")  # fmt: skip


def bad_rows(plan: Plan) -> Iterator[tuple[str, ...]]:
    """Test people as the real file holds them: their numbers fail the check digit."""
    for step in range(max(1, plan.practitioners // 1000)):
        number = _rpps(plan.practitioners * 2 + step)
        number = number[:-1] + str((int(number[-1]) + 1) % 10)
        yield ("8", number, f"8{number}", "", "", "M", "Monsieur", "TEST", "COMPTE", "10", "Médecin",
               "C", "Civil", *("",) * 43)  # fmt: skip


def joined(row: Iterable[str]) -> str:
    """A row as the RPPS files write it: pipes, and one at the end."""
    return "|".join(row) + "|\n"


def write_rpps(plan: Plan, path: Path, stamp: str) -> None:
    """PS_LibreAcces: three texts in one archive."""
    columns = ACTIVITY_COLUMNS[: plan.columns]
    names = [
        f"PS_LibreAcces_{part}_{stamp}.txt" for part in ("Personne_activite", "SavoirFaire", "Dipl_AutExerc")
    ]
    with ExitStack() as stack:
        texts = [stack.enter_context(TemporaryFile("w+", encoding="utf-8", newline="\n")) for _ in names]
        activities, know_how, diplomas = texts
        for text, headings in zip(texts, (columns, KNOW_HOW_COLUMNS, DIPLOMA_COLUMNS), strict=True):
            text.write(joined(headings))
        for found in people(plan):
            activities.writelines(joined(row[: plan.columns]) for row in activity_rows(plan, found))
            who = (found.id_type, found.number, found.national_id, found.family, found.given)
            profession = found.profession
            if found.skill and not found.student:
                know_how.write(joined((*who, profession.code, profession.label, "C", "Civil", "S",
                                       "Spécialité ordinale", *found.skill)))  # fmt: skip
            diplomas.write(joined((*who, "DE", "Diplôme d'Etat français", f"DE{profession.code}",
                                   f"DE {profession.label}", "", "", "", "")))  # fmt: skip
        activities.writelines(joined(row[: plan.columns]) for row in bad_rows(plan))
        with zipfile.ZipFile(path, "w") as archive:
            for name, text in zip(names, texts, strict=True):
                _pack(archive, name, text, plan.written_on)


def psc_row(plan: Plan, index: int, row: Iterable[str]) -> tuple[str, ...]:
    """The same activity as the restricted extraction tells it."""
    known = dict(zip(ACTIVITY_COLUMNS, row, strict=True))
    dice = dice_of(plan.seed, "private", index)
    known[PSC_DEPARTMENT] = known["Code Département (structure)"]
    born = f"{dice.randrange(1, 29):02d}/{dice.randrange(1, 13):02d}/{dice.randrange(1950, 2000)}"
    commune, town = dice.choice(TOWNS)[1:4:2]
    known |= dict(zip(PSC_PRIVATE_COLUMNS, (
        f"NAISSANCE-{index}", f"{known[PERSON_COLUMNS[4]]}'{dice.choice(GIVEN).upper()}", born, commune,
        "99000", town, "F" if known["Code civilité"] == "MME" else "M", f"06{dice.randrange(10**8):08d}",
        f"private{index}@courriel.invalid"), strict=True))  # fmt: skip
    return tuple(known[column] for column in PSC_COLUMNS)


def write_psc(plan: Plan, path: Path, stamp: str) -> None:
    """Extraction_ProSanteConnect: the activities alone, of the same people."""
    with TemporaryFile("w+", encoding="utf-8", newline="\n") as text:
        text.write(joined(PSC_COLUMNS))
        for found in people(plan):
            text.writelines(joined(psc_row(plan, found.index, row)) for row in activity_rows(plan, found))
        text.writelines(joined(psc_row(plan, -1, row)) for row in bad_rows(plan))
        with zipfile.ZipFile(path, "w") as archive:
            _pack(archive, f"Extraction_ProSanteConnect_Personne_activite_{stamp}.txt", text, plan.written_on)


def _pack(archive: zipfile.ZipFile, name: str, text: IO[str], day: date) -> None:
    # Its own date: the same seed gives the same bytes.
    info = zipfile.ZipInfo(name, (day.year, day.month, day.day, 2, 0, 0))
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = 0o100644 << 16
    text.seek(0)
    with archive.open(info, "w", force_zip64=True) as member:
        while block := text.read(1 << 20):
            member.write(block.encode())


def mailbox_rows(plan: Plan) -> Iterator[tuple[str, ...]]:
    """As many mailboxes as asked for: one in six of a structure, the others of persons; then the dirt."""
    first_day = replace(plan, next_day=False, without=frozenset())
    services = list(_service_mailboxes(first_day, plan.mailboxes // 6))
    yield from services
    wanted = plan.mailboxes - len(services)
    made = 0
    for round_number in range(3):
        for found in (person(first_day, index) for index in range(plan.practitioners)):
            if made >= wanted:
                break
            row = _personal_mailbox(first_day, found, round_number)
            if row is None:
                continue
            made += 1
            if plan.next_day and dice_of(plan.seed, "closed", row[1]).random() < plan.departures:
                continue
            yield row
            yield from _repeated(plan, row, made)
    if plan.next_day:
        arrived = (person(plan, index) for index in range(plan.practitioners, plan.people))
        yield from filter(None, (_personal_mailbox(plan, found, 0) for found in arrived))


def _service_mailboxes(plan: Plan, wanted: int) -> Iterator[tuple[str, ...]]:
    for number in range(min(wanted, plan.organisations * len(SERVICES))):
        turn, index = divmod(number, plan.organisations)
        site = organisation(plan, index)
        service = SERVICES[turn]
        yield _mailbox("ORG", f"{service.lower()}.{site.finess}@{site.domain}", None, site, service)


def _personal_mailbox(plan: Plan, found: Person, round_number: int) -> tuple[str, ...] | None:
    """A person's mailbox in one of the three worlds; None for a student, who has none yet."""
    if found.student:
        return None
    local = f"{_plain(found.given)}.{_plain(found.family)}{found.index + 1}"
    site = organisation(plan, found.works_at) if found.works_at is not None else None
    if round_number:
        return _mailbox("PER", f"{local}.{round_number}@{_domain(found, None)}", found, None, "")
    return _mailbox("PER", f"{local}@{_domain(found, site)}", found, site, "")


def _domain(found: Person, site: Organisation | None) -> str:
    if site is not None:
        return site.domain
    ordre = found.profession.ordre_domain
    return f"{ordre}.ordre.mssante.invalid" if ordre else "medico-social.mssante.invalid"


def _repeated(plan: Plan, row: tuple[str, ...], made: int) -> Iterator[tuple[str, ...]]:
    """The few addresses that stand on several lines: attached to a second structure, or claimed by a second
    person.
    """
    if not plan.organisations:
        return
    if one_in(500, made):
        site = organisation(plan, made % plan.organisations)
        yield (*row[:5], "1", site.finess, "CONSULTATIONS", *row[8:18], site.name, *row[19:])
    if one_in(1200, made):
        other = person(plan, plan.practitioners * 3)
        yield (*row[:2], other.id_type, other.number, other.national_id, *row[5:])


def _mailbox(
    kind: str, address: str, found: Person | None, site: Organisation | None, service: str
) -> tuple[str, ...]:
    who: tuple[str, ...] = ("", "", "")
    shown: tuple[str, ...] = ("",) * 9
    if found is not None:
        who = (found.id_type, found.number, found.national_id)
        shown = ("", found.family, found.given, "C", "Civil", found.profession.code, found.profession.label,
                 *(found.skill or ("", "")))  # fmt: skip
    structure = ("1", site.finess) if site else ("", "")
    paperless = ("O", "N", "", "OUI")[len(address) % 4]
    place = ("",) * 12
    if site is not None:
        department, _, postal_code, town, _ = site.town
        place = ("", "", "", "2", "", "FG", "SAINT ETIENNE", "", f"{postal_code} {town} CEDEX", postal_code,
                 department, "")  # fmt: skip
    return (kind, address, *who, *structure, service, *shown, paperless, site.name if site else "", *place)


def _plain(name: str) -> str:
    folded = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return "-".join("".join(c if c.isalnum() else " " for c in folded).split())


def write_mailboxes(plan: Plan, path: Path, stamp: str) -> None:
    """Extraction_Correspondance_MSSante: one text, without a pipe at the end of its lines."""
    with TemporaryFile("w+", encoding="utf-8", newline="\n") as text:
        text.write("|".join(MAILBOX_COLUMNS) + "\n")
        text.writelines("|".join(row) + "\n" for row in mailbox_rows(plan))
        with zipfile.ZipFile(path, "w") as archive:
            _pack(archive, f"Extraction_Correspondance_MSSante_{stamp}.txt", text, plan.written_on)


def write_finess(plan: Plan, path: Path) -> None:
    """The legacy CSV of establishments."""
    with path.open("w", encoding="utf-8", newline="\n") as text:
        text.write(f"finess;etalab;111;{plan.written_on.isoformat()}\n")
        for number in range(plan.organisations):
            row = _finess_row(organisation(plan, number), number)
            text.write(";".join(map(_quoted, row)) + "\n")


def _quoted(cell: str) -> str:
    doubled = cell.replace('"', '""')
    return f'"{doubled}"' if {";", '"'} & set(cell) else cell


def write_finess_json(plan: Plan, path: Path) -> None:
    """The daily JSON of the same establishments, and a few that closed long ago."""
    # Without name and time of its own: the same seed gives the same bytes.
    with path.open("wb") as packed, gzip.GzipFile("", "wb", 6, packed, mtime=0) as text:
        stated = f"{plan.written_on.isoformat()}T02:49:37.615611300Z"
        text.write(f'{{"schemaVersion":"v1.0.0","generatedAt":"{stated}","gcc":[],"gco":[],"pmej":['.encode())
        for number in range(plan.organisations):
            entity = _entity(_finess_row(organisation(plan, number), number), number)
            text.write((",\n" if number else "\n").encode() + json.dumps(entity).encode())
        text.write(b"]}\n")


def _entity(row: tuple[str, ...], number: int) -> dict[str, object]:
    """A legal entity with the establishment of this row of the CSV."""
    sites = [_site(row)]
    if one_in(50, number):
        sites.append(_site((*row[:1], row[2], *row[2:]), closed_on="1993-01-01"))
    about = {"numFinessPm": row[2], "denominationPm": row[3], "siren": row[22][:9]}
    # Nothing says that keys come in this order: some entities have theirs the other way round.
    ordered = {"informationsGeneralesPMEJ": about, "ege": sites}
    return dict(reversed(ordered.items())) if one_in(7, number) else ordered


def _site(row: tuple[str, ...], *, closed_on: str = "") -> dict[str, object]:
    about = {"nomEgeCourt": f"{row[3]}    ", "nomEgeLong": row[4], "numFinessEge": row[1], "siret": row[22],
             "dateOuverture": row[28], "dateFermeture": closed_on}  # fmt: skip
    postal_code, _, town = row[15].partition(" ")
    place = {"usageAdresse": "03", "numeroVoie": row[7], "typeVoie": f"{row[8]}  ", "libelleVoie": row[9],
             "complementVoie": row[10], "lieuDit": row[11], "cogCommune": row[13] + row[12],
             "ligneAcheminement": town, "codePostal": postal_code}  # fmt: skip
    return {
        "informationsGeneralesEGE": {name: value for name, value in about.items() if value},
        "categorieentiteGeographiqueExercice": row[18],
        "adresse": [{name: value for name, value in place.items() if value}],
        "contact": [{"typeContact": {"roleContact": "01"}, "telecom": {"telephone": row[16]}}],
        "etatObjet": "I" if closed_on else "A",
        "dateDerniereMaj": "2025-01-15 00:00:00",
    }


def _finess_row(site: Organisation, number: int) -> tuple[str, ...]:
    department, commune, postal_code, town, _ = site.town
    category = ("355", "Centre Hospitalier (C.H.)", "1102", "Centres Hospitaliers")
    if site.kind == MEDICO_SOCIAL:
        category = ("500", "EHPAD", "4401", "Etablissements d'hébergement pour personnes âgées")
    # A name with the separator and quotes in it, as the real file has them.
    name = f'{site.name}; SITE "NORD"' if one_in(150, number) else site.name
    opened = "" if one_in(40, number) else "1979-02-13"
    return ("structureet", site.finess, site.legal_finess, name, site.name, "", "", "2", "FG",
            "SAINT ETIENNE", "", "CS 10000", commune[2:], department, town, f"{postal_code} {town} CEDEX",
            "0300000000", "", *category,
            "" if one_in(25, number) else site.siret, "8610Z", "03", "ARS dotation globale", "1",
            "Etablissement public de santé", opened, opened, "2025-01-15", "")  # fmt: skip


def trusted(plan: Plan) -> Iterator[tuple[str, str, str]]:
    """Domain, what it is for, and its operator's certificate."""
    ordres = _operator("mss.ordres.invalid", 1, "ORDRES FICTIFS REUNIS")
    hospitals = _operator("mss.hopital.invalid", 2, "FEDERATION HOSPITALIERE FICTIVE")
    medico_social = _operator("mss.medico-social.invalid", 3, "OPERATEUR MEDICO-SOCIAL FICTIF")
    for profession in PROFESSIONS:
        if profession.ordre_domain:
            yield f"{profession.ordre_domain}.ordre.mssante.invalid", f"Ordre : {profession.label}", ordres
    for town in TOWNS[: plan.organisations or None]:
        yield _hospital_domain(town), f"CHU fictif de {town[3].title()}", hospitals
    for rank in range(plan.own_domains):
        # Operators differ as much in size as towns do.
        number = int(MOST_OPERATORS * dice_of(plan.seed, "operator", rank).random() ** 3)
        operator = _operator(f"mss.operateur{number}.invalid", 4 + number, f"OPERATEUR FICTIF {number}")
        yield _own_domain(rank), f"Établissement fictif {rank}", operator
    yield "medico-social.mssante.invalid", "Établissements et professions sans Ordre", medico_social
    # The real list has both: a domain under two operators, and domains in Unicode.
    yield "medico-social.mssante.invalid", "Reprise en cours", hospitals
    yield "santé-exemple.mssante.invalid", "Domaine fictif", medico_social


def _operator(host: str, number: int, name: str) -> str:
    return f"CN={host},OU=3{siret_of(90000 + number)},O={name},ST=Doubs (25),C=FR"


def write_trusted_domains(plan: Plan, path: Path) -> None:
    """The white list."""
    entries = "".join(
        f"    <Domaine><Nom>{escape(name)}</Nom><Description>{escape(what)}</Description>\n"
        f"      <DNCertificatOperateur>{escape(operator)}</DNCertificatOperateur>\n"
        "      <ResponsableContact>0300000000, resp@exemple.invalid</ResponsableContact>"
        "<SupportContact>support@exemple.invalid</SupportContact>\n"
        "      <DateMAJ>2026-03-01T08:00:00Z</DateMAJ></Domaine>\n"
        for name, what, operator in trusted(plan)
    )
    path.write_text(
        '<ListeBlancheMSSante xmlns="https://listeblanche.mssante.fr/schema">\n'
        f"  <DateDeGeneration>{plan.written_on.isoformat()}T00:15:00Z</DateDeGeneration>\n"
        f"  <ListeDomaines>\n{entries}  </ListeDomaines>\n</ListeBlancheMSSante>\n",
        encoding="utf-8",
    )


def make(folder: Path, plan: Plan) -> dict[str, Path]:
    """Write the four files of one day below `folder`; their paths by register name."""
    most = MOST_AT_NATIONAL_SIZE if plan.national else MOST_ORGANISATIONS
    if plan.organisations > most:
        raise ValueError(f"at most {most} organisations have numbers to spare")
    folder.mkdir(parents=True, exist_ok=True)
    day = f"{plan.written_on:%Y%m%d}"
    people_file = "Extraction_ProSanteConnect" if plan.psc else "PS_LibreAcces"
    places_file = f"etalab-cs1100502-stock-{day}-0338.csv"
    paths = {
        "rpps": folder / f"{people_file}_{day}0200.zip",
        "finess": folder
        / (f"finess-structures-journalier-{day}.json.gz" if plan.finess_json else places_file),
        "mailboxes": folder / f"Extraction_Correspondance_MSSante_{day}0213.zip",
        "trusted-domains": folder / "listeblanchemssante.xml",
    }
    (write_psc if plan.psc else write_rpps)(plan, paths["rpps"], f"{day}0200")
    (write_finess_json if plan.finess_json else write_finess)(plan, paths["finess"])
    write_mailboxes(plan, paths["mailboxes"], f"{day}0213")
    write_trusted_domains(plan, paths["trusted-domains"])
    return paths


def share(text: str) -> float:
    """'0.5%' or '0.005'."""
    value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError("a share lies between 0% and 100%")
    return value


def size(text: str) -> int:
    """A number from 0 up."""
    if (value := int(text)) < 0:
        raise argparse.ArgumentTypeError("a size is not negative")
    return value


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--practitioners", type=size, default=Plan.practitioners)
    parser.add_argument("--organisations", type=size, default=Plan.organisations)
    parser.add_argument("--mailboxes", type=size, default=Plan.mailboxes)
    parser.add_argument(
        "--domains", type=size, default=0, help="entries of the list of trusted domains; 0: as few as need be"
    )
    parser.add_argument("--seed", type=int, default=Plan.seed)
    parser.add_argument(
        "--day", type=date.fromisoformat, default=DEFAULT_DAY, help="the first day, YYYY-MM-DD"
    )
    parser.add_argument("--next-day", action="store_true", help="the files of the day after --day")
    parser.add_argument("--arrivals", type=share, default=Plan.arrivals)
    parser.add_argument("--moves", type=share, default=Plan.moves)
    parser.add_argument("--departures", type=share, default=Plan.departures)
    parser.add_argument(
        "--columns", type=int, choices=(OLD_WIDTH, len(ACTIVITY_COLUMNS)), default=Plan.columns
    )
    parser.add_argument("--psc", action="store_true", help="the restricted extraction, not the public one")
    parser.add_argument("--finess-json", action="store_true", help="the daily JSON, not the frozen CSV")
    parser.add_argument(
        "--without", action="append", default=[], metavar="NATIONAL_ID", help="leave this person out"
    )
    return parser


def main() -> int:
    """Write the files; print their paths by register as one JSON object."""
    given = vars(arguments().parse_args())
    folder, given["without"] = given.pop("folder"), frozenset(given["without"])
    print(json.dumps({register: str(path) for register, path in make(folder, Plan(**given)).items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What the record holds and nobody outside may read: numbers of social security, birth dates, home addresses.

A public directory is no place for them, and registers carry them all the same: in a name, a service, a
street. Every person, place and mailbox that is read passes here (`store.py`), so that no channel can forget
it. The field is held back, never the person: a name gives way to the record's own number. Only where the
number or the address itself is such a value, its bearer is not shown. A check of the exact address still
answers.

Pure. Who is told is for `pki/monitoring/privacy_watch.py`. Numbers of registers and of telephones are none of
these: RPPS (11 digits), ADELI and FINESS (9), SIRET (14), surgeries (4, RPPS, rank), telephones (10).
"""

import re
from calendar import monthrange
from collections.abc import Iterable, Mapping
from dataclasses import replace
from enum import Enum
from unicodedata import decimal, normalize

from directory.identifiers import luhn_ok
from directory.model import Mailbox, Organisation, Practice, Practitioner


class Secret(Enum):
    """What must not be published."""

    SOCIAL_SECURITY_NUMBER = "social-security-number"
    BIRTH_DATE = "birth-date"
    PRIVATE_ADDRESS = "private-address"


# What nobody sees between two characters: soft hyphens, joiners, marks of direction (category Cf), and marks
# that Unicode says to ignore.
_UNSEEN = re.compile(
    "[\u00ad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180b-\u180e\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\ufe00-\ufe0f\ufeff\ufff9-\ufffb\U000110bd\U000110cd\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0001-\U000e01ef]"
)
# None of the others changes in what follows; nearly all texts have only them.
_UNUSUAL = re.compile("[^\n -~\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u00ff\u2019]")
_DASHES = re.compile("[\u2010-\u2015\u2212]")
# Fillers of scripts too: nobody sees that they are none.
_BLANKS = re.compile("[^\\S\n ]|[\u115f\u1160\u2800]")
_OTHER_DIGITS = re.compile(r"(?![0-9])\d")
# Between the parts of a number as people write it, or nothing. A slash or a comma parts two numbers too
# (FINESS/internal number): it counts only where every part stands apart.
_GAP = "[ ._-]{0,3}"
_APART = r"[^0-9A-Za-z\n]{1,3}"
# NIR and INS: sex, year, month, department or 2A, 2B, commune, order, and the key. An unknown month is 20 to
# 42 or 50 to 99. Digits in a row beyond are another number's; a key apart may be no key at all.
_PARTS = ("(?<![0-9])([1-478])", r"(\d\d)", r"(0[1-9]|1[0-2]|[2-3]\d|4[0-2]|[5-9]\d)",
          r"(\d\d|2[ABab])", r"(\d{3})", r"(\d{3})")  # fmt: skip
_NIR = re.compile(_GAP.join(_PARTS) + rf"(?:({_GAP})(\d\d))?(?![0-9])", re.ASCII)
_NIR_APART = re.compile(_APART.join(_PARTS) + "(?![0-9])", re.ASCII)
# Parted anywhere, as 155 047 512 304 595: then the key must be right, and nothing else be in the row.
_NIR_ANYHOW = re.compile(
    r"(?<![0-9])(?<![0-9][ ._-])[1-478](?:[ ._-]?\d){5}[ ._-]?[0-9ABab](?:[ ._-]?\d){8}(?![ ._-]?[0-9])",
    re.ASCII,
)
_GAPS = re.compile("[ ._-]")
# The computed INS of before 2021: twenty digits and a key of two.
_INS_C = re.compile(r"(?<![0-9])(\d{20})(\d\d)(?![0-9])", re.ASCII)
_SIGN = r" {0,2}([/.,_-]) {0,2}"
_DAY_FIRST = re.compile(
    rf"(?<![0-9])(\d{{1,2}})(?:{_SIGN}(\d{{1,2}}) {{0,2}}\2 {{0,2}}| {{1,2}}(\d{{1,2}}) {{1,2}})"
    r"(\d{4})(?![0-9])",
    re.ASCII,
)
_YEAR_FIRST = re.compile(
    rf"(?<![0-9])(\d{{4}}){_SIGN}(\d{{1,2}}) {{0,2}}\2 {{0,2}}(\d{{1,2}})(?![0-9])", re.ASCII
)
_MONTHS = ("jan", "f[eé]v", "mar", "avr", "mai", "juin", "juil", "ao[uû]", "sep", "oct", "nov", "d[eé]c")
_MONTH = re.compile("|".join(f"({month})" for month in _MONTHS))
_IN_WORDS = re.compile(
    r"(?i)(?<![0-9])(\d{1,2})(?:er)?[ ./-]{0,3}"
    r"(janv(?:ier)?|f[eé]v(?:r(?:ier)?)?|mars|avr(?:il)?|mai|juin|juil(?:let)?|ao[uû]t|sept(?:embre)?"
    r"|oct(?:obre)?|nov(?:embre)?|d[eé]c(?:embre)?)[ ./-]{0,3}([0-9]{4})(?![0-9])"
)
_BORN = re.compile(r"(?i)\bn[ée](?:e|[ (./\u2022\u00b7-]{1,2}e\)?)? {1,3}le {1,3}\d")
# A street may be called by a day: RUE DU 19/03/1962. A day in words may give its name to anything: CABINET DU
# 8 MAI 1945, and to a street without the article.
_NAMED_AFTER = re.compile(r"(?i)\b(?:du|de|le)\s*$")
_COMMEMORATED = frozenset(((1918, 11, 11), (1940, 6, 18), (1944, 6, 6), (1945, 5, 8), (1962, 3, 19)))
_EIGHT = re.compile(r"(?<![0-9])(\d{8})(?![0-9])", re.ASCII)
# In a field the eight digits stand alone: beside others they are a part of a number written in groups.
_EIGHT_ALONE = re.compile(r"(?<![0-9])(?<![0-9][ .-])(\d{8})(?![0-9]|[ .-]\d)", re.ASCII)
# Whoever published today is born in these years; a full date of another is something else.
_FIRST_YEAR, _LAST_YEAR = 1910, 2099
# Eight digits in a row say nothing by themselves: only where they can be the birth of somebody grown up.
_LAST_GROWN_UP = 2012
_MAIL = re.compile(r"[^\s@<>]@([A-Za-z0-9.-]+\.[A-Za-z]{2,})")
# Streets that say themselves that somebody lives there. A hamlet may be called CHEZ RAGON: after LIEU DIT or
# a number it is one. Post goes care of a clinic too.
_CIVILITY = r"(?:m|mr|mme|mlle|monsieur|madame|mademoiselle|dr|docteur)\b"
_CARE_OF = "(?:chez|c ?/ ?o) +"
_HOME = re.compile(
    rf"(?i)\b{_CARE_OF}{_CIVILITY}"
    rf"|^ *{_CARE_OF}(?!(?:cabinet|centre|chr?u?|clinique|ehpad|h[oô]pital|maison|pharmacie)\b)\w"
    r"|\b(?:adresse|domicile) +(?:personnel(?:le)?|priv[ée]e?)\b|\b(?:à|a|au) +(?:son +|mon +)?domicile\b"
    r"|^domicile\b"
)
# What any of the above has in it. Nearly nothing has, and to see that must take next to no time: each address
# of a check of 10,000 passes here.
_DIGITS = re.compile(
    r"\d(?:\d{7}|2[ABab]\d{3}|[^0-9A-Za-z\n]{1,5}\d"
    r"|(?:er|ER|Er)?[ ./-]{0,3}[A-Za-zéÉûÛ]{3,9}[ ./-]{0,3}\d{4})",
    re.ASCII,
)
_HOME_WORDS = ("chez ", "c/o", "c /", "c/ ", "domicile", "adresse p")
_A_DIGIT = re.compile("[0-9]")
_NOT_OF_A_NUMBER = re.compile("[^0-9A-Za-z]+")
# Where people have their private mail. The domains of the trust space are none of these.
PERSONAL_DOMAINS = frozenset(
    ("aol.com", "bbox.fr", "club-internet.fr", "free.fr", "gmail.com", "gmx.com", "gmx.fr", "googlemail.com",
     "hotmail.com", "hotmail.fr", "icloud.com", "laposte.net", "live.com", "live.fr", "mac.com", "me.com",
     "msn.com", "neuf.fr", "numericable.fr", "orange.fr", "outlook.com", "outlook.fr", "proton.me",
     "protonmail.com", "sfr.fr", "wanadoo.fr", "yahoo.com", "yahoo.fr", "ymail.com")
)  # fmt: skip
_SHORTEST = 13
_OF_A_SURGERY = 15
_DECEMBER = 12
_ADDRESS = "address"
_STREET = "street"
Withheld = tuple[tuple[str, str], ...]


def secrets_in(text: str, *, is_street: bool = False) -> frozenset[Secret]:
    """What of this may not be published; empty for nearly every text."""
    secrets = set()
    text = _as_seen(text)
    if _is_suspect(text):
        if _has_number(text):
            secrets.add(Secret.SOCIAL_SECURITY_NUMBER)
        if _BORN.search(text) or any(_dates(text, is_street=is_street)):
            secrets.add(Secret.BIRTH_DATE)
        if any(map(_is_personal, _MAIL.findall(text))):
            secrets.add(Secret.PRIVATE_ADDRESS)
    if is_street and _HOME.search(text):
        secrets.add(Secret.PRIVATE_ADDRESS)
    return frozenset(secrets)


def secrets_in_address(address: str) -> frozenset[Secret]:
    """The same of a mailbox's own address: in what stands before the @; a number or private domain after."""
    local, _, domain = _as_seen(address).rpartition("@")
    secrets = set()
    if _is_personal(domain):
        secrets.add(Secret.PRIVATE_ADDRESS)
    local, domain = (_NOT_OF_A_NUMBER.sub(".", part) for part in (local, domain))
    if _has_number(local) or _has_number(domain):
        secrets.add(Secret.SOCIAL_SECURITY_NUMBER)
    elif any(_dates(local)) or any(map(_is_birthday, _EIGHT.findall(local))):
        secrets.add(Secret.BIRTH_DATE)
    return frozenset(secrets)


def secrets_in_subject(subject: str, address: str | None) -> frozenset[Secret]:
    """The same of a certificate's subject (RFC 4514), which may name the mailbox that it is of."""
    # Without the marks of escapes: neither the address nor a number is another for them.
    plain = subject.replace("\\", "")
    return secrets_in(plain.replace(address, "") if address else plain)


def secrets_in_number(number: str) -> frozenset[Secret]:
    """The same of a number of a register: digits of a social-security number, in a row."""
    return frozenset(
        {Secret.SOCIAL_SECURITY_NUMBER} if len(number) >= _SHORTEST and _has_number(number) else ()
    )


def of_person(person: Practitioner) -> Practitioner:
    """The person as he may be shown; the same object where nothing is to be held back."""
    texts = [person.title, person.family_name, person.given_name]
    texts += [name for names in person.other_names for name in names]
    for practice in person.practices:
        texts += [practice.structure_name, practice.street, practice.town, practice.postal_code]
    streets = [practice.street for practice in person.practices]
    numbers = [person.national_id, *(practice.structure_id for practice in person.practices)]
    if not _suspect(texts, streets, numbers):
        return person
    told: dict[str, frozenset[Secret]] = {
        "national_id": secrets_in_number(person.national_id),
        **{name: secrets_in(getattr(person, name)) for name in ("title", "family_name", "given_name")},
        "other_names": _of_all(name for names in person.other_names for name in names),
    }
    practices = tuple(_practice(practice, told) for practice in person.practices)
    hidden = {name: "" for name in ("title", "given_name") if told[name]}
    if told["family_name"]:
        hidden["family_name"] = person.national_id
    if told["other_names"]:
        person = replace(person, other_names=())
    return replace(person, practices=practices, withheld=_withheld(told), **hidden)  # type: ignore[arg-type]


def of_place(place: Organisation) -> Organisation:
    """The establishment as it may be shown; the same object where nothing is to be held back."""
    names = ("name", "long_name", "category_label", "street", "postal_line")
    if not _suspect([getattr(place, name) for name in names], [place.street], ()):
        return place
    told = {name: secrets_in(getattr(place, name), is_street=name == _STREET) for name in names}
    hidden = {name: place.finess if name == "name" else "" for name in names if told[name]}
    return replace(place, withheld=_withheld(told), **hidden)  # type: ignore[arg-type]


def of_mailbox(mailbox: Mailbox) -> Mailbox:
    """The mailbox as it may be shown; the same object where nothing is to be held back."""
    address = _as_seen(mailbox.address)
    parted = _NOT_OF_A_NUMBER.sub(".", address) if _A_DIGIT.search(address) else ""
    texts = (mailbox.structure_name, mailbox.service, parted)
    if not _is_personal(address.rpartition("@")[2]) and not _suspect(texts, (), [mailbox.structure_id]):
        return mailbox
    told = {
        _ADDRESS: secrets_in_address(mailbox.address),
        "structure_id": secrets_in_number(mailbox.structure_id),
        **{name: secrets_in(getattr(mailbox, name)) for name in ("structure_name", "service")},
    }
    hidden = {name: "" for name in ("structure_name", "service") if told[name]}
    return replace(mailbox, withheld=_withheld(told), **hidden)  # type: ignore[arg-type]


def is_shown(of: Mailbox | Practitioner) -> bool:
    """Whether it may be found at all: not where its own number or address is what must not be published."""
    return not any(field in {_ADDRESS, "national_id", "structure_id"} for field, _ in of.withheld)


def _practice(practice: Practice, told: dict[str, frozenset[Secret]]) -> Practice:
    by_field = {
        "structure_id": secrets_in_number(practice.structure_id),
        **{
            name: secrets_in(getattr(practice, name), is_street=name == _STREET)
            for name in ("structure_name", _STREET, "town", "postal_code")
        },
    }
    for name, secrets in by_field.items():
        told[f"practices.{name}"] = told.get(f"practices.{name}", frozenset()) | secrets
    hidden = {name: "" for name, secrets in by_field.items() if secrets}
    return replace(practice, **hidden) if hidden else practice


def _suspect(texts: Iterable[str], streets: Iterable[str], numbers: Iterable[str]) -> bool:
    # A line each, so that two fields never make one number.
    if _is_suspect(_as_seen("\n".join(texts))):
        return True
    lived_in = _as_seen("\n".join(streets)).lower()
    return any(word in lived_in for word in _HOME_WORDS) or any(
        len(number) >= _SHORTEST and _has_number(number) for number in numbers
    )


def _as_seen(text: str) -> str:
    """The text as a reader takes it: one form of digits, accents, dashes and blanks; nothing unseen."""
    if (text.isascii() and text.isprintable()) or not _UNUSUAL.search(text):
        return text
    text = _OTHER_DIGITS.sub(lambda match: str(decimal(match[0])), normalize("NFKC", text))
    return _BLANKS.sub(" ", _DASHES.sub("-", _UNSEEN.sub("", text)))


def _is_personal(domain: str) -> bool:
    """Whether the domain is a personal mail service's, or below it."""
    domain = domain.lower()
    while domain and domain not in PERSONAL_DOMAINS:
        domain = domain.partition(".")[2]
    return bool(domain)


def _is_suspect(text: str) -> bool:
    if _DIGITS.search(text) is not None or "@" in text:
        return True
    low = text.lower()
    return " le " in low and _BORN.search(low) is not None


def _of_all(texts: Iterable[str]) -> frozenset[Secret]:
    return frozenset(secret for text in texts for secret in secrets_in(text))


def _withheld(told: Mapping[str, frozenset[Secret]]) -> Withheld:
    return tuple(
        (field, secret.value) for field, secrets in told.items() for secret in sorted(secrets, key=str)
    )


def _has_number(text: str) -> bool:
    if _NIR_APART.search(text):
        return True
    whole = (_NIR.fullmatch(_GAPS.sub("", run)) for run in _NIR_ANYHOW.findall(text))
    matches = [
        match for match in (*_NIR.finditer(text), *whole) if match and not _is_of_a_surgery(match.group())
    ]
    return any(_is_nir(*match.groups()) for match in matches) or any(
        int(key) == 97 - int(body) % 97 for body, key in _INS_C.findall(text)
    )


def _is_of_a_surgery(number: str) -> bool:
    """Whether it is a surgery's: 4 (TRE_G07), the RPPS number of its owner with its check digit, its rank."""
    return len(number) == _OF_A_SURGERY and number[0] == "4" and number.isdigit() and luhn_ok(number[1:12])


def _is_nir(*parts: str | None) -> bool:
    """Whether the key is right; without one, the form alone says it."""
    *body, gap, key = parts
    if key is None or gap:
        return True
    department = (body[3] or "").upper()
    counted = {"2A": "19", "2B": "18"}.get(department, department)
    number = int("".join([*(part or "" for part in body[:3]), counted, *(part or "" for part in body[4:])]))
    return int(key) == 97 - number % 97


def _dates(text: str, *, is_street: bool = False) -> Iterable[bool]:
    for match in _DAY_FIRST.finditer(text):
        day, _, month, month_after_a_blank, year = match.groups()
        named = is_street and _NAMED_AFTER.search(text[: match.start()]) is not None
        yield not named and _is_date(int(year), int(month or month_after_a_blank), int(day))
    for match in _YEAR_FIRST.finditer(text):
        year, _, month, day = match.groups()
        yield _is_date(int(year), int(month), int(day))
    yield from map(_is_birthday, _EIGHT_ALONE.findall(text))
    for match in () if is_street else _IN_WORDS.finditer(text):
        date = int(match[3]), _month(match[2]), int(match[1])
        yield _is_date(*date) and date not in _COMMEMORATED and not _NAMED_AFTER.search(text[: match.start()])


def _month(name: str) -> int:
    match = _MONTH.match(name.lower())
    return match.lastindex or 0 if match else 0


def _is_birthday(digits: str) -> bool:
    day_first = int(digits[4:]), int(digits[2:4]), int(digits[:2])
    year_first = int(digits[:4]), int(digits[4:6]), int(digits[6:])
    return any(_is_date(*date, last=_LAST_GROWN_UP) for date in (day_first, year_first))


def _is_date(year: int, month: int, day: int, last: int = _LAST_YEAR) -> bool:
    return _FIRST_YEAR <= year <= last and 1 <= month <= _DECEMBER and 1 <= day <= monthrange(year, month)[1]

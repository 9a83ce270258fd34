"""Ceremony files for tests, and the two machines of an offline ceremony in folders of the test."""

from pathlib import Path

from pki.ceremony.plan import Place, Plan, read
from pki.ceremony.signing import KeyRing
from pki.signing.file import FileKeys

EVERY = ("persons", "organisations", "servers")
BASE_URL = "http://trust.example"
PASSPHRASE = b"correct horse battery staple"
NATIONAL = Path(__file__).resolve().parents[2] / "pki" / "ceremony" / "national.toml"


def generation(
    number: int,
    *,
    place: str = "file",
    roots_only: bool = False,
    form: str = "national",
    roles: tuple[str, ...] = ("persons", "organisations"),
) -> str:
    """The tables of one generation: a root, and a CA of each role below it."""
    tables = [_table("root", number, place, "Root", "P-384", 9125, "shards = 1", None)]
    if not roots_only:
        # As the documents advise: a CA for servers revokes little.
        crls = dict.fromkeys(roles, "shards = 16" if form == "national" else 'crl = "plain"')
        crls |= {"servers": 'crl = "plain"'}
        tables += [
            _table(role, number, "file", role.title(), "P-256", 4380, crls[role], f"root-{number}")
            for role in roles
        ]
    return "".join(tables)


def cross(subject: str, issuer: str, days: int = 3650) -> str:
    return f'[[cross]]\nsubject = "{subject}"\nissuer = "{issuer}"\ndays = {days}\n\n'


BRIDGES = cross("root-2", "root-1") + cross("root-1", "root-2")


def file(*tables: str, title: str = "Test", present: str = '["Alice", "Bob"]') -> bytes:
    head = f'[ceremony]\ntitle = "{title}"\npresent = {present}\nbase_url = "{BASE_URL}"\n\n'
    return (head + "".join(tables)).encode()


def plan(*tables: str) -> Plan:
    return read(file(*tables))


def ring(folder: Path, place: Place = Place.FILE) -> KeyRing:
    return KeyRing({place: FileKeys(folder, PASSPHRASE)})


def _table(  # noqa: PLR0917 - a row of a table
    role: str, number: int, place: str, name: str, curve: str, days: int, crl: str, issuer: str | None
) -> str:
    under = "" if issuer is None else f'issuer = "{issuer}"\n'
    return (
        f'[[authority]]\nid = "{role}-{number}"\nrole = "{role}"\ngeneration = {number}\n'
        f'subject = "Sceau {name} CA {number}"\ncurve = "{curve}"\n{under}'
        f'key = {{ name = "{role}-{number}", place = "{place}" }}\ndays = {days}\n{crl}\n\n'
    )

"""Rows to test upon, written straight into the tables: one person or one establishment with all it rests on.

Rows that a register file, an enrolment or a command would have brought are put there without them. So a test
of one part needs no other. Each factory commits; numbers are Luhn-valid and invented.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from sqlalchemy import Connection, Engine, text

OPERATOR = "CN=operator.example,O=Demo operator,C=FR"
LONG_AGO = datetime(2026, 1, 5, 8, tzinfo=UTC)


@dataclass(frozen=True)
class Seeded:
    """What was made: a person and the address of the mailbox (theirs, or the establishment's)."""

    national_id: str
    mailbox: str


def rpps(number: int) -> str:
    """The national id of the n-th invented person (n below 100,000), key right: rpps(1) is 810099000019."""
    body = f"10099{number:05d}"
    doubled = (int(digit) * (2 if place % 2 == 0 else 1) for place, digit in enumerate(reversed(body)))
    check = -sum(value // 10 + value % 10 for value in doubled) % 10
    return f"8{body}{check}"


def seed_practitioner(
    engine: Engine,
    number: int = 1,
    *,
    family_name: str = "MARTIN",
    given_name: str = "Camille",
    professions: Sequence[tuple[str, str]] = (("10", "C"),),
    practising: bool = True,
    finess: str = "",
    address: str = "",
    listed: bool = True,
    operator: str = OPERATOR,
) -> Seeded:
    """A person (doctor by default), a practice for each profession, a personal mailbox in a trusted domain.

    `address` defaults to `person-<number>@one.example`; `finess` is where the practices are.
    """
    made = Seeded(rpps(number), address or f"person-{number}@one.example")
    with engine.begin() as connection:
        _trust(connection, made.mailbox.partition("@")[2], operator)
        connection.execute(
            text(
                "INSERT INTO practitioner (national_id, id_type, id_number, title, family_name, given_name,"
                " search_name, row_hash) VALUES (:id, '8', :number, 'DR', :family, :given, :search, '')"
            ),
            {"id": made.national_id, "number": made.national_id[1:], "family": family_name,
             "given": given_name, "search": f"{family_name} {given_name}".upper()},
        )  # fmt: skip
        for code, category in professions:
            _practise(connection, made.national_id, code, category, finess, practising=practising)
        connection.execute(
            text(
                "INSERT INTO mailbox (address, kind, holder, listed, row_hash)"
                " VALUES (:address, 'PER', :holder, :listed, '')"
            ),
            {"address": made.mailbox, "holder": made.national_id, "listed": listed},
        )
    return made


def seed_organisation(
    engine: Engine,
    finess: str = "750990012",
    *,
    name: str = "CLINIQUE DES LILAS",
    address: str = "",
    service: str = "",
    operator: str = OPERATOR,
) -> str:
    """An open establishment with one organisation mailbox in a trusted domain; gives the address."""
    address = address or f"contact-{finess}@two.example"
    with engine.begin() as connection:
        _trust(connection, address.partition("@")[2], operator)
        connection.execute(
            text(
                "INSERT INTO organisation (finess, name, department, row_hash)"
                " VALUES (:finess, :name, '75', '') ON CONFLICT DO NOTHING"
            ),
            {"finess": finess, "name": name},
        )
        connection.execute(
            text(
                "INSERT INTO mailbox"
                " (address, kind, structure_type, structure_id, structure_name, service, row_hash)"
                " VALUES (:address, 'ORG', '1', :finess, :name, :service, '')"
            ),
            {"address": address, "finess": finess, "name": name, "service": service},
        )
    return address


def seed_token(
    engine: Engine, name: str = "registrar-a", *, role: str = "registrar", authority: str = "CNOM"
) -> int:
    """An API token (its secret: `sceau_` and its name), live for a year from 2026-01-05; gives its id."""
    with engine.begin() as connection:
        return int(
            connection.execute(
                text(
                    "INSERT INTO api_token (name, secret_hash, role, authority, created_at, expires_at)"
                    " VALUES (:name, :hash, :role, :authority, :made, :ends) RETURNING id"
                ),
                {"name": name, "hash": sha256(f"sceau_{name}".encode()).digest(), "role": role,
                 "authority": authority if role == "registrar" else "", "made": LONG_AGO,
                 "ends": LONG_AGO + timedelta(days=365)},
            ).scalar_one()
        )  # fmt: skip


def clock(engine: Engine) -> datetime:
    """The database's clock: the past is asked in its terms."""
    with engine.connect() as connection:
        return connection.execute(text("SELECT clock_timestamp()")).scalar_one().astimezone(UTC)


def depart(engine: Engine, national_id: str, at: datetime) -> None:
    """What the register's next day does to someone it no longer holds."""
    with engine.begin() as connection:
        gone = {"at": at, "id": national_id}
        connection.execute(text("UPDATE practitioner SET departed_at = :at WHERE national_id = :id"), gone)


def _trust(connection: Connection, domain: str, operator: str) -> None:
    connection.execute(
        text(
            "INSERT INTO operator (certificate_dn, name) VALUES (:dn, 'Demo operator') ON CONFLICT DO NOTHING"
        ),
        {"dn": operator},
    )
    connection.execute(
        text(
            "INSERT INTO trusted_domain (name, operator_id, row_hash)"
            " SELECT :domain, id, '' FROM operator WHERE certificate_dn = :dn ON CONFLICT DO NOTHING"
        ),
        {"domain": domain, "dn": operator},
    )


def _practise(
    connection: Connection, national_id: str, code: str, category: str, finess: str, *, practising: bool
) -> None:
    row = {"id": national_id, "code": code, "category": category, "finess": finess,
           "digest": sha256(f"{national_id}{code}{finess}".encode()).digest()[:16]}  # fmt: skip
    connection.execute(
        text("INSERT INTO profession (national_id, code, category) VALUES (:id, :code, :category)"), row
    )
    if practising:
        connection.execute(
            text(
                "INSERT INTO practice"
                " (national_id, digest, profession_code, category, finess, department, registered_by)"
                " VALUES (:id, :digest, :code, :category, :finess, '75', 'CNOM/CNOM/75')"
            ),
            row,
        )

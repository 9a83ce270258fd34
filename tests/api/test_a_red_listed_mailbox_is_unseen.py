"""Red-listed means unseen: over every channel, from any place in the feed, in the exports of before.

Only a check of the exact address answers. What shows of a listed mailbox is asked by the same questions, so
that silence is never for want of asking.
"""

import base64
import gzip
import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import pytest
from flask import Flask
from sqlalchemy import Connection, Engine, text

from api import exports
from api.app import create_app
from api.jobs import due_within, run_job
from api.wiring import Container
from directory.base.db import transaction
from directory.changes import Entity
from directory.ldap.wanted import Record
from directory.red_list import opaque_key, secret_of_keys
from pki import published
from tests.api.certificates import certify, take_back
from tests.api.conftest import Caller
from tests.factories import Seeded, depart, rpps, seed_organisation, seed_practitioner

HOSPITAL = "750990012"
PEOPLE = 5
AS_PEM = {"Accept": "application/pem-certificate-chain"}


@pytest.fixture
def container(issuing: Container) -> Container:
    return issuing


@pytest.fixture
def app(container: Container) -> Flask:
    return create_app(container)


@dataclass
class Country:
    """Some people with mailboxes and certificates, whom things befall, and all that a stranger may ask."""

    operator: Caller
    container: Container
    now: datetime
    people: list[Seeded] = field(default_factory=list)
    serials: dict[str, str] = field(default_factory=dict)
    cursors: list[str] = field(default_factory=list)
    stamps: list[str] = field(default_factory=list)
    taken_back: int = 0

    def settle(self) -> None:
        engine = self.container.engine
        seed_organisation(engine, HOSPITAL)
        for number in range(1, PEOPLE + 1):
            someone = seed_practitioner(engine, number, address=f"secret{number}@d{number}.example")
            self.people.append(someone)
            issued = self.now - timedelta(days=340)
            self.serials[someone.mailbox] = certify(engine, someone.mailbox, issued, number=number)

    def do(self, statement: str, **values: object) -> None:
        with self.container.engine.begin() as connection:
            connection.execute(text(statement), values)

    def put(self, someone: Seeded, *, listed: bool) -> None:
        self.do("UPDATE mailbox SET listed = :to WHERE address = :a", to=listed, a=someone.mailbox)

    def red_listed(self) -> set[str]:
        with self.container.engine.connect() as connection:
            return set(connection.execute(text("SELECT address FROM mailbox WHERE NOT listed")).scalars())

    def befall(self, chance: random.Random) -> None:
        someone = chance.choice(self.people)
        what = chance.randrange(6)
        if what < 3:
            self.put(someone, listed=what == 0)
        elif what == 3:
            depart(self.container.engine, someone.national_id, self.now)
        elif what == 4:
            self.do(
                "UPDATE practitioner SET title = title || 'x' WHERE national_id = :i", i=someone.national_id
            )
        elif (serial := self.serials[someone.mailbox]) and self.taken_back < 2:
            self.taken_back += 1
            take_back(self.container.engine, serial, self.now, action="hold", reason="certificateHold")

    def export(self) -> None:
        later = self.now + timedelta(seconds=len(self.stamps))
        made = exports.write(replace(self.container, clock=lambda: later))
        assert made is not None
        self.stamps.append(made.stamp)

    def mark(self) -> None:
        """Remember this place of the feed, as a reader does."""
        answer = self.operator.get("/v1/changes", limit=5000, keys="opaque")
        self.cursors.append(json.loads(answer.text.splitlines()[-1])["next"])

    def told(self) -> Iterator[tuple[str, str]]:
        """Each channel by name, with all it says."""
        yield from self.of_certificates()
        yield from self.of_copies()
        yield from self.of_the_rest()
        yield "LDAP", self.ldap()

    def of_certificates(self) -> Iterator[tuple[str, str]]:
        get = self.operator.get
        for serial in self.serials.values():
            path = f"/v1/certificates/{serial}"
            yield path, get(path).text
            headers = {**self.operator.headers, **AS_PEM}
            yield f"{path} in PEM", self.operator.client.get(path, headers=headers).text
            yield f"{path}/history", get(f"{path}/history").text
            for act in ("revocation", "release", "reason"):
                asked = {"reason": "superseded", "comment": "tried"}
                yield f"{path}/{act}", self.operator.post(f"{path}/{act}", asked).text

    def of_copies(self) -> Iterator[tuple[str, str]]:
        get = self.operator.get
        for cursor in (None, *self.cursors):
            for keys in ("plain", "opaque"):
                query = {"keys": keys, "limit": 5000} | ({} if cursor is None else {"cursor": cursor})
                yield f"changes {keys} from {cursor}", get("/v1/changes", **query).text
        yield "exports", get("/v1/exports").text
        for stamp in ("latest", *self.stamps):
            for file in (
                "mailboxes.ndjson.gz",
                "mailboxes.csv.gz",
                "practitioners.ndjson.gz",
                "manifest.json",
            ):
                with get(f"/v1/exports/{stamp}/{file}") as answer:
                    is_zip = answer.status_code == 200 and file.endswith(".gz")
                    octets = gzip.decompress(answer.data) if is_zip else answer.data
                yield f"{stamp}/{file}", octets.decode()

    def of_the_rest(self) -> Iterator[tuple[str, str]]:
        get, stranger = self.operator.get, Caller(self.operator.client)
        for someone in self.people:
            yield "person", get(f"/v1/practitioners/{someone.national_id}").text
        for path in ("/v1/practitioners", "/v1/organisations"):
            yield path, get(path, name="martin" if "pract" in path else "clinique", department="75").text
        yield "place", get(f"/v1/organisations/{HOSPITAL}").text
        for path in ("/v1/expiring", "/v1/attention", "/v1/corrections", "/v1/enrolments"):
            yield path, get(path).text
        for path in (
            "/v1/trust-list",
            "/trust-list.xml",
            "/metrics",
            "/readyz",
            "/registers",
            "/openapi.json",
        ):
            yield path, stranger.get(path).text

    def ldap(self) -> str:
        def certificates_of(connection: Connection, addresses: Sequence[str]) -> dict[str, list[bytes]]:
            return published.live_certificates(connection, addresses, self.now)

        record = Record("dc=x", certificates_of, lambda _: (), lambda _, __: ())
        keys = [(Entity.MAILBOX, someone.mailbox) for someone in self.people]
        with transaction(self.container.engine, read_only=True) as connection:
            targets = record.wanted(connection, keys, self.now).targets
        return repr([target.entry for target in targets])


@pytest.fixture
def country(operator: Caller, container: Container, now: datetime) -> Country:
    made = Country(operator, container, now)
    made.settle()
    return made


@pytest.mark.parametrize("seed", range(3))
def test_red_listed_means_unseen_over_every_channel(seed: int, country: Country) -> None:
    chance = random.Random(seed)
    for _ in range(3):
        country.export()
        country.mark()
        for _ in range(5):
            country.befall(chance)
        country.put(chance.choice(country.people), listed=False)
        hidden = country.red_listed()
        secrets = [*hidden, *(_der(country.serials[address]) for address in hidden)]
        for channel, said in country.told():
            assert not [secret for secret in secrets if secret in said], channel
        for address in hidden:
            verdict = country.operator.get(f"/v1/recipients/{address}").get_json()
            assert "mailbox-unknown" not in verdict["reasons"]
        country.mark()
    # What stands before the list was told of by the same questions.
    for someone in country.people:
        country.do("UPDATE practitioner SET departed_at = NULL WHERE national_id = :i", i=someone.national_id)
        country.put(someone, listed=True)
    country.export()
    everything = "".join(said for _, said in country.told())
    for someone in country.people:
        assert everything.count(someone.mailbox) > 5


def test_exports_of_before_are_withdrawn_and_go_from_the_disk(country: Country, container: Container) -> None:
    country.export()
    (old,) = country.stamps
    assert country.operator.get(f"/v1/exports/{old}").status_code == 200
    country.put(country.people[0], listed=False)
    for path in (f"/v1/exports/{old}", f"/v1/exports/{old}/mailboxes.csv.gz", "/v1/exports/latest"):
        answer = country.operator.get(path)
        assert (answer.status_code, answer.get_json()["code"]) == (404, "unknown-export")
    assert answer.headers["Retry-After"] == "60"
    later = replace(container, clock=lambda: country.now + timedelta(minutes=1))
    done = run_job(later, "withdrawn-exports")
    (new,) = country.operator.get("/v1/exports").get_json()["items"]
    assert done == f"wrote {new['stamp']}, withdrew {old}"
    assert not (container.settings.exports / old).exists()
    assert exports.withdraw(container) == []
    assert exports.replace_withdrawn(later) == ""


def test_a_withdrawn_export_is_replaced_within_seconds(country: Country, container: Container) -> None:
    """Six red-listings an hour, each after a new export, left none for the whole hour."""
    assert due_within()["withdrawn-exports"] <= 2 * 60 + 10
    country.export()
    for minute, someone in enumerate(country.people, 1):
        country.put(someone, listed=False)
        assert country.operator.get("/v1/exports/latest").status_code == 404
        later = replace(container, clock=lambda m=minute: country.now + timedelta(minutes=m))
        run_job(later, "withdrawn-exports")
        assert country.operator.get("/v1/exports/latest").status_code == 200


def test_the_files_of_a_withdrawn_export_go_where_no_other_can_be_written(
    country: Country, container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    country.export()
    country.put(country.people[0], listed=False)
    monkeypatch.setattr(exports, "_seal", full)
    later = replace(container, clock=lambda: country.now + timedelta(minutes=1))
    with pytest.raises(OSError, match="No space"):
        exports.replace_withdrawn(later)
    assert list(container.settings.exports.iterdir()) == []


def test_who_finds_no_export_to_begin_from_is_told_when_to_ask_again(country: Country) -> None:
    country.mark()
    country.export()
    country.put(country.people[0], listed=False)
    (cursor,) = country.cursors
    answer = country.operator.get("/v1/changes", cursor=cursor)
    assert (answer.status_code, answer.get_json()["export"]) == (410, None)
    assert answer.headers["Retry-After"] == "60"
    country.export()
    answer = country.operator.get("/v1/changes", cursor=cursor)
    assert answer.get_json()["export"] == f"/v1/exports/{country.stamps[-1]}"
    assert "Retry-After" not in answer.headers


def test_who_held_a_red_listed_mailbox_removes_it_by_a_key_that_tells_nobody_else(
    country: Country, engine: Engine
) -> None:
    someone, other = country.people[:2]
    country.mark()
    country.put(someone, listed=False)
    (cursor,) = country.cursors
    with engine.connect() as connection:
        key = opaque_key(secret_of_keys(connection), someone.mailbox)
    *lines, ending = _lines(country.operator.get("/v1/changes", cursor=cursor, keys="opaque").text)
    assert [(line["act"], line["key"]) for line in lines] == [("remove", key)]
    # Nobody who comes later is told that it changes: his person's change would say whose it is.
    country.do("UPDATE practitioner SET title = 'PR' WHERE national_id = :i", i=someone.national_id)
    *lines, _ = _lines(country.operator.get("/v1/changes", cursor=ending["next"], keys="opaque").text)
    assert [(line["entity"], line["key"]) for line in lines] == [("practitioner", someone.national_id)]
    country.put(other, listed=False)
    country.put(other, listed=True)
    *lines, _ = _lines(country.operator.get("/v1/changes", cursor=ending["next"], keys="opaque").text)
    assert {line["act"] for line in lines} == {"put"}


def test_who_reads_plain_keys_begins_again_where_a_mailbox_was_red_listed(country: Country) -> None:
    country.mark()
    (cursor,) = country.cursors
    assert country.operator.get("/v1/changes", cursor=cursor).status_code == 200
    country.put(country.people[0], listed=False)
    answer = country.operator.get("/v1/changes", cursor=cursor)
    assert (answer.status_code, answer.get_json()["code"]) == (410, "cursor-expired")
    country.export()
    began = country.operator.get("/v1/exports/latest").get_json()["cursor"]
    country.do("UPDATE mailbox SET service = 'x' WHERE address = :a", a=country.people[0].mailbox)
    country.do("UPDATE mailbox SET departed_at = now() WHERE address = :a", a=country.people[1].mailbox)
    *lines, _ = _lines(country.operator.get("/v1/changes", cursor=began).text)
    assert [(line["act"], line["key"]) for line in lines] == [("remove", country.people[1].mailbox)]


def test_whose_a_certificate_is_is_hidden_by_role(country: Country, caller: Callable[..., Caller]) -> None:
    someone = country.people[0]
    path = f"/v1/certificates/{country.serials[someone.mailbox]}"
    country.put(someone, listed=False)
    shown = country.operator.get(path).get_json()
    assert [shown[name] for name in ("mailbox", "practitioner", "subject", "sha256", "der", "pem")] == [
        None
    ] * 6
    assert (shown["state"], shown["authority_id"]) == ("good", "persons-1")
    in_pem = country.operator.client.get(path, headers={**country.operator.headers, **AS_PEM})
    assert (in_pem.status_code, in_pem.get_json()["code"]) == (403, "holder-hidden")
    foreign = caller("registrar", name="foreign", authority="ONI").get(path).get_json()
    assert (foreign["mailbox"], foreign["der"]) == (None, None)
    for reader in (caller("registrar"), caller("auditor")):
        assert reader.get(path).get_json()["mailbox"] == someone.mailbox
    country.put(someone, listed=True)
    assert country.operator.get(path).get_json()["practitioner"] == rpps(1)


def _der(serial: str) -> str:
    return base64.b64encode(f"certificate {int(serial, 16)}".encode()).decode()


def _lines(answer: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in answer.splitlines()]

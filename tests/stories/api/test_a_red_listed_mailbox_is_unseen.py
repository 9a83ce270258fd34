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
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA1, Hash
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from flask import Flask
from sqlalchemy import Connection, Engine, text

from api.app import create_app
from api.jobs import exports, passphrases
from api.jobs import ocsp as ocsp_job
from api.jobs.table import due_within, run_job
from api.status.wsgi import StatusApplication
from api.wiring import Container
from directory.attention import Concern, Matter, keep
from directory.base.audit import Actor
from directory.base.db import transaction
from directory.feed.changes import Entity
from directory.ldap.wanted import Record
from directory.red_list import opaque_key, secret_of_keys
from pki.crl import publish as crl
from pki.publication import store as published
from pki.publication.export import TABLES
from tests.api.certificates import certify
from tests.api.conftest import Caller
from tests.factories import (
    LONG_AGO,
    Seeded,
    depart,
    rpps,
    seed_organisation,
    seed_practitioner,
    seed_token,
)
from tests.wsgi_client import request

HOSPITAL = "750990012"
PEOPLE = 5
AS_PEM = {"Accept": "application/pem-certificate-chain"}
FILES = (
    *(f"{tables[0].name}.ndjson.gz" for tables in TABLES.values()),
    *(f"{table.name}.csv.gz" for tables in TABLES.values() for table in tables),
    "manifest.json",
    "manifest.jws",
    "SHA256SUMS",
)
# What a registrar lists, in full: of another body, nothing.
LISTS = {
    "/v1/expiring": {"within": "399d"},
    "/v1/attention": {"closed": "true"},
    "/v1/enrolments": {},
    "/v1/corrections": {"ended": "true"},
}
CRLS = {False: "/crl/persons-1/0.crl", True: "/crl/persons-1/0-delta.crl"}
# As if it had all been recorded long ago, so that the past can be asked about.
_AGE = """
    DO $$ DECLARE t text; BEGIN
        SET LOCAL session_replication_role = replica;
        FOR t IN SELECT table_name FROM information_schema.columns
            JOIN information_schema.tables USING (table_schema, table_name)
            WHERE table_schema = 'public' AND table_type = 'BASE TABLE' AND column_name = 'sys_from'
              AND table_name NOT LIKE '%history'
        LOOP EXECUTE format('UPDATE %I SET sys_from = {}', t); END LOOP;
    END $$
""".format(f"''{LONG_AGO.isoformat()}''")


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
    held: set[str] = field(default_factory=set)

    def settle(self) -> None:
        engine = self.container.engine
        seed_organisation(engine, HOSPITAL)
        for name, authority in (("own", "CNOM"), ("colleague", "CNOM"), ("neighbour", "ONI")):
            seed_token(engine, name, authority=authority)
        for number in range(1, PEOPLE + 1):
            someone = seed_practitioner(engine, number, address=f"secret{number}@d{number}.example")
            self.people.append(someone)
            issued = self.now - timedelta(days=340)
            self.serials[someone.mailbox] = certify(
                engine, someone.mailbox, issued, number=number, enrolment=self.enrol(someone)
            )
            self.note(someone)
        self.do(_AGE)
        ocsp_job.renew_responders(self.container)

    def registrar(self, name: str) -> Caller:
        return Caller(self.operator.client, f"sceau_{name}")

    def enrol(self, someone: Seeded) -> str:
        checked = {"method": "in-person", "document": "carte", "checked_on": "2026-08-31"}
        asked = {"practitioner": someone.national_id, "mailbox": someone.mailbox, "identity_check": checked}
        enrolment = self.registrar("own").post("/v1/enrolments", asked).get_json()["id"]
        approved = self.registrar("colleague").post(f"/v1/enrolments/{enrolment}/approval")
        assert approved.status_code == 200, approved.get_json()
        return str(enrolment)

    def note(self, someone: Seeded) -> None:
        """What its Ordre has to look at, and what it corrected."""
        with transaction(self.container.engine) as connection:
            keep(
                connection, Concern.MAILBOX_CLAIMED_TWICE, [Matter(someone.mailbox, ["CNOM"])],
                among=[someone.mailbox], now=self.now, actor=Actor("test:someone"),
            )  # fmt: skip
        asked = {"entity": "mailbox", "key": someone.mailbox, "field": "service", "value": "cabinet"}
        made = self.registrar("own").post("/v1/corrections", {**asked, "reason": "Vu sur place"})
        assert made.status_code == 201, made.get_json()

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
        elif len(self.held) < 2:
            path = f"/v1/certificates/{self.serials[someone.mailbox]}/revocation"
            if self.registrar("own").post(path, {"reason": "certificateHold"}).status_code == 200:
                self.held.add(someone.mailbox)

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
        yield from self.of_another_body()
        yield from self.of_verdicts()
        yield from self.of_status()
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
            for file in FILES:
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
            "/expiring",
            "/openapi.json",
        ):
            yield path, stranger.get(path).text

    def of_another_body(self) -> Iterator[tuple[str, str]]:
        for path, query in LISTS.items():
            answer = self.registrar("neighbour").get(path, **query)
            assert answer.status_code == 200, answer.get_json()
            yield f"{path} to another body", answer.text

    def of_verdicts(self) -> Iterator[tuple[str, str]]:
        """Of all others at once, now and when nobody was on the list."""
        hidden = self.red_listed()
        others = [someone.mailbox for someone in self.people if someone.mailbox not in hidden]
        for at in (None, (self.now - timedelta(days=1)).isoformat()):
            asked = {"addresses": [*others, "nobody@d1.example"], "sender": "nobody@d2.example", "at": at}
            answer = self.operator.post("/v1/recipients/check", asked)
            assert answer.status_code == 200, answer.get_json()
            yield f"verdicts of others at {at}", answer.text

    def of_status(self) -> Iterator[tuple[str, str]]:
        """What OCSP and CRLs say, octet for octet; nobody's certificate stands in either."""
        container = self.container
        for delta in CRLS:
            crl.publish(
                container.engine, container.signer, authority_id="persons-1", shard=0, now=self.now,
                lifetime=timedelta(hours=72), delta=delta,
            )  # fmt: skip
        status = StatusApplication(
            container.engine, keys_folder=container.settings.web_keys,
            passphrase=passphrases.web_passphrase(container), hours=8, clock=container.clock,
        )  # fmt: skip
        for path in CRLS.values():
            code, _, octets = request(status, "GET", path)
            assert code.startswith("200"), (path, code)
            yield path, octets.decode("latin-1")
        for serial in self.serials.values():
            _, _, octets = request(status, "POST", "/ocsp", self.question(serial))
            said = ocsp.load_der_ocsp_response(octets)
            assert said.response_status is ocsp.OCSPResponseStatus.SUCCESSFUL
            assert said.certificate_status is not ocsp.OCSPCertStatus.UNKNOWN
            yield f"OCSP of {serial}", octets.decode("latin-1")

    def question(self, serial: str) -> bytes:
        with self.container.engine.connect() as connection:
            der = connection.execute(text("SELECT der FROM authority WHERE id = 'persons-1'")).scalar_one()
        return _asked(x509.load_der_x509_certificate(der), int(serial, 16))

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
            for query in ({}, {"at": (country.now - timedelta(days=1)).isoformat()}):
                verdict = country.operator.get(f"/v1/recipients/{address}", **query).get_json()
                assert "mailbox-unknown" not in verdict["reasons"], query
        country.mark()
    # What stands before the list was told of by the same questions.
    for someone in country.people:
        country.do("UPDATE practitioner SET departed_at = NULL WHERE national_id = :i", i=someone.national_id)
        country.put(someone, listed=True)
    country.export()
    everything = "".join(said for _, said in country.told())
    for someone in country.people:
        assert everything.count(someone.mailbox) > 5
        for path, query in LISTS.items():
            if path == "/v1/expiring" and someone.mailbox in country.held:
                # What is on hold does not end by time.
                continue
            assert someone.mailbox in country.registrar("own").get(path, **query).text, path


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
    monkeypatch.setattr(exports, "seal", full)
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


def _asked(issuer: x509.Certificate, serial: int) -> bytes:
    name = Hash(SHA1())
    name.update(issuer.subject.public_bytes())
    key = x509.SubjectKeyIdentifier.from_public_key(issuer.public_key()).digest
    made = ocsp.OCSPRequestBuilder().add_certificate_by_hash(name.finalize(), key, serial, SHA1())
    return made.build().public_bytes(Encoding.DER)


def _lines(answer: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in answer.splitlines()]

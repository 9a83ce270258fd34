"""Every two acts on one person, one after the other, on two hosts whose clocks are 15 minutes apart.

Taking trust away never fails on a clock or a neighbour. A refused act is refused in true words, the record's
instants only rise, and each can be asked about afterwards.
"""

import json
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from joserfc import jws
from joserfc.jwk import ECKey
from sqlalchemy import Engine, text

from api.app import create_app
from api.jobs import revocations, withdrawal
from api.settings import Settings
from api.wiring import Container
from directory.base.clock import utc_now
from directory.base.instant import dated_by_database
from pki.certificates import pkcs12
from pki.certificates.public_keys import spki_sha256
from pki.model import RevocationAction, Serial
from pki.monitoring.certificate_history import State, life
from pki.revocation.compromise_reports import SENTENCE
from tests.api.conftest import Caller
from tests.api.signing import request_for, signer_in
from tests.factories import seed_organisation, seed_practitioner, seed_token

APART = timedelta(minutes=15)
_TODAY = utc_now().replace(microsecond=0)
LATER = _TODAY + timedelta(days=10)
SOON, THEN, AT_LAST = (_TODAY + timedelta(days=days) for days in (30, 90, 120))
CHECKED = {"method": "in-person", "document": "carte nationale d'identité", "checked_on": "2026-09-01"}
_numbers = count(1)
_ENROL = text("""
    INSERT INTO enrolment (practitioner, mailbox, authority, identity_check, state, requested_by,
                           requested_at, approved_by, approved_at)
    VALUES (:person, :mailbox, 'CNOM', CAST(:checked AS jsonb), 'approved', :first, clock_timestamp(),
            :second, clock_timestamp()) RETURNING id
""")
_NAME = text("""
    INSERT INTO enrolment_names (enrolment_id, names)
    SELECT :enrolment, jsonb_build_object('kind', 'PER', 'address', m.address, 'given_name', p.given_name,
        'family_name', p.family_name, 'national_id', p.national_id, 'professions', jsonb_build_array('10'))
    FROM mailbox m JOIN practitioner p ON p.national_id = m.holder WHERE m.address = :mailbox
""")
_RESERVE = text("""
    INSERT INTO reservation (serial, authority_id, profile, shard, mailbox, practitioner, enrolment_id,
                             spki_sha256, tbs, tbs_sha256, lints, requested_by, reserved_at)
    SELECT :serial, id, 'practitioner-smime', 0, :mailbox, :person, :enrolment, :spki, '', :digest, '[]',
           'test', clock_timestamp()
    FROM authority WHERE role = 'persons'
""")
_CERTIFY = text("""
    INSERT INTO certificate (serial, authority_id, profile, shard, mailbox, practitioner, subject,
                             spki_sha256, der, sha256, not_before, not_after, issued_at)
    SELECT serial, authority_id, profile, shard, mailbox, practitioner, 'CN=someone', spki_sha256, :der,
           :digest, reserved_at - interval '5 minutes', reserved_at + interval '30 days', clock_timestamp()
    FROM reservation WHERE serial = :serial
""")
_WRITTEN = text("""
    SELECT least(revoked_at, recorded_at) AS counts, coalesce(recorded_at, revoked_at) AS written, c.issued_at
    FROM revocation r JOIN certificate c USING (serial) WHERE serial = :serial ORDER BY r.id
""")
_LINES = text("SELECT at FROM audit_pending WHERE subject = ANY(:subjects) ORDER BY id")
_OF_ENROLMENTS = text(
    "SELECT requested_at, approved_at, ended_at FROM enrolment WHERE practitioner = :person"
)
_OF_MEASURES = text(
    "SELECT starts_at, recorded_at, ends_at FROM measure WHERE national_id = :person ORDER BY id"
)


@dataclass(frozen=True)
class Host:
    """One web host with a clock of its own, and who calls it."""

    container: Container
    first: Caller
    second: Caller
    admin: Caller


@dataclass(frozen=True)
class Person:
    """A person with a certificate that may be renewed, and an establishment's mailbox asked for."""

    national_id: str
    mailbox: str
    serial: str
    enrolment: str
    requested: str
    key: ec.EllipticCurvePrivateKey


Act = Callable[[Host, Person], Any]


def _hold(host: Host, person: Person) -> Any:
    return _revoke(host, person, "certificateHold")


def _revoke(host: Host, person: Person, reason: str = "superseded") -> Any:
    return host.first.post(f"/v1/certificates/{person.serial}/revocation", {"reason": reason})


def _lose_key(host: Host, person: Person) -> Any:
    return _revoke(host, person, "keyCompromise")


def _release(host: Host, person: Person) -> Any:
    return host.first.post(f"/v1/certificates/{person.serial}/release", {})


def _restate(host: Host, person: Person) -> Any:
    asked = {"reason": "affiliationChanged", "comment": "as it was"}
    return host.first.post(f"/v1/certificates/{person.serial}/reason", asked)


def _measure(host: Host, person: Person, kind: str, **dated: str) -> Any:
    asked = {"kind": kind, "reason": "Décision 117", **dated}
    return host.first.post(f"/v1/practitioners/{person.national_id}/measures", asked)


def _suspend(host: Host, person: Person) -> Any:
    return _measure(host, person, "suspended")


def _strike_off(host: Host, person: Person) -> Any:
    return _measure(host, person, "struck-off")


def _suspend_later(host: Host, person: Person) -> Any:
    return _measure(host, person, "suspended", **{"from": LATER.isoformat()})


def _suspend_until(host: Host, person: Person) -> Any:
    return _measure(host, person, "suspended", until=THEN.isoformat())


def _to_revise(host: Host, person: Person) -> int:
    """A suspension with an end, taken now; or the one that stands for as long already."""
    told = _suspend_until(host, person).get_json()
    return int(told["id"] if "id" in told else told["measure"])


def _prolong(host: Host, person: Person) -> Any:
    path = f"/v1/measures/{_to_revise(host, person)}/prolongation"
    return host.first.post(path, {"until": AT_LAST.isoformat(), "reason": "Décision 118"})


def _shorten(host: Host, person: Person) -> Any:
    path = f"/v1/measures/{_to_revise(host, person)}/shortening"
    asked = {"until": SOON.isoformat(), "reason": "Recours accueilli en partie"}
    first = host.first.post(path, asked)
    if first.status_code >= 400:
        return first
    return host.second.post(path, {**asked, "confirms": first.get_json()["shortening_asked"]})


def _annul(host: Host, person: Person) -> Any:
    path = f"/v1/measures/{_to_revise(host, person)}/annulment"
    first = host.first.post(path, {"reason": "Homonyme"})
    if first.status_code >= 400:
        return first
    return host.second.post(path, {"reason": "Homonyme", "confirms": first.get_json()["annulment_asked"]})


def _lift(host: Host, person: Person) -> Any:
    found = host.first.get(f"/v1/practitioners/{person.national_id}/measures").get_json()["items"]
    path = f"/v1/measures/{found[-1]['id'] if found else 0}/lifting"
    asked = host.first.post(path, {"reason": "Appel accueilli"})
    return asked if asked.status_code >= 400 else host.second.post(path, {"reason": "Appel accueilli"})


def _approve(host: Host, person: Person) -> Any:
    return host.second.post(f"/v1/enrolments/{person.requested}/approval")


def _withdraw(host: Host, person: Person) -> Any:
    return host.first.post(f"/v1/enrolments/{person.requested}/withdrawal", {"comment": "asked in error"})


def _renew(host: Host, person: Person) -> Any:
    return host.first.post(f"/v1/enrolments/{person.enrolment}/certificates", {"csr": request_for()})


def _certify_in_a_batch(host: Host, person: Person) -> Any:
    items = [{"enrolment": person.enrolment, "csr": request_for()}]
    return host.first.post("/v1/batches", {"items": items})


def _certify_by_a_key_made_here(host: Host, person: Person) -> Any:
    return host.first.post(f"/v1/enrolments/{person.enrolment}/pkcs12")


def _revoke_many(host: Host, person: Person) -> Any:
    asked = {"selection": {"serials": [person.serial]}, "reason": "superseded", "comment": "Incident 31"}
    planned = host.admin.post("/v1/revocations/bulk", {**asked, "per_second": 100_000})
    if planned.status_code >= 400:
        return planned
    bulk = planned.get_json()
    agreed = {"digest": bulk["digest"], "comment": "seen"}
    done = host.admin.post(f"/v1/revocations/bulk/{bulk['id']}/approvals", agreed)
    revocations.carry_on(host.container)
    return done


def _report_key(host: Host, person: Person) -> Any:
    named = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, SENTENCE)])
    said = x509.CertificateSigningRequestBuilder().subject_name(named).sign(person.key, hashes.SHA256())
    csr = said.public_bytes(Encoding.PEM).decode()
    return host.second.post("/v1/keys/compromised", {"csr": csr})


def _revoke_by_its_key(host: Host, person: Person) -> Any:
    """Without a token, and signed by the holder's clock, which is right."""
    claims = {"serial": person.serial, "reason": "superseded", "iat": int(utc_now().timestamp()),
              "aud": f"{host.container.settings.base_url}/v1/revocations"}  # fmt: skip
    signed = jws.serialize_compact({"alg": "ES256"}, json.dumps(claims), ECKey.import_key(person.key))
    return host.first.client.post("/v1/revocations", data=signed, content_type="application/jose")


def _correct(host: Host, person: Person) -> Any:
    asked = {"entity": "practitioner", "key": person.national_id, "field": "title", "value": "PR"}
    return host.first.post("/v1/corrections", {**asked, "reason": "Vu sur le diplôme"})


def _withdraw_correction(host: Host, person: Person) -> Any:
    _correct(host, person)
    asked = host.first.get("/v1/corrections", entity="practitioner", key=person.national_id)
    number = asked.get_json()["items"][-1]["id"]
    return host.first.post(f"/v1/corrections/{number}/withdrawal")


def _close_mailbox(host: Host, person: Person) -> None:
    """As a night does: the register's row goes, and the job follows on this host."""
    with host.container.engine.begin() as connection:
        gone = {"at": host.container.present(connection), "address": person.mailbox}
        connection.execute(text("UPDATE mailbox SET departed_at = :at WHERE address = :address"), gone)
    withdrawal.consequences(host.container)


COMMON: dict[str, Act] = {
    "hold": _hold, "release": _release, "revoke": _revoke, "lose the key": _lose_key, "restate": _restate,
    "suspend": _suspend, "strike off": _strike_off, "lift": _lift, "approve": _approve,
    "withdraw": _withdraw, "renew": _renew, "correct": _correct, "close the mailbox": _close_mailbox,
}  # fmt: skip
RARER: dict[str, Act] = {
    "suspend later": _suspend_later, "suspend until": _suspend_until, "prolong": _prolong,
    "shorten": _shorten, "annul": _annul, "revoke many": _revoke_many, "report the key": _report_key,
    "revoke by its key": _revoke_by_its_key, "certify in a batch": _certify_in_a_batch,
    "certify by a key made here": _certify_by_a_key_made_here, "withdraw a correction": _withdraw_correction,
}  # fmt: skip
ACTS = COMMON | RARER
# What takes trust away and gives it back: each rarer act meets these in the usual run.
CHIEF = ("hold", "strike off", "lift")
# On a person to whom nothing was done yet there is nothing to do.
NEEDS_ANOTHER = {"release", "restate", "lift"}
# What an act that takes trust away may be refused for: it is done already, and what was done is said.
DONE_ALREADY = {
    "hold": {"already-revoked", "already-on-hold"},
    "revoke": {"already-revoked"},
    "lose the key": {"already-revoked"},
    "suspend": {"measure-in-force"},
    "strike off": {"measure-in-force"},
    "withdraw": {"enrolment-ended", "already-approved"},
    "suspend later": {"measure-in-force"},
    "suspend until": {"measure-in-force"},
    "prolong": {"not-longer"},
    "revoke many": {"nothing-selected"},
    "report the key": set(),
    "revoke by its key": {"already-revoked"},
}


def usual(first: str) -> tuple[str, ...]:
    """What follows `first` in the usual run."""
    if first in RARER:
        return CHIEF
    return (*COMMON, *RARER) if first in CHIEF else tuple(COMMON)


def rest(first: str) -> tuple[str, ...]:
    return tuple(second for second in ACTS if second not in usual(first))


@pytest.fixture
def hosts(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[timedelta], Host]]:
    """`hosts(ahead)`: a web host over the one database, its clock so far ahead of it."""
    # How long a passphrase is tried takes most of the time, and tells nothing here.
    monkeypatch.setattr(pkcs12, "ROUNDS", 1000)
    dated_by_database(engine)
    # S/MIME BR 7.1.2.3: the URL of the CA's certificate is plain HTTP.
    settings = Settings(state=tmp_path, public_url="http://sceau.example")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "web.passphrase").write_text("for a test")
    for name, role in (("first", "registrar"), ("second", "registrar"), ("admin", "admin")):
        seed_token(engine, name, role=role)
    with engine.begin() as connection:
        connection.execute(text("UPDATE api_token SET expires_at = clock_timestamp() + interval '1 year'"))
    with signer_in(tmp_path, engine, utc_now(), settings.base_url) as signer:
        signer.clock = utc_now

        def made(ahead: timedelta) -> Host:
            container = Container(
                settings=settings, engine=engine, signer=signer, clock=lambda: utc_now() + ahead
            )
            client = create_app(container).test_client()
            return Host(
                container, *(Caller(client, f"sceau_{name}") for name in ("first", "second", "admin"))
            )

        yield made


def someone(host: Host) -> Person:
    number = next(_numbers)
    engine = host.container.engine
    seeded = seed_practitioner(engine, number)
    finess = f"75{number:07d}"
    office = seed_organisation(engine, finess)
    digest, serial = sha256(seeded.mailbox.encode()).digest(), f"{number:040x}"
    key = ec.generate_private_key(ec.SECP256R1())
    row = {"person": seeded.national_id, "mailbox": seeded.mailbox, "digest": digest, "serial": serial,
           "der": certificate_of(key), "spki": spki_sha256(key.public_key()),
           "checked": '{"method": "in-person", "document": "x", "checked_on": "2026-09-01"}'}  # fmt: skip
    with engine.begin() as connection:
        tokens = {row.name: row.id for row in connection.execute(text("SELECT name, id FROM api_token"))}
        row["enrolment"] = connection.execute(_ENROL, row | tokens).scalar_one()
        connection.execute(_NAME, row)
        connection.execute(_RESERVE, row)
        connection.execute(_CERTIFY, row)
    asked = {"practitioner": seeded.national_id, "mailbox": office, "identity_check": CHECKED}
    requested = host.first.post("/v1/enrolments", asked)
    assert requested.status_code == 201, requested.get_json()
    return Person(
        seeded.national_id, seeded.mailbox, serial, str(row["enrolment"]), requested.get_json()["id"], key
    )


def certificate_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    """What holds the key, whom its holder may revoke; nobody asks who signed it."""
    named = x509.Name([])
    made = (
        x509.CertificateBuilder().subject_name(named).issuer_name(named).public_key(key.public_key())
        .serial_number(1).not_valid_before(_TODAY).not_valid_after(THEN).sign(key, hashes.SHA256())
    )  # fmt: skip
    return made.public_bytes(Encoding.DER)


def answered(name: str, reply: Any) -> None:
    """No bug, and no refusal of what takes trust away but for what is true."""
    if reply is None or reply.status_code < 400:
        return
    problem = reply.get_json()
    assert reply.status_code < 500, (name, problem)
    if name in DONE_ALREADY:
        assert problem["code"] in DONE_ALREADY[name], (name, problem)


def rising(instants: list[Any]) -> bool:
    return all(before < later for before, later in pairwise(instants))


def recorded_in_order(engine: Engine, person: Person) -> None:
    with engine.connect() as connection:
        events = connection.execute(_WRITTEN, {"serial": person.serial}).all()
        assert rising([event.written for event in events])
        assert all(event.issued_at <= event.counts <= event.written for event in events)
        subjects = [person.serial, person.enrolment, person.requested, person.national_id]
        for subject in subjects:
            lines = connection.execute(_LINES, {"subjects": [subject]}).scalars().all()
            assert list(lines) == sorted(lines), subject
        for row in connection.execute(_OF_ENROLMENTS, {"person": person.national_id}):
            known = [at for at in row if at is not None]
            assert known == sorted(known)
        for row in connection.execute(_OF_MEASURES, {"person": person.national_id}):
            assert row.starts_at <= row.recorded_at or row.starts_at == LATER
            assert row.ends_at is None or row.ends_at >= row.recorded_at


SAID = {
    RevocationAction.REVOKE: State.REVOKED,
    RevocationAction.HOLD: State.ON_HOLD,
    RevocationAction.RELEASE: State.GOOD,
}


def told_as_of(engine: Engine, person: Person) -> None:
    """The history answers for each instant with what had been done by then."""
    with engine.connect() as connection:
        known = life(connection, Serial(person.serial))
        before = State.GOOD
        for event in known.events:
            at = event.recorded_at or event.revoked_at
            assert known.state(at - timedelta(microseconds=1)) is before
            before = SAID[event.action]
            assert known.state(at) is before
        asked = text("SELECT count(*) FROM {}_at(clock_timestamp()) WHERE {} = :person")
        for table, column in (("measure", "national_id"), ("enrolment", "practitioner")):
            now = connection.execute(
                text(asked.text.format(table, column)), {"person": person.national_id}
            ).scalar_one()
            there = text(f"SELECT count(*) FROM {table} WHERE {column} = :person")
            assert now == connection.execute(there, {"person": person.national_id}).scalar_one()


@pytest.mark.parametrize(
    "ahead",
    [
        pytest.param(APART, id="first ahead"),
        # Here the clocks at least keep the order of the acts.
        pytest.param(-APART, id="first behind", marks=pytest.mark.long),
    ],
)
@pytest.mark.parametrize(
    ("first", "seconds"),
    [
        *(pytest.param(first, usual(first), id=first) for first in ACTS),
        *(
            pytest.param(first, rest(first), id=f"{first}, rarer", marks=pytest.mark.long)
            for first in ACTS
            if rest(first)
        ),
    ],
)
def test_what_follows_is_done_whatever_the_clocks_say(
    hosts: Callable[[timedelta], Host], first: str, seconds: Collection[str], ahead: timedelta
) -> None:
    one, other = hosts(ahead), hosts(timedelta(0))
    engine = one.container.engine
    for second in seconds:
        person = someone(other)
        before = ACTS[first](one, person)
        assert first in NEEDS_ANOTHER or before is None or before.status_code < 400, before.get_json()
        answered(first, before)
        answered(second, ACTS[second](other, person))
        recorded_in_order(engine, person)
        told_as_of(engine, person)


@pytest.mark.parametrize("ahead", [APART, -APART], ids=["ahead", "behind"])
def test_a_hold_dated_by_a_clock_that_is_ahead_is_made_final_all_the_same(
    engine: Engine, hosts: Callable[[timedelta], Host], ahead: timedelta
) -> None:
    host = hosts(ahead)
    person = someone(host)
    # Written before this release, when the machine's clock dated what was done.
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO revocation (serial, authority_id, shard, action, reason, actor, revoked_at,"
                " not_after, entry) SELECT serial, authority_id, shard, 'hold', 'certificateHold', 'token:9',"
                " clock_timestamp() + interval '10 minutes', not_after, '' FROM certificate"
                " WHERE serial = :serial"
            ),
            {"serial": person.serial},
        )
    struck = _strike_off(host, person)
    assert struck.status_code == 201, struck.get_json()
    with engine.connect() as connection:
        hold, final = life(connection, Serial(person.serial)).events
    assert final.action is RevocationAction.REVOKE
    assert final.recorded_at is not None
    assert final.recorded_at >= hold.revoked_at
    # Some readers heed no revocation before its date.
    assert final.revoked_at <= utc_now() + timedelta(seconds=5)

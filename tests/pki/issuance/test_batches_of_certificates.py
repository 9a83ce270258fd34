"""Many certificates at once: each by the rules of one, and nothing lost whatever is cut off."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from sqlalchemy import Engine, text

from directory.base.db import transaction
from directory.base.errors import Kind, Refusal
from pki.certificates import public_keys
from pki.issuance import batch, for_enrolment
from pki.issuance.batch import BatchItem
from pki.issuance.batch_store import Item
from pki.model import EnrolmentState, RevocationAction, Serial
from pki.recovery import orphans
from pki.registration import enrolment
from pki.signing.inprocess import InProcessSigner
from tests.factories import depart, rpps, seed_organisation, seed_practitioner
from tests.pki.conftest import (
    BASE_URL,
    Enrolled,
    Established,
    enrol,
    identity,
    new_key,
    registrar,
    request_for,
)


@pytest.fixture
def crew(engine: Engine, now: datetime) -> list[Enrolled]:
    """Five doctors of one authority, each enrolled for her own mailbox."""
    return [enrol(engine, now, seed_practitioner(engine, number)) for number in range(1, 6)]


def asked_for(crew: Sequence[Enrolled]) -> list[BatchItem]:
    return [BatchItem(one.id, request_for(new_key())) for one in crew]


class Road:
    """Sends batches as the first registrar, through a signer that may fail."""

    def __init__(self, engine: Engine, signer: InProcessSigner, crew: list[Enrolled], now: datetime) -> None:
        self.engine, self.signer, self.crew, self.now = engine, signer, crew, now

    def send(
        self, asked: Sequence[BatchItem], *, at: datetime | None = None, signer: object = None
    ) -> list[Item]:
        _, items = batch.issue_all(
            self.engine, signer or self.signer, now=at or self.now, token=self.crew[0].first, asked=asked,  # type: ignore[arg-type]
            base_url=BASE_URL,
        )  # fmt: skip
        return items

    def count(self, query: str) -> int:
        with self.engine.connect() as connection:
            return int(connection.execute(text(query)).scalar_one())


@pytest.fixture
def road(engine: Engine, authority: Established, crew: list[Enrolled], now: datetime) -> Road:
    return Road(engine, authority.signer, crew, now)


def codes(items: Sequence[Item]) -> list[str | None]:
    return [None if item.refusal is None else item.refusal["code"] for item in items]


def test_every_item_gets_its_own_certificate(road: Road, authority: Established) -> None:
    asked = asked_for(road.crew)
    items = road.send(asked)
    for item, one, enrolled in zip(items, asked, road.crew, strict=True):
        assert item.certificate
        certificate = x509.load_der_x509_certificate(item.certificate.der)
        certificate.verify_directly_issued_by(authority.certificate)
        assert certificate.public_key() == x509.load_der_x509_csr(one.csr).public_key()
        assert item.certificate.mailbox == enrolled.seeded.mailbox
    for event in ("certificate.issued", "certificate.reserved"):
        told = f"SELECT count(*) FROM audit_pending WHERE event = '{event}' AND detail ->> 'mailbox' <> ''"
        assert road.count(told) == 5
    assert road.count("SELECT count(*) FROM ocsp_answer JOIN certificate USING (serial)") >= 10


def test_people_and_establishments_stand_in_one_batch_under_their_own_cas(
    road: Road, engine: Engine, now: datetime
) -> None:
    address = seed_organisation(engine)
    with transaction(engine) as connection:
        asked = enrolment.request_enrolment(
            connection, now=now, token=road.crew[0].first, practitioner=rpps(1), mailbox=address,
            identity_check=identity(now),
        )  # fmt: skip
        enrolment.approve_enrolment(connection, now=now, token=road.crew[0].second, enrolment_id=asked.id)
    items = road.send([*asked_for(road.crew[:1]), BatchItem(asked.id, request_for(new_key()))])
    assert [item.certificate and item.certificate.authority_id for item in items] == [
        "persons-1", "organisations-1",
    ]  # fmt: skip


def test_one_that_is_refused_stops_no_other(road: Road, engine: Engine, now: datetime) -> None:
    others = registrar(engine, "of-another", "CNOP")
    foreign = enrol(engine, now, seed_practitioner(engine, 6, professions=(("21", "C"),)), "CNOP")
    with transaction(engine) as connection:
        single = enrolment.request_enrolment(
            connection, now=now, token=road.crew[0].first, mailbox="person-7@one.example",
            practitioner=seed_practitioner(engine, 7).national_id, identity_check=identity(now),
        )  # fmt: skip
    assert others.authority == "CNOP"
    depart(engine, road.crew[3].seeded.national_id, now)
    key = new_key()
    items = road.send(
        [
            BatchItem(road.crew[0].id, b"no request"),
            BatchItem(road.crew[1].id, request_for(rsa.generate_private_key(65537, 2048))),
            BatchItem(road.crew[2].id, request_for(key)),
            BatchItem(road.crew[3].id, request_for(new_key())),
            BatchItem(road.crew[4].id, request_for(key)),
            BatchItem(foreign.id, request_for(new_key())),
            BatchItem(single.id, request_for(new_key())),
            BatchItem(uuid4(), request_for(new_key())),
        ]
    )
    assert codes(items) == [
        "bad-csr", "weak-key", None, "holder-not-in-registry", "key-already-certified", "unknown-enrolment",
        "not-approved", "unknown-enrolment",
    ]  # fmt: skip
    assert items[2].certificate


def test_a_person_called_by_a_dash_is_certified_on_no_road(
    road: Road, engine: Engine, authority: Established, now: datetime
) -> None:
    """After a correction, say: alone pkilint refused it, and the batch issued it as `SN=-`."""
    nameless = enrol(engine, now, seed_practitioner(engine, 30, family_name="-"))
    (item,) = road.send([BatchItem(nameless.id, request_for(new_key()))])
    assert codes([item]) == ["lint-failed"]
    for thorough in (True, False):
        with pytest.raises(Refusal) as refused:
            for_enrolment.issue_for_enrolment(
                engine, authority.signer, now=now, token=nameless.first, enrolment_id=nameless.id,
                csr=request_for(new_key()), base_url=BASE_URL, thorough=thorough,
            )  # fmt: skip
        assert refused.value.code == "lint-failed"


def test_what_is_certified_or_blocked_already_is_refused(road: Road, engine: Engine, now: datetime) -> None:
    first = asked_for(road.crew[:1])
    (made,) = road.send(first)
    assert made.certificate
    lost = new_key()
    blocked = request_for(lost)
    with engine.begin() as connection:
        spki = public_keys.spki_sha256(lost.public_key())
        connection.execute(
            text("INSERT INTO blocked_key VALUES (:k, 'reported-compromised', :now, NULL, 'test')"),
            {"k": spki, "now": now},
        )
    items = road.send(
        [
            BatchItem(road.crew[0].id, request_for(new_key())),
            BatchItem(road.crew[1].id, first[0].csr),
            BatchItem(road.crew[2].id, blocked),
        ]
    )
    assert codes(items) == ["already-certified", "key-already-certified", "key-blocked"]


def test_the_same_batch_is_the_same_batch(road: Road) -> None:
    asked = asked_for(road.crew)
    once, again = road.send(asked), road.send(asked)
    assert [item.serial for item in once] == [item.serial for item in again]
    assert road.count("SELECT count(*) FROM certificate WHERE mailbox IS NOT NULL") == 5
    assert road.count("SELECT count(*) FROM audit_pending WHERE event = 'batch.asked'") == 1


@pytest.mark.parametrize("size", [0, batch.LARGEST + 1])
def test_a_batch_has_one_to_a_thousand_items(road: Road, size: int) -> None:
    with pytest.raises(Refusal) as refused:
        road.send([BatchItem(uuid4(), b"") for _ in range(size)])
    assert refused.value.code == "bad-batch"


def test_an_enrolment_stands_in_a_batch_once(road: Road) -> None:
    with pytest.raises(Refusal) as refused:
        road.send([*asked_for(road.crew[:1]), *asked_for(road.crew[:1])])
    assert refused.value.code == "bad-batch"


class Cut(InProcessSigner):
    """The real signer, whose answer is lost before or after it has signed."""

    def __init__(self, signer: InProcessSigner, *, signs: bool) -> None:
        vars(self).update(vars(signer))
        self._signs = signs

    def sign_certificates(self, serials: Sequence[Serial]) -> list[bytes | Refusal]:
        if self._signs:
            super().sign_certificates(serials)
        raise Refusal(Kind.UNAVAILABLE, "signer-unavailable", "cut off")


@pytest.mark.parametrize("signs", [False, True])
def test_a_batch_that_was_cut_off_goes_on_with_the_same_serials(road: Road, *, signs: bool) -> None:
    asked = asked_for(road.crew)
    with pytest.raises(Refusal, match="cut off"):
        road.send(asked, signer=Cut(road.signer, signs=signs))
    with transaction(road.engine) as connection:
        (batch_id,) = connection.execute(text("SELECT id FROM batch")).scalars()
        _, before = batch.seen(connection, token=road.crew[0].second, batch_id=batch_id)
    assert all(item.serial and item.certificate is None for item in before)
    after = road.send(asked, at=road.now + timedelta(minutes=4))
    assert [item.serial for item in after] == [item.serial for item in before]
    assert all(item.certificate and item.last is None for item in after)


def test_what_was_signed_and_never_stored_is_revoked_by_recovery(road: Road) -> None:
    asked = asked_for(road.crew)
    with pytest.raises(Refusal, match="cut off"):
        road.send(asked, signer=Cut(road.signer, signs=True))
    later = road.now + timedelta(minutes=10)
    assert len(orphans.recover(road.engine, road.signer, later)) == 5
    items = road.send(asked, at=later)
    assert {item.last for item in items} == {RevocationAction.REVOKE}


def test_what_was_never_signed_in_time_is_refused_when_the_batch_comes_again(road: Road) -> None:
    asked = asked_for(road.crew[:2])
    with pytest.raises(Refusal, match="cut off"):
        road.send(asked, signer=Cut(road.signer, signs=False))
    items = road.send(asked, at=road.now + timedelta(minutes=10))
    assert codes(items) == ["key-already-certified"] * 2


class Departing(InProcessSigner):
    """The real signer; while it works, somebody leaves the register."""

    def __init__(self, signer: InProcessSigner, engine: Engine, who: str, at: datetime) -> None:
        vars(self).update(vars(signer))
        self._gone = engine, who, at

    def sign_certificates(self, serials: Sequence[Serial]) -> list[bytes | Refusal]:
        depart(*self._gone)
        return super().sign_certificates(serials)


def test_who_leaves_while_it_is_signed_gets_it_revoked_in_the_same_breath(road: Road) -> None:
    gone = road.crew[1].seeded.national_id
    items = road.send(asked_for(road.crew), signer=Departing(road.signer, road.engine, gone, road.now))
    assert codes(items) == [None, "holder-not-in-registry", None, None, None]
    assert [item.certificate is not None for item in items] == [True, False, True, True, True]
    assert road.count("SELECT count(*) FROM revocation") == 1


def test_one_question_to_the_signer_waits_for_the_disk_once(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[int] = []
    # The last instant signed goes to the disk every five seconds, whatever is asked: not within this batch.
    road.signer.signing.instant()
    monkeypatch.setattr("pki.signing.journal.os.fsync", waits.append)
    assert all(item.certificate for item in road.send(asked_for(road.crew)))
    assert len(waits) == 1


def test_the_signer_refuses_each_for_itself(road: Road) -> None:
    unknown = Serial("7" * 40)
    (answer,) = road.signer.sign_certificates([unknown])
    assert isinstance(answer, Refusal)
    assert answer.code == "unknown-reservation"
    with pytest.raises(Refusal, match="at once"):
        road.signer.sign_certificates([unknown] * 1001)


def test_a_second_registrar_approves_many_and_never_his_own(
    engine: Engine, now: datetime, crew: list[Enrolled]
) -> None:
    first, second = crew[0].first, crew[0].second
    made: list[UUID] = []
    with transaction(engine) as connection:
        for number, token in ((11, first), (12, first), (13, second)):
            seeded = seed_practitioner(engine, number)
            asked = enrolment.request_enrolment(
                connection, now=now, token=token, practitioner=seeded.national_id, mailbox=seeded.mailbox,
                identity_check=identity(now),
            )  # fmt: skip
            made.append(asked.id)
    with transaction(engine) as connection:
        results = batch.approve_all(connection, now=now, token=second, enrolment_ids=[*made, crew[0].id])
    said = [one.code if isinstance(one, Refusal) else one.state for one in map(results.__getitem__, made)]
    assert said == [EnrolmentState.APPROVED, EnrolmentState.APPROVED, "self-approval"]
    already = results[crew[0].id]
    assert isinstance(already, Refusal)
    assert already.code == "already-approved"


def test_a_batch_is_seen_by_its_authority_and_nobody_else(road: Road, engine: Engine) -> None:
    road.send(asked_for(road.crew[:1]))
    other = registrar(engine, "pharmacist", "CNOP")
    with transaction(engine) as connection:
        (batch_id,) = connection.execute(text("SELECT id FROM batch")).scalars()
        for token, asked, code in (
            (other, batch_id, "unknown-batch"),
            (road.crew[0].first, uuid4(), "unknown-batch"),
        ):
            with pytest.raises(Refusal) as refused:
                batch.seen(connection, token=token, batch_id=asked)
            assert refused.value.code == code
    assert replace(other, authority="CNOM").authority == "CNOM"

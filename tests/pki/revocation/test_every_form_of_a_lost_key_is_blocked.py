"""A key reported as lost is blocked in every form: the point mirrored, the modulus under another exponent."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import pytest
from alembic import command
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from sqlalchemy import Engine, text

from directory.base.audit import Actor
from directory.base.db import transaction
from directory.base.errors import Refusal
from pki.certificates import public_keys
from pki.issuance import batch, for_enrolment
from pki.issuance.batch import BatchItem
from pki.model import RevocationAction, RevocationReason
from pki.record import revocations
from pki.revocation import blocked_keys, compromise_reports, requests
from tests.factories import seed_practitioner
from tests.pki.conftest import BASE_URL, Enrolled, Established, Issue, Key, enrol, new_key, request_for
from tests.pki.issuance.test_operators_certify_their_own_domains import Certify, certify
from tests.repo.test_migrations import config

__all__ = ["certify"]
# The order of P-256's group (SEC 2).
ORDER = int("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551", 16)
ACTOR = Actor("test")


def mirrored(key: ec.EllipticCurvePrivateKey) -> ec.EllipticCurvePrivateKey:
    """The private key whose point has the same x, and the other y."""
    return ec.derive_private_key(ORDER - key.private_numbers().private_value, ec.SECP256R1())


def under_another_exponent(key: rsa.RSAPrivateKey) -> rsa.RSAPrivateKey:
    known = key.private_numbers()
    phi = (known.p - 1) * (known.q - 1)
    exponent = next(e for e in range(65539, 70000, 2) if _coprime(e, phi))
    secret = pow(exponent, -1, phi)
    return rsa.RSAPrivateNumbers(
        known.p, known.q, secret, rsa.rsa_crt_dmp1(secret, known.p), rsa.rsa_crt_dmq1(secret, known.q),
        known.iqmp, rsa.RSAPublicNumbers(exponent, known.public_numbers.n),
    ).private_key()  # fmt: skip


def _coprime(one: int, other: int) -> bool:
    while other:
        one, other = other, one % other
    return one == 1


FORMS: dict[str, Callable[[], tuple[Key, Key]]] = {
    "mirrored point": lambda: (key := new_key(), mirrored(key)),
    "another exponent": lambda: (
        key := rsa.generate_private_key(65537, 3072),
        under_another_exponent(key),
    ),
}


@dataclass(frozen=True)
class Roads:
    """Asks for a certificate alone or in a batch, and says with which code it is refused ('' when issued)."""

    engine: Engine
    authority: Established
    now: datetime

    def alone(self, who: Enrolled, key: Key) -> str:
        try:
            for_enrolment.issue_for_enrolment(
                self.engine, self.authority.signer, now=self.now, token=who.first, enrolment_id=who.id,
                csr=request_for(key), base_url=BASE_URL, thorough=False,
            )  # fmt: skip
        except Refusal as refusal:
            return refusal.code
        return ""

    def batch(self, *asked: tuple[Enrolled, Key]) -> list[str]:
        _, items = batch.issue_all(
            self.engine, self.authority.signer, now=self.now, token=asked[0][0].first, base_url=BASE_URL,
            asked=[BatchItem(who.id, request_for(key)) for who, key in asked],
        )  # fmt: skip
        return ["" if item.refusal is None else str(item.refusal["code"]) for item in items]


@pytest.fixture
def road(engine: Engine, authority: Established, now: datetime) -> Roads:
    return Roads(engine, authority, now)


def report(engine: Engine, now: datetime, key: Key) -> compromise_reports.Reported:
    with transaction(engine) as connection:
        return compromise_reports.report(
            connection, now=now, actor=ACTOR, csr=request_for(key, compromise_reports.SENTENCE)
        )


def last(engine: Engine, serial: str) -> RevocationAction | None:
    with engine.connect() as connection:
        return revocations.last_actions(connection, [serial]).get(serial)  # type: ignore[list-item, call-overload]


@pytest.fixture
def crew(engine: Engine, now: datetime) -> list[Enrolled]:
    return [enrol(engine, now, seed_practitioner(engine, number)) for number in (60, 61, 62)]


@pytest.mark.parametrize("form", FORMS)
def test_the_other_form_of_a_reported_key_is_certified_on_no_road(
    road: Roads, certify: Certify, crew: list[Enrolled], form: str
) -> None:
    key, other = FORMS[form]()
    assert public_keys.spki_sha256(key.public_key()) != public_keys.spki_sha256(other.public_key())
    report(road.engine, road.now, key)
    with pytest.raises(Refusal) as by_operator:
        certify("mx.one.example", key=other)
    codes = [by_operator.value.code, road.alone(crew[0], other), *road.batch((crew[1], other))]
    assert codes == ["key-blocked"] * 3
    with road.engine.connect() as connection, pytest.raises(Refusal) as blocked:
        blocked_keys.check_again(connection, public_keys.spki_sha256(key.public_key()))
    assert blocked.value.code == "key-blocked"


@pytest.mark.parametrize("form", FORMS)
def test_a_report_in_one_form_revokes_what_was_certified_in_the_other(
    engine: Engine, issue: Issue, now: datetime, form: str
) -> None:
    key, other = FORMS[form]()
    issued = issue(key)
    assert report(engine, now, other).revoked == (issued.serial,)
    assert last(engine, issued.serial) is RevocationAction.REVOKE


def test_a_certificate_of_before_falls_with_the_other_form(
    engine: Engine, issue: Issue, now: datetime
) -> None:
    """Two forms certified by a release that did not tell them apart: the numbers come with the migration."""
    key = new_key()
    first = issue(key)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE key_number DISABLE TRIGGER USER"))
        connection.execute(text("DELETE FROM key_number"))
        connection.execute(text("ALTER TABLE key_number ENABLE TRIGGER USER"))
    second = issue(mirrored(key), who=enrol(engine, now, seed_practitioner(engine, 61)))
    made = config()
    with engine.begin() as connection:
        made.attributes["connection"] = connection
        command.downgrade(made, "0026")
        command.upgrade(made, "head")
    with transaction(engine) as connection:
        requests.revoke(
            connection, now=now, actor=ACTOR, serial=first.serial, reason=RevocationReason.KEY_COMPROMISE
        )
    assert last(engine, second.serial) is RevocationAction.REVOKE


def test_one_private_key_is_certified_in_one_form(
    road: Roads, certify: Certify, crew: list[Enrolled]
) -> None:
    """Two holders of one key read each other's mail, whatever its public form."""
    key = new_key()
    assert road.alone(crew[0], key) == ""
    assert road.alone(crew[1], mirrored(key)) == "key-already-certified"
    with pytest.raises(Refusal) as refused:
        certify("mx.one.example", key=mirrored(key))
    assert refused.value.code == "key-already-certified"
    fresh = new_key()
    sent = road.batch((crew[1], fresh), (crew[2], mirrored(fresh)))
    assert sent == ["", "key-already-certified"]
    assert road.batch((crew[2], mirrored(key))) == ["key-already-certified"]


def test_what_is_reported_while_its_other_form_is_signed_takes_that_along(
    engine: Engine, issue: Issue, authority: Established, now: datetime
) -> None:
    key = new_key()

    class Slow:
        def sign_certificate(self, serial: str) -> bytes:
            report(engine, now, mirrored(key))
            return authority.signer.sign_certificate(serial)  # type: ignore[arg-type]

    with pytest.raises(Refusal) as refused:
        issue(key, signer=Slow())
    assert refused.value.code == "key-blocked"

"""Operators' own certificates: for whom, for which hosts, and what the trusted list takes away again."""

import subprocess
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import Engine, text

from directory import access
from directory.base.audit import Actor
from directory.base.db import transaction
from directory.base.errors import Kind, Refusal
from pki.certificates.profiles import OPERATOR_CLIENT, OPERATOR_SERVER
from pki.impediments.causes import GRACES, WithdrawalCause
from pki.issuance import for_enrolment, for_operator
from pki.model import IssuedCertificate, RevocationAction, RevocationReason, Serial
from pki.monitoring import expiry_store
from pki.record import authorities
from pki.revocation import compromise_reports, requests
from pki.revocation import release as releasing
from pki.signing.inprocess import InProcessSigner
from pki.withdrawal import operators as withdrawal_operators
from pki.withdrawal.reconcile import Outcome, settle_due
from tests.factories import OPERATOR, seed_practitioner
from tests.pki.conftest import BASE_URL, Established, Key, enrol, new_key, request_for

OTHER = "CN=other.example,O=Other operator,C=FR"
Certify = Callable[..., IssuedCertificate]


def token_of(engine: Engine, now: datetime, dn: str = OPERATOR, name: str = "proxy") -> access.Token:
    with transaction(engine) as connection:
        made, _ = access.create_token(
            connection, now=now, actor=Actor("test"), name=name, role=access.Role.OPERATOR,
            lifetime=timedelta(days=300), operator=dn,
        )  # fmt: skip
    return made


@pytest.fixture
def certify(engine: Engine, authority: Established, now: datetime) -> Certify:
    """`certify("mx.one.example", token=…, key=…, profile=…, signer=…)`, for the operator of one.example."""
    seed_practitioner(engine)
    seed_practitioner(engine, 2, address="b@other.example", operator=OTHER)
    own = token_of(engine, now)

    def act(
        *hosts: str, token: access.Token = own, key: Key | None = None, csr: bytes | None = None,
        profile: str = OPERATOR_SERVER.name, signer: object = None, at: datetime = now,
    ) -> IssuedCertificate:  # fmt: skip
        return for_operator.issue(
            engine, signer or authority.signer, now=at, token=token, profile=profile,  # type: ignore[arg-type]
            csr=csr or request_for(key or new_key(), "evil.example"), hosts=hosts, base_url=BASE_URL,
        )  # fmt: skip

    return act


def code_of(refused: pytest.ExceptionInfo[Refusal]) -> str:
    return refused.value.code


def test_a_server_has_the_hosts_asked_for_and_nothing_of_its_request(certify: Certify) -> None:
    made = certify("MX.one.example", "one.example", "imap.one.example", "mx.one.example")
    certificate = x509.load_der_x509_certificate(made.der)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["mx.one.example", "one.example", "imap.one.example"]
    assert made.subject == "CN=mx.one.example"
    assert made.authority_id == "servers-1"
    assert made.not_after - made.not_before < timedelta(days=200)


def test_openssl_takes_it_for_a_server_and_for_no_client(
    certify: Certify, authority: Established, engine: Engine, tmp_path: Path
) -> None:
    made = certify("mx.one.example")
    with transaction(engine) as connection:
        issuing = authorities.load_authority(connection, made.authority_id)
    assert issuing
    for name, der in (("leaf", made.der), ("issuing", issuing.der), ("root", authority.root.der)):
        (tmp_path / name).write_text(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM).decode())
    for purpose, status in (("sslserver", 0), ("sslclient", 2)):
        told = subprocess.run(
            ["openssl", "verify", "-purpose", purpose, "-verify_hostname", "mx.one.example", "-CAfile",
             tmp_path / "root", "-untrusted", tmp_path / "issuing", "-attime",
             str(int(made.not_before.timestamp()) + 600), tmp_path / "leaf"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert told.returncode == status, told.stderr


def test_a_client_is_named_by_its_operator(certify: Certify) -> None:
    made = certify(profile=OPERATOR_CLIENT.name)
    assert "O=Demo operator" in made.subject
    assert "serialNumber=OP-" in made.subject


@pytest.mark.parametrize(
    ("hosts", "code"),
    [
        (["mx.other.example"], "domain-not-trusted"),
        (["mx.one.example", "other.example"], "domain-not-trusted"),
        (["notone.example"], "domain-not-trusted"),
        (["one.example.evil.example"], "domain-not-trusted"),
        (["*.one.example"], "malformed-domain"),
        (["10.0.0.1/one.example"], "malformed-domain"),
        (["mx_1.one.example"], "malformed-domain"),
        ([], "bad-hosts"),
        ([f"h{n}.one.example" for n in range(101)], "bad-hosts"),
        # IDNA 2003 made of each of these a host of one.example.
        (["mx.one\u3002example"], "malformed-domain"),
        (["mx.o\u00adne.example"], "malformed-domain"),
        (["mx.\uff4fne.example"], "malformed-domain"),
    ],
)
def test_hosts_lie_in_the_operators_own_domains(certify: Certify, hosts: list[str], code: str) -> None:
    with pytest.raises(Refusal) as refused:
        certify(*hosts)
    assert code_of(refused) == code


def test_a_sharp_s_is_no_ss_of_a_trusted_domain(certify: Certify, engine: Engine) -> None:
    trust(engine, "mssante.example", OPERATOR)
    for host in ("mßante.example", "mx.mßante.example", "mx.MẞANTE.example"):
        with pytest.raises(Refusal) as refused:
            certify("mx.mssante.example", host)
        assert code_of(refused) in {"domain-not-trusted", "malformed-domain"}, host
    assert certify("mx.mssante.example").subject == "CN=mx.mssante.example"


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("*.one.example", r"'\*\.one\.example' has a wildcard, which is refused: name each host in full\."),
        ("mx_1.one.example", r"'mx_1\.one\.example' is not a domain name\."),
        # What is not seen is spelt out.
        ("mx.o\u00adne.example\n", r"'mx\.o\\xadne\.example' is not"),
        ("\ud800.one.example", r"'\\ud800\.one\.example' is not"),
    ],
)
def test_a_refused_host_is_named_and_told_why(certify: Certify, host: str, said: str) -> None:
    with pytest.raises(Refusal, match=said):
        certify("mx.one.example", host)


def test_a_unicode_host_is_certified_by_its_a_label(certify: Certify) -> None:
    assert certify("santé.one.example").subject == "CN=xn--sant-epa.one.example"


def trust(engine: Engine, domain: str, dn: str) -> None:
    run(engine, "INSERT INTO trusted_domain (name, operator_id, row_hash) SELECT :domain, id, '' FROM"
                " operator WHERE certificate_dn = :dn", domain=domain, dn=dn)  # fmt: skip


def test_the_longest_trusted_domain_decides_who_may(certify: Certify, engine: Engine, now: datetime) -> None:
    trust(engine, "doctors.one.example", OTHER)
    for host in ("doctors.one.example", "mx.doctors.one.example"):
        with pytest.raises(Refusal, match=r"doctors\.one\.example, which is not a domain") as refused:
            certify(host)
        assert code_of(refused) == "domain-not-trusted"
    # Beside it and above it the shorter one still decides, and its holder decides below it.
    assert certify("mx.one.example", "notdoctors.one.example")
    assert certify("mx.doctors.one.example", token=token_of(engine, now, OTHER, "other"))
    # What is withdrawn decides nothing any more; what both hold, both may use.
    run(engine, "UPDATE trusted_domain SET departed_at = now() WHERE name = 'doctors.one.example'")
    assert certify("mx.doctors.one.example")
    run(engine, "UPDATE trusted_domain SET departed_at = NULL")
    trust(engine, "doctors.one.example", OPERATOR)
    assert certify("mx.doctors.one.example")


def test_a_domain_given_to_another_below_ones_own_takes_the_certificates_with_it(
    certify: Certify, engine: Engine, now: datetime
) -> None:
    gone, kept = certify("mx.doctors.one.example", "mx.one.example"), certify("mx.one.example")
    trust(engine, "doctors.one.example", OTHER)
    assert settle(engine, now) == Outcome()
    assert settle(engine, now + GRACES[WithdrawalCause.DOMAIN_WITHDRAWN]) == Outcome(revoked=1)
    assert last_of(engine, gone) == ("revoke", RevocationReason.CESSATION_OF_OPERATION.value)
    assert last_of(engine, kept) is None


def test_a_domain_that_passes_while_it_is_signed_is_not_handed_out(
    certify: Certify, engine: Engine, authority: Established
) -> None:
    overheard = Overheard(authority.signer, lambda: trust(engine, "doctors.one.example", OTHER))
    with pytest.raises(Refusal) as refused:
        certify("mx.doctors.one.example", signer=overheard)
    assert code_of(refused) == "domain-not-trusted"


LONG = f"{'a' * 61}.one.example"  # 73 characters


def test_a_first_host_too_long_for_a_common_name_is_certified_all_the_same(
    certify: Certify, authority: Established, engine: Engine, tmp_path: Path
) -> None:
    beside, alone = certify(LONG, "mx.one.example"), certify(LONG)
    assert (beside.subject, alone.subject) == ("CN=mx.one.example", "")
    with transaction(engine) as connection:
        issuing = authorities.load_authority(connection, alone.authority_id)
    assert issuing
    for name, der in (("issuing", issuing.der), ("root", authority.root.der)):
        (tmp_path / name).write_bytes(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM))
    for made in (beside, alone):
        certificate = x509.load_der_x509_certificate(made.der)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        assert names.value.get_values_for_type(x509.DNSName)[0] == LONG
        # RFC 5280 4.1.2.6: critical where it alone names the holder.
        assert names.critical is (made is alone)
        (tmp_path / "leaf").write_bytes(certificate.public_bytes(Encoding.PEM))
        told = subprocess.run(
            ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", LONG,
             "-CAfile", tmp_path / "root", "-untrusted", tmp_path / "issuing", "-attime",
             str(int(made.not_before.timestamp()) + 600), tmp_path / "leaf"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert told.returncode == 0, told.stderr


def test_of_two_servers_without_common_name_none_passes_for_the_other_s_successor(
    certify: Certify, engine: Engine, now: datetime
) -> None:
    one, other = certify(LONG), certify(f"b{LONG[1:]}", at=now + timedelta(seconds=20))

    def ending() -> list[tuple[str, str]]:
        with engine.connect() as connection:
            page = expiry_store.ending(
                connection, now, expiry_store.ExpiryQuery(other.not_after), [OPERATOR_SERVER.name],
                after=(now, ""), limit=10,
            )  # fmt: skip
        return [(found.serial, found.subject) for found in page]

    assert ending() == [(one.serial, LONG), (other.serial, f"b{LONG[1:]}")]
    renewed = certify(LONG, at=now + timedelta(seconds=40))
    assert [serial for serial, _ in ending()] == [other.serial]
    assert renewed.subject == ""


def test_a_client_has_no_host_and_other_profiles_are_not_for_operators(certify: Certify) -> None:
    for hosts, profile, code in (
        (["mx.one.example"], OPERATOR_CLIENT.name, "bad-hosts"),
        (["mx.one.example"], "service-tls", "unknown-profile"),
        ([], "issuing-ca", "unknown-profile"),
    ):
        with pytest.raises(Refusal) as refused:
            certify(*hosts, profile=profile)
        assert code_of(refused) == code


def test_a_token_that_names_no_operator_certifies_nothing(certify: Certify, now: datetime) -> None:
    bare = access.Token(99, "bare", access.Role.OPERATOR, "", now + timedelta(days=1))
    registrar = access.Token(98, "r", access.Role.REGISTRAR, "CNOM", now + timedelta(days=1), None, 1)
    for token in (bare, registrar):
        with pytest.raises(Refusal) as refused:
            certify("mx.one.example", token=token)
        assert code_of(refused) == "not-an-operator"


def test_only_an_operators_token_names_one_and_one_of_the_trusted_list(engine: Engine, now: datetime) -> None:
    for role, dn in ((access.Role.AUDITOR, OPERATOR), (access.Role.OPERATOR, "CN=nobody,O=Nobody")):
        with pytest.raises(Refusal, match="operator"), transaction(engine) as connection:
            access.create_token(
                connection, now=now, actor=Actor("test"), name="x", role=role,
                lifetime=timedelta(days=1), operator=dn,
            )  # fmt: skip


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        ("UPDATE trusted_domain SET suspended_at = now() WHERE name = 'one.example'", "domain-suspended"),
        ("UPDATE operator SET suspended_at = now()", "operator-suspended"),
        ("UPDATE trusted_domain SET departed_at = now() WHERE name = 'one.example'", "domain-not-trusted"),
    ],
)
def test_nothing_is_certified_for_a_domain_or_operator_in_doubt(
    certify: Certify, engine: Engine, statement: str, code: str
) -> None:
    run(engine, statement)
    with pytest.raises(Refusal) as refused:
        certify("mx.one.example")
    assert code_of(refused) == code


def run(engine: Engine, statement: str, **values: object) -> None:
    with engine.begin() as connection:
        connection.execute(text(statement), values)


def settle(engine: Engine, now: datetime) -> Outcome:
    with transaction(engine) as connection:
        return withdrawal_operators.settle(connection, graces=GRACES, now=now)


def last_of(engine: Engine, made: IssuedCertificate) -> tuple[str, str] | None:
    with engine.connect() as connection:
        query = "SELECT action, reason FROM revocation WHERE serial = :s ORDER BY id DESC LIMIT 1"
        row = connection.execute(text(query), {"s": made.serial}).one_or_none()
    return None if row is None else (row.action, row.reason)


def test_a_domain_that_passes_to_another_operator_takes_the_certificates_with_it(
    certify: Certify, engine: Engine, now: datetime
) -> None:
    gone, kept = certify("mx.one.example"), certify(profile=OPERATOR_CLIENT.name)
    trust(engine, "two.example", OPERATOR)
    run(engine, "UPDATE trusted_domain SET departed_at = now() WHERE name = 'one.example'")
    trust(engine, "one.example", OTHER)
    assert settle(engine, now) == Outcome()
    just_before = now + GRACES[WithdrawalCause.DOMAIN_WITHDRAWN] - timedelta(seconds=1)
    assert settle(engine, just_before) == Outcome()
    # The job for mailboxes leaves what is not of its kind.
    with transaction(engine) as connection:
        settle_due(connection, graces=GRACES, now=now + timedelta(days=2))
    assert settle(engine, now + GRACES[WithdrawalCause.DOMAIN_WITHDRAWN]) == Outcome(revoked=1)
    assert last_of(engine, gone) == ("revoke", RevocationReason.CESSATION_OF_OPERATION.value)
    assert last_of(engine, kept) is None
    assert settle(engine, now + timedelta(days=3)) == Outcome()


def test_a_domain_that_comes_back_within_the_grace_costs_nothing(
    certify: Certify, engine: Engine, now: datetime
) -> None:
    made = certify("mx.one.example")
    run(engine, "UPDATE trusted_domain SET departed_at = now() WHERE name = 'one.example'")
    settle(engine, now)
    run(engine, "UPDATE trusted_domain SET departed_at = NULL")
    settle(engine, now + timedelta(hours=1))
    assert settle(engine, now + timedelta(days=2)) == Outcome()
    assert last_of(engine, made) is None


def test_an_operator_without_any_domain_loses_its_clients_too(
    certify: Certify, engine: Engine, now: datetime
) -> None:
    made = certify(profile=OPERATOR_CLIENT.name)
    run(engine, "UPDATE trusted_domain SET departed_at = now()")
    settle(engine, now)
    assert settle(engine, now + timedelta(days=1)) == Outcome(revoked=1)
    assert last_of(engine, made) == ("revoke", "cessationOfOperation")


def test_a_suspension_holds_and_its_end_releases(certify: Certify, engine: Engine, now: datetime) -> None:
    made = certify("mx.one.example")
    run(engine, "UPDATE trusted_domain SET suspended_at = now() WHERE name = 'one.example'")
    assert settle(engine, now) == Outcome(held=1)
    assert settle(engine, now) == Outcome()
    run(engine, "UPDATE trusted_domain SET suspended_at = NULL")
    assert settle(engine, now) == Outcome(released=1)
    found = last_of(engine, made)
    assert found
    assert found[0] == RevocationAction.RELEASE.value


class Away:
    """A signer whose answer is lost, as when its process is killed."""

    def sign_certificate(self, serial: str) -> bytes:
        raise Refusal(Kind.UNAVAILABLE, "signer-unavailable", f"away: {serial}")


def test_the_same_request_takes_up_its_reservation_and_another_does_not(
    certify: Certify, engine: Engine
) -> None:
    key = new_key()
    with pytest.raises(Refusal, match="away"):
        certify("mx.one.example", key=key, signer=Away())
    with pytest.raises(Refusal) as refused:
        certify("imap.one.example", key=key)
    assert code_of(refused) == "key-already-certified"
    made = certify("mx.one.example", key=key)
    with engine.connect() as connection:
        query = "SELECT array_agg(serial) FROM operator_certificate"
        assert connection.execute(text(query)).scalar_one() == [made.serial]
    with pytest.raises(Refusal) as refused:
        certify("mx.one.example", key=key)
    assert code_of(refused) == "key-already-certified"


class Overheard(InProcessSigner):
    """The real signer; while it works, somebody shows that he has the key."""

    def __init__(self, signer: InProcessSigner, act: Callable[[], object]) -> None:
        vars(self).update(vars(signer))
        self._act = act

    def sign_certificate(self, serial: Serial) -> bytes:
        self._act()
        return super().sign_certificate(serial)


def test_a_key_reported_before_or_while_it_is_signed_serves_no_operator(
    certify: Certify, engine: Engine, authority: Established, now: datetime
) -> None:
    def report(key: Key) -> None:
        with transaction(engine) as connection:
            compromise_reports.report(
                connection, now=now, actor=Actor("test"), csr=request_for(key, compromise_reports.SENTENCE)
            )

    before, meanwhile = new_key(), new_key()
    with pytest.raises(Refusal, match="away"):
        certify("mx.one.example", key=before, signer=Away())
    report(before)
    for key, signer in ((before, None), (meanwhile, Overheard(authority.signer, lambda: report(meanwhile)))):
        with pytest.raises(Refusal) as refused:
            certify("mx.one.example", key=key, signer=signer)
        assert code_of(refused) == "key-blocked"
    with engine.connect() as connection:
        query = (
            "SELECT (SELECT array_agg(serial) FROM certificate JOIN operator_certificate USING (serial))"
            " = (SELECT array_agg(serial) FROM revocation WHERE action = 'revoke')"
        )
        assert connection.execute(text(query)).scalar_one()


def test_two_operators_never_share_a_key_nor_with_a_person(
    certify: Certify, engine: Engine, authority: Established, now: datetime
) -> None:
    key = new_key()
    certify("mx.one.example", key=key)
    other = token_of(engine, now, OTHER, "other")
    with pytest.raises(Refusal) as refused:
        certify("mx.other.example", key=key, token=other)
    assert code_of(refused) == "key-already-certified"
    person = enrol(engine, now, seed_practitioner(engine, 3))
    with pytest.raises(Refusal) as refused:
        for_enrolment.issue_for_enrolment(
            engine, authority.signer, now=now, token=person.first, enrolment_id=person.id,
            csr=request_for(key), base_url=BASE_URL, thorough=False,
        )  # fmt: skip
    assert code_of(refused) == "key-already-certified"


def test_an_operator_sees_its_own_certificates_only(certify: Certify, engine: Engine, now: datetime) -> None:
    made = {certify("mx.one.example").serial, certify("imap.one.example").serial}
    other = token_of(engine, now, OTHER, "other")
    with transaction(engine) as connection:
        own = for_operator.made_for(
            connection, token=token_of(engine, now, name="second"), after=None, limit=10
        )
        assert {one.certificate.serial for one in own} == made
        assert for_operator.made_for(connection, token=other, after=None, limit=10) == []


def test_an_operator_lifts_its_own_holds_and_no_other(
    certify: Certify, engine: Engine, now: datetime
) -> None:
    own, colleague = token_of(engine, now, name="first"), token_of(engine, now, name="second")
    made = certify("mx.one.example")

    def hold(token: access.Token) -> None:
        with transaction(engine) as connection:
            requests.revoke_as(
                connection, now=now, token=token, serial=made.serial, reason=RevocationReason.CERTIFICATE_HOLD
            )

    def release(token: access.Token) -> None:
        with transaction(engine) as connection:
            releasing.release_as(connection, now=now, token=token, serial=made.serial)

    hold(own)
    release(colleague)
    owner = access.Token(own.id + 1000, "owner", access.Role.ADMIN, "", own.expires_at)
    hold(owner)
    with pytest.raises(Refusal) as refused:
        release(own)
    assert (refused.value.kind, code_of(refused)) == (Kind.FORBIDDEN, "reserved-to-owner")
    release(owner)

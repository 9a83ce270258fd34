"""What each profile makes, read by tools not ours: OpenSSL, GnuTLS, pkilint's S/MIME requirements."""

import re
import subprocess
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine

from pki.certificates.builder import subject_of
from pki.certificates.names import LONGEST_COMMON_NAME, person_name, plain
from pki.certificates.profiles import (
    APPLICATION,
    OF_MAILBOXES,
    OPERATOR_CLIENT,
    OPERATOR_CLIENT_SHORT,
    OPERATOR_SERVER,
    OPERATOR_SERVER_SHORT,
    ORGANISATION,
    PRACTITIONER,
    PRACTITIONER_ENCRYPT,
    PRACTITIONER_SIGN,
    PROFILES,
    SERVICE_TLS,
    OrganisationNames,
    PersonNames,
    Profile,
    Urls,
)
from pki.lint import pkix
from pki.model import JOINED
from tests.factories import seed_practitioner
from tests.pki.conftest import Issue, enrol
from tests.pki.lint.test_lint import ADDRESS, Encoding, leaf

ROOT = Path(__file__).resolve().parents[3]


MAIL = [PROFILES[name] for name in sorted(OF_MAILBOXES)]


@pytest.mark.parametrize("profile", [*MAIL, SERVICE_TLS, OPERATOR_SERVER, OPERATOR_CLIENT])
def test_gnutls_reads_what_we_make(profile: object, tmp_path: Path) -> None:
    made = tmp_path / "made.pem"
    made.write_bytes(leaf(profile).public_bytes(Encoding.PEM))  # type: ignore[arg-type]
    told = subprocess.run(
        ["certtool", "--certificate-info", "--infile", str(made)], capture_output=True, text=True, check=True
    ).stdout
    assert "http://trust.example/crl/persons-1/7.crl" in told
    assert "Certificate Authority (CA): FALSE" in told


@pytest.mark.parametrize("profile", [OPERATOR_SERVER_SHORT, OPERATOR_CLIENT_SHORT])
@pytest.mark.parametrize("tool", [("certtool", "-i", "--infile"), ("openssl", "x509", "-text", "-in")])
def test_a_short_lived_one_points_to_no_status(
    profile: Profile, tool: tuple[str, ...], tmp_path: Path
) -> None:
    """RFC 9608 3: with noRevAvail neither CRL distribution points nor freshestCRL nor OCSP."""
    made = tmp_path / "made.pem"
    made.write_bytes(leaf(profile).public_bytes(Encoding.PEM))
    told = subprocess.run([*tool, str(made)], capture_output=True, text=True, check=True).stdout
    assert re.search(r"2\.5\.29\.56|No Revocation Available|noRevAvail", told)
    assert "http://trust.example/ca/persons-1.cer" in told
    assert not re.search(r"/crl/|/ocsp", told)
    family = PROFILES[profile.family]
    assert (profile.key_usage_ec, profile.purposes) == (family.key_usage_ec, family.purposes)


def test_openssl_shows_the_professions_of_a_practitioner(tmp_path: Path) -> None:
    made = tmp_path / "made.pem"
    made.write_bytes(leaf(PRACTITIONER).public_bytes(Encoding.PEM))
    told = subprocess.run(
        ["openssl", "x509", "-in", str(made), "-noout", "-text", "-nameopt", "utf8"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert told.count("registrationNumber: 810099000019") == 2
    assert "1.2.250.1.71.1.2.7" in told
    assert "D'ARTAGNAN-ŒUVRARD" in told


# What we knowingly leave: docs/reference/profiles.md says why.
LEFT = {
    # The test's names end in .example; no reserved policy is asserted by a CA that is not audited for it.
    "cabf.internal_domain_name",
    "cabf.smime.no_required_reserved_policy_oid",
    # FINESS has no scheme in the baseline requirements.
    "cabf.invalid_organization_identifier_registration_scheme",
}


@cache
def smime_of(level: str) -> Any:
    """What the requirements ask at this level: pkilint takes half a second to put it together."""
    from pkilint.cabf import smime
    from pkilint.cabf.smime.smime_constants import Generation, ValidationLevel
    from pkilint.pkix import certificate

    return certificate.create_pkix_certificate_validator_container(
        smime.create_decoding_validators(),
        smime.create_subscriber_validators(ValidationLevel[level], Generation.STRICT),
    )


@pytest.mark.parametrize("rsa", [False, True], ids=["P-256", "RSA-3072"])
@pytest.mark.parametrize("profile", MAIL, ids=[profile.name for profile in MAIL])
def test_the_smime_requirements_object_to_nothing_but_what_we_say(profile: Profile, *, rsa: bool) -> None:
    from pkilint import loader

    container = smime_of("INDIVIDUAL" if profile.family == PRACTITIONER.name else "ORGANIZATION")
    made = loader.load_certificate(leaf(profile, rsa=rsa).public_bytes(Encoding.DER), "")
    found = {
        described.finding.code
        for result in container.validate(made.root)
        for described in result.finding_descriptions
        if described.finding.severity.name in {"ERROR", "FATAL", "WARNING"}
    }
    assert found <= LEFT


@pytest.mark.parametrize("rsa", [False, True], ids=["P-256", "RSA-3072"])
@pytest.mark.parametrize("profile", MAIL, ids=[profile.name for profile in MAIL])
def test_only_joined_keys_are_mixed_in_the_eyes_of_etsi(
    profile: Profile, *, rsa: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EN 319 412-2 NAT-4.3.2-1 advises one use for one key: accepted of a joined one, and of it alone."""
    monkeypatch.setattr(pkix, "ACCEPTED", {})
    _, advised = pkix.findings(leaf(profile, rsa=rsa).public_bytes(Encoding.DER), profile.name)
    mixed = "pkilint:etsi.en_319_412_2.nat-4.3.2-1.mixed_key_usage_setting"
    assert (mixed in {finding.lint for finding in advised}) == (not profile.variant_of)


@cache
def alone(requirement: str) -> Any:
    """One set of requirements as pkilint's own tools put it together."""
    from pkilint.pkix import certificate

    return certificate.create_pkix_certificate_validator_container(*pkix._set(requirement))


def asked_apart(der: bytes, profile: Profile) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    """What each set finds by itself, the certificate decoded anew for each, as pkilint's own tools do it."""
    from pkilint import loader

    wrong: dict[str, str] = {}
    advised: dict[str, str] = {}
    known = pkix.ACCEPTED.keys() | pkix.ACCEPTED_OF.get(profile.name, {}).keys()
    for requirement in ("pkix", *pkix.REQUIREMENTS.get(profile.family, ())):
        for result in alone(requirement).validate(loader.load_certificate(der, "").root):
            for described in result.finding_descriptions:
                into = {"ERROR": wrong, "FATAL": wrong, "WARNING": advised, "NOTICE": advised}
                code, severity = described.finding.code, described.finding.severity.name
                if code not in known and severity in into:
                    into[severity].setdefault(f"pkilint:{code}", described.message or code)
    return set(wrong.items()), set(advised.items())


@pytest.mark.parametrize(
    "profile", [PRACTITIONER, ORGANISATION, OPERATOR_SERVER, OPERATOR_SERVER_SHORT, SERVICE_TLS]
)
@pytest.mark.filterwarnings("ignore")
def test_one_walk_finds_what_each_set_finds_by_itself(profile: Profile) -> None:
    """Over a sound certificate, and over forty with a bit turned over that pkilint can still read."""
    sound = leaf(profile).public_bytes(Encoding.DER)
    random, compared, faulty = Random(profile.name), 0, 0
    broken = sound
    while compared <= 40:
        try:
            apart = asked_apart(broken, profile)
        except ValueError:
            apart = None
        if apart is not None:
            wrong, advised = pkix.findings(broken, profile.name)
            assert {(one.lint, one.text) for one in wrong} == apart[0]
            assert {(one.lint, one.text) for one in advised} == apart[1]
            compared, faulty = compared + 1, faulty + bool(wrong)
        at = random.randrange(60, len(sound) - 80)
        broken = sound[:at] + bytes((sound[at] ^ 1 << random.randrange(8),)) + sound[at + 1 :]
    assert faulty > 5


def test_a_variant_is_its_joined_profile_in_all_but_key_usage() -> None:
    for profile in MAIL:
        joined = PROFILES[profile.family]
        assert replace(
            profile, name=joined.name, key_usage_ec=joined.key_usage_ec, key_usage_rsa=joined.key_usage_rsa,
            serves=joined.serves, variant_of="", sources=joined.sources,
        ) == joined  # fmt: skip
    assert [profile.name for profile in MAIL if profile.serves == JOINED] == [
        "application-smime", "organisation-smime", "practitioner-smime",
    ]  # fmt: skip


def test_the_two_uses_of_a_pair_share_no_bit_and_make_the_joined_one() -> None:
    for family in (PRACTITIONER, ORGANISATION, APPLICATION):
        sign, encrypt = (PROFILES[f"{family.name}-{use}"] for use in ("sign", "encrypt"))
        for kind in ("key_usage_ec", "key_usage_rsa"):
            assert not getattr(sign, kind) & getattr(encrypt, kind)
            assert getattr(sign, kind) | getattr(encrypt, kind) == getattr(family, kind)
        assert sign.serves | encrypt.serves == family.serves
        assert not sign.serves & encrypt.serves


@pytest.mark.parametrize(
    ("profile", "says"),
    [
        (PRACTITIONER, ("S/MIME signing : Yes", "S/MIME encryption : Yes")),
        (PRACTITIONER_SIGN, ("S/MIME signing : Yes", "S/MIME encryption : No")),
        (PRACTITIONER_ENCRYPT, ("S/MIME signing : No", "S/MIME encryption : Yes")),
    ],
)
def test_openssl_tells_the_uses_of_rsa_keys_apart(
    profile: Profile, says: tuple[str, str], tmp_path: Path
) -> None:
    made = tmp_path / "made.pem"
    made.write_bytes(leaf(profile, rsa=True).public_bytes(Encoding.PEM))
    told = subprocess.run(
        ["openssl", "x509", "-in", str(made), "-noout", "-purpose"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for line in says:
        assert f"{line}\n" in told


def test_no_profile_lasts_longer_than_its_sources_allow() -> None:
    assert {name: profile.longest for name, profile in PROFILES.items() if not profile.is_authority} == {
        **{profile.name: timedelta(days=824) for profile in MAIL},
        "ocsp-signer": timedelta(days=30),
        "list-signer": timedelta(days=30),
        "service-tls": timedelta(days=199),
        "operator-server": timedelta(days=199),
        "operator-client": timedelta(days=398),
        "operator-server-short-lived": timedelta(days=7),
        "operator-client-short-lived": timedelta(days=7),
    }


def test_every_profile_is_described_with_its_figure_and_nothing_else_is() -> None:
    described = (ROOT / "docs" / "reference" / "profiles.md").read_text()
    sections = re.findall(r"^## `([a-z-]+)`$", described, re.MULTILINE)
    assert sections == list(PROFILES)
    for name, section in zip(sections, re.split(r"^## `", described, flags=re.MULTILINE)[1:], strict=True):
        profile = PROFILES[name]
        assert f"{profile.longest.days} days" in section, name
        if profile.policy is not None:
            assert profile.policy.dotted_string in section, name


def test_urls_are_the_same_with_and_without_a_final_slash() -> None:
    bare, slashed = Urls("http://trust.example"), Urls("http://trust.example/")
    assert bare.ocsp == slashed.ocsp == "http://trust.example/ocsp"
    assert (
        bare.crl("persons-1", 3) == slashed.crl("persons-1", 3) == "http://trust.example/crl/persons-1/3.crl"
    )
    assert bare.certificate("root-1") == slashed.certificate("root-1") == "http://trust.example/ca/root-1.cer"


NAME = st.text(st.characters(codec="utf-8"), min_size=1, max_size=80).filter(plain)


@given(NAME, NAME)
def test_whatever_the_register_calls_people_the_subject_holds_it(given_name: str, family_name: str) -> None:
    names = PersonNames(given_name, family_name, "810099000019", ("10",), ADDRESS)
    subject = subject_of(names)
    (surname,) = subject.get_attributes_for_oid(x509.NameOID.SURNAME)
    assert surname.value == plain(family_name)
    (common,) = subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    assert 0 < len(str(common.value).encode()) <= LONGEST_COMMON_NAME
    assert str(common.value) == str(common.value).strip()


def test_a_long_name_loses_further_given_names_first() -> None:
    many = "Marie Charlotte Éléonore Joséphine Antoinette Gabrielle"
    assert person_name(many, "DE LA ROCHEFOUCAULD") == "Marie DE LA ROCHEFOUCAULD"
    assert len(person_name("Marie", "X" * 90)) == 64


def test_whoever_has_one_name_is_named_by_it(engine: Engine, issue: Issue, now: datetime) -> None:
    issued = issue(who=enrol(engine, now, seed_practitioner(engine, 2, given_name="")), thorough=True)
    assert "CN=MARTIN" in issued.subject
    assert "2.5.4.42" not in issued.subject


def test_a_long_establishment_name_is_cut_where_the_standard_ends() -> None:
    subject = subject_of(OrganisationNames("CENTRE HOSPITALIER " * 6, "750990012", ADDRESS))
    (organisation,) = subject.get_attributes_for_oid(x509.NameOID.ORGANIZATION_NAME)
    assert len(str(organisation.value)) <= 64
    (identifier,) = subject.get_attributes_for_oid(x509.NameOID.ORGANIZATION_IDENTIFIER)
    assert identifier.value == "FI:FR-750990012"

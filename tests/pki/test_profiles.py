"""What each profile makes, read by tools not ours: OpenSSL, GnuTLS, pkilint's S/MIME requirements."""

import re
import subprocess
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine

from pki.profiles import (
    APPLICATION,
    OPERATOR_CLIENT,
    OPERATOR_SERVER,
    ORGANISATION,
    PRACTITIONER,
    PROFILES,
    SERVICE_TLS,
    OrganisationNames,
    PersonNames,
    Urls,
)
from pki.rules import LONGEST_COMMON_NAME, person_name, plain
from pki.tbs import subject_of
from tests.factories import seed_practitioner
from tests.pki.conftest import Issue, enrol
from tests.pki.test_lint import ADDRESS, Encoding, leaf

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "profile", [PRACTITIONER, ORGANISATION, APPLICATION, SERVICE_TLS, OPERATOR_SERVER, OPERATOR_CLIENT]
)
def test_gnutls_reads_what_we_make(profile: object, tmp_path: Path) -> None:
    made = tmp_path / "made.pem"
    made.write_bytes(leaf(profile).public_bytes(Encoding.PEM))  # type: ignore[arg-type]
    told = subprocess.run(
        ["certtool", "--certificate-info", "--infile", str(made)], capture_output=True, text=True, check=True
    ).stdout
    assert "http://trust.example/crl/persons-1/7.crl" in told
    assert "Certificate Authority (CA): FALSE" in told


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


@pytest.mark.parametrize(("profile", "level"), [(PRACTITIONER, "INDIVIDUAL"), (ORGANISATION, "ORGANIZATION")])
def test_the_smime_requirements_object_to_nothing_but_what_we_say(profile: object, level: str) -> None:
    from pkilint import loader
    from pkilint.cabf import smime
    from pkilint.cabf.smime.smime_constants import Generation, ValidationLevel
    from pkilint.pkix import certificate

    container = certificate.create_pkix_certificate_validator_container(
        smime.create_decoding_validators(),
        smime.create_subscriber_validators(ValidationLevel[level], Generation.STRICT),
    )
    made = loader.load_certificate(leaf(profile).public_bytes(Encoding.DER), "")  # type: ignore[arg-type]
    found = {
        described.finding.code
        for result in container.validate(made.root)
        for described in result.finding_descriptions
        if described.finding.severity.name in {"ERROR", "FATAL", "WARNING"}
    }
    assert found <= LEFT


def test_no_profile_lasts_longer_than_its_sources_allow() -> None:
    assert {name: profile.longest for name, profile in PROFILES.items() if not profile.is_authority} == {
        "practitioner-smime": timedelta(days=824),
        "organisation-smime": timedelta(days=824),
        "ocsp-signer": timedelta(days=30),
        "list-signer": timedelta(days=30),
        "application-smime": timedelta(days=824),
        "service-tls": timedelta(days=199),
        "operator-server": timedelta(days=199),
        "operator-client": timedelta(days=398),
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

"""Each lint stays silent on what each profile makes and speaks on a certificate wrong in that one way."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from ipaddress import ip_address
from math import prod

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

from pki.certificates.builder import NO_REV_AVAIL, Issuer, unsigned
from pki.certificates.profiles import (
    APPLICATION,
    CROSS,
    ISSUING,
    LIST_SIGNER,
    MAIL_APART_FROM,
    OCSP_SIGNER,
    OF_MAILBOXES,
    OPERATOR_CLIENT,
    OPERATOR_SERVER,
    OPERATOR_SERVER_SHORT,
    ORGANISATION,
    PRACTITIONER,
    PRACTITIONER_ENCRYPT,
    PRACTITIONER_SIGN,
    PROFILES,
    ROOT,
    SERVICE_TLS,
    ApplicationNames,
    AuthorityNames,
    Names,
    OperatorNames,
    OrganisationNames,
    PersonNames,
    Profile,
    ResponderNames,
    ServiceNames,
    Urls,
    profile_of,
)
from pki.certificates.signature_algorithms import unsealed
from pki.lint import key, pkix
from pki.lint.catalogue import LINTS
from pki.lint.lint import Case, run
from pki.model import CrlForm, serial_of
from pki.signing.seal import seal

NOW = datetime(2026, 9, 1, 12, tzinfo=UTC)
START = NOW - timedelta(minutes=5)
SECOND = timedelta(seconds=1)
ADDRESS = "person-1@one.example"
NAMES: dict[str, Names] = {
    ROOT.name: AuthorityNames("Sceau Root CA 1"),
    ISSUING.name: AuthorityNames("Sceau Persons CA 1"),
    CROSS.name: AuthorityNames("Sceau Root CA 2"),
    PRACTITIONER.name: PersonNames("Zoé Anne", "D'ARTAGNAN-ŒUVRARD", "810099000019", ("10", "60"), ADDRESS),
    ORGANISATION.name: OrganisationNames("CLINIQUE DES LILAS", "750990012", ADDRESS, "URGENCES"),
    APPLICATION.name: ApplicationNames("CLINIQUE DES LILAS", "750990012", ADDRESS),
    OPERATOR_SERVER.name: ServiceNames(("mx.one.example", "imap.one.example")),
    OPERATOR_CLIENT.name: OperatorNames("Demo operator", 3),
    OCSP_SIGNER.name: ResponderNames("OCSP persons-1 2026-09-01"),
    LIST_SIGNER.name: ResponderNames("Lists persons-1 2026-09-01"),
    SERVICE_TLS.name: ServiceNames(("ldap.example",), (ip_address("127.0.0.1"), ip_address("::1"))),
}
Make = Callable[..., x509.Certificate]


@cache
def keys() -> tuple[ec.EllipticCurvePrivateKey, ec.EllipticCurvePrivateKey, ec.EllipticCurvePrivateKey]:
    """Of root, issuing CA and leaf."""
    leaf = ec.generate_private_key(ec.SECP256R1())
    return ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP256R1()), leaf


@cache
def chain() -> tuple[x509.Certificate, x509.Certificate]:
    root_key, ca_key, _ = keys()
    span = (START, START + timedelta(days=12 * 365) - SECOND)
    urls = Urls("http://trust.example")

    def sealed(made: x509.Certificate) -> x509.Certificate:
        return x509.load_der_x509_certificate(seal(made.tbs_certificate_bytes, root_key))

    root = sealed(
        unsigned(
            serial=serial_of(x509.random_serial_number()),
            profile=ROOT,
            names=NAMES[ROOT.name],
            public_key=root_key.public_key(),
            issuer=Issuer("root-1", None, root_key.public_key(), CrlForm.PLAIN),
            validity=span,
            urls=urls,
            shard=0,
        )
    )
    issuing = sealed(
        unsigned(
            serial=serial_of(x509.random_serial_number()),
            profile=ISSUING,
            names=NAMES[ISSUING.name],
            public_key=ca_key.public_key(),
            issuer=Issuer("root-1", root, root_key.public_key(), CrlForm.PLAIN),
            validity=span,
            urls=urls,
            shard=0,
        )
    )
    return root, issuing


def leaf(
    profile: Profile,
    names: Names | None = None,
    *,
    rsa: bool = False,
    crl_form: CrlForm = CrlForm.NATIONAL,
) -> x509.Certificate:
    _, ca_key, own = keys()
    key = good_rsa() if rsa else own
    return unsigned(
        serial=serial_of(x509.random_serial_number()),
        profile=profile,
        names=names or NAMES[profile.family],
        public_key=key.public_key(),
        issuer=Issuer("persons-1", chain()[1], ca_key.public_key(), crl_form),
        validity=(START, START + min(profile.longest, timedelta(days=824)) - SECOND),
        urls=Urls("http://trust.example"),
        shard=7,
    )


def case(
    certificate: x509.Certificate,
    profile: Profile = PRACTITIONER,
    mailbox: str = ADDRESS,
    crl_form: CrlForm = CrlForm.NATIONAL,
    role: str = "persons",
) -> Case:
    return Case(certificate, profile, chain()[1], mailbox, crl_form, role)


def of_each_profile() -> list[Case]:
    root, issuing = chain()
    made = [Case(root, ROOT, None), Case(issuing, ISSUING, root)]
    mail = [PROFILES[name] for name in sorted(OF_MAILBOXES)]
    made += [case(leaf(profile, rsa=True), profile) for profile in mail]
    every = [profile for profile in PROFILES.values() if not profile.is_authority]
    return made + [
        case(leaf(profile, crl_form=form), profile, crl_form=form) for profile in every for form in CrlForm
    ]


def test_what_each_profile_makes_passes_our_lints_and_pkilint() -> None:
    for made in of_each_profile():
        assert run(LINTS, made) == [], made.profile.name
        assert pkix.findings(made.certificate.public_bytes(Encoding.DER), made.profile.name) == ([], []), (
            made.profile.name
        )


def test_each_profile_is_known_again_by_what_it_made() -> None:
    for made in of_each_profile():
        assert profile_of(made.certificate) is (None if made.profile.is_authority else made.profile)


# One way of being wrong each: rebuild a good certificate with one thing changed.


def rebuilt(
    good: x509.Certificate,
    *,
    serial: int | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
    subject: x509.Name | None = None,
    issuer: x509.Name | None = None,
    public_key: ec.EllipticCurvePublicKey | None = None,
    drop: x509.ObjectIdentifier | None = None,
    add: x509.ExtensionType | None = None,
    critical: bool | None = None,
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .serial_number(serial or good.serial_number)
        .subject_name(subject or good.subject)
        .issuer_name(issuer or good.issuer)
        .public_key(public_key or good.public_key())  # type: ignore[arg-type]
        .not_valid_before(start or good.not_valid_before_utc)
        .not_valid_after(end or good.not_valid_after_utc)
    )
    replaced = drop or (add.oid if add is not None else None)
    for extension in good.extensions:
        if extension.oid != replaced:
            builder = builder.add_extension(extension.value, critical=extension.critical)
    if add is not None:
        kept = ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE
        builder = builder.add_extension(add, critical=add.oid in kept if critical is None else critical)
    return builder.sign(keys()[1], hashes.SHA256())


def named(*attributes: tuple[x509.ObjectIdentifier, str]) -> x509.Name:
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in attributes])


PERSON = (
    (NameOID.COUNTRY_NAME, "FR"),
    (NameOID.SURNAME, "X"),
    (NameOID.GIVEN_NAME, "Y"),
    (NameOID.COMMON_NAME, "Y X"),
    (NameOID.SERIAL_NUMBER, "810099000019"),
)


def usage(*names: str) -> x509.KeyUsage:
    every = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
    )
    return x509.KeyUsage(**{name: name in names for name in every}, encipher_only=False, decipher_only=False)


def negative_serial(good: x509.Certificate) -> x509.Certificate:
    """The builder refuses one, so the serial's highest bit is set in the bytes it made."""
    tbs = bytearray(good.tbs_certificate_bytes)
    place = bytes(tbs).index(good.serial_number.to_bytes(20, "big"))
    tbs[place] |= 0x80
    return unsealed(bytes(tbs))


ODD = (
    "-", ".", "--", "- .", "...", "N/A", "*", "?", "_", "\u2013", "\u2014", "\u2010", "'", '"', ",", "(-)",
    "/", "\\", "#", "@", "&", "+", "=", "1", "A", "-A", "A" * 65, "\u00c9" * 70, "\u00b7", "\u2026", "A;B",
    "\u540d\u524d", "e\u0301", "A\u200bB", "<b>",
)  # fmt: skip
WIDE = (1 << 158) + 12345
BAD: dict[str, Callable[[], Case]] = {
    "serial-range": lambda: case(negative_serial(rebuilt(leaf(PRACTITIONER), serial=WIDE))),
    "serial-entropy": lambda: case(rebuilt(leaf(PRACTITIONER), serial=12345)),
    "validity-length": lambda: case(rebuilt(leaf(PRACTITIONER), end=START + timedelta(days=825))),
    "validity-inside-issuer": lambda: case(
        rebuilt(leaf(PRACTITIONER), start=START - SECOND, end=START + SECOND * 9)
    ),
    "key-not-issuers": lambda: case(
        rebuilt(
            rebuilt(leaf(PRACTITIONER), public_key=keys()[1].public_key()),
            add=x509.SubjectKeyIdentifier.from_public_key(keys()[1].public_key()),
        )
    ),
    "subject-attributes": lambda: case(rebuilt(leaf(PRACTITIONER), subject=named(*PERSON[1:]))),
    "subject-spelling": lambda: case(
        rebuilt(leaf(PRACTITIONER), subject=named(*PERSON[:3], (NameOID.COMMON_NAME, "Y\u200eX "), PERSON[4]))
    ),
    "subject-significant": lambda: case(
        rebuilt(leaf(PRACTITIONER), subject=named(PERSON[0], (NameOID.SURNAME, "-"), *PERSON[2:]))
    ),
    "subject-length": lambda: case(
        rebuilt(leaf(PRACTITIONER), subject=named(*PERSON[:4], (NameOID.SERIAL_NUMBER, "8" * 65)))
    ),
    "subject-country": lambda: case(
        rebuilt(leaf(PRACTITIONER), subject=named((NameOID.COUNTRY_NAME, "XX"), *PERSON[1:]))
    ),
    "san-mailbox": lambda: case(leaf(PRACTITIONER), mailbox="someone-else@one.example"),
    "san-hosts": lambda: case(
        rebuilt(leaf(SERVICE_TLS), subject=named((NameOID.COMMON_NAME, "other.example"))), SERVICE_TLS
    ),
    "san-service-hosts": lambda: case(
        rebuilt(
            leaf(SERVICE_TLS),
            add=x509.SubjectAlternativeName([x509.DNSName("ldap.example"), x509.DNSName("intranet")]),
        ),
        SERVICE_TLS,
    ),
    "san-operator-hosts": lambda: case(
        rebuilt(
            leaf(OPERATOR_SERVER),
            add=x509.SubjectAlternativeName([x509.DNSName("mx.one.example"), x509.DNSName("*.one.example")]),
        ),
        OPERATOR_SERVER,
    ),
    "issuer-name": lambda: case(
        rebuilt(
            leaf(PRACTITIONER), issuer=named((NameOID.COUNTRY_NAME, "FR"), (NameOID.COMMON_NAME, "Sceau"))
        )
    ),
    "extension-set": lambda: case(rebuilt(leaf(PRACTITIONER), add=x509.OCSPNoCheck(), critical=False)),
    "extension-criticality": lambda: case(
        rebuilt(leaf(PRACTITIONER), add=x509.BasicConstraints(ca=False, path_length=None), critical=False)
    ),
    "key-usage": lambda: case(
        rebuilt(leaf(PRACTITIONER), add=usage("digital_signature", "key_encipherment"))
    ),
    "extended-key-usage": lambda: case(
        rebuilt(leaf(PRACTITIONER), add=x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING]))
    ),
    "purposes-apart": lambda: case(
        rebuilt(leaf(LIST_SIGNER), start=MAIL_APART_FROM, end=MAIL_APART_FROM + timedelta(days=29)),
        LIST_SIGNER,
        role="organisations",
    ),
    "no-rev-avail": lambda: case(
        rebuilt(leaf(OPERATOR_SERVER_SHORT), add=x509.UnrecognizedExtension(NO_REV_AVAIL, b"\x04\x00")),
        OPERATOR_SERVER_SHORT,
    ),
    "basic-constraints": lambda: case(
        rebuilt(leaf(PRACTITIONER), add=x509.BasicConstraints(ca=True, path_length=None))
    ),
    "certificate-policy": lambda: case(
        rebuilt(
            leaf(PRACTITIONER),
            add=x509.CertificatePolicies(
                [x509.PolicyInformation(x509.ObjectIdentifier("2.5.29.32.0"), None)]
            ),
        )
    ),
    "key-identifiers": lambda: case(rebuilt(leaf(PRACTITIONER), add=x509.SubjectKeyIdentifier(b"\x01" * 20))),
    "status-urls": lambda: case(
        rebuilt(
            leaf(PRACTITIONER),
            add=x509.CRLDistributionPoints(
                [
                    x509.DistributionPoint(
                        [x509.UniformResourceIdentifier("ldap://x.example")], None, None, None
                    )
                ]
            ),
        )
    ),
}


@pytest.mark.parametrize(
    ("role", "purposes", "day", "refused"),
    [
        ("persons", ["EMAIL_PROTECTION", "CLIENT_AUTH"], 1, False),
        ("persons", ["SERVER_AUTH"], 1, True),
        ("persons", ["SERVER_AUTH"], -1, False),
        ("organisations", ["CODE_SIGNING"], 1, True),
        ("organisations", ["OCSP_SIGNING"], 1, False),
        ("servers", ["SERVER_AUTH"], 1, False),
        ("servers", ["EMAIL_PROTECTION"], -1, True),
        ("servers", ["SERVER_AUTH", "CLIENT_AUTH"], -1, True),
    ],
)
def test_mail_servers_and_clients_are_kept_apart(
    role: str, purposes: list[str], day: int, *, refused: bool
) -> None:
    """The S/MIME requirements from 2027-07-01 on; what the signer is shown has no other day than its own."""
    oids = [getattr(ExtendedKeyUsageOID, name) for name in purposes]
    start = MAIL_APART_FROM + timedelta(days=min(day, 0))
    made = rebuilt(leaf(PRACTITIONER), start=start, add=x509.ExtendedKeyUsage(oids))
    found = {finding.lint for finding in run(LINTS, case(made, role=role))}
    assert ("purposes-apart" in found) == refused


@pytest.mark.parametrize("form", list(CrlForm))
def test_a_certificate_follows_the_form_of_its_ca(form: CrlForm) -> None:
    made = leaf(PRACTITIONER, crl_form=form)
    (other,) = set(CrlForm) - {form}
    assert run(LINTS, case(made, crl_form=form)) == []
    assert {finding.lint for finding in run(LINTS, case(made, crl_form=other))} == {"extension-set"}


@pytest.mark.parametrize(
    ("profile", "also"),
    [
        (PRACTITIONER_SIGN, ("digital_signature", "key_agreement")),
        (PRACTITIONER_SIGN, ("digital_signature", "content_commitment")),
        (PRACTITIONER_ENCRYPT, ("key_agreement", "digital_signature")),
        (PRACTITIONER_ENCRYPT, ("key_encipherment",)),
    ],
)
def test_a_key_for_one_use_is_certified_for_no_other(profile: Profile, also: tuple[str, ...]) -> None:
    """The signer runs these lints too: who writes into the database gets no joined key under these names."""
    made = case(rebuilt(leaf(profile), add=usage(*also)), profile)
    assert {finding.lint for finding in run(LINTS, made)} == {"key-usage"}


# The parser warns of the serial that our lint is there to find.
@pytest.mark.filterwarnings("ignore:Parsed a serial number")
@pytest.mark.parametrize("name", BAD)
def test_each_lint_finds_its_fault_and_no_other_lint_speaks(name: str) -> None:
    assert {finding.lint for finding in run(LINTS, BAD[name]())} == {name}


def test_every_lint_has_a_name_of_its_own_a_citation_and_a_bad_certificate() -> None:
    names = [lint.name for lint in LINTS]
    assert len(names) == len(set(names))
    assert all(lint.citation for lint in LINTS)
    assert set(names) == set(BAD) | set(KEYS)


@pytest.mark.parametrize("value", ODD)
def test_our_lints_refuse_every_name_that_pkilint_refuses(value: str) -> None:
    """Where a road must be fast, ours alone are asked: a batch."""
    named_so: list[tuple[Profile, Names]] = [
        (PRACTITIONER, PersonNames(value, "MARTIN", "810099000019", ("10",), ADDRESS)),
        (PRACTITIONER, PersonNames("Zoé", value, "810099000019", ("10",), ADDRESS)),
        (ORGANISATION, OrganisationNames(value, "750990012", ADDRESS)),
        (APPLICATION, ApplicationNames(value, "750990012", ADDRESS)),
        (OPERATOR_CLIENT, OperatorNames(value, 3)),
    ]
    for profile, names in named_so:
        certificate = leaf(profile, names)
        theirs, _ = pkix.findings(certificate.public_bytes(Encoding.DER), profile.name)
        ours = run(LINTS, case(certificate, profile))
        assert ours or not theirs, (profile.name, theirs)
    # Whoever is called so is refused by both, whatever stands for a name.
    if not any(letter.isalnum() for letter in value):
        assert run(LINTS, case(leaf(*named_so[1])))


def test_pkilint_sees_what_our_lints_do_not_look_at() -> None:
    # Two distribution points with the same name of a scheme nobody fetches, a critical one at that.
    certificate = rebuilt(leaf(PRACTITIONER), drop=ExtensionOID.AUTHORITY_KEY_IDENTIFIER)
    wrong, _ = pkix.findings(certificate.public_bytes(Encoding.DER))
    assert any("authority_key_identifier" in finding.lint for finding in wrong)


# Keys: numbers chosen so that one check alone objects. `rsa.RSAPublicNumbers` takes any modulus.


def rsa_key(modulus: int, exponent: int = 65537) -> rsa.RSAPublicKey:
    return rsa.RSAPublicNumbers(exponent, modulus).public_key()


@cache
def good_rsa() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=3072)


def next_to(prime: int) -> int:
    """A number coprime to the small primes, close above: Fermat's method needs no second prime."""
    candidate = prime + 2
    while any(candidate % small == 0 for small in range(3, 752, 2)):
        candidate += 2
    return candidate


def with_roca_fingerprint() -> int:
    """A modulus that is 1, a power of 65537, modulo every prime of the fingerprint."""
    product = prod(key._ROCA_PRIMES) * 2
    # Coprime to the other small primes and far from a square by construction of k.
    base = (1 << 3071) // product
    for step in range(1, 10_000):
        modulus = 1 + product * (base + step)
        if modulus.bit_length() == 3072 and all(modulus % small for small in range(3, 752, 2)):
            return modulus
    raise AssertionError("no such modulus")


KEYS: dict[str, Callable[[], object]] = {
    "key-kind": lambda: ed25519.Ed25519PrivateKey.generate().public_key(),
    "rsa-size": lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key(),
    "rsa-exponent": lambda: rsa_key(good_rsa().public_key().public_numbers().n, 3),
    "rsa-small-factor": lambda: rsa_key(_multiple_of_751()),
    "rsa-close-primes": lambda: rsa_key(
        good_rsa().private_numbers().p * next_to(good_rsa().private_numbers().p)
    ),
    "rsa-roca": lambda: rsa_key(with_roca_fingerprint()),
}


def _multiple_of_751() -> int:
    modulus = (1 << 3071) // 751 * 751 + 751
    return modulus if modulus % 2 else modulus + 751


@pytest.mark.parametrize("name", KEYS)
def test_each_weakness_is_found_alone(name: str) -> None:
    assert key.weaknesses(KEYS[name]()) == [name]


@pytest.mark.parametrize("curve", [ec.SECP521R1(), ec.SECP256K1(), ec.SECP224R1()])
def test_other_curves_are_not_certified(curve: ec.EllipticCurve) -> None:
    assert key.weaknesses(ec.generate_private_key(curve).public_key()) == ["key-kind"]


def test_sound_keys_pass() -> None:
    for sound in (*(private.public_key() for private in keys()), good_rsa().public_key()):
        assert key.weaknesses(sound) == []

"""The bytes of a certificate before its signature: profile, names and key to TBSCertificate.

Built with `cryptography` and signed with a throw-away key of the CA's kind. The result can be parsed and
linted like any certificate, long before the CA's key is touched.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    SECP384R1,
    EllipticCurve,
    EllipticCurvePublicKey,
    generate_private_key,
)
from cryptography.x509.oid import AuthorityInformationAccessOID as Access
from cryptography.x509.oid import NameOID

from pki.certificates.names import LONGEST_COMMON_NAME, person_name, plain, shortened
from pki.certificates.profiles import (
    COUNTRY,
    PROFESSION_CODES,
    PROFESSION_LABELS,
    PROFESSIONS,
    TRUST_SPACE,
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
)
from pki.certificates.public_keys import PublicKey
from pki.certificates.validity import shard_of
from pki.certificates.validity import validity as validity_of
from pki.model import Authority, CrlForm, Serial

# RFC 5758 3.2, FIPS 186-5: the hash is as strong as the curve.
HASHES: dict[str, hashes.SHA256 | hashes.SHA384] = {
    "secp256r1": hashes.SHA256(),
    "secp384r1": hashes.SHA384(),
}
_READ_AS = {
    NameOID.SERIAL_NUMBER: "serialNumber",
    NameOID.SURNAME: "SN",
    NameOID.GIVEN_NAME: "GN",
    NameOID.ORGANIZATION_IDENTIFIER: "organizationIdentifier",
}
# RFC 9608 2: the value is NULL, the extension not critical.
NO_REV_AVAIL, NOTHING = x509.ObjectIdentifier("2.5.29.56"), b"\x05\x00"
CURVES: dict[str, EllipticCurve] = {"secp256r1": SECP256R1(), "secp384r1": SECP384R1()}


@dataclass(frozen=True)
class Issuer:
    """The CA a certificate will name: its id, its certificate (None for a root that names itself), its key,
    and the form of its CRLs.
    """

    id: str
    certificate: x509.Certificate | None
    key: EllipticCurvePublicKey
    crl_form: CrlForm


@lru_cache(maxsize=64)
def certificate_of(der: bytes) -> x509.Certificate:
    """A CA's certificate: there are few, and each remembers what was read in it."""
    return x509.load_der_x509_certificate(der)


def unsigned(
    *,
    serial: Serial,
    profile: Profile,
    names: Names,
    public_key: PublicKey,
    issuer: Issuer,
    validity: tuple[datetime, datetime],
    urls: Urls,
    shard: int,
) -> x509.Certificate:
    """The certificate to be, under the signature of a key that is forgotten here."""
    subject = subject_of(names)
    parent = issuer.certificate
    builder = (
        x509.CertificateBuilder()
        .serial_number(int(serial, 16))
        .subject_name(subject)
        .issuer_name(subject if parent is None else parent.subject)
        .public_key(public_key)
        .not_valid_before(validity[0])
        .not_valid_after(validity[1])
    )
    extensions = [
        *_constraints(profile, rsa=not isinstance(public_key, EllipticCurvePublicKey)),
        *_identifiers(public_key, parent),
        *_purposes(profile),
        *_status(profile, urls, issuer, shard),
        *extensions_of(names),
    ]
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    throw_away = generate_private_key(CURVES[issuer.key.curve.name])
    return builder.sign(throw_away, HASHES[issuer.key.curve.name])


def unsigned_by(
    authority: Authority,
    *,
    serial: Serial,
    profile: Profile,
    names: Names,
    public_key: PublicKey,
    now: datetime,
    urls: Urls,
) -> tuple[x509.Certificate, int]:
    """As `unsigned`, for a CA of the record, and which part of its CRL will ever hold the serial.

    Refuses `authority-expired`.
    """
    certificate = certificate_of(authority.der)
    key = certificate.public_key()
    if not isinstance(key, EllipticCurvePublicKey):
        raise TypeError("CA keys are P-256 or P-384")
    shard = shard_of(serial, authority.shards)
    candidate = unsigned(
        serial=serial, profile=profile, names=names, public_key=public_key,
        issuer=Issuer(authority.id, certificate, key, authority.crl_form),
        validity=validity_of(profile, authority, now), urls=urls, shard=shard,
    )  # fmt: skip
    return candidate, shard


Extensions = Sequence[tuple[x509.ExtensionType, bool]]


def subject_of(names: Names) -> x509.Name:
    """The subject, most significant attribute first."""
    match names:
        case PersonNames():
            attributes = [
                (NameOID.COUNTRY_NAME, COUNTRY),
                (NameOID.SURNAME, plain(names.family_name)),
                (NameOID.GIVEN_NAME, plain(names.given_name)),
                (NameOID.COMMON_NAME, person_name(names.given_name, names.family_name)),
                (NameOID.SERIAL_NUMBER, names.national_id),
            ]
        case OrganisationNames():
            name = shortened(plain(names.name))
            attributes = [
                (NameOID.COUNTRY_NAME, COUNTRY),
                (NameOID.ORGANIZATION_NAME, name),
                (NameOID.ORGANIZATION_IDENTIFIER, _number_of(names)),
                (NameOID.COMMON_NAME, name),
            ]
        case ApplicationNames():
            name = shortened(plain(names.name))
            attributes = [
                (NameOID.COUNTRY_NAME, COUNTRY),
                (NameOID.ORGANIZATION_NAME, name),
                (NameOID.ORGANIZATION_IDENTIFIER, _number_of(names)),
                # Half an address would be another's: S/MIME BR 7.1.4.2.2 a allows the organisation instead.
                (NameOID.COMMON_NAME, names.address if len(names.address) <= LONGEST_COMMON_NAME else name),
            ]
        case OperatorNames():
            name = shortened(plain(names.name))
            attributes = [
                (NameOID.COUNTRY_NAME, COUNTRY),
                (NameOID.ORGANIZATION_NAME, name),
                (NameOID.COMMON_NAME, name),
                (NameOID.SERIAL_NUMBER, f"OP-{names.operator_id}"),
            ]
        case ServiceNames():
            attributes = [(NameOID.COMMON_NAME, _common_name(names))]
        case ResponderNames() | AuthorityNames():
            attributes = [
                (NameOID.COUNTRY_NAME, COUNTRY),
                (NameOID.ORGANIZATION_NAME, TRUST_SPACE),
                (NameOID.COMMON_NAME, names.common_name),
            ]
    # Some people have one name: an attribute may be missing, never empty.
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in attributes if value])


def extensions_of(names: Names) -> Extensions:
    """The extensions that say whom a certificate is for, beside its subject: addresses and professions."""
    return [*_alternative(names), *_admissions(names)]


def _number_of(names: OrganisationNames | ApplicationNames) -> str:
    """The organizationIdentifier: a SIRET as the register of companies', FINESS as a scheme of our own.

    EN 319 412-1 5.1.4: NTR, the country and a number; or two characters of one's own choice and a colon.
    """
    return f"NTR{COUNTRY}-{names.siret}" if names.siret else f"FI:{COUNTRY}-{names.finess}"


def _common_name(names: ServiceNames) -> str:
    """The first host that a common name has room for; '' when none fits: what counts is in the SAN.

    TLS BR 7.1.4.3: a common name is one of the alternative names, or there is none.
    """
    if not names.dns:
        return str(names.addresses[0])
    return next((host for host in names.dns if len(host) <= LONGEST_COMMON_NAME), "")


def subject_text(name: x509.Name) -> str:
    """A name in RFC 4514, the attributes under the words that people and OpenSSL read, not as numbers."""
    return name.rfc4514_string(_READ_AS)


def _constraints(profile: Profile, *, rsa: bool) -> Extensions:
    usage = profile.key_usage_rsa if rsa else profile.key_usage_ec
    wanted = {
        name: name in usage
        for name in (
            "digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
            "key_agreement", "key_cert_sign", "crl_sign",
        )
    }  # fmt: skip
    return [
        (x509.BasicConstraints(ca=profile.is_authority, path_length=profile.path_length), True),
        (x509.KeyUsage(**wanted, encipher_only=False, decipher_only=False), True),
    ]


def _identifiers(key: PublicKey, parent: x509.Certificate | None) -> Extensions:
    made: list[tuple[x509.ExtensionType, bool]] = [(x509.SubjectKeyIdentifier.from_public_key(key), False)]
    if parent is not None:
        theirs = parent.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        named = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(theirs)
        made.append((named, False))
    return made


def _purposes(profile: Profile) -> Extensions:
    made: list[tuple[x509.ExtensionType, bool]] = []
    if profile.purposes:
        made.append((x509.ExtendedKeyUsage(profile.purposes), False))
    if profile.policy is not None:
        made.append((x509.CertificatePolicies([x509.PolicyInformation(profile.policy, None)]), False))
    if profile.skips_revocation:
        made.append((x509.OCSPNoCheck(), False))
    return made


def _status(profile: Profile, urls: Urls, issuer: Issuer, shard: int) -> Extensions:
    access = []
    if profile.names_ocsp:
        access.append(x509.AccessDescription(Access.OCSP, _url(urls.ocsp)))
    if profile.names_issuer:
        access.append(x509.AccessDescription(Access.CA_ISSUERS, _url(urls.certificate(issuer.id))))
    if profile.names_bundle:
        access.append(x509.AccessDescription(Access.CA_ISSUERS, _url(urls.bundle(issuer.id))))
    made: list[tuple[x509.ExtensionType, bool]] = []
    if access:
        made.append((x509.AuthorityInformationAccess(access), False))
    if profile.names_crl:
        point = x509.DistributionPoint([_url(urls.crl(issuer.id, shard))], None, None, None)
        made.append((x509.CRLDistributionPoints([point]), False))
    if profile.names_delta(issuer.crl_form):
        fresh = x509.DistributionPoint([_url(urls.delta_crl(issuer.id, shard))], None, None, None)
        made.append((x509.FreshestCRL([fresh]), False))
    if profile.without_status:
        made.append((x509.UnrecognizedExtension(NO_REV_AVAIL, NOTHING), False))
    return made


def _alternative(names: Names) -> Extensions:
    general_names: list[x509.GeneralName] = []
    match names:
        case PersonNames() | OrganisationNames() | ApplicationNames():
            general_names = [x509.RFC822Name(names.address)]
        case ServiceNames():
            general_names = [x509.DNSName(name) for name in names.dns]
            general_names += [x509.IPAddress(address) for address in names.addresses]
        case OperatorNames() | ResponderNames() | AuthorityNames():
            pass
    # RFC 5280 4.1.2.6: critical where it alone names the holder.
    alone = not list(subject_of(names))
    return [(x509.SubjectAlternativeName(general_names), alone)] if general_names else []


def _admissions(names: Names) -> Extensions:
    if not isinstance(names, PersonNames):
        return []
    infos = [
        x509.ProfessionInfo(
            naming_authority=x509.NamingAuthority(PROFESSION_CODES, None, "ANS TRE_G15-ProfessionSante"),
            profession_items=[PROFESSION_LABELS.get(code, f"TRE_G15 {code}")],
            profession_oids=[x509.ObjectIdentifier(f"{PROFESSIONS}.{int(code)}")] if code.isdigit() else None,
            registration_number=names.national_id,
            add_profession_info=None,
        )
        for code in names.professions
    ]
    return [(x509.Admissions(None, [x509.Admission(None, None, infos)]), False)]


def _url(url: str) -> x509.UniformResourceIdentifier:
    return x509.UniformResourceIdentifier(url)

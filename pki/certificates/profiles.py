"""What each kind of certificate may contain, as data with the source of every figure; the URLs inside them.

A request chooses nothing here: names come from the directory, the key from the request, all else from the
profile.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address
from types import MappingProxyType

from cryptography.x509 import Certificate, CertificatePolicies, ExtensionNotFound, KeyUsage, ObjectIdentifier
from cryptography.x509.oid import ExtendedKeyUsageOID

from pki.model import JOINED, CrlForm, Purpose

# A UUID made once for this service, cut into seven numbers as Microsoft's public script for self-assigned
# OIDs does. One arc of 128 bits (2.25, X.667) would be neater, but decoders with 32-bit arcs refuse the
# certificate.
ARC = "1.2.840.113556.1.8000.2554.58931.8514.53657.20329.39401.13570861.3949099"
POLICIES = f"{ARC}.1"
PROFESSIONS = f"{ARC}.2"
# ANS, TRE_G15-ProfessionSante: the code system that names the professions.
PROFESSION_CODES = ObjectIdentifier("1.2.250.1.71.1.2.7")
COUNTRY = "FR"
TRUST_SPACE = "Sceau"

# Clients' clocks run late by minutes; an hour is the most that may be hidden so (the BRs allow 48 h).
BACKDATING = timedelta(minutes=5)
LONGEST_BACKDATING = timedelta(hours=1)
# What was reserved and not signed by then never will be: the signer refuses it and recovery may judge it.
RESERVATION_LIFE = timedelta(minutes=5)
SHARDS = 16
# Entries that a plain CRL is made for: five megabytes, which each reader fetches whole.
MOST_IN_PLAIN = 100_000


@dataclass(frozen=True)
class Urls:
    """Every URL that certificates, CRLs and OCSP answers carry, and that the web answers: one source."""

    base: str

    @property
    def _root(self) -> str:
        """In http whatever the base: to check an https address one has to check a certificate first.

        RFC 5280 8; the S/MIME baseline requirements 7.1.2.3 forbid any other scheme.
        """
        return f"http://{self.base.partition('://')[2].rstrip('/')}"

    @property
    def ocsp(self) -> str:
        """Where the status of one certificate is asked (AIA, RFC 5280 4.2.2.1)."""
        return f"{self._root}/ocsp"

    def crl(self, authority_id: str, shard: int) -> str:
        """Where one shard of a CA's CRL is; its IssuingDistributionPoint holds these very bytes."""
        return f"{self._root}/crl/{authority_id}/{shard}.crl"

    def delta_crl(self, authority_id: str, shard: int) -> str:
        """Where the delta of that shard is (FreshestCRL, RFC 5280 4.2.1.15)."""
        return f"{self._root}/crl/{authority_id}/{shard}-delta.crl"

    def certificate(self, authority_id: str) -> str:
        """Where a CA's own certificate is, in DER (AIA caIssuers)."""
        return f"{self._root}/ca/{authority_id}.cer"

    def bundle(self, authority_id: str) -> str:
        """Where the certificates are that lead to a CA's key (certs-only CMS, RFC 5280 4.2.2.1)."""
        return f"{self._root}/ca/{authority_id}.p7c"


@dataclass(frozen=True)
class Profile:
    """One kind of certificate. `key_usage_*` hold field names of `x509.KeyUsage`, for EC and RSA keys.

    `serves` is what a mailbox's key is for, and empty for all others. `variant_of` names the profile that
    this one is like in everything but its key usage, or its life.
    """

    name: str
    longest: timedelta
    key_usage_ec: frozenset[str]
    key_usage_rsa: frozenset[str]
    purposes: tuple[ObjectIdentifier, ...] = ()
    policy: ObjectIdentifier | None = None
    is_authority: bool = False
    path_length: int | None = None
    names_ocsp: bool = True
    names_crl: bool = True
    names_issuer: bool = True
    # The bundle of its issuer: with it a path is found to whichever root a reader has.
    names_bundle: bool = False
    skips_revocation: bool = False
    # noRevAvail: it ends before anyone would have heard, so nothing points to where one could ask (RFC 9608).
    without_status: bool = False
    # From the first reservation of a key until then it may be certified anew for the same enrolment.
    key_period: timedelta | None = None
    serves: frozenset[Purpose] = frozenset()
    variant_of: str = ""
    sources: tuple[str, ...] = field(default=())

    @property
    def family(self) -> str:
        """The profile whose names and requirements this one has: itself, or what it is a variant of."""
        return self.variant_of or self.name

    def names_delta(self, crl_form: CrlForm) -> bool:
        """Whether FreshestCRL is in it, issued by a CA of that form.

        A root makes no deltas: its key is not at hand within the minute.
        """
        return self.names_crl and not self.is_authority and crl_form is CrlForm.NATIONAL


_CA_USAGE = frozenset({"key_cert_sign", "crl_sign"})
_SIGN = frozenset({"digital_signature"})
# A day less than S/MIME BR 6.3.2 allows, so that no way of counting days is over.
_MAIL_LONGEST = timedelta(days=824)
# TLS BR 1.6.1: a short-lived certificate has seven days, both ends counted.
SHORT_LIFE = timedelta(days=7)
_MAIL_EC = frozenset({"digital_signature", "key_agreement"})
_MAIL_RSA = frozenset({"digital_signature", "key_encipherment"})


def _for_signature(joined: Profile) -> Profile:
    return replace(
        joined,
        name=f"{joined.name}-sign",
        key_usage_ec=_SIGN,
        key_usage_rsa=_SIGN,
        serves=frozenset({Purpose.SIGNATURE}),
        variant_of=joined.name,
        sources=(
            "S/MIME BR 7.1.2.3 e (signing only: digitalSignature, for either kind of key)",
            "ETSI EN 319 412-2 4.3.2, NAT-4.3.2-1 (type C; one use for one key should be)",
            "RFC 8550 4.4.2 (a signature counts under digitalSignature or nonRepudiation only)",
        ),
    )


def _for_encryption(joined: Profile) -> Profile:
    return replace(
        joined,
        name=f"{joined.name}-encrypt",
        key_usage_ec=frozenset({"key_agreement"}),
        key_usage_rsa=frozenset({"key_encipherment"}),
        serves=frozenset({Purpose.ENCRYPTION}),
        variant_of=joined.name,
        sources=(
            "S/MIME BR 7.1.2.3 e (key management only: RSA keyEncipherment, EC keyAgreement)",
            "ETSI EN 319 412-2 4.3.2, NAT-4.3.2-1 (type E; one use for one key should be)",
            "RFC 8550 4.4.2, RFC 5480 3 (keyAgreement of EC keys), RFC 3279 2.3.1 (keyEncipherment of RSA)",
        ),
    )


def _short_lived(lasting: Profile, policy: str) -> Profile:
    return replace(
        lasting,
        name=f"{lasting.name}-short-lived",
        longest=SHORT_LIFE,
        policy=ObjectIdentifier(policy),
        names_ocsp=False,
        names_crl=False,
        without_status=True,
        variant_of=lasting.name,
        sources=(
            "TLS BR 1.6.1 (short-lived: seven days at most from 2026-03-15), 7.1.2.7.6",
            "RFC 9608 3 (noRevAvail: no CRL distribution points, no freshestCRL, no OCSP in AIA)",
        ),
    )


ROOT = Profile(
    name="root-ca",
    longest=timedelta(days=25 * 365),
    key_usage_ec=_CA_USAGE,
    key_usage_rsa=_CA_USAGE,
    is_authority=True,
    names_ocsp=False,
    names_crl=False,
    names_issuer=False,
    sources=("S/MIME BR 6.3.2 and 7.1.2.1 (root CA)", "RFC 5280 4.2.1.3, 4.2.1.9"),
)
ISSUING = Profile(
    name="issuing-ca",
    longest=timedelta(days=12 * 365),
    key_usage_ec=_CA_USAGE,
    key_usage_rsa=_CA_USAGE,
    policy=ObjectIdentifier("2.5.29.32.0"),
    is_authority=True,
    path_length=0,
    # The root signs no OCSP answers: its key is not at hand for that.
    names_ocsp=False,
    names_bundle=True,
    sources=(
        "S/MIME BR 7.1.2.2 (subordinate CA)",
        "RFC 5280 4.2.1.4 (anyPolicy), 4.2.1.9 (pathLenConstraint), 4.2.2.1 (AIA)",
    ),
)
CROSS = Profile(
    name="cross-ca",
    # Until readers have the other root: in ten years they must.
    longest=timedelta(days=10 * 365),
    key_usage_ec=_CA_USAGE,
    key_usage_rsa=_CA_USAGE,
    policy=ObjectIdentifier("2.5.29.32.0"),
    is_authority=True,
    # Below the root it certifies there is one CA, and then people.
    path_length=1,
    names_ocsp=False,
    names_bundle=True,
    sources=("S/MIME BR 7.1.2.2 (cross certificate)", "RFC 4158 2.3 (bridging of trust anchors)"),
)
PRACTITIONER = Profile(
    name="practitioner-smime",
    longest=_MAIL_LONGEST,
    key_period=_MAIL_LONGEST,
    serves=JOINED,
    key_usage_ec=_MAIL_EC,
    key_usage_rsa=_MAIL_RSA,
    purposes=(ExtendedKeyUsageOID.EMAIL_PROTECTION,),
    policy=ObjectIdentifier(f"{POLICIES}.1"),
    sources=(
        "S/MIME BR 6.3.2 (825 days, strict), 7.1.2.3 (dual use), 7.1.4.2.5 (individual-validated)",
        "ISIS-MTT Common PKI 2.0 part 1, table 29a (Admission)",
        "RFC 8550 4.4 (key usage, extended key usage of S/MIME)",
    ),
)
ORGANISATION = Profile(
    name="organisation-smime",
    longest=_MAIL_LONGEST,
    key_period=_MAIL_LONGEST,
    serves=JOINED,
    key_usage_ec=_MAIL_EC,
    key_usage_rsa=_MAIL_RSA,
    purposes=(ExtendedKeyUsageOID.EMAIL_PROTECTION,),
    policy=ObjectIdentifier(f"{POLICIES}.2"),
    sources=(
        "S/MIME BR 6.3.2 (825 days, strict), 7.1.2.3, 7.1.4.2.3 (organization-validated)",
        "ETSI EN 319 412-1 5.1.4 (organizationIdentifier, nationally defined scheme)",
    ),
)
APPLICATION = Profile(
    name="application-smime",
    longest=_MAIL_LONGEST,
    key_period=_MAIL_LONGEST,
    serves=JOINED,
    key_usage_ec=_MAIL_EC,
    key_usage_rsa=_MAIL_RSA,
    purposes=(ExtendedKeyUsageOID.EMAIL_PROTECTION,),
    policy=ObjectIdentifier(f"{POLICIES}.6"),
    sources=(
        "S/MIME BR 6.3.2 (825 days, strict), 7.1.2.3, 7.1.4.2.3 (organization-validated)",
        "S/MIME BR 7.1.4.2.2 a (a common name that is the mailbox)",
        "ETSI EN 319 412-1 5.1.4 (organizationIdentifier, nationally defined scheme)",
    ),
)
# The policy of the joined ones: it says how the holder was identified, key usage says what the key is for.
PRACTITIONER_SIGN, PRACTITIONER_ENCRYPT = _for_signature(PRACTITIONER), _for_encryption(PRACTITIONER)
ORGANISATION_SIGN, ORGANISATION_ENCRYPT = _for_signature(ORGANISATION), _for_encryption(ORGANISATION)
APPLICATION_SIGN, APPLICATION_ENCRYPT = _for_signature(APPLICATION), _for_encryption(APPLICATION)
OCSP_SIGNER = Profile(
    name="ocsp-signer",
    longest=timedelta(days=30),
    key_usage_ec=_SIGN,
    key_usage_rsa=_SIGN,
    purposes=(ExtendedKeyUsageOID.OCSP_SIGNING,),
    policy=ObjectIdentifier(f"{POLICIES}.3"),
    # Nobody checks the checker: nocheck, and no pointer that would invite to (ETSI CSS-6.6.3-01B).
    names_ocsp=False,
    names_crl=False,
    skips_revocation=True,
    sources=("RFC 6960 4.2.2.2.1 (id-pkix-ocsp-nocheck, short life)", "ETSI EN 319 411-1 CSS-6.6.3-01B"),
)
SERVICE_TLS = Profile(
    name="service-tls",
    longest=timedelta(days=199),
    key_usage_ec=_SIGN,
    key_usage_rsa=_MAIL_RSA,
    purposes=(ExtendedKeyUsageOID.SERVER_AUTH,),
    policy=ObjectIdentifier(f"{POLICIES}.4"),
    sources=(
        "TLS BR 6.3.2 (200 days from 2026-03-15, 199 advised), 7.1.2.7",
        "RFC 9525 2 (names in SAN only)",
    ),
)
OPERATOR_SERVER = Profile(
    name="operator-server",
    longest=timedelta(days=199),
    key_usage_ec=_SIGN,
    key_usage_rsa=_MAIL_RSA,
    # Alone: a proxy that opens connections too asks for a client's certificate beside it.
    purposes=(ExtendedKeyUsageOID.SERVER_AUTH,),
    policy=ObjectIdentifier(f"{POLICIES}.7"),
    sources=(
        "TLS BR 6.3.2 (200 days from 2026-03-15, 199 advised), 7.1.2.7.2 (domain-validated)",
        "TLS BR 7.1.2.7.10 (serverAuth); Chrome Root Program 1.8 (no clientAuth beside it from 2026-03-15)",
        "RFC 9525 2 (names in SAN only)",
    ),
)
OPERATOR_CLIENT = Profile(
    name="operator-client",
    longest=timedelta(days=398),
    key_usage_ec=_SIGN,
    key_usage_rsa=_SIGN,
    purposes=(ExtendedKeyUsageOID.CLIENT_AUTH,),
    policy=ObjectIdentifier(f"{POLICIES}.8"),
    sources=(
        "TLS BR 6.3.2 before 2026-03-15 (398 days; client certificates are in no requirement)",
        "RFC 5280 4.2.1.12 (id-kp-clientAuth with digitalSignature)",
    ),
)
OPERATOR_SERVER_SHORT = _short_lived(OPERATOR_SERVER, f"{POLICIES}.9")
OPERATOR_CLIENT_SHORT = _short_lived(OPERATOR_CLIENT, f"{POLICIES}.10")
LIST_SIGNER = Profile(
    name="list-signer",
    longest=timedelta(days=30),
    key_usage_ec=_SIGN,
    key_usage_rsa=_SIGN,
    # RFC 9336: for what people and programs read as a whole, and for nothing else.
    purposes=(ObjectIdentifier("1.3.6.1.5.5.7.3.36"),),
    policy=ObjectIdentifier(f"{POLICIES}.5"),
    sources=("RFC 9336 3.1 (id-kp-documentSigning)", "RFC 7515 4.1.6 (x5c)"),
)
PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        p.name: p
        for p in (
            ROOT, ISSUING, CROSS, PRACTITIONER, PRACTITIONER_SIGN, PRACTITIONER_ENCRYPT, ORGANISATION,
            ORGANISATION_SIGN, ORGANISATION_ENCRYPT, APPLICATION, APPLICATION_SIGN, APPLICATION_ENCRYPT,
            OCSP_SIGNER, LIST_SIGNER, SERVICE_TLS, OPERATOR_SERVER, OPERATOR_CLIENT, OPERATOR_SERVER_SHORT,
            OPERATOR_CLIENT_SHORT,
        )
    }
)  # fmt: skip
# What one mailbox is certified by, by what its holder is.
OF_MAILBOXES = frozenset(profile.name for profile in PROFILES.values() if profile.serves)
OF_OPERATORS = frozenset(
    profile.name
    for profile in PROFILES.values()
    if profile.family in {OPERATOR_SERVER.name, OPERATOR_CLIENT.name}
)
# What a CA for servers certifies, its own responder apart.
OF_SERVERS_CAS = OF_OPERATORS | {SERVICE_TLS.name, LIST_SIGNER.name}
# A CA that certifies mail certifies nothing else from then on, clients and its own responder apart (S/MIME
# requirements 1.0.16). Servers, and the signers of this service's lists, have a CA of their own.
MAIL_APART_FROM = datetime(2027, 7, 1, tzinfo=UTC)
MAIL_ROLES = frozenset({"persons", "organisations"})
SERVERS_ROLE = "servers"
PURPOSES_OF_MAIL_CAS = (ExtendedKeyUsageOID.EMAIL_PROTECTION, ExtendedKeyUsageOID.CLIENT_AUTH)
OF_MAIL_CAS = frozenset({*PURPOSES_OF_MAIL_CAS, ExtendedKeyUsageOID.OCSP_SIGNING})


_USAGES = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
    "key_cert_sign", "crl_sign",
)  # fmt: skip


def usages_of(usage: KeyUsage) -> frozenset[str]:
    """What a key is for, by the field names that profiles have."""
    return frozenset(name for name in _USAGES if getattr(usage, name))


def profile_of(certificate: Certificate) -> Profile | None:
    """The profile that a certificate of ours was made by, None for another's; not for a CA's.

    One for both purposes and those for one have the same policy: what the key is for tells them apart.
    """
    try:
        policies = certificate.extensions.get_extension_for_class(CertificatePolicies).value
        usages = usages_of(certificate.extensions.get_extension_for_class(KeyUsage).value)
    except ExtensionNotFound:
        return None
    profiles = (
        profile
        for profile in PROFILES.values()
        if not profile.is_authority
        and profile.policy == policies[0].policy_identifier
        and usages in (profile.key_usage_ec, profile.key_usage_rsa)
    )
    return next(profiles, None)


def family_of(profile: str) -> list[str]:
    """The names of the profiles that are this one or a variant of the same."""
    return sorted(variant.name for variant in PROFILES.values() if variant.family == PROFILES[profile].family)


def served_by(profile: str) -> frozenset[Purpose]:
    """What a certificate of this profile is good for in mail; nothing, for one that we do not know."""
    known = PROFILES.get(profile)
    return frozenset() if known is None else known.serves


def serving(purposes: frozenset[Purpose]) -> list[str]:
    """The profiles whose certificates serve one of these purposes, a joined one either."""
    return sorted(profile.name for profile in PROFILES.values() if profile.serves & purposes)


@dataclass(frozen=True)
class PersonNames:
    """Who a practitioner's certificate names; `professions` are TRE_G15 codes."""

    given_name: str
    family_name: str
    national_id: str
    professions: tuple[str, ...]
    address: str


@dataclass(frozen=True)
class OrganisationNames:
    """Which establishment a certificate names; `service` is the unit, '' when it is the whole.

    `siret` is what it is known by where it has no FINESS number.
    """

    name: str
    finess: str
    address: str
    service: str = ""
    siret: str = ""


@dataclass(frozen=True)
class ApplicationNames:
    """Which establishment's application a certificate names: by its mailbox, when that is short enough."""

    name: str
    finess: str
    address: str
    siret: str = ""


@dataclass(frozen=True)
class OperatorNames:
    """An operator as the client it is: its name on the trusted list, and its number here."""

    name: str
    operator_id: int


@dataclass(frozen=True)
class ServiceNames:
    """The hosts a server of ours answers as; the first DNS name is also the common name."""

    dns: tuple[str, ...]
    addresses: tuple[IPv4Address | IPv6Address, ...] = ()


@dataclass(frozen=True)
class ResponderNames:
    """An OCSP responder or a signer of lists, named by its CA and the day it began."""

    common_name: str


@dataclass(frozen=True)
class AuthorityNames:
    """A CA."""

    common_name: str


Names = (
    PersonNames
    | OrganisationNames
    | ApplicationNames
    | ServiceNames
    | OperatorNames
    | ResponderNames
    | AuthorityNames
)

# TRE_G15, the labels as the ANS writes them; a code not here is shown by its number.
PROFESSION_LABELS: Mapping[str, str] = MappingProxyType(
    {
        "10": "Médecin", "21": "Pharmacien", "26": "Audioprothésiste", "28": "Opticien-lunetier",
        "31": "Assistant dentaire", "32": "Physicien médical", "35": "Aide-soignant", "36": "Ambulancier",
        "37": "Auxiliaire de puériculture", "38": "Préparateur en pharmacie hospitalière",
        "39": "Préparateur en pharmacie (officine)", "40": "Chirurgien-dentiste", "50": "Sage-femme",
        "60": "Infirmier", "69": "Infirmier psychiatrique", "70": "Masseur-kinésithérapeute",
        "80": "Pédicure-podologue", "81": "Orthoprothésiste", "82": "Podo-orthésiste",
        "83": "Orthopédiste-orthésiste", "84": "Oculariste", "85": "Epithésiste",
        "86": "Technicien de laboratoire médical", "91": "Orthophoniste", "92": "Orthoptiste",
        "93": "Psychologue", "94": "Ergothérapeute", "95": "Diététicien", "96": "Psychomotricien",
        "98": "Manipulateur ERM",
    }
)  # fmt: skip

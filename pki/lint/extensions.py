"""Extensions: those of the profile, all of them, nothing else, and each pointing where it must."""

from collections.abc import Iterator
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, ExtensionOID

from pki.certificates.builder import NO_REV_AVAIL, NOTHING
from pki.certificates.profiles import (
    MAIL_APART_FROM,
    MAIL_ROLES,
    OF_MAIL_CAS,
    OF_MAILBOXES,
    OPERATOR_SERVER,
    PRACTITIONER,
    SERVERS_ROLE,
    SERVICE_TLS,
    Profile,
    usages_of,
)
from pki.lint.lint import Case, Lint
from pki.model import CrlForm

_Value = TypeVar("_Value", bound=x509.ExtensionType)
_NAMED = OF_MAILBOXES | {SERVICE_TLS.name, OPERATOR_SERVER.name}


def expected(profile: Profile, *, has_issuer: bool, crl_form: CrlForm) -> frozenset[x509.ObjectIdentifier]:
    """The extensions that a certificate of this profile has, and it has no other."""
    wanted = {
        ExtensionOID.BASIC_CONSTRAINTS: True,
        ExtensionOID.KEY_USAGE: True,
        ExtensionOID.SUBJECT_KEY_IDENTIFIER: True,
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER: has_issuer,
        ExtensionOID.EXTENDED_KEY_USAGE: bool(profile.purposes),
        ExtensionOID.CERTIFICATE_POLICIES: profile.policy is not None,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME: profile.family in _NAMED,
        ExtensionOID.AUTHORITY_INFORMATION_ACCESS: profile.names_ocsp or profile.names_issuer,
        ExtensionOID.CRL_DISTRIBUTION_POINTS: profile.names_crl,
        ExtensionOID.FRESHEST_CRL: profile.names_delta(crl_form),
        ExtensionOID.OCSP_NO_CHECK: profile.skips_revocation,
        NO_REV_AVAIL: profile.without_status,
        ExtensionOID.ADMISSIONS: profile.family == PRACTITIONER.name,
    }
    return frozenset(oid for oid, present in wanted.items() if present)


def _set(case: Case) -> Iterator[str]:
    present = {extension.oid for extension in case.certificate.extensions}
    wanted = expected(case.profile, has_issuer=case.issuer is not None, crl_form=case.crl_form)
    yield from (f"{oid.dotted_string} is missing" for oid in wanted - present)
    yield from (f"{oid.dotted_string} does not belong there" for oid in present - wanted)


def _criticality(case: Case) -> Iterator[str]:
    critical = {ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE}
    if not list(case.certificate.subject):
        # It alone names the holder.
        critical.add(ExtensionOID.SUBJECT_ALTERNATIVE_NAME)
    for extension in case.certificate.extensions:
        if extension.critical != (extension.oid in critical):
            yield f"{extension.oid.dotted_string} is critical or not where it must be otherwise"


def _find(case: Case, kind: type[_Value]) -> _Value | None:
    try:
        return case.certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _key_usage(case: Case) -> Iterator[str]:
    usage = _find(case, x509.KeyUsage)
    rsa = isinstance(case.certificate.public_key(), RSAPublicKey)
    wanted = case.profile.key_usage_rsa if rsa else case.profile.key_usage_ec
    if usage is not None and usages_of(usage) != wanted:
        yield "a key usage that is not the profile's for this kind of key"


def _purposes(case: Case) -> Iterator[str]:
    usage = _find(case, x509.ExtendedKeyUsage)
    if tuple(usage or ()) != case.profile.purposes:
        yield "an extended key usage that is not the profile's"


def _apart(case: Case) -> Iterator[str]:
    """Mail and servers each under a CA of their own, servers and clients each on a certificate of its own."""
    purposes = frozenset(_find(case, x509.ExtendedKeyUsage) or ())
    if {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH} <= purposes:
        yield "a server's and a client's purpose in one certificate"
    late = case.certificate.not_valid_before_utc >= MAIL_APART_FROM
    if case.role in MAIL_ROLES and late and not purposes <= OF_MAIL_CAS:
        yield "a purpose that is not mail's, under a CA for mail"
    if case.issuer is not None and not case.profile.is_authority:
        allowed = _purposes_of(case.issuer)
        if allowed is not None and not purposes <= allowed | {ExtendedKeyUsageOID.OCSP_SIGNING}:
            yield "a purpose that its issuer's certificate does not have"
    if case.role == SERVERS_ROLE and ExtendedKeyUsageOID.EMAIL_PROTECTION in purposes:
        yield "mail, under a CA for servers"


def _purposes_of(issuer: x509.Certificate) -> frozenset[x509.ObjectIdentifier] | None:
    """What the CA says it is for; None when it does not say."""
    try:
        return frozenset(issuer.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        return None


def _constraints(case: Case) -> Iterator[str]:
    limits = _find(case, x509.BasicConstraints)
    if limits is not None and (limits.ca, limits.path_length) != (
        case.profile.is_authority,
        case.profile.path_length,
    ):
        yield "basic constraints that are not the profile's"


def _without_status(case: Case) -> Iterator[str]:
    for extension in case.certificate.extensions:
        if extension.oid == NO_REV_AVAIL and extension.value.public_bytes() != NOTHING:
            yield "a noRevAvail whose value is not NULL"


def _policy(case: Case) -> Iterator[str]:
    policies = _find(case, x509.CertificatePolicies)
    policy_oids = [] if policies is None else [policy.policy_identifier for policy in policies]
    if policy_oids != ([] if case.profile.policy is None else [case.profile.policy]):
        yield "a certificate policy that is not the profile's"


def _key_identifiers(case: Case) -> Iterator[str]:
    own = _find(case, x509.SubjectKeyIdentifier)
    if own is not None and own != x509.SubjectKeyIdentifier.from_public_key(case.certificate.public_key()):
        yield "a subject key identifier that is not its key's"
    theirs = _find(case, x509.AuthorityKeyIdentifier)
    if case.issuer is None or theirs is None:
        return
    ski = case.issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    if theirs.key_identifier != ski.digest:
        yield "an authority key identifier that is not its issuer's"


def _urls(case: Case) -> Iterator[str]:
    access = _find(case, x509.AuthorityInformationAccess) or ()
    methods = [description.access_method for description in access]
    wanted = [AuthorityInformationAccessOID.OCSP] * case.profile.names_ocsp
    wanted += [AuthorityInformationAccessOID.CA_ISSUERS] * case.profile.names_issuer
    wanted += [AuthorityInformationAccessOID.CA_ISSUERS] * case.profile.names_bundle
    if methods != wanted:
        yield "other access methods than the profile's"
    points = [*(_find(case, x509.CRLDistributionPoints) or ()), *(_find(case, x509.FreshestCRL) or ())]
    if any(point.reasons or point.crl_issuer or len(point.full_name or ()) != 1 for point in points):
        yield "a distribution point that is more than one URL"
    urls = [description.access_location.value for description in access]
    urls += [name.value for point in points for name in point.full_name or ()]
    yield from (f"{url} is not HTTP" for url in urls if not str(url).startswith(("http://", "https://")))


LINTS = (
    Lint("extension-set", "S/MIME BR 7.1.2.3 (strict), docs/reference/profiles.md", _set),
    Lint(
        "extension-criticality",
        "RFC 5280 4.2.1.3, 4.2.1.6, 4.2.1.9; 4.2.1 (others not critical)",
        _criticality,
    ),
    Lint("key-usage", "RFC 5280 4.2.1.3, S/MIME BR 7.1.2.3 e", _key_usage),
    Lint("extended-key-usage", "RFC 5280 4.2.1.12, S/MIME BR 7.1.2.3 f", _purposes),
    Lint("purposes-apart", "S/MIME BR 1.0.16 (mail CAs from 2027-07-01), Chrome Root Program 1.8", _apart),
    Lint("no-rev-avail", "RFC 9608 2, 3 (noRevAvail is NULL, and stands alone)", _without_status),
    Lint("basic-constraints", "RFC 5280 4.2.1.9", _constraints),
    Lint("certificate-policy", "RFC 5280 4.2.1.4", _policy),
    Lint("key-identifiers", "RFC 5280 4.2.1.1, 4.2.1.2", _key_identifiers),
    Lint("status-urls", "RFC 5280 4.2.1.13, 4.2.1.15, 4.2.2.1, S/MIME BR 7.1.2.3 b, c", _urls),
)

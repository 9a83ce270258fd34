"""Subject and subject alternative names: what the profile names, spelt as a relying party can show it."""

import re
import unicodedata
from collections.abc import Iterator

from cryptography import x509
from cryptography.x509.oid import NameOID

from pki.certificates.names import LONGEST_COMMON_NAME
from pki.certificates.profiles import (
    APPLICATION,
    COUNTRY,
    CROSS,
    ISSUING,
    LIST_SIGNER,
    OCSP_SIGNER,
    OF_MAILBOXES,
    OPERATOR_CLIENT,
    OPERATOR_SERVER,
    ORGANISATION,
    PRACTITIONER,
    ROOT,
    SERVICE_TLS,
)
from pki.lint.lint import Case, Lint

_C, _CN, _O = NameOID.COUNTRY_NAME, NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME
_OF_CA = frozenset({_C, _O, _CN})
SUBJECTS = {
    ROOT.name: _OF_CA,
    ISSUING.name: _OF_CA,
    CROSS.name: _OF_CA,
    OCSP_SIGNER.name: _OF_CA,
    LIST_SIGNER.name: _OF_CA,
    PRACTITIONER.name: frozenset({_C, _CN, NameOID.SURNAME, NameOID.GIVEN_NAME, NameOID.SERIAL_NUMBER}),
    ORGANISATION.name: frozenset({_C, _CN, _O, NameOID.ORGANIZATION_IDENTIFIER}),
    APPLICATION.name: frozenset({_C, _CN, _O, NameOID.ORGANIZATION_IDENTIFIER}),
    SERVICE_TLS.name: frozenset({_CN}),
    OPERATOR_SERVER.name: frozenset({_CN}),
    OPERATOR_CLIENT.name: frozenset({_C, _CN, _O, NameOID.SERIAL_NUMBER}),
}
# ub-common-name, ub-organization-name and ub-serial-number are the same.
_BOUNDED = frozenset({_CN, _O, NameOID.SERIAL_NUMBER, NameOID.ORGANIZATION_IDENTIFIER})
# S/MIME BR 7.1.4.2.5: surname and/or givenName; some people have one name.
MAY_BE_MISSING = frozenset({NameOID.GIVEN_NAME})
_NO_ROOM = frozenset({_CN})
_HOSTS = frozenset({SERVICE_TLS.name, OPERATOR_SERVER.name})
# TLS BR 7.1.2.7.12 and RFC 5890: letters, digits, hyphens in labels of 63; no wildcard, whoever asks for one.
_HOST = re.compile(r"(?=.{1,253}\Z)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9-]{2,63}")


def _attributes(case: Case) -> Iterator[str]:
    attributes = [attribute.oid for attribute in case.certificate.subject]
    wanted = SUBJECTS[case.profile.family]
    needed = wanted - MAY_BE_MISSING - (_NO_ROOM if _is_without_room(case) else frozenset())
    if len(attributes) != len(set(attributes)) or not needed <= set(attributes) <= wanted:
        yield "a subject with other attributes than the profile's, or one twice"


def _is_without_room(case: Case) -> bool:
    """Whether each host is longer than a common name may be: then there is none (TLS BR 7.1.4.3)."""
    hosts = [str(name.value) for name in _alternative(case) or ()]
    return case.profile.family in _HOSTS and all(len(host) > LONGEST_COMMON_NAME for host in hosts)


def _spelling(case: Case) -> Iterator[str]:
    for attribute in case.certificate.subject:
        value = str(attribute.value)
        if not value.isprintable() or value != value.strip() or not value:
            yield f"{attribute.rfc4514_attribute_name}: empty, unprintable, or with outer spaces"


def _significant(case: Case) -> Iterator[str]:
    """A value of points and dashes says that there is none; pkilint takes any symbol for one, we do not."""
    for attribute in case.certificate.subject:
        if not any(unicodedata.category(letter)[0] in "LN" for letter in str(attribute.value)):
            yield f"{attribute.rfc4514_attribute_name}: neither a letter nor a digit"


def _length(case: Case) -> Iterator[str]:
    for attribute in case.certificate.subject:
        if attribute.oid in _BOUNDED and len(str(attribute.value)) > LONGEST_COMMON_NAME:
            yield f"{attribute.rfc4514_attribute_name}: more than {LONGEST_COMMON_NAME} characters"


def _country(case: Case) -> Iterator[str]:
    for attribute in case.certificate.subject.get_attributes_for_oid(_C):
        if attribute.value != COUNTRY:
            yield f"the country {attribute.value!s}"


def _alternative(case: Case) -> x509.SubjectAlternativeName | None:
    try:
        return case.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None


def _mailbox(case: Case) -> Iterator[str]:
    names = _alternative(case)
    if case.profile.name in OF_MAILBOXES:
        alternatives = [] if names is None else [(type(name), name.value) for name in names]
        if case.mailbox is None or alternatives != [(x509.RFC822Name, case.mailbox)]:
            yield "not exactly the mailbox's address as subject alternative name"


def _hosts(case: Case) -> Iterator[str]:
    if case.profile.family not in _HOSTS:
        return
    names = list(_alternative(case) or ())
    if not names or not all(isinstance(name, x509.DNSName | x509.IPAddress) for name in names):
        yield "not only DNS names and addresses as subject alternative names"
    common = case.certificate.subject.get_attributes_for_oid(_CN)
    if not {str(name.value) for name in common} <= {str(name.value) for name in names}:
        yield "a common name that is no subject alternative name"


def _service_hosts(case: Case) -> Iterator[str]:
    if case.profile.name != SERVICE_TLS.name:
        return
    for name in _alternative(case) or ():
        if isinstance(name, x509.DNSName) and name.value != "localhost" and not _HOST.fullmatch(name.value):
            yield f"a host of the service that is no DNS name in lower case: {name.value}"


def _operators_hosts(case: Case) -> Iterator[str]:
    if case.profile.family != OPERATOR_SERVER.name:
        return
    names = list(_alternative(case) or ())
    if not all(isinstance(name, x509.DNSName) and _HOST.fullmatch(name.value) for name in names):
        yield "an operator's host that is not a plain DNS name in lower case"
    if len({str(name.value) for name in names}) != len(names):
        yield "a host named twice"


def _issuer_name(case: Case) -> Iterator[str]:
    expected = case.certificate.subject if case.issuer is None else case.issuer.subject
    # Byte for byte: OpenSSL compares canonical forms, others do not.
    if case.certificate.issuer.public_bytes() != expected.public_bytes():
        yield "an issuer name that is not the issuer's subject, byte for byte"


LINTS = (
    Lint("subject-attributes", "S/MIME BR 7.1.4.2 (strict), docs/reference/profiles.md", _attributes),
    Lint("subject-spelling", "S/MIME BR 7.1.4.2 (no metadata, no empty attribute)", _spelling),
    Lint("subject-significant", "S/MIME BR 7.1.4.2 (no value of metadata alone)", _significant),
    Lint("subject-length", "RFC 5280 appendix A.1 (upper bounds of 64)", _length),
    Lint("subject-country", "S/MIME BR 7.1.4.2.2 (ISO 3166-1 code)", _country),
    Lint("san-mailbox", "S/MIME BR 7.1.4.2.1 (every mailbox in SAN), RFC 8550 3", _mailbox),
    Lint("san-hosts", "TLS BR 7.1.2.7.12, 7.1.4.3 (common name is one of the SANs)", _hosts),
    Lint("san-service-hosts", "RFC 5280 4.2.1.6, RFC 6761 6.3 (localhost is this machine)", _service_hosts),
    Lint(
        "san-operator-hosts",
        "TLS BR 7.1.2.7.12, 3.2.2.4 (names under the applicant's control)",
        _operators_hosts,
    ),
    Lint("issuer-name", "TLS BR 7.1.4.1, RFC 5280 4.1.2.4 (byte-for-byte issuer)", _issuer_name),
)

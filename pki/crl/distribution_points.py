"""The URLs that a CRL names: its own scope and its delta (RFC 5280 5.2.5 and 5.2.6). Pure."""

from dataclasses import dataclass

from cryptography import x509
from cryptography.x509.oid import ExtensionOID

from directory.base.errors import Kind, Refusal
from pki.certificates.profiles import Urls
from pki.model import Authority, CrlForm


@dataclass(frozen=True)
class Points:
    """The URLs a CRL names: `scope`, which its IssuingDistributionPoint holds, and that of its delta."""

    scope: str | None
    delta: str | None


def points(authority: Authority, shard: int, issued: bytes | None) -> Points:
    """The URLs that the CRL of a shard must name; `issued` is the certificate of any issuing CA.

    Refusal NOT_FOUND when there is none yet.

    None of a plain CA, nor scope for any with one shard, whose CRL covers everything. Scoped to a URL, it
    would not cover a root itself, which names none (openssl -crl_check_all asks).

    The base is the one that the ceremony wrote into the CA certificates, taken from there rather than from a
    setting. An IssuingDistributionPoint must equal what certificates say already, and a setting may change
    after them.
    """
    if authority.crl_form is CrlForm.PLAIN:
        return Points(None, None)
    if issued is None:
        raise Refusal(Kind.NOT_FOUND, "unknown-authority", "There is no issuing CA yet.")
    certificate = x509.load_der_x509_certificate(issued)
    named = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    base, _, _ = _only_url(named[0].full_name).rpartition("/crl/")
    scope = Urls(base).crl(authority.id, shard) if authority.shards > 1 else None
    return Points(scope, Urls(base).delta_crl(authority.id, shard))


def scope_of(extensions: x509.Extensions) -> str | None:
    """The URL that the CRL is scoped to, None for all of its CA's certificates; ValueError."""
    points = [
        extension for extension in extensions if extension.oid == ExtensionOID.ISSUING_DISTRIBUTION_POINT
    ]
    if not points:
        return None
    value = points[0].value
    if not points[0].critical or not isinstance(value, x509.IssuingDistributionPoint):
        raise ValueError("distribution point not critical")
    return _only_url(value.full_name)


def delta_url_of(extensions: x509.Extensions) -> str | None:
    """The URL of the CRL's delta, if it names one; ValueError."""
    for extension in extensions:
        if isinstance(extension.value, x509.FreshestCRL):
            return _only_url(extension.value[0].full_name)
    return None


def _only_url(names: list[x509.GeneralName] | None) -> str:
    if names is None or len(names) != 1:
        raise ValueError("not exactly one name")
    return str(names[0].value)

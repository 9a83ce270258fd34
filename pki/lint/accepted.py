"""What pkilint says that this service knows of and leaves so, each with the reason; the rest stops issuance.

Data, to be read by an auditor: every line here is a rule of somebody else that a profile does not keep.
"""

from collections.abc import Mapping
from types import MappingProxyType

from pki.certificates.profiles import OPERATOR_SERVER_SHORT, SERVICE_TLS

_NOT_PUBLIC = "names are those of the national trusted list and of this installation, not of the public DNS"
_NO_AUDIT = (
    "a reserved policy identifier says that a WebTrust or ETSI auditor agreed: none has been asked yet"
)

# Finding code to reason; docs/reference/profiles.md says the same to those who use the certificates.
ACCEPTED: Mapping[str, str] = MappingProxyType(
    {
        "cabf.internal_domain_name": _NOT_PUBLIC,
        "cabf.internal_ip_address": _NOT_PUBLIC,
        "etsi.internal_domain_name": _NOT_PUBLIC,
        "etsi.internal_ip_address": _NOT_PUBLIC,
        "cabf.smime.no_required_reserved_policy_oid": _NO_AUDIT,
        "cabf.serverauth.subscriber_missing_reserved_policy_oid": _NO_AUDIT,
        "cabf.invalid_organization_identifier_registration_scheme": (
            "the requirements have no scheme for FINESS; EN 319 412-1 5.1.4 provides FI: for a national one"
        ),
        "etsi.en_319_412_2.nat-4.3.2-1.mixed_key_usage_setting": (
            "one key for signature and encryption, as long as the profile joins them (S/MIME BR 7.1.2.3 e)"
        ),
        "cabf.serverauth.subscriber.subject_key_identifier_extension_present": (
            "not recommended since TLS BR 2.0, and what our own CRL and OCSP tools find keys by"
        ),
        "cabf.serverauth.subscriber.unknown_extension_present": (
            "freshestCRL, where the delta of the shard is (RFC 5280 4.2.1.15), and noRevAvail (RFC 9608): our"
            " own lints know no other"
        ),
        "cabf.serverauth.dv.common_name_attribute_present": (
            "not recommended, and the only name that logs of mail servers show"
        ),
    }
)
# The same for one profile alone.
ACCEPTED_OF: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        SERVICE_TLS.name: MappingProxyType(
            {
                "pkix.invalid_domain_name_syntax": (
                    "`localhost`, one label (RFC 1034 3.5 allows it): what clients on this machine write;"
                    " our lint san-service-hosts knows no other without a dot"
                ),
            }
        ),
        OPERATOR_SERVER_SHORT.name: MappingProxyType(
            {
                "msft.end_entity.revocation_information_absent": (
                    "Microsoft's root programme wants a CRL or OCSP in each certificate; RFC 9608 3 forbids"
                    " both beside noRevAvail"
                ),
            }
        ),
    }
)

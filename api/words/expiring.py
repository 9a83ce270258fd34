"""Profiles, kinds and conditions of what runs out, in French and English."""

from api.words.figures import Said
from pki.monitoring.service_expiry import Condition, Kind

PROFILE_WORDS = {
    **{
        f"{kind}-smime{use}": Said(french + french_use, english + english_use)
        for kind, french, english in (
            ("practitioner", "messagerie personnelle", "personal mailbox"),
            ("organisation", "messagerie d'établissement", "establishment's mailbox"),
            ("application", "messagerie applicative", "application's mailbox"),
        )
        for use, french_use, english_use in (
            ("", "", ""),
            ("-sign", " (signature)", " (signature)"),
            ("-encrypt", " (chiffrement)", " (encryption)"),
        )
    },
    "operator-server": Said("serveur d'opérateur", "operator's server"),
    "operator-client": Said("client d'opérateur", "operator's client"),
    "operator-server-short-lived": Said(
        "serveur d'opérateur (courte durée)", "operator's server (short-lived)"
    ),
    "operator-client-short-lived": Said(
        "client d'opérateur (courte durée)", "operator's client (short-lived)"
    ),
}
KIND_WORDS = {
    Kind.ROOT: Said("autorité racine", "root CA"),
    Kind.ISSUING: Said("autorité émettrice", "issuing CA"),
    Kind.OCSP_SIGNER: Said("signataire OCSP", "OCSP signer"),
    Kind.LIST_SIGNER: Said("signataire des listes", "list signer"),
    Kind.SERVICE_TLS: Said("certificat LDAPS", "LDAPS certificate"),
    Kind.CRL: Said("liste de révocation", "CRL"),
}
CONDITION_WORDS = {
    Condition.OK: Said("valable", "holds"),
    Condition.SOON: Said("à prévoir", "to be planned"),
    Condition.DUE: Said("à renouveler", "to be renewed now"),
}

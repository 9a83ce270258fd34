"""Why a certificate is taken back, in plain words: a sentence in each language, and who may say it.

What a reason becomes on a CRL is `REASON_CODES` (pki/model.py). The API, the pages and the commands show
these sentences, so that nobody chooses by the word alone: careless forms gave other CAs wrong reasons.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pki.model import RevocationReason


@dataclass(frozen=True)
class Words:
    """What a reason means, for who chooses it; `holder` when a holder may give it for what is his."""

    french: str
    english: str
    holder: bool = False


WORDS: Mapping[RevocationReason, Words] = MappingProxyType(
    {
        RevocationReason.KEY_COMPROMISE: Words(
            "La clé privée est perdue, volée ou connue d'un autre, ou l'on ne peut l'exclure.",
            "The private key is lost, stolen or known to somebody else, or that cannot be ruled out.",
            holder=True,
        ),
        RevocationReason.CA_COMPROMISE: Words(
            "La clé de l'autorité de certification elle-même est compromise : réservé à qui l'exploite.",
            "The key of the certification authority itself is compromised: reserved to its owner.",
        ),
        RevocationReason.AFFILIATION_CHANGED: Words(
            "Un nom, une profession ou un établissement porté par le certificat n'est plus exact.",
            "A name, profession or establishment in the certificate is no longer true.",
            holder=True,
        ),
        RevocationReason.SUPERSEDED: Words(
            "Un autre certificat le remplace ; la clé n'est pas en cause.",
            "Another certificate replaces it; nothing is wrong with the key.",
            holder=True,
        ),
        RevocationReason.CESSATION_OF_OPERATION: Words(
            "Il ne servira plus : cessation d'activité, boîte fermée, serveur arrêté.",
            "It is needed no more: end of activity, mailbox closed, server taken down.",
            holder=True,
        ),
        RevocationReason.CERTIFICATE_HOLD: Words(
            "Suspendu le temps d'un doute : à lever ou à rendre définitif sous 14 jours, sinon définitif.",
            "Suspended while in doubt: to be released or made final within 14 days, else final.",
            holder=True,
        ),
        RevocationReason.PRIVILEGE_WITHDRAWN: Words(
            "Le droit de s'en servir est retiré : radiation, manquement aux règles, fausse déclaration.",
            "The right to use it is withdrawn: struck off, rules broken, false statement.",
        ),
    }
)
HOLDERS = frozenset(reason for reason, words in WORDS.items() if words.holder)


def list_in(language: str) -> str:
    """All reasons with their sentences, for a description: `word`: sentence, one after another."""
    return " ".join(f"`{reason.value}` : {getattr(words, language)}" for reason, words in WORDS.items())

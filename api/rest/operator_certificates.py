"""Operators' own certificates: servers in their trusted domains, clients of this API and of LDAP."""

from dataclasses import asdict
from typing import Any

from marshmallow import fields, validate

from api.http import paging
from api.http.operation import Call, Opens, Resource, Transacted, operation, resource
from api.http.schemas import EXAMPLE_SERIAL, Line, Shape
from api.rest.certificates import PEM_CHAIN, IssuedAnswer
from api.rest.enrolments import CertificateRequest
from api.wiring import Container
from directory.access import Role
from pki.certificates import serials
from pki.certificates.profiles import OF_OPERATORS, OPERATOR_SERVER
from pki.issuance import for_operator
from pki.model import IssuedCertificate
from pki.monitoring import certificate_history

OPERATORS = {Role.OPERATOR}
LONGEST_HOST = 253


class OperatorCertificateRequest(CertificateRequest):
    """What is asked for: a profile, a key, and the hosts of a server (none for a client)."""

    profile = fields.String(
        required=True,
        validate=validate.OneOf(sorted(OF_OPERATORS)),
        metadata={"example": OPERATOR_SERVER.name},
    )
    domains = fields.List(
        Line(LONGEST_HOST),
        load_default=list,
        validate=validate.Length(max=for_operator.MOST_HOSTS),
        metadata={
            "description": "Hôtes dans ses domaines de confiance — Hosts in its own trusted domains",
            "example": ["mx.medecin.ordre.mssante.invalid"],
        },
    )


class OperatorCertificateAnswer(IssuedAnswer):
    """A certificate of the operator, its hosts, and its state."""

    domains = fields.List(fields.String(), required=True)
    state = fields.Enum(certificate_history.State, by_value=True, required=True)


class OperatorCertificatesQuery(paging.PageQuery):
    """The page."""

    after = fields.String(metadata=paging.AFTER)


class OperatorCertificatesAnswer(Shape):
    """A page of certificates, by serial; `next` is null on the last page, and only there."""

    items = fields.List(fields.Nested(OperatorCertificateAnswer), required=True)
    next = fields.String(required=True, allow_none=True, metadata={"example": EXAMPLE_SERIAL})


@operation(
    "POST",
    "/v1/operator/certificates",
    roles=OPERATORS,
    # Reserved and committed before the key is touched, as for an enrolment.
    opens=Opens.NONE,
    french="""Certifier un serveur ou un client de l'opérateur.

    Pour l'opérateur que nomme le jeton, et dans ses propres domaines de la liste de confiance : un domaine ou
    un hôte sous lui, sans joker. Renouveler, c'est demander de nouveau avec une autre clé.
    """,
    answer=IssuedAnswer,
    status=201,
    body=OperatorCertificateRequest,
    problems=(
        "not-an-operator", "unknown-profile", "bad-hosts", "malformed-domain", "domain-not-trusted",
        "domain-suspended", "operator-suspended", "csr-too-large", "bad-csr", "bad-proof-of-possession",
        "weak-key", "key-blocked", "key-already-certified", "lint-failed", "lint-unavailable",
        "issuance-abandoned", "reason-stands", "authority-expired", "servers-authority-missing",
        "quota-reached", "signer-unavailable",
    ),
    forms=PEM_CHAIN,
)  # fmt: skip
def certify_operator(call: Call, asked: dict[str, Any]) -> IssuedCertificate:
    """Certify a server or client of the operator.

    For the operator that the token names, and in its own domains of the trusted list: a domain or a host
    below it, no wildcard. To renew is to ask again with another key.
    """
    return for_operator.issue(
        call.container.engine,
        call.container.signer,
        now=call.now,
        token=call.token,
        profile=asked["profile"],
        csr=asked["csr"].encode(),
        hosts=asked["domains"],
        base_url=call.container.settings.base_url,
        opinion=call.container.opinion,
        quotas=call.container.settings.quotas,
    )


@operation(
    "GET",
    "/v1/operator/certificates",
    roles=OPERATORS,
    opens=Opens.SNAPSHOT,
    french="""Voir ses certificats d'opérateur.

    Tous ceux de l'opérateur que nomme le jeton, avec leur état : par `not_after`, ce qui est à renouveler.
    """,
    answer=OperatorCertificatesAnswer,
    query=OperatorCertificatesQuery,
    problems=("not-an-operator", "malformed-serial"),
)
def see_operator_certificates(call: Transacted, asked: dict[str, Any]) -> dict[str, Any]:
    """See one's operator certificates.

    All those of the operator that the token names, with their state: by `not_after`, what is to be renewed.
    """
    after = serials.parse_serial(asked["after"]) if asked.get("after") else None
    limit: int = asked["limit"]
    entries = for_operator.made_for(call.connection, token=call.token, after=after, limit=limit + 1)
    page, last = paging.cut(entries, limit)
    items = [
        asdict(entry.certificate)
        | {
            "domains": list(entry.hosts),
            "state": certificate_history.state_after(entry.certificate, entry.last, call.now),
        }
        for entry in page
    ]
    return {"items": items, "next": None if last is None else last.certificate.serial}


def operator_certificates(container: Container) -> Resource:
    """The resource, served on `container`."""
    text = "Certificats des opérateurs — Operators' certificates"
    return resource("operator_certificates", text, container, certify_operator, see_operator_certificates)

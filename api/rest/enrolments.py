"""Enrolments: one registrar asks, another of the same authority sees and approves it, then a key of the
holder's is certified.
"""

from typing import Any
from uuid import UUID

from marshmallow import fields, validate

from api.front.roads import TAKES_AWAY
from api.http import paging
from api.http.operation import Call, Opens, Resource, Transacted, operation, resource
from api.http.prices import BY_NUMBER, SEARCH
from api.http.schemas import EXAMPLE_ADDRESS, LONGEST_ADDRESS, Line, Shape
from api.rest.certificates import PEM_CHAIN, IssuedAnswer
from api.rest.enrolment_schemas import (
    DraftAnswer,
    DraftOfRequest,
    EnrolmentAnswer,
    EnrolmentInFull,
    draft_of,
    in_full,
)
from api.rest.practitioners import MALFORMED_IDS
from api.wiring import Container
from directory.access import Role
from directory.base.comments import LONGEST_COMMENT
from directory.identifiers import parse_address, read_national_id, read_place
from pki.acts.act import ActKind
from pki.issuance import for_enrolment
from pki.model import Enrolment, EnrolmentState, IssuedCertificate, Purpose
from pki.registration import enrolment

REGISTRARS = {Role.REGISTRAR}
MAY_SEE = {Role.REGISTRAR, Role.AUDITOR}
AGAINST_THE_MAILBOX = (
    "domain-not-trusted", "domain-suspended", "operator-suspended", "mailbox-closed", "organisation-unknown",
    "organisation-closed",
)  # fmt: skip
EXAMPLE_ENROLMENT = "3f0e6f0e-7a4b-4c39-9f0e-0a4f7b1c2d3e"
IDENTIFIED = {
    "enrolment_id": {
        "description": "`id` rendu par la demande — `id` given by the request",
        "example": EXAMPLE_ENROLMENT,
    }
}


# On one enrolment: a thousand characters.
LONGEST_ACT = 4_096
ACT = {
    "description": "Acte signé (JWS compact), si l'installation a des ancres — Signed act (compact JWS),"
    " where the installation has anchors",
    "example": "eyJhbGciOiJFZDI1NTE5Iiw…",
}
OF_ACTS = ("no-anchors", "act-missing", "act-unfit", "another-person")


class IdentityCheck(Shape):
    """How the registrar made sure of the person."""

    method = fields.String(
        required=True,
        validate=validate.OneOf(["in-person", "video", "existing-card"]),
        metadata={"description": "Face à face, vidéo, carte détenue — In person, by video, by a card held"},
    )
    document = Line(
        200, required=True, metadata={"description": "Pièce présentée — Document shown", "example": "CPS"}
    )
    checked_on = fields.Date(required=True, metadata={"example": "2026-09-01"})


class DraftRequest(Shape):
    """Who is to be enrolled, for which mailbox, and how the identity was checked."""

    practitioner = Line(
        30,
        required=True,
        metadata={"description": "Numéro national — National number", "example": "810099000019"},
    )
    mailbox = Line(LONGEST_ADDRESS, required=True, metadata={"example": EXAMPLE_ADDRESS})
    identity_check = fields.Nested(IdentityCheck, required=True)


class EnrolmentRequest(DraftRequest):
    """The same; where the installation has anchors, with the act of who asks and the id of its draft."""

    id = fields.UUID(metadata={"description": "`id` du projet — `id` of the draft"})
    act = Line(LONGEST_ACT, metadata=ACT)


class SignedApproval(Shape):
    """The act of who approves, where the installation has anchors; otherwise nothing."""

    may_be_absent = True

    act = Line(LONGEST_ACT, metadata=ACT)


class EnrolmentsQuery(paging.PageQuery):
    """Which enrolments; all of the caller's authority when nothing is said."""

    state = fields.Enum(EnrolmentState, by_value=True)
    establishment = Line(
        30,
        metadata={
            "description": "Numéro FINESS ou SIRET : ses boîtes, et les professionnels qui y exercent — "
            "FINESS number or SIRET: its mailboxes, and the people who practise there",
            "example": "250990033",
        },
    )
    after = fields.UUID(metadata=paging.AFTER)


class EnrolmentsAnswer(Shape):
    """A page of enrolments, the oldest request first; `next` is null on the last page, and only there."""

    items = fields.List(fields.Nested(EnrolmentInFull), required=True)
    next = fields.UUID(required=True, allow_none=True)


class WithdrawalRequest(Shape):
    """Why the request is withdrawn."""

    comment = Line(LONGEST_COMMENT, required=True, metadata={"example": "Mauvaise boîte"})


PURPOSE = {
    "description": "Usage de la clé : à dire si le réglage `mail_keys` est `separate`, à taire s'il est"
    " `joined` — What the key is for: to be said when the setting `mail_keys` is `separate`, not when it is"
    " `joined`",
}
PURPOSES = ("purpose-missing", "purpose-not-separate")


EXAMPLE_REQUEST = {
    "example": "-----BEGIN CERTIFICATE REQUEST-----\nMIIB…\n-----END CERTIFICATE REQUEST-----\n"
}


class CertificateRequest(Shape):
    """A PKCS#10 request: PEM, any text around it, or its DER in base64. Only key and signature count."""

    csr = fields.String(required=True, validate=validate.Length(min=1), metadata=EXAMPLE_REQUEST)
    purpose = fields.Enum(Purpose, by_value=True, allow_none=True, metadata=PURPOSE)


AGAINST_THE_REQUEST = (
    *MALFORMED_IDS, "malformed-address", "bad-identity-check", "unknown-practitioner", "unknown-mailbox",
    "not-a-registrar", "wrong-authority", "mailbox-kind-not-served", "not-the-holder",
    "holder-not-in-registry", "holder-not-practising", "holder-suspended", "holder-struck-off",
    *AGAINST_THE_MAILBOX,
)  # fmt: skip


@operation(
    "POST",
    "/v1/enrolments/drafts",
    roles=REGISTRARS,
    opens=Opens.SNAPSHOT,
    # It tells of a person and his mailbox, and leaves no line: read in a row, it would be a search uncounted.
    price=BY_NUMBER,
    french="""Préparer une demande d'enrôlement.

    Ce que l'agent lit et signe de sa propre clé, et l'identifiant sous lequel il fait ensuite la demande.
    Rien n'est retenu.
    """,
    answer=DraftOfRequest,
    body=DraftRequest,
    problems=(*AGAINST_THE_REQUEST, "no-anchors"),
)
def draft_enrolment(call: Transacted, asked: dict[str, Any]) -> dict[str, Any]:
    """Draw up the request of an enrolment.

    What the registrar reads and signs with his own key, and the id under which he then asks. Nothing is kept.
    """
    drawn_up = enrolment.draw_up(call.connection, now=call.now, token=call.token, **_whom(call, asked))
    return {"id": drawn_up.id, "draft": draft_of(call.container, drawn_up, ActKind.ENROLMENT_REQUEST)}


@operation(
    "GET",
    "/v1/enrolments/<uuid:enrolment_id>/draft",
    roles=REGISTRARS,
    opens=Opens.SNAPSHOT,
    french="""Ce qui est à signer pour approuver.

    Ce que l'agent qui approuve lit et signe de sa propre clé.
    """,
    answer=DraftAnswer,
    problems=("unknown-enrolment", "not-a-registrar", "wrong-authority", "no-anchors"),
    parameters=IDENTIFIED,
)
def draft_approval(call: Transacted, enrolment_id: UUID) -> dict[str, Any]:
    """What is to be signed for an approval.

    What the approving registrar reads and signs with his own key.
    """
    seen_enrolment = enrolment.enrolment_seen(call.connection, token=call.token, enrolment_id=enrolment_id)
    return draft_of(call.container, seen_enrolment, ActKind.ENROLMENT_APPROVE)


@operation(
    "POST",
    "/v1/enrolments",
    roles=REGISTRARS,
    opens=Opens.WRITE,
    french="""Demander un enrôlement.

    Un agent de l'Ordre dont relève le professionnel atteste de son identité pour une boîte. Un autre agent
    du même Ordre doit approuver.
    """,
    answer=EnrolmentAnswer,
    status=201,
    body=EnrolmentRequest,
    problems=(*AGAINST_THE_REQUEST, "already-enrolled", *OF_ACTS),
    idempotent=True,
)
def request_enrolment(call: Transacted, asked: dict[str, Any]) -> Enrolment:
    """Request an enrolment.

    A registrar of the Ordre that the practitioner belongs to vouches for his identity, for one mailbox.
    Another registrar of the same Ordre must approve.
    """
    return enrolment.request_enrolment(
        call.connection,
        now=call.now,
        token=call.token,
        **_whom(call, asked),
        enrolment_id=asked.get("id"),
        signed=act_of(asked.get("act")),
        powers=call.container.powers_followed,
    )


def _whom(call: Call, asked: dict[str, Any]) -> dict[str, Any]:
    strict = call.container.settings.strict_rpps
    return {
        "practitioner": read_national_id(asked["practitioner"], strict=strict),
        "mailbox": parse_address(asked["mailbox"]),
        "identity_check": asked["identity_check"],
    }


def act_of(given: str | None) -> bytes | None:
    """An act as it was sent; what is no ASCII is no act, and is judged as such."""
    return None if given is None else given.encode()


@operation(
    "POST",
    "/v1/enrolments/<uuid:enrolment_id>/approval",
    roles=REGISTRARS,
    opens=Opens.WRITE,
    french="""Approuver un enrôlement.

    Par un autre agent du même Ordre que celui qui l'a demandé ; une seule fois.
    """,
    answer=EnrolmentAnswer,
    problems=(
        "unknown-enrolment",
        "not-a-registrar",
        "self-approval",
        "wrong-authority",
        "already-approved",
        "enrolment-ended",
        "enrolment-void",
        *OF_ACTS,
    ),
    parameters=IDENTIFIED,
    body=SignedApproval,
    idempotent=True,
)
def approve_enrolment(call: Transacted, asked: dict[str, Any], enrolment_id: UUID) -> Enrolment:
    """Approve an enrolment.

    By another registrar of the same Ordre than the one who asked; once.
    """
    return enrolment.approve_enrolment(
        call.connection, now=call.now, token=call.token, enrolment_id=enrolment_id,
        signed=act_of(asked.get("act")), powers=call.container.powers_followed,
    )  # fmt: skip


@operation(
    "POST",
    "/v1/enrolments/<uuid:enrolment_id>/withdrawal",
    roles=REGISTRARS,
    opens=Opens.WRITE,
    while_behind=True,
    road=TAKES_AWAY,
    french="""Retirer une demande.

    Par un agent du même Ordre, celui qui l'a faite ou un autre, tant qu'elle n'est pas approuvée. Une autre
    demande peut alors être faite pour la même personne et la même boîte.
    """,
    answer=EnrolmentAnswer,
    body=WithdrawalRequest,
    problems=(
        "unknown-enrolment", "not-a-registrar", "already-approved", "enrolment-ended",
        "comment-too-long",
    ),
    parameters=IDENTIFIED,
    idempotent=True,
)  # fmt: skip
def withdraw_enrolment(call: Transacted, asked: dict[str, Any], enrolment_id: UUID) -> Enrolment:
    """Withdraw a request.

    By a registrar of the same Ordre, whoever asked or another, while it is not approved. Another request may
    then be made for the same person and mailbox.
    """
    return enrolment.withdraw_enrolment(
        call.connection,
        now=call.now,
        token=call.token,
        enrolment_id=enrolment_id,
        comment=asked["comment"],
    )


@operation(
    "GET",
    "/v1/enrolments",
    roles=MAY_SEE,
    opens=Opens.SNAPSHOT,
    price=SEARCH,
    french="""Voir les enrôlements.

    Un agent voit ceux de son Ordre, un auditeur tous. Avec `state=requested`, ceux qui attendent une
    approbation ; avec `establishment`, ceux d'un établissement et des personnes qui y exercent. La demande la
    plus ancienne vient d'abord.
    """,
    answer=EnrolmentsAnswer,
    query=EnrolmentsQuery,
    problems=(
        "not-a-registrar",
        "bad-cursor",
        "malformed-finess",
        "finess-check-digit",
        "siret-check-digit",
    ),
)
def see_enrolments(call: Transacted, asked: dict[str, Any]) -> dict[str, Any]:
    """See enrolments.

    A registrar sees those of his Ordre, an auditor all. With `state=requested`, those that await approval;
    with `establishment`, those of an establishment and of people who practise there. The oldest request comes
    first.
    """
    limit: int = asked["limit"]
    establishment = asked.get("establishment")
    listed_enrolments = enrolment.enrolments_seen(
        call.connection,
        token=call.token,
        state=asked.get("state"),
        establishment=None if establishment is None else read_place(establishment),
        after=asked.get("after"),
        limit=limit + 1,
    )
    page, last = paging.cut(listed_enrolments, limit)
    return {"items": in_full(call.connection, page), "next": None if last is None else last.id}


@operation(
    "GET",
    "/v1/enrolments/<uuid:enrolment_id>",
    roles=MAY_SEE,
    opens=Opens.SNAPSHOT,
    french="""Un enrôlement.

    Qui l'a demandé, sur quelle preuve d'identité, qui l'a approuvé.
    """,
    answer=EnrolmentInFull,
    problems=("unknown-enrolment", "not-a-registrar", "wrong-authority"),
    parameters=IDENTIFIED,
)
def see_enrolment(call: Transacted, enrolment_id: UUID) -> dict[str, Any]:
    """One enrolment.

    Who asked for it, on what proof of identity, who approved it.
    """
    seen_enrolment = enrolment.enrolment_seen(call.connection, token=call.token, enrolment_id=enrolment_id)
    return in_full(call.connection, [seen_enrolment])[0]


@operation(
    "POST",
    "/v1/enrolments/<uuid:enrolment_id>/certificates",
    roles=REGISTRARS,
    # The serial is reserved and committed before the key is touched, and nothing is open while it signs.
    opens=Opens.NONE,
    french="""Certifier une clé.

    La demande (CSR) doit être signée par la clé qu'elle porte. Seule la clé en est retenue : les noms
    viennent du registre et de l'enrôlement. Où signature et chiffrement sont séparés, `purpose` dit lequel
    des deux cette clé servira.
    """,
    answer=IssuedAnswer,
    status=201,
    body=CertificateRequest,
    problems=(
        "unknown-enrolment", "not-a-registrar", "wrong-authority", "not-approved", "enrolment-ended",
        "csr-too-large", "bad-csr", "bad-proof-of-possession", "weak-key", "key-already-certified",
        "already-certified", "key-blocked", "key-period-over", "identity-too-old", "quota-reached",
        "lint-failed", "issuance-abandoned", "reason-stands", "enrolment-void", "holder-not-in-registry",
        "holder-not-practising", "holder-suspended", "holder-struck-off", *AGAINST_THE_MAILBOX,
        "authority-expired", "signer-unavailable", "lint-unavailable", *PURPOSES,
        "evidence-missing", "evidence-unfit", "frozen", "log-rewritten",
    ),
    parameters=IDENTIFIED,
    idempotent=True,
    forms=PEM_CHAIN,
)  # fmt: skip
def issue_certificate(call: Call, asked: dict[str, Any], enrolment_id: UUID) -> IssuedCertificate:
    """Certify a key.

    The request (CSR) must be signed by the key it carries. Only the key is taken from it: names come from the
    register and the enrolment. Where signature and encryption are separate, `purpose` says which of the two
    this key will serve.
    """
    return for_enrolment.issue_for_enrolment(
        call.container.engine,
        call.container.signer,
        now=call.now,
        token=call.token,
        enrolment_id=enrolment_id,
        csr=asked["csr"].encode(),
        base_url=call.container.settings.base_url,
        purposes=call.container.purposes(asked.get("purpose")),
        quotas=call.container.settings.quotas,
        keep=call.keep,
        opinion=call.container.opinion,
    )


def enrolments(container: Container) -> Resource:
    """The resource, served on `container`."""
    text = "Enrôlements par les Ordres — Enrolments by the Ordres"
    return resource(
        "enrolments", text, container, draft_enrolment, draft_approval, request_enrolment, see_enrolments,
        see_enrolment, approve_enrolment, withdraw_enrolment, issue_certificate,
    )  # fmt: skip

"""Batches: many enrolments approved, and many keys certified, at once, for people of one authority."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from marshmallow import fields, validate

from api.front.roads import LARGEST_BATCH, Road
from api.http.operation import Call, Opens, Resource, Transacted, operation, resource
from api.http.schemas import Instant, Line, Shape
from api.rest.certificates import IssuedAnswer
from api.rest.enrolment_schemas import EnrolmentAnswer
from api.rest.enrolments import (
    EXAMPLE_ENROLMENT,
    EXAMPLE_REQUEST,
    LONGEST_ACT,
    MAY_SEE,
    REGISTRARS,
    CertificateRequest,
)
from api.wiring import Container
from directory.base.errors import Refusal
from pki.issuance import batch
from pki.issuance.batch_store import Batch, Item
from pki.model import RevocationAction

IDENTIFIED = {
    "batch_id": {"description": "`id` rendu par l'envoi — `id` given when sent", "example": EXAMPLE_ENROLMENT}
}


class BatchItemRequest(CertificateRequest):
    """One approved enrolment, and the request that gives its key."""

    enrolment = fields.UUID(required=True, metadata={"example": EXAMPLE_ENROLMENT})
    # Whatever it is, it is refused for itself.
    csr = fields.String(required=True, metadata=EXAMPLE_REQUEST)


class BatchRequest(Shape):
    """Up to a thousand items, each enrolment once, or once for each purpose."""

    items = fields.List(
        fields.Nested(BatchItemRequest),
        required=True,
        validate=validate.Length(1, batch.LARGEST),
    )


class RefusalAnswer(Shape):
    """Why an item was refused, in the words of a problem."""

    code = fields.String(required=True, metadata={"example": "weak-key"})
    text = fields.String(required=True)


class BatchItemAnswer(Shape):
    """What an item came to: `issued`, `revoked` since, `refused`, or `pending`: send the same batch again."""

    enrolment = fields.UUID(required=True)
    state = fields.String(
        required=True, validate=validate.OneOf(["issued", "revoked", "on-hold", "refused", "pending"])
    )
    certificate = fields.Nested(IssuedAnswer, required=True, allow_none=True)
    refusal = fields.Nested(RefusalAnswer, required=True, allow_none=True)


class BatchAnswer(Shape):
    """A batch and its items, in the order they were sent."""

    id = fields.UUID(required=True)
    authority = fields.String(required=True, metadata={"example": "CNOM"})
    requested_at = Instant(required=True)
    items = fields.List(fields.Nested(BatchItemAnswer), required=True)


class ApprovalsRequest(Shape):
    """The enrolments to approve, each once."""

    enrolments = fields.List(fields.UUID(), required=True, validate=validate.Length(1, batch.LARGEST))
    acts = fields.List(
        Line(LONGEST_ACT),
        validate=validate.Length(1, batch.LARGEST),
        metadata={
            "description": "Un acte signé pour chacun, dans le même ordre, si l'installation a des ancres — A"
            " signed act for each, in the same order, where the installation has anchors"
        },
    )


class BatchApprovalAnswer(Shape):
    """One enrolment approved, or why not."""

    id = fields.UUID(required=True)
    enrolment = fields.Nested(EnrolmentAnswer, required=True, allow_none=True)
    refusal = fields.Nested(RefusalAnswer, required=True, allow_none=True)


class ApprovalsAnswer(Shape):
    """What each came to."""

    items = fields.List(fields.Nested(BatchApprovalAnswer), required=True)


@operation(
    "POST",
    "/v1/batches",
    roles=REGISTRARS,
    # Reserved and committed before the keys are touched, as for one.
    opens=Opens.NONE,
    french="""Certifier beaucoup de clés.

    Jusqu'à mille enrôlements approuvés, une demande (CSR) chacun. Chacun est certifié ou refusé pour lui
    seul. Le même envoi est le même lot : ce qui est fait reste, ce qui fut coupé reprend.
    """,
    answer=BatchAnswer,
    status=201,
    body=BatchRequest,
    road=Road(largest=LARGEST_BATCH),
    problems=("not-a-registrar", "bad-batch", "authority-expired",
              "quota-reached", "signer-unavailable"),
)  # fmt: skip
def issue_batch(call: Call, asked: dict[str, Any]) -> dict[str, Any]:
    """Certify many keys.

    Up to a thousand approved enrolments, one request (CSR) each. Each is certified or refused for itself. The
    same batch sent again is the same batch: what is done stays, what was cut off goes on.
    """
    made, items = batch.issue_all(
        call.container.engine,
        call.container.signer,
        now=call.now,
        token=call.token,
        asked=[_asked(call, item) for item in asked["items"]],
        base_url=call.container.settings.base_url,
        quotas=call.container.settings.quotas,
    )
    return _told(made, items)


@operation(
    "GET",
    "/v1/batches/<uuid:batch_id>",
    roles=MAY_SEE,
    opens=Opens.SNAPSHOT,
    french="""Voir un lot.

    Ce que chaque élément est devenu : certificat, refus, ou en attente si l'envoi fut coupé.
    """,
    answer=BatchAnswer,
    problems=("unknown-batch", "not-a-registrar", "wrong-authority"),
    parameters=IDENTIFIED,
)
def see_batch(call: Transacted, batch_id: UUID) -> dict[str, Any]:
    """See a batch.

    What each item came to: a certificate, a refusal, or pending where the sending was cut off.
    """
    return _told(*batch.seen(call.connection, token=call.token, batch_id=batch_id))


@operation(
    "POST",
    "/v1/enrolments/approvals",
    roles=REGISTRARS,
    opens=Opens.WRITE,
    french="""Approuver beaucoup d'enrôlements.

    Par un autre agent du même Ordre que celui qui a demandé chacun ; chacun est approuvé ou refusé pour lui
    seul.
    """,
    answer=ApprovalsAnswer,
    body=ApprovalsRequest,
    road=Road(largest=LARGEST_BATCH),
    problems=("not-a-registrar", "bad-batch"),
    idempotent=True,
)
def approve_enrolments(call: Transacted, asked: dict[str, Any]) -> dict[str, Any]:
    """Approve many enrolments.

    By another registrar of the same Ordre than the one who asked for each; each is approved or refused for
    itself.
    """
    results = batch.approve_all(
        call.connection, now=call.now, token=call.token, enrolment_ids=asked["enrolments"],
        signed=None if "acts" not in asked else [act.encode() for act in asked["acts"]],
        powers=call.container.powers_followed,
    )  # fmt: skip
    items = [
        {"id": key, "enrolment": None, "refusal": {"code": result.code, "text": result.text}}
        if isinstance(result, Refusal)
        else {"id": key, "enrolment": result, "refusal": None}
        for key, result in results.items()
    ]
    return {"items": items}


def batches(container: Container) -> Resource:
    """The resource, served on `container`."""
    text = "Lots d'un établissement — Batches for an establishment"
    return resource("batches", text, container, issue_batch, see_batch, approve_enrolments)


def _asked(call: Call, item: Mapping[str, Any]) -> batch.BatchItem:
    """An item; a purpose that it lacks, or should not have, is a fault of this item alone."""
    try:
        return batch.BatchItem(
            item["enrolment"], item["csr"].encode(), call.container.purposes(item.get("purpose"))
        )
    except Refusal as refusal:
        return batch.BatchItem(item["enrolment"], item["csr"].encode(), frozenset(), refusal)


def _told(made: Batch, items: list[Item]) -> dict[str, Any]:
    return {
        "id": made.id,
        "authority": made.authority,
        "requested_at": made.requested_at,
        "items": [
            {
                "enrolment": item.enrolment_id,
                "state": _state(item),
                "certificate": None if item.certificate is None else vars(item.certificate),
                "refusal": item.refusal and {"code": item.refusal["code"], "text": item.refusal["text"]},
            }
            for item in items
        ],
    }


_STATES = {None: "issued", RevocationAction.RELEASE: "issued", RevocationAction.HOLD: "on-hold",
           RevocationAction.REVOKE: "revoked"}  # fmt: skip


def _state(item: Item) -> str:
    if item.refusal is not None:
        return "refused"
    return "pending" if item.certificate is None else _STATES[item.last]

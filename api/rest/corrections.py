"""Local corrections: what is said here in place of a register, made at once, listed, withdrawn."""

from typing import Any

from marshmallow import fields, validate

from api.http import paging
from api.http.operation import Opens, Resource, Transacted, operation, resource
from api.http.prices import SEARCH
from api.http.schemas import LARGEST_ID, Instant, Line, QueryAddress, Shape
from api.rest.practitioners import MALFORMED_IDS
from api.wiring import Container
from directory import corrections as use_cases
from directory.access import Role
from directory.base.comments import LONGEST_REASON
from directory.corrections import LONGEST_VALUE, Correction
from directory.feed.changes import Entity
from directory.precedence import CORRECTABLE
from pki.withdrawal.void_enrolments import void_of

MAY_CORRECT = {Role.REGISTRAR, Role.ADMIN}
LONGEST_KEY = 320
ENTITIES = [entity.value for entity in CORRECTABLE]
FIELDS = sorted({field for fields_of in CORRECTABLE.values() for field in fields_of})
_WHAT = {"description": "De quoi — Of what", "example": "practitioner"}
_KEY = {
    "description": "Numéro national, FINESS ou adresse — National number, FINESS number or address",
    "example": "810099000019",
}
_ENDING = [None, "withdrawn", "agreed", "replaced"]


class CorrectionRequest(Shape):
    """What is said instead, and why. The reason stays between the authority, administrators and auditors."""

    entity = fields.String(required=True, validate=validate.OneOf(ENTITIES), metadata=_WHAT)
    key = Line(LONGEST_KEY, required=True, metadata=_KEY)
    field = fields.String(required=True, validate=validate.OneOf(FIELDS), metadata={"example": "family_name"})
    value = fields.String(
        required=True,
        validate=validate.Length(max=LONGEST_VALUE),
        metadata={
            "description": "Un jour : AAAA-MM-JJ ; `listed` : true ou false — A day: YYYY-MM-DD; `listed`: "
            "true or false",
            "example": "MARTIN",
        },
    )
    reason = Line(LONGEST_REASON, required=True, metadata={"example": "Vu sur le diplôme"})


class CorrectionsQuery(paging.NumberedQuery):
    """Which corrections; those in force when nothing is said."""

    entity = fields.String(validate=validate.OneOf(ENTITIES), metadata=_WHAT)
    key = QueryAddress(LONGEST_KEY, metadata=_KEY)
    ended = fields.Boolean(
        load_default=False, metadata={"description": "Aussi celles qui ont pris fin — Ended ones besides"}
    )


class CorrectionAnswer(Shape):
    """A correction; in force while `ending` is null. `register_value` is what the register said last."""

    id = fields.Integer(required=True, metadata={"example": 7})
    entity = fields.String(required=True, validate=validate.OneOf(ENTITIES))
    key = fields.String(required=True, metadata={"example": "810099000019"})
    field = fields.String(required=True, metadata={"example": "family_name"})
    value = fields.String(required=True, metadata={"example": "MARTIN"})
    register_value = fields.String(required=True, metadata={"example": "MARTAIN"})
    authority = fields.String(required=True, metadata={"example": "CNOM"})
    reason = fields.String(required=True)
    made_by = fields.String(required=True, metadata={"example": "token:12"})
    made_at = Instant(required=True)
    ending = fields.String(required=True, allow_none=True, validate=validate.OneOf(_ENDING))
    ended_by = fields.String(required=True, allow_none=True)
    ended_at = Instant(required=True, allow_none=True)


class CorrectionsAnswer(Shape):
    """A page of corrections, the oldest first; `next` is null on the last page, and only there."""

    items = fields.List(fields.Nested(CorrectionAnswer), required=True)
    next = fields.Integer(required=True, allow_none=True)


@operation(
    "POST",
    "/v1/corrections",
    roles=MAY_CORRECT,
    opens=Opens.WRITE,
    french="""Corriger ce qu'un registre dit mal.

    Visible aussitôt partout, et après les fichiers des nuits suivantes, jusqu'au retrait ou jusqu'à ce que le
    registre dise de même. Un agent corrige les professionnels de son Ordre et leurs boîtes, un administrateur
    tout. Rien de ce qui fonde la confiance ne se corrige ; un jour de fermeture ne peut qu'être avancé. Un
    nom compte pour chaque enrôlement approuvé qu'il rend caduc : au-delà de la limite, un second agent ou
    administrateur consent d'abord.
    """,
    answer=CorrectionAnswer,
    status=201,
    body=CorrectionRequest,
    problems=(
        *MALFORMED_IDS, "malformed-address", "not-correctable", "bad-correction", "reason-missing",
        "reason-too-long", "unknown-practitioner", "unknown-organisation", "unknown-mailbox",
        "wrong-authority", "nothing-to-correct", "closing-put-off", "register-being-applied",
        "withdrawal-limit-reached",
    ),
    idempotent=True,
)  # fmt: skip
def make_correction(call: Transacted, asked: dict[str, Any]) -> Correction:
    """Correct what a register has wrong.

    Seen at once everywhere, and after the files of the nights to come, until it is withdrawn or the register
    says the same. A registrar corrects the people of his Ordre and their mailboxes, an administrator all.
    Nothing that trust rests on is corrected; a closing day can only be brought forward. A name counts once
    for each approved enrolment that it voids: beyond the limit a second registrar or administrator agrees
    first.
    """
    return use_cases.correct(
        call.connection,
        now=call.now,
        token=call.token,
        entity=Entity(asked["entity"]),
        key=asked["key"],
        field=asked["field"],
        value=asked["value"],
        reason=asked["reason"],
        void_of=void_of,
    )


@operation(
    "GET",
    "/v1/corrections",
    roles={Role.REGISTRAR, Role.ADMIN, Role.AUDITOR},
    opens=Opens.SNAPSHOT,
    price=SEARCH,
    french="""Les corrections faites ici.

    Un agent voit celles de son Ordre, administrateurs et auditeurs toutes, motifs compris.
    """,
    answer=CorrectionsAnswer,
    query=CorrectionsQuery,
    problems=(*MALFORMED_IDS, "malformed-address"),
)
def see_corrections(call: Transacted, asked: dict[str, Any]) -> dict[str, Any]:
    """The corrections made here.

    A registrar sees those of his Ordre, administrators and auditors all, with their reasons.
    """
    limit: int = asked["limit"]
    changes = use_cases.corrections_made(
        call.connection,
        token=call.token,
        entity=Entity(asked["entity"]) if "entity" in asked else None,
        key=asked.get("key"),
        ended=asked["ended"],
        after=asked.get("after", 0),
        limit=limit + 1,
    )
    page, last = paging.cut(changes, limit)
    return {"items": page, "next": None if last is None else last.id}


@operation(
    "POST",
    "/v1/corrections/<int:correction_id>/withdrawal",
    roles=MAY_CORRECT,
    opens=Opens.WRITE,
    french="""Retirer une correction.

    La valeur redevient aussitôt celle que le registre a dite en dernier. La date de fermeture dite par autrui
    demande deux personnes : `ending` reste nul jusqu'à l'accord de la seconde.
    """,
    answer=CorrectionAnswer,
    problems=(
        "unknown-correction", "correction-ended", "register-being-applied",
        "self-approval", "withdrawal-limit-reached",
    ),
    parameters={
        "correction_id": {
            "schema": {"type": "integer", "minimum": 1, "maximum": LARGEST_ID},
            "description": "`id` rendu avec la correction — `id` given with the correction",
            "example": 7,
        }
    },
    idempotent=True,
)  # fmt: skip
def withdraw_correction(call: Transacted, correction_id: int) -> Correction:
    """Withdraw a correction.

    The value is at once what the register said last. A closing day that somebody else said takes two persons:
    `ending` stays null until the second agrees.
    """
    return use_cases.withdraw_correction(
        call.connection, now=call.now, token=call.token, correction_id=correction_id, void_of=void_of
    )


def corrections(container: Container) -> Resource:
    """The resource, served on `container`."""
    text = "Corrections locales — Local corrections"
    return resource("corrections", text, container, make_correction, see_corrections, withdraw_correction)

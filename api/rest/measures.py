"""Measures of an Ordre or agency against a person: taken by one registrar at once, lifted by two."""

from typing import Any

from marshmallow import fields

from api.rest.operation import Opens, Resource, Transacted, operation, resource
from api.rest.practitioners import EXAMPLE_NATIONAL_ID, MALFORMED_IDS, OF_A_PERSON
from api.rest.prices import BY_NUMBER
from api.rest.shapes import LARGEST_ID, Instant, Line, Shape
from api.roads import TAKES_AWAY
from api.wiring import Container
from directory.access import Role
from directory.identifiers import read_national_id
from directory.model import MeasureKind
from directory.rules import LONGEST_REASON
from pki import measures as use_cases
from pki.measures import Measure, MeasureState

IDENTIFIED = {
    "measure_id": {
        "schema": {"type": "integer", "minimum": 1, "maximum": LARGEST_ID},
        "description": "`id` rendu avec la mesure — `id` given with the measure",
        "example": 12,
    }
}


class MeasureRequest(Shape):
    """What is decided, and why. The reason stays between the registrars of the authority and auditors."""

    kind = fields.Enum(MeasureKind, by_value=True, required=True)
    reason = Line(LONGEST_REASON, required=True, metadata={"example": "Décision 2026-117"})


class LiftingRequest(Shape):
    """Why it is lifted; of a confirmation nothing is kept but who confirmed."""

    reason = Line(LONGEST_REASON, required=True, metadata={"example": "Appel accueilli"})


class MeasureAnswer(Shape):
    """A measure as it stands: `reason` says why it was taken, `lifting_reason` why it is lifted."""

    id = fields.Integer(required=True, metadata={"example": 12})
    practitioner = fields.String(required=True, metadata={"example": EXAMPLE_NATIONAL_ID})
    kind = fields.Enum(MeasureKind, by_value=True, required=True)
    authority = fields.String(required=True, metadata={"example": "CNOM"})
    reason = fields.String(required=True)
    state = fields.Enum(MeasureState, by_value=True, required=True)
    starts_at = Instant(required=True)
    ends_at = Instant(required=True, allow_none=True)
    recorded_by = fields.String(required=True, metadata={"example": "token:12"})
    lifting_asked_at = Instant(required=True, allow_none=True)
    lifting_reason = fields.String(required=True, allow_none=True)


class MeasuresAnswer(Shape):
    """Every measure ever taken against the person, oldest first."""

    items = fields.List(fields.Nested(MeasureAnswer), required=True)


@operation(
    "POST",
    "/v1/practitioners/<national_id>/measures",
    roles={Role.REGISTRAR},
    opens=Opens.WRITE,
    while_behind=True,
    road=TAKES_AWAY,
    french="""Suspendre ou radier.

    Par un seul agent de l'Ordre du professionnel, et aussitôt : un retard laisserait partir des messages.
    Le verdict et OCSP le disent dès la réponse, LDAP en quelques secondes, la CRL dans la minute. Une
    suspension suspend les certificats, une radiation les révoque. Les fichiers des nuits suivantes n'y
    changent rien.
    """,
    answer=MeasureAnswer,
    status=201,
    body=MeasureRequest,
    problems=(
        *MALFORMED_IDS, "unknown-practitioner", "not-a-registrar", "wrong-authority", "reason-missing",
        "reason-too-long", "measure-in-force", "withdrawal-limit-reached",
    ),
    parameters=OF_A_PERSON,
    idempotent=True,
)  # fmt: skip
def take_measure(call: Transacted, asked: dict[str, Any], national_id: str) -> Measure:
    """Suspend or strike off.

    By one registrar of the person's Ordre, and at once: delay would let messages go. The verdict and OCSP say
    so with the answer, LDAP within seconds, the CRL within the minute. A suspension holds the certificates, a
    strike-off revokes them. The files of the nights to come do not undo it.
    """
    return use_cases.take(
        call.connection,
        now=call.now,
        token=call.token,
        national_id=read_national_id(national_id, strict=call.container.settings.strict_rpps),
        kind=asked["kind"],
        reason=asked["reason"],
        graces=call.container.graces,
    )


@operation(
    "GET",
    "/v1/practitioners/<national_id>/measures",
    roles={Role.REGISTRAR, Role.AUDITOR},
    opens=Opens.SNAPSHOT,
    price=BY_NUMBER,
    while_behind=True,
    french="""Les mesures contre un professionnel.

    Un agent voit celles de son Ordre, un auditeur toutes, motifs compris.
    """,
    answer=MeasuresAnswer,
    problems=(*MALFORMED_IDS, "unknown-practitioner", "not-a-registrar"),
    parameters=OF_A_PERSON,
)
def see_measures(call: Transacted, national_id: str) -> dict[str, Any]:
    """The measures against a practitioner.

    A registrar sees those of his Ordre, an auditor all, with their reasons.
    """
    wanted = read_national_id(national_id, strict=call.container.settings.strict_rpps)
    found = use_cases.measures_seen(call.connection, token=call.token, national_id=wanted, now=call.now)
    return {"items": found}


@operation(
    "POST",
    "/v1/measures/<int:measure_id>/lifting",
    roles={Role.REGISTRAR},
    opens=Opens.WRITE,
    french="""Lever une mesure.

    Rendre la confiance demande deux agents de l'Ordre qui a pris la mesure : le premier demande
    (`lifting-asked`), un autre confirme dans les sept jours par le même appel (`lifted`). Les certificats
    suspendus pour elle sont rétablis ; ceux qu'une radiation a révoqués le restent.
    """,
    answer=MeasureAnswer,
    body=LiftingRequest,
    problems=(
        "unknown-measure", "not-a-registrar", "self-approval", "reason-missing",
        "reason-too-long", "measure-not-in-force",
    ),
    parameters=IDENTIFIED,
    idempotent=True,
)  # fmt: skip
def lift_measure(call: Transacted, asked: dict[str, Any], measure_id: int) -> Measure:
    """Lift a measure.

    Giving trust back takes two registrars of the Ordre that took it: the first asks (`lifting-asked`),
    another confirms within seven days by the same call (`lifted`). Certificates held for it are released;
    those that a strike-off revoked stay revoked.
    """
    return use_cases.lift(
        call.connection,
        now=call.now,
        token=call.token,
        measure_id=measure_id,
        reason=asked["reason"],
        graces=call.container.graces,
    )


def measures(container: Container) -> Resource:
    """The resource, served on `container`."""
    text = "Mesures des Ordres — Measures of the Ordres"
    return resource("measures", text, container, take_measure, see_measures, lift_measure)

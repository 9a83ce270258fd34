"""Measures of an Ordre or agency against a person: taken, prolonged by one registrar, given back by two."""

from typing import Any

from marshmallow import fields

from api.front.roads import TAKES_AWAY
from api.http.operation import Opens, Resource, Transacted, operation, resource
from api.http.prices import BY_NUMBER
from api.http.schemas import EXAMPLE_SERIAL, LARGEST_ID, DayOrInstant, Instant, Line, Shape
from api.rest.practitioners import EXAMPLE_NATIONAL_ID, MALFORMED_IDS, OF_A_PERSON
from api.wiring import Container
from directory.access import Role
from directory.base.comments import LONGEST_REASON
from directory.identifiers import read_national_id
from directory.model import MeasureKind
from pki.withdrawal import measures as use_cases
from pki.withdrawal.measures import Act, Measure, MeasureState

IDENTIFIED = {
    "measure_id": {
        "schema": {"type": "integer", "minimum": 1, "maximum": LARGEST_ID},
        "description": "`id` rendu avec la mesure — `id` given with the measure",
        "example": 12,
    }
}


_FROM = {
    "example": "2027-01-01",
    "description": "Jour (de Paris) ou instant où elle commence ; sans lui, tout de suite — Day (of Paris) or"
    " instant at which it begins; without it, at once",
}
_UNTIL = {
    "example": "2027-03-31",
    "description": "Dernier jour (de Paris), ou instant où elle prend fin ; sans lui, jusqu'à sa levée — Last"
    " day (of Paris), or instant at which it ends; without it, until it is lifted",
}


class MeasureRequest(Shape):
    """What is decided, and why. The reason stays between the registrars of the authority and auditors."""

    kind = fields.Enum(MeasureKind, by_value=True, required=True)
    reason = Line(LONGEST_REASON, required=True, metadata={"example": "Décision 2026-117"})
    begins = DayOrInstant(data_key="from", metadata=_FROM)
    until = DayOrInstant(metadata=_UNTIL)


class ProlongationRequest(Shape):
    """The later end, and why; null where it is to last until it is lifted."""

    until = DayOrInstant(required=True, allow_none=True, metadata=_UNTIL)
    reason = Line(LONGEST_REASON, required=True, metadata={"example": "Décision 2027-009"})


class ShorteningRequest(Shape):
    """The earlier end, and why. Who confirms gives the same end, and names it."""

    until = DayOrInstant(required=True, metadata=_UNTIL)
    confirms = DayOrInstant(
        load_default=None,
        allow_none=True,
        metadata={
            "description": "Pour confirmer la demande d'un collègue : `shortening_asked` de la mesure, ou ce"
            " dernier jour (de Paris) — To confirm a colleague's request: `shortening_asked` of the measure,"
            " or that last day (of Paris)",
            "example": None,
        },
    )
    reason = Line(LONGEST_REASON, required=True, metadata={"example": "Recours accueilli en partie"})


class AnnulmentRequest(Shape):
    """Why it was an error. Who confirms names what he confirms."""

    confirms = Instant(
        load_default=None,
        allow_none=True,
        metadata={
            "description": "Pour confirmer la demande d'un collègue : `annulment_asked` de la mesure — To"
            " confirm a colleague's request: `annulment_asked` of the measure",
            "example": None,
        },
    )
    reason = Line(LONGEST_REASON, required=True, metadata={"example": "Homonyme"})


class LiftingRequest(Shape):
    """Why it is lifted; of a confirmation nothing is kept but who confirmed."""

    reason = Line(LONGEST_REASON, required=True, metadata={"example": "Appel accueilli"})


class RevisionAnswer(Shape):
    """What was done with a measure: the end it gave, why, by whom; two of them for what gives trust back."""

    act = fields.Enum(Act, by_value=True, required=True)
    ends_at = Instant(required=True, allow_none=True)
    reason = fields.String(required=True)
    asked_by = fields.String(required=True, metadata={"example": "token:12"})
    confirmed_by = fields.String(required=True, allow_none=True, metadata={"example": "token:13"})
    recorded_at = Instant(required=True)


class ReplacementAnswer(Shape):
    """A certificate that an annulled strike-off revoked: its successor, why there is none, or neither yet."""

    serial = fields.String(required=True, metadata={"example": EXAMPLE_SERIAL})
    replaced_by = fields.String(required=True, allow_none=True, metadata={"example": None})
    refused = fields.String(required=True, allow_none=True, metadata={"example": None})


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
    shortening_asked = Instant(
        required=True, allow_none=True,
        metadata={"description": "La fin demandée par un agent — The end that one registrar asked for"},
    )  # fmt: skip
    annulment_asked = Instant(
        required=True, allow_none=True,
        metadata={"description": "Depuis quand un agent la dit erronée — Since when one calls it an error"},
    )  # fmt: skip
    revisions = fields.List(fields.Nested(RevisionAnswer), required=True)
    replacements = fields.List(fields.Nested(ReplacementAnswer), required=True)


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

    Avec `from`, la mesure commence ce jour-là (à minuit, heure de Paris) ou à cet instant. Avec `until`, une
    suspension prend fin après ce jour, ou à cet instant. Verdict, OCSP et LDAP suivent à la seconde.
    """,
    answer=MeasureAnswer,
    status=201,
    body=MeasureRequest,
    problems=(
        *MALFORMED_IDS, "unknown-practitioner", "not-a-registrar", "wrong-authority", "reason-missing",
        "reason-too-long", "measure-in-force", "withdrawal-limit-reached", "bad-moment", "begins-in-the-past",
        "ends-too-early", "too-far-ahead", "strike-off-has-no-end",
    ),
    parameters=OF_A_PERSON,
    idempotent=True,
)  # fmt: skip
def take_measure(call: Transacted, asked: dict[str, Any], national_id: str) -> Measure:
    """Suspend or strike off.

    By one registrar of the person's Ordre, and at once: delay would let messages go. The verdict and OCSP say
    so with the answer, LDAP within seconds, the CRL within the minute. A suspension holds the certificates, a
    strike-off revokes them. The files of the nights to come do not undo it.

    With `from` it begins on that day (at midnight, Paris time) or at that instant. With `until` a suspension
    ends after that day, or at that instant. The verdict, OCSP and LDAP follow to the second.
    """
    return use_cases.take(
        call.connection,
        now=call.now,
        token=call.token,
        national_id=read_national_id(national_id, strict=call.container.settings.strict_rpps),
        kind=asked["kind"],
        reason=asked["reason"],
        graces=call.container.graces,
        begins=asked.get("begins"),
        until=asked.get("until"),
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
    listed_measures = use_cases.measures_seen(
        call.connection, token=call.token, national_id=wanted, now=call.now
    )
    return {"items": listed_measures}


@operation(
    "POST",
    "/v1/measures/<int:measure_id>/lifting",
    roles={Role.REGISTRAR},
    opens=Opens.WRITE,
    french="""Lever une mesure.

    Rendre la confiance demande deux agents de l'Ordre qui a pris la mesure. Le premier demande
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

    Giving trust back takes two registrars of the Ordre that took it. The first asks (`lifting-asked`),
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


@operation(
    "POST",
    "/v1/measures/<int:measure_id>/prolongation",
    roles={Role.REGISTRAR},
    opens=Opens.WRITE,
    while_behind=True,
    road=TAKES_AWAY,
    french="""Prolonger une suspension.

    Par un seul agent de l'Ordre qui l'a prise, tant qu'elle n'a pas pris fin. `until` nul : jusqu'à sa levée.
    """,
    answer=MeasureAnswer,
    body=ProlongationRequest,
    problems=(
        "unknown-measure", "not-a-registrar", "reason-missing", "reason-too-long", "measure-not-in-force",
        "not-longer", "bad-moment", "ends-too-early", "too-far-ahead", "withdrawal-limit-reached",
    ),
    parameters=IDENTIFIED,
    idempotent=True,
)  # fmt: skip
def prolong_measure(call: Transacted, asked: dict[str, Any], measure_id: int) -> Measure:
    """Prolong a suspension.

    By one registrar of the Ordre that took it, while it has not ended. A null `until`: until it is lifted.
    """
    return use_cases.prolong(
        call.connection,
        now=call.now,
        token=call.token,
        measure_id=measure_id,
        until=asked["until"],
        reason=asked["reason"],
    )


@operation(
    "POST",
    "/v1/measures/<int:measure_id>/shortening",
    roles={Role.REGISTRAR},
    opens=Opens.WRITE,
    french="""Écourter une suspension.

    Deux agents de l'Ordre qui l'a prise. Le premier demande une fin plus proche, un autre confirme la même
    dans les sept jours. Il donne `shortening_asked`, ou ce dernier jour, dans `confirms`. Sans `confirms`,
    ou pour une autre fin : `already-asked`. Pour une fin immédiate : la levée.
    """,
    answer=MeasureAnswer,
    body=ShorteningRequest,
    problems=(
        "unknown-measure", "not-a-registrar", "self-approval", "reason-missing", "reason-too-long",
        "measure-not-in-force", "not-shorter", "bad-moment", "ends-too-early", "too-far-ahead",
        "strike-off-has-no-end", "already-asked", "nothing-asked",
    ),
    parameters=IDENTIFIED,
    idempotent=True,
)  # fmt: skip
def shorten_measure(call: Transacted, asked: dict[str, Any], measure_id: int) -> Measure:
    """Shorten a suspension.

    Two registrars of the Ordre that took it. The first asks for an earlier end, another confirms the same
    one within seven days. He gives `shortening_asked`, or that last day, in `confirms`. Without `confirms`,
    or for another end: `already-asked`. To end it at once, lift it.
    """
    return use_cases.shorten(
        call.connection,
        now=call.now,
        token=call.token,
        measure_id=measure_id,
        until=asked["until"],
        reason=asked["reason"],
        confirms=asked["confirms"],
        graces=call.container.graces,
    )


@operation(
    "POST",
    "/v1/measures/<int:measure_id>/annulment",
    roles={Role.REGISTRAR},
    opens=Opens.WRITE,
    french="""Annuler une mesure prise par erreur.

    Deux agents de l'Ordre qui l'a prise ; le second donne `annulment_asked` dans `confirms`, sans quoi :
    `already-asked`. La mesure prend fin, les certificats suspendus sont rétablis, les
    enrôlements reviennent avec leur approbation. Un certificat révoqué le reste (RFC 5280) : un autre est
    émis sur la même clé, sans nouvelle demande, en quelques minutes (`replacements`). Le passé reste tel
    qu'il était connu.
    """,
    answer=MeasureAnswer,
    body=AnnulmentRequest,
    problems=(
        "unknown-measure", "not-a-registrar", "self-approval", "reason-missing", "reason-too-long",
        "measure-annulled", "already-asked", "nothing-asked",
    ),
    parameters=IDENTIFIED,
    idempotent=True,
)  # fmt: skip
def annul_measure(call: Transacted, asked: dict[str, Any], measure_id: int) -> Measure:
    """Annul a measure taken by error.

    Two registrars of the Ordre that took it; the second gives `annulment_asked` in `confirms`, and without it
    gets `already-asked`. The measure ends, certificates on hold are released, enrolments come back with their
    approval. Revoked certificates stay so (RFC 5280): another certificate is made on the same key, without a
    new request, within minutes (`replacements`). The past stays as it was known.
    """
    return use_cases.annul(
        call.connection,
        now=call.now,
        token=call.token,
        measure_id=measure_id,
        reason=asked["reason"],
        confirms=asked["confirms"],
        graces=call.container.graces,
    )


def measures(container: Container) -> Resource:
    """The resource, served on `container`."""
    text = "Mesures des Ordres — Measures of the Ordres"
    return resource(
        "measures", text, container, take_measure, see_measures, lift_measure, prolong_measure,
        shorten_measure, annul_measure,
    )  # fmt: skip

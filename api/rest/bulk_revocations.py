"""Revocations of many: preview, plan, agreement of two, progress, stop. The rules are
`pki/revocation/bulk.py`'s.
"""

from typing import Any

from marshmallow import fields, validate

from api.front.roads import TAKES_AWAY
from api.http.operation import Opens, Resource, Transacted, operation, resource
from api.http.paging import PageQuery
from api.http.schemas import EXAMPLE_SERIAL, LARGEST_ID, Hexadecimal, Instant, Line, Pattern, Shape, Strings
from api.rest.certificates import REASONS
from api.wiring import Container
from directory.access import Role
from directory.base.comments import LONGEST_SENTENCE
from pki.certificates.serials import parse_serial
from pki.model import RevocationReason
from pki.revocation import bulk as use_cases
from pki.revocation.bulk import Preview
from pki.revocation.bulk_store import Bulk, Selection

_DIGEST = Pattern(r"[0-9a-f]{64}", error="64 lower-case hexadecimal digits are expected.")
_COMMENT = LONGEST_SENTENCE
NUMBERED = {
    "bulk_id": {
        "schema": {"type": "integer", "minimum": 1, "maximum": LARGEST_ID},
        "description": "`id` rendu avec la révocation groupée — `id` given with the revocation of many",
        "example": 3,
    }
}
# No text of the database holds a NUL: asked for one, it fails instead of finding nothing.
_PRINTABLE = validate.Predicate("isprintable", error="Printable text is expected.")


class SelectionRequest(Shape):
    """Which certificates: those that meet every criterion given; one at least must be."""

    serials = Strings(fields.String(), metadata={"example": [EXAMPLE_SERIAL]})
    authority = fields.String(validate=_PRINTABLE, metadata={"example": "persons-1"})
    profile = fields.String(validate=_PRINTABLE, metadata={"example": "practitioner-smime"})
    establishment = fields.String(
        validate=_PRINTABLE,
        metadata={
            "description": "FINESS ou SIRET, aussi d'une entité juridique — FINESS or SIRET, of a legal "
            "entity too",
            "example": "750990012",
        },
    )
    operator = fields.Integer(validate=validate.Range(1, LARGEST_ID))
    issued_from = Instant()
    issued_until = Instant(metadata={"description": "Premier instant exclu — First instant that is too late"})
    keys = fields.List(
        fields.String(validate=_DIGEST),
        metadata={"description": "SHA-256 des SubjectPublicKeyInfo — SHA-256 of SubjectPublicKeyInfo"},
    )


class PlanRequest(Shape):
    """What to revoke, why, and how fast. With `dry_run` it is counted and nothing is written down."""

    selection = fields.Nested(SelectionRequest, required=True)
    reason = fields.Enum(RevocationReason, by_value=True, required=True, metadata=REASONS)
    comment = Line(_COMMENT, required=True, metadata={"example": "Incident 2026-31"})
    per_second = fields.Integer(load_default=use_cases.USUAL_RATE, validate=validate.Range(1, 100_000))
    dry_run = fields.Boolean(load_default=False)


class SampleAnswer(Shape):
    """One of the certificates selected."""

    serial = fields.String(required=True, metadata={"example": EXAMPLE_SERIAL})
    subject = fields.String(required=True)
    profile = fields.String(required=True)
    issued_at = Instant(required=True)


class BulkAnswer(Shape):
    """A revocation of many as it stands; `id` is null after a dry run, `samples` are given once."""

    id = fields.Integer(required=True, allow_none=True, metadata={"example": 3})
    state = fields.String(
        required=True, validate=validate.OneOf(("dry-run", "planned", "running", "stopped", "done"))
    )
    total = fields.Integer(required=True)
    digest = Hexadecimal(
        required=True,
        metadata={"description": "SHA-256 des numéros de série, un par ligne — SHA-256 of the serials"},
    )
    needed = fields.Integer(required=True, metadata={"description": "Accords requis — Agreements needed"})
    approvals = fields.Integer(required=True)
    reason = fields.Enum(RevocationReason, by_value=True, required=True)
    comment = fields.String(required=True)
    selection = fields.Dict(required=True)
    per_second = fields.Integer(required=True)
    reached = fields.Integer(required=True)
    revoked = fields.Integer(required=True)
    skipped = fields.Integer(required=True)
    asked_at = Instant(required=True, allow_none=True)
    started_at = Instant(required=True, allow_none=True)
    finished_at = Instant(required=True, allow_none=True)
    samples = fields.List(fields.Nested(SampleAnswer))


class BulksAnswer(Shape):
    """Revocations of many, the newest first; `next` leads on when there are more."""

    items = fields.List(fields.Nested(BulkAnswer), required=True)
    next = fields.Integer(required=True, allow_none=True)


class BulksQuery(PageQuery):
    """A page, from the newest on."""

    before = fields.Integer(
        validate=validate.Range(1, LARGEST_ID),
        metadata={"description": "`next` de la page d'avant — `next` of the page before"},
    )


class AgreementRequest(Shape):
    """What was looked at: its digest, and a word on it."""

    digest = fields.String(required=True, validate=_DIGEST, metadata={"example": "ab" * 32})
    comment = Line(_COMMENT, required=True, metadata={"example": "Liste comparée au rapport d'incident"})


class StopRequest(Shape):
    """Why it ends here."""

    comment = Line(_COMMENT, required=True, metadata={"example": "Sélection trop large"})


@operation(
    "POST",
    "/v1/revocations/bulk",
    roles={Role.ADMIN},
    opens=Opens.WRITE,
    while_behind=True,
    road=TAKES_AWAY,
    french="""Préparer une révocation groupée.

    Compte, montre des exemples et donne l'empreinte de ce qui est choisi. Rien n'est révoqué avant l'accord
    d'un administrateur jusqu'à 100 certificats (ou sa limite de l'heure), de deux au-delà. Avec `dry_run`,
    rien n'est écrit. Les certificats du service lui-même ne sont jamais choisis.
    """,
    answer=BulkAnswer,
    status=201,
    body=PlanRequest,
    problems=(
        "malformed-serial", "malformed-finess", "finess-check-digit", "siret-check-digit", "empty-selection",
        "nothing-selected", "too-many-selected", "comment-missing", "comment-too-long",
    ),
    idempotent=True,
)  # fmt: skip
def plan_bulk(call: Transacted, asked: dict[str, Any]) -> dict[str, Any]:
    """Plan a revocation of many.

    Counts, shows samples and gives the digest of what is selected. Nothing is revoked before somebody agrees:
    one administrator up to 100 certificates (or his limit of the hour), two above. With `dry_run`
    nothing is written down. The certificates of the service itself are never selected.
    """
    selection = _selection(asked["selection"])
    seen = use_cases.preview(call.connection, now=call.now, token=call.token, selection=selection)
    if asked["dry_run"]:
        return _dry(seen, selection, asked)
    made = use_cases.plan(
        call.connection, now=call.now, token=call.token, selection=selection, reason=asked["reason"],
        comment=asked["comment"], per_second=asked["per_second"],
    )  # fmt: skip
    return vars(made) | {"samples": seen.samples}


@operation(
    "GET",
    "/v1/revocations/bulk",
    roles={Role.ADMIN, Role.AUDITOR},
    opens=Opens.SNAPSHOT,
    while_behind=True,
    french="""Les révocations groupées.

    La plus récente d'abord, avec leur avancement.
    """,
    answer=BulksAnswer,
    query=BulksQuery,
)
def see_bulks(call: Transacted, asked: dict[str, Any]) -> dict[str, Any]:
    """The revocations of many.

    The newest first, with how far they have come.
    """
    bulks = use_cases.all_seen(
        call.connection, token=call.token, before=asked.get("before"), limit=asked["limit"] + 1
    )
    page = bulks[: asked["limit"]]
    return {"items": page, "next": page[-1].id if len(bulks) > len(page) else None}


@operation(
    "GET",
    "/v1/revocations/bulk/<int:bulk_id>",
    roles={Role.ADMIN, Role.AUDITOR},
    opens=Opens.SNAPSHOT,
    while_behind=True,
    french="""Une révocation groupée.

    Son état et son avancement.
    """,
    answer=BulkAnswer,
    problems=("unknown-bulk",),
    parameters=NUMBERED,
)
def see_bulk(call: Transacted, bulk_id: int) -> Bulk:
    """One revocation of many.

    Its state and how far it has come.
    """
    return use_cases.seen(call.connection, token=call.token, number=bulk_id)


@operation(
    "POST",
    "/v1/revocations/bulk/<int:bulk_id>/approvals",
    roles={Role.ADMIN},
    opens=Opens.WRITE,
    while_behind=True,
    road=TAKES_AWAY,
    french="""Donner son accord à une révocation groupée.

    En nommant l'empreinte de ce qu'on a vu. Elle commence avec le dernier accord requis.
    """,
    answer=BulkAnswer,
    body=AgreementRequest,
    problems=(
        "unknown-bulk", "bulk-not-planned", "digest-differs", "self-approval", "comment-missing",
        "comment-too-long", "withdrawal-limit-reached",
    ),
    parameters=NUMBERED,
    idempotent=True,
)  # fmt: skip
def approve_bulk(call: Transacted, asked: dict[str, Any], bulk_id: int) -> Bulk:
    """Agree to a revocation of many.

    By naming the digest of what one has seen. It begins with the last agreement that is needed.
    """
    return use_cases.approve(
        call.connection, now=call.now, token=call.token, number=bulk_id,
        digest=bytes.fromhex(asked["digest"]), comment=asked["comment"],
    )  # fmt: skip


@operation(
    "POST",
    "/v1/revocations/bulk/<int:bulk_id>/stop",
    roles={Role.ADMIN},
    opens=Opens.WRITE,
    while_behind=True,
    road=TAKES_AWAY,
    french="""Arrêter une révocation groupée.

    Pour toujours, entre deux lots : ce qui est révoqué le reste.
    """,
    answer=BulkAnswer,
    body=StopRequest,
    problems=("unknown-bulk", "bulk-ended", "comment-missing", "comment-too-long"),
    parameters=NUMBERED,
    idempotent=True,
)
def stop_bulk(call: Transacted, asked: dict[str, Any], bulk_id: int) -> Bulk:
    """Stop a revocation of many.

    For good, between two batches: what is revoked stays so.
    """
    return use_cases.stop(
        call.connection, now=call.now, token=call.token, number=bulk_id, comment=asked["comment"]
    )


def bulk_revocations(container: Container) -> Resource:
    """The resource, served on `container`."""
    text = "Révocations groupées — Revocations of many"
    return resource(
        "bulk-revocations", text, container, plan_bulk, see_bulks, see_bulk, approve_bulk, stop_bulk
    )


def _selection(asked: dict[str, Any]) -> Selection:
    serials = tuple(parse_serial(serial) for serial in asked.get("serials", ()))
    return Selection(**{**asked, "serials": serials, "keys": tuple(asked.get("keys", ()))})


def _dry(seen: Preview, selection: Selection, asked: dict[str, Any]) -> dict[str, Any]:
    return {
        **asked, **vars(seen), "selection": selection.told(), "id": None, "state": "dry-run", "approvals": 0,
        "reached": 0, "revoked": 0, "skipped": 0, "asked_at": None, "started_at": None, "finished_at": None,
    }  # fmt: skip

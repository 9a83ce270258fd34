"""Enrolments as they are answered: in short to who asks for one, in full to who approves or audits it."""

from collections.abc import Mapping, Sequence
from typing import Any

from marshmallow import fields, validate
from sqlalchemy import Connection

from api.http.schemas import Instant, Shape
from api.wiring import Container
from directory.access import actor_names, actor_of
from directory.model import MailboxKind
from pki.acts.act import ActKind
from pki.model import Enrolment, EnrolmentState
from pki.registration.handed_in import need_anchors
from pki.registration.shown import to_sign


class NamesAnswer(Shape):
    """What an enrolment certifies, as recorded with the request; a field that its kind has not is null."""

    kind = fields.String(required=True, validate=validate.OneOf([kind.value for kind in MailboxKind]))
    address = fields.String(required=True)
    given_name = fields.String(required=True, allow_none=True, dump_default=None)
    family_name = fields.String(required=True, allow_none=True, dump_default=None)
    national_id = fields.String(required=True, allow_none=True, dump_default=None)
    professions = fields.List(fields.String(), required=True, allow_none=True, dump_default=None)
    name = fields.String(required=True, allow_none=True, dump_default=None)
    finess = fields.String(required=True, allow_none=True, dump_default=None)
    siret = fields.String(required=True, allow_none=True, dump_default=None)
    service = fields.String(required=True, allow_none=True, dump_default=None)


class _AsRecorded(fields.Nested):
    """Texts as they were recorded: a field for each would take half the time of an enrolment's answer."""

    # `Field` and `Nested` call the first argument by two names.
    def _serialize(  # type: ignore[override]
        self, value: Any, attr: str | None, obj: Any, **kwargs: Any
    ) -> Any:
        del attr, obj, kwargs
        if value is None:
            return None
        return {name: value.get(name) for name in self.schema.dump_fields}


class EnrolmentAnswer(Shape):
    """An enrolment as it stands."""

    id = fields.UUID(required=True)
    practitioner = fields.String(required=True)
    mailbox = fields.String(required=True)
    authority = fields.String(
        required=True, metadata={"description": "Ordre ou ARS — Ordre or agency", "example": "CNOM"}
    )
    state = fields.Enum(EnrolmentState, by_value=True, required=True)
    requested_at = Instant(required=True)
    approved_at = Instant(required=True, allow_none=True)
    names = _AsRecorded(
        NamesAnswer,
        required=True,
        allow_none=True,
        metadata={
            "description": "Ce qui sera certifié, tel que la demande l'a retenu — What will be certified, as"
            " the request recorded it"
        },
    )


class IdentityChecked(Shape):
    """How a registrar made sure of the person."""

    method = fields.String(required=True, metadata={"example": "in-person"})
    document = fields.String(required=True, metadata={"example": "CPS"})
    checked_on = fields.String(required=True, metadata={"format": "date", "example": "2026-09-01"})


class Registrar(Shape):
    """Who acted: as the audit log says it, and the name of that token."""

    actor = fields.String(required=True, metadata={"example": "token:12"})
    name = fields.String(required=True, metadata={"example": "registrar_a"})


class EnrolmentInFull(EnrolmentAnswer):
    """The same with who asked, on what proof, and who approved."""

    identity_check = fields.Nested(IdentityChecked, required=True)
    requested_by = fields.Nested(Registrar, required=True)
    approved_by = fields.Nested(Registrar, required=True, allow_none=True)
    ended_at = Instant(required=True, allow_none=True)


class DraftAnswer(Shape):
    """What a person is to sign: the digest of `shown` goes into her act (`sceau sign` reads this)."""

    act = fields.String(required=True, metadata={"example": "enrolment.request"})
    installation = fields.String(required=True, metadata={"example": "3c7e" * 8})
    subjects = fields.List(fields.String(), required=True)
    shown = fields.Dict(
        keys=fields.String(),
        required=True,
        metadata={
            "description": "Ce que la personne lit avant de signer — What the person reads before signing"
        },
    )


class DraftOfRequest(Shape):
    """A request as it would be made, under the id to make it with."""

    id = fields.UUID(required=True)
    draft = fields.Nested(DraftAnswer, required=True)


def draft_of(container: Container, enrolment: Enrolment, kind: ActKind) -> dict[str, Any]:
    """What `DraftAnswer` shows; refuses `no-anchors`."""
    powers = need_anchors(container.powers_followed)
    draft = to_sign(enrolment, kind, powers.anchors.installation)
    return {
        "act": draft.kind.value, "installation": draft.installation, "subjects": list(draft.subjects),
        "shown": dict(draft.shown),
    }  # fmt: skip


def in_full(connection: Connection, enrolments: Sequence[Enrolment]) -> list[dict[str, Any]]:
    """What `EnrolmentInFull` shows of each; the names of all registrars take one statement."""
    acted = {
        token_id
        for enrolment in enrolments
        for token_id in (enrolment.requested_by, enrolment.approved_by)
        if token_id
    }
    names = actor_names(connection, [actor_of(token_id).name for token_id in acted])
    return [
        {
            **vars(enrolment),
            "requested_by": _registrar(enrolment.requested_by, names),
            "approved_by": None
            if enrolment.approved_by is None
            else _registrar(enrolment.approved_by, names),
        }
        for enrolment in enrolments
    ]


def _registrar(token_id: int, names: Mapping[str, str]) -> dict[str, str]:
    actor = actor_of(token_id).name
    return {"actor": actor, "name": names[actor]}

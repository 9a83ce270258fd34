"""How an answer says that a value is not the register's: beside it, with what the register says."""

from marshmallow import fields

from api.http.schemas import Instant, Shape

HERE = (
    "Corrigés ici, avec ce que dit le registre — Corrected here, with what the register says; "
    "[] when all is as the register has it"
)


class Corrected(Shape):
    """One field that is corrected here; `authority` is empty when an administrator did."""

    field = fields.String(required=True, metadata={"example": "family_name"})
    register_value = fields.String(required=True, metadata={"example": "MARTAIN"})
    authority = fields.String(required=True, metadata={"example": "CNOM"})
    made_at = Instant(required=True)


def corrected() -> fields.Field[list[object]]:
    """The member that every answer of a person, an establishment or a mailbox has."""
    return fields.List(fields.Nested(Corrected), required=True, metadata={"description": HERE})

"""The fields that requests and answers are made of: instants, serials, bytes, lines of text, lists of
addresses.

Loading refuses what the record could not hold (controls, lone surrogates, instants without a zone).
"""

import base64
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import islice
from ssl import DER_cert_to_PEM_cert
from typing import Any

from marshmallow import RAISE, Schema, ValidationError, fields, missing, validate

from directory import periods
from directory.base.errors import Kind, Refusal
from directory.sync.formats.departments import OVERSEAS

# RFC 3339 5.6, upper case or lower.
_INSTANT = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,6})?([Zz]|[+-]\d\d:\d\d)")
# Unicode's category Zs: line ends and tabs are no spaces of a line.
_SPACES = re.compile("[ \u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]+")
LONGEST_ADDRESS = 254  # RFC 5321 4.5.3.1.3, without the brackets
LARGEST_ID = (1 << 63) - 1  # PostgreSQL's bigint
PLUS_IS_ESCAPED = "This is not a mailbox address: in a query, a `+` means a space and must be written `%2B`."
EXAMPLE_SERIAL = "2f8c0a4b91d75e36c2a8f01b7d4e963a5c18e072"
EXAMPLE_ADDRESS = "camille.martin@medecin.ordre.mssante.invalid"


class Shape(Schema):
    """A JSON object; a member that it does not know is refused rather than ignored."""

    class Meta:
        """Marshmallow's options."""

        unknown = RAISE
        ordered = True


class Line(fields.String):
    """One line of text: printable, neither empty nor blank, at most `longest` characters.

    Every space is a plain one: what REST showed of a register may be asked as it stands.
    """

    def __init__(self, longest: int, **kwargs: Any) -> None:
        super().__init__(validate=validate.Length(min=1, max=longest), **kwargs)

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any
    ) -> str:
        line = _SPACES.sub(" ", super()._deserialize(value, attr, data, **kwargs))
        if not line.strip() or not line.isprintable():
            raise ValidationError("One line of printable text is expected.")
        return line.strip()


class QueryAddress(Line):
    """A line of a query string that may be an address: a `+` that nobody escaped arrives as a space.

    Cut off at the begin of an address, that space would leave the address of somebody else. `told` is what
    the refusal tells besides.
    """

    def __init__(self, longest: int, *, told: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(longest, **kwargs)
        self._told = told or {}

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any
    ) -> str:
        line = super()._deserialize(value, attr, data, **kwargs)
        if "@" in line and " " in value.rstrip():
            raise Refusal(Kind.MALFORMED, "malformed-address", PLUS_IS_ESCAPED, **self._told)
        return line


class Code(fields.String):
    """A code of a nomenclature, read in either case (TRE_G09 and others ignore it).

    Upper case for ASCII only: of other letters it makes look-alikes.
    """

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any
    ) -> str:
        code = super()._deserialize(value, attr, data, **kwargs).strip()
        return code.upper() if code.isascii() else code


# As it is sent, before `Code` folds it.
CODE_AS_SENT = r"\s*[0-9A-Za-z]{1,10}\s*"


class Department(Code):
    """INSEE's code of a department, read with its leading zero or without, or as TRE_G09 has it (9E)."""

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any
    ) -> str:
        code = super()._deserialize(value, attr, data, **kwargs)
        return OVERSEAS.get(code) or code.rjust(2, "0")


class Pattern(validate.Validator):
    """A regular expression that the whole value must be, written so that ECMA-262 reads it too.

    OpenAPI's patterns are ECMA-262's, which knows no capital Z for the end; Python's `$` lets a line end
    pass. apispec documents the attribute `regex`: `as_sent`, where the field folds what is sent into what
    `pattern` then judges. A client that checks by the document would else refuse what is read.
    """

    def __init__(self, pattern: str, error: str, *, as_sent: str = "") -> None:
        self.regex = re.compile(f"^{as_sent or pattern}$")
        self._folded = re.compile(pattern)
        self._error = error

    def __call__(self, value: str) -> str:
        """The value; ValidationError for another."""
        if self._folded.fullmatch(value) is None:
            raise ValidationError(self._error)
        return value


class DayOrInstant(fields.String):
    """A day of Paris, or an instant with its zone: from when, or until when, something is to hold."""

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any
    ) -> Any:
        return periods.read(super()._deserialize(value, attr, data, **kwargs))


class Instant(fields.Field[datetime]):
    """An instant as RFC 3339 writes it, with its zone; given back in UTC with `Z`."""

    def _serialize(self, value: datetime | None, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        del attr, obj, kwargs
        return None if value is None else rfc3339(value)

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any
    ) -> datetime:
        del attr, data, kwargs
        if not isinstance(value, str) or not _INSTANT.fullmatch(value):
            raise ValidationError("An instant with its zone is expected, as in 2026-09-01T12:00:00Z.")
        try:
            return datetime.fromisoformat(value.upper()).astimezone(UTC)
        except (ValueError, OverflowError) as error:
            raise ValidationError("There is no such instant.") from error


class Hexadecimal(fields.Field[bytes]):
    """Bytes, given as lower-case hexadecimal digits."""

    def _serialize(self, value: bytes | None, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        del attr, obj, kwargs
        return None if value is None else value.hex()


class Base64(fields.Field[bytes]):
    """Bytes, given in base64 (RFC 4648 4, with padding)."""

    def _serialize(self, value: bytes | None, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        del attr, obj, kwargs
        return None if value is None else base64.b64encode(value).decode()


class Pem(fields.Field[bytes]):
    """The certificate whose bytes are `der`, given in PEM (RFC 7468 5)."""

    def get_value(self, obj: Any, attr: str, accessor: Any = None, default: Any = missing) -> Any:
        """The bytes beside it: two fields of a schema may not name one attribute."""
        del attr
        return super().get_value(obj, "der", accessor, default)

    def _serialize(self, value: bytes | None, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        del attr, obj, kwargs
        return None if value is None else DER_cert_to_PEM_cert(value)


# How the OpenAPI document calls them (OpenAPI's registry of formats; `hex` is ours).
FORMATS = {Instant: "date-time", Hexadecimal: "hex", Base64: "byte", Pem: "pem"}


class Strings(fields.List[str]):
    """A long list of strings, checked in one pass: 10,000 of them are not worth 10,000 field objects."""

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any
    ) -> list[Any]:
        del attr, data, kwargs
        if not isinstance(value, list):
            raise ValidationError("A list of strings is expected.")
        wrong = list(islice((place for place, text in enumerate(value) if not isinstance(text, str)), 100))
        if wrong:
            raise ValidationError({place: ["A string is expected."] for place in wrong})
        return value


class Problem(Schema):
    """RFC 9457: a refusal. Some carry members of their own, such as `errors`, `roles`, `reference`."""

    class Meta:
        """Marshmallow's options."""

        unknown = "include"

    type = fields.Url(
        required=True, metadata={"description": "Adresse de l'explication — Where it is explained"}
    )
    title = fields.String(
        required=True, metadata={"description": "Ce qui est refusé, en bref — What is refused, in short"}
    )
    status = fields.Integer(required=True)
    code = fields.String(
        required=True, metadata={"description": "Mot stable à tester — The stable word to test for"}
    )
    detail = fields.String(required=True, metadata={"description": "Pour une personne — For a person"})
    errors = fields.List(fields.Dict(keys=fields.String(), values=fields.String()))


def rfc3339(instant: datetime) -> str:
    """The instant in UTC, ending in `Z`."""
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")

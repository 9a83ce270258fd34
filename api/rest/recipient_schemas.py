"""What is asked about recipients: one, many at once, or very many that are answered later."""

from marshmallow import fields, validate

from api.front.roads import RESPOND_ASYNC
from api.http.schemas import EXAMPLE_ADDRESS, LONGEST_ADDRESS, Instant, Line, QueryAddress, Shape, Strings
from api.http.verdict_json import Included
from directory.access import Role
from directory.base.errors import Kind, Refusal
from directory.identifiers import parse_address
from directory.model import MailboxStanding
from pki.verdict.decide import SENDER
from pki.verdict.model import Answer

MAY_CHECK = {Role.OPERATOR, Role.REGISTRAR, Role.AUDITOR}
MOST_ADDRESSES = 10_000
MOST_DEFERRED = 1_000_000
EXAMPLE_INSTANT = "2026-09-01T12:00:00Z"


class RecipientQuery(Shape):
    """Who would send, and as of when."""

    sender = QueryAddress(
        LONGEST_ADDRESS,
        told={
            "verdict": Answer.REFUSED.value,
            "reasons": [SENDER + MailboxStanding.MALFORMED_ADDRESS.value],
        },
        metadata={"description": "Adresse de l'émetteur — Sender", "example": EXAMPLE_ADDRESS},
    )
    at = Instant(
        metadata={"description": "Instant passé — An instant in the past", "example": EXAMPLE_INSTANT}
    )


class RecipientsRequest(Shape):
    """The addresses to check, for one sender, as of one instant."""

    addresses = Strings(
        fields.String(),
        required=True,
        validate=validate.Length(
            min=1,
            max=MOST_ADDRESSES,
            error=f"1 to {MOST_ADDRESSES:,} addresses are expected; more, up to {MOST_DEFERRED:,}, with"
            f" `Prefer: {RESPOND_ASYNC}`.",
        ),
        metadata={"example": [EXAMPLE_ADDRESS, "service.cardiologie@chu-ville.hopital.mssante.invalid"]},
    )
    sender = Line(LONGEST_ADDRESS, allow_none=True, metadata={"example": EXAMPLE_ADDRESS})
    at = Instant(allow_none=True, metadata={"example": EXAMPLE_INSTANT})


class RecipientsQuery(Shape):
    """What is told of the certificates besides."""

    include = fields.String(
        validate=validate.OneOf([included.value for included in Included]),
        metadata={
            "description": "Certificats des verdicts `allowed` : entiers, ou leurs empreintes —"
            " Certificates of `allowed` verdicts: whole, or their digests",
            "example": Included.FINGERPRINTS.value,
        },
    )


class DeferredRequest(RecipientsRequest):
    """The same for very many addresses; as NDJSON it is these alone, one a line."""

    lines_of = "addresses"
    most_lines = MOST_DEFERRED
    addresses = Strings(fields.String(), required=True, validate=validate.Length(min=1, max=MOST_DEFERRED))


class DeferredQuery(RecipientsQuery, RecipientQuery):
    """What NDJSON has no place for besides: for which sender, as of which instant."""


def refuse_malformed(address: str, whose: str = "") -> None:
    """A malformed address asked about alone is a bad request; the verdict goes along for those who read
    only that. `whose` is what reasons about that party begin with.
    """
    try:
        parse_address(address)
    except Refusal as refusal:
        told = {"verdict": Answer.REFUSED.value, "reasons": [whose + refusal.code]}
        text = "The sender is not a mailbox address." if whose else refusal.text
        raise Refusal(Kind.MALFORMED, refusal.code, text, **told) from refusal

"""May these two exchange, and with which certificate: one recipient, or up to 10,000 at once.

The answers go out as bytes made by `verdict_json.py`; the schemas here document them. A plain question about
one recipient is answered before it comes here (`quick_recipient.py`).
"""

from typing import Any

import orjson
from flask import Response
from marshmallow import fields, validate

from api.front.roads import Road, Trade
from api.http.freshness import rest_on
from api.http.operation import Opens, Resource, Transacted, operation, resource
from api.http.prices import ALL_ADDRESSES, ONE_ADDRESS
from api.http.schemas import (
    EXAMPLE_ADDRESS,
    EXAMPLE_SERIAL,
    LONGEST_ADDRESS,
    Base64,
    Hexadecimal,
    Instant,
    Line,
    QueryAddress,
    Shape,
    Strings,
)
from api.rest.verdict_json import octets, written
from api.wiring import Container
from directory.access import Role
from directory.base.errors import Kind, Refusal
from directory.identifiers import parse_address
from directory.model import MailboxStanding
from pki.model import BEFORE_OUR_RECORDS, Purpose
from pki.verdict.answer import verdicts
from pki.verdict.decide import SENDER
from pki.verdict.model import Answer, CertificateReason, Verdict

MAY_CHECK = {Role.OPERATOR, Role.REGISTRAR, Role.AUDITOR}
PATH = "/v1/recipients/<address:address>"
MOST_ADDRESSES = 10_000
EXAMPLE_INSTANT = "2026-09-01T12:00:00Z"
REASONS = (BEFORE_OUR_RECORDS, *(reason.value for reason in (*MailboxStanding, *CertificateReason)))


class CertificateOfVerdict(Shape):
    """A certificate to encrypt with; `purposes` says whether it is for signatures as well."""

    serial = fields.String(required=True, metadata={"example": EXAMPLE_SERIAL})
    not_after = Instant(required=True)
    sha256 = Hexadecimal(required=True, metadata={"description": "Empreinte du DER — Digest of the DER"})
    der = Base64(required=True, metadata={"description": "Certificat X.509 — X.509 certificate"})
    purposes = fields.List(
        fields.Enum(Purpose, by_value=True),
        required=True,
        metadata={"description": "Usages de sa clé — What its key is for", "example": ["encryption"]},
    )


class VerdictAnswer(Shape):
    """One verdict, with every reason that applies."""

    address = fields.String(required=True, metadata={"example": EXAMPLE_ADDRESS})
    verdict = fields.Enum(Answer, by_value=True, required=True)
    reasons = fields.List(
        fields.String(),
        required=True,
        metadata={
            "description": "Codes stables ; avec `sender-` devant, de l'émetteur — Stable codes; with "
            "`sender-` before them, about the sender: " + ", ".join(f"`{reason}`" for reason in REASONS)
        },
    )
    decided_at = Instant(required=True)
    as_of = Instant(
        required=True, metadata={"description": "Instant sur lequel porte la réponse — Instant asked about"}
    )
    valid_until = Instant(
        required=True, metadata={"description": "À ne pas garder au-delà — Not to be kept beyond"}
    )
    sources = fields.Dict(
        keys=fields.String(),
        values=Instant(allow_none=True),
        required=True,
        metadata={"description": "Date de chaque registre — When each register was generated"},
    )
    certificates = fields.List(fields.Nested(CertificateOfVerdict), required=True)


class VerdictsAnswer(Shape):
    """Verdicts in the order asked, decided at one instant on one state of the record."""

    items = fields.List(fields.Nested(VerdictAnswer), required=True)
    results = fields.List(
        fields.Nested(VerdictAnswer),
        metadata={
            "deprecated": True,
            "description": "`items` sous son ancien nom, jusqu'à la prochaine version —"
            " `items` under its old name, until the next version",
        },
    )
    decided_at = Instant(required=True)
    as_of = Instant(required=True)


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
        validate=validate.Length(min=1, max=MOST_ADDRESSES),
        metadata={"example": [EXAMPLE_ADDRESS, "service.cardiologie@chu-ville.hopital.mssante.invalid"]},
    )
    sender = Line(LONGEST_ADDRESS, allow_none=True, metadata={"example": EXAMPLE_ADDRESS})
    at = Instant(allow_none=True, metadata={"example": EXAMPLE_INSTANT})
    results = fields.Boolean(
        load_default=True,
        metadata={
            "description": "`false` : sans la copie sous l'ancien nom — without the copy under its old name"
        },
    )


@operation(
    "GET",
    PATH,
    roles=MAY_CHECK,
    opens=Opens.SNAPSHOT,
    price=ONE_ADDRESS,
    french="""Vérifier un destinataire.

    Peut-on envoyer des données de santé à cette adresse, maintenant ou à un instant passé, et avec quel
    certificat ? La réponse donne tous les motifs, et jusqu'à quand on peut la garder.
    """,
    answer=VerdictAnswer,
    query=RecipientQuery,
    problems=("malformed-address", "at-in-the-future", "at-out-of-range"),
    parameters={
        "address": {
            "schema": {"type": "string", "maxLength": 320},
            "description": "Adresse du destinataire — Recipient",
            "example": EXAMPLE_ADDRESS,
        }
    },
)
def check_recipient(call: Transacted, asked: dict[str, Any], address: str) -> Response:
    """Check one recipient.

    May health data be sent to this address, now or at an instant past, and with which certificate? The answer
    carries every reason that applies and says until when it may be kept.
    """
    # A slash may stand in an address, never at its end.
    address = address.removesuffix("/")
    _refuse_malformed(address)
    (verdict,) = _decided(call, [address], asked)
    return _json(written(verdict))


@operation(
    "POST",
    "/v1/recipients/check",
    roles=MAY_CHECK,
    opens=Opens.SNAPSHOT,
    price=ALL_ADDRESSES,
    french="""Vérifier jusqu'à 10 000 destinataires.

    Les réponses viennent dans l'ordre demandé, sur un seul et même état du registre. Une adresse mal formée
    reçoit son verdict comme les autres.
    """,
    answer=VerdictsAnswer,
    body=RecipientsRequest,
    problems=("malformed-address", "at-in-the-future", "at-out-of-range"),
    road=Road(Trade.BULK),
)
def check_recipients(call: Transacted, asked: dict[str, Any]) -> Response:
    """Check up to 10,000 recipients.

    Answers come in the order asked, all on one state of the record. A malformed address gets its verdict like
    the others; a malformed sender is refused, since nothing could be answered.
    """
    decided = _decided(call, asked["addresses"], asked)
    items = orjson.Fragment(octets([written(verdict) for verdict in decided]))
    # Every other list is called `items`; clients from before read `results` until the next version.
    former = {"results": items} if asked["results"] else {}
    return _json({"items": items, **former, "decided_at": call.now, "as_of": decided[0].as_of})


def recipients(container: Container) -> Resource:
    """The resource, served on `container`."""
    text = "Destinataires : le verdict — Recipients: the verdict"
    return resource("recipients", text, container, check_recipient, check_recipients)


def _decided(call: Transacted, addresses: list[str], asked: dict[str, Any]) -> list[Verdict]:
    sender: str | None = asked.get("sender")
    if sender is not None:
        _refuse_malformed(sender, SENDER)
    lifetime = call.container.verdict_lifetime
    decided = verdicts(
        call.connection, addresses, sender=sender, at=asked.get("at"), now=call.now, lifetime=lifetime,
        trials=call.container.settings.trial_addresses,
    )  # fmt: skip
    rest_on(decided[0].sources)
    return decided


def _refuse_malformed(address: str, whose: str = "") -> None:
    """A malformed address asked about alone is a bad request; the verdict goes along for those who read
    only that. `whose` is what reasons about that party begin with.
    """
    try:
        parse_address(address)
    except Refusal as refusal:
        told = {"verdict": Answer.REFUSED.value, "reasons": [whose + refusal.code]}
        text = "The sender is not a mailbox address." if whose else refusal.text
        raise Refusal(Kind.MALFORMED, refusal.code, text, **told) from refusal


def _json(value: Any) -> Response:
    return Response(octets(value), mimetype="application/json")

"""May these two exchange, and with which certificate: one recipient, or up to 10,000 at once.

The answers go out as bytes made by `api/http/verdict_json.py`; the schemas here document them. A plain
question about one recipient is answered before it comes here (`quick_recipient.py`).
"""

from typing import Any

from flask import Response, request
from marshmallow import fields
from sqlalchemy import Connection

from api.front.answers import Pieces
from api.front.roads import Road, Trade
from api.http.freshness import rest_on
from api.http.media_types import JSON, NDJSON
from api.http.operation import Call, Opens, Resource, Transacted, operation, resource
from api.http.prices import ALL_ADDRESSES, ONE_ADDRESS
from api.http.schemas import (
    EXAMPLE_ADDRESS,
    EXAMPLE_SERIAL,
    Base64,
    Hexadecimal,
    Instant,
    Shape,
)
from api.http.verdict_json import Included, in_lines, in_one_document, octets, written
from api.rest.recipient_checks import check_later
from api.rest.recipient_schemas import (
    MAY_CHECK,
    RecipientQuery,
    RecipientsQuery,
    RecipientsRequest,
    refuse_malformed,
)
from api.wiring import Container
from directory.base.db import transaction
from directory.model import MailboxStanding
from pki.model import BEFORE_OUR_RECORDS, Purpose
from pki.verdict.answer import Gathered, gather
from pki.verdict.decide import SENDER
from pki.verdict.memory import Mark
from pki.verdict.model import Answer, CertificateReason

PATH = "/v1/recipients/<address:address>"
# Up to so many are sent as one body, whose length is known.
IN_ONE_GO = 500
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


class CertificateOfMany(Shape):
    """A certificate to encrypt with, as far as `include` asks for it."""

    sha256 = Hexadecimal(required=True, metadata={"description": "Empreinte du DER — Digest of the DER"})
    serial = fields.String(metadata={"example": EXAMPLE_SERIAL})
    not_after = Instant()
    der = Base64(metadata={"description": "Certificat X.509 — X.509 certificate"})
    purposes = fields.List(fields.Enum(Purpose, by_value=True))


class VerdictOfMany(Shape):
    """One verdict of many, with every reason that applies; certificates where `include` asks for them."""

    address = fields.String(required=True, metadata={"example": EXAMPLE_ADDRESS})
    verdict = fields.Enum(Answer, by_value=True, required=True)
    reasons = fields.List(fields.String(), required=True)
    decided_at = Instant(required=True)
    as_of = Instant(required=True)
    valid_until = Instant(required=True)
    certificates = fields.List(fields.Nested(CertificateOfMany))


class VerdictsAnswer(Shape):
    """Verdicts in the order asked, decided at one instant on one state of the record."""

    items = fields.List(fields.Nested(VerdictOfMany), required=True)
    decided_at = Instant(required=True)
    as_of = Instant(required=True)
    sources = fields.Dict(
        keys=fields.String(),
        values=Instant(allow_none=True),
        required=True,
        metadata={"description": "Date de chaque registre — When each register was generated"},
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
    refuse_malformed(address)
    verdict = _gathered(call, call.connection, [address], asked).verdict(address)
    return Response(octets(written(verdict)), mimetype=JSON)


@operation(
    "POST",
    "/v1/recipients/check",
    roles=MAY_CHECK,
    opens=Opens.NONE,
    price=ALL_ADDRESSES,
    french="""Vérifier jusqu'à 10 000 destinataires.

    Les réponses viennent dans l'ordre demandé, sur un seul et même état du registre, au fur et à mesure. Une
    adresse mal formée reçoit son verdict comme les autres. `Accept: application/x-ndjson` donne un verdict
    par ligne. Les certificats ne viennent que si `include` les demande. `Prefer: respond-async` en prend
    jusqu'à 1 000 000, aussi en NDJSON, une adresse par ligne, avec `sender` et `at` dans la requête : la
    réponse vient plus tard, dans un fichier (voir `/v1/recipient-checks`).
    """,
    answer=VerdictsAnswer,
    body=RecipientsRequest,
    query=RecipientsQuery,
    streams=(NDJSON,),
    problems=("malformed-address", "at-in-the-future", "at-out-of-range"),
    road=Road(Trade.BULK, deferred=check_later.road),
    deferred=check_later,
)
def check_recipients(call: Call, query: dict[str, Any], asked: dict[str, Any]) -> Response:
    """Check up to 10,000 recipients.

    Answers come in the order asked, all on one state of the record, while they are decided. A malformed
    address gets its verdict like the others; a malformed sender is refused, since nothing could be answered.
    `Accept: application/x-ndjson` gives one verdict a line. Certificates come where `include` asks for them.
    `Prefer: respond-async` takes up to 1,000,000, also as NDJSON, one address a line, with `sender` and `at`
    in the query: the answer comes later, in a file (see `/v1/recipient-checks`).
    """
    included = Included(query["include"]) if "include" in query else Included.NOTHING
    # Where the memory stands is asked before the snapshot: of what others hear meanwhile nothing is missed.
    mark = call.container.remembered.begin()
    with transaction(call.container.engine, read_only=True) as connection:
        whole = included is Included.CERTIFICATES
        gathered = _gathered(call, connection, asked["addresses"], asked, mark=mark, with_der=whole)
    media = request.accept_mimetypes.best_match([JSON, NDJSON], default=JSON)
    made = in_lines if media == NDJSON else in_one_document
    pieces = made(gathered, asked["addresses"], included)
    if len(asked["addresses"]) <= IN_ONE_GO:
        answer = Response(b"".join(pieces), mimetype=media)
    else:
        # Made while it is sent, of what has been read: the transaction is over by then.
        answer = Response(Pieces(pieces), mimetype=media, direct_passthrough=True)
    answer.vary.add("Accept")
    return answer


def recipients(container: Container) -> Resource:
    """The resource, served on `container`."""
    text = "Destinataires : le verdict — Recipients: the verdict"
    return resource("recipients", text, container, check_recipient, check_recipients)


def _gathered(
    call: Call,
    connection: Connection,
    addresses: list[str],
    asked: dict[str, Any],
    *,
    mark: Mark | None = None,
    with_der: bool = True,
) -> Gathered:
    sender: str | None = asked.get("sender")
    if sender is not None:
        refuse_malformed(sender, SENDER)
    container = call.container
    gathered = gather(
        connection, addresses, sender=sender, at=asked.get("at"), now=call.now,
        lifetime=container.verdict_lifetime, trials=container.settings.trial_addresses,
        memory=container.remembered, mark=mark, with_der=with_der,
    )  # fmt: skip
    rest_on(gathered.occasion.sources)
    return gathered

"""Whom an operator has told that its own certificates run out."""

from typing import Any

from marshmallow import fields, validate

from api.http.operation import Opens, Resource, Transacted, operation, resource
from api.http.schemas import Instant, Line, Shape
from api.wiring import Container
from directory.access import Role
from pki.registration import operator_contacts as contacts
from pki.registration.operator_contacts import Contacts

OPERATORS = {Role.OPERATOR}
# Longer than any address is (RFC 5321 4.5.3.1), so that what is wrong with one is said by its own refusal.
LONGEST_ADDRESS = 320
# More than are kept, for the same reason.
MOST_READ = 50
EXAMPLE = ["certificats@operateur.example", "astreinte@operateur.example"]


class ContactsRequest(Shape):
    """All contacts, in the order wished for."""

    addresses = fields.List(
        Line(LONGEST_ADDRESS),
        required=True,
        validate=validate.Length(max=MOST_READ),
        metadata={
            "description": "Cinq au plus ; aucune : plus d'avis — Five at most; none: no more notices",
            "example": EXAMPLE,
        },
    )


class ContactsAnswer(Shape):
    """All contacts; `kept_at` is null while there is none."""

    addresses = fields.List(fields.String(), required=True, metadata={"example": EXAMPLE})
    kept_at = Instant(required=True, allow_none=True)


@operation(
    "GET",
    "/v1/operator/contacts",
    roles=OPERATORS,
    opens=Opens.SNAPSHOT,
    french="""Voir ses contacts d'opérateur.

    Les adresses qui reçoivent les avis d'échéance des certificats de l'opérateur que nomme le jeton. Lui seul
    les voit.
    """,
    answer=ContactsAnswer,
    problems=("not-an-operator",),
)
def see_operator_contacts(call: Transacted) -> Contacts:
    """See one's operator contacts.

    The addresses that get the notices of expiry of the certificates of the operator that the token names.
    Nobody else sees them.
    """
    return contacts.kept(call.connection, token=call.token)


@operation(
    "PUT",
    "/v1/operator/contacts",
    roles=OPERATORS,
    opens=Opens.WRITE,
    french="""Tenir ses contacts d'opérateur.

    La liste entière, qui remplace la précédente. Cinq adresses au plus, prévenues 60, 30 et 7 jours avant la
    fin d'un certificat de serveur ou de client sans successeur. Une liste vide met fin aux avis.
    """,
    answer=ContactsAnswer,
    body=ContactsRequest,
    problems=("not-an-operator", "malformed-address", "too-many-contacts"),
)
def keep_operator_contacts(call: Transacted, asked: dict[str, Any]) -> Contacts:
    """Keep one's operator contacts.

    The whole list, instead of the one before: five addresses at most. They are told 60, 30 and 7 days before
    the end of a server's or client's certificate without a successor. An empty list ends the notices.
    """
    return contacts.keep(call.connection, now=call.now, token=call.token, addresses=asked["addresses"])


def operator_contacts(container: Container) -> Resource:
    """The resource, served on `container`."""
    text = "Contacts des opérateurs — Operators' contacts"
    return resource("operator_contacts", text, container, see_operator_contacts, keep_operator_contacts)

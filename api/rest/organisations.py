"""Establishments of FINESS: search, and one, with the mailboxes of its own that may be shown."""

from collections.abc import Sequence
from typing import Any

from marshmallow import fields

from api.http import paging
from api.http.operation import Opens, Resource, Transacted, operation, resource
from api.http.prices import BY_NUMBER, SEARCH
from api.http.schemas import Instant, Line, Shape
from api.rest.correction_schemas import corrected
from api.rest.mailboxes import PREFERRED, MailboxAnswer, shown
from api.rest.practitioners import MAY_SEARCH
from api.wiring import Container
from directory.base.errors import Kind, Refusal
from directory.corrections import marks
from directory.feed.changes import Entity
from directory.identifiers import read_place
from directory.search import PLACES, places_question, sites_of
from directory.store import addresses_at
from directory.store import organisations as found_by_number

EXAMPLE_FINESS = "250990033"
# Of a legal entity, in a refusal: the largest has some hundreds.
MOST_PLACES = 100


class OrganisationAnswer(Shape):
    """An establishment of FINESS."""

    finess = fields.String(required=True, metadata={"example": EXAMPLE_FINESS})
    name = fields.String(required=True, metadata={"example": "CHI FICTIF"})
    long_name = fields.String(required=True)
    category_code = fields.String(required=True, metadata={"example": "355"})
    category_label = fields.String(required=True)
    street = fields.String(required=True)
    postal_line = fields.String(required=True, metadata={"example": "25304 PONTARLIER CEDEX"})
    department = fields.String(
        required=True,
        metadata={"description": "Comme FINESS l'écrit : 9A outre-mer — As FINESS has it: 9A overseas"},
    )
    closed_on = fields.Date(required=True, allow_none=True)
    departed_at = Instant(
        required=True,
        allow_none=True,
        metadata={
            "description": "Depuis quand FINESS ne le connaît plus — Since when FINESS no longer holds it"
        },
    )
    corrected = corrected()
    mailboxes = fields.List(fields.Nested(MailboxAnswer), required=True, metadata={"description": PREFERRED})


class OrganisationsAnswer(Shape):
    """A page of establishments; `next` is null on the last page, and only there."""

    items = fields.List(fields.Nested(OrganisationAnswer), required=True)
    next = fields.String(required=True, allow_none=True)
    total = fields.Nested(paging.TotalAnswer, required=True, allow_none=True)
    sources = fields.Dict(keys=fields.String(), values=Instant(allow_none=True), required=True)


class OrganisationsQuery(paging.SearchQuery):
    """What to look for; all that is given must hold."""

    name = Line(
        100,
        metadata={
            "description": "Débuts de mots des noms, ou numéro (FINESS, entité juridique, SIRET) — "
            "Beginnings of words of the names, or a number (FINESS, legal entity, SIRET)",
            "example": "chu besancon",
        },
    )


@operation(
    "GET",
    "/v1/organisations",
    roles=MAY_SEARCH,
    opens=Opens.SNAPSHOT,
    price=SEARCH,
    french="""Chercher des établissements.

    Par nom, département et commune, avec leurs boîtes d'organisation.
    """,
    answer=OrganisationsAnswer,
    query=OrganisationsQuery,
    problems=("bad-cursor", "too-little-to-search"),
)
def search(call: Transacted, asked: dict[str, Any]) -> dict[str, Any]:
    """Search establishments.

    By name, department and town, with the mailboxes of their own.
    """
    criteria = ("name", "department", "town")
    sites = sites_of(call.connection, asked["name"]) if "name" in asked else ()
    question = places_question(
        **{criterion: asked[criterion] for criterion in criteria if criterion in asked}, sites=sites
    )
    return paging.page_of(call, PLACES, question, asked, _answers)


@operation(
    "GET",
    "/v1/organisations/<finess>",
    roles=MAY_SEARCH,
    opens=Opens.SNAPSHOT,
    price=BY_NUMBER,
    french="""Un établissement.

    Par son numéro FINESS, celui de son entité juridique ou son SIRET.
    Celui qui a quitté FINESS est rendu avec la date de son départ, sans boîte.
    """,
    answer=OrganisationAnswer,
    problems=(
        "malformed-finess",
        "finess-check-digit",
        "siret-check-digit",
        "unknown-organisation",
        "several-places",
    ),
    parameters={
        "finess": {
            "schema": {"type": "string", "maxLength": 30},
            "description": "Numéro FINESS — FINESS number",
            "example": EXAMPLE_FINESS,
        }
    },
)
def organisation(call: Transacted, finess: str) -> dict[str, Any]:
    """One establishment.

    By its FINESS number, by that of its legal entity, or by its SIRET.
    One that left FINESS is given with the date of it, and without mailboxes.
    """
    wanted = read_place(finess)
    for answer in _answers(call, [wanted]):
        return answer
    sites = sites_of(call.connection, wanted)
    if len(sites) > 1:
        text = f"This is the number of a legal entity with {len(sites)} places: ask for one of them."
        raise Refusal(Kind.NOT_FOUND, "several-places", text, places=sites[:MOST_PLACES])
    for answer in _answers(call, sites):
        return answer
    text = "FINESS as we have it holds nothing under this number."
    raise Refusal(Kind.NOT_FOUND, "unknown-organisation", text)


def organisations(container: Container) -> Resource:
    """The resource, served on `container`."""
    text = "Établissements de FINESS — Establishments of FINESS"
    return resource("organisations", text, container, search, organisation)


def _answers(call: Transacted, keys: Sequence[str]) -> list[dict[str, Any]]:
    places = found_by_number(call.connection, keys)
    mailboxes = shown(call, addresses_at(call.connection, keys))
    marked = marks(call.connection, Entity.ORGANISATION, keys)
    return [
        {**vars(places[key]), "mailboxes": mailboxes[key], "corrected": marked.get(key, ())}
        for key in keys
        if key in places
    ]

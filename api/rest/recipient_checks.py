"""Checks of very many recipients that are answered later: taken, watched, fetched, deleted.

What is kept of them is `pki/verdict`'s; who carries them out, `api/jobs/recipient_checks.py`'s.
"""

from typing import Any
from uuid import UUID, uuid4

from flask import Response
from marshmallow import fields, validate

from api.front.roads import LARGEST_DEFERRED, Road, Trade
from api.http.operation import Call, Opens, Resource, Transacted, operation, resource
from api.http.prices import ALL_ADDRESSES, DOWNLOAD, charge
from api.http.schemas import Hexadecimal, Instant, Shape
from api.rest.downloads import hand_out
from api.rest.recipient_schemas import MAY_CHECK, DeferredQuery, DeferredRequest, refuse_malformed
from api.wiring import Container
from directory.base.db import transaction
from directory.base.errors import Kind, Refusal
from pki.verdict import check_files, checks_store
from pki.verdict.answer import past
from pki.verdict.check_files import AskedFor
from pki.verdict.checks_store import RecipientCheck
from pki.verdict.decide import SENDER

_PATH = "/v1/recipient-checks"
_GZIP = "application/gzip"
_STATES = ("waiting", "running", "done", "failed", "deleted")
# Seconds; a million addresses take minutes.
_RETRY_SECONDS = 5
EXAMPLE_ID = "6f1d7a52-0c3e-4b1f-9a56-1d2f0b7c8e90"
IDENTIFIED = {
    "check_id": {
        "schema": {"type": "string", "format": "uuid"},
        "description": "`id` rendu avec la vérification — `id` given with the check",
        "example": EXAMPLE_ID,
    }
}


class ResultAnswer(Shape):
    """The result: NDJSON in gzip, one verdict a line, in the order asked."""

    location = fields.String(required=True)
    size = fields.Integer(required=True)
    sha256 = Hexadecimal(required=True)


class CheckAnswer(Shape):
    """A check as it stands: how many of its addresses are decided, and where the result is."""

    id = fields.UUID(required=True, metadata={"example": EXAMPLE_ID})
    location = fields.String(required=True, metadata={"example": f"{_PATH}/{EXAMPLE_ID}"})
    state = fields.String(required=True, validate=validate.OneOf(_STATES))
    number = fields.Integer(required=True)
    decided = fields.Integer(required=True)
    asked_at = Instant(required=True)
    finished_at = Instant(required=True, allow_none=True)
    kept_until = Instant(
        required=True, metadata={"description": "Supprimée alors, avec son résultat — Removed then"}
    )
    result = fields.Nested(ResultAnswer, required=True, allow_none=True)


def _need_place(call: Call) -> None:
    """Before anything is read, counted or written for who has his share waiting."""
    with transaction(call.container.engine) as connection:
        checks_store.need_place(connection, call.token.id)


@operation(
    "POST",
    "/v1/recipients/check",
    roles=MAY_CHECK,
    opens=Opens.NONE,
    french="""Vérifier jusqu'à 1 000 000 de destinataires, plus tard.

    Toutes les adresses comptent dès l'acceptation.
    """,
    answer=CheckAnswer,
    status=202,
    body=DeferredRequest,
    query=DeferredQuery,
    problems=("too-many-checks", "no-room-for-checks"),
    idempotent=True,
    road=Road(Trade.BULK, LARGEST_DEFERRED),
    beforehand=_need_place,
)
def check_later(call: Call, query: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
    """Check up to 1,000,000 recipients, later.

    All addresses count from the acceptance on.
    """
    asked_for = _asked_for(call, query, asked)
    engine, folder, check_id = call.container.engine, call.container.settings.checks, uuid4()
    check_files.make_folder(folder)
    charge(call, ALL_ADDRESSES, asked)
    try:
        check_files.keep_asked(folder, check_id, asked_for, asked["addresses"])
        with transaction(engine) as connection:
            made = checks_store.add(
                connection, len(asked["addresses"]), check_id=check_id, token_id=call.token.id,
                included=query.get("include", ""), now=call.now,
            )  # fmt: skip
            if call.keep is not None:
                call.keep(connection, _answer(made))
    except BaseException:
        check_files.forget(folder, check_id)
        raise
    return _answer(made)


@operation(
    "GET",
    f"{_PATH}/<uuid:check_id>",
    roles=MAY_CHECK,
    opens=Opens.SNAPSHOT,
    french="""L'avancement d'une vérification.

    Pour le jeton qui l'a demandée, ou un autre du même opérateur. Chaque tranche de 10 000 adresses est
    décidée sur un seul état du registre, que `as_of` date sur chaque ligne. Une vérification coupée
    recommence ; rien d'à moitié fait n'est montré.
    """,
    answer=CheckAnswer,
    problems=("unknown-check",),
    parameters=IDENTIFIED,
)
def see_check(call: Transacted, check_id: UUID) -> dict[str, Any]:
    """The progress of a check.

    For the token that asked for it, or another of the same operator. Each part of 10,000 addresses is decided
    on one state of the record, which `as_of` dates on each line. A check that is cut off begins again;
    nothing half done is shown.
    """
    found = checks_store.find(call.connection, check_id, call.token, call.now)
    if found is None:
        raise _unknown()
    return _answer(found)


@operation(
    "GET",
    f"{_PATH}/<uuid:check_id>/result",
    roles=MAY_CHECK,
    opens=Opens.NONE,
    price=DOWNLOAD,
    french="""Le résultat d'une vérification.

    Du NDJSON compressé par gzip, un verdict par ligne dans l'ordre demandé, avec un ETag fort ; `Range` en
    donne une partie. Supprimé 24 heures après la demande.
    """,
    answer={"type": "string", "format": "binary"},
    media=_GZIP,
    problems=(
        "unknown-check",
        "check-not-done",
        "check-failed",
        "range-not-satisfiable",
        "too-many-downloads",
    ),
    parameters=IDENTIFIED,
)
def check_result(call: Call, check_id: UUID) -> Response:
    """The result of a check.

    NDJSON in gzip, one verdict a line in the order asked, with a strong ETag; `Range` gives a part of it.
    Removed 24 hours after it was asked for.
    """
    found = _found(call, check_id)
    if found.state == "failed":
        text = "What was asked is lost, or could not be decided in several attempts: ask again."
        raise Refusal(Kind.GONE, "check-failed", text)
    if found.finished_at is None or found.sha256 is None:
        text = f"{found.decided:,} of {found.number:,} addresses are decided."
        raise Refusal(Kind.CONFLICT, "check-not-done", text, retry_after=_RETRY_SECONDS)
    path = check_files.result_path(call.container.settings.checks, check_id)
    return hand_out(
        call, path, digest=found.sha256.hex(), made_at=found.finished_at, gone=_unknown, media=_GZIP
    )


@operation(
    "DELETE",
    f"{_PATH}/<uuid:check_id>",
    roles=MAY_CHECK,
    opens=Opens.NONE,
    while_behind=True,
    french="""Supprimer une vérification.

    Elle s'arrête si elle est en cours ; ses adresses et son résultat sont effacés.
    """,
    answer=CheckAnswer,
    problems=("unknown-check",),
    parameters=IDENTIFIED,
)
def delete_check(call: Call, check_id: UUID) -> dict[str, Any]:
    """Delete a check.

    It stops if it is under way; its addresses and its result are erased.
    """
    found = _found(call, check_id)
    with transaction(call.container.engine) as connection:
        checks_store.remove(connection, check_id)
    check_files.forget(call.container.settings.checks, check_id)
    return _answer(found) | {"state": "deleted", "result": None}


def recipient_checks(container: Container) -> Resource:
    """The resource, served on `container`."""
    text = "Vérifications différées — Checks answered later"
    return resource("recipient-checks", text, container, see_check, check_result, delete_check)


def _asked_for(call: Call, query: dict[str, Any], asked: dict[str, Any]) -> AskedFor:
    """For whom and as of when; refuses as a check that is answered at once."""
    twice = {"sender", "at"} & query.keys() & asked.keys()
    if twice:
        text = f"Both the query and the body say {' and '.join(sorted(twice))}: which of the two is meant?"
        raise Refusal(Kind.UNACCEPTABLE, "invalid-request", text)
    sender, at = ({**query, **asked}.get(name) for name in ("sender", "at"))
    if sender is not None:
        refuse_malformed(sender, SENDER)
    return AskedFor(sender, None if at is None else past(at, call.now))


def _found(call: Call, check_id: UUID) -> RecipientCheck:
    with transaction(call.container.engine, read_only=True) as connection:
        found = checks_store.find(connection, check_id, call.token, call.now)
    if found is None:
        raise _unknown()
    return found


def _unknown() -> Refusal:
    text = "There is no such check of this token or its operator, or it is not kept any more."
    return Refusal(Kind.NOT_FOUND, "unknown-check", text)


def _answer(check: RecipientCheck) -> dict[str, Any]:
    location = f"{_PATH}/{check.id}"
    done = check.sha256 is not None
    result = {"location": f"{location}/result", "size": check.size, "sha256": check.sha256} if done else None
    return {**vars(check), "location": location, "kept_until": check.kept_until, "result": result}

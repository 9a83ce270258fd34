"""`Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header): asked twice, done once, answered alike.

An operation says `idempotent=True`; this module reads the key, waits a little for a twin, and gives the kept
answer. What counts as the same request, and for how long, is decided in `pki/record/idempotency.py`.
"""

import re
import time
from collections.abc import Callable
from datetime import datetime
from hashlib import sha256

from flask import Request, Response
from sqlalchemy import Connection, Engine

from directory.base.db import transaction
from directory.base.errors import Kind, Refusal
from pki.record.idempotency import IdempotencyClaim, KeptAnswer, claim, release_claim

HEADER = "Idempotency-Key"
# The draft wants a quoted string (RFC 9651 3.3.3); most clients send the bare UUID, which is as clear.
_QUOTED = re.compile(r'"((?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\["\\])+)"')
_BARE = re.compile(r"[A-Za-z0-9_.:~+/=-]+")
# Of the header as it is sent, quotes and escapes included: what the description says is what is counted.
LONGEST = 255
# A naive client that sends twice at once should get its answer, not a conflict: an issuance takes 50 ms.
PATIENCE_SECONDS = 10.0
PAUSE_SECONDS = 0.05
PROBLEMS = ("malformed-idempotency-key", "idempotency-key-reused", "request-in-progress")
DOCUMENTED = {
    "in": "header",
    "name": HEADER,
    "required": False,
    "description": "Clé choisie par l'appelant. La même demande envoyée deux fois sous la même clé en 24 h"
    " n'est faite qu'une fois et reçoit la même réponse. — A key of the caller's choice. The same request"
    " sent twice under it within 24 hours is done once and answered alike.",
    "schema": {"type": "string", "minLength": 1, "maxLength": LONGEST},
    "example": '"8e03978e-40d5-43e3-bc93-6894a57f9324"',
}


def asked_of(request: Request, token_id: int) -> IdempotencyClaim | None:
    """The request under its key, None when it names none; refuses `malformed-idempotency-key`."""
    written = request.headers.getlist(HEADER)
    if not written:
        return None
    value = written[0].strip() if len(written) == 1 else ""
    quoted, bare = _QUOTED.fullmatch(value), _BARE.fullmatch(value)
    if len(value) > LONGEST or not (quoted or bare):
        text = f'{HEADER} is one string of 1 to {LONGEST} printable characters: {HEADER}: "8e03978e-40d5-…".'
        raise Refusal(Kind.MALFORMED, "malformed-idempotency-key", text)
    key = re.sub(r'\\(["\\])', r"\1", quoted[1]) if quoted else value
    route = f"{request.method} {request.full_path}\n".encode()
    return IdempotencyClaim(token_id, key, sha256(route + request.get_data(cache=True)).digest())


def answer_of(response: Response) -> KeptAnswer:
    """What of a response is kept."""
    return KeptAnswer(response.status_code, response.get_data())


def as_response(kept: KeptAnswer, media: str) -> Response:
    """The kept answer again, octet for octet."""
    return Response(kept.body, kept.status, content_type=media)


def claimed_patiently(
    engine: Engine, asked: IdempotencyClaim, present: Callable[[Connection], datetime]
) -> KeptAnswer | None:
    """As `claim`, in a transaction of its own, waiting for a twin as long as a client would.

    Refuses as `claim` does once that is over.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            with transaction(engine) as connection:
                return claim(connection, asked, present(connection))
        except Refusal as refusal:
            if refusal.code != "request-in-progress" or time.monotonic() > deadline:
                raise
        time.sleep(PAUSE_SECONDS)


def released(engine: Engine, asked: IdempotencyClaim) -> None:
    """Let a claimed request go, in a transaction of its own."""
    with transaction(engine) as connection:
        release_claim(connection, asked)

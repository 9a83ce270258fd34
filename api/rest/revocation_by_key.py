"""Revoking with the certificate's own key: open to all, because who lost his token may still have his key.

Says nothing of other people's certificates; what a request holds is read in
`pki/revocation/proof_of_possession.py`.
"""

import orjson
from flask import Blueprint, Response, request
from werkzeug.exceptions import UnsupportedMediaType

from api.front.roads import Road, Trade, on_road, too_large
from api.front.views import source_of_request
from api.http.rate_limit import ALL_TOGETHER, Pace
from api.rest.certificates import RevocationAnswer
from api.wiring import Container
from directory.base.db import transaction
from directory.base.errors import Kind, Refusal
from pki.revocation.proof_of_possession import LARGEST_REQUEST, revoke_with_proof

PATH = "/v1/revocations"
JOSE = "application/jose"
# A person has a handful of certificates, and an operator a few hundred servers behind one address.
_A_MINUTE = 60
# Seconds after which the pace lets one more through, and a little.
_PAUSE = 2


def proofs(container: Container) -> Blueprint:
    """The one route on `container`."""
    made = Blueprint("proofs", __name__)
    pace = Pace(_A_MINUTE)

    @made.post(PATH)
    def revoke_with_key() -> Response:
        if not pace.allows(source_of_request()):
            text = (
                f"One process takes at most {_A_MINUTE} of these in a minute from one address,"
                f" and {ALL_TOGETHER * _A_MINUTE} from all."
            )
            raise Refusal(Kind.TOO_MANY, "too-many-proofs", text, retry_after=_PAUSE)
        signed = _body()
        with transaction(container.engine) as connection:
            event = revoke_with_proof(
                connection, now=container.present(connection), request=signed,
                audience=f"{container.settings.base_url}{PATH}",
            )  # fmt: skip
        return Response(orjson.dumps(RevocationAnswer().dump(event)), 200, mimetype="application/json")

    on_road(revoke_with_key, Road(Trade.REVOCATION, LARGEST_REQUEST))
    return made


def _body() -> bytes:
    if request.mimetype != JOSE:
        raise UnsupportedMediaType(f"The body must be {JOSE}.")
    body: bytes = request.stream.read(LARGEST_REQUEST + 1)
    if len(body) > LARGEST_REQUEST:
        raise too_large(LARGEST_REQUEST)
    return body

"""The trust list as anybody fetches it, without a token: JWS, kept versions, the national format.

What a list says and how it is signed is `pki/publication/trust_list.py`'s; the CA bundle lies with the other
CA files (`api/status/files.py`).
"""

from flask import Blueprint, Response
from marshmallow import Schema, fields, validate

from api.http.operation import JsonParser
from api.http.schemas import LARGEST_ID
from api.rest.preconditions import conditional
from api.rest.trust_list_cache import Newest, Published, find
from api.wiring import Container
from directory.base.errors import Kind, Refusal

JOSE, XML, TEXT = "application/jose", "application/xml", "text/plain; charset=utf-8"
# As certificate status: what is said here is forgotten within a minute.
CACHEABLE = "public, no-transform, must-revalidate, max-age=60"
# A number names one list for ever.
_FOREVER = "public, max-age=31536000, immutable"


class VersionQuery(Schema):
    """The version that who asks has already."""

    version = fields.Integer(load_default=None, validate=validate.Range(1, LARGEST_ID))


def trust_list(container: Container) -> Blueprint:
    """/v1/trust-list, its kept versions, and /trust-list.xml with signature and checksum, on `container`."""
    made = Blueprint("trust_list", __name__)
    # An older list would give back what a later one suspended.
    made.before_request(container.watch.need)
    newest = Newest(container)
    _add_white_list(made, newest)

    @made.get("/v1/trust-list")
    @JsonParser().use_kwargs(VersionQuery, location="query")
    def list_now(version: int | None) -> Response:
        newest_list = _current(newest)
        if version == newest_list.version:
            answer = Response(status=204)
            answer.set_etag(str(newest_list.version))
            answer.headers["Cache-Control"] = CACHEABLE
            return answer
        return _handed(newest_list, newest_list.jws, JOSE)

    @made.get("/v1/trust-list/<int:version>")
    def list_kept(version: int) -> Response:
        signed_list = newest.get()
        if signed_list is None or signed_list.version != version:
            signed_list = find(container, version)
        if signed_list is None:
            raise Refusal(Kind.NOT_FOUND, "unknown-trust-list", f"There is no trust list number {version}.")
        return _handed(signed_list, signed_list.jws, JOSE, _FOREVER)

    return made


def _add_white_list(made: Blueprint, newest: Newest) -> None:
    """The national format, its signature and its checksum, of one version each time."""

    @made.get("/trust-list.xml")
    def white_list() -> Response:
        newest_list = _current(newest)
        return _handed(newest_list, newest_list.xml, XML)

    @made.get("/trust-list.xml.jws")
    def white_list_signature() -> Response:
        newest_list = _current(newest)
        return _handed(newest_list, newest_list.xml_signature, JOSE)

    @made.get("/trust-list.xml.sha256")
    def white_list_checksum() -> Response:
        newest_list = _current(newest)
        return _handed(newest_list, newest_list.checksum, TEXT)


def _current(newest: Newest) -> Published:
    newest_list = newest.get()
    if newest_list is None:
        text = "No trust list has been signed yet: there must be a CA, and a worker."
        raise Refusal(Kind.UNAVAILABLE, "no-trust-list", text)
    return newest_list


def _handed(signed_list: Published, body: bytes, media: str, kept: str = CACHEABLE) -> Response:
    """The bytes, or 304 to who has this version."""
    answer = Response(body, content_type=media)
    # The version alone: all forms of one version change together.
    answer.set_etag(str(signed_list.version))
    answer.last_modified = signed_list.made_at
    answer.headers["Cache-Control"] = kept
    if kept is CACHEABLE:
        answer.expires = signed_list.next_update
    answer.headers["Sceau-Trust-List-Version"] = str(signed_list.version)
    return conditional(answer)

"""Exports: which there are, and their files, in parts if need be and only when they changed.

What they hold is `pki/publication/export.py`'s, when they are made and kept `api/jobs/exports.py`'s.
"""

from collections.abc import Callable
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

from flask import Response, request
from marshmallow import fields
from werkzeug.exceptions import RequestedRangeNotSatisfiable
from werkzeug.wsgi import FileWrapper

from api.front.views import source_of_request
from api.http.operation import Call, Opens, Resource, operation, resource
from api.http.prices import DOWNLOAD
from api.http.schemas import Instant, Shape
from api.rest.changes import MAY_COPY
from api.rest.preconditions import conditional
from api.wiring import Container
from directory.base.db import transaction
from directory.base.errors import Kind, Refusal
from pki.publication import export_folder
from pki.publication.export_folder import Export

OCTETS = "application/octet-stream"
EXAMPLE_STAMP = "20260901T040000Z"
STAMPED = {
    "stamp": {
        "schema": {"type": "string", "pattern": "^([0-9]{8}T[0-9]{6}Z|latest)$"},
        "description": "Nom de l'export, ou `latest` — Name of the export, or `latest`",
        "example": EXAMPLE_STAMP,
    }
}
NAMED = {
    "file": {
        "schema": {"type": "string", "maxLength": 100},
        "description": "Nom du fichier — Name of the file",
        "example": "mailboxes.ndjson.gz",
    }
}
_CHUNK = 1 << 16
# A proxy in between keeps nothing; a reader may, and asks by ETag whether it still holds.
_KEPT_BY_ITS_READER = "private, no-cache"
# Who fetches one file after another asks for the next before the end of the last one has been seen here.
_PATIENCE = 0.2


class ExportFile(Shape):
    """One file of an export; `lines` are records, without the heading of a CSV."""

    name = fields.String(required=True, metadata={"example": "mailboxes.ndjson.gz"})
    size = fields.Integer(required=True)
    lines = fields.Integer(required=True)
    sha256 = fields.String(required=True)


class ExportAnswer(Shape):
    """One export: its files, and the cursor from which the feed goes on."""

    stamp = fields.String(required=True, metadata={"example": EXAMPLE_STAMP})
    made_at = Instant(required=True)
    cursor = fields.String(required=True)
    sources = fields.Dict(keys=fields.String(), values=Instant(allow_none=True), required=True)
    files = fields.List(fields.Nested(ExportFile), required=True)


class ExportsAnswer(Shape):
    """The exports that are kept, the newest first."""

    items = fields.List(fields.Nested(ExportAnswer), required=True)


@operation(
    "GET",
    "/v1/exports",
    roles=MAY_COPY,
    opens=Opens.NONE,
    price=DOWNLOAD,
    french="""Les exports.

    Les derniers exports complets du public, du plus récent au plus ancien.
    """,
    answer=ExportsAnswer,
)
def exports(call: Call) -> dict[str, Any]:
    """The exports.

    The last whole exports of what is public, the newest first.
    """
    with transaction(call.container.engine, read_only=True) as connection:
        served = export_folder.served(connection, call.container.settings.exports)
    return {"items": [_answer(kept_export) for kept_export in served]}


@operation(
    "GET",
    "/v1/exports/<stamp>",
    roles=MAY_COPY,
    opens=Opens.NONE,
    price=DOWNLOAD,
    french="""Un export.

    Ses fichiers, et le curseur d'où le fil des changements continue. `latest` est le plus récent.
    """,
    answer=ExportAnswer,
    problems=("unknown-export",),
    parameters=STAMPED,
)
def export(call: Call, stamp: str) -> dict[str, Any]:
    """One export.

    Its files, and the cursor from which the feed of changes goes on. `latest` is the newest.
    """
    return _answer(_found(call, stamp))


@operation(
    "GET",
    "/v1/exports/<stamp>/<file>",
    roles=MAY_COPY,
    opens=Opens.NONE,
    price=DOWNLOAD,
    french="""Un fichier d'un export.

    Tel quel, avec un ETag fort ; `Range` en donne une partie, `If-None-Match` rien s'il est déjà connu.
    `manifest.jws` est le manifeste signé, `SHA256SUMS` les empreintes.
    """,
    answer={"type": "string", "format": "binary"},
    media=OCTETS,
    problems=("unknown-export", "range-not-satisfiable", "too-many-downloads"),
    parameters=STAMPED | NAMED,
)
def export_file(call: Call, stamp: str, file: str) -> Response:
    """A file of an export.

    As it is, with a strong ETag; `Range` gives a part of it, `If-None-Match` nothing when it is known.
    `manifest.jws` is the signed manifest, `SHA256SUMS` the digests.
    """
    kept_export = _found(call, stamp)
    known = kept_export.file(file)
    if known is None:
        raise _unknown()
    path, digest = known
    seats, token, source = call.container.downloads, call.token.id, source_of_request()
    if not seats.take(token, source, _PATIENCE):
        text = "Too many files are being fetched just now, by all or by this token."
        raise Refusal(Kind.UNAVAILABLE, "too-many-downloads", text)
    handed = _Seated(path, lambda: seats.leave(token, source))
    try:
        answer = Response(handed, mimetype=OCTETS, direct_passthrough=True)
        answer.content_length = handed.size
        answer.set_etag(digest)
        answer.last_modified = kept_export.made_at
        answer.headers["Cache-Control"] = _KEPT_BY_ITS_READER
        conditional(answer, accept_ranges=True, complete_length=handed.size)
    except RequestedRangeNotSatisfiable:
        handed.close()
        raise
    if request.method == "HEAD" or answer.status_code == HTTPStatus.NOT_MODIFIED:
        # Without a body nobody ends the hold on it.
        handed.close()
    return answer


def exports_of_the_public(container: Container) -> Resource:
    """The resource, served on `container`."""
    text = "Exports complets — Whole exports"
    return resource("exports", text, container, exports, export, export_file)


def _found(call: Call, stamp: str) -> Export:
    with transaction(call.container.engine, read_only=True) as connection:
        kept_export = export_folder.find(connection, call.container.settings.exports, stamp)
    if kept_export is None:
        raise _unknown(**({"retry_after": export_folder.RETRY_SECONDS} if stamp == "latest" else {}))
    return kept_export


def _unknown(**details: int) -> Refusal:
    text = "There is no such export or file, or it is not kept any more."
    return Refusal(Kind.NOT_FOUND, "unknown-export", text, **details)


def _answer(kept_export: Export) -> dict[str, Any]:
    told = kept_export.manifest
    return {
        "stamp": kept_export.stamp,
        "made_at": kept_export.made_at,
        "cursor": told["cursor"],
        "sources": {name: at and datetime.fromisoformat(at) for name, at in told["sources"].items()},
        "files": [{"name": name, **facts} for name, facts in sorted(told["files"].items())],
    }


class _Seated(FileWrapper):
    """A file on its way to a reader, who has a seat until it is closed."""

    def __init__(self, path: Path, leave: Callable[[], None]) -> None:
        self._leave: Callable[[], None] | None = leave
        try:
            file = path.open("rb")
        except FileNotFoundError as error:
            # Forgotten since its name was read.
            self._give_back()
            raise _unknown() from error
        # Where the server may read it by itself.
        self.path = path
        self.size = path.stat().st_size
        super().__init__(file, _CHUNK)

    def close(self) -> None:
        """Close the file and give the seat back, once however often the server says so."""
        super().close()
        self._give_back()

    def _give_back(self) -> None:
        leave, self._leave = self._leave, None
        if leave is not None:
            leave()

"""Exports: which there are, and their files, in parts if need be and only when they changed.

What they hold is `pki/publication/export.py`'s, when they are made and kept `api/jobs/exports.py`'s.
"""

from datetime import datetime
from typing import Any

from flask import Response
from marshmallow import fields

from api.http.operation import Call, Opens, Resource, operation, resource
from api.http.prices import DOWNLOAD
from api.http.schemas import Instant, Shape
from api.rest.changes import MAY_COPY
from api.rest.downloads import OCTETS, hand_out
from api.wiring import Container
from directory.base.db import transaction
from directory.base.errors import Kind, Refusal
from pki.publication import export_folder
from pki.publication.export_folder import Export

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
    return hand_out(call, path, digest=digest, made_at=kept_export.made_at, gone=_unknown)


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

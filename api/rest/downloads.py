"""A file handed out: as it is, in parts, or not at all to who has it; a few at a time for each who asks."""

from collections.abc import Callable
from datetime import datetime
from http import HTTPStatus
from pathlib import Path

from flask import Response, request
from werkzeug.exceptions import RequestedRangeNotSatisfiable
from werkzeug.wsgi import FileWrapper

from api.front.views import source_of_request
from api.http.operation import Call
from api.rest.preconditions import conditional
from directory.base.errors import Kind, Refusal

OCTETS = "application/octet-stream"
_CHUNK = 1 << 16
# A proxy in between keeps nothing; a reader may, and asks by ETag whether it still holds.
_KEPT_BY_ITS_READER = "private, no-cache"
# Who fetches one file after another asks for the next before the end of the last one has been seen here.
_PATIENCE = 0.2


def hand_out(
    call: Call,
    path: Path,
    *,
    digest: str,
    made_at: datetime,
    gone: Callable[[], Refusal],
    media: str = OCTETS,
) -> Response:
    """The file whose SHA-256 this is; `gone` makes the refusal of one that is no longer there.

    Refusal UNAVAILABLE `too-many-downloads`.
    """
    seats, token, source = call.container.downloads, call.token.id, source_of_request()
    if not seats.take(token, source, _PATIENCE):
        text = "Too many files are being fetched just now, by all or by this token."
        raise Refusal(Kind.UNAVAILABLE, "too-many-downloads", text)
    handed = _Seated(path, lambda: seats.leave(token, source), gone)
    try:
        answer = Response(handed, mimetype=media, direct_passthrough=True)
        answer.content_length = handed.size
        answer.set_etag(digest)
        answer.last_modified = made_at
        answer.headers["Cache-Control"] = _KEPT_BY_ITS_READER
        conditional(answer, accept_ranges=True, complete_length=handed.size)
    except RequestedRangeNotSatisfiable:
        handed.close()
        raise
    if request.method == "HEAD" or answer.status_code == HTTPStatus.NOT_MODIFIED:
        # Without a body nobody ends the hold on it.
        handed.close()
    return answer


class _Seated(FileWrapper):
    """A file on its way to a reader, who has a seat until it is closed."""

    def __init__(self, path: Path, leave: Callable[[], None], gone: Callable[[], Refusal]) -> None:
        self._leave: Callable[[], None] | None = leave
        try:
            file = path.open("rb")
        except FileNotFoundError as error:
            # Forgotten since its name was read.
            self._give_back()
            raise gone() from error
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

"""A WSGI request without a server: what a callable is given, and what it gives back."""

import io
from typing import Any

from api.status.reply import WsgiApplication


def request(
    application: WsgiApplication, method: str, path: str, body: bytes = b"", **headers: str
) -> tuple[str, dict[str, str], bytes]:
    """Status line, headers and body; `path` is as a server hands it over, percent-decoded."""
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method, "PATH_INFO": path, "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body),
    } | headers  # fmt: skip
    seen: list[tuple[str, dict[str, str]]] = []
    parts = application(environ, lambda status, pairs: seen.append((status, dict(pairs))))
    return seen[0][0], seen[0][1], b"".join(parts)

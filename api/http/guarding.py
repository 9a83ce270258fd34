"""Headers that every answer of the web carries: what a browser may do with it."""

# Pages carry their own style sheet and nothing else: no script, no outside asset.
CONTENT_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_GUARDING = (
    ("X-Content-Type-Options", "nosniff"),
    ("Content-Security-Policy", CONTENT_POLICY),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("X-Frame-Options", "DENY"),
)
_ONLY_BY_TLS = ("Strict-Transport-Security", "max-age=31536000; includeSubDomains")


def guarding(*, secure: bool) -> tuple[tuple[str, str], ...]:
    """The headers, by names and values; `secure` where the web is reached by TLS."""
    return (*_GUARDING, _ONLY_BY_TLS) if secure else _GUARDING

"""Where a token is, as a PKCS #11 URI (RFC 7512): the module to load and the token to look for, no secret.

Read by every process that checks its settings, so nothing here loads a module; that is for `pkcs11`.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

_SCHEME = "pkcs11:"
# RFC 7512 2.3: what names the token stands before the question mark, what to load after it.
_PATH, _QUERY = frozenset({"token", "serial"}), frozenset({"module-path"})
_FORM = re.compile(r"pkcs11:[^?]+\?[^?]+")
_LONGEST_LABEL = 32


@dataclass(frozen=True)
class TokenPlace:
    """A token by its label, and by its serial number where two bear one label."""

    module: Path
    label: str
    serial: str | None = None

    def __post_init__(self) -> None:
        """ValueError, in words for whoever wrote the setting."""
        if not self.module.is_absolute():
            raise ValueError("module-path must be absolute: what is loaded may not depend on the folder")
        if not 0 < len(self.label.encode()) <= _LONGEST_LABEL:
            raise ValueError("token must be a label of 1 to 32 octets")


def read(uri: str) -> TokenPlace:
    """`pkcs11:token=LABEL;serial=NUMBER?module-path=/…`; ValueError, saying why, for anything else."""
    if not _FORM.fullmatch(uri):
        raise ValueError("it must read pkcs11:token=LABEL?module-path=/path/of/the/module.so")
    path, query = uri.removeprefix(_SCHEME).split("?")
    named, asked = _attributes(path, ";"), _attributes(query, "&")
    if {"pin-value", "pin-source"} & {*named, *asked}:
        # A PIN in a setting would be kept in settings.toml and seen by web and worker.
        raise ValueError("the PIN does not belong into the URI: it is read like the CA's passphrase")
    if unknown := (set(named) - _PATH) | (set(asked) - _QUERY):
        # RFC 7512 2.3: what is not understood must not match, or another token could be taken for it.
        raise ValueError(f"not understood: {', '.join(sorted(unknown))}")
    if "token" not in named or "module-path" not in asked:
        raise ValueError("token and module-path must both be there")
    return TokenPlace(Path(asked["module-path"]), named["token"], named.get("serial"))


def _attributes(part: str, separator: str) -> dict[str, str]:
    pairs = [word.partition("=") for word in part.split(separator)]
    if not all(equals for _, equals, _ in pairs) or len({name for name, _, _ in pairs}) < len(pairs):
        raise ValueError("each attribute is name=value, once")
    return {name: unquote(value, errors="strict") for name, _, value in pairs}

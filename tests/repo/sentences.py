"""The sentences of a page or a module, as a reader meets them: without code and addresses of links."""

import ast
import re
from collections.abc import Iterator

_ABBREVIATIONS = re.compile(r"\b(e\.g|i\.e|cf|resp|vs|No|p|art)\.")
_ITEM = re.compile(r"^(\s*([-*+]|\d+\.)\s+|#+\s+|>\s*)")


def sentences(page: str) -> Iterator[str]:
    """Each sentence of prose; an item of a list, a heading and a cell of a table end one, too."""
    for block in _blocks(re.sub(r"^```.*?^```", "\n", page, flags=re.MULTILINE | re.DOTALL)):
        plain = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", block)
        plain = re.sub(r"<[^>]+>", " ", re.sub(r"`[^`]*`", "CODE", plain))
        plain = _ABBREVIATIONS.sub(r"\1", plain.replace("**", "").replace("*", ""))
        parts = re.split(r"(?<=[.!?])[)\"»”]*\s+", plain)
        yield from (" ".join(part.split()) for part in parts if part.strip())


def _blocks(page: str) -> Iterator[str]:
    lines: list[str] = []
    for line in [*page.splitlines(), ""]:
        if line.lstrip().startswith("|"):
            yield from (
                cell for cell in line.strip().strip("|").split(" | ") if not re.fullmatch(r"[-: |]*", cell)
            )
        elif not line.strip() or _ITEM.match(line):
            yield "\n".join(lines)
            lines = [_ITEM.sub("", line)]
        else:
            lines.append(line)
    yield "\n".join(lines)


def words(sentence: str) -> int:
    """How many words a sentence has; dashes and lone signs are none."""
    return sum(bool(re.search(r"\w", word)) for word in sentence.split())


def documentation(source: str) -> Iterator[str]:
    """The docstrings of a module, without their examples (click's \\b), and its comments."""
    kinds = ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, kinds):
            paragraphs = (ast.get_docstring(node) or "").split("\n\n")
            yield "\n\n".join(paragraph for paragraph in paragraphs if not paragraph.startswith("\b"))
    yield from _comments(source)


def _comments(source: str) -> Iterator[str]:
    lines: list[str] = []
    for line in [*source.splitlines(), ""]:
        if line.lstrip().startswith("#"):
            lines.append(line.lstrip(" #:"))
        elif lines:
            yield "\n".join(lines)
            lines = []

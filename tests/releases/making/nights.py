"""Register files of several days, each the demo's own with some lines written otherwise."""

import importlib.util
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.releases.making.installation import TREE

Edit = Callable[[str], str]
SIZE = {"practitioners": 80, "organisations": 8, "mailboxes": 100, "seed": 1}
# The number is the specimen of a social security card, which nobody has.
WITH_A_NUMBER = ("CHU FICTIF DE BORDEAUX", "CHU 1 85 05 78 006 084 91")
# An establishment by its number, its name, and the name that it has later.
LYON = ("690990015", "CHU FICTIF DE LYON", "CHU IMAGINAIRE DE LYON")


@cache
def generator() -> ModuleType:
    """`scripts/make_registers.py` of the tree."""
    spec = importlib.util.spec_from_file_location("make_registers", TREE / "scripts" / "make_registers.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = made
    spec.loader.exec_module(made)
    return made


def plan(**more: Any) -> Any:
    return generator().Plan(**{**SIZE, **more})


def people() -> list[Any]:
    return list(generator().people(plan()))


def mailboxes() -> list[tuple[str, ...]]:
    """Rows of the mailbox list: kind, address, then the holder's number in the fifth cell."""
    return list(generator().mailbox_rows(plan()))


def files(folder: Path, day: date, edits: Mapping[str, list[Edit]]) -> dict[str, Path]:
    """The four files of that day, by register, each text passed through the edits of its register."""
    made: dict[str, Path] = generator().make(folder, plan(day=day))
    for register, ways in edits.items():
        rewrite(made[register], ways)
    return made


def rewrite(path: Path, ways: list[Edit]) -> None:
    if path.suffix != ".zip":
        path.write_bytes(passed(path.read_text(encoding="utf-8"), ways).encode())
        return
    with zipfile.ZipFile(path) as archive:
        texts = {info: archive.read(info).decode() for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for info, text in texts.items():
            archive.writestr(info, passed(text, ways))


def passed(text: str, ways: list[Edit]) -> str:
    for way in ways:
        text = way(text)
    return text


def lines(text: str, change: Callable[[list[str]], Iterator[list[str]]]) -> str:
    """Each line of a piped text as the cells that `change` makes of it: none, one or several."""
    head, *rows = text.splitlines()
    return "\n".join([head, *("|".join(cells) for row in rows for cells in change(row.split("|")))]) + "\n"


def dropped(*keys: str) -> Edit:
    """Without the lines of these people or mailboxes."""
    return lambda text: lines(text, lambda cells: iter([] if set(keys) & set(cells[:5]) else [cells]))


def out_of_practice(number: str) -> Edit:
    """The person stands there without any activity."""

    def change(cells: list[str]) -> Iterator[list[str]]:
        wide = len(cells) > 20 and cells[2] == number
        yield [*cells[:17], *[""] * (len(cells) - 17)] if wide else cells

    return lambda text: lines(text, change)


def second_name(number: str, family: str) -> Edit:
    """The person practises another profession under another name too."""

    def change(cells: list[str]) -> Iterator[list[str]]:
        yield cells
        if len(cells) > 20 and cells[2] == number:
            yield [*cells[:7], family, cells[8], "60", "Infirmier", *cells[11:13], *[""] * 4, *cells[17:]]

    return lambda text: lines(text, change)


def renumbered(old: str, new: str) -> Edit:
    """Who had a number of ADELI has one of the RPPS."""

    def change(cells: list[str]) -> Iterator[list[str]]:
        for place in (0, 2):
            if cells[place : place + 3] == [old[0], old[1:], old]:
                cells = [*cells[:place], new[0], new[1:], new, *cells[place + 3 :]]
        yield cells

    return lambda text: lines(text, change)


def also_of(address: str, structure: str, service: str) -> Edit:
    """The mailbox stands under a second structure."""

    def change(cells: list[str]) -> Iterator[list[str]]:
        yield cells
        if cells[1] == address:
            yield [*cells[:5], "1", structure, service, *cells[8:]]

    return lambda text: lines(text, change)


def passed_to(address: str, other: str, *, also: bool = False) -> Edit:
    """The mailbox names another holder, or both of them."""

    def change(cells: list[str]) -> Iterator[list[str]]:
        if cells[1] != address:
            yield cells
            return
        if also:
            yield cells
        yield [*cells[:2], other[0], other[1:], other, *cells[5:]]

    return lambda text: lines(text, change)


def also_kind(address: str, kind: str, other: str, holder: str = "") -> Edit:
    """Beside this mailbox one of another kind."""
    held = [holder[:1], holder[1:], holder]

    def change(cells: list[str]) -> Iterator[list[str]]:
        yield cells
        if cells[1] == address:
            yield [kind, other, *held, *cells[5:]]

    return lambda text: lines(text, change)


def replaced(old: str, new: str) -> Edit:
    return lambda text: text.replace(old, new)


def without_element(word: str) -> Edit:
    """The trusted list without the first domain whose entry has this word."""

    def change(text: str) -> str:
        begin = text.rindex("    <Domaine>", 0, text.index(word) + 1)
        return text[:begin] + text[text.index("</Domaine>\n", begin) + len("</Domaine>\n") :]

    return change

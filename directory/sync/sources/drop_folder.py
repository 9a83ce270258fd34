"""The drop folder: which of its files is which register's, and which of them is the newest.

What is read of them is `directory/sync/formats`'; when, `api/jobs/registers.py`'s.
"""

from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path

from directory.base.errors import Refusal
from directory.sync.formats.files import RegisterFile, modified_at, named_at, register_file, written_at
from directory.sync.runs.run import REGISTERS

# In this order: a mailbox is easier to place when its holder and its organisation are already known.
PATTERNS = {
    "rpps": (
        "PS_LibreAcces*.zip",
        "PS_LibreAcces_Personne_activite*.txt",
        "ps-libreacces-personne-activite*.txt",
        "Extraction_ProSanteConnect*.zip",
        "Extraction_ProSanteConnect*.txt",
    ),
    "finess": (
        "etalab-cs1100502*.csv",
        "etalab-cs1100507*.csv",
        "finess-structures-*.json.gz",
        "finess-structures-*.json",
    ),
    "trusted-domains": ("listeblanchemssante*.xml",),
    "mailboxes": ("Extraction_Correspondance_MSSante*.zip", "Extraction_Correspondance_MSSante*.txt"),
}


def candidates(folder: Path, register: str) -> list[Path]:
    """The files of this register in `folder`, the newest first.

    By the generation time in their names and in those of their texts, as the import itself judges. A copy
    made late is no newer for it.
    """
    named = {path for pattern in PATTERNS[register] for path in folder.glob(pattern)}
    paths = {path for path in named if _is_file(path) and _shown(path.name) == path.name}
    return sorted(paths, key=lambda path: (_made_at(path, register), path.name), reverse=True)


def _is_file(path: Path) -> bool:
    """Whether a file lies there; a link that cannot be followed leads to none."""
    try:
        return path.is_file()
    except OSError:
        return False


def _shown(name: str) -> str:
    """A file's name as text; bytes that are no UTF-8, of which the record takes none, are told by number."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _made_at(path: Path, register: str) -> datetime:
    """By the names of the file and of its texts; its own time orders those that tell nothing.

    What is no file is not opened: it has its turn by its name, else the first one, and is refused then.
    """
    try:
        with register_file(path, through_links=False) as file:
            return made_by_its_word(file, register)
    except (Refusal, OSError, MemoryError):
        return named_at(path) or datetime.max.replace(tzinfo=UTC)


def made_by_its_word(file: RegisterFile, register: str) -> datetime:
    """When this file was made, by the names of its texts, else by its own time."""
    return written_at(file, REGISTERS[register].roles) or modified_at(file)


def strangers(folder: Path) -> list[str]:
    """Files in the drop folder that no register takes for its own, by name: nobody will ever read them."""
    if not folder.is_dir():
        return []
    files = {path.name for path in folder.iterdir() if _is_file(path) and not path.name.startswith(".")}
    patterns = [pattern for several in PATTERNS.values() for pattern in several]
    known = {name for name in files if any(fnmatchcase(name, pattern) for pattern in patterns)}
    return sorted(_shown(name) for name in files if name not in known or _shown(name) != name)


def newest(folder: Path, register: str) -> Path | None:
    """The newest file of this register in `folder`, None when there is none."""
    return next(iter(candidates(folder, register)), None)

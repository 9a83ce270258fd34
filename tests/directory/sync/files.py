"""The samples of the registers, and lines and archives like them."""

import re
import zipfile
from collections.abc import Callable
from pathlib import Path

from directory.sync.runs.run import RunReport

VECTORS = Path(__file__).parent / "vectors"
ACTIVITIES = "PS_LibreAcces_Personne_activite_202608260200.txt"
KNOW_HOW = "PS_LibreAcces_SavoirFaire_202608260200.txt"
DIPLOMAS = "PS_LibreAcces_Dipl_AutExerc_202608260200.txt"
MAILBOXES = "Extraction_Correspondance_MSSante_202608260213.txt"
FINESS = "etalab-cs1100502-stock-20260512-0338.csv"
TRUSTED = "listeblanchemssante.xml"

Run = Callable[..., RunReport]
Rows = Callable[[str], list[tuple[object, ...]]]


def activity(**cells: str) -> str:
    """One line of Personne_activite: the sample's first person, but for the cells given by heading."""
    lines = (VECTORS / ACTIVITIES).read_text().splitlines()
    headings = lines[0].removesuffix("|").split("|")
    values = dict(zip(headings, lines[1].split("|"), strict=False)) | cells
    return "|".join(values[heading] for heading in headings) + "|\n"


def header() -> str:
    return (VECTORS / ACTIVITIES).read_text().splitlines(keepends=True)[0]


def someone(number: str, **cells: str) -> str:
    """A line of one more person with this RPPS number."""
    return activity(**{"Identifiant PP": number, "Identification nationale PP": f"8{number}"}, **cells)


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def restamped(archive: Path, stamp: str) -> Path:
    """The same archive as if made at another time: its own name and those of its texts say so."""
    again = archive.with_name(re.sub(r"20[0-9]{10}", stamp, archive.name))
    with zipfile.ZipFile(archive) as told:
        members = {re.sub(r"20[0-9]{10}", stamp, name): told.read(name) for name in told.namelist()}
    return zipped(again, members)

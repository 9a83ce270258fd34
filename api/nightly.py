"""The night's registers: the newest file of each kind in the drop folder, taken in once.

A file already applied (same SHA-256) is left alone, so the job may run any number of times.
"""

from pathlib import Path

from sqlalchemy import text

from api.wiring import Container
from directory.base.audit import Actor
from directory.base.db import transaction
from directory.base.errors import Kind, Refusal
from directory.sync.run import RunReport, run_register
from directory.sync.source import modified_at, sha256_of, stamp_of

# In this order: a mailbox is easier to place when its holder and its organisation are already known.
PATTERNS = {
    "rpps": (
        "PS_LibreAcces*.zip",
        "PS_LibreAcces_Personne_activite*.txt",
        "ps-libreacces-personne-activite*.txt",
    ),
    "finess": ("etalab-cs1100502*.csv", "etalab-cs1100507*.csv"),
    "trusted-domains": ("listeblanchemssante*.xml",),
    "mailboxes": ("Extraction_Correspondance_MSSante*.zip", "Extraction_Correspondance_MSSante*.txt"),
}
NIGHT = Actor("job:registers")


def newest(folder: Path, register: str) -> Path | None:
    """The newest file of this register in `folder`, None when there is none.

    By the generation time in its name, as the import itself judges; a copy made late is no newer for it.
    """
    found = (path for pattern in PATTERNS[register] for path in folder.glob(pattern) if path.is_file())
    return max(found, key=lambda path: (stamp_of(path) or modified_at(path), path.name), default=None)


def take_registers(container: Container) -> str:
    """Apply what is new; a refused file is reported after the others had their turn."""
    taken, refused = [], []
    for register in PATTERNS:
        try:
            report = _take(container, register)
        except Refusal as refusal:
            refused.append(f"{register}: {refusal.text}")
        else:
            taken += [] if report is None else [f"{register}: {report.counts}"]
    if refused:
        raise Refusal(Kind.UNACCEPTABLE, "register-refused", "; ".join(refused))
    return "; ".join(taken)


def _take(container: Container, register: str) -> RunReport | None:
    path = newest(container.settings.registers, register)
    if path is None or _applied(container, register, sha256_of(path)):
        return None
    report = run_register(
        container.engine,
        register=register,
        path=path,
        now=container.clock(),
        actor=NIGHT,
        apply=True,
        strict_rpps=container.settings.strict_rpps,
        bounds=container.bounds,
    )
    if report.state == "refused":
        raise Refusal(Kind.UNACCEPTABLE, report.reason, report.text)
    return report


def _applied(container: Container, register: str, digest: bytes) -> bool:
    with transaction(container.engine) as connection:
        found = connection.execute(
            text("SELECT 1 FROM register_run WHERE register = :r AND file_sha256 = :h AND state = 'applied'"),
            {"r": register, "h": digest},
        )
        return found.first() is not None

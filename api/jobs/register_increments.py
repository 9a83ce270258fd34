"""Between two nights: what changed since the last time, asked of the FHIR API and taken in like any file.

Off unless `sources_file` names the API. Changes asked and not applied are asked again; a register whose
increment waits for named persons waits, and keeps no other from its turn.
"""

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from api.jobs.registers import NightReport, run_file
from api.wiring import Container
from directory.base.db import transaction
from directory.base.errors import Kind, Refusal
from directory.base.locks import try_lock
from directory.sync.formats.fhir import INCREMENTS
from directory.sync.runs import increment_cursor as cursor
from directory.sync.sources.fhir_client import Api, Client
from directory.sync.sources.fhir_increment import gather
from directory.sync.sources.origins import load_api


def take_increments(container: Container) -> str:
    """Bring the registers in step with the API; '' when it is not configured or nothing changed."""
    path = container.settings.sources_file
    configuration = load_api(Path(path), tuple(INCREMENTS)) if path else None
    if configuration is None:
        return ""
    api, registers = configuration
    told = NightReport()
    with try_lock(container.engine, f"fetch:{cursor.SOURCE}") as free:
        if free:
            _take(container, api, registers, told)
    return told.end()


def _take(container: Container, api: Api, registers: Iterable[str], told: NightReport) -> None:
    # Whole seconds: the API knows no others.
    until = container.clock().replace(microsecond=0)
    _tidy(container)
    known = _known(container, registers, until, told)
    if not known:
        return
    since = min(known.values()) - cursor.OVERLAP

    def practitioners_of(roles: Iterable[str]) -> dict[str, str]:
        with transaction(container.engine) as connection:
            return cursor.practitioners_of(connection, roles)

    path = gather(
        Client(api), _folder(container), since=since, until=until, practitioners_of=practitioners_of
    )
    for register in known:
        with told.apart(register):
            if path is not None:
                told.take(run_file(container, register, path))
                continue
            with transaction(container.engine) as connection:
                cursor.move(connection, register, until=until, now=until)
    _tidy(container)


def _known(
    container: Container, registers: Iterable[str], until: datetime, told: NightReport
) -> dict[str, datetime]:
    """Up to when each register is known that may be brought further now."""
    instants = {}
    with transaction(container.engine) as connection:
        for register in registers:
            known = cursor.known_until(connection, register)
            waits = cursor.open_run(connection, register)
            if known is None or waits is not None:
                continue
            if until - known > cursor.WINDOW - cursor.OVERLAP:
                text = f"What is known ends on {known:%Y-%m-%d}: a whole file must come first."
                told.refuse(register, Refusal(Kind.UNACCEPTABLE, "increment-too-old", text))
                continue
            instants[register] = known
    return instants


def _folder(container: Container) -> Path:
    return container.settings.kept_files / "increments"


def _tidy(container: Container) -> None:
    """Remove the files that no run will read again."""
    with transaction(container.engine) as connection:
        used = cursor.files_in_use(connection)
    for path in _folder(container).glob("*.ndjson"):
        if str(path.absolute()) not in used:
            path.unlink(missing_ok=True)

"""How an installation is, part by part: for `sceau status`. Looks and asks; changes nothing.

A part is `ok` when it answers for what it is there for, not when its process merely exists.
"""

import platform
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any

from sqlalchemy.exc import OperationalError

from api.database_timeout import impatient
from api.embedded.slapd import Slapd
from api.front.unnamed import last_unnamed
from api.installation.bring_up import ldap_readers_of, local_web, postgres_of, slapd_of
from api.installation.supervisor import parts_written, supervisor_pid, troubles_written
from api.ldap import gate as ldap_gate
from api.settings import DATABASE_PARTS, Settings
from api.wiring import Container, build
from directory.base import job_runs
from directory.base.beats import WORKER, last_beat
from directory.base.db import server_version, transaction
from directory.base.errors import Kind, Refusal
from directory.base.unix_sockets import POSTGRES_SOCKET
from directory.sync.runs.history import Condition, conditions
from directory.sync.sources.drop_folder import strangers
from pki.monitoring import service_expiry
from pki.monitoring.metrics import figures
from pki.rollback.detection import WHAT_TO_DO

# Seconds for each answer of the database: one that hangs is a part that is down.
PATIENCE = 30.0


def at_rest(settings: Settings) -> bool:
    """Whether what `sceau up` started here was stopped: none holds the folder, no PostgreSQL listens."""
    if settings.is_elsewhere or not (settings.state / "settings.toml").exists():
        return False
    listens = (postgres_of(settings).socket_folder / POSTGRES_SOCKET).exists()
    return not listens and supervisor_pid(settings.state) is None


def look(settings: Settings) -> dict[str, Any]:
    """Addresses, parts with their state, files of no register, versions, last sync, feed lag and jobs.

    `state` is `degraded` when some parts are ok, `down` when none is. It is `ok` when all parts are and none
    hangs again and again, and the record is complete. The clock must agree with the database's, no register
    be late and nothing of ours about to run out. No administrator must have frozen it.
    """
    if not (settings.is_elsewhere or (settings.state / "settings.toml").exists()):
        text = f"Nothing was ever started in {settings.state}: `sceau up`, or say where with --state."
        raise Refusal(Kind.NOT_FOUND, "never-started", text)
    container = build(settings)
    impatient(container.engine, PATIENCE)
    processes = parts_written(settings.state)
    checks: dict[str, Callable[[], str]] = {
        "postgres": lambda: _postgres(container),
        "signer": lambda: _signer(container),
        "ldap": lambda: _ldap(slapd_of(settings)),
        **_readers(settings),
        "web": lambda: _web(settings),
        "worker": lambda: _worker(container),
    }
    parts = {name: _part(check, processes.get(name)) for name, check in checks.items()}
    counted = _counted(container, up=parts["postgres"]["state"] == "ok")
    late = any(register["late"] for register in counted["registers"].values())
    due = any(lifetime["state"] == "due" for lifetime in counted["lifetimes"].values())
    behind = bool(counted["record"].get("lacks"))
    uneven = bool(counted["clock"].get("reason"))
    troubles = troubles_written(settings.state)
    stopped = counted["powers"].get("state") in {"frozen", "refused"}
    wrong = late or due or behind or uneven or stopped or troubles
    well = all(part["state"] == "ok" for part in parts.values()) and not wrong
    return {
        "state": "ok" if well else "degraded" if any(p["state"] == "ok" for p in parts.values()) else "down",
        "web": local_web(settings),
        "ldap": _open_ldap(settings),
        "ldaps": f"ldaps://{settings.host}:{settings.ldaps_port}",
        "suffix": settings.suffix,
        "folder": str(settings.state),
        "supervisor": supervisor_pid(settings.state),
        "parts": parts,
        "troubles": troubles,
        "strangers": strangers(settings.registers),
        "as_owner": as_owner(settings),
        "unnamed_proxy": last_unnamed(settings.state),
        "versions": {
            "sceau": version("sceau"),
            "python": platform.python_version(),
            "granian": version("granian"),
            **{
                name: parts[name]["detail"] for name in ("postgres", "signer") if parts[name]["state"] == "ok"
            },
        },
        **counted,
    }


def as_owner(settings: Settings) -> list[str]:
    """The parts that connect to a record elsewhere as its owner, for want of a login of their own."""
    if not settings.is_elsewhere:
        return []
    return [part for part in DATABASE_PARTS if not settings.url_of(part)]


def _part(check: Callable[[], str], process: Mapping[str, Any] | None) -> dict[str, Any]:
    known = {} if process is None else {"pid": process["pid"], "restarts": process["restarts"]}
    try:
        return {"state": "ok", "detail": check(), **known}
    except (Refusal, OperationalError, OSError, urllib.error.URLError) as error:
        reason = error.text if isinstance(error, Refusal) else str(error).split("\n", 1)[0]
        return {"state": "down", "reason": reason, **known}


def _postgres(container: Container) -> str:
    if wrong := container.writing.wrong():
        raise OSError(wrong)
    with transaction(container.engine) as connection:
        return f"PostgreSQL {server_version(connection)}"


def _signer(container: Container) -> str:
    return str(container.signer.ping())


def _open_ldap(settings: Settings) -> str:
    return f"ldap://{settings.host}:{settings.ldap_port}" if settings.ldap_open else "closed (`ldap_open`)"


def _readers(settings: Settings) -> dict[str, Callable[[], str]]:
    """The parts that answer LDAP's readers; where LDAP is elsewhere, none of them is here."""
    if settings.ldap_url:
        return {}
    slapds = ldap_readers_of(settings)
    readers = {name: lambda slapd=slapd: _ldap(slapd) for name, slapd in slapds.items()}
    return {"ldap-gate": lambda: _gate(settings), **readers}


def _gate(settings: Settings) -> str:
    if not ldap_gate.answers(settings.ldap_gate):
        raise OSError("nobody tells slapd which tokens may search")
    return "answers on its socket"


def _ldap(slapd: Slapd) -> str:
    if not slapd.answers():
        raise OSError("slapd does not answer on its socket")
    return "answers on its socket"


def _web(settings: Settings) -> str:
    started = time.monotonic()
    with urllib.request.urlopen(f"{local_web(settings)}/healthz", timeout=5) as reply:  # noqa: S310 - always http
        reply.read()
    return f"answered in {(time.monotonic() - started) * 1000:.0f} ms"


def _worker(container: Container) -> str:
    with transaction(container.engine) as connection:
        last = last_beat(connection, WORKER)
    if last is None or last.is_lost:
        raise OSError("no heartbeat" if last is None else f"last heartbeat {last.age:.0f} s ago")
    if last.wrong:
        raise OSError(last.wrong)
    return f"heartbeat {last.age:.1f} s ago"


def _counted(container: Container, *, up: bool) -> dict[str, Any]:
    if not up:
        return {
            "record": {},
            "clock": {},
            "powers": {},
            "last_sync": {},
            "registers": {},
            "feed": {},
            "jobs": {},
            "lifetimes": {},
        }
    now = container.clock()
    with transaction(container.engine, read_only=True) as connection:
        counted = figures(connection, now)
        registers = conditions(connection, now, container.settings.freshness)
        own = service_expiry.ours(connection, now)
        failing = job_runs.failing(connection)
    lacks = container.watch.look()
    told = {"state": "behind", "reason": WHAT_TO_DO, "lacks": lacks} if lacks else {"state": "complete"}
    return {
        "record": told,
        "clock": _clock(container),
        "powers": _powers(container),
        "last_sync": dict(counted.registers),
        "registers": {condition.register: _register(condition) for condition in registers},
        "lifetimes": {
            lifetime.label: {"ends": lifetime.ends, "state": lifetime.condition(now).value}
            for lifetime in own
        },
        "feed": dict(counted.feed_lag),
        "jobs": {
            name: {"last_success": job.last_success, "last_error": failing.get(name)}
            for name, job in counted.jobs.items()
        },
        "certificates": dict(counted.certificates),
        "revocations": dict(counted.revocations),
    }


def _clock(container: Container) -> dict[str, Any]:
    """The difference of this host's clock from the database's, and why nothing is signed here, if so."""
    told = {"difference_seconds": container.signing.difference().total_seconds()}
    reason = container.signing.wrong()
    return told | ({"reason": reason} if reason else {})


def _powers(container: Container) -> dict[str, Any]:
    """Whether persons' acts are asked for here, and what stands against giving trust, if anything does."""
    try:
        if (followed := container.powers) is None:
            return {"state": "none", "reason": "no anchors: two tokens suffice"}
        powers, forceless = followed.current(), followed.without_force()
    except Refusal as refusal:
        return {"state": "refused", "reason": refusal.text}
    told = {"administrators": len(powers.administrators()), "without_force": len(forceless)}
    if powers.frozen:
        return {"state": "frozen", "reason": "nothing gives trust until two administrators lift it", **told}
    return {"state": "ok", **told}


def _register(condition: Condition) -> dict[str, Any]:
    return {
        "generated_at": None if condition.last is None else condition.last.generated_at,
        "age_hours": None if condition.age is None else round(condition.age.total_seconds() / 3600, 1),
        "late": condition.late,
        "latest": None if condition.latest is None else condition.latest.state.value,
        "held": None if condition.held is None else condition.held.id,
    }

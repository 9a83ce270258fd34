"""`sceau up` and `sceau down`: a whole installation on one machine, started, kept alive, stopped."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import Any

import click
import orjson
import psutil

from api.cli.demonstration import demonstration
from api.cli.output import people, progress, refusals_told, state_option
from api.installation.bring_up import bring_up, settle, supervisor_of
from api.installation.supervisor import Supervisor, folder_held, supervisor_pid
from api.settings import Settings, load_settings
from api.wiring import Container
from directory.base.durable_files import close_to_others, write_atomically
from directory.base.errors import Kind, Refusal
from pki.model import CrlForm

# Each part is given its time to end, PostgreSQL a minute.
LONGEST_DOWN = 120


@click.command()
@click.option("--demo", is_flag=True, help="Fill it with invented registers, people and certificates.")
@click.option("--detach", is_flag=True, help="Return once everything serves; `sceau down` stops it.")
@click.option("--host", default=None, help="Address to listen on [127.0.0.1].")
@click.option("--port", type=click.IntRange(1, 65535), default=None, help="Port of the web part [8080].")
@click.option("--ldap-port", type=click.IntRange(1, 65535), default=None, help="Port of open LDAP [3389].")
@click.option(
    "--ldaps-port", type=click.IntRange(1, 65535), default=None, help="Port of LDAPS [LDAP port + 247]."
)
@click.option(
    "--signer-keys", default=None, metavar="URI", help="Token of the CA keys (docs/how-to/hsm.md) [file]."
)
@click.option(
    "--crl-form",
    type=click.Choice([form.value for form in CrlForm]),
    default=None,
    help="Form of the CRLs of CAs that are made now (docs/how-to/ceremony.md) [plain].",
)
@state_option
def up(demo: bool, detach: bool, state: Path | None, **given: Any) -> None:
    """Start PostgreSQL, the signer, slapd, web and worker on this machine, and keep them alive until Ctrl-C.

    \b
    Examples:
      sceau up --demo
      sceau up --demo --detach --state /srv/sceau --port 8081 --ldap-port 4389
    """
    with refusals_told():
        known = load_settings(state)
        if given["ldap_port"] is not None and given["ldaps_port"] is None:
            given["ldaps_port"] = min(given["ldap_port"] + 247, 65535)
        told = {name: value for name, value in given.items() if value is not None}
        if supervisor_pid(known.state) is not None:
            people.print(f"already up (state folder {known.state})", markup=False, soft_wrap=True)
            _refuse_change(known, told)
        elif detach:
            _detached(known.state, told, demo=demo)
        else:
            _in_foreground(known.state, told, demo=demo)
            return
        _say_where(load_settings(state))


@click.command()
@state_option
def down(state: Path | None) -> None:
    """Stop everything that `sceau up` started from this state folder; nothing acknowledged is lost."""
    with refusals_told():
        settings = load_settings(state)
        pid = supervisor_pid(settings.state)
        if pid is None:
            people.print(f"not up (state folder {settings.state})")
            return
        psutil.Process(pid).send_signal(signal.SIGTERM)
        deadline = time.monotonic() + LONGEST_DOWN
        while supervisor_pid(settings.state) is not None:
            if time.monotonic() > deadline:
                raise Refusal(
                    Kind.UNAVAILABLE,
                    "still-stopping",
                    f"process {pid} has not stopped after {LONGEST_DOWN} s.",
                )
            time.sleep(0.1)
        people.print("stopped")


def _refuse_change(known: Settings, told: Mapping[str, Any]) -> None:
    """A running part cannot move: say so instead of writing down addresses that nothing listens on."""
    changed = {name: value for name, value in told.items() if getattr(known, name) != value}
    if changed:
        words = ", ".join(f"{name} {value}" for name, value in changed.items())
        raise Refusal(
            Kind.CONFLICT, "already-up", f"It runs with other settings than {words}: `sceau down` first."
        )


def _in_foreground(state: Path, told: Mapping[str, Any], *, demo: bool) -> None:
    with folder_held(state) as mine:
        if not mine:
            raise Refusal(Kind.CONFLICT, "already-up", f"another `sceau up` holds {state}.")
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _stop_starting)
        outcome = state / "run" / "up.json"
        try:
            _run(state, told, outcome, demo=demo)
        except Refusal as refusal:
            write_atomically(
                outcome, orjson.dumps({"ready": False, "code": refusal.code, "text": refusal.text})
            )
            raise


def _run(state: Path, told: Mapping[str, Any], outcome: Path, *, demo: bool) -> None:
    """Start, load, watch, until asked to stop; every started part is stopped on the way out."""

    def report(line: str) -> None:
        people.print(line, soft_wrap=True, markup=False)

    # A part's files are for this account alone; files that an earlier release left open are closed.
    os.umask(0o077)
    close_to_others(state)
    settings = settle(state, {**demonstration().SETTINGS, **told} if demo else told, report)
    supervisor = supervisor_of(settings, report)
    try:
        container = bring_up(settings, supervisor, report)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, supervisor.ask_to_stop)
        if demo and not _load_watched(container, supervisor):
            return
        write_atomically(outcome, orjson.dumps({"ready": True}))
        _say_where(settings)
        supervisor.watch()
    finally:
        report("stopping")
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        supervisor.stop_all()


def _load_watched(container: Container, supervisor: Supervisor) -> bool:
    """Load the demo while the parts are looked after; False when asked to stop before it was done.

    The load is the thread and the watch stays here: a part started from a thread would die with that thread.
    """
    failed: list[Exception] = []

    def load() -> None:
        try:
            with progress() as show:
                demonstration().load(container, show)
            _prepare_commands(container)
        except Exception as error:  # noqa: BLE001 - told by the thread that waits for us
            failed.append(error)

    loading = threading.Thread(target=load, daemon=True)
    loading.start()
    if supervisor.watch(until=lambda: not loading.is_alive()):
        return False
    if failed:
        raise failed[0]
    return True


def _stop_starting(*_: object) -> None:
    raise SystemExit(130)


def _detached(state: Path, told: Mapping[str, Any], *, demo: bool) -> None:
    """Start the supervisor apart and wait for its word; its own output goes to a file."""
    outcome, log = state / "run" / "up.json", state / "log" / "supervisor.log"
    for folder in (outcome.parent, log.parent):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    outcome.unlink(missing_ok=True)
    command = [sys.executable, "-m", "api.cli.main", "up", "--state", str(state)]
    command += [word for name, value in told.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    with log.open("ab") as out:
        process = subprocess.Popen(  # noqa: S603 - ourselves
            [*command, "--demo"] if demo else command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    with people.status("starting (the first time takes a minute)"):
        while not outcome.exists():
            if process.poll() is not None:
                tail = log.read_text(errors="replace")[-800:]
                raise Refusal(
                    Kind.UNAVAILABLE,
                    "not-started",
                    f"it ended before it was ready. The end of {log}:\n{tail}",
                )
            time.sleep(0.1)
    told = orjson.loads(outcome.read_bytes())
    if not told["ready"]:
        raise Refusal(Kind.UNAVAILABLE, told["code"], told["text"])


def _prepare_commands(container: Container) -> None:
    """Keep the addresses that the commands to try are about, so that a later `up` says the same."""
    path = container.settings.state / "demo.json"
    if not path.exists():
        write_atomically(path, orjson.dumps({"addresses": demonstration().addresses_to_try(container)}))


def _say_where(settings: Settings) -> None:
    host = settings.host
    people.print(f"web    http://{host}:{settings.port}   (REST, OCSP, CRL; documentation at /docs)")
    secured = f"ldaps://{host}:{settings.ldaps_port}"
    people.print(f"LDAPS  {secured}   (bind with a token)   base {settings.suffix}")
    if settings.ldap_open:
        people.print(f"LDAP   ldap://{host}:{settings.ldap_port}   (exact addresses alone, no name)")
    people.print(f"state  {settings.state}", soft_wrap=True)
    path = settings.state / "demo.json"
    if not path.exists():
        return
    addresses = orjson.loads(path.read_bytes())["addresses"]
    people.print("\nTo try (each line can be pasted):")
    for line in commands_to_try(settings, addresses[0], addresses[-1]):
        people.print(f"  {line}", soft_wrap=True, markup=False)


def commands_to_try(settings: Settings, sender: str, recipient: str) -> list[str]:
    """Five commands of foreign tools and ours on the demo's own addresses, right on this machine."""
    sceau, state = quote(str(Path(sys.executable).with_name("sceau"))), quote(str(settings.state))
    web, ldap = f"http://{settings.host}:{settings.port}", f"ldap://{settings.host}:{settings.ldap_port}"
    attributes = "mail sn 'userCertificate;binary'"
    question = f"{web}/v1/recipients/{recipient}?sender={sender}"
    token = f'$(sed -n \'s/.*"operator": *"\\([^"]*\\)".*/\\1/p\' {state}/demo-credentials.json)'
    return [
        f"{sceau} status --state {state}",
        f"{sceau} check {recipient} --sender {sender} --state {state}",
        f"curl -s -w '\\n' -H \"Authorization: Bearer {token}\" '{question}'",
        f"ldapsearch -LLL -x -H {ldap} -b {settings.suffix} '(mail={recipient})' {attributes}",
        f"curl -s {web}/crl/persons-1/0.crl | openssl crl -inform DER -noout -text | head -12",
    ]

"""`sceau web`, `worker`, `signer`, `ldap-gate`: parts of an installation, each run apart in production."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import click

from api.cli.output import refusals_told, state_option
from api.installation.bring_up import serve_signer, web_command
from api.jobs.worker import CONNECTIONS, KEPT, run_worker
from api.ldap import gate as ldap_gate
from api.settings import child_environment, load_settings
from api.wiring import build, numbering
from directory.base.asked_to_stop import asked_to_stop

# A part's files are for its account alone, unless it says otherwise.
PRIVATE = 0o077


@click.command()
@state_option
def web(state: Path | None) -> None:
    """Serve REST, OCSP, CRL and CA files (Granian); any number of these may run."""
    with refusals_told():
        settings = load_settings(state)
    command = web_command(settings)
    os.umask(PRIVATE)
    sys.stdout.flush()
    os.execve(command[0], command, child_environment(settings, None, ("web",)))  # noqa: S606 - becomes the web server


@click.command()
@state_option
def worker(state: Path | None) -> None:
    """Run the jobs by the clock and follow the change feed; two may run, each job is done once."""
    with refusals_told():
        os.umask(PRIVATE)
        settings = load_settings(state)
        parts = build(settings, part="worker", application="sceau-worker", connections=CONNECTIONS, kept=KEPT)
        parts = replace(parts, numbering=numbering(settings))
    run_worker(parts)


@click.command()
@click.option(
    "--establish", is_flag=True, help="Make root and issuing CA when there are none (first runs and tests)."
)
@state_option
def signer(establish: bool, state: Path | None) -> None:
    """Hold the CA keys behind a Unix socket; the only process that ever sees them."""
    os.umask(PRIVATE)
    with refusals_told():
        serve_signer(load_settings(state), establish=establish)


@click.command("ldap-gate")
@state_option
def gate(state: Path | None) -> None:
    """Tell slapd which tokens may search LDAP, and count what they read; one beside each slapd that asks."""
    with refusals_told():
        settings = load_settings(state)
        os.umask(PRIVATE)
        parts = build(settings, part="gate", application="sceau-ldap-gate", connections=ldap_gate.THREADS)
    parts.readers.follow()
    wait = asked_to_stop()
    # Named by hand, it is for a slapd under an account of its own.
    ldap_gate.serve(ldap_gate.Gate(parts), settings.ldap_gate, 0o660 if settings.ldap_gate_socket else 0o600)
    wait()
    # A folder that is copied while all is stopped holds no socket.
    settings.ldap_gate.unlink(missing_ok=True)
    parts.readers.give_back()

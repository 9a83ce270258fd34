"""What a one-machine installation consists of, and the order in which it comes up: `sceau up`.

Record, keys, LDAP, then those who serve. Each step may be repeated: a first run cut short at any line is
taken up by the next. How processes are kept alive is for `api/installation/supervisor.py`.
"""

import os
import secrets
import signal
import sys
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from api.embedded.postgres import EmbeddedPostgres, password_of
from api.embedded.slapd import EmbeddedSlapd, Slapd
from api.embedded.slapd_readers import GuardedSlapd, OpenSlapd
from api.front.connections import MOST
from api.installation import ldaps_certificate, questions
from api.installation.ca_keys import ca_keys
from api.installation.schema import migrate
from api.installation.supervisor import Part, Supervisor, end_leftovers, refuse_taken_port
from api.ldap import gate as ldap_gate
from api.settings import (
    DATABASE_PARTS,
    Secret,
    Settings,
    child_environment,
    in_environment,
    load_settings,
    passphrase,
    save_settings,
    settings_with,
)
from api.wiring import Container, build, database_url
from directory.base.audit import Actor
from directory.base.db import connect_engine, transaction
from directory.base.errors import Kind, Refusal
from directory.base.instant import dated_by_database
from directory.base.rights import PREFIX, let_in
from directory.base.unix_sockets import make_folder, postgres_password
from pki.ceremony import perform
from pki.model import CrlForm
from pki.signing import process
from pki.signing.keys import Keys

Report = Callable[[str], None]
# PostgreSQL writes all that it holds when it ends; killed meanwhile, it has to recover.
CHECKPOINT_SECONDS = 60.0


def postgres_of(settings: Settings) -> EmbeddedPostgres:
    """The embedded cluster of this state folder."""
    return EmbeddedPostgres(settings.state / "postgres")


def slapd_of(settings: Settings) -> EmbeddedSlapd:
    """The embedded directory server of this state folder: it holds the tree, and answers the publisher."""
    return EmbeddedSlapd(settings.state / "ldap", suffix=settings.suffix, host=settings.host)


def guarded_slapd_of(settings: Settings) -> GuardedSlapd:
    """The server that answers from that tree whoever shows a token."""
    return GuardedSlapd(
        settings.state / "ldap-guarded",
        suffix=settings.suffix,
        host=settings.host,
        data=slapd_of(settings).data,
        gate=settings.ldap_gate,
        tls=ldaps_certificate.files(settings.state),
        port=settings.ldaps_port,
        clients=Path(authorities) if (authorities := settings.ldap_client_authorities) else None,
    )


def open_slapd_of(settings: Settings) -> OpenSlapd:
    """The server that answers anybody from that tree, by exact address; whether it runs is a setting."""
    return OpenSlapd(
        settings.state / "ldap-open",
        suffix=settings.suffix,
        host=settings.host,
        data=slapd_of(settings).data,
        port=settings.ldap_port,
    )


def ldap_readers_of(settings: Settings) -> dict[str, Slapd]:
    """The servers that answer from the tree, by the names of their parts."""
    readers: dict[str, Slapd] = {"ldap-guarded": guarded_slapd_of(settings)}
    return {**readers, "ldap-open": open_slapd_of(settings)} if settings.ldap_open else readers


def bring_up(settings: Settings, supervisor: Supervisor, report: Report) -> Container:
    """Start everything in order; return when all of it serves, refuse, saying why, when a part does not."""
    # 1. The record.
    make_secrets(settings, report)
    postgres = postgres_of(settings)
    postgres.make(settings.state)
    supervisor.start(
        # SIGINT is PostgreSQL's fast shutdown: SIGTERM would wait for the last client to leave.
        Part(
            "postgres",
            postgres.command,
            lambda: _is_ready(postgres),
            child_environment(settings, None, ()),
            signal.SIGINT,
            works=questions.postgres(postgres),
            silence=30,
            recovers=questions.recovering(postgres),
            ends_within=CHECKPOINT_SECONDS,
        )
    )
    migrate(database_url(settings))
    if not settings.is_elsewhere:
        let_parts_in(settings)
    report("record ready")
    # 2. The keys: nothing can be issued, and LDAPS cannot start, before the CA exists.
    container = build(settings, application="sceau-up")
    supervisor.start(
        Part(
            "signer",
            lambda: _sceau("signer", settings, "--establish"),
            lambda: _signer_answers(container),
            child_environment(settings, Secret.CA, ("signer", "")),
            works=questions.signer(settings.signer_socket),
            # It signs alone: a million entries of a CRL come before an answer.
            silence=60,
            stands_on="postgres",
        )
    )
    ldaps_certificate.ensure(container, Actor("command:up"))
    report("signer and CA ready")
    # 3. LDAP, from the data it had or empty; the worker brings it in step.
    _start_ldap(settings, supervisor)
    opened = f", LDAP on {settings.ldap_port}" if settings.ldap_open else ""
    report(f"LDAPS on port {settings.ldaps_port}{opened}")
    # 4. Those who serve.
    url = database_url(settings)
    supervisor.start(
        Part(
            "web",
            lambda: web_command(settings),
            lambda: questions.answering_process(local_web(settings)) is not None,
            child_environment(settings, Secret.WEB, ("web",)),
            works=questions.web(local_web(settings), settings.state),
            silence=30,
            # Chance says which of its processes answers: rarely asked, one that is well might seem to hang.
            asked_every=1.0,
        )
    )
    supervisor.start(
        Part(
            "worker",
            lambda: _sceau("worker", settings),
            questions.beats_since(url),
            child_environment(settings, Secret.WEB, ("worker", "log")),
            works=questions.worker(url),
            silence=20,
            stands_on="postgres",
        )
    )
    report(f"web on {settings.base_url}")
    return container


def _start_ldap(settings: Settings, supervisor: Supervisor) -> None:
    """Who holds the tree, who says which token may read it, then those who answer."""
    environment = child_environment(settings, None, ())
    slapd = slapd_of(settings)
    slapd.make()
    supervisor.start(Part("ldap", slapd.command, slapd.answers, environment, works=slapd.answers))

    def gate_answers() -> bool:
        return ldap_gate.answers(settings.ldap_gate)

    make_folder(settings.ldap_gate.parent, settings.state)
    supervisor.start(
        Part(
            "ldap-gate",
            lambda: _sceau("ldap-gate", settings),
            gate_answers,
            child_environment(settings, None, ("gate",)),
            works=gate_answers,
            stands_on="postgres",
        )
    )
    for name, reader in ldap_readers_of(settings).items():
        reader.make()
        # Who holds all connections of the open one is no fault of its own; he has lost them by then.
        silence = 90.0 if name == "ldap-open" else 15.0
        supervisor.start(
            Part(name, reader.command, reader.answers, environment, works=reader.answers, silence=silence)
        )


def settle(state: Path, given: Mapping[str, Any], report: Report) -> Settings:
    """The settings of this start: as kept, changed by what is given; kept only once they can be had.

    Ends what a killed run left, since that may hold the very addresses. The address in certificates follows
    the port until there is a CA, and stays from then on. Certificates are read long after a port has changed.
    """
    end_leftovers(state, report)
    wanted = settings_with(state, given)
    if not wanted.ca_keys.exists():
        given = {**given, "public_url": f"http://{wanted.host}:{wanted.port}"}
        wanted = settings_with(state, given)
    elif not wanted.base_url.endswith(f":{wanted.port}"):
        report(f"certificates already issued point to {wanted.base_url}, not to port {wanted.port}")
    listeners = [
        (wanted.port, "web", "--port"),
        (wanted.ldap_port, "LDAP", "--ldap-port"),
        (wanted.ldaps_port, "LDAPS", "--ldaps-port"),
    ]
    if len({port for port, _, _ in listeners}) < len(listeners):
        ports = ", ".join(f"{purpose} {port}" for port, purpose, _ in listeners)
        raise Refusal(Kind.MALFORMED, "one-port-twice", f"Each listener needs a port of its own: {ports}.")
    for port, purpose, option in listeners:
        if purpose == "LDAP" and not wanted.ldap_open:
            continue
        refuse_taken_port(wanted.host, port, purpose, option)
    save_settings(state, given)
    return load_settings(state)


def make_secrets(settings: Settings, report: Report) -> None:
    """Make the passphrases of a first run, each in a file of its own that only this account reads.

    A token's PIN cannot be made here: it was chosen with the token, and one made up would use up its tries.
    """
    files = {Secret.CA: settings.ca_passphrase, Secret.WEB: settings.web_passphrase}
    if settings.token is not None:
        del files[Secret.CA]
        passphrase(settings, Secret.CA)
    for secret, path in files.items():
        if not (path.exists() or in_environment(secret)):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_urlsafe(32))
            report(
                f"made a passphrase in {path}: fit for a trial; in production keep it off this machine's disk"
            )


def let_parts_in(settings: Settings) -> None:
    """Give each part a login of its own to the embedded record, with a password from a file of its own."""
    engine = connect_engine(database_url(settings), application="sceau-migrate")
    try:
        with transaction(engine) as connection:
            for part in DATABASE_PARTS:
                file = postgres_password(settings.state / "postgres", part)
                let_in(connection, part, password_of(file, PREFIX + part))
    finally:
        engine.dispose()


def serve_signer(settings: Settings, *, establish: bool) -> None:
    """Become the signer process: CA keys in, a Unix socket out, until SIGTERM."""
    process.serve(
        database_url=database_url(settings, "signer"),
        keys=ca_keys(settings),
        journal_folder=settings.ca_keys,
        socket_path=settings.signer_socket,
        establish=_ceremony_of(settings) if establish else None,
        kept=settings.kept,
        anchors=settings.anchors,
    )


def _ceremony_of(settings: Settings) -> Callable[[Engine, Keys, datetime], None]:
    """What makes the CAs of a first run: nobody but the ceremony makes any.

    By the owner's connection: the signer's own reads, and writes nothing.
    """

    def establish(_: Engine, keys: Keys, now: datetime) -> None:
        owner = dated_by_database(connect_engine(database_url(settings), application="sceau-ceremony"))
        try:
            perform.establish(
                owner, keys, base_url=settings.base_url, now=now, actor=Actor("signer:ceremony"),
                crl_form=CrlForm(settings.crl_form),
            )  # fmt: skip
        finally:
            owner.dispose()

    return establish


def web_command(settings: Settings) -> list[str]:
    """Granian in the foreground on the front of the web (`api/web.py`)."""
    return [
        sys.executable, "-m", "granian", "--interface", "rsgi", "--http", "1", "--no-ws",
        "--host", settings.host, "--port", str(settings.port),
        "--workers", str(settings.web_workers), "--backlog", "2048", "--backpressure", str(MOST),
        "--respawn-failed-workers", "--workers-kill-timeout", "3",
        "--no-access-log", "--log-level", "warning", "api.web:application",
    ]  # fmt: skip


def _sceau(subject: str, settings: Settings, *options: str) -> list[str]:
    return [sys.executable, "-m", "api.cli.main", subject, "--state", str(settings.state), *options]


def supervisor_of(settings: Settings, report: Report) -> Supervisor:
    """A supervisor for this state folder, its parts told where the state is."""
    return Supervisor(settings.state, report)


def _is_ready(postgres: EmbeddedPostgres) -> bool:
    try:
        postgres.wait_ready(0)
    except Refusal:
        return False
    return True


def _signer_answers(container: Container) -> bool:
    try:
        container.signer.ping()
    except Refusal:
        return False
    return True


def local_web(settings: Settings) -> str:
    """Where this machine reaches the web part, also when it listens on every address."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)  # noqa: S104 - compared, not bound
    return f"http://{host}:{settings.port}"

"""LDAP from here: joins the directory's publisher, what the PKI has to show, and the embedded slapd.

`directory/ldap` never learns what a certificate is; it is handed bytes.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from signal import SIGTERM
from subprocess import SubprocessError

from api.installation.bring_up import ldap_readers_of, slapd_of
from api.installation.supervisor import parts_written, paused_marker
from api.wiring import Container
from directory.base.audit import Actor
from directory.base.db import transaction
from directory.base.errors import Kind, Refusal
from directory.feed import readers as feed
from directory.ldap import rebuild as whole
from directory.ldap import reconcile as nightly
from directory.ldap.client import ClientTls, LdapClient
from directory.ldap.entry import AuthorityEntry, CrlEntry
from directory.ldap.publish import CONSUMER, Publisher
from pki.publication import store as published
from pki.withdrawal.reconcile import CONSUMER as CONSEQUENCES

log = logging.getLogger("sceau.ldap")
# Connections that write at once. slapd commits one write at a time; more of them only wait for each other.
CONNECTIONS = 4
# Entry by entry this takes minutes; loading a whole tree is ten times as fast, but needs slapd for itself.
FILLS = 50_000
# Urgent changes: the last of so many would stand for over a minute.
FLOODS = 20_000
# By the oldest change that LDAP does not show. Nothing is written meanwhile, a strike-off by a registrar
# included, which is promised within a minute.
LOADED_WITHIN = 30
PUBLICATION, RECONCILIATION = Actor("job:ldap-publication"), Actor("job:ldap-reconciliation")


@lru_cache(maxsize=4)
def publisher_of(container: Container) -> Publisher:
    """The publisher of this process: it remembers between passes how far urgent changes were looked at."""
    settings = container.settings
    client = LdapClient(settings.ldap_url or slapd_of(settings).url, tls=_keys(Path(settings.ldap_keys)))
    publisher = Publisher(
        container.engine,
        client,
        settings.suffix,
        certificates_of=lambda link, addresses: published.live_certificates(
            link, addresses, container.clock()
        ),
        authorities_of=lambda link: [AuthorityEntry(*row) for row in published.authorities(link)],
        crls_of=lambda link, keys: [CrlEntry(*row) for row in published.crls_in_force(link, keys)],
        lanes=[client.another() for _ in range(CONNECTIONS - 1)],
        fills=None if settings.ldap_url else FILLS,
    )
    publisher.renews = not settings.ldap_url
    return publisher


def _keys(folder: Path) -> ClientTls | None:
    """What we know an `ldaps://` server by, and it us; None where the settings name no folder."""
    if folder == Path():
        return None
    return ClientTls(folder / "ca.pem", folder / "publisher.pem", folder / "publisher.key")


def publish(container: Container) -> str:
    """Bring LDAP in step with the feed, until nothing is waiting.

    A flood is written entry by entry where the tree cannot be loaded: late is better than not at all.
    """
    publisher, written = publisher_of(container), 0
    publisher.floods = None if container.settings.ldap_url else FLOODS
    while True:
        report = publisher.publish_once(container.clock())
        if report.whole:
            if report.flooded and _is_withdrawing(container):
                return ""
            try:
                return f"{rebuild(container, PUBLICATION, _getting_on(container)).entries} entries loaded"
            except (Refusal, OSError, SubprocessError) as error:
                if publisher.floods is None and not publisher.renews:
                    raise
                log.warning("LDAP cannot be loaded, changes are written entry by entry: %s", error)
                publisher.floods, publisher.renews = None, False
                continue
        written += report.written
        if not report.more:
            return f"{written} entries written" if written else ""


def _getting_on(container: Container) -> Callable[[int], None]:
    """Each page that went over is progress of the job: a whole tree takes minutes."""
    return lambda _: container.work.progressed()


def _is_withdrawing(container: Container) -> bool:
    """Whether trust is still to be withdrawn from those a flood tells of: revocation first, then the tree.

    Each withdrawal changes what is loaded, so that a tree loaded before them would be loaded again after.
    """
    with transaction(container.engine, read_only=True) as connection:
        waited = feed.lag_seconds(connection, CONSUMER, container.clock())
        return waited < LOADED_WITHIN and feed.is_urgent_waiting(connection, [CONSEQUENCES])


def reconcile(container: Container) -> str:
    """The nightly comparison, which repairs and stops before it deletes a large share."""
    report = compare(container, apply=True, progress=_getting_on(container))
    if report.empty:
        loaded = rebuild(container, RECONCILIATION, _getting_on(container))
        return f"{loaded.entries} entries loaded: most were missing"
    return "" if report.agrees else f"{report.repaired} repaired: {', '.join(report.examples)}"


def compare(
    container: Container,
    *,
    apply: bool,
    force: bool = False,
    quick: bool = False,
    progress: nightly.Progress = lambda _: None,
) -> nightly.ReconcileReport:
    """Compare every entry with the record: `apply` repairs, `force` lifts the brake, `quick` trusts marks."""
    return nightly.reconcile(
        publisher_of(container),
        now=container.clock(),
        apply=apply,
        force=force,
        quick=quick,
        progress=progress,
    )


def rebuild(
    container: Container, actor: Actor, progress: whole.Progress = lambda _: None
) -> whole.RebuildReport:
    """Make the tree anew beside the served one and put it in its place.

    Refusal UNACCEPTABLE `ldap-elsewhere` when the settings name a server that is not ours to stop.
    """
    if container.settings.ldap_url:
        text = (
            f"{container.settings.ldap_url} is not ours to rebuild: `sceau ldap reconcile --apply` fills it."
        )
        raise Refusal(Kind.UNACCEPTABLE, "ldap-elsewhere", text)
    slapd = slapd_of(container.settings)
    return whole.rebuild(
        publisher_of(container),
        now=container.clock(),
        actor=actor,
        load=slapd.load,
        swap=_swap(container),
        progress=progress,
    )


def _swap(container: Container) -> Callable[[], None]:
    settings = container.settings
    slapd, state = slapd_of(settings), settings.state
    slapds = {"ldap": slapd, **ldap_readers_of(settings)}

    def swap() -> None:
        # Who reads goes first: a reader left alone would answer from the old tree for ever.
        with ExitStack() as stopped:
            for name in reversed(slapds):
                stopped.enter_context(_stopped(state, name))
            slapd.swap()
        for name in slapds.keys() & parts_written(state).keys():
            slapds[name].wait_ready()

    return swap


@contextmanager
def _stopped(state: Path, name: str) -> Iterator[None]:
    """A slapd stopped, and not restarted by the supervisor until the block or this process ends."""
    marker = paused_marker(state, name)
    part = parts_written(state).get(name)
    marker.write_text(str(os.getpid()))
    try:
        if part is not None:
            _stop(int(part["pid"]))
        yield
    finally:
        marker.unlink(missing_ok=True)


def _stop(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, SIGTERM)
    deadline = time.monotonic() + 20
    while _runs(pid):
        if time.monotonic() > deadline:
            raise Refusal(
                Kind.UNAVAILABLE, "slapd-does-not-stop", f"slapd (process {pid}) did not stop within 20 s."
            )
        time.sleep(0.01)


def _runs(pid: int) -> bool:
    """Whether the process still holds anything; a zombie waiting for its parent holds nothing."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):  # The second: it ended between opening and reading.
        return False
    return state != "Z"

"""How fast LDAP answers, is rebuilt, follows the feed and is compared, beside slapd and ldap3 alone."""

import re
import resource
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import ldap3
from benches.country import people
from benches.harness import Bench, Figure, free_port, fresh_record
from sqlalchemy import Engine, text

from api.embedded.slapd import EmbeddedSlapd
from api.jobs.ldap import CONNECTIONS
from directory.base.audit import Actor
from directory.ldap.client import LdapClient
from directory.ldap.plan import Add, Delete, Modify, Operation
from directory.ldap.publish import Publisher
from directory.ldap.rebuild import ldif, rebuild
from directory.ldap.reconcile import reconcile
from pki.publication import store as published

# Seconds and MB, at the size of the country.
LONGEST_COMPARISON, MOST_MEMORY = 600, 300


def searches(bench: Bench, url: str, mails: list[str]) -> float:
    """Exact searches a second by two ldapsearch processes, each on one connection, over these addresses."""
    filters = bench.folder / "mails.txt"
    filters.write_text("\n".join(mails) + "\n")
    command = [
        "ldapsearch", "-LLL", "-x", "-H", url, "-b", bench.settings.suffix,
        "-f", str(filters), "(mail=%s)", "mail",
    ]  # fmt: skip
    started = time.monotonic()
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    found = []
    readers = [
        threading.Thread(target=lambda p=p: found.append(p.stdout.read().count("\nmail: "))) for p in running
    ]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    seconds = time.monotonic() - started
    if sum(found) < 2 * len(mails):
        raise SystemExit(f"{url}: {sum(found)} of {2 * len(mails)} searches found their entry")
    return 2 * len(mails) / seconds


def ldap_search(bench: Bench) -> Figure:
    """Exact searches a second in our slapd, beside a bare slapd with the same tree.

    Bare: without limits, access rules and replication.
    """
    dumped = bench.folder / "tree.ldif"
    ours_slapd = EmbeddedSlapd(bench.settings.state / "ldap", suffix=bench.settings.suffix)
    config = str(ours_slapd.folder / "config")
    slapcat = ["slapcat", "-o", "ldif-wrap=no", "-F", config, "-b", bench.settings.suffix]
    with dumped.open("w") as out:
        subprocess.run(slapcat, stdout=out, check=True)
    bare = EmbeddedSlapd(bench.folder / "bare", suffix=bench.settings.suffix, port=free_port(), bare=True)
    bare.make()
    with dumped.open("rb") as lines:
        bare.load(lines)
    bare.swap()
    mails = re.findall(r"^mail: (\S+)$", dumped.read_text(), re.MULTILINE)
    mails = (mails * (40_000 // len(mails) + 1))[:40_000]
    process = subprocess.Popen(bare.command())
    try:
        bare.wait_ready()
        url = f"ldap://{bench.settings.host}:{bench.settings.ldap_port}"
        pairs = [(searches(bench, url, mails), searches(bench, bare.public_urls[0], mails)) for _ in range(3)]
    finally:
        process.terminate()
        process.wait()
    ours, beside = max(a for a, _ in pairs), max(b for _, b in pairs)
    return Figure(
        "ldap_search",
        ours,
        "searches/s",
        {"bare slapd": beside},
        ours / beside,
        ">= 0.8 x bare",
        ours >= 0.8 * beside,
    )


class Noted(LdapClient):
    """A client that remembers what it was asked to write."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.done: list[Operation] = []

    def apply(self, operation: Operation) -> bool:
        """Carry it out and remember it."""
        self.done.append(operation)
        return super().apply(operation)


@dataclass
class Country:
    """A record of many people in a database of its own, a slapd for it, and the publisher between them."""

    engine: Engine
    slapd: EmbeddedSlapd
    publisher: Publisher
    lanes: list[Noted]
    process: subprocess.Popen[bytes] | None = field(default=None)

    def serve(self) -> None:
        """Put what was loaded in place and wait until it answers, as a rebuild does."""
        self.stop()
        self.slapd.swap()
        self.process = subprocess.Popen(self.slapd.command())
        self.slapd.wait_ready()

    def stop(self) -> None:
        """End the server, if it runs."""
        for lane in self.lanes:
            lane.close()
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
            self.process = None

    def load(self, tree: Path) -> None:
        """Serve the tree of this file."""
        with tree.open("rb") as lines:
            self.slapd.load(lines)
        self.serve()

    def rebuild(self) -> float:
        """Seconds from the rows to a server that answers from them."""
        started = time.monotonic()
        rebuild(
            self.publisher, now=datetime.now(UTC), actor=Actor("bench"), load=self.slapd.load, swap=self.serve
        )
        return time.monotonic() - started


@contextmanager
def country(bench: Bench, count: int) -> Iterator[Country]:
    """`count` people in the record, nothing in LDAP yet."""
    with fresh_record(bench) as engine:
        people(engine, count)
        slapd = EmbeddedSlapd(bench.folder / "country", suffix=bench.settings.suffix, port=free_port())
        slapd.make()
        lanes = [Noted(slapd.url) for _ in range(CONNECTIONS)]
        publisher = Publisher(
            engine, lanes[0], slapd.suffix, lanes=lanes[1:],
            certificates_of=lambda link, asked: published.live_certificates(link, asked, datetime.now(UTC)),
            authorities_of=lambda _: [], crls_of=lambda _, __: [],
        )  # fmt: skip
        made = Country(engine, slapd, publisher, lanes)
        try:
            yield made
        finally:
            made.stop()


def write_ldif(made: Country, file: Path) -> Path:
    """The tree of this record as a file."""
    with file.open("wb") as out:
        out.writelines(ldif(made.engine, made.publisher.record, datetime.now(UTC)))
    return file


def ldap_rebuild(bench: Bench) -> Figure:
    """Seconds from the rows of 50,000 certified mailboxes to LDAP serving them, beside `slapadd -q` alone.

    --size says how many mailboxes; a fifth as many establishments are among them. A thousand certificates
    serve all in turn.
    """
    count = bench.size or 50_000
    with country(bench, count) as made:
        ours = made.rebuild()
        made.stop()
        tree = write_ldif(made, bench.folder / "country.ldif")
        bare = EmbeddedSlapd(bench.folder / "bare-load", suffix=made.slapd.suffix, port=free_port())
        bare.make()
        started = time.monotonic()
        config = str(bare.folder / "config")
        subprocess.run(["slapadd", "-q", "-F", config, "-b", bare.suffix, "-l", str(tree)], check=True)
        beside = time.monotonic() - started
    return Figure(
        "ldap_rebuild", ours, f"s for {count} mailboxes", {"slapadd -q of the same LDIF, s": beside},
        beside / ours, "<= 2 x slapadd", ours <= 2 * beside,
    )  # fmt: skip


CHANGES = (
    """UPDATE practitioner SET given_name = given_name || ' Noël', title = 'PR'
       WHERE national_id IN (SELECT holder FROM mailbox ORDER BY md5(address) LIMIT :changed)""",
    """INSERT INTO mailbox (address, kind, holder, row_hash)
       SELECT 'second.' || address, 'PER', holder, '' FROM mailbox
       ORDER BY md5(address) DESC LIMIT :added""",
    """UPDATE mailbox SET departed_at = now() WHERE address IN (
           SELECT address FROM mailbox WHERE address NOT LIKE 'second.%'
           ORDER BY md5(address) DESC OFFSET :added LIMIT :removed)""",
)


def ldap_feed(bench: Bench) -> Figure:
    """Changes a second through the feed into LDAP, beside ldap3 alone on as many connections.

    3,000 modified, 1,000 added, 1,000 removed; ldap3 is told exactly what to write into the same tree. That
    has 50,000 mailboxes; --size says how many others.
    """
    with country(bench, bench.size or 50_000) as made:
        tree = write_ldif(made, bench.folder / "country.ldif")
        made.load(tree)
        with made.engine.begin() as connection:
            for statement in CHANGES:
                connection.execute(text(statement), {"changed": 3000, "added": 1000, "removed": 1000})
        started = time.monotonic()
        while made.publisher.publish_once(datetime.now(UTC)).changes:
            pass
        seconds = time.monotonic() - started
        # Without what the publisher notes in the topmost entry, which is work of its own.
        shares = [[one for one in lane.done if one.dn != made.slapd.suffix] for lane in made.lanes]
        written = [operation for share in shares for operation in share]
        made.load(tree)
        beside = bare_writes(made.slapd.url, shares)
    kinds = {kind.__name__: sum(isinstance(each, kind) for each in written) for kind in (Add, Modify, Delete)}
    ours, bare = len(written) / seconds, len(written) / beside
    return Figure(
        "ldap_feed", ours, f"changes/s ({kinds})", {f"ldap3 on {CONNECTIONS} connections": bare},
        ours / bare, ">= 0.7 x ldap3", ours >= 0.7 * bare,
    )  # fmt: skip


def bare_writes(url: str, shares: list[list[Operation]]) -> float:
    """Seconds that ldap3 takes for these writes, each share on a connection of its own."""

    def write(share: list[Operation]) -> None:
        with ldap3.Connection(
            ldap3.Server(url, get_info=ldap3.NONE), authentication=ldap3.SASL, sasl_mechanism=ldap3.EXTERNAL,
            sasl_credentials="", check_names=False,
        ) as link:  # fmt: skip
            for operation in share:
                match operation:
                    case Add(dn, attributes):
                        done = link.add(
                            dn, attributes={name: list(each) for name, each in attributes.items()}
                        )
                    case Delete(dn):
                        done = link.delete(dn)
                    case Modify(dn, changes):
                        done = link.modify(dn, {name: edits(*each) for name, each in changes.items()})
                if not done:
                    raise SystemExit(f"{operation.dn}: {link.result}")

    def edits(gone: tuple[bytes, ...], new: tuple[bytes, ...]) -> list[tuple[str, list[bytes]]]:
        both = ((ldap3.MODIFY_DELETE, gone), (ldap3.MODIFY_ADD, new))
        return [(act, list(values)) for act, values in both if values]

    started = time.monotonic()
    with ThreadPoolExecutor(len(shares)) as pool:
        for done in [pool.submit(write, share) for share in shares]:
            done.result()
    return time.monotonic() - started


def ldap_reconcile(bench: Bench) -> Figure:
    """Seconds to compare each of 50,000 mailboxes with LDAP, beside ldapsearch reading all of it.

    --size says how many mailboxes. Also: how long by digests alone, and the most memory we took.
    """
    count = bench.size or 50_000
    with country(bench, count) as made:
        made.rebuild()
        seconds = {}
        for name, quick in (("every value", False), ("by digest", True)):
            started = time.monotonic()
            report = reconcile(made.publisher, now=datetime.now(UTC), apply=False, quick=quick)
            seconds[name] = time.monotonic() - started
            if not report.agrees:
                raise SystemExit(f"{name}: {report}")
        started = time.monotonic()
        command = [
            "ldapsearch",
            "-LLL",
            "-Q",
            "-Y",
            "EXTERNAL",
            "-H",
            made.slapd.url,
            "-b",
            made.slapd.suffix,
        ]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        beside = time.monotonic() - started
    ours = seconds["every value"]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    more = {
        "ldapsearch of everything, s": beside,
        "by digest, s": seconds["by digest"],
        "memory, MB": memory,
    }
    target = f"<= {LONGEST_COMPARISON} s, <= {MOST_MEMORY} MB"
    return Figure(
        "ldap_reconcile", ours, f"s for {count} mailboxes", more, beside / ours, target,
        ours <= LONGEST_COMPARISON and memory <= MOST_MEMORY,
    )  # fmt: skip


FIGURES = {figure.__name__: figure for figure in (ldap_search, ldap_rebuild, ldap_feed, ldap_reconcile)}

"""How fast LDAP answers, beside a bare slapd."""

import re
import subprocess
import threading
import time

from benches.harness import Bench, Figure, free_port

from api.embedded.slapd import EmbeddedSlapd


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


FIGURES = {one.__name__: one for one in (ldap_search,)}

#!/usr/bin/env python3
"""Figures of this machine, each beside a peer or a bare engine of the same run: one JSON object per line.

    scripts/bench.py [--list] [--only NAME]... [--size N] [--seconds S]

Starts an installation of its own in a temporary folder, with the demo, and stops it. Needs `wrk` and
`ldapsearch`; OCSP's peers need `cfssl` (golang-cfssl), `ab` (apache2-utils) and PyPI. Ratios are
ours over beside's (rates) or beside's over ours (durations): above 1 is better than beside.
"""

import argparse
import shutil
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

from benches import (
    address_books,
    consequences,
    crl,
    directory,
    feed,
    issuance,
    keys,
    night,
    search,
    sources,
    status,
    storm,
    trust_list,
    verdict,
)
from benches.harness import Bench, Figure, installation

FIGURES: dict[str, Callable[[Bench], Figure]] = {
    **status.FIGURES, **verdict.FIGURES, **directory.FIGURES, **issuance.FIGURES, **keys.FIGURES,
    **consequences.FIGURES, **crl.FIGURES, **night.FIGURES, **feed.FIGURES, **sources.FIGURES,
    **search.FIGURES, **trust_list.FIGURES, **storm.FIGURES, **address_books.FIGURES,
}  # fmt: skip


def main() -> None:
    """Read the command line, bring an installation up, take the figures asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--list", action="store_true", help="name the figures and stop")
    parser.add_argument(
        "--only",
        action="append",
        choices=list(FIGURES),
        metavar="NAME",
        help="take only this one (repeatable)",
    )
    parser.add_argument(
        "--size", type=int, default=0, help="practitioners or certificates, where a figure depends on them"
    )
    parser.add_argument("--seconds", type=int, default=8, help="how long each rate is measured")
    given = parser.parse_args()
    if given.list:
        width = max(map(len, FIGURES))
        for name, figure in FIGURES.items():
            print(f"{name:{width}} {(figure.__doc__ or '').splitlines()[0]}")
        return
    for tool, package in (("wrk", "wrk"), ("ldapsearch", "ldap-utils")):
        if shutil.which(tool) is None:
            raise SystemExit(f"needs {tool}: apt-get install {package}")
    # Ended from outside, it takes its installation down all the same.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="sceau-bench-") as folder, installation(Path(folder)) as settings:
        scraps = Path(folder) / "scraps"
        scraps.mkdir()
        bench = Bench(settings, scraps, given.seconds, given.size)
        for name in given.only or FIGURES:
            FIGURES[name](bench).show()


if __name__ == "__main__":
    main()

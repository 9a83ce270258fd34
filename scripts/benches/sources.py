"""What reading the daily FINESS costs: it is one JSON object of 1.45 GB, and machines have less to spare."""

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benches.harness import ROOT, Bench, Figure

MOST_MEMORY_MB = 300
# Each an own process, so that its peak of memory is its own.
_STREAMED = """
import resource, sys, time
from pathlib import Path
from directory.sync.formats import finess, finess_json
from directory.sync.formats.files import opened, register_file

class Counted:
    lines = ignored = 0
    def stage(self, fields): self.lines += 1
    def reject(self, *_, **__): raise SystemExit("a row was rejected")

counted, began = Counted(), time.monotonic()
with register_file(Path(sys.argv[1])) as file, opened(file, finess.ROLES) as members:
    finess_json.read(members["structures"], counted)
print(time.monotonic() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, counted.lines)
"""
_WHOLE = """
import gzip, json, resource, sys, time
began = time.monotonic()
with gzip.open(sys.argv[1]) as file:
    found = json.load(file)
lines = sum(len(entity["ege"]) for entity in found["pmej"])
print(time.monotonic() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, lines)
"""


def finess_daily(bench: Bench) -> Figure:
    """Seconds to read the daily FINESS of 40,000 establishments, beside `json.load`; memory at most 300 MB.

    Their number is changed by --size.
    """
    path = bench.folder / "finess-structures-journalier-20260901.json.gz"
    _write(path, bench.size or 40_000)
    ours, memory, rows = _measured(_STREAMED, path)
    whole, whole_memory, whole_rows = _measured(_WHOLE, path)
    return Figure(
        name="finess_daily",
        value=round(ours, 1),
        unit="s",
        beside={
            "json.load, s": round(whole, 1),
            "memory, MB": round(memory),
            "json.load memory, MB": round(whole_memory),
            "establishments": rows,
        },
        ratio=round(ours / whole, 2),
        target=f"<= 2, in {MOST_MEMORY_MB} MB",
        ok=ours <= 2 * whole and memory <= MOST_MEMORY_MB and rows == whole_rows,
    )


def _measured(program: str, path: Path) -> tuple[float, float, float]:
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], check=True, capture_output=True, text=True, cwd=ROOT
    )
    seconds, megabytes, rows = map(float, done.stdout.split())
    return seconds, megabytes, rows


def _write(path: Path, count: int) -> None:
    """Establishments of some 7 kB each, five to a legal entity, as the real file has them on average."""
    with gzip.open(path, "wb", compresslevel=1) as text:
        text.write(b'{"schemaVersion":"v1.0.0","generatedAt":"2026-09-01T02:49:37.615611300Z","pmej":[')
        for first in range(0, count, 5):
            sites = [_site(number) for number in range(first, min(first + 5, count))]
            entity = {"ege": sites, "informationsGeneralesPMEJ": {"numFinessPm": "010000008"}}
            text.write((b",\n" if first else b"\n") + json.dumps(entity, indent=1).encode())
        text.write(b"]}\n")


def _site(number: int) -> dict[str, Any]:
    happened = {"evenementId": "140923", "dateEnregistrement": "2023-03-15 11:21:01", "systemeMaitre": "01",
                "dateEvenement": "1956-11-16", "etatObjet1": "003", "identifiantObjet1": "799",
                "typeObjet1": "EG", "codeEvenement": "003"}  # fmt: skip
    return {
        "informationsGeneralesEGE": {"numFinessEge": _finess(number), "nomEgeCourt": f"SITE FICTIF {number}"},
        "adresse": [{"cogCommune": "01053", "codePostal": "01000", "ligneAcheminement": "BOURG EN BRESSE"}],
        "evenement": [happened] * 18,
        "etatObjet": "A",
        "dateDerniereMaj": "2021-10-18 00:00:00",
    }


def _finess(number: int) -> str:
    """A number that passes Luhn."""
    body = f"01{number:06d}"
    doubled = sum(sum(divmod(int(digit) * (2 - place % 2), 10)) for place, digit in enumerate(reversed(body)))
    return f"{body}{-doubled % 10}"


FIGURES = {figure.__name__: figure for figure in (finess_daily,)}

#!/usr/bin/env python3
"""Give new decisions a number and a date, and write the index at the top of docs/decisions.md.

A new one is added at the end: `## What was decided`, below it `*subject*` (one of SUBJECTS), then why. Run
this, and commit the page. Numbers and dates are never changed: other documents and commits name them.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / "docs" / "decisions.md"
SUBJECTS = (
    "verdict", "registers", "people and places", "feed and exports", "LDAP", "privacy", "registration",
    "certificates", "CA keys", "CRL and OCSP", "revocation", "measures and withdrawal", "log, backup, clock",
    "trust list and notices", "quotas", "processes and faults", "the house",
)  # fmt: skip
OPENING = """\
# Decisions

Each entry says what was decided, why, and what would make us change it. New ones stand at the end;
`scripts/number_decisions.py` gives them a number and writes this index.

"""
_ENTRY = re.compile(r"^## (?:(\d+)\. )?(.+)\n(?:\*(?:(\d{4}-\d\d-\d\d) · )?([^*\n]+)\*\n)?", re.MULTILINE)


@dataclass(frozen=True)
class Decision:
    """One entry of the page."""

    number: int
    title: str
    date: str
    subject: str
    body: str

    @property
    def heading(self) -> str:
        """The words of the heading."""
        return f"{self.number}. {self.title}"

    def __str__(self) -> str:
        """Give the entry as it stands on the page."""
        return f"## {self.heading}\n*{self.date} · {self.subject}*\n\n{self.body.strip()}\n"


def anchor(heading: str) -> str:
    """The fragment that Git hosts give to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def decisions(page: str, today: str) -> list[Decision]:
    """Every entry; one without a number gets the next, and today's date."""
    found: list[Decision] = []
    marks = list(_ENTRY.finditer(page))
    for mark, after in zip(marks, [*(mark.start() for mark in marks[1:]), len(page)], strict=True):
        number, title, date, subject = mark.groups()
        if title == "Index":
            continue
        if subject not in SUBJECTS:
            raise SystemExit(f"{title}: below the heading stands *subject*, one of: {', '.join(SUBJECTS)}.")
        last = found[-1].number if found else 0
        found.append(
            Decision(int(number or last + 1), title, date or today, subject, page[mark.end() : after])
        )
    return found


def written(page: str, today: str) -> str:
    """The page with its numbers, dates and index."""
    entries = decisions(page, today)
    index = ["## Index\n"]
    for subject in SUBJECTS:
        index.append(f"\n**{subject[0].upper()}{subject[1:]}**\n\n")
        index.extend(
            f"- [{entry.number}](#{anchor(entry.heading)}) {entry.title}\n"
            for entry in entries
            if entry.subject == subject
        )
    return OPENING + "".join(index) + "\n" + "\n".join(map(str, entries))


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(), datetime.now(UTC).date().isoformat()))

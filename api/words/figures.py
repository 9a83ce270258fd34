"""How figures and ages read in French and in English; nothing of any subject."""

from dataclasses import dataclass
from datetime import timedelta

# French typography: no break before a sign, a narrow one within a number.
NARROW, FIRM = "\u202f", "\u00a0"


@dataclass(frozen=True)
class Said:
    """The same in French and in English."""

    fr: str
    en: str


def number(value: float) -> str:
    """1234567 as `1 234 567`, with the spaces of French typography."""
    return f"{value:,.0f}".replace(",", NARROW)


def age(time: timedelta) -> Said:
    """How long ago, or in how long: a register may bear a day to come."""
    said = _span(abs(time))
    if time < -timedelta(minutes=1):
        return Said(f"dans {said.fr}", f"in {said.en}")
    return Said(f"il y a {said.fr}", f"{said.en} ago")


def _span(time: timedelta) -> Said:
    """In minutes below an hour, in hours below three days, then in days."""
    minutes, hours = time // timedelta(minutes=1), time // timedelta(hours=1)
    if hours < 1:
        return Said(f"{minutes}{FIRM}min", f"{minutes} min")
    if hours < 72:  # noqa: PLR2004 - a limit is told in hours, and 48 of them must not read as "2 days"
        return Said(f"{hours}{FIRM}h", f"{hours} h")
    return Said(f"{number(time.days)}{FIRM}jours", f"{time.days:,} days")

"""The last runs of a register as a chart: geometry only, drawn by `templates/register_chart.svg`.

Five bands under one another, one column for each run, oldest first; columns are one unit wide, bands twenty
high. The drawing is stretched to the width of the page, so it holds no text: words stand beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from api.scale import drawn_highest
from directory.sync.runs.history import Run, RunState

BAND = 20
# Room above the highest bar, so that bands do not touch.
_HIGHEST = 17
_FEWEST_COLUMNS = 30
DRAWN = ("created", "changed", "removed", "rejected")
# A height for each, so that they differ without their colours.
_MARKS = {RunState.REFUSED: 17, RunState.HELD: 11, RunState.INTERRUPTED: 5}


@dataclass(frozen=True)
class Band:
    """One row of bars: what it counts, the highest and the newest value, and the outline of all its bars.

    `cut` when some bars were too high to be drawn to scale: they fill the band.
    """

    name: str
    highest: int
    newest: int
    cut: bool
    path: str


@dataclass(frozen=True)
class Chart:
    """What there is to draw: `columns` wide; `marks` are outlines by state, `runs` each with its column."""

    columns: int
    bands: tuple[Band, ...]
    marks: tuple[tuple[RunState, str], ...]
    runs: tuple[tuple[int, Run], ...]

    @property
    def height(self) -> int:
        """Of the bands, the marks' own first."""
        return BAND * (len(self.bands) + 1)

    @property
    def feet(self) -> Sequence[int]:
        """The lines on which the bands stand."""
        return range(BAND, self.height + 1, BAND)


def chart(newest_first: Sequence[Run]) -> Chart:
    """The chart of these runs; the newest stands at the right edge, however few there are.

    Bars are those of applied runs: of others nothing came into the record.
    """
    runs = tuple(reversed(newest_first))
    columns = max(_FEWEST_COLUMNS, len(runs))
    placed = tuple(enumerate(runs, columns - len(runs)))
    marks = tuple((state, _outline(_marks(placed, state), BAND)) for state in _MARKS)
    return Chart(columns, tuple(_band(name, n, placed) for n, name in enumerate(DRAWN, 2)), marks, placed)


def _marks(placed: Sequence[tuple[int, Run]], state: RunState) -> list[tuple[int, float]]:
    return [(column, _MARKS[state]) for column, run in placed if run.state is state]


def _band(name: str, number: int, placed: Sequence[tuple[int, Run]]) -> Band:
    values = [(column, run.counts.get(name, 0)) for column, run in placed if run.state is RunState.APPLIED]
    highest = max((value for _, value in values), default=0)
    top = drawn_highest([value for _, value in values])
    bars = [(column, _HIGHEST * value / top if value <= top else BAND) for column, value in values if value]
    return Band(name, highest, values[-1][1] if values else 0, highest > top, _outline(bars, number * BAND))


def _outline(bars: Sequence[tuple[int, float]], foot: int) -> str:
    """One path for all bars that stand on the same line: 90 of them weigh less than two kilobytes."""
    return "".join(f"M{column + 0.1:g} {foot}v-{height:.1f}h.8V{foot}z" for column, height in bars)

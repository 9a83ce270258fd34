"""How `sceau sync` shows what the nights did: rows for people, plain values for programs."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from api.cli.output import excerpt
from api.scale import drawn_highest
from directory.sync.runs.history import Run, RunInFull, RunState

_BESIDE = 50
_HEIGHTS = "▁▂▃▄▅▆▇█"
_MARKS = {RunState.REFUSED: "✕", RunState.HELD: "◆", RunState.INTERRUPTED: "~", RunState.RUNNING: "…"}
_MOVING = ("created", "changed", "removed")


def sparkline(oldest_first: Sequence[Run]) -> str:
    """A character for each run: a bar as high as it changed much, `·` for nothing, a mark if not applied."""
    values = [_changed(run) for run in oldest_first if run.state is RunState.APPLIED]
    top = drawn_highest(values)
    return "".join(_MARKS.get(run.state) or _bar(_changed(run), top) for run in oldest_first)


def run_told(run: Run) -> dict[str, Any]:
    """The run, for programs."""
    took = None if run.duration is None else run.duration.total_seconds()
    return {**vars(run), "sha256": run.sha256.hex(), "state": run.state.value, "seconds": took}


def run_in_full_told(full_run: RunInFull) -> dict[str, Any]:
    """The run with all that is known of it, for programs."""
    return {
        **run_told(full_run.run),
        "before": None if full_run.before is None else run_told(full_run.before),
        "steps": [vars(step) for step in full_run.steps],
        "approvals": [vars(approval) for approval in full_run.approvals],
        "rejections": [
            {
                "reason": reason,
                "count": number,
                "samples": [vars(rejection) for rejection in full_run.samples.get(reason, ())],
            }
            for reason, number in full_run.rejections.items()
        ],
    }


def finding_told(sentence: str, needed: int) -> str:
    """A finding's sentence, and by how many persons it must be let through, if by any."""
    return f"{sentence} (needs {needed})" if needed else sentence


def run_in_full_rows(full_run: RunInFull) -> Iterator[tuple[Any, ...]]:
    """The same for people: what, how much, and how much in the run applied before."""
    run, before = full_run.run, full_run.before
    yield ("run", run.id, "" if before is None else before.id)
    yield ("register", run.register)
    yield ("file", run.file_name, "" if before is None else before.file_name)
    yield ("of", _minute(run.generated_at), "" if before is None else _minute(before.generated_at))
    yield ("state", run.state.value if run.reason is None else f"{run.state.value}: {run.reason}")
    for name, number in run.counts.items():
        yield (name, f"{number:,}", f"{before.counts[name]:,}" if before and name in before.counts else "")
    for finding in run.findings:
        yield (finding["name"], finding_told(finding["sentence"], finding["needed"]))
    if run.state is RunState.HELD:
        agreed = sum(approval.counts for approval in full_run.approvals)
        yield ("approvals", f"{agreed} of {run.approvals_needed}")
    for said in full_run.approvals:
        yield ("approved", f"{said.name}, {_minute(said.at)}: {said.comment}")
    for step in full_run.steps:
        took = None if step.finished_at is None else (step.finished_at - step.started_at).total_seconds()
        yield (f"step {step.step}", "not ended" if took is None else f"{took:.1f} s")
    for reason, number in full_run.rejections.items():
        yield (f"rejected {reason}", f"{number:,}")
        for line in full_run.samples.get(reason, ()):
            # The columns of names and of the run before stand beside it.
            yield (f"  line {line.line_number}", excerpt(f"{line.detail}: {line.excerpt}", _BESIDE))


def _minute(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M}Z"


def _changed(run: Run) -> int:
    return sum(run.counts.get(name, 0) for name in _MOVING)


def _bar(value: int, top: float) -> str:
    if value == 0:
        return "·"
    return _HEIGHTS[min(len(_HEIGHTS) - 1, int(len(_HEIGHTS) * value / top))]

"""What Prometheus is told of each register: its age and alarm, its last run, and what waits for a person."""

from collections.abc import Iterator, Sequence

from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from directory.sync.runs.history import Condition, Run, RunState


def register_families(conditions: Sequence[Condition]) -> Iterator[Metric]:
    """The gauges of these registers; those of its last run are absent where there was none."""
    ages = {
        condition.register: condition.age.total_seconds()
        for condition in conditions
        if condition.age is not None
    }
    yield _by_register("sceau_register_age_seconds", "Age of what each register was last read from.", ages)
    yield _by_register(
        "sceau_register_late", "1 when the register is older than its limit.",
        {condition.register: float(condition.late) for condition in conditions},
    )  # fmt: skip
    yield _by_register(
        "sceau_register_held", "1 when a run of the register waits for named persons.",
        {condition.register: float(condition.held is not None) for condition in conditions},
    )  # fmt: skip
    took = {register: latest.duration for register, latest in _latest(conditions)}
    yield _by_register(
        "sceau_register_run_duration_seconds", "How long the last run took that ended.",
        {register: time.total_seconds() for register, time in took.items() if time is not None},
    )  # fmt: skip
    yield _states(conditions)
    yield _rows(conditions)


def _by_register(name: str, text: str, values: dict[str, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=["register"])
    for register, value in values.items():
        family.add_metric([register], value)
    return family


def _states(conditions: Sequence[Condition]) -> Metric:
    """One of the states is 1, so that an alarm may name the one it waits for."""
    text = "State of each register's last run: 1 for the one it is in."
    family = GaugeMetricFamily("sceau_register_run_state", text, labels=["register", "state"])
    for register, latest in _latest(conditions):
        for state in RunState:
            if state is not RunState.PLANNED:
                family.add_metric([register, state.value], float(latest.state is state))
    return family


def _rows(conditions: Sequence[Condition]) -> Metric:
    text = "Counts of each register's last run, as docs/reference/registers.md explains them."
    family = GaugeMetricFamily("sceau_register_run_counted", text, labels=["register", "what"])
    for register, latest in _latest(conditions):
        for name, number in latest.counts.items():
            family.add_metric([register, name], number)
    return family


def _latest(conditions: Sequence[Condition]) -> Iterator[tuple[str, Run]]:
    return (
        (condition.register, condition.latest) for condition in conditions if condition.latest is not None
    )

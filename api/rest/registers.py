"""Registers and their nights: how fresh each is, what every run did, the word of who lets a held one go on.

Figures are for every role; the content of a rejected line, names included, is for auditors and
administrators.
"""

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from marshmallow import fields, validate

from api.http import paging
from api.http.operation import Opens, Resource, Transacted, operation, resource
from api.http.schemas import LARGEST_ID, Hexadecimal, Instant, Line, Pattern, Shape
from api.wiring import Container
from api.words.registers import ROW_REASON_WORDS, finding_in_french
from directory.access import Role, actor_of
from directory.base.comments import LONGEST_SENTENCE
from directory.store import REGISTERS
from directory.sync.runs import approvals, history
from directory.sync.runs.history import Condition, Run, RunInFull, RunState, Step

MAY_READ = {Role.OPERATOR, Role.REGISTRAR, Role.AUDITOR, Role.ADMIN}
MAY_READ_LINES = {Role.AUDITOR, Role.ADMIN}
_CURSOR = re.compile(r"([0-9]{1,9}):([a-z0-9-]{1,60})")
_CURSOR_ERROR = "What `next` gave is expected."
NUMBERED = {
    "run_id": {
        "schema": {"type": "integer", "minimum": 1, "maximum": LARGEST_ID},
        "description": "Numéro du passage — Number of the run",
        "example": 41,
    }
}


class RunAnswer(Shape):
    """One file of one register, and what came of it."""

    id = fields.Integer(required=True, metadata={"example": 41})
    register = fields.String(required=True, metadata={"example": "rpps"})
    file_name = fields.String(required=True, metadata={"example": "PS_LibreAcces_202609010112.zip"})
    sha256 = Hexadecimal(required=True)
    layout = fields.String(required=True, allow_none=True)
    generated_at = Instant(
        required=True, metadata={"description": "Date du fichier — When the file was generated"}
    )
    started_at = Instant(required=True)
    finished_at = Instant(required=True, allow_none=True)
    seconds = fields.Float(
        required=True, allow_none=True, metadata={"description": "Durée — How long it took"}
    )
    state = fields.Enum(RunState, by_value=True, required=True)
    step = fields.String(
        required=True,
        allow_none=True,
        metadata={"description": "Étape atteinte — Step reached", "example": "diff"},
    )
    reason = fields.String(
        required=True, allow_none=True, metadata={"description": "Motif du refus — Why it was refused"}
    )
    counts = fields.Dict(
        keys=fields.String(),
        values=fields.Integer(),
        required=True,
        metadata={"description": "lines = accepted + rejected + unchanged"},
    )
    approvals_needed = fields.Integer(
        required=True,
        metadata={"description": "Personnes dont il faut l'accord — Persons who must agree", "example": 0},
    )


class RegisterAnswer(Shape):
    """How one register is now."""

    register = fields.String(required=True, metadata={"example": "rpps"})
    generated_at = Instant(required=True, allow_none=True)
    age_seconds = fields.Float(required=True, allow_none=True)
    limit_seconds = fields.Float(
        required=True,
        metadata={"description": "Au-delà, il est en retard — Beyond, it is late"},
    )
    late = fields.Boolean(required=True)
    last = fields.Nested(
        RunAnswer,
        required=True,
        allow_none=True,
        metadata={"description": "Dernier passage appliqué — Last applied run"},
    )
    latest = fields.Nested(
        RunAnswer,
        required=True,
        allow_none=True,
        metadata={"description": "Dernier passage, quelle qu'en soit l'issue — Last run of any outcome"},
    )
    in_hand = fields.Nested(
        RunAnswer, required=True, allow_none=True, metadata={"description": "En cours — At work"}
    )
    held = fields.Nested(
        RunAnswer,
        required=True,
        allow_none=True,
        metadata={"description": "Retenu, attend des personnes — Held, waits for persons"},
    )


class RegistersAnswer(Shape):
    """All registers, at one instant."""

    items = fields.List(fields.Nested(RegisterAnswer), required=True)
    at = Instant(required=True)


class RunsQuery(paging.NumberedQuery):
    """Which runs; all when nothing is said."""

    register = fields.String(validate=validate.OneOf(REGISTERS))
    state = fields.Enum(RunState, by_value=True)


class RunsAnswer(Shape):
    """A page of runs, newest first; `next` is null on the last page, and only there."""

    items = fields.List(fields.Nested(RunAnswer), required=True)
    next = fields.Integer(required=True, allow_none=True)


class StepAnswer(Shape):
    """One step of a run."""

    step = fields.String(required=True, metadata={"example": "parse"})
    started_at = Instant(required=True)
    finished_at = Instant(required=True, allow_none=True)
    seconds = fields.Float(required=True, allow_none=True)
    detail = fields.Dict(keys=fields.String(), required=True)


class FindingAnswer(Shape):
    """A bound that the run went beyond; one that needs nobody tells what was odd about the file."""

    name = fields.String(required=True, metadata={"example": "too-many-removals"})
    value = fields.Float(
        required=True,
        metadata={"description": "Part ou nombre trouvé — Share or number found", "example": 0.012},
    )
    bound = fields.Float(required=True, metadata={"example": 0.005})
    needed = fields.Integer(required=True, metadata={"example": 1})
    sentence = fields.String(required=True)
    french = fields.String(required=True)


class ApprovedAnswer(Shape):
    """Who let the run go on, as the audit log says it, and the name of that token."""

    actor = fields.String(required=True, metadata={"example": "token:12"})
    name = fields.String(required=True)
    comment = fields.String(required=True)
    at = Instant(required=True)
    counts = fields.Boolean(
        required=True,
        metadata={"description": "Faux si le jeton est révoqué depuis — False once the token is revoked"},
    )


class RejectedAnswer(Shape):
    """One line that could not be taken; `excerpt` is its beginning."""

    line_number = fields.Integer(required=True, metadata={"example": 1207})
    reason = fields.String(required=True, metadata={"example": "rpps-check-digit"})
    detail = fields.String(required=True)
    excerpt = fields.String(required=True)


class RejectedByReason(Shape):
    """How many lines were rejected for one reason; some of them, for those who may see lines."""

    reason = fields.String(required=True, metadata={"example": "rpps-check-digit"})
    count = fields.Integer(required=True, metadata={"example": 3})
    samples = fields.List(
        fields.Nested(RejectedAnswer),
        required=True,
        allow_none=True,
        metadata={"description": "Null hors auditeur et administrateur — Null but for auditor and admin"},
    )


class RunInFullAnswer(RunAnswer):
    """A run with all that is known of it; `before` is the run applied before, whose counts it may be held
    against.
    """

    measures = fields.Dict(keys=fields.String(), values=fields.Float(), required=True)
    before = fields.Nested(RunAnswer, required=True, allow_none=True)
    steps = fields.List(fields.Nested(StepAnswer), required=True)
    findings = fields.List(fields.Nested(FindingAnswer), required=True)
    approvals = fields.List(fields.Nested(ApprovedAnswer), required=True)
    rejections = fields.List(fields.Nested(RejectedByReason), required=True)


# Those of SavoirFaire say so.
_REASONS = sorted({*ROW_REASON_WORDS, *(f"know-how-{reason}" for reason in ROW_REASON_WORDS)})


class RejectionsQuery(paging.PageQuery):
    """Which rejected lines of the run."""

    reason = fields.String(validate=validate.OneOf(_REASONS))
    after = fields.String(
        validate=Pattern(_CURSOR.pattern, error=_CURSOR_ERROR),
        metadata=paging.AFTER,
    )


class RejectionsAnswer(Shape):
    """A page of rejected lines, in the order of the file; `next` is null on the last page, and only there."""

    items = fields.List(fields.Nested(RejectedAnswer), required=True)
    next = fields.String(required=True, allow_none=True)


class ApprovalRequest(Shape):
    """What was looked at before letting the run go on."""

    comment = Line(
        LONGEST_SENTENCE,
        required=True,
        metadata={"example": "Départs vus avec l'Ordre : fusion de deux fichiers"},
    )


class ApprovalAnswer(Shape):
    """How many have agreed, and how many must; once enough have, the worker takes the run up again."""

    run = fields.Integer(required=True)
    approvals = fields.Integer(required=True, metadata={"example": 1})
    needed = fields.Integer(required=True, metadata={"example": 2})


@operation(
    "GET",
    "/v1/registers",
    roles=MAY_READ,
    opens=Opens.SNAPSHOT,
    while_behind=True,
    french="""Fraîcheur des registres.

    Pour chaque registre national : le dernier fichier appliqué et son âge, s'il est en retard, le passage en
    cours et celui qui attend une décision.
    """,
    answer=RegistersAnswer,
)
def registers_now(call: Transacted) -> dict[str, Any]:
    """Freshness of the registers.

    For each national register: the file applied last, its age and whether it is late. Also the run at work
    and the one that waits for a decision.
    """
    conditions = history.conditions(call.connection, call.now, call.container.settings.freshness)
    return {"items": [_condition(condition) for condition in conditions], "at": call.now}


@operation(
    "GET",
    "/v1/registers/runs",
    roles=MAY_READ,
    opens=Opens.SNAPSHOT,
    while_behind=True,
    french="""Passages des registres.

    Les fichiers reçus et ce qui en est advenu, le plus récent d'abord.
    """,
    answer=RunsAnswer,
    query=RunsQuery,
)
def register_runs(call: Transacted, asked: dict[str, Any]) -> dict[str, Any]:
    """Runs of the registers.

    The files that came and what became of them, newest first.
    """
    limit: int = asked["limit"]
    runs = history.runs(
        call.connection,
        register=asked.get("register"),
        states=[asked["state"]] if "state" in asked else None,
        after=asked.get("after"),
        limit=limit + 1,
    )
    page, last = paging.cut(runs, limit)
    return {"items": [_run(run) for run in page], "next": None if last is None else last.id}


@operation(
    "GET",
    "/v1/registers/runs/<int:run_id>",
    roles=MAY_READ,
    opens=Opens.SNAPSHOT,
    while_behind=True,
    french="""Un passage.

    Ses comptes et ceux du passage appliqué avant lui, ses étapes et leur durée. Aussi les seuils dépassés,
    qui a donné son accord, et les lignes rejetées par motif, avec des exemples pour les rôles autorisés.
    """,
    answer=RunInFullAnswer,
    problems=("unknown-run",),
    parameters=NUMBERED,
)
def register_run(call: Transacted, run_id: int) -> dict[str, Any]:
    """One run.

    Its counts and those of the run applied before, its steps and their duration. Also the bounds it went
    beyond, who agreed, and the rejected lines by reason, with samples for roles that may see them.
    """
    return _in_full(history.run(call.connection, run_id, samples=call.token.role in MAY_READ_LINES))


@operation(
    "GET",
    "/v1/registers/runs/<int:run_id>/rejections",
    roles=MAY_READ_LINES,
    opens=Opens.SNAPSHOT,
    while_behind=True,
    french="""Lignes rejetées d'un passage.

    Chacune avec son numéro, son motif et son début, dans l'ordre du fichier.
    """,
    answer=RejectionsAnswer,
    query=RejectionsQuery,
    problems=("unknown-run",),
    parameters=NUMBERED,
)
def register_rejections(call: Transacted, asked: dict[str, Any], run_id: int) -> dict[str, Any]:
    """Rejected lines of a run.

    Each with its number, its reason and its beginning, in the order of the file.
    """
    limit: int = asked["limit"]
    cursor = _CURSOR.fullmatch(asked.get("after", ""))
    rejections = history.rejections(
        call.connection,
        run_id,
        reason=asked.get("reason"),
        after=(int(cursor[1]), cursor[2]) if cursor else (0, ""),
        limit=limit + 1,
    )
    page, last = paging.cut(rejections, limit)
    return {"items": page, "next": None if last is None else f"{last.line_number}:{last.reason}"}


@operation(
    "POST",
    "/v1/registers/runs/<int:run_id>/approvals",
    roles={Role.ADMIN},
    opens=Opens.WRITE,
    while_behind=True,
    french="""Laisser passer un passage retenu.

    Le porteur du jeton est la personne nommée ; le commentaire dit ce qu'elle a vérifié. Il faut une ou deux
    personnes, selon le seuil dépassé ; le passage reprend ensuite de lui-même.
    """,
    answer=ApprovalAnswer,
    status=201,
    body=ApprovalRequest,
    problems=("unknown-run", "run-not-held", "run-already-approved"),
    parameters=NUMBERED,
    idempotent=True,
)
def approve_run(call: Transacted, asked: dict[str, Any], run_id: int) -> dict[str, Any]:
    """Let a held run go on.

    The token's holder is the named person; the comment says what was looked at. One or two persons are
    needed, by the bound that was passed; the run is then taken up again by itself.
    """
    given = approvals.approve(
        call.connection, now=call.now, token=call.token, run_id=run_id, comment=asked["comment"]
    )
    return {"run": given.run_id, "approvals": given.approvals, "needed": given.needed}


def registers(container: Container) -> Resource:
    """The resource, served on `container`."""
    text = "Registres nationaux et leurs nuits — National registers and their nights"
    served = (registers_now, register_runs, register_run, register_rejections, approve_run)
    return resource("registers", text, container, *served)


def _condition(condition: Condition) -> dict[str, Any]:
    return {
        "register": condition.register,
        "generated_at": None if condition.last is None else condition.last.generated_at,
        "age_seconds": _seconds(condition.age),
        "limit_seconds": _seconds(condition.limit),
        "late": condition.late,
        **{name: _run_or_none(getattr(condition, name)) for name in ("last", "latest", "in_hand", "held")},
    }


def _run_or_none(run: Run | None) -> dict[str, Any] | None:
    return None if run is None else _run(run)


def _run(run: Run) -> dict[str, Any]:
    return {**vars(run), "seconds": _seconds(run.duration)}


def _in_full(full_run: RunInFull) -> dict[str, Any]:
    return {
        **_run(full_run.run),
        "before": _run_or_none(full_run.before),
        "steps": [_step(step) for step in full_run.steps],
        "findings": [_finding(full_run.run.register, finding) for finding in full_run.run.findings],
        "approvals": [
            {**vars(approval), "actor": actor_of(approval.token_id).name} for approval in full_run.approvals
        ],
        "rejections": [
            {"reason": reason, "count": number, "samples": full_run.samples.get(reason)}
            for reason, number in full_run.rejections.items()
        ],
    }


def _step(step: Step) -> dict[str, Any]:
    took = None if step.finished_at is None else step.finished_at - step.started_at
    return {**vars(step), "seconds": _seconds(took)}


def _finding(register: str, finding: Mapping[str, Any]) -> dict[str, Any]:
    return {**finding, "french": finding_in_french(register, finding)}


def _seconds(time: timedelta | None) -> float | None:
    return None if time is None else time.total_seconds()

"""Puts the parts together from the settings, once, at the edge; everything behind receives what it needs.

`build()` is called where a process starts; tests make their own `Container`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.pool import NullPool

from api.concurrency import DOWNLOADS, DOWNLOADS_EACH, WAITING, WAITING_EACH, Bell, Seats
from api.process.readers import Readers
from api.process.work import Work
from api.process.writing import Writing
from api.settings import Settings, failpoint
from directory.base import commits, failpoints, instant
from directory.base.clock import Clock, utc_now
from directory.base.db import asking, connect_engine
from directory.base.unix_sockets import postgres_url
from directory.sync.runs.bounds import RegisterBounds, load_bounds
from pki.certificates.mailbox_profiles import purposes_asked
from pki.impediments.causes import WithdrawalCause
from pki.lint import pkix
from pki.model import MailKeys, Purpose
from pki.powers.anchors import load_anchors, required_anchors
from pki.powers.followed import Followed
from pki.powers.freeze import need_thawed
from pki.powers.state import Powers
from pki.rollback.detection import Watch
from pki.rollback.signing_clock import SigningClock
from pki.signing.client import SignerClient
from pki.signing.signer import Signer
from pki.verdict.memory import Memory


@dataclass(frozen=True)
class Container:
    """What views may use: settings, the record, the way to the signer, the clock, lints, who may stay."""

    settings: Settings
    engine: Engine
    signer: Signer
    clock: Clock
    opinion: pkix.SecondOpinion = pkix.findings
    bell: Bell = field(default_factory=Bell, compare=False)
    waiting: Seats = field(default_factory=lambda: Seats(WAITING, WAITING_EACH), compare=False)
    downloads: Seats = field(default_factory=lambda: Seats(DOWNLOADS, DOWNLOADS_EACH), compare=False)

    work: Work = field(default_factory=Work, compare=False)
    # For the count of what is read, by itself; without one, connections are opened as they are needed.
    counting: Engine | None = field(default=None, compare=False)
    # For who numbers the log, and nobody else may write into it; without one, as whoever acts.
    numbering: Engine | None = field(default=None, compare=False)

    @cached_property
    def watch(self) -> Watch:
        """Whether the record is all that was ever shown of it."""
        return Watch(self.engine, self.settings.kept)

    @cached_property
    def powers(self) -> Followed | None:
        """Who holds which power, followed from the anchors; None where the installation has none.

        Refuses `anchors-missing` where it had some, and what `Followed` refuses.
        """
        kept = self.settings.crl_floor.parent / "powers.json"
        load = required_anchors if kept.exists() else load_anchors
        anchors = load(self.settings.anchors)
        return None if anchors is None else Followed(self.engine, anchors, kept)

    def need_thawed(self) -> None:
        """Refuse `frozen` once an administrator has said so, for what gives trust; costs one statement."""
        if self.powers is not None:
            need_thawed(self.powers.current())

    @property
    def powers_followed(self) -> Powers | None:
        """Who held which power when the log was last followed, which is before an act begins (`need_thawed`).

        Within a transaction the log is not followed: each request would hold two connections.
        """
        return None if self.powers is None else self.powers.remembered()

    @cached_property
    def remembered(self) -> Memory:
        """What this process remembers of mailboxes."""
        return Memory(self.settings.verdict_memory << 20)

    @cached_property
    def signing(self) -> SigningClock:
        """The instants under which this process may sign; the last one lies beside the floor."""
        return SigningClock(self.engine, self.clock, self.settings.crl_floor.parent)

    @cached_property
    def readers(self) -> Readers:
        """What each reader has left of his quotas."""
        engine = (
            create_engine(self.engine.url, poolclass=NullPool) if self.counting is None else self.counting
        )
        return Readers(engine, self.settings.reading_quotas, self.clock)

    def present(self, connection: Connection | None = None) -> datetime:
        """What an act takes for now: the database's clock where it dates acts, else that of this machine."""
        if connection is not None:
            return instant.present(connection, self.clock())
        with asking(self.engine) as question:
            return instant.present(question, self.clock())

    @cached_property
    def writing(self) -> Writing:
        """Whether what is decided now could be written down."""
        url = self.engine.url.render_as_string(hide_password=False)
        return Writing(url, written_folders(self.settings))

    @property
    def verdict_lifetime(self) -> timedelta:
        """How long who asked may keep a verdict; shorter while nothing can be written, then a refusal."""
        return self.writing.needed(timedelta(minutes=self.settings.verdict_minutes))

    def purposes(self, asked: Purpose | None) -> frozenset[Purpose]:
        """What a new certificate serves where this purpose, or none, was asked for; refuses the unfitting."""
        return purposes_asked(MailKeys(self.settings.mail_keys), asked)

    @property
    def bounds(self) -> Mapping[str, RegisterBounds]:
        """How far each register may move in a night before somebody has to look; Refusal `bad-bounds`."""
        return _bounds(self.settings)

    @property
    def graces(self) -> Mapping[WithdrawalCause, timedelta]:
        """How long after each cause trust is withdrawn."""
        # A suspension has none: it holds at once, and revokes nothing.
        revoking = [cause for cause in WithdrawalCause if cause is not WithdrawalCause.SUSPENDED]
        return {WithdrawalCause.SUSPENDED: timedelta()} | {
            cause: timedelta(hours=getattr(self.settings, f"grace_{cause.name.lower()}_hours"))
            for cause in revoking
        }


def written_folders(settings: Settings) -> tuple[Path, ...]:
    """Where a CRL's floor, the log's heads, OCSP's keys, what parts run by and what they log come to lie."""
    kept = settings.kept
    run, log = settings.state / "run", settings.state / "log"
    return run, kept.floor.parent, kept.heads.parent, settings.web_keys, log


def database_url(settings: Settings, part: str = "") -> str:
    """The database the settings name, for its owner or for one part; the embedded one when they name none."""
    if settings.is_elsewhere:
        return settings.url_of(part) or settings.database_url
    return postgres_url(settings.state / "postgres", part)


def build(
    settings: Settings, *, part: str = "", application: str = "sceau-web", connections: int = 10,
    kept: int = 10,
) -> Container:  # fmt: skip
    """A container on the real clock, the real database and the signer's socket; opens no connection.

    `part` says with whose rights: those of a part, or the owner's, as commands of the host have.

    It never has more than `connections` to the record, where they are listed under `application`, and closes
    those beyond `kept` after use.
    """
    failpoints.arm(failpoint())
    commits.tell_at(settings.state / "run" / "commits")
    # Nonsense in the operator's own bounds refuses to start, instead of the first night.
    _bounds(settings)
    engine = instant.dated_by_database(
        connect_engine(database_url(settings, part), most=connections, kept=kept, application=application)
    )
    # Parameters are names, addresses, tokens' hashes: a traceback in the log must not become a reading
    # profile.
    engine.hide_parameters = True
    signer = SignerClient(settings.signer_socket)
    return Container(settings=settings, engine=engine, signer=signer, clock=utc_now)


def numbering(settings: Settings) -> Engine:
    """The way to the record of who numbers the log."""
    return instant.dated_by_database(
        connect_engine(database_url(settings, "log"), most=2, kept=1, application="sceau-log")
    )


def _bounds(settings: Settings) -> Mapping[str, RegisterBounds]:
    return load_bounds(Path(settings.bounds_file) if settings.bounds_file else None)

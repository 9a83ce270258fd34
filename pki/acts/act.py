"""An act: what one person declares, once, for one installation, as a text that says all of it.

An act that gives trust stands by its signature alone: no row says `approved`. Whether the person has the
power is for `powers`; how the text is signed, for `signature.py`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from hashlib import sha256
from typing import Any

from pki.acts.canonical import canonical, read_canonical

# An act is signed and handed in at one sitting, or carried over from a machine without a network.
LONGEST_LIFE = timedelta(days=1)
MOST_SUBJECTS = 1_000
_FIELDS = frozenset({"act", "at", "by", "credential", "expires", "installation", "nonce", "seen", "subjects"})
_INSTANT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
_DIGEST = re.compile(r"[0-9a-f]{64}")
# 128 bits from the machine's source of randomness, in base64url.
_NONCE = re.compile(r"[A-Za-z0-9_-]{21}[AQgw]")
INSTALLATION = re.compile(r"[0-9a-f]{32}")
PERSON = re.compile(r"person:[0-9a-f]{32}")
CREDENTIAL = re.compile(r"cred:[0-9a-f]{64}")
# A kind of thing, then its name among them: one line, without blanks.
_SUBJECT = re.compile(r"[a-z][a-z_]{0,30}:[!-~]{1,200}")


class ActKind(Enum):
    """What an act does; the words are signed and logged, so that one once used keeps its meaning for ever."""

    ENROLMENT_REQUEST = "enrolment.request"
    ENROLMENT_APPROVE = "enrolment.approve"
    ENROLMENT_CONFIRM = "enrolment.confirm"
    MEASURE_LIFT = "measure.lift"
    MEASURE_UNDO = "measure.undo"
    CERTIFICATE_RELEASE = "certificate.release"
    RUN_APPROVE = "run.approve"
    BULK_APPROVE = "bulk.approve"
    ROLE_GRANT = "role.grant"
    ROLE_END = "role.end"
    CREDENTIAL_ADD = "credential.add"
    CREDENTIAL_REVOKE = "credential.revoke"
    HOST_ENROL = "host.enrol"
    OPERATOR_SYSTEM_ENROL = "operator_system.enrol"
    FREEZE = "freeze"
    UNFREEZE = "unfreeze"
    MARK_RESET = "mark.reset"
    RESTORE_ACCEPT = "restore.accept"
    RECORD_SEAL = "record.seal"
    LOG_KEY_CHANGE = "log_key.change"
    ANCHORS_CHANGE = "anchors.change"


@dataclass(frozen=True)
class ListDigest:
    """Subjects that stand in a list beside the act: how many, and the digest of the list's canonical text."""

    number: int
    sha256: str

    def __post_init__(self) -> None:
        if self.number < 1 or not _DIGEST.fullmatch(self.sha256):
            raise ValueError("a list has subjects, and a SHA-256 in hexadecimal digits")

    @classmethod
    def of(cls, subjects: tuple[str, ...]) -> "ListDigest":
        """The digest of this list; ValueError for one that no act may name."""
        _check_subjects(subjects, most=len(subjects))
        return cls(len(subjects), sha256(canonical(list(subjects))).hexdigest())


@dataclass(frozen=True)
class Act:
    """One act; ValueError for what could mean two things.

    `at` and `expires` are whole seconds in UTC. `seen` is the SHA-256 of the canonical text of what the
    person was shown, in hexadecimal digits. `nonce` makes two acts that say the same two acts.
    """

    kind: ActKind
    installation: str
    by: str
    credential: str
    at: datetime
    expires: datetime
    nonce: str
    seen: str
    subjects: tuple[str, ...] | ListDigest

    def __post_init__(self) -> None:
        for value, form, what in (
            (self.installation, INSTALLATION, "an installation"), (self.by, PERSON, "a person"),
            (self.credential, CREDENTIAL, "a credential"), (self.nonce, _NONCE, "a nonce"),
            (self.seen, _DIGEST, "a digest"),
        ):  # fmt: skip
            if not form.fullmatch(value):
                raise ValueError(f"{value!r} is not {what}")
        _check_life(self.at, self.expires)
        if isinstance(self.subjects, tuple):
            _check_subjects(self.subjects, most=MOST_SUBJECTS)

    def text(self) -> bytes:
        """The canonical text: what is signed."""
        return canonical(
            {
                "act": self.kind.value, "at": _written(self.at), "by": self.by,
                "credential": self.credential, "expires": _written(self.expires),
                "installation": self.installation, "nonce": self.nonce, "seen": {"sha256": self.seen},
                "subjects": _subjects_written(self.subjects),
            }
        )  # fmt: skip

    @property
    def digest(self) -> bytes:
        """The SHA-256 of the text: the challenge of a passkey, and the name of the act in the log."""
        return sha256(self.text()).digest()


def read_act(text: bytes) -> Act:
    """The act whose text this is; ValueError for every other text."""
    told = read_canonical(text)
    if not isinstance(told, dict) or told.keys() != _FIELDS:
        raise ValueError(f"an act says {', '.join(sorted(_FIELDS))}, and nothing else")
    strings = {name: told[name] for name in _FIELDS - {"seen", "subjects"}}
    if not all(isinstance(value, str) for value in strings.values()):
        raise ValueError("every field of an act but `seen` and `subjects` is a text")
    return Act(
        ActKind(told["act"]), told["installation"], told["by"], told["credential"], _instant(told["at"]),
        _instant(told["expires"]), told["nonce"], _digest(told["seen"]), _subjects_read(told["subjects"]),
    )  # fmt: skip


def seen_digest(shown: Mapping[str, Any]) -> str:
    """What an act says of what its person was shown; ValueError where that has no canonical text."""
    return sha256(canonical(dict(shown))).hexdigest()


def _check_life(at: datetime, expires: datetime) -> None:
    for instant in (at, expires):
        if instant.tzinfo is None or instant.utcoffset() or instant.microsecond:
            raise ValueError("an act's instants are whole seconds in UTC")
    if not timedelta() < expires - at <= LONGEST_LIFE:
        raise ValueError("an act lives for a day at most")


def _check_subjects(subjects: tuple[str, ...], *, most: int) -> None:
    if not 0 < len(subjects) <= most:
        raise ValueError(f"an act has 1 to {most:,} subjects, or the digest of their list")
    if len(set(subjects)) < len(subjects) or not all(map(_SUBJECT.fullmatch, subjects)):
        raise ValueError("subjects are named once each, by kind and name")


def _subjects_written(subjects: tuple[str, ...] | ListDigest) -> Any:
    if isinstance(subjects, ListDigest):
        return {"number": subjects.number, "sha256": subjects.sha256}
    return list(subjects)


def _subjects_read(told: Any) -> tuple[str, ...] | ListDigest:
    match told:
        case list() if all(isinstance(subject, str) for subject in told):
            return tuple(told)
        case {"number": int(number), "sha256": str(digest)} if len(told) == 2 and number is not True:  # noqa: PLR2004
            return ListDigest(number, digest)
        case _:
            raise ValueError("subjects are texts, or number and SHA-256 of their list")


def _digest(told: Any) -> str:
    match told:
        case {"sha256": str(digest)} if len(told) == 1:
            return digest
        case _:
            raise ValueError("`seen` has a `sha256`, and nothing else")


def _written(instant: datetime) -> str:
    return instant.strftime("%Y-%m-%dT%H:%M:%SZ")


def _instant(told: str) -> datetime:
    if not _INSTANT.fullmatch(told):
        raise ValueError(f"{told!r} is no instant of an act")
    return datetime.strptime(told, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)

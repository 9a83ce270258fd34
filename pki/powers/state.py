"""Who holds which power, line by line of the log.

Whether a credential was valid is judged by the order of lines, not by a clock. What a line revoked signs
nothing in a later one, whatever it says of when it signed. A line without force changes nothing, and says
why.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any

from pki.acts.act import PERSON, Act, ActKind, seen_digest
from pki.acts.signature import BadSignatureError, PublicKey, credential_of, key_named, verified
from pki.powers.anchors import LEAST_ADMINISTRATORS, RECOVERY_AGREE, Anchors, pem_of, public_key
from pki.powers.needs import OF_POWERS, Needs, Role

# The name of a body goes into the log, and on to whoever reads it.
_AUTHORITY = re.compile(r"[ -~]{1,100}")
_ROLE_FIELDS = frozenset({"person", "role", "authority"})
# What is shown is logged as it is: public identifiers and keys, no word beside.
SHOWN: Mapping[ActKind, frozenset[str]] = MappingProxyType(
    {
        ActKind.ROLE_GRANT: _ROLE_FIELDS,
        ActKind.ROLE_END: _ROLE_FIELDS,
        ActKind.CREDENTIAL_ADD: frozenset({"person", "public_key"}),
        ActKind.CREDENTIAL_REVOKE: frozenset({"person", "credential"}),
        ActKind.FREEZE: frozenset({"installation"}),
        ActKind.UNFREEZE: frozenset({"installation"}),
        ActKind.RESTORE_ACCEPT: frozenset({"installation", "root", "size"}),
    }
)


class NoForceError(ValueError):
    """What was signed does not suffice; `code` says why, in a word that stays."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True)
class PowerLine:
    """A line of the log that tells of powers: what was signed, and what its signers were shown.

    `index` is its number; None while it waits for one.
    """

    at: datetime
    signed: tuple[bytes, ...]
    shown: Mapping[str, Any]
    index: int | None = None


@dataclass(frozen=True)
class Held:
    """A role of a person; `authority` is the body a registrar acts for, '' for every other role."""

    person: str
    role: Role
    authority: str = ""


@dataclass(frozen=True)
class Tenure:
    """From which line to which: None before the first line, by the anchors, and while nothing ended it."""

    since: PowerLine | None = None
    until: PowerLine | None = None


@dataclass(frozen=True)
class Credential:
    """Whose key this is, or was."""

    person: str
    key: PublicKey
    tenure: Tenure = Tenure()


@dataclass
class Powers:
    """The state, begun with the anchors; `follow` takes the lines in their order."""

    anchors: Anchors
    frozen: bool = False
    _credentials: dict[str, Credential] = field(default_factory=dict)
    _roles: dict[Held, tuple[Tenure, ...]] = field(default_factory=dict)
    # How many credentials each person has that were not revoked.
    _able: dict[str, int] = field(default_factory=dict)
    _used: set[str] = field(default_factory=set)
    _recovery: dict[str, PublicKey] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # A copy has some already, and of those some may have ended.
        if self._credentials:
            return
        for person, key in self.anchors.administrators.items():
            self._give(credential_of(key), Credential(person, key))
            self._roles[Held(person, Role.ADMINISTRATOR)] = (Tenure(),)
        self._recovery = {credential_of(key): key for key in self.anchors.recovery}

    def copy(self) -> "Powers":
        """The same, which goes on by itself."""
        return replace(
            self, _credentials=dict(self._credentials), _roles=dict(self._roles), _able=dict(self._able),
            _used=set(self._used),
        )  # fmt: skip

    def holds(self, person: str, role: Role, authority: str = "") -> bool:
        """Whether this person has this role now, and a credential to use it with."""
        tenures = self._roles.get(Held(person, role, authority), ())
        return bool(tenures) and tenures[-1].until is None and self._able.get(person, 0) > 0

    def administrators(self) -> frozenset[str]:
        """Those who can act."""
        return frozenset(held.person for held in self._roles if self._administers(held))

    def credentials(self) -> Mapping[str, Credential]:
        """Every credential that ever was somebody's, by name; recovery keys are nobody's."""
        return MappingProxyType(self._credentials)

    def roles(self) -> Mapping[Held, tuple[Tenure, ...]]:
        """Every role that ever was somebody's, with each time it was held."""
        return MappingProxyType(self._roles)

    def signer_of(self, signed: bytes, at: datetime) -> tuple[str, Act]:
        """The person and the act; NoForceError unless a credential in force signed it for here, once."""
        try:
            name = key_named(signed)
        except BadSignatureError as error:
            raise NoForceError("no-act", str(error)) from error
        person, key = self._in_force(name)
        try:
            act = verified(signed, key)
        except BadSignatureError as error:
            raise NoForceError("no-act", str(error)) from error
        self._check(act, person, at)
        return person, act

    def follow(self, line: PowerLine) -> ActKind:
        """Let this line take effect; NoForceError where it has none, and then nothing has changed."""
        acts = [self.signer_of(signed, line.at) for signed in line.signed]
        kind = self._agreed(acts, line.shown)
        self._take_effect(kind, line)
        self._used |= {act.nonce for _, act in acts}
        return kind

    def agreed(self, line: PowerLine) -> ActKind:
        """What those who signed agree on, and suffice for; NoForceError where they do not."""
        return self._agreed([self.signer_of(signed, line.at) for signed in line.signed], line.shown)

    def _in_force(self, name: str) -> tuple[str, PublicKey]:
        if (recovery := self._recovery.get(name)) is not None:
            return person_of(name), recovery
        known = self._credentials.get(name)
        if known is None:
            raise NoForceError("credential-unknown", f"No line before gave anybody {name}.")
        if known.tenure.until is not None:
            raise NoForceError("credential-revoked", f"{name} was revoked by an earlier line.")
        return known.person, known.key

    def _check(self, act: Act, person: str, at: datetime) -> None:
        if act.installation != self.anchors.installation:
            raise NoForceError("another-installation", "This act was signed for another installation.")
        if act.by != person:
            raise NoForceError("another-person", "This act names another person than its credential's.")
        if not act.at <= at < act.expires:
            raise NoForceError("expired", "The line stands outside the time that the act gives itself.")
        if act.nonce in self._used:
            raise NoForceError("used-before", "This act was used by an earlier line.")

    def _agreed(self, acts: Sequence[tuple[str, Act]], shown: Mapping[str, Any]) -> ActKind:
        if not acts:
            raise NoForceError("too-few-persons", "Nobody signed.")
        first = acts[0][1]
        said = {(act.kind, act.subjects, act.seen) for _, act in acts}
        if len(said) > 1:
            raise NoForceError("no-agreement", "Those who signed did not sign the same.")
        if len({act.nonce for _, act in acts}) < len(acts):
            raise NoForceError("used-before", "One act stands twice in the line.")
        needs = OF_POWERS.get(first.kind)
        if needs is None:
            raise NoForceError("no-power", f"{first.kind.value} changes no power.")
        if shown.keys() != SHOWN[first.kind]:
            wanted = ", ".join(sorted(SHOWN[first.kind]))
            raise NoForceError("bad-shown", f"{first.kind.value} shows {wanted}, and nothing else.")
        if first.seen != _digest(shown):
            raise NoForceError("shown-otherwise", "What stands in the line is not what was shown.")
        if first.subjects != (subject_of(first.kind, shown, self.anchors.installation),):
            raise NoForceError("another-subject", "The acts name something else than what was shown.")
        if "installation" in shown:
            _need_here(shown, self.anchors.installation)
        self._check_suffices(needs, acts, str(shown.get("person", "")))
        return first.kind

    def _check_suffices(self, needs: Needs, acts: Sequence[tuple[str, Act]], whose: str) -> None:
        # Two credentials of one person are one person.
        persons = {person for person, _ in acts}
        if needs.own_suffices and whose in persons:
            return
        of_role = {person for person in persons if self.holds(person, needs.role)}
        if len(of_role) >= needs.persons:
            return
        # Of one key any number of acts is one: whoever found it can sign twice.
        recovering = {act.credential for _, act in acts} & self._recovery.keys()
        if needs.recoverable and len(recovering) >= RECOVERY_AGREE:
            return
        text = f"It takes {needs.persons} with the role {needs.role.value}; {len(of_role)} signed."
        raise NoForceError("too-few-persons", text)

    def _take_effect(self, kind: ActKind, line: PowerLine) -> None:
        match kind:
            case ActKind.ROLE_GRANT:
                self._grant(_held(line.shown), line)
            case ActKind.ROLE_END:
                self._end(_held(line.shown), line)
            case ActKind.CREDENTIAL_ADD:
                self._add(_person(line.shown), line)
            case ActKind.CREDENTIAL_REVOKE:
                self._revoke(_person(line.shown), str(line.shown.get("credential")), line)
            case ActKind.FREEZE | ActKind.UNFREEZE:
                self.frozen = kind is ActKind.FREEZE
            case _:
                # Which log is gone on with is for whoever follows it.
                pass

    def _grant(self, given: Held, line: PowerLine) -> None:
        tenures = self._roles.get(given, ())
        if tenures and tenures[-1].until is None:
            raise NoForceError("held-already", "This person holds this role.")
        self._roles[given] = (*tenures, Tenure(line))

    def _end(self, ended: Held, line: PowerLine) -> None:
        *before, last = self._roles.get(ended, (Tenure(until=line),))
        if last.until is not None:
            raise NoForceError("not-held", "This person does not hold this role.")
        if ended.role is Role.ADMINISTRATOR:
            self._check_enough(self.administrators() - {ended.person})
        self._roles[ended] = (*before, replace(last, until=line))

    def _add(self, person: str, line: PowerLine) -> None:
        pem = line.shown.get("public_key")
        try:
            key = public_key(pem)
        except ValueError as error:
            raise NoForceError("bad-key", str(error)) from error
        if pem != pem_of(key):
            raise NoForceError("bad-key", "The key stands in PEM, and nothing beside it.")
        name = credential_of(key)
        if name in self._credentials or name in self._recovery:
            raise NoForceError("key-known", "This key is somebody's, or was.")
        self._give(name, Credential(person, key, Tenure(line)))

    def _give(self, name: str, credential: Credential) -> None:
        self._credentials[name] = credential
        self._able[credential.person] = self._able.get(credential.person, 0) + 1

    def _revoke(self, person: str, name: str, line: PowerLine) -> None:
        known = self._credentials.get(name)
        if known is None or known.person != person or known.tenure.until is not None:
            raise NoForceError("credential-unknown", "This person has no such credential.")
        if self._able[person] == 1:
            self._check_enough(self.administrators() - {person})
        self._credentials[name] = replace(known, tenure=replace(known.tenure, until=line))
        self._able[person] -= 1

    def _administers(self, held: Held) -> bool:
        return held.role is Role.ADMINISTRATOR and self.holds(held.person, held.role)

    def _check_enough(self, left: frozenset[str]) -> None:
        # A loss that leaves one administrator leaves the installation to him, or to nobody.
        if len(left) < LEAST_ADMINISTRATORS <= len(self.administrators()):
            raise NoForceError("too-few-administrators", "This would leave fewer than two administrators.")


def person_of(credential: str) -> str:
    """The person named by her first credential: what a recovery key acts as, and what `sceau` proposes."""
    return f"person:{credential.removeprefix('cred:')[:32]}"


def subject_of(kind: ActKind, shown: Mapping[str, Any], installation: str) -> str:
    """Whom or what an act on powers must name."""
    if "installation" in SHOWN[kind]:
        return f"installation:{installation}"
    return _person(shown)


def _need_here(shown: Mapping[str, Any], installation: str) -> None:
    if shown.get("installation") != installation:
        raise NoForceError("another-installation", "What was shown names another installation.")


def _digest(shown: Mapping[str, Any]) -> str:
    try:
        return seen_digest(shown)
    except ValueError as error:
        raise NoForceError("shown-otherwise", str(error)) from error


def _person(shown: Mapping[str, Any]) -> str:
    person = shown.get("person")
    if not isinstance(person, str) or not PERSON.fullmatch(person):
        raise NoForceError("bad-person", "What was shown names no person.")
    return person


def _held(shown: Mapping[str, Any]) -> Held:
    try:
        role = Role(shown.get("role"))
    except ValueError as error:
        raise NoForceError("bad-role", "What was shown names no role.") from error
    authority = shown.get("authority", "")
    fits = _AUTHORITY.fullmatch if role is Role.REGISTRAR else "".__eq__
    if not isinstance(authority, str) or not fits(authority):
        raise NoForceError("bad-role", "A registrar acts for one body, everybody else for none.")
    return Held(_person(shown), role, authority)

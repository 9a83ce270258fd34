"""Who holds which power, line by line of the log.

Whether a credential was valid is judged by the order of lines, not by a clock. What a line revoked signs
nothing in a later one, whatever it says of when it signed. A line without force changes nothing, and says
why.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pki.acts.act import PERSON, Act, ActKind, seen_digest
from pki.acts.signature import BadSignatureError, PublicKey, credential_of, key_named, verified
from pki.powers.anchors import LEAST_ADMINISTRATORS, RECOVERY_AGREE, Anchors, public_key
from pki.powers.needs import OF_POWERS, Needs, Role


class NoForceError(ValueError):
    """What was signed does not suffice; `code` says why, in a word that stays."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True)
class PowerLine:
    """A line of the log that tells of powers: what was signed, and what its signers were shown."""

    at: datetime
    signed: tuple[bytes, ...]
    shown: Mapping[str, Any]


@dataclass(frozen=True)
class Held:
    """A role of a person; `authority` is the body a registrar acts for, '' for every other role."""

    person: str
    role: Role
    authority: str = ""


@dataclass
class Powers:
    """The state, begun with the anchors; `follow` takes the lines in their order."""

    anchors: Anchors
    frozen: bool = False
    _keys: dict[str, tuple[str, PublicKey]] = field(default_factory=dict)
    _revoked: set[str] = field(default_factory=set)
    _held: set[Held] = field(default_factory=set)
    _used: set[str] = field(default_factory=set)
    _recovery: dict[str, PublicKey] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for person, key in self.anchors.administrators.items():
            self._keys[credential_of(key)] = person, key
            self._held.add(Held(person, Role.ADMINISTRATOR))
        self._recovery = {credential_of(key): key for key in self.anchors.recovery}

    def holds(self, person: str, role: Role, authority: str = "") -> bool:
        """Whether this person has this role now, and a credential to use it with."""
        return Held(person, role, authority) in self._held and person in self._able()

    def administrators(self) -> frozenset[str]:
        """Those who can act."""
        able = self._able()
        return frozenset(h.person for h in self._held if h.role is Role.ADMINISTRATOR and h.person in able)

    def signer_of(self, signed: bytes, at: datetime) -> tuple[str, Act]:
        """The person and the act; NoForceError unless a credential in force signed it for here, once."""
        try:
            name = key_named(signed)
        except BadSignatureError as error:
            raise NoForceError("no-act", str(error)) from error
        if name in self._revoked:
            raise NoForceError("credential-revoked", f"{name} was revoked by an earlier line.")
        person, key = self._keys.get(name, (f"person:{name[5:37]}", self._recovery.get(name)))
        if key is None:
            raise NoForceError("credential-unknown", f"No line before gave anybody {name}.")
        try:
            act = verified(signed, key)
        except BadSignatureError as error:
            raise NoForceError("no-act", str(error)) from error
        self._check(act, person, at)
        return person, act

    def follow(self, line: PowerLine) -> None:
        """Let this line take effect; NoForceError where it has none, and then nothing has changed."""
        acts = [self.signer_of(signed, line.at) for signed in line.signed]
        self._take_effect(self._agreed(acts, line.shown), line.shown)
        self._used |= {act.nonce for _, act in acts}

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
        if first.seen != _digest(shown):
            raise NoForceError("shown-otherwise", "What stands in the line is not what was shown.")
        if first.subjects != (_subject(first.kind, shown, self.anchors.installation),):
            raise NoForceError("another-subject", "The acts name something else than what was shown.")
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

    def _able(self) -> set[str]:
        return {person for name, (person, _) in self._keys.items() if name not in self._revoked}

    def _take_effect(self, kind: ActKind, shown: Mapping[str, Any]) -> None:
        match kind:
            case ActKind.ROLE_GRANT:
                self._held.add(_held(shown))
            case ActKind.ROLE_END:
                self._end(_held(shown))
            case ActKind.CREDENTIAL_ADD:
                self._add(_person(shown), shown.get("public_key"))
            case ActKind.CREDENTIAL_REVOKE:
                self._revoke(_person(shown), str(shown.get("credential")))
            case _:
                self.frozen = kind is ActKind.FREEZE

    def _end(self, ended: Held) -> None:
        if ended not in self._held:
            raise NoForceError("not-held", "This person does not hold this role.")
        if ended.role is Role.ADMINISTRATOR:
            self._check_enough(self.administrators() - {ended.person})
        self._held.discard(ended)

    def _add(self, person: str, pem: object) -> None:
        try:
            key = public_key(pem)
        except ValueError as error:
            raise NoForceError("bad-key", str(error)) from error
        name = credential_of(key)
        if name in self._keys or name in self._recovery:
            raise NoForceError("key-known", "This key is somebody's, or was.")
        self._keys[name] = person, key

    def _revoke(self, person: str, name: str) -> None:
        if self._keys.get(name, ("", None))[0] != person or name in self._revoked:
            raise NoForceError("credential-unknown", "This person has no such credential.")
        left = {of for other, (of, _) in self._keys.items() if other not in self._revoked | {name}}
        self._check_enough(self.administrators() & left)
        self._revoked.add(name)

    def _check_enough(self, left: frozenset[str] | set[str]) -> None:
        # A loss that leaves one administrator leaves the installation to him, or to nobody.
        if len(left) < LEAST_ADMINISTRATORS <= len(self.administrators()):
            raise NoForceError("too-few-administrators", "This would leave fewer than two administrators.")


def _subject(kind: ActKind, shown: Mapping[str, Any], installation: str) -> str:
    """Whom or what an act on powers must name."""
    if kind in {ActKind.FREEZE, ActKind.UNFREEZE}:
        return f"installation:{installation}"
    return _person(shown)


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
    if not isinstance(authority, str) or (role is Role.REGISTRAR) != bool(authority):
        raise NoForceError("bad-role", "A registrar acts for one body, everybody else for none.")
    return Held(_person(shown), role, authority)

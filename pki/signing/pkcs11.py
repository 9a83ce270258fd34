"""CA keys on a token behind PKCS #11: made inside, never outside; this process asks it to sign digests.

Where the token is, `token_uri` says. A token that was unplugged is opened anew when it is next asked, so
that its coming back needs no restart.
"""

import logging
from collections.abc import Callable
from threading import RLock
from typing import Any, TypeVar

import pkcs11
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_der_public_key
from pkcs11 import Attribute, KeyType, Mechanism, MechanismFlag, ObjectClass, TokenFlag
from pkcs11.util.ec import encode_ec_public_key, encode_named_curve_parameters

from directory.base.errors import Kind, Refusal
from pki.signing import keys
from pki.signing.token_uri import TokenPlace

CURVES = {"secp256r1", "secp384r1"}
# A key for which one of these is not so has been, or can be, in somebody's hands.
_MADE_AND_KEPT_INSIDE = (
    Attribute.LOCAL,
    Attribute.SENSITIVE,
    Attribute.ALWAYS_SENSITIVE,
    Attribute.NEVER_EXTRACTABLE,
)
# What is wrong is the PIN or its state: asking again would only use up the tries.
_SHUT: dict[type[pkcs11.PKCS11Error], str] = {
    pkcs11.PinLocked: "The token has locked its PIN: its security officer must set a new one.",
    pkcs11.PinExpired: "The token asks for a new PIN before it opens.",
    pkcs11.UserPinNotInitialized: "No PIN has been set on the token yet.",
    pkcs11.PinIncorrect: "The token does not open with this PIN.",
    pkcs11.PinInvalid: "The token does not open with this PIN.",
    pkcs11.PinLenRange: "The token does not open with this PIN.",
}
# The library initialises modules without asking them for locks (C_Initialize, no CKF_OS_LOCKING_OK). So no
# two threads may be inside one; two places may name one module.
_ALONE = RLock()
_T = TypeVar("_T")
_log = logging.getLogger(__name__)


class TokenKeys:
    """The keys of one token. One of these for each process: a module has one state of login in it."""

    def __init__(self, place: TokenPlace, pin: bytes) -> None:
        """Nothing is loaded or opened yet; refuses `ca-key-unreadable` for a PIN that none can be."""
        self._link = _Link(place, pin)

    def exists(self, name: str) -> bool:
        """As `Keys.exists`."""
        try:
            self._link.ask(lambda session: _private(session, name))
        except pkcs11.NoSuchKey:
            return False
        return True

    def make(self, name: str, curve: ec.EllipticCurve) -> ec.EllipticCurvePrivateKey:
        """As `Keys.make`; UnsupportedAlgorithm for another curve than P-256 and P-384."""
        if curve.name not in CURVES:
            raise UnsupportedAlgorithm(f"no CA key is on {curve.name}")
        if self.exists(name):
            raise keys.taken(name)
        self._link.ask(lambda session: _make(session, name, curve))
        return self.load(name)

    def load(self, name: str) -> ec.EllipticCurvePrivateKey:
        """As `Keys.load`; refuses also a key that was not made on the token, or may leave it."""
        try:
            public = self._link.ask(lambda session: _public(session, name))
        except pkcs11.NoSuchKey as error:
            raise keys.missing(name) from error
        return TokenKey(self._link, name, public)


class TokenKey(ec.EllipticCurvePrivateKey):
    """A key that stays on its token; whatever asks for its private half fails with UnsupportedAlgorithm."""

    def __init__(self, link: "_Link", name: str, public: ec.EllipticCurvePublicKey) -> None:
        self._link = link
        self._name = name
        self._public = public
        self._held: tuple[pkcs11.Session, Any] | None = None

    @property
    def curve(self) -> ec.EllipticCurve:
        """P-256 or P-384."""
        return self._public.curve

    @property
    def key_size(self) -> int:
        """In bits."""
        return self._public.key_size

    def public_key(self) -> ec.EllipticCurvePublicKey:
        """The public half, as the token gave it."""
        return self._public

    def sign(self, data: Any, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        """An ECDSA signature in DER, never the same twice: a token takes its own random number.

        Refuses `signer-unavailable`, `ca-key-missing`, `ca-key-unreadable`.
        """
        digest = _digest(data, signature_algorithm)
        try:
            raw = self._link.ask(
                lambda session: self._handle(session).sign(digest, mechanism=Mechanism.ECDSA)
            )
        except pkcs11.NoSuchKey as error:
            raise keys.missing(self._name) from error
        half = len(raw) // 2
        return encode_dss_signature(int.from_bytes(raw[:half]), int.from_bytes(raw[half:]))

    def _handle(self, session: pkcs11.Session) -> Any:
        """The key in this session; looked for once in each, since handles end with their session."""
        if self._held is None or self._held[0] is not session:
            if _public(session, self._name) != self._public:
                text = f"The token has another key under the name {self._name} than before."
                raise keys.unreadable(text)
            self._held = session, _private(session, self._name)
        return self._held[1]

    def _stays(self, *_: Any, **__: Any) -> Any:
        raise UnsupportedAlgorithm("the key stays on its token")

    exchange = private_numbers = private_bytes = _stays

    def __copy__(self) -> "TokenKey":
        """Itself: there is nothing of it here to be copied."""
        return self

    def __deepcopy__(self, memo: dict[Any, Any]) -> "TokenKey":
        """As `__copy__`."""
        return self


class _Link:
    """The session of this process with one token, opened when first asked, and anew after a fault."""

    def __init__(self, place: TokenPlace, pin: bytes) -> None:
        self._place = place
        try:
            self._pin = pin.decode()
        except UnicodeDecodeError:
            # Not chained: the error carries the PIN.
            raise keys.unreadable("The PIN of the token is not UTF-8.") from None
        self._session: pkcs11.Session | None = None
        self._shut: Refusal | None = None

    def ask(self, question: Callable[[pkcs11.Session], _T]) -> _T:
        """The answer, asked for again on a fresh session when this one fails.

        A token that is away need not say so, its objects may merely be gone: so NoSuchKey, too, is believed
        of a fresh session only.
        """
        with _ALONE:
            if self._session is not None:
                try:
                    return question(self._session)
                except pkcs11.PKCS11Error as fault:
                    _log.warning("the token with the CA keys: %s; opening it anew", type(fault).__name__)
            return self._asked_afresh(question)

    def _asked_afresh(self, question: Callable[[pkcs11.Session], _T]) -> _T:
        self._session = None
        try:
            session = self._opened()
            answer = question(session)
        except pkcs11.NoSuchKey:
            self._session = session
            raise
        except (pkcs11.MultipleObjectsReturned, pkcs11.MultipleTokensReturned) as fault:
            text = "Two keys of one name, or two tokens of one label: the signer does not choose."
            raise keys.unreadable(text) from fault
        except pkcs11.PKCS11Error as fault:
            text = "The token with the CA keys cannot be reached: nothing was lost, ask again in a moment."
            raise Refusal(Kind.UNAVAILABLE, "signer-unavailable", text) from fault
        self._session = session
        return answer

    def _opened(self) -> pkcs11.Session:
        if self._shut is not None:
            raise self._shut
        library = pkcs11.lib(str(self._place.module))
        # A module looks for its tokens when it is initialised, and may never look again.
        library.reinitialize()
        serial = self._place.serial
        token = library.get_token(
            token_label=self._place.label, token_serial=None if serial is None else serial.encode()
        )
        return self._logged_in(token)

    def _logged_in(self, token: pkcs11.Token) -> pkcs11.Session:
        if token.flags & TokenFlag.USER_PIN_FINAL_TRY:
            # A signer that is started again and again would lock the CA out of its own keys.
            raise keys.unreadable("One try is left before the token locks its PIN: log in by hand first.")
        try:
            return token.open(user_pin=self._pin)
        except tuple(_SHUT) as fault:
            self._shut = keys.unreadable(_SHUT[type(fault)])
            raise self._shut from fault


def _private(session: pkcs11.Session, name: str) -> Any:
    return _only(session, ObjectClass.PRIVATE_KEY, name)


def _only(session: pkcs11.Session, half: ObjectClass, name: str) -> Any:
    """The one object of that kind and label; NoSuchKey, MultipleObjectsReturned."""
    # Asked of a session that has ended, a search would leave the library's complaint on standard error.
    session.generate_random(64)
    wanted = {Attribute.CLASS: half, Attribute.KEY_TYPE: KeyType.EC, Attribute.LABEL: name}
    objects = list(session.get_objects(wanted))
    if not objects:
        raise pkcs11.NoSuchKey(name)
    if len(objects) > 1:
        raise pkcs11.MultipleObjectsReturned(name)
    return objects[0]


def _public(session: pkcs11.Session, name: str) -> ec.EllipticCurvePublicKey:
    """The public half of the key of that name, once its private half is one that cannot have got out."""
    private = _private(session, name)
    if not all(private[attribute] for attribute in _MADE_AND_KEPT_INSIDE):
        raise keys.unreadable(f"The key {name} was not made on its token, or may leave it.")
    public = load_der_public_key(encode_ec_public_key(_only(session, ObjectClass.PUBLIC_KEY, name)))
    if not isinstance(public, ec.EllipticCurvePublicKey) or public.curve.name not in CURVES:
        raise keys.unreadable(f"The key {name} is not on P-256 or P-384.")
    return public


def _make(session: pkcs11.Session, name: str, curve: ec.EllipticCurve) -> None:
    # Logged in already: that state is the module's, not the session's.
    with session.token.open(rw=True) as writing:
        parameters = writing.create_domain_parameters(
            KeyType.EC, {Attribute.EC_PARAMS: encode_named_curve_parameters(curve.name)}, local=True
        )
        private = {
            Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False, Attribute.PRIVATE: True,
            Attribute.MODIFIABLE: False, Attribute.COPYABLE: False,
        }  # fmt: skip
        made = parameters.generate_keypair(
            label=name, id=name.encode(), store=True, private_template=private,
            capabilities=MechanismFlag.SIGN | MechanismFlag.VERIFY,
        )  # fmt: skip
        try:
            _private(writing, name)
        except pkcs11.MultipleObjectsReturned as error:
            # Labels bind nobody: another process made one meanwhile. Better none than two of one name.
            for half in made:
                half.destroy()
            raise keys.taken(name) from error


def _digest(data: Any, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
    if not isinstance(signature_algorithm, ec.ECDSA):
        raise UnsupportedAlgorithm("a CA key signs ECDSA only")
    algorithm = signature_algorithm.algorithm
    if isinstance(algorithm, Prehashed):
        return bytes(data)
    hashing = hashes.Hash(algorithm)
    hashing.update(data)
    return hashing.finalize()

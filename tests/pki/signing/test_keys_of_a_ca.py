"""Where CA keys lie, in files and on a token (SoftHSM): one contract, then what only a token promises."""

import copy
import logging
import re
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Any

import pkcs11
import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from pkcs11 import Attribute, KeyType, MechanismFlag, TokenFlag
from pkcs11.util.ec import encode_named_curve_parameters

from directory.base.errors import Kind, Refusal
from pki.signing.file import FileKeys
from pki.signing.keys import Keys
from pki.signing.pkcs11 import TokenKeys
from pki.signing.token_uri import TokenPlace, read
from tests.soft_token import MODULE, PIN, SoftToken, soft_token

ROOT = Path(__file__).resolve().parents[3]
PASSPHRASE = b"correct horse battery staple"
CURVES = {"P-256": (ec.SECP256R1(), hashes.SHA256()), "P-384": (ec.SECP384R1(), hashes.SHA384())}


@dataclass(frozen=True)
class Place:
    """A place of keys as the contract needs it: opened well, opened wrongly, taken away, put back."""

    opened: Callable[[], Keys]
    opened_wrongly: Callable[[], Keys]
    take_away: Callable[[], object]
    put_back: Callable[[], object]
    program: str


@pytest.fixture
def token(tmp_path: Path) -> Iterator[SoftToken]:
    with soft_token(tmp_path / "token") as made:
        yield made


def in_files(folder: Path) -> Place:
    away = folder.with_name("away")
    return Place(
        lambda: FileKeys(folder, PASSPHRASE),
        lambda: FileKeys(folder, b"wrong"),
        lambda: shutil.move(folder, away),
        lambda: shutil.move(away, folder),
        f"from pathlib import Path; from pki.signing.file import FileKeys;"
        f"keys = FileKeys(Path({str(folder)!r}), {PASSPHRASE!r})",
    )


def on(token: SoftToken) -> Place:
    return Place(
        lambda: TokenKeys(token.place, PIN),
        lambda: TokenKeys(token.place, b"another pin"),
        token.unplug,
        token.plug_in,
        f"from pki.signing.pkcs11 import TokenKeys; from pki.signing.token_uri import read;"
        f"keys = TokenKeys(read({token.uri!r}), {PIN!r})",
    )


@pytest.fixture(params=["files", "token"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "files":
        return in_files(tmp_path / "keys")
    return on(request.getfixturevalue("token"))


def refusal(act: Callable[[], object]) -> Refusal:
    with pytest.raises(Refusal) as refused:
        act()
    return refused.value


def usages(listed: str) -> set[str]:
    """What pkcs11-tool says that the one key it lists may be used for."""
    (line,) = re.findall(r"^ *Usage: +(.*)$", listed, re.MULTILINE)
    return set(line.split(", "))


def signs(key: ec.EllipticCurvePrivateKey, data: bytes = b"what is to be signed") -> bool:
    algorithm = ec.ECDSA(hashes.SHA256())
    key.public_key().verify(key.sign(data, algorithm), data, algorithm)
    return True


# The contract.


@pytest.mark.parametrize("curve", CURVES)
def test_a_key_made_is_there_afterwards_and_signs(place: Place, curve: str) -> None:
    keys, (on_curve, digest) = place.opened(), CURVES[curve]
    assert not keys.exists("root-1")
    made = keys.make("root-1", on_curve)
    assert keys.exists("root-1")
    loaded = place.opened().load("root-1")
    assert loaded.public_key() == made.public_key()
    assert (loaded.curve.name, loaded.key_size) == (on_curve.name, on_curve.key_size)
    for key in (made, loaded):
        signature = key.sign(b"words", ec.ECDSA(digest))
        made.public_key().verify(signature, b"words", ec.ECDSA(digest))
        with pytest.raises(InvalidSignature):
            made.public_key().verify(signature, b"other words", ec.ECDSA(digest))


def test_a_name_is_found_only_as_it_was_given(place: Place) -> None:
    keys = place.opened()
    made = {name: keys.make(name, ec.SECP256R1()).public_key() for name in ("persons-1", "persons-10")}
    assert {name: keys.load(name).public_key() for name in made} == made
    for name in ("persons", "persons-", "Persons-1", "persons-100"):
        assert not keys.exists(name)
        told = refusal(lambda name=name: keys.load(name))
        assert (told.kind, told.code) == (Kind.UNAVAILABLE, "ca-key-missing")


def test_a_key_is_never_made_over_another(place: Place) -> None:
    keys = place.opened()
    first = keys.make("root-1", ec.SECP384R1()).public_key()
    for one in (keys, place.opened()):
        told = refusal(lambda one=one: one.make("root-1", ec.SECP256R1()))
        assert (told.kind, told.code) == (Kind.CONFLICT, "ca-key-exists")
    assert keys.load("root-1").public_key() == first


def test_the_wrong_secret_opens_nothing_and_is_not_repeated_to_anyone(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    place.opened().make("root-1", ec.SECP256R1())
    wrong = place.opened_wrongly()
    told = refusal(lambda: wrong.load("root-1"))
    assert (told.kind, told.code) == (Kind.UNAVAILABLE, "ca-key-unreadable")
    for secret in (PIN.decode(), PASSPHRASE.decode(), "another pin"):
        assert secret not in f"{told.text} {told.details} {caplog.text} {wrong!r} {place.opened()!r}"
    assert signs(place.opened().load("root-1"))


def test_a_certificate_and_a_crl_are_built_by_the_common_library_with_such_a_key(place: Place) -> None:
    key, at = place.opened().make("root-1", ec.SECP384R1()), datetime(2026, 1, 1, tzinfo=UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a CA")])
    end = at + timedelta(days=1)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, at, end).sign(key, hashes.SHA384())
    )  # fmt: skip
    certificate.verify_directly_issued_by(certificate)
    crl = x509.CertificateRevocationListBuilder(name, at, end).sign(key, hashes.SHA384())
    assert crl.is_signature_valid(key.public_key())


def test_sixteen_threads_sign_with_two_keys_and_none_gets_the_others_signature(place: Place) -> None:
    keys = place.opened()
    two = [keys.make("persons-1", ec.SECP256R1()), keys.make("root-1", ec.SECP384R1())]
    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(lambda number: signs(two[number % 2], b"%d" % number), range(200)))


def test_another_process_finds_the_key(place: Place) -> None:
    made = place.opened().make("persons-1", ec.SECP256R1())
    program = (
        f"{place.program}\n"
        "from cryptography.hazmat.primitives.asymmetric import ec\n"
        "from cryptography.hazmat.primitives import hashes\n"
        "print(keys.load('persons-1').sign(b'from afar', ec.ECDSA(hashes.SHA256())).hex())"
    )
    told = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    made.public_key().verify(bytes.fromhex(told.stdout), b"from afar", ec.ECDSA(hashes.SHA256()))


def test_a_place_that_is_away_says_so_and_serves_again_when_it_is_back(place: Place) -> None:
    keys = place.opened()
    key = keys.make("persons-1", ec.SECP256R1())
    for _ in range(2):
        place.take_away()
        told = refusal(lambda: keys.load("persons-1"))
        assert told.kind is Kind.UNAVAILABLE
        assert told.code in {"ca-key-missing", "signer-unavailable"}
        place.put_back()
        assert keys.load("persons-1").public_key() == key.public_key()
        assert signs(key)


def test_whoever_signs_while_the_place_comes_and_goes_gets_a_signature_or_a_refusal(place: Place) -> None:
    keys = place.opened()
    keys.make("persons-1", ec.SECP256R1())
    ended = Event()

    def sign_on() -> list[str]:
        told = []
        while not ended.is_set():
            try:
                told.append(str(signs(keys.load("persons-1"))))
            except Refusal as refused:
                told.append(refused.code)
        return told

    with ThreadPoolExecutor(4) as pool:
        signing = [pool.submit(sign_on) for _ in range(4)]
        for _ in range(10):
            time.sleep(0.02)
            place.take_away()
            time.sleep(0.02)
            place.put_back()
        ended.set()
        told = {word for one in signing for word in one.result(timeout=20)}
    assert "True" in told
    assert told - {"True"}, "it was never away"
    assert told <= {"True", "ca-key-missing", "signer-unavailable"}
    assert signs(keys.load("persons-1"))


# What only a token promises.


def test_a_session_that_another_ended_is_opened_anew(token: SoftToken) -> None:
    key = TokenKeys(token.place, PIN).make("persons-1", ec.SECP256R1())
    for _ in range(2):
        pkcs11.lib(str(MODULE)).reinitialize()
        assert signs(key)


def test_a_pin_that_is_no_text_is_refused_without_being_shown(token: SoftToken) -> None:
    told = refusal(lambda: TokenKeys(token.place, b"\xff" + PIN))
    assert told.code == "ca-key-unreadable"
    assert PIN.decode() not in "".join(traceback.format_exception(told))


def test_a_key_on_the_token_was_made_there_and_cannot_leave_it(token: SoftToken) -> None:
    key = TokenKeys(token.place, PIN).make("root-1", ec.SECP384R1())
    listed = token.tool("--list-objects", "--type", "privkey")
    assert "label:      root-1" in listed
    assert "Access:     sensitive, always sensitive, never extractable, local" in listed
    # Later tools name signRecover as well: signing too, and nothing that an EC key does.
    assert usages(listed) - {"signRecover"} == {"sign"}
    for leave in (
        key.private_numbers,
        lambda: key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        lambda: key.exchange(ec.ECDH(), key.public_key()),
    ):
        with pytest.raises(UnsupportedAlgorithm):
            leave()
    assert copy.deepcopy(key) is copy.copy(key) is key


def test_what_the_token_signs_openssl_verifies(token: SoftToken, tmp_path: Path) -> None:
    key = TokenKeys(token.place, PIN).make("root-1", ec.SECP384R1())
    words, signed, public = (tmp_path / name for name in ("words", "signed", "public.pem"))
    words.write_bytes(b"whole words, hashed here, signed there")
    signed.write_bytes(key.sign(words.read_bytes(), ec.ECDSA(hashes.SHA384())))
    public.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    asked = ["openssl", "dgst", "-sha384", "-verify", str(public), "-signature", str(signed), str(words)]
    assert subprocess.run(asked, capture_output=True, text=True, check=True).stdout == "Verified OK\n"


def test_a_digest_taken_elsewhere_is_signed_as_it_is(token: SoftToken) -> None:
    key = TokenKeys(token.place, PIN).make("persons-1", ec.SECP256R1())
    hashing = hashes.Hash(hashes.SHA256())
    hashing.update(b"words")
    signature = key.sign(hashing.finalize(), ec.ECDSA(Prehashed(hashes.SHA256())))
    key.public_key().verify(signature, b"words", ec.ECDSA(hashes.SHA256()))


def test_no_key_is_made_on_a_curve_that_no_ca_here_has(token: SoftToken) -> None:
    with pytest.raises(UnsupportedAlgorithm):
        TokenKeys(token.place, PIN).make("root-1", ec.SECP521R1())


def foreign_key(token: SoftToken, label: str, **private: Any) -> None:
    """A key as somebody else's tool would make it, beside whatever bears that label already."""
    pkcs11.lib(str(MODULE)).reinitialize()
    with (
        pkcs11.lib(str(MODULE))
        .get_token(token_label=token.place.label)
        .open(rw=True, user_pin=PIN.decode()) as session
    ):
        curve = {Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")}
        parameters = session.create_domain_parameters(KeyType.EC, curve, local=True)
        parameters.generate_keypair(
            label=label, store=True, capabilities=MechanismFlag.SIGN | MechanismFlag.VERIFY,
            private_template={Attribute[name]: value for name, value in private.items()},
        )  # fmt: skip


@pytest.mark.parametrize("open_door", [{"EXTRACTABLE": True}, {"SENSITIVE": False}])
def test_a_key_that_may_leave_its_token_is_not_used(token: SoftToken, open_door: dict[str, bool]) -> None:
    foreign_key(token, "root-1", **open_door)
    told = refusal(lambda: TokenKeys(token.place, PIN).load("root-1"))
    assert told.code == "ca-key-unreadable"
    assert "may leave it" in told.text


def test_a_key_brought_in_from_outside_is_not_used(token: SoftToken, tmp_path: Path) -> None:
    path = tmp_path / "key.der"
    path.write_bytes(
        ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    token.tool("--write-object", str(path), "--type", "privkey", "--label", "root-1", "--sensitive")
    told = refusal(lambda: TokenKeys(token.place, PIN).load("root-1"))
    assert told.code == "ca-key-unreadable"
    assert "was not made on its token" in told.text


def test_of_two_keys_under_one_label_none_is_chosen(token: SoftToken) -> None:
    keys = TokenKeys(token.place, PIN)
    key = keys.make("root-1", ec.SECP256R1())
    foreign_key(token, "root-1")
    for act in (lambda: keys.load("root-1"), lambda: TokenKeys(token.place, PIN).load("root-1")):
        assert refusal(act).code == "ca-key-unreadable"
    assert refusal(lambda: key.sign(b"words", ec.ECDSA(hashes.SHA256()))).code == "ca-key-unreadable"


def test_processes_that_make_one_name_at_once_leave_one_key_at_most(token: SoftToken) -> None:
    program = (
        f"{on(token).program}\n"
        "from cryptography.hazmat.primitives.asymmetric import ec\n"
        "from directory.base.errors import Refusal\n"
        "code = ''\n"
        "input()\n"
        # SoftHSM may not see its token while another process begins: then one is told to ask again.
        "while code in ('', 'signer-unavailable'):\n"
        "    try: keys.make('root-1', ec.SECP256R1()); code = 'made'\n"
        "    except Refusal as refusal: code = refusal.code\n"
        "print(code)\n"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    told = [process.communicate("go\n", timeout=20)[0].strip() for process in started]
    assert set(told) <= {"made", "ca-key-exists"}
    assert told.count("made") <= 1
    listed = token.tool("--list-objects", "--type", "privkey")
    # A line of its own: newer tools name the key in a URI too.
    assert re.findall(r"^ *label: +(.*)$", listed, re.MULTILINE) == ["root-1"] * told.count("made")


def test_another_token_with_a_key_of_that_name_does_not_sign_in_its_place(
    token: SoftToken,
) -> None:
    key = TokenKeys(token.place, PIN).make("persons-1", ec.SECP256R1())
    token.unplug()
    shutil.copytree(token.folder / "unplugged", token.folder / "tokens")
    token.tool("--delete-object", "--type", "privkey", "--label", "persons-1")
    token.tool("--delete-object", "--type", "pubkey", "--label", "persons-1")
    foreign_key(token, "persons-1")
    told = refusal(lambda: key.sign(b"words", ec.ECDSA(hashes.SHA256())))
    assert told.code == "ca-key-unreadable"
    assert "another key" in told.text


def test_a_module_that_is_not_there_is_a_signer_out_of_reach(tmp_path: Path) -> None:
    keys = TokenKeys(TokenPlace(tmp_path / "missing.so", "any"), PIN)
    assert refusal(lambda: keys.load("root-1")).code == "signer-unavailable"


def test_a_token_of_another_label_or_serial_is_not_taken(token: SoftToken) -> None:
    TokenKeys(token.place, PIN).make("root-1", ec.SECP256R1())
    serial = pkcs11.lib(str(MODULE)).get_token(token_label=token.place.label).serial.decode()
    assert TokenKeys(TokenPlace(MODULE, token.place.label, serial), PIN).exists("root-1")
    for other in (TokenPlace(MODULE, "another"), TokenPlace(MODULE, token.place.label, "0" * 16)):
        assert (
            refusal(lambda other=other: TokenKeys(other, PIN).exists("root-1")).code == "signer-unavailable"
        )


# What SoftHSM never does, and other tokens do: said by a stand-in for the module around the real one.


class Stern:
    """A module whose token counts wrong PINs, as hardware does; `tries` are left."""

    initialized = True

    def __init__(self, real: Any, tries: int) -> None:
        self.real = real
        self.left = tries
        self.asked = 0

    def reinitialize(self) -> None:
        self.real.reinitialize()

    def get_token(self, **wanted: Any) -> "Stern":
        self.token = self.real.get_token(**wanted)
        return self

    @property
    def flags(self) -> TokenFlag:
        return TokenFlag.USER_PIN_FINAL_TRY if self.left == 1 else TokenFlag(0)

    def open(self, user_pin: str) -> Any:
        self.asked += 1
        if not self.left:
            raise pkcs11.PinLocked
        try:
            return self.token.open(user_pin=user_pin)
        except pkcs11.PinIncorrect:
            self.left -= 1
            raise


@pytest.fixture
def stern(monkeypatch: pytest.MonkeyPatch, token: SoftToken) -> Callable[[int], Stern]:
    assert token.place.module == MODULE
    real = pkcs11.lib(str(MODULE))

    def made(tries: int) -> Stern:
        one = Stern(real, tries)
        monkeypatch.setattr(pkcs11, "lib", lambda _: one)
        return one

    return made


def test_a_wrong_pin_is_tried_once_and_no_more(token: SoftToken, stern: Callable[[int], Stern]) -> None:
    counting = stern(10)
    keys = TokenKeys(token.place, b"another pin")
    for _ in range(5):
        assert refusal(lambda: keys.load("root-1")).code == "ca-key-unreadable"
    assert (counting.asked, counting.left) == (1, 9)


def test_the_last_try_before_the_token_locks_is_left_to_a_person(
    token: SoftToken, stern: Callable[[int], Stern]
) -> None:
    counting = stern(1)
    told = refusal(lambda: TokenKeys(token.place, PIN).load("root-1"))
    assert told.code == "ca-key-unreadable"
    assert "One try is left" in told.text
    assert counting.asked == 0


def test_a_locked_pin_says_who_can_unlock_it(token: SoftToken, stern: Callable[[int], Stern]) -> None:
    stern(0)
    told = refusal(lambda: TokenKeys(token.place, PIN).load("root-1"))
    assert (told.kind, told.code) == (Kind.UNAVAILABLE, "ca-key-unreadable")
    assert "security officer" in told.text


# The words of the setting.


def test_a_uri_names_the_module_and_the_token() -> None:
    place = read("pkcs11:token=CA%20of%20Sceau;serial=0f12?module-path=/usr/lib/x%2By.so")
    assert place == TokenPlace(Path("/usr/lib/x+y.so"), "CA of Sceau", "0f12")


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("softhsm", "must read"),
        ("pkcs11:token=x", "must read"),
        ("pkcs11:token=x?module-path=/a?b", "must read"),
        ("pkcs11:serial=1?module-path=/m.so", "both"),
        ("pkcs11:token=x?module-name=y", "not understood: module-name"),
        ("pkcs11:token=x;object=root-1?module-path=/m.so", "not understood: object"),
        ("pkcs11:token=x;token=y?module-path=/m.so", "once"),
        ("pkcs11:token?module-path=/m.so", "name=value"),
        ("pkcs11:token=x?module-path=m.so", "absolute"),
        ("pkcs11:token=?module-path=/m.so", "label"),
        ("pkcs11:token=" + "x" * 33 + "?module-path=/m.so", "label"),
        ("pkcs11:token=x?module-path=/m.so&pin-value=1234", "PIN"),
        ("pkcs11:token=x?module-path=/m.so&pin-source=file:/pin", "PIN"),
        ("pkcs11:token=%ff?module-path=/m.so", "utf-8"),
    ],
)
def test_a_uri_that_could_mean_another_token_is_refused_and_says_why(uri: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read(uri)

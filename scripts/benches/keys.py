"""How fast CA keys sign, from files and on a token, beside the libraries under them."""

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pkcs11
from benches.harness import Bench, Figure
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from pkcs11 import Mechanism, ObjectClass

from pki.signing.file import FileKeys
from pki.signing.pkcs11 import TokenKeys
from pki.signing.seal import seal
from pki.signing.token_uri import TokenPlace

MODULE, LABEL, PIN = Path("/usr/lib/softhsm/libsofthsm2.so"), "sceau bench", b"a pin of a bench"
# As many octets as a certificate of a professional has to be signed.
TBS = bytes(1000)
NAME = "persons-1"


def signatures(bench: Bench) -> Figure:
    """Signatures a second on a SoftHSM token, beside files and the bare libraries; P-256, one thread.

    `seal` is what the signer does for each certificate and CRL: digest, signature, outer structure.
    """
    place = _token(bench.folder)
    files, token = FileKeys(bench.folder / "file keys", b"a passphrase of a bench"), TokenKeys(place, PIN)
    in_file, on_token = (one.make(NAME, ec.SECP256R1()) for one in (files, token))
    bare = ec.generate_private_key(ec.SECP256R1())
    ours = {
        "on the token": lambda: seal(TBS, on_token),
        "from files": lambda: seal(TBS, in_file),
        "bare cryptography": lambda: bare.sign(TBS, ec.ECDSA(hashes.SHA256())),
    }
    rates = {name: _rate(act, bench.seconds / 4) for name, act in ours.items()}
    # Last, since it opens the module anew for itself.
    pkcs11.lib(str(MODULE)).reinitialize()
    with pkcs11.lib(str(MODULE)).get_token(token_label=LABEL).open(user_pin=PIN.decode()) as session:
        raw = session.get_key(object_class=ObjectClass.PRIVATE_KEY, label=NAME)
        rates["bare python-pkcs11"] = _rate(
            lambda: raw.sign(bytes(32), mechanism=Mechanism.ECDSA), bench.seconds / 4
        )
    value, beside = rates.pop("on the token"), rates["bare python-pkcs11"]
    return Figure(
        "signatures", value, "signatures/s", rates, value / beside, ">= 0.5 x bare python-pkcs11",
        ok=value / beside >= 0.5,  # noqa: PLR2004 - the target beside it
    )  # fmt: skip


def _rate(act: Callable[[], object], seconds: float) -> float:
    """How often a second."""
    act()
    count, started = 0, time.monotonic()
    while (spent := time.monotonic() - started) < seconds:
        act()
        count += 1
    return count / spent


def _token(folder: Path) -> TokenPlace:
    """A fresh SoftHSM token below this folder, which this process finds."""
    (folder / "tokens").mkdir()
    configuration = folder / "softhsm2.conf"
    configuration.write_text(f"directories.tokendir = {folder / 'tokens'}\nlog.level = ERROR\n")
    os.environ["SOFTHSM2_CONF"] = str(configuration)
    made = ["softhsm2-util", "--init-token", "--free", "--label", LABEL, "--so-pin", "officer of a bench"]
    subprocess.run([*made, "--pin", PIN.decode()], check=True, capture_output=True)
    return TokenPlace(MODULE, LABEL)


FIGURES = {figure.__name__: figure for figure in (signatures,)}

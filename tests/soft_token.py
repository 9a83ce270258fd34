"""A SoftHSM token of a test's own, in a folder that can be taken away and put back like a cable."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pkcs11

from pki.signing.token_uri import TokenPlace, read

MODULE = Path("/usr/lib/softhsm/libsofthsm2.so")
PIN, SO_PIN, LABEL = b"739-cable-orchard", "a long word for the officer", "sceau test"
SETTING = "SOFTHSM2_CONF"


@dataclass(frozen=True)
class SoftToken:
    """Where it is, and the two things that can happen to a cable."""

    folder: Path
    uri: str

    @property
    def place(self) -> TokenPlace:
        return read(self.uri)

    def unplug(self) -> None:
        (self.folder / "tokens").rename(self.folder / "unplugged")

    def plug_in(self) -> None:
        (self.folder / "unplugged").rename(self.folder / "tokens")

    def tool(self, *arguments: str) -> str:
        """What OpenSC's pkcs11-tool says, logged in."""
        asked = ["pkcs11-tool", "--module", str(MODULE), "--token-label", LABEL, "--login"]
        asked += ["--pin", PIN.decode()]
        return subprocess.run([*asked, *arguments], capture_output=True, text=True, check=True).stdout


@contextmanager
def soft_token(folder: Path) -> Iterator[SoftToken]:
    """A token that every process started meanwhile finds too; forgotten by this one at the end."""
    (folder / "tokens").mkdir(parents=True)
    configuration = folder / "softhsm2.conf"
    configuration.write_text(f"directories.tokendir = {folder / 'tokens'}\nlog.level = ERROR\n")
    before = os.environ.get(SETTING)
    os.environ[SETTING] = str(configuration)
    made = ["softhsm2-util", "--init-token", "--free", "--label", LABEL, "--so-pin", SO_PIN]
    subprocess.run([*made, "--pin", PIN.decode()], check=True, capture_output=True)
    try:
        yield SoftToken(folder, f"pkcs11:token=sceau%20test?module-path={MODULE}")
    finally:
        # The module reads its configuration once: the next test's token is another.
        pkcs11.unload(str(MODULE))
        os.environ.pop(SETTING)
        if before is not None:
            os.environ[SETTING] = before

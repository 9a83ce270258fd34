"""GnuPG with its CRL checks on: what it makes of a recipient, over the CRL that the certificate names.

GnuPG 2.4 (Debian 13) reads plain CRLs; 2.2 (Debian 12) verifies no CRL that an EC key signed. Each is held to
what docs/divergences.md says of it, and `scripts/bare-machines.sh --release trixie` runs this under 2.4.
"""

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from tests.stories.installation.conftest import Installation, run, within
from tests.stories.installation.test_validator import fetch, published

READS_ECDSA = (2, 4)


def version() -> tuple[int, ...]:
    found = re.search(r"^gpgsm \(GnuPG\) (\d+)\.(\d+)", run("gpgsm", "--version").stdout)
    assert found
    return tuple(map(int, found.groups()))


@dataclass(frozen=True)
class GnuPG:
    """A home that trusts our root, and knows nothing but the issuing CA and one recipient."""

    home: Path

    def gpgsm(self, *words: str) -> str:
        done = run("gpgsm", "--homedir", str(self.home), "--batch", *words, check=False)
        return f"{done.returncode} {done.stdout} {done.stderr}"

    def encrypts_to(self, address: str) -> str:
        """What came of a letter to this address: '' when it was encrypted, else why not."""
        letter, sealed = self.home / "letter", self.home / "letter.p7m"
        letter.write_text("Bonjour")
        told = self.gpgsm("--yes", "--recipient", address, "--output", str(sealed), "--encrypt", str(letter))
        return "" if told.startswith("0 ") else told

    def end(self) -> None:
        run("gpgconf", "--homedir", str(self.home), "--kill", "all", check=False)

    def forget_lists(self) -> None:
        """As when the CRL it holds has ended: the next question fetches one."""
        self.end()
        shutil.rmtree(self.home / "crls.d", ignore_errors=True)


@pytest.fixture
def gnupg(installation: Installation) -> Iterator[GnuPG]:
    # Its sockets lie in its home: a path of the test's would be too long for them.
    made = GnuPG(Path(mkdtemp(prefix="gnupg-")))
    root = fetch(f"{installation.web}/ca/root-1.cer")
    fingerprint = x509.load_der_x509_certificate(root).fingerprint(hashes.SHA1()).hex()
    (made.home / "trustlist.txt").write_text(f"{fingerprint} S relax\n")
    (made.home / "gpgsm.conf").write_text("enable-crl-checks\n")
    (made.home / "dirmngr.conf").write_text("disable-ldap\n")
    for name in ("root-1", "persons-1"):
        path = made.home / f"{name}.cer"
        path.write_bytes(fetch(f"{installation.web}/ca/{name}.cer"))
        assert made.gpgsm("--import", str(path)).startswith("0 ")
    try:
        yield made
    finally:
        made.end()
        shutil.rmtree(made.home, ignore_errors=True)


def test_gnupg_encrypts_to_who_is_good_and_not_to_who_is_revoked(
    installation: Installation, person: tuple[str, str, str], gnupg: GnuPG
) -> None:
    address, serial, _ = person
    leaf = gnupg.home / "leaf.cer"
    leaf.write_bytes(published(installation, address))
    assert gnupg.gpgsm("--import", str(leaf)).startswith("0 ")
    told = gnupg.encrypts_to(address)
    if version() < READS_ECDSA:
        shown = gnupg.gpgsm("--with-validation", "--list-keys", address)
        assert "checking the CRL failed: Provided object is too short" in shown
        assert told
    else:
        assert told == ""
    installation.sceau("revoke", serial, "--reason", "superseded", "--as", "registrar_a")
    wanted = "Provided object is too short" if version() < READS_ECDSA else "Certificate revoked"

    def refused() -> bool:
        gnupg.forget_lists()
        shown = gnupg.gpgsm("--with-validation", "--list-keys", address)
        return bool(gnupg.encrypts_to(address)) and wanted in shown

    within(60, refused)

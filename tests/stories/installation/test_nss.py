"""Mozilla's NSS, which mail programs use, judges a certificate by our OCSP answers and by our plain CRLs."""

from pathlib import Path

import pytest

from tests.stories.installation.conftest import Installation, run, within
from tests.stories.installation.test_validator import fetch, published

# vfychain's numbers for what a certificate is to be used for.
EMAIL_SIGNER, EMAIL_RECIPIENT = "4", "5"


@pytest.fixture
def database(installation: Installation, tmp_path: Path) -> Path:
    """An NSS database that trusts our root for mail, and knows nothing else but the issuing CA."""
    run("certutil", "-N", "-d", f"sql:{tmp_path}", "--empty-password")
    for name, trust in (("root-1", "C,C,C"), ("persons-1", ",,")):
        path = tmp_path / f"{name}.cer"
        path.write_bytes(fetch(f"{installation.web}/ca/{name}.cer"))
        run("certutil", "-A", "-d", f"sql:{tmp_path}", "-n", name, "-t", trust, "-i", str(path))
    return tmp_path


def verdict(database: Path, leaf: Path, usage: str, by: str = "ocsp") -> str:
    """What vfychain says of the leaf, with word about it required."""
    done = run(
        "vfychain", "-d", f"sql:{database}", "-pp", "-u", usage,
        "-g", "leaf", "-m", by, "-s", "requireInfo,failIfNoInfo", str(leaf), check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


def take_lists(installation: Installation, database: Path) -> set[str]:
    """Import the CRLs as they are now published; gives the names under which crlutil holds them."""
    for name in ("root-1", "persons-1"):
        path = database / f"{name}.crl"
        path.write_bytes(fetch(f"{installation.web}/crl/{name}/0.crl"))
        run("crlutil", "-I", "-i", str(path), "-d", f"sql:{database}")
    return set(run("crlutil", "-L", "-d", f"sql:{database}").stdout.split()) & {"root-1", "persons-1"}


@pytest.mark.parametrize("usage", [EMAIL_SIGNER, EMAIL_RECIPIENT])
def test_nss_accepts_by_ocsp_and_after_a_revocation_refuses(
    installation: Installation, person: tuple[str, str, str], database: Path, usage: str
) -> None:
    address, serial, _ = person
    leaf = database / "leaf.cer"
    leaf.write_bytes(published(installation, address))
    assert "Chain is good!" in verdict(database, leaf, usage)
    installation.sceau("revoke", serial, "--reason", "superseded", "--as", "registrar_a")
    within(10, lambda: "Certificate has been revoked" in verdict(database, leaf, usage))


@pytest.mark.parametrize("usage", [EMAIL_SIGNER, EMAIL_RECIPIENT])
def test_nss_accepts_by_crl_and_after_a_revocation_refuses(
    installation: Installation, person: tuple[str, str, str], database: Path, usage: str
) -> None:
    """With the lists alone that crlutil took in; of the national form it refuses them (tests/pki)."""
    address, serial, _ = person
    leaf = database / "leaf.cer"
    leaf.write_bytes(published(installation, address))
    assert take_lists(installation, database) == {"root-1", "persons-1"}
    assert "Chain is good!" in verdict(database, leaf, usage, by="crl")
    installation.sceau("revoke", serial, "--reason", "superseded", "--as", "registrar_a")

    def refused() -> bool:
        take_lists(installation, database)
        return "Certificate has been revoked" in verdict(database, leaf, usage, by="crl")

    within(60, refused)

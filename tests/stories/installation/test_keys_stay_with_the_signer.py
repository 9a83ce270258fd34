"""CA keys and their secrets are in the signer and nowhere else. Shown by the how-to on a token, and by two
installations looked into from outside, through what the kernel shows of their processes.
"""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from directory.base.errors import Refusal
from pki.signing.client import SignerClient
from tests.ports import free_port
from tests.soft_token import MODULE
from tests.stories.installation.conftest import SCEAU, Installation, run, within

ROOT = Path(__file__).resolve().parents[3]
SERVING = ("web", "worker")


@dataclass(frozen=True)
class OnToken:
    """An installation made by the commands of the how-to, in their folder."""

    folder: Path
    installation: Installation
    said: str

    @property
    def pin(self) -> str:
        return (self.folder / "state" / "secrets" / "ca.passphrase").read_text().strip()

    @property
    def tokens(self) -> Path:
        return self.folder / "hsm" / "tokens"


@pytest.fixture(scope="module")
def on_token(passable: Path) -> Iterator[OnToken]:
    folder = passable / "hsm"
    folder.mkdir()
    made = Installation(folder / "state", (free_port(), free_port(), free_port()))
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "docs/how-to/hsm.md").read_text(), re.DOTALL)
    script = "set -euxo pipefail\n" + "\n".join(blocks)
    script = script.replace("127.0.0.1:8080", f"127.0.0.1:{made.ports[0]}")
    script = script.replace("sceau up --detach", f"sceau up --detach {' '.join(made.listeners)}")
    environment = {**os.environ, "PATH": f"{Path(SCEAU).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    try:
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        yield OnToken(folder, made, done.stdout + done.stderr)
    finally:
        made.sceau("down", check=False)


def processes(installation: Installation, *parts: str) -> list[psutil.Process]:
    """The processes of these parts, with all that they started."""
    written = json.loads((installation.state / "run" / "parts.json").read_text())["parts"]
    found = [psutil.Process(written[part]["pid"]) for part in parts]
    return [one for process in found for one in (process, *process.children(recursive=True))]


def memory(process: psutil.Process) -> Iterator[bytes]:
    """Whatever the process may write to, region by region: heaps, stacks, loaded modules' data."""
    proc = Path(f"/proc/{process.pid}")
    with (proc / "maps").open() as maps, (proc / "mem").open("rb", 0) as octets:
        for line in maps:
            place, rights, *_ = line.split()
            if not rights.startswith("rw") or "[v" in line:
                continue
            start, end = (int(word, 16) for word in place.split("-"))
            octets.seek(start)
            yield octets.read(end - start)


def holds(process: psutil.Process, secrets: list[bytes]) -> bool:
    return any(secret in region for region in memory(process) for secret in secrets)


def number(path: Path, passphrase: bytes) -> list[bytes]:
    """A private key's number, in both orders of octets that a library may keep it in."""
    key = load_pem_private_key(path.read_bytes(), passphrase)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    raw = key.private_numbers().private_value.to_bytes(key.key_size // 8, "big")
    return [raw, raw[::-1]]


def opened(process: psutil.Process) -> str:
    """What a process has open or loaded, and what it was started with; '' once it has ended."""
    while True:
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return ""
            return _opened(Path(f"/proc/{process.pid}"))
        except psutil.NoSuchProcess:
            return ""
        except (FileNotFoundError, ProcessLookupError):
            continue  # It closed a file, or ended, between two looks: PostgreSQL's backends come and go.


def _opened(proc: Path) -> str:
    """As the owner of the process: root in a container may not look into what another account runs."""
    owner, group = proc.stat().st_uid, proc.stat().st_gid
    become = ["setpriv", f"--reuid={owner}", f"--regid={group}", "--clear-groups", "--"]
    as_owner = [] if owner == os.getuid() else become
    look = 'ls "$0/fd" >/dev/null && readlink "$0"/fd/* && cat "$0/environ" "$0/cmdline" "$0/maps"'
    done = subprocess.run([*as_owner, "sh", "-c", look, str(proc)], capture_output=True, check=False)
    if b"denied" in done.stderr:
        raise PermissionError(done.stderr.decode())
    if done.returncode:
        raise FileNotFoundError(proc)
    return done.stdout.decode(errors="replace")


def test_web_and_worker_hold_their_own_keys_and_no_key_or_passphrase_of_a_ca(
    installation: Installation, person: tuple[str, str, str], tmp_path: Path
) -> None:
    state = installation.state
    secrets = {name: (state / "secrets" / f"{name}.passphrase").read_bytes() for name in ("ca", "web")}
    assert installation.get(f"/v1/recipients/{person[0]}").status_code == 200
    ca_keys = sorted((state / "ca").glob("*.key"))
    assert len(ca_keys) >= 2
    forbidden = [secrets["ca"], *(octets for path in ca_keys for octets in number(path, secrets["ca"]))]
    serving = processes(installation, *SERVING)
    assert len(serving) >= 4, "Granian, its workers, and the worker"
    for process in serving:
        assert not holds(process, forbidden), process.cmdline()
        assert f"{state}/ca/" not in opened(process), process.cmdline()
        assert secrets["ca"].decode() not in opened(process)
    # The same look finds what is there: else it would prove nothing.
    assert any(holds(process, [secrets["web"]]) for process in serving)
    # With a nonce no answer made before will do: who answers opens his key, and keeps it open.
    issuer = x509.load_der_x509_certificate(installation.get("/ca/persons-1.cer").content)
    (tmp_path / "issuer.pem").write_bytes(issuer.public_bytes(Encoding.PEM))
    run(
        "openssl", "ocsp", "-issuer", str(tmp_path / "issuer.pem"), "-serial", f"0x{person[1]}",
        "-url", f"{installation.web}/ocsp", "-noverify",
    )  # fmt: skip
    own = [octets for path in (state / "ocsp").glob("*.pem") for octets in number(path, secrets["web"])]
    assert any(holds(process, own) for process in serving)


def test_the_commands_of_the_how_to_make_keys_that_never_leave_their_token(on_token: OnToken) -> None:
    assert on_token.said.count("sensitive, always sensitive, never extractable, local") >= 2
    assert "verify OK" in on_token.said
    assert not list((on_token.installation.state / "ca").glob("*.key"))


def test_a_pin_is_known_to_nobody_but_the_signer(on_token: OnToken) -> None:
    installation, pin = on_token.installation, on_token.pin.encode()
    for process in processes(installation, *SERVING, "postgres", "ldap"):
        assert pin not in opened(process).encode(), process.cmdline()
        assert str(MODULE) not in opened(process), process.cmdline()
        assert str(on_token.tokens) not in opened(process), process.cmdline()
    assert not any(holds(process, [pin]) for process in processes(installation, *SERVING))
    [signer] = processes(installation, "signer")
    assert on_token.pin not in " ".join(signer.cmdline())
    # It lets nobody but root look, and of a container not even root: there is the module that no other has.
    with suppress(PermissionError):
        assert MODULE.name in Path(f"/proc/{signer.pid}/maps").read_text()
    for path in (installation.state / "log").iterdir():
        assert pin not in path.read_bytes(), path
    assert on_token.pin not in (installation.state / "settings.toml").read_text()


def test_a_token_unplugged_is_told_and_serves_again_without_a_restart(
    on_token: OnToken,
) -> None:
    installation, away = on_token.installation, on_token.tokens.with_name("unplugged")
    signer = SignerClient(installation.state / "run" / "signer.sock")
    [before] = processes(installation, "signer")

    def ready() -> str:
        return str(requests.get(f"{installation.web}/readyz", timeout=10).json()["checks"]["signer"]["state"])

    assert ready() == "ok"
    on_token.tokens.rename(away)
    try:
        with pytest.raises(Refusal) as refused:
            signer.ping()
        assert refused.value.code == "signer-unavailable"
        assert ready() != "ok"
        published = installation.sceau("crl", "publish", "--all", check=False)
        assert published.returncode != 0
        assert requests.get(f"{installation.web}/crl/persons-1/0.crl", timeout=10).status_code == 200
    finally:
        away.rename(on_token.tokens)
    within(30, lambda: ready() == "ok")
    installation.sceau("crl", "publish", "--all")
    [after] = processes(installation, "signer")
    assert after.pid == before.pid


def test_a_pin_that_is_nowhere_is_asked_for_and_none_is_made_up(tmp_path: Path) -> None:
    uri = f"pkcs11:token=any?module-path={MODULE}"
    ports = Installation(tmp_path, (free_port(), free_port(), free_port())).listeners
    done = run(SCEAU, "up", "--state", str(tmp_path), "--signer-keys", uri, *ports, check=False)
    assert done.returncode != 0
    assert "PIN" in done.stderr
    assert not (tmp_path / "secrets").exists()

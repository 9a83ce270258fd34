"""A running `sceau up --demo` of the release that leaves a record, and how it is asked."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

SCEAU = Path(sys.executable).with_name("sceau")
TREE = Path(sys.executable).parents[2]
# Under another clock the acts are dated by it too: the database's clock cannot be set.
AT_ANOTHER_TIME = """
import sys
from datetime import timedelta
from directory.base import clock, instant
real, ahead = clock.utc_now, timedelta(seconds=float(sys.argv[1]))
clock.utc_now = lambda: real() + ahead
instant.dated_by_database = lambda engine: engine
del sys.argv[1]
from api.cli.main import main
main()
"""


def tell(*words: object) -> None:
    sys.stderr.write(" ".join(map(str, words)) + "\n")


def request_for(name: str) -> str:
    """A certificate request on a key that is forgotten at once."""
    return signed_request(name, ec.generate_private_key(ec.SECP256R1()))


def signed_request(name: str, key: ec.EllipticCurvePrivateKey) -> str:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    built = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return built.public_bytes(serialization.Encoding.PEM).decode()


@dataclass(frozen=True)
class Installation:
    """The state folder, the port of its web part, and the settings of its parts."""

    state: Path
    port: int
    settings: Mapping[str, str] = field(default_factory=dict)

    def up(self) -> None:
        """Where a busy machine is slower than a part may be, another try goes on from there."""
        ldap = str(self.port + 1000)
        words = ("up", "--demo", "--detach", "--port", str(self.port), "--ldap-port", ldap)
        for _ in range(5):
            if self._run([str(SCEAU)], words, {}).returncode == 0:
                return

    def sceau(self, *words: str | Path, **settings: str) -> str:
        return self._run([str(SCEAU)], words, settings).stdout

    def later(self, seconds: float, *words: str | Path, **settings: str) -> str:
        """The same command by a clock that is so far ahead."""
        return self._run(self.at_another_time(seconds), words, settings).stdout

    def at_another_time(self, seconds: float) -> list[str]:
        """What begins a command by such a clock."""
        return [sys.executable, "-c", AT_ANOTHER_TIME, str(seconds)]

    def environment(self, **settings: str) -> dict[str, str]:
        given = {**self.settings, **settings, "state": str(self.state)}
        return {**os.environ, **{f"SCEAU_{name.upper()}": value for name, value in given.items()}}

    def _run(
        self, program: Sequence[str | Path], words: Sequence[str | Path], settings: dict[str, str]
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*program, *words], cwd=TREE, env=self.environment(**settings), capture_output=True, text=True,
            check=False, timeout=300,
        )  # fmt: skip
        failed = (done.stderr or done.stdout).strip()[-300:] if done.returncode else ""
        tell("sceau", *words, "->", done.returncode, failed)
        return done

    @property
    def _secrets(self) -> dict[str, str]:
        return dict(json.loads((self.state / "demo-credentials.json").read_text()))

    def add_token(self, name: str, role: str, *more: str) -> None:
        made = json.loads(self.sceau("token", "create", name, "--role", role, *more, "--json"))
        known = {**self._secrets, name: made["secret"] if "secret" in made else made["token"]}
        (self.state / "demo-credentials.json").write_text(json.dumps(known))

    def call(self, method: str, path: str, who: str, body: Any = None, **headers: str) -> Any:
        said = {"Authorization": f"Bearer {self._secrets[who]}", **headers}
        url = f"http://127.0.0.1:{self.port}{path}"
        answer = requests.request(method, url, json=body, headers=said, timeout=60)
        tell(method, path, "->", answer.status_code, "" if answer.ok else answer.text[:300])
        return answer.json()

    def post(self, path: str, who: str, body: Any = None, **headers: str) -> Any:
        return self.call("POST", path, who, body, **headers)

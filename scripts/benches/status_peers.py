"""Other responders, started on the same certificates as ours, for figures of status.

cfssl serves the very answers that we signed, and so does django-ca from its cache, in a virtual environment
made for it. OpenSSL signs its own from a text index.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benches.harness import Bench, free_port
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

_PACKAGES = {
    "cfssl": "golang-cfssl", "openssl": "openssl", "ab": "apache2-utils", "redis-server": "redis-server",
}  # fmt: skip
DJANGO_CA = Path(__file__).with_name("django_ca_peer.py")


@contextmanager
def cfssl(bench: Bench, answers: list[bytes]) -> Iterator[str]:
    """`cfssl ocspserve` on answers signed ahead."""
    responses = bench.folder / "cfssl-responses"
    responses.write_text("\n".join(b64encode(answer).decode() for answer in answers) + "\n")
    port = free_port()
    command = [
        _tool("cfssl"),
        "ocspserve",
        "-port",
        str(port),
        "-responses",
        str(responses),
        "-loglevel",
        "5",
    ]
    with _running(command, bench.folder, port) as url:
        yield url


@contextmanager
def openssl(bench: Bench, authority: bytes, serials: list[str]) -> Iterator[str]:
    """`openssl ocsp -multi 2`, live P-256 signatures, of a CA in DER and serials in hex, all of them good."""
    ends = (datetime.now(UTC) + timedelta(days=300)).strftime("%y%m%d%H%M%SZ")
    index = "".join(f"V\t{ends}\t\t{serial.upper()}\tunknown\t/CN={serial}\n" for serial in serials)
    (bench.folder / "index.txt").write_text(index)
    (bench.folder / "ca.pem").write_bytes(
        x509.load_der_x509_certificate(authority).public_bytes(serialization.Encoding.PEM)
    )
    _write_signer(bench.folder)
    port = free_port()
    command = [
        _tool("openssl"), "ocsp", "-index", "index.txt", "-port", str(port), "-rsigner", "signer.pem",
        "-rkey", "signer.key", "-CA", "ca.pem", "-multi", "2", "-nmin", "480", "-ignore_err",
    ]  # fmt: skip
    with _running(command, bench.folder, port) as url:
        yield url


@contextmanager
def django_ca(bench: Bench, authority: bytes, certificates: list[tuple[bytes, bytes]]) -> Iterator[str]:
    """django-ca under the same Granian, on certificates and answers of ours; a GET adds base64 to the URL.

    Its cache is Redis, as in the settings it is deployed with. One of its own for each process would go on
    answering what another process has taken back.
    """
    place = bench.folder / "django-ca"
    python = place / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet"]
        wanted = ["django-ca==3.2.0", "granian==2.8.*", "redis[hiredis]"]
        subprocess.run([*install, *wanted], check=True, stdout=sys.stderr)
    shutil.copy(DJANGO_CA, place / DJANGO_CA.name)
    told = [[b64encode(der).decode(), b64encode(answer).decode()] for der, answer in certificates]
    (place / "peer.json").write_text(
        json.dumps({"authority": b64encode(authority).decode(), "certificates": told})
    )
    fill = [str(python), DJANGO_CA.name]
    serial = subprocess.run(fill, cwd=place, check=True, stdout=subprocess.PIPE, text=True).stdout
    port = free_port()
    command = [
        str(python), "-m", "granian", "--interface", "wsgi", "--port", str(port), "--workers",
        str(bench.settings.web_workers), "--blocking-threads", "4", "--no-access-log",
        "--log-level", "critical", "django_ca_peer:application",
    ]  # fmt: skip
    cache = free_port()
    kept = [_tool("redis-server"), "--port", str(cache), "--bind", "127.0.0.1", "--save", ""]
    told = os.environ | {"DJANGO_CA_PEER_SERVES": "yes", "DJANGO_CA_PEER_CACHE": f"redis://127.0.0.1:{cache}"}
    with _running(kept, place, cache), _running(command, place, port, told) as url:
        yield f"{url}/django_ca/ocsp/{serial}/cert/"


def asked_anew(bench: Bench, url: str, body: bytes) -> float:
    """Answers a second to one POST over and over, a connection each, by 16 at a time.

    By `ab`: `openssl ocsp` closes each connection, which wrk takes for an error.
    """
    (bench.folder / "question").write_bytes(body)
    command = [
        _tool("ab"), "-q", "-c", "16", "-t", str(bench.seconds), "-n", "10000000", "-p", "question",
        "-T", "application/ocsp-request", f"{url}/",
    ]  # fmt: skip
    told = subprocess.run(command, cwd=bench.folder, check=True, capture_output=True, text=True).stdout
    if bad := re.search(r"Non-2xx.*", told):
        raise SystemExit(f"{url}: {bad[0]}")
    return float(re.search(r"Requests per second:\s+([\d.]+)", told)[1])


def _write_signer(folder: Path) -> None:
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "peer")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(30))
    made = builder.sign(key, hashes.SHA256())
    (folder / "signer.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "signer.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise SystemExit(f"needs {name}: apt-get install {_PACKAGES[name]}")
    return found


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def _running(
    command: list[str], folder: Path, port: int, environment: dict[str, str] | None = None
) -> Iterator[str]:
    said = folder / f"{Path(command[0]).name}.log"
    with said.open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=log,
            # No session: who leads one may not make a group, as `openssl ocsp -multi` does first.
            process_group=0,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 15
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{command[0]} does not listen: {said.read_text()[-500:]}")
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        # With its children, and at once: `openssl ocsp -multi` waits for those that serve, for ever.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

"""A register's source on this machine: a real HTTPS server that answers as told, and a CA for the test."""

import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

NAME = "PS_LibreAcces_202608260200.zip"
BODY = bytes(range(256)) * 4000
# RFC 5280 4.2.1.3 wants it in a CA's certificate, and Python 3.13 holds every chain to the RFC.
# Signatures, since a server's certificate may be its own CA.
SIGNS_CERTIFICATES = x509.KeyUsage(
    digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
    key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
)  # fmt: skip


@dataclass(frozen=True)
class Authority:
    """A throw-away CA and what it signs."""

    folder: Path
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def anchor(self) -> Path:
        return self.folder / "ca.pem"

    def issue(self, name: str) -> tuple[Path, Path]:
        """A certificate for `localhost` and the loopback addresses, with its key: two PEM files."""
        key = ec.generate_private_key(ec.SECP256R1())
        places = [x509.DNSName("localhost"), *(x509.IPAddress(ip_address(a)) for a in ("127.0.0.1", "::1"))]
        made = (
            _builder(name, self.certificate.subject, key)
            .add_extension(x509.SubjectAlternativeName(places), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False
            )
            .sign(self.key, hashes.SHA256())
        )
        return _write(self.folder, name, made, key)


def _builder(name: str, issuer: x509.Name | None, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    today = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer or subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - timedelta(days=1))
        .not_valid_after(today + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _write(
    folder: Path, name: str, made: x509.Certificate, key: ec.EllipticCurvePrivateKey
) -> tuple[Path, Path]:
    certificate, secret = folder / f"{name}.pem", folder / f"{name}.key"
    certificate.write_bytes(made.public_bytes(Encoding.PEM))
    secret.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return certificate, secret


def authority(folder: Path) -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    made = (
        _builder("ca", None, key).add_extension(SIGNS_CERTIFICATES, critical=True).sign(key, hashes.SHA256())
    )
    _write(folder, "ca", made, key)
    return Authority(folder, key, made)


Answer = Callable[["Handler"], None]


@dataclass
class Server:
    """What the next requests are answered with, and what was asked."""

    port: int
    answers: list[Answer] = field(default_factory=list)
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    @property
    def methods(self) -> list[str]:
        return [method for method, _, _ in self.asked]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    behind: Server

    def answer(self) -> None:
        self.behind.asked.append((self.command, self.path, dict(self.headers)))
        self.behind.answers.pop(0)(self)
        self.close_connection = True

    do_GET = do_HEAD = answer  # noqa: N815 - the names http.server looks for

    def log_message(self, *_: Any) -> None:
        """Nothing: the test reads `asked`."""

    def say(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        # Without http.server's own Date: some answers bring theirs.
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def whole(name: str = NAME, body: bytes = BODY, **headers: str) -> Answer:
    given = {"Content-Length": str(len(body)), "Content-Disposition": f"attachment; filename={name}"}
    given |= {key.replace("_", "-"): value for key, value in headers.items()}
    return lambda handler: handler.say(200, given, body)


def status(code: int, **headers: str) -> Answer:
    given = {"Content-Length": "0"} | {key.replace("_", "-"): value for key, value in headers.items()}
    return lambda handler: handler.say(code, given)


def cut(at: int, **headers: str) -> Answer:
    """A body that ends before the length it announced."""
    given = {"Content-Length": str(len(BODY)), "Content-Disposition": f"attachment; filename={NAME}"}
    given |= {key.replace("_", "-"): value for key, value in headers.items()}
    return lambda handler: handler.say(200, given, BODY[:at])


def rest(first: int, *, body: bytes = BODY, told: int | None = None) -> Answer:
    headers = {
        "Content-Length": str(len(body) - first),
        "Content-Range": f"bytes {first if told is None else told}-{len(body) - 1}/{len(body)}",
        "Content-Disposition": f"attachment; filename={NAME}",
    }
    return lambda handler: handler.say(206, headers, body[first:])


def serving(ca: Authority, *, clients: bool = False) -> Iterator[Server]:
    handler = type("Bound", (Handler,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(*ca.issue("server"))
        if clients:
            tls.load_verify_locations(ca.anchor)
            tls.verify_mode = ssl.CERT_REQUIRED
        http.socket = tls.wrap_socket(http.socket, server_side=True)
        # A refused handshake is the client's to report.
        http.handle_error = lambda *_: None  # type: ignore[method-assign]
        behind = Server(http.server_address[1])
        handler.behind = behind  # type: ignore[attr-defined]
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield behind
        http.shutdown()
        thread.join()


def chunked(body: bytes, *, ends: bool = True) -> Answer:
    headers = {"Transfer-Encoding": "chunked", "Content-Disposition": f"attachment; filename={NAME}"}
    packed = b"%x\r\n%s\r\n" % (len(body), body) + b"0\r\n\r\n" * ends
    return lambda handler: handler.say(200, headers, packed)

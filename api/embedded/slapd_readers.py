"""The slapds that others ask. Both answer from the folder of the one that holds the tree, and write nothing.

LMDB lets several processes read what one writes: they show at once what the publisher commits. A flood of one
kind of reader takes nothing from the other, nor from the publisher. Who may ask the guarded one is for the
gate (`api/ldap/gate.py`).
"""

import os
import socket
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from api.embedded.slapd import Slapd, TlsFiles, tls_lines, url_of
from directory.ldap.client import LdapClient

# Files and connections that the open one may have; slapd itself, its data and its threads need some thirty.
OPEN_FILES = 256
LISTENS_ON_ALL = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound


@dataclass(frozen=True)
class OpenSlapd(Slapd):
    """Answers anybody, on `port`: the one mailbox whose exact address is asked."""

    # Its answers are of a few kilobytes: only who takes none of thousands has it wait at all.
    WRITE_SECONDS: ClassVar[int] = 1
    data: Path = field(kw_only=True)
    port: int = 3389

    @property
    def public_urls(self) -> tuple[str, ...]:
        """One, without TLS: it takes no name, and so no secret."""
        return (url_of("ldap", self.host, self.port),)

    def command(self) -> list[str]:
        """As any, with few files: what connections may hold of it ends there."""
        return ["/bin/sh", "-c", 'ulimit -n "$0" && exec "$@"', str(OPEN_FILES), *super().command()]

    @property
    def _data(self) -> Path:
        return self.data

    @property
    def _kind(self) -> str:
        return "open.ldif"

    def _words(self) -> dict[str, str]:
        # 40 addresses fill what a request may be long: a guesser has no more of them in one search.
        limits = ("olcIdleTimeout: 10", "olcSockbufMaxIncoming: 2048", "olcConnMaxPending: 10")
        return {
            "particular": "\n".join((*limits, "olcDisallows: bind_simple")),
            "schema_readers": "* none",
            "write_seconds": str(self.WRITE_SECONDS),
        }


@dataclass(frozen=True)
class GuardedSlapd(Slapd):
    """Answers who bound, over TLS alone, on `port`: each bind and each search is first put to the gate.

    `clients` are the CAs (PEM) whose certificates are taken for SASL EXTERNAL; None takes none.
    """

    # A client that takes no answer holds one of sixteen threads for so long.
    WRITE_SECONDS: ClassVar[int] = 5
    data: Path = field(kw_only=True)
    gate: Path = field(kw_only=True)
    tls: TlsFiles = field(kw_only=True)
    port: int = 3636
    clients: Path | None = None

    @property
    def public_urls(self) -> tuple[str, ...]:
        """One, with TLS from the first octet: no token crosses a line in clear."""
        return (url_of("ldaps", self.host, self.port),)

    def shows_certificate(self) -> bool:
        """Whether a client is shown the certificate in `tls`; False also when it is shown none."""
        wanted = ssl.PEM_cert_to_DER_cert(_first_of(self.tls.certificate.read_text()))
        # No name and no CA is asked for: octet for octet is more than either.
        asking = ssl.create_default_context()
        asking.check_hostname, asking.verify_mode = False, ssl.CERT_NONE
        address = LISTENS_ON_ALL.get(self.host, self.host)
        try:
            with (
                socket.create_connection((address, self.port), timeout=5) as plain,
                asking.wrap_socket(plain) as shown,
            ):
                return shown.getpeercert(binary_form=True) == wanted
        except OSError:
            return False

    def show_certificate(self) -> None:
        """Have the running server read the files of `tls`, now and at its restarts; nobody is cut off.

        All three names change in one modification, which slapd writes down as a whole or not at all. A pair
        that does not fit is refused. slapd 2.5 then is without TLS until the next, later ones keep the former
        pair: look before telling.
        """
        client = LdapClient(self.url, seconds=30)
        try:
            client.replace("cn=config", self._tls_lines())
        finally:
            client.close()

    def _tls_lines(self) -> dict[str, str]:
        lines = tls_lines(self.tls)
        if self.clients is not None:
            lines["olcTLSCACertificateFile"] = f'"{self.clients.resolve()}"'
        return lines

    @property
    def _data(self) -> Path:
        return self.data

    @property
    def _kind(self) -> str:
        return "guarded.ldif"

    def _words(self) -> dict[str, str]:
        lines = {"olcIdleTimeout": "900", **self._tls_lines(), "olcTLSProtocolMin": "3.3"}
        # Asked of everybody, needed by nobody: a token does as well.
        lines["olcTLSVerifyClient"] = "never" if self.clients is None else "try"
        # A second lock on the same door: it listens with TLS alone.
        lines["olcSecurity"] = "simple_bind=128"
        return {
            "particular": "\n".join(f"{name}: {value}" for name, value in lines.items()),
            "schema_readers": "users read by * none",
            "write_seconds": str(self.WRITE_SECONDS),
            "gate": os.fspath(self.gate),
        }


def _first_of(pem: str) -> str:
    """The first certificate of a chain, whose own it is (RFC 8446 4.4.2)."""
    end = "-----END CERTIFICATE-----"
    return pem.partition(end)[0] + end

"""A machine whose database can be put back to an earlier moment, its files staying as they are."""

import subprocess
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import text

from api.embedded.postgres import BINARIES, EmbeddedPostgres
from api.jobs import audit_log, passphrases
from api.jobs import crl as crl_job
from api.status.wsgi import StatusApplication
from api.wiring import Container
from directory.access import Role
from directory.base.audit import Actor
from directory.base.db import transaction
from pki.issuance import for_enrolment
from pki.model import IssuedCertificate, RevocationReason
from pki.record import revocations
from pki.revocation import requests
from pki.revocation import revoke as revoking
from pki.revocation.revoke import RevocationOrder
from tests.factories import seed_practitioner, seed_token
from tests.wsgi_client import request

SOMEONE = Actor("test:someone")


def run(*command: str | Path, told: str | None = None) -> subprocess.CompletedProcess[str]:
    words = [str(part) for part in command]
    return subprocess.run(words, input=told, capture_output=True, text=True, check=False, timeout=60)


@dataclass
class Clock:
    now: datetime

    def __call__(self) -> datetime:
        return self.now


@dataclass
class Machine:
    """What a machine holds: the database named in `container`, and the folder of everything else."""

    container: Container
    postgres: EmbeddedPostgres
    clock: Clock
    people: int = 0
    ticks: float = 0.0

    @property
    def database(self) -> str:
        return str(self.container.engine.url.database)

    def status(self) -> StatusApplication:
        """The status part of a web process that starts now."""
        return StatusApplication(
            self.container.engine, keys_folder=self.container.settings.web_keys,
            passphrase=passphrases.web_passphrase(self.container), hours=8, clock=self.clock,
            ticks=lambda: self.ticks, kept=self.container.settings.kept,
        )  # fmt: skip

    def later(self, **span: float) -> None:
        self.clock.now += timedelta(**span)
        self.ticks += timedelta(**span).total_seconds()
        self.forget()

    def forget(self) -> None:
        """Let the next question look anew, as after some seconds."""
        vars(self.container).pop("watch", None)

    def issue(self) -> IssuedCertificate:
        from tests.pki.conftest import enrol, new_key, request_for

        self.people += 1
        who = enrol(
            self.container.engine, self.clock.now, seed_practitioner(self.container.engine, self.people)
        )
        return for_enrolment.issue_for_enrolment(
            self.container.engine, self.container.signer, now=self.clock.now, token=who.first,
            enrolment_id=who.id, csr=request_for(new_key()), base_url=self.container.settings.base_url,
            thorough=False,
        )  # fmt: skip

    def revoke(self, issued: IssuedCertificate, reason: RevocationReason) -> None:
        with transaction(self.container.engine) as connection:
            requests.revoke(
                connection, now=self.clock.now, actor=SOMEONE, serial=issued.serial, reason=reason
            )  # fmt: skip

    def correct(self, issued: IssuedCertificate, reason: RevocationReason) -> None:
        with transaction(self.container.engine) as connection:
            (found,) = revocations.revocable_of(connection, [issued.serial])
            revoking.restate(
                connection, RevocationOrder(found, reason, ""), now=self.clock.now, actor=SOMEONE
            )

    def release(self, issued: IssuedCertificate) -> None:
        with transaction(self.container.engine) as connection:
            found = revocations.revocable_of(connection, [issued.serial])
            revoking.release(connection, found, now=self.clock.now, actor=SOMEONE, comment="")

    def run_jobs(self) -> None:
        """CRLs and deltas, the log's head, until nothing is due; some seconds pass."""
        for _ in range(6):
            self.later(seconds=5)
            audit_log.sign_checkpoint(self.container)
            if not crl_job.publish_crls(self.container):
                break
        audit_log.sign_checkpoint(self.container)

    def events(self) -> list[tuple[Any, ...]]:
        """Every event but who entered it: serial, action, reason, date to the second."""
        query = (
            "SELECT serial, action, reason, date_trunc('second', revoked_at) FROM revocation"
            " ORDER BY revoked_at, serial, id"
        )
        with self.container.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(query))]

    def numbers(self) -> dict[str, int]:
        query = "SELECT authority_id || '/' || shard, last_number FROM crl_shard"
        with self.container.engine.connect() as connection:
            return {row[0]: row[1] for row in connection.execute(text(query))}

    # ---- Backups

    def back_up(self, under: str = "_old") -> str:
        """A copy of the database as it is; gives its name."""
        name = f"{self.database}{under}"
        self._administer(f"CREATE DATABASE {name} TEMPLATE {self.database}")
        return name

    def put_back(self, copy: str) -> None:
        """The database as it was then; every connection is cut, no file is touched."""
        self._administer(f"DROP DATABASE {self.database} WITH (FORCE)")
        self._administer(f"CREATE DATABASE {self.database} TEMPLATE {copy}")
        self.forget()

    def dump(self) -> str:
        done = run(BINARIES / "pg_dump", "--no-owner", self._conninfo(self.database))
        assert done.returncode == 0, done.stderr
        return done.stdout

    def load(self, dump: str) -> None:
        """As `put_back`, by the tools that everybody uses."""
        self._administer(f"DROP DATABASE {self.database} WITH (FORCE)")
        self._administer(f"CREATE DATABASE {self.database} TEMPLATE template0")
        psql = run(
            BINARIES / "psql", "--quiet", "--set=ON_ERROR_STOP=1", self._conninfo(self.database), told=dump
        )
        assert psql.returncode == 0, psql.stderr
        self.forget()

    def _conninfo(self, database: str) -> str:
        return self.postgres.conninfo.replace("dbname=sceau", f"dbname={database}")

    def _administer(self, statement: str) -> None:
        self.container.engine.dispose()
        with closing(psycopg.connect(self.postgres.conninfo, autocommit=True)) as link:
            link.execute(statement)

    # ---- Foreign tools

    def certificates(self, folder: Path) -> tuple[Path, Path]:
        """Files of the root and of the CA of persons, in PEM."""
        found = []
        with self.container.engine.connect() as connection:
            for name in ("root-1", "persons-1"):
                query = text("SELECT der FROM authority WHERE id = :id")
                der = connection.execute(query, {"id": name}).scalar_one()
                path = folder / f"{name}.pem"
                path.write_bytes(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM))
                found.append(path)
        return found[0], found[1]

    def asked_by_openssl(self, status: StatusApplication, issued: IssuedCertificate, folder: Path) -> str:
        """What `openssl ocsp` makes of the answer."""
        root, issuer = self.certificates(folder)
        (folder / "leaf.pem").write_text(issued.pem)
        asked = ["openssl", "ocsp", "-issuer", issuer, "-cert", folder / "leaf.pem", "-no_nonce"]
        made = run(*asked, "-reqout", folder / "request.der")
        assert made.returncode == 0, made.stderr
        code, headers, body = request(status, "POST", "/ocsp", (folder / "request.der").read_bytes())
        assert code.startswith("200")
        assert headers["Cache-Control"] == "no-store"
        (folder / "answer.der").write_bytes(body)
        read = run(*asked, "-respin", folder / "answer.der", "-CAfile", root, "-verify_other", issuer)
        return read.stdout + read.stderr

    def served_list(self, status: StatusApplication, issued: IssuedCertificate) -> bytes:
        """The complete CRL that the web gives for this certificate."""
        code, _, body = request(status, "GET", f"/crl/{issued.authority_id}/{issued.shard}.crl")
        assert code.startswith("200"), code
        return body

    def verified_by_openssl(self, issued: IssuedCertificate, listed: bytes, folder: Path) -> str:
        """What `openssl verify -crl_check` says with this CRL."""
        root, issuer = self.certificates(folder)
        (folder / "leaf.pem").write_text(issued.pem)
        crl = x509.load_der_x509_crl(listed).public_bytes(Encoding.PEM)
        (folder / "list.pem").write_bytes(crl)
        done = run(
            "openssl", "verify", "-x509_strict", "-crl_check", "-CAfile", root, "-untrusted", issuer,
            "-attime", str(int(self.clock.now.timestamp())), "-CRLfile", folder / "list.pem",
            folder / "leaf.pem",
        )  # fmt: skip
        return done.stdout + done.stderr


def operator(machine: Machine) -> dict[str, str]:
    """Headers of an operator's call."""
    seed_token(machine.container.engine, "asks", role=Role.OPERATOR.value)
    return {"Authorization": "Bearer sceau_asks"}

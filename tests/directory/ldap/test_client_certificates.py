"""An operator of the trusted list searches LDAP by his client certificate (SASL EXTERNAL), tokenless."""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy import Engine, text

from api.ldap import gate as ldap_gate
from directory.access import certified_operator
from directory.base.errors import Refusal
from directory.ldap.publish import Publisher
from directory.reading_quotas import Reading, scopes_of
from tests.directory.ldap.conftest import SUFFIX, Guarded, Running, make_token
from tests.directory.ldap.test_who_may_search import searching
from tests.factories import seed_practitioner
from tests.ports import free_port

OPERATOR = "CN=mx.operator.example, O=Opérateur d'essai, C=FR"
SUBJECT = "/C=FR/O=Opérateur d'essai/CN=mx.operator.example"
PREFIX = "(sn=mart*)"


def openssl(*words: str) -> None:
    subprocess.run(("openssl", *words), check=True, capture_output=True)


@dataclass(frozen=True)
class Holder:
    """Who has a certificate of the CA in `folder`, and asks `guarded`."""

    guarded: Guarded
    folder: Path
    name: str

    def search(self, *rest: str) -> subprocess.CompletedProcess[str]:
        """What ldapsearch gets with the certificate."""
        return self.run("ldapsearch", "-LLL", "-b", SUFFIX, *rest)

    def run(self, program: str, *rest: str, given: str = "") -> subprocess.CompletedProcess[str]:
        """One of ldap-utils, with the certificate."""
        told = {"CERT": self.folder / f"{self.name}.pem", "KEY": self.folder / f"{self.name}.key"}
        shown = {f"LDAPTLS_{key}": str(file) for key, file in told.items()}
        environment = {**os.environ, **self.guarded.trust, **shown}
        url = self.guarded.slapd.public_urls[0]
        asked = (program, "-Q", "-Y", "EXTERNAL", "-H", url, *rest)
        return subprocess.run(
            asked, capture_output=True, text=True, check=False, env=environment, input=given
        )


def made(folder: Path, name: str, subject: str, *more: str) -> None:
    """A certificate and its key, self-signed where nothing more is said."""
    key, certificate = folder / f"{name}.key", folder / f"{name}.pem"
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-utf8",
            "-days", "3650", "-subj", subject, "-keyout", str(key), "-out", str(certificate),
            *more)  # fmt: skip


def given(folder: Path, name: str, subject: str, authority: str = "ca") -> None:
    signer = ("-CA", str(folder / f"{authority}.pem"), "-CAkey", str(folder / f"{authority}.key"))
    made(folder, name, subject, *signer, "-addext", "basicConstraints=critical,CA:FALSE")


@pytest.fixture
def holder(
    engine: Engine, guarded: Guarded, publisher: Publisher, now: datetime, tmp_path: Path
) -> Iterator[Holder]:
    """The operator of one mailbox, and a guarded slapd that takes certificates of his CA."""
    seed_practitioner(engine, operator=OPERATOR)
    publisher.publish_once(now)
    for authority in ("ca", "other-ca"):
        made(tmp_path, authority, f"/CN={authority}", "-addext", "keyUsage=keyCertSign")
    given(tmp_path, "operator", SUBJECT)
    port = free_port()
    taking = replace(guarded.slapd, folder=tmp_path / "taking", port=port, clients=tmp_path / "ca.pem")
    server = Running(taking)
    server.start()
    yield Holder(replace(guarded, slapd=taking), tmp_path, "operator")
    server.stop()


def test_an_operator_of_the_trusted_list_searches_by_his_certificate(holder: Holder) -> None:
    found = holder.search(PREFIX, "mail")
    assert (found.returncode, found.stdout.count("dn: ")) == (0, 1), found.stderr
    # Who shows none binds with a token as ever.
    assert holder.guarded.search("-b", SUFFIX, PREFIX).returncode == 0


def test_whoever_else_has_a_certificate_finds_nothing(holder: Holder) -> None:
    subjects = {
        "stranger": "/C=FR/O=Somebody/CN=mx.operator.example",
        # Names that open something where they are not below that of certificates.
        "publisher": "/C=fr/O=sceau/CN=publisher",
        "replica": "/C=fr/O=sceau/CN=replica",
        "token": f"/C=fr/O=sceau/OU=tokens/CN={holder.guarded.token.id}",
    }
    for name, subject in subjects.items():
        given(holder.folder, name, subject)
        found = replace(holder, name=name).search(PREFIX)
        assert (found.returncode, found.stdout) == (49, ""), name
    given(holder.folder, "forged", SUBJECT, "other-ca")
    found = replace(holder, name="forged").search(PREFIX)
    assert found.returncode != 0
    assert "dn: " not in found.stdout


def test_a_connection_of_a_certificate_ends_with_its_hour(
    holder: Holder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """slapd looks at dates once: the certificate of an old connection may have run out since."""
    now = [1000.0]
    monkeypatch.setattr(ldap_gate, "time", SimpleNamespace(monotonic=lambda: now[0]))
    gate = ldap_gate.Gate(holder.guarded.container)
    name = f"{OPERATOR},ou=certificates,{SUFFIX}"

    def asked(peer: str) -> bool:
        question = searching(holder.guarded.token).decode()
        lines = question.replace("IP=127.0.0.1:40000", peer).split("\n")
        lines[2] = f"binddn: {name}"
        return gate.answer("\n".join(lines).encode()) == ldap_gate.CONTINUE

    assert asked("IP=192.0.2.1:1000")
    for _ in range(6):
        now[0] += 600
        assert asked("IP=192.0.2.1:1000")
    for _ in range(3):
        now[0] += 600
        assert not asked("IP=192.0.2.1:1000")
    assert asked("IP=192.0.2.1:1001")
    # Idle for so long, slapd has ended it: the port is another's by now.
    now[0] += ldap_gate.FORGOTTEN_SECONDS + 1
    assert asked("IP=192.0.2.1:1000")


def test_a_certificate_that_looks_like_a_local_account_is_none(holder: Holder) -> None:
    account = (
        f"/CN=auth/CN=external/CN=peercred/1.3.6.1.1.1.1.1={os.getegid()}+1.3.6.1.1.1.1.0={os.geteuid()}"
    )
    given(holder.folder, "local", account)
    local = replace(holder, name="local")
    assert local.search(PREFIX).returncode == 49
    change = (
        "dn: cn=config\nchangetype: modify\nreplace: olcTLSCertificateFile\nolcTLSCertificateFile: /none\n"
    )
    told = local.run("ldapmodify", given=change)
    assert told.returncode == 50, told.stderr


def test_an_operator_who_is_suspended_or_left_the_list_finds_nothing(
    engine: Engine, holder: Holder, now: datetime
) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE operator SET suspended_at = :now"), {"now": now})
    assert holder.search(PREFIX).returncode == 49
    with engine.begin() as connection:
        connection.execute(text("UPDATE operator SET suspended_at = NULL"))
        connection.execute(text("UPDATE trusted_domain SET departed_at = :now"), {"now": now})
        with pytest.raises(Refusal):
            certified_operator(connection, OPERATOR, now)
    assert holder.search(PREFIX).returncode == 49


def test_his_tokens_and_his_certificate_have_one_quota(engine: Engine, holder: Holder, now: datetime) -> None:
    token, secret = make_token(engine, now, operator=OPERATOR)
    readers = holder.guarded.container.readers
    with engine.connect() as connection:
        known = certified_operator(connection, OPERATOR, now)
    scopes = scopes_of(known, "127.0.0.1", readers.quotas)
    assert isinstance(readers.charge(known, scopes, Reading.SEARCHES, readers.quotas.searches - 1), list)
    assert [holder.search(PREFIX, "mail").returncode for _ in range(2)] == [0, 51]
    assert replace(holder.guarded, token=token, secret=secret).search("-b", SUFFIX, PREFIX).returncode == 51
    with engine.connect() as connection:
        asked = "SELECT actor, subject FROM audit_pending WHERE event = 'reading-quota.reached'"
        told = connection.execute(text(asked))
        operator = f"operator:{known.operator_id}"
        assert told.all() == [(operator, operator)]

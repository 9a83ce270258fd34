"""A person goes from ADELI to the RPPS in a night: the old certificate serves for its grace only.

The whole road: register files, enrolment, issuing, the night, REST, LDAP as `ldapsearch` sees it, the end.
"""

import base64
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import Engine

from api.app import create_app
from api.embedded.slapd import EmbeddedSlapd
from api.jobs import ldap as ldap_job
from api.jobs import withdrawal
from api.settings import Settings
from api.wiring import Container
from directory.base.db import transaction
from directory.ldap.client import LdapClient
from directory.rules import registering_authorities
from directory.store import practitioners
from pki.impediments.causes import GRACES, WithdrawalCause
from pki.issuance.for_enrolment import issue_for_enrolment
from tests.api.signing import signer_in
from tests.directory.ldap.conftest import SUFFIX, Server
from tests.directory.sync.files import Rows, Run
from tests.directory.sync.test_numbers_that_follow_one_another import rewritten
from tests.factories import Seeded, rpps, seed_token
from tests.pki.conftest import enrol, new_key, request_for

SIZES = {"practitioners": 300, "organisations": 20, "mailboxes": 200, "seed": 7}
NEW = rpps(99_000)
_CERTIFICATE = re.compile(r"^userCertificate;binary:: (.*)$", re.MULTILINE)


@dataclass
class Service:
    """The application and its LDAP server, in process, on a clock that a test moves."""

    container: Container
    day: list[datetime]
    headers: dict[str, str] = field(default_factory=dict)

    def settle(self) -> None:
        """What the jobs do within a minute."""
        withdrawal.consequences(self.container)
        withdrawal.withdraw_due(self.container)
        ldap_job.publish(self.container)

    def get(self, path: str) -> dict[str, Any]:
        answer = create_app(self.container).test_client().get(path, headers=self.headers)
        assert answer.status_code == 200, answer.text
        return dict(answer.get_json())

    def verdict(self, address: str) -> tuple[str, list[str], list[bytes]]:
        said = self.get(f"/v1/recipients/{address}")
        handed = [base64.b64decode(one["der"]) for one in said["certificates"]]
        return said["verdict"], said["reasons"], handed

    def in_ldap(self, address: str) -> list[bytes]:
        command = ["ldapsearch", "-Q", "-Y", "EXTERNAL", "-LLL", "-o", "ldif-wrap=no",
                   "-H", self.container.settings.ldap_url, "-b", SUFFIX, f"(mail={address})",
                   "userCertificate;binary"]  # fmt: skip
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return [base64.b64decode(found) for found in _CERTIFICATE.findall(said)]


@pytest.fixture
def service(engine: Engine, tmp_path: Path, now: datetime) -> Iterator[Service]:
    server = Server(EmbeddedSlapd(tmp_path / "ldap", SUFFIX))
    server.start()
    day = [now]
    settings = Settings(
        state=tmp_path, public_url="https://sceau.example", ldap_url=server.slapd.url, suffix=SUFFIX
    )
    seed_token(engine, "reader", role="auditor")
    with signer_in(tmp_path, engine, now, settings.base_url) as signer:
        container = Container(settings=settings, engine=engine, signer=signer, clock=lambda: day[0])
        yield Service(container, day, {"Authorization": "Bearer sceau_reader"})
    # Left open, they would be found by the garbage collection of some other test.
    for lane in ldap_job.publisher_of(container)._lanes:
        assert isinstance(lane, LdapClient)
        lane.close()
    server.stop()


@pytest.fixture
def number_changes(maker: ModuleType, tmp_path: Path, run: Run) -> Callable[[str], None]:
    """The country's first day; gives the night in which this number is replaced by NEW, and nothing else."""
    for register, file in maker.make(tmp_path / "1", maker.Plan(**SIZES)).items():
        assert run(register, file).state == "applied"

    def night(old: str) -> None:
        plan = maker.Plan(**SIZES, next_day=True, arrivals=0, moves=0, departures=0)
        still = maker.make(tmp_path / "2", plan)["rpps"]
        number = old[1:]
        file = rewritten(still, tmp_path / "3", (f"0|{number}|{old}|", f"8|{NEW[1:]}|{NEW}|"))
        assert run("rpps", file).state == "applied"

    return night


@pytest.fixture
def someone(rows: Rows, number_changes: Callable[[str], None]) -> Seeded:
    """Of ADELI, with one mailbox."""
    assert number_changes
    address, old = rows(
        "SELECT min(address), holder FROM mailbox m JOIN practice p ON p.national_id = m.holder"
        " WHERE holder LIKE '0%' AND listed GROUP BY holder HAVING count(DISTINCT address) = 1"
        " ORDER BY holder LIMIT 1"
    )[0]
    return Seeded(str(old), str(address))


@pytest.fixture
def certificate(engine: Engine, service: Service, someone: Seeded, now: datetime) -> tuple[str, bytes]:
    """By the whole road, under the number of ADELI: serial and DER."""
    with transaction(engine, read_only=True) as connection:
        person = practitioners(connection, [someone.national_id])[someone.national_id]
    enrolled = enrol(engine, now, someone, min(registering_authorities(person)))
    issued = issue_for_enrolment(
        engine, service.container.signer, now=now, token=enrolled.first, enrolment_id=enrolled.id,
        csr=request_for(new_key()), base_url=service.container.settings.base_url,
    )  # fmt: skip
    return issued.serial, issued.der


def test_the_certificate_of_the_old_number_serves_for_a_month_everywhere_and_is_then_superseded(
    service: Service, someone: Seeded, certificate: tuple[str, bytes], number_changes: Callable[[str], None]
) -> None:
    (serial, der), address = certificate, someone.mailbox
    ldap_job.publish(service.container)
    assert (service.verdict(address), service.in_ldap(address)) == (("allowed", [], [der]), [der])
    number_changes(someone.national_id)
    service.settle()
    grace = GRACES[WithdrawalCause.RENUMBERED]
    for passed in (grace * 0, grace * 29 / 30):
        service.day[0] += passed
        service.settle()
        assert (service.verdict(address), service.in_ldap(address)) == (("allowed", [], [der]), [der])
        assert service.get(f"/v1/certificates/{serial}")["state"] == "good"
    service.day[0] += grace / 30
    service.settle()
    assert service.verdict(address) == ("refused", ["certificate-revoked"], [])
    assert service.in_ldap(address) == []
    events = service.get(f"/v1/certificates/{serial}/history")["events"]
    assert [event["reason"] for event in events if event.get("reason")] == ["superseded"]

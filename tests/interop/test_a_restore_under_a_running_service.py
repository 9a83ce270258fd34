"""A running installation's database is put back to a backup: noticed within the minute, and completed."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from api.embedded.postgres import BINARIES, EmbeddedPostgres
from tests.interop.conftest import Installation, free_port, run, within


@pytest.fixture
def running(passable: Path) -> Iterator[Installation]:
    """An installation of its own: nobody else's record is put back."""
    ports = (free_port(), free_port(), free_port())
    made = Installation(passable / f"restored-{ports[0]}", ports)
    made.up()
    yield made
    made.sceau("down", check=False)


def put_back(cluster: EmbeddedPostgres, dump: str) -> None:
    """As whoever restores would: loaded beside the record, then put into its place, whoever is connected."""
    beside = cluster.conninfo.replace("dbname=sceau", "dbname=beside")
    aside = cluster.conninfo.replace("dbname=sceau", "dbname=template1")
    with psycopg.connect(aside, autocommit=True) as link:
        link.execute("CREATE DATABASE beside TEMPLATE template0")
    run(str(BINARIES / "psql"), "--quiet", "--set=ON_ERROR_STOP=1", beside, input=dump)
    with psycopg.connect(aside, autocommit=True) as link:
        link.execute("DROP DATABASE sceau WITH (FORCE)")
        link.execute("ALTER DATABASE beside RENAME TO sceau")


def authorities(running: Installation, folder: Path) -> None:
    """The CA certificates a relying party keeps: it has them before the record is put back."""
    for name in ("persons-1", "root-1"):
        answer = requests.get(f"{running.web}/ca/{name}.cer", timeout=5)
        answer.raise_for_status()
        pem = x509.load_der_x509_certificate(answer.content).public_bytes(Encoding.PEM)
        (folder / f"{name}.pem").write_bytes(pem)


def asked(running: Installation, serial: str, folder: Path) -> str:
    """What `openssl ocsp` hears of this serial over HTTP."""
    ca = str(folder / "persons-1.pem")
    done = run(
        "openssl", "ocsp", "-issuer", ca, "-serial", f"0x{serial}", "-url", f"{running.web}/ocsp",
        "-CAfile", str(folder / "root-1.pem"), "-verify_other", ca, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


def test_nobody_becomes_good_by_it_and_the_way_out_leads_out(running: Installation, tmp_path: Path) -> None:
    cluster = EmbeddedPostgres(running.state / "postgres")
    authorities(running, tmp_path)
    (address, serial, _), (other, good, _) = running.certified()[:2]
    dump = run(str(BINARIES / "pg_dump"), "--no-owner", cluster.conninfo).stdout
    answer = running.post(
        f"/v1/certificates/{serial}/revocation", "registrar_a", {"reason": "keyCompromise", "comment": "lost"}
    )
    assert answer.status_code == 200, answer.text
    since = answer.json()["revoked_at"][:19]
    lists = running.state / "floor" / "lists"
    listed = bytes.fromhex(serial)
    within(60, lambda: any(listed in kept.read_bytes() for kept in lists.glob("persons-1.*.crl")))
    assert ": revoked" in asked(running, serial, tmp_path)

    put_back(cluster, dump)
    within(60, lambda: running.get(f"/v1/recipients/{address}").json().get("code") == "record-behind")
    # A worker whose connection was cut a moment ago answers one request with 503 first.
    within(10, lambda: running.get(f"/v1/recipients/{other}").json().get("code") == "record-behind")
    for one in (serial, good):
        within(10, lambda one=one: "trylater" in asked(running, one, tmp_path))
    within(20, lambda: running.ask("status")["record"]["state"] == "behind")
    assert running.ask("restore", "check")["events"] == 1

    running.sceau("restore", "replay", "--apply")
    running.sceau("restore", "accept", "--reason", "a test put back a dump")
    within(60, lambda: ": revoked" in asked(running, serial, tmp_path))
    within(60, lambda: ": good" in asked(running, good, tmp_path))
    again = running.get(f"/v1/certificates/{serial}").json()["revocation"]
    assert (again["revoked_at"][:19], again["reason"]) == (since, "keyCompromise")
    assert "certificate-revoked" in running.get(f"/v1/recipients/{address}").json()["reasons"]
    within(120, lambda: running.ask("status")["state"] == "ok")
    verified = running.ask("audit", "verify")
    assert (verified["intact"], len(verified["losses"])) == (True, 1)

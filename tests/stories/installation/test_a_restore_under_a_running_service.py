"""A running installation's database is put back to a backup: noticed within the minute, and completed."""

from pathlib import Path

import psycopg
import requests
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from api.embedded.postgres import BINARIES, EmbeddedPostgres
from tests.stories.installation.conftest import Installation, run, within


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


def authorities(copied: Installation, folder: Path) -> None:
    """The CA certificates a relying party keeps: it has them before the record is put back."""
    for name in ("persons-1", "root-1"):
        answer = requests.get(f"{copied.web}/ca/{name}.cer", timeout=5)
        answer.raise_for_status()
        pem = x509.load_der_x509_certificate(answer.content).public_bytes(Encoding.PEM)
        (folder / f"{name}.pem").write_bytes(pem)


def asked(copied: Installation, serial: str, folder: Path) -> str:
    """What `openssl ocsp` hears of this serial over HTTP."""
    ca = str(folder / "persons-1.pem")
    done = run(
        "openssl", "ocsp", "-issuer", ca, "-serial", f"0x{serial}", "-url", f"{copied.web}/ocsp",
        "-CAfile", str(folder / "root-1.pem"), "-verify_other", ca, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


def test_nobody_becomes_good_by_it_and_the_way_out_leads_out(copied: Installation, tmp_path: Path) -> None:
    cluster = EmbeddedPostgres(copied.state / "postgres")
    authorities(copied, tmp_path)
    (address, serial, _), (other, good, _) = copied.certified()[:2]
    dump = run(str(BINARIES / "pg_dump"), "--no-owner", cluster.conninfo).stdout
    answer = copied.post(
        f"/v1/certificates/{serial}/revocation", "registrar_a", {"reason": "keyCompromise", "comment": "lost"}
    )
    assert answer.status_code == 200, answer.text
    since = answer.json()["revoked_at"][:19]
    lists = copied.state / "floor" / "lists"
    listed = bytes.fromhex(serial)
    within(60, lambda: any(listed in kept.read_bytes() for kept in lists.glob("persons-1.*.crl")))
    assert ": revoked" in asked(copied, serial, tmp_path)

    put_back(cluster, dump)
    within(60, lambda: copied.get(f"/v1/recipients/{address}").json().get("code") == "record-behind")
    # A worker whose connection was cut a moment ago answers one request with 503 first.
    within(10, lambda: copied.get(f"/v1/recipients/{other}").json().get("code") == "record-behind")
    for one in (serial, good):
        within(10, lambda one=one: "trylater" in asked(copied, one, tmp_path))
    within(20, lambda: copied.ask("status")["record"]["state"] == "behind")
    assert copied.ask("restore", "check")["events"] == 1

    copied.sceau("restore", "replay", "--apply")
    copied.sceau("restore", "accept", "--reason", "a test put back a dump")
    within(60, lambda: ": revoked" in asked(copied, serial, tmp_path))
    within(60, lambda: ": good" in asked(copied, good, tmp_path))
    again = copied.get(f"/v1/certificates/{serial}").json()["revocation"]
    assert (again["revoked_at"][:19], again["reason"]) == (since, "keyCompromise")
    assert "certificate-revoked" in copied.get(f"/v1/recipients/{address}").json()["reasons"]
    within(120, lambda: copied.ask("status")["state"] == "ok")
    verified = copied.ask("audit", "verify")
    assert (verified["intact"], len(verified["losses"])) == (True, 1)

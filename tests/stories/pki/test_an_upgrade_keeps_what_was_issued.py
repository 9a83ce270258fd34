"""An upgrade: certificates and CRLs of the release before hold on, for openssl, GnuTLS and Java."""

import subprocess
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from alembic import command
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import Engine, text

from directory.base import rights
from directory.base.clock import utc_now
from pki.crl import publish as crl
from pki.crl import store as crl_store
from pki.model import Authority, CrlForm, IssuedCertificate
from pki.record import authorities as authority_rows
from tests.pki.hierarchies import EVERY
from tests.repo.test_migrations import config
from tests.stories.pki.test_a_ca_for_servers import MAIL, Installation, place  # noqa: F401 - a fixture

# The last migration of the release before: its CAs have shards and deltas, and none is for servers.
BEFORE = "0038"
REVOKED = "Not verified. The certificate is NOT trusted. The certificate chain is revoked."
JUDGE = Path(__file__).parent / "java" / "JudgePath.java"


@pytest.fixture
def now() -> datetime:
    # certtool and Java know no other day than today.
    return utc_now().replace(microsecond=0)


@dataclass(frozen=True)
class Kept:
    """What relying parties hold: a good certificate, a revoked one, and the lists of the release before."""

    place: Installation
    good: IssuedCertificate
    lost: IssuedCertificate
    lists: bytes


def lists_of(engine: Engine) -> bytes:
    """Every complete CRL in force, in PEM."""
    with engine.connect() as connection:
        found = [
            crl_store.latest(connection, one.id, shard)
            for one in authority_rows.authorities(connection)
            for shard in range(one.shards)
        ]
    return b"".join(
        x509.load_der_x509_crl(one.der).public_bytes(Encoding.PEM) for one in found if one is not None
    )


def rows(engine: Engine) -> list[tuple[object, ...]]:
    query = "SELECT serial, authority_id, profile, shard, der FROM certificate ORDER BY serial"
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(query))]


@pytest.fixture
def kept(place: Installation, engine: Engine) -> Kept:  # noqa: F811 - the fixture
    place.hold_as_before(*MAIL, national=MAIL)
    good, lost = place.certify(), place.certify()
    place.revoke(lost)
    place.publish()
    made = Kept(place, good, lost, lists_of(engine))
    before = rows(engine)
    with engine.connect() as connection:
        migrations = config()
        migrations.attributes["connection"] = connection
        command.downgrade(migrations, BEFORE)
        command.upgrade(migrations, "head")
        # As `sceau migrate` does: what was made anew has its rights anew.
        rights.grant(connection)
        connection.commit()
    assert rows(engine) == before
    return made


def authorities(engine: Engine) -> dict[str, Authority]:
    with engine.connect() as connection:
        return {one.id: one for one in authority_rows.authorities(connection)}


def of_openssl(folder: Path) -> list[str]:
    told = [
        subprocess.run(
            ["openssl", "verify", "-x509_strict", "-crl_check_all", "-extended_crl", "-CAfile", "root",
             "-untrusted", "issuing", "-CRLfile", "lists", leaf],
            cwd=folder, capture_output=True, text=True, check=False,
        )
        for leaf in ("good", "lost")
    ]  # fmt: skip
    return [done.stdout.strip() or done.stderr.split("lookup: ")[1].splitlines()[0] for done in told]


def of_gnutls(folder: Path) -> list[str]:
    words = []
    for leaf in ("good", "lost"):
        chain = (folder / leaf).read_bytes() + (folder / "issuing").read_bytes()
        (folder / "chain").write_bytes(chain)
        done = subprocess.run(
            ["certtool", "--verify", "--load-ca-certificate", "root", "--load-crl", "lists", "--infile",
             "chain"],
            cwd=folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
        words.append(done.stdout.rsplit("Chain verification output: ", 1)[1].strip())
    return words


def of_java(folder: Path) -> list[str]:
    done = subprocess.run(
        ["java", str(JUDGE), "root", "issuing", "lists", "good", "lost"],
        cwd=folder, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.split()


@pytest.mark.parametrize(
    ("judge", "words"),
    [
        (of_openssl, ["good: OK", "certificate revoked"]),
        (of_gnutls, ["Verified. The certificate is trusted.", REVOKED]),
        pytest.param(of_java, ["good", "REVOKED"], marks=pytest.mark.long),
    ],
)  # fmt: skip
def test_relying_parties_go_on_with_what_they_have_and_with_what_comes(
    kept: Kept, engine: Engine, tmp_path: Path, judge: object, words: list[str]
) -> None:
    """The lists of before, those of this release, and those beside a CA for servers that came to it."""
    known = authorities(engine)
    assert {name: one.crl_form for name, one in known.items()} == {
        "root-1": CrlForm.PLAIN, "persons-1": CrlForm.NATIONAL, "organisations-1": CrlForm.NATIONAL,
    }  # fmt: skip
    for name, der in (
        ("root", known["root-1"].der), ("issuing", known["organisations-1"].der),
        ("good", kept.good.der), ("lost", kept.lost.der),
    ):  # fmt: skip
        (tmp_path / name).write_bytes(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM))
    (tmp_path / "lists").write_bytes(kept.lists)
    assert judge(tmp_path) == words  # type: ignore[operator]
    kept.place.now += timedelta(seconds=2)
    with engine.begin() as connection:
        due = crl.due(connection, kept.place.now + crl.INTERVAL)
    assert len(due) == 33
    for name, shard in due:
        crl.publish(
            engine, kept.place.signer, authority_id=name, shard=shard, now=kept.place.now,
            lifetime=timedelta(hours=72),
        )  # fmt: skip
    fresh = lists_of(engine)
    assert fresh != kept.lists
    (tmp_path / "lists").write_bytes(fresh)
    assert judge(tmp_path) == words  # type: ignore[operator]
    assert kept.place.hold(*EVERY, national=MAIL).made == ("servers-1",)
    kept.place.publish()
    (tmp_path / "lists").write_bytes(lists_of(engine))
    assert judge(tmp_path) == words  # type: ignore[operator]

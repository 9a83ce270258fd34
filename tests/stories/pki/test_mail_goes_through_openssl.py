"""Mail signed and encrypted under what we certify, joined or separate, by openssl, GnuTLS and NSS.

The certificates come by the real road: enrolment, request, signer, CRLs of our own CA.
"""

import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from sqlalchemy import Engine

from directory.base.audit import Actor
from directory.base.clock import utc_now
from directory.base.db import transaction
from pki.crl import publish as crl
from pki.crl import store as crl_store
from pki.model import JOINED, IssuedCertificate, Purpose, RevocationReason
from pki.revocation import requests
from tests.pki.conftest import Established, Issue, Key

LIFETIME = timedelta(hours=72)
SIGN, ENCRYPT = frozenset({Purpose.SIGNATURE}), frozenset({Purpose.ENCRYPTION})
LETTER = "Content-Type: text/plain; charset=utf-8\r\n\r\nLe compte rendu de Mme M. est prêt.\r\n"
KEYS: dict[str, Callable[[], Key]] = {
    "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "RSA-3072": lambda: rsa.generate_private_key(public_exponent=65537, key_size=3072),
}


@pytest.fixture
def now() -> datetime:
    """Today: certtool knows no other day."""
    return utc_now().replace(microsecond=0)


@dataclass(frozen=True)
class Held:
    """A certificate and its key in files, as its holder's mail program has them."""

    issued: IssuedCertificate
    certificate: Path
    key: Path


class Desk:
    """A folder in which mail is made and judged."""

    def __init__(self, engine: Engine, authority: Established, issue: Issue, folder: Path) -> None:
        self.engine, self.authority, self.issue, self.folder = engine, authority, issue, folder
        (folder / "letter.txt").write_bytes(LETTER.encode())
        self.roots, self.chain = folder / "trusted.pem", folder / "chain.pem"
        self.chain.write_bytes(authority.certificate.public_bytes(Encoding.PEM))

    def hold(self, kind: str, purposes: frozenset[Purpose]) -> Held:
        key = KEYS[kind]()
        issued = self.issue(key, purposes=purposes, thorough=True)
        place = self.folder / issued.profile
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        held = Held(issued, place.with_suffix(".pem"), place.with_suffix(".key"))
        held.certificate.write_text(issued.pem)
        held.key.write_bytes(pem)
        return held

    def publish(self, now: datetime, shard: int) -> None:
        """The root, the CRLs of the root and of this shard, in the one file that `openssl cms` takes."""
        crl.publish_due(self.engine, self.authority.signer, now, LIFETIME)
        with transaction(self.engine, read_only=True) as connection:
            lists = [crl_store.latest(connection, *at) for at in (("root-1", 0), ("persons-1", shard))]
        pems = [
            x509.load_der_x509_crl(one.der).public_bytes(Encoding.PEM) for one in lists if one is not None
        ]
        root = x509.load_der_x509_certificate(self.authority.root.der).public_bytes(Encoding.PEM)
        assert len(pems) == 2
        self.roots.write_bytes(root + b"".join(pems))

    def run(self, *words: str | Path) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [str(word) for word in words], capture_output=True, check=False, timeout=60,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def cms(self, *words: str | Path) -> subprocess.CompletedProcess[bytes]:
        return self.run("openssl", "cms", *words)

    def signed(self, held: Held, form: str = "SMIME") -> Path:
        made = self.folder / f"signed.{form.lower()}"
        done = self.cms(
            "-sign", "-binary", "-nodetach", "-in", self.folder / "letter.txt", "-signer", held.certificate,
            "-inkey", held.key, "-certfile", self.chain, "-outform", form, "-out", made,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()
        return made

    def verified(self, signed: Path, *more: str | Path) -> subprocess.CompletedProcess[bytes]:
        return self.cms(
            "-verify", "-binary", "-in", signed, "-CAfile", self.roots, "-no-CApath", "-purpose", "smimesign",
            "-x509_strict", "-crl_check_all", *more,
        )  # fmt: skip

    def encrypted(self, to: Held) -> Path:
        made = self.folder / "encrypted.eml"
        done = self.cms(
            "-encrypt", "-binary", "-aes-256-gcm", "-in", self.folder / "letter.txt", "-out", made,
            to.certificate,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()
        return made

    def decrypted(self, encrypted: Path, by: Held) -> bytes:
        done = self.cms("-decrypt", "-binary", "-in", encrypted, "-recip", by.certificate, "-inkey", by.key)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def fit_for(self, purpose: str, held: Held) -> bool:
        judged = self.run(
            "openssl", "verify", "-x509_strict", "-purpose", purpose, "-crl_check_all", "-CAfile", self.roots,
            "-untrusted", self.chain, held.certificate,
        )  # fmt: skip
        refused = b"unsuitable certificate purpose" in judged.stderr
        assert (judged.returncode == 0) != refused, judged.stderr.decode()
        return judged.returncode == 0


@pytest.fixture
def desk(engine: Engine, authority: Established, issue: Issue, tmp_path: Path) -> Desk:
    return Desk(engine, authority, issue, tmp_path)


@pytest.mark.parametrize("kind", KEYS)
def test_one_joined_certificate_signs_and_is_encrypted_to(desk: Desk, now: datetime, kind: str) -> None:
    held = desk.hold(kind, JOINED)
    desk.publish(now, held.issued.shard)
    judged = desk.verified(desk.signed(held))
    assert (judged.returncode, judged.stdout.decode()) == (0, LETTER), judged.stderr.decode()
    encrypted = desk.encrypted(held)
    assert "compte rendu" not in encrypted.read_text()
    assert desk.decrypted(encrypted, held).decode() == LETTER


@pytest.mark.parametrize("kind", KEYS)
def test_of_a_pair_one_signs_and_the_other_is_encrypted_to(desk: Desk, now: datetime, kind: str) -> None:
    signs, reads = desk.hold(kind, SIGN), desk.hold(kind, ENCRYPT)
    desk.publish(now, signs.issued.shard)
    judged = desk.verified(desk.signed(signs))
    assert (judged.returncode, judged.stdout.decode()) == (0, LETTER), judged.stderr.decode()
    assert desk.decrypted(desk.encrypted(reads), reads).decode() == LETTER


@pytest.mark.parametrize("kind", KEYS)
def test_a_signature_under_a_certificate_to_encrypt_with_is_refused(
    desk: Desk, now: datetime, kind: str
) -> None:
    """RFC 8550 4.4.2. OpenSSL signs with any key it is given; who reads the mail refuses."""
    reads = desk.hold(kind, ENCRYPT)
    desk.publish(now, reads.issued.shard)
    judged = desk.verified(desk.signed(reads))
    assert judged.returncode != 0
    assert b"unsuitable certificate purpose" in judged.stderr


@pytest.mark.parametrize("kind", KEYS)
def test_a_letter_signed_under_a_revoked_certificate_is_refused(desk: Desk, now: datetime, kind: str) -> None:
    signs = desk.hold(kind, SIGN)
    with transaction(desk.engine) as connection:
        requests.revoke(
            connection, now=now, actor=Actor("test"), serial=signs.issued.serial,
            reason=RevocationReason.SUPERSEDED,
        )  # fmt: skip
    desk.publish(now, signs.issued.shard)
    judged = desk.verified(desk.signed(signs))
    assert judged.returncode != 0
    assert b"certificate revoked" in judged.stderr


# OpenSSL's smimeencrypt asks for keyEncipherment, which EC keys never have (RFC 8813 3): it says nothing of
# theirs, and `openssl cms -encrypt` does not ask it.
FIT = [
    ("P-256", JOINED, {"smimesign"}),
    ("P-256", SIGN, {"smimesign"}),
    ("P-256", ENCRYPT, set()),
    ("RSA-3072", JOINED, {"smimesign", "smimeencrypt"}),
    ("RSA-3072", SIGN, {"smimesign"}),
    ("RSA-3072", ENCRYPT, {"smimeencrypt"}),
]


@pytest.mark.parametrize(("kind", "purposes", "fit"), FIT)
def test_openssl_verifies_each_for_its_purpose_alone(
    desk: Desk, now: datetime, kind: str, purposes: frozenset[Purpose], fit: set[str]
) -> None:
    held = desk.hold(kind, purposes)
    desk.publish(now, held.issued.shard)
    assert {purpose for purpose in ("smimesign", "smimeencrypt") if desk.fit_for(purpose, held)} == fit


@pytest.mark.parametrize("kind", KEYS)
def test_gnutls_and_openssl_read_one_another_s_signatures(desk: Desk, now: datetime, kind: str) -> None:
    signs = desk.hold(kind, SIGN)
    desk.publish(now, signs.issued.shard)
    judged = desk.run(
        "certtool", "--p7-verify", "--inder", "--infile", desk.signed(signs, "DER"), "--load-ca-certificate",
        desk.roots, "--verify-purpose", "1.3.6.1.5.5.7.3.4",
    )  # fmt: skip
    assert judged.returncode == 0
    assert b"Signature status: ok" in judged.stderr
    made = desk.folder / "gnutls.p7"
    done = desk.run(
        "certtool", "--p7-sign", "--load-certificate", signs.certificate, "--load-privkey", signs.key,
        "--infile", desk.folder / "letter.txt", "--outder", "--outfile", made,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    # GnuTLS sends the signer's certificate alone.
    desk.roots.write_bytes(desk.roots.read_bytes() + desk.chain.read_bytes())
    judged = desk.verified(made, "-inform", "DER")
    assert (judged.returncode, judged.stdout.decode()) == (0, LETTER), judged.stderr.decode()


GNUTLS_NAMES = {
    ("P-256", JOINED): {"Digital signature", "Key agreement"},
    ("P-256", SIGN): {"Digital signature"},
    ("P-256", ENCRYPT): {"Key agreement"},
    ("RSA-3072", JOINED): {"Digital signature", "Key encipherment"},
    ("RSA-3072", SIGN): {"Digital signature"},
    ("RSA-3072", ENCRYPT): {"Key encipherment"},
}


@pytest.mark.parametrize(("kind", "purposes"), GNUTLS_NAMES)
def test_gnutls_reads_the_same_key_usage(desk: Desk, kind: str, purposes: frozenset[Purpose]) -> None:
    held = desk.hold(kind, purposes)
    shown = desk.run("certtool", "--certificate-info", "--infile", held.certificate).stdout.decode()
    usage = re.search(r"Key Usage \(critical\):\n((?:\t\t\t.*\n)+)", shown)
    assert usage is not None
    assert {line.strip(" \t.") for line in usage[1].splitlines()} == GNUTLS_NAMES[kind, purposes]


# vfychain's numbers for what a certificate is to be used for. Of an EC key NSS takes either usage for a
# recipient's (docs/divergences.md): that one signs only, it does not see.
SIGNER, RECIPIENT = "4", "5"
NSS_TAKES = {
    ("P-256", JOINED): {SIGNER, RECIPIENT},
    ("P-256", SIGN): {SIGNER, RECIPIENT},
    ("P-256", ENCRYPT): {RECIPIENT},
    ("RSA-3072", JOINED): {SIGNER, RECIPIENT},
    ("RSA-3072", SIGN): {SIGNER},
    ("RSA-3072", ENCRYPT): {RECIPIENT},
}


@pytest.mark.parametrize(("kind", "purposes"), NSS_TAKES)
def test_nss_takes_each_as_signer_or_recipient(desk: Desk, kind: str, purposes: frozenset[Purpose]) -> None:
    held, database = desk.hold(kind, purposes), f"sql:{desk.folder}"
    leaf, root, issuing = (desk.folder / f"{name}.cer" for name in ("leaf", "root", "issuing"))
    leaf.write_bytes(held.issued.der)
    root.write_bytes(desk.authority.root.der)
    issuing.write_bytes(desk.authority.issuing.der)
    desk.run("certutil", "-N", "-d", database, "--empty-password")
    for path, trust in ((root, "C,C,C"), (issuing, ",,")):
        desk.run("certutil", "-A", "-d", database, "-n", path.stem, "-t", trust, "-i", path)
    judged = {
        use: desk.run("vfychain", "-d", database, "-pp", "-u", use, leaf) for use in (SIGNER, RECIPIENT)
    }
    good = {use for use, done in judged.items() if b"Chain is good!" in done.stdout + done.stderr}
    for use in {SIGNER, RECIPIENT} - good:
        assert b"key usage inadequate" in judged[use].stdout + judged[use].stderr
    assert good == NSS_TAKES[kind, purposes]

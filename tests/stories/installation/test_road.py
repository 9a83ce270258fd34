"""The whole road, judged by foreign tools: register, certificate, LDAP, OCSP, CRL, verdict.

Then all of it again after a revocation.
"""

import re
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.stories.installation.conftest import Installation, run, within

ROOT = Path(__file__).resolve().parents[3]
Person = tuple[str, str, str]


def certificate_in_ldap(installation: Installation, address: str, folder: Path) -> Path:
    run(
        "ldapsearch", "-LLL", "-x", "-t", "-T", str(folder), "-H", installation.ldap, "-b", "o=sceau,c=fr",
        f"(mail={address})", "userCertificate;binary",
    )  # fmt: skip
    (der,) = folder.glob("ldapsearch-userCertificate*")
    pem = folder / "certificate.pem"
    run("openssl", "x509", "-inform", "DER", "-in", str(der), "-out", str(pem))
    return pem


def authorities(installation: Installation, folder: Path) -> tuple[Path, Path]:
    made = []
    for name in ("root-1", "persons-1"):
        der, pem = folder / f"{name}.cer", folder / f"{name}.pem"
        run("curl", "-sSf", "-o", str(der), f"{installation.web}/ca/{name}.cer")
        run("openssl", "x509", "-inform", "DER", "-in", str(der), "-out", str(pem))
        made.append(pem)
    return made[0], made[1]


def crl_of(pem: Path, folder: Path) -> Path:
    words = run("openssl", "x509", "-in", str(pem), "-noout", "-ext", "crlDistributionPoints").stdout
    url = next(word.strip().removeprefix("URI:") for word in words.split("\n") if "URI:" in word)
    der, made = folder / "shard.crl", folder / "shard.pem"
    run("curl", "-sSf", "-o", str(der), url)
    run("openssl", "crl", "-inform", "DER", "-in", str(der), "-out", str(made))
    return made


def ocsp(installation: Installation, pem: Path, issuer: Path, root: Path, *more: str) -> str:
    return run(
        "openssl", "ocsp", *more, "-issuer", str(issuer), "-cert", str(pem),
        "-url", f"{installation.web}/ocsp",
        "-CAfile", str(root), "-verify_other", str(issuer), check=False,
    ).stdout  # fmt: skip


def verify(pem: Path, root: Path, issuer: Path, crl: Path) -> subprocess.CompletedProcess[str]:
    return run(
        "openssl", "verify", "-crl_check", "-CAfile", str(root), "-untrusted", str(issuer),
        "-CRLfile", str(crl), str(pem),
        check=False,
    )  # fmt: skip


def verdict(installation: Installation, address: str, **parameters: str) -> tuple[str, list[str]]:
    answer = installation.get(f"/v1/recipients/{address}", **parameters).json()
    return answer["verdict"], answer["reasons"]


def test_every_part_is_green(installation: Installation) -> None:
    found = installation.ask("status")
    assert found["state"] == "ok"
    assert {name: part["state"] for name, part in found["parts"].items()} == dict.fromkeys(
        ("postgres", "signer", "ldap", "ldap-gate", "ldap-guarded", "ldap-open", "web", "worker"), "ok"
    )
    assert set(found["last_sync"]) == {"rpps", "finess", "mailboxes", "trusted-domains"}


def test_at_least_fifty_mailboxes_of_all_three_worlds_are_allowed(installation: Installation) -> None:
    words = run(*installation.ldapsearch, "-E", "pr=90/noprompt", "(userCertificate;binary=*)", "mail").stdout
    mails = [line.removeprefix("mail: ") for line in words.split("\n") if line.startswith("mail: ")]
    assert len(mails) >= 50
    worlds = {mail.partition("@")[2].split(".", 1)[-1] for mail in mails}
    assert len({mail.partition("@")[2] for mail in mails}) >= 3, worlds


def test_foreign_tools_accept_a_certificate_and_then_its_revocation(
    installation: Installation, person: Person, tmp_path: Path
) -> None:
    address, serial, _ = person
    root, issuer = authorities(installation, tmp_path)
    pem = certificate_in_ldap(installation, address, tmp_path)
    # 1. Good everywhere.
    accepted = verify(pem, root, issuer, crl_of(pem, tmp_path))
    assert accepted.returncode == 0, accepted.stderr
    for more in ((), ("-no_nonce",), ("-sha256",)):
        assert ": good" in ocsp(installation, pem, issuer, root, *more)
    assert verdict(installation, address) == ("allowed", [])
    before = datetime.now(UTC)
    time.sleep(0.05)
    # 2. Revoked: REST at once, OCSP within 1 s, LDAP within 2 s, CRL within 60 s. Ten for OCSP and LDAP on a
    #    machine that tests twice at a time.
    installation.sceau(
        "revoke", serial, "--reason", "keyCompromise", "--comment", "test", "--as", "registrar_a"
    )
    assert verdict(installation, address) == ("refused", ["certificate-revoked"])
    within(10, lambda: ": revoked" in ocsp(installation, pem, issuer, root, "-no_nonce"))
    within(
        10,
        lambda: "userCertificate" not in installation.search(f"(mail={address})", "userCertificate;binary"),
    )
    assert f"mail: {address}" in installation.search(f"(mail={address})", "mail")
    within(60, lambda: verify(pem, root, issuer, crl_of(pem, tmp_path)).returncode != 0)
    assert "certificate revoked" in verify(pem, root, issuer, crl_of(pem, tmp_path)).stderr
    # 3. The past stays what it was.
    assert verdict(installation, address, at=before.isoformat()) == ("allowed", [])


def test_gnutls_accepts_the_certificate_the_list_and_the_answer(
    installation: Installation, person: Person, tmp_path: Path
) -> None:
    root, issuer = authorities(installation, tmp_path)
    pem = certificate_in_ldap(installation, person[0], tmp_path)
    chain = tmp_path / "chain.pem"
    chain.write_text(pem.read_text() + issuer.read_text() + root.read_text())
    assert (
        "Chain verification output: Verified"
        in run("certtool", "--verify-chain", "--infile", str(chain)).stdout
    )
    crl = crl_of(pem, tmp_path)
    assert (
        "output: Verified"
        in run("certtool", "--verify-crl", "--load-ca-certificate", str(issuer), "--infile", str(crl)).stdout
    )
    answered = run(
        "ocsptool",
        f"--ask={installation.web}/ocsp",
        "--load-cert",
        str(pem),
        "--load-issuer",
        str(issuer),
        "--nonce",
    ).stdout
    assert "Certificate Status: good" in answered


def test_a_person_who_left_the_register_is_refused_revoked_and_gone(
    installation: Installation, person: Person, tmp_path: Path
) -> None:
    address, serial, national_id = person
    # Tomorrow's file would wait for two persons.
    day = (datetime.now(UTC) - timedelta(hours=25)).date().isoformat()
    run(
        sys.executable, str(ROOT / "scripts" / "make_registers.py"), str(tmp_path), "--practitioners", "2000",
        "--organisations", "200", "--mailboxes", "1500", "--seed", "1", "--day", day,
        "--next-day", "--without", national_id,
    )  # fmt: skip
    (file,) = tmp_path.glob("PS_LibreAcces*.zip")
    planned = installation.ask("sync", "run", "rpps", str(file))
    assert planned["state"] == "planned", planned
    assert planned["counts"]["removed"] >= 1
    assert verdict(installation, address)[0] == "allowed", "a plan must change nothing"
    assert installation.ask("sync", "run", "rpps", str(file), "--apply")["state"] == "applied"
    assert "holder-not-in-registry" in verdict(installation, address)[1]
    within(30, lambda: "certificate-revoked" in verdict(installation, address)[1])
    within(30, lambda: address not in installation.search(f"(mail={address})", "mail"))
    history = installation.get(f"/v1/certificates/{serial}/history", who="auditor").json()
    assert "cessationOfOperation" in str(history) or "affiliationChanged" in str(history)


def test_ldap_is_written_by_nobody_but_the_publisher(installation: Installation, person: Person) -> None:
    change = f"dn: mail={person[0]},ou=mailboxes,o=sceau,c=fr\nchangetype: delete\n"
    anonymous = run("ldapmodify", "-x", "-H", installation.ldap, input=change, check=False)
    assert anonymous.returncode != 0
    assert f"mail: {person[0]}" in installation.search(f"(mail={person[0]})", "mail")


def test_ldaps_shows_a_certificate_of_our_own_ca(
    installation: Installation, person: Person, tmp_path: Path
) -> None:
    root, issuer = authorities(installation, tmp_path)
    bundle = tmp_path / "bundle.pem"
    bundle.write_text(root.read_text() + issuer.read_text())
    trusting = [word.replace("TLS_REQCERT=never", "nettimeout=20") for word in installation.ldapsearch]
    search = (*trusting, f"(mail={person[0]})", "mail")
    trusted = run(
        *search, env={"LDAPTLS_CACERT": str(bundle), "LDAPTLS_REQCERT": "demand", "PATH": "/usr/bin:/bin"}
    )
    assert person[0] in trusted.stdout
    other = run(
        *search,
        env={"LDAPTLS_CACERT": "/dev/null", "LDAPTLS_REQCERT": "demand", "PATH": "/usr/bin:/bin"},
        check=False,
    )
    assert other.returncode != 0


def test_verdicts_work_between_any_two_worlds(installation: Installation) -> None:
    words = run(*installation.ldapsearch, "-E", "pr=90/noprompt", "(userCertificate;binary=*)", "mail").stdout
    by_domain: dict[str, str] = {}
    for line in words.split("\n"):
        if (
            line.startswith("mail: ")
            and installation.get(f"/v1/recipients/{line[6:]}").json()["verdict"] == "allowed"
        ):
            by_domain.setdefault(line.partition("@")[2], line[6:])
    addresses = list(by_domain.values())[:6]
    assert len(addresses) >= 3
    for sender in addresses:
        answer = installation.post(
            "/v1/recipients/check", "operator", {"addresses": addresses, "sender": sender}
        ).json()
        assert [one["verdict"] for one in answer["items"]] == ["allowed"] * len(addresses), answer


def test_the_log_is_intact(installation: Installation) -> None:
    assert installation.ask("audit", "verify")["findings"] == []


def test_ldap_equals_the_record(installation: Installation) -> None:
    within(30, lambda: installation.sceau("ldap", "reconcile", check=False).returncode == 0)


def test_the_demo_answers_each_address_to_try_with_its_reason(installation: Installation) -> None:
    page = (ROOT / "docs/reference/trial-addresses.md").read_text()
    rows = re.findall(r"^\| `([^`]+)` \| `([a-z]+)` \| (?:none|`([a-z-]+)`) \|$", page, re.MULTILINE)
    asked = {"addresses": [address for address, _, _ in rows]}
    told = installation.post("/v1/recipients/check", "operator", asked).json()["items"]
    assert [(one["address"], one["verdict"], one["reasons"]) for one in told] == [
        (address, verdict, [reason] if reason else []) for address, verdict, reason in rows
    ]
    assert "reasons.test" not in installation.search("(mail=allowed@reasons.test)", "mail")

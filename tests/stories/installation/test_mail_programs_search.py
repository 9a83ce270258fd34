"""Programs of mail, unmodified, look people up in the LDAP of a running installation as the how-to says."""

import re
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.stories.installation import thunderbird
from tests.stories.installation.conftest import Installation, run
from tests.stories.installation.test_validator import fetch

PAGES = Path(__file__).resolve().parents[3] / "docs" / "how-to"
Person = tuple[str, str, str]


@pytest.fixture
def root(installation: Installation, tmp_path: Path) -> Path:
    """The root of the installation, in PEM."""
    path = tmp_path / "root.pem"
    der = tmp_path / "root.cer"
    der.write_bytes(fetch(f"{installation.web}/ca/root-1.cer"))
    run("openssl", "x509", "-inform", "DER", "-in", str(der), "-out", str(path))
    return path


def test_postfix_finds_a_whole_address_and_nothing_else(
    installation: Installation, person: Person, root: Path, tmp_path: Path
) -> None:
    (table,) = re.findall(r"```\n(server_host.*?)```", (PAGES / "postfix.md").read_text(), re.DOTALL)
    name, secret = bound(installation)
    for said, here in (
        ("ldaps://ldap.sceau.example:3636", installation.ldaps),
        ("cn=12,ou=tokens,o=sceau,c=fr", name),
        ("sceau_...", secret),
        ("/etc/postfix/sceau-root.pem", str(root)),
    ):
        assert said in table
        table = table.replace(said, here)
    (tmp_path / "sceau.cf").write_text(table)
    (tmp_path / "main.cf").write_text("compatibility_level = 3.6\n")

    def found(address: str) -> tuple[int, str]:
        asked = ("postmap", "-c", str(tmp_path), "-q", address, f"ldap:{tmp_path}/sceau.cf")
        done = run(*asked, check=False)
        assert "warning" not in done.stderr, done.stderr
        return done.returncode, done.stdout.strip()

    assert found(person[0]) == (0, person[0])
    assert found(f"{person[0][:4]}*") == (1, "")
    assert found("nobody@elsewhere.example") == (1, "")


@pytest.mark.long
def test_thunderbird_completes_what_is_typed_and_searches_its_book(
    installation: Installation, person: Person, root: Path, tmp_path: Path
) -> None:
    profile = tmp_path / "profile"
    profile.mkdir()
    run("certutil", "-N", "-d", f"sql:{profile}", "--empty-password")
    run("certutil", "-A", "-d", f"sql:{profile}", "-n", "root-1", "-t", "C,,", "-a", "-i", str(root))
    name, secret = bound(installation)
    typed = re.findall(r"```filter\n\(\|\(mail=X\*\)(.*?)\n```", (PAGES / "thunderbird.md").read_text())[0]
    settings = {
        "description": "Sceau", "dirType": 0,
        "uri": f"{installation.ldaps}/o=sceau,c=fr??sub?(objectclass=*)",
        "auth.dn": name, "auth.saslmech": "", "maxHits": 100,
        "autoComplete.filterTemplate": f"(|(mail=X*){typed}".replace("X", "%v"),
    }  # fmt: skip
    given, family = given_and_family(installation, person)
    with thunderbird.running(profile, free_port(), settings) as program:
        program.keep_password(secret)
        for letters in (person[0][:6], given[:4], family.lower()):
            offered = program.complete(letters)
            assert any(f"<{person[0]}>" in one for one in offered), (letters, offered)
        assert person[0] in program.look(family[1:-1])
        assert program.complete("zzzzqqq") == []


def bound(installation: Installation) -> tuple[str, str]:
    """Name and secret of a token, as an operator gets them for a program."""
    words = installation.ldapsearch
    return words[words.index("-D") + 1], words[words.index("-w") + 1]


def given_and_family(installation: Installation, person: Person) -> tuple[str, str]:
    """As LDAP has them folded: without accents, in small letters."""
    entry = run(
        *installation.ldapsearch, f"(mail={person[0]})", "givenName;lang-x-folded", "sn;lang-x-folded"
    )
    said = dict(line.split(": ", 1) for line in entry.stdout.splitlines() if ": " in line)
    return said["givenName;lang-x-folded"], said["sn;lang-x-folded"]

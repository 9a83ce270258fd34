"""docs/how-to/ceremony.md, command by command: the record here, the root's key on a machine without one."""

import re
import shlex
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from sqlalchemy import Engine, text

from api.cli import output
from api.cli.main import main
from api.settings import Settings
from api.wiring import Container, build
from tests.api.certificates import certify_operator

PAGE = Path(__file__).resolve().parents[3] / "docs" / "how-to" / "ceremony.md"
BLOCK = re.compile(r"```(sh|toml)\n(.*?)```", re.DOTALL)


def blocks(kind: str) -> list[str]:
    return [body for found, body in BLOCK.findall(PAGE.read_text()) if found == kind]


@pytest.fixture
def folder(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where both machines work, which share a folder here for the sake of the page's paths."""
    (tmp_path / "carried").mkdir()
    (tmp_path / "hierarchy.toml").write_text(blocks("toml")[0])
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCEAU_DATABASE_URL", url)
    monkeypatch.setenv("SCEAU_CA_PASSPHRASE", "of a test")
    monkeypatch.setenv("SCEAU_STATE", str(tmp_path / "state"))
    built: list[Container] = []

    def build_and_keep(settings: Settings, **more: Any) -> Container:
        built.append(build(settings, **more))
        return built[-1]

    monkeypatch.setattr(output, "build", build_and_keep)
    yield tmp_path
    for container in built:
        container.engine.dispose()


def run(line: str) -> Result:
    if "DIGEST-IN-THE-TRANSCRIPT" in line:
        told = Path("carried/there.txt").read_text()
        digest = re.findall(r"SHA-256 of the certificate: ([0-9a-f]{64})", told)[0]  # The root's comes first.
        line = line.replace("DIGEST-IN-THE-TRANSCRIPT", digest)
    words = shlex.split(line)
    assert words[0] == "sceau"
    return CliRunner().invoke(main, words[1:], catch_exceptions=False)


def test_every_command_of_the_page_does_what_it_says(folder: Path, engine: Engine) -> None:
    review, here, there, back, yearly, _, switch = blocks("sh")
    shown = run(review.strip())
    assert shown.stdout.count("Certificate: ") == 4, shown.output
    assert re.findall(r"Its CRL: (.*)", shown.stdout) == [
        "plain", "national, 16 shards", "national, 16 shards", "plain",
    ]  # fmt: skip
    for line in (here + there + back + yearly).splitlines():
        done = run(line)
        assert done.exit_code == 0, done.output
    listed = run("sceau ca list").stdout
    assert re.search(r"persons-1 +issues", listed)
    assert re.search(r"organisations-1 .* national \(16\)", listed)
    assert re.search(r"servers-1 .* plain", listed)
    numbers = "SELECT number FROM crl WHERE authority_id = 'root-1' ORDER BY number"
    with engine.connect() as connection:
        assert connection.execute(text(numbers)).scalars().all() == [1, 2]
    # The next generation is not there: the switch says so, and changes nothing.
    for line, code in zip(switch.splitlines(), ("unknown-authority", "last-of-its-role"), strict=True):
        done = run(f"{line} --json")
        assert (done.exit_code, code in done.stdout) == (1, True), done.output
    assert not list((folder / "state").rglob("root-1.key"))
    for transcript, signer in (("here.txt", "persons-1"), ("there.txt", "root-1")):
        told = (folder / "carried" / transcript).read_text()
        assert "Present: Alice Martin, Benoît Roux" in told
        assert f"\nSignature of {signer}: " in told


def test_an_installation_without_a_ca_for_servers_gets_one(folder: Path, engine: Engine) -> None:
    """The root's key offline, as production has it; operators have certificates of the CA before."""
    _, here, there, back, _, servers, _ = blocks("sh")
    whole = (folder / "hierarchy.toml").read_text()
    (folder / "hierarchy.toml").write_text(whole.partition('[[authority]]\nid = "servers-1"')[0])
    for line in (here + there + back).splitlines():
        if "servers-1" not in line:
            done = run(line)
            assert done.exit_code == 0, done.output
    certify_operator(engine, datetime.now(UTC), number=1)
    (folder / "hierarchy.toml").write_text(whole)
    *steps, activation = servers.splitlines()
    for line in steps:
        done = run(line)
        assert done.exit_code == 0, done.output
    assert re.search(r"servers-1 +stands by", run("sceau ca list").stdout)
    # No worker runs here, which publishes its CRL and has its responder certified within the minute.
    done = run(f"{activation} --json")
    assert (done.exit_code, "not-ready" in done.stdout) == (1, True), done.output


def test_one_request_alone_is_what_the_ceremony_wrote(folder: Path) -> None:
    run("sceau ca ceremony hierarchy.toml --folder carried")
    (line,) = re.findall(r"`(sceau ca request [^`]*)`", PAGE.read_text())
    written = run(f"{line} --out one.csr")
    assert written.exit_code == 0, written.output
    one, other = ((folder / name).read_bytes() for name in ("one.csr", "carried/persons-1.csr"))
    # The signatures differ; subject and key are the same.
    assert x509.load_pem_x509_csr(one).public_key() == x509.load_pem_x509_csr(other).public_key()


def test_the_bridges_of_the_page_belong_to_a_second_generation(folder: Path) -> None:
    first, bridges = blocks("toml")
    tables = re.split(r"(?=\[\[authority\]\])", first)
    second = [re.sub(r"-1\b", "-2", one).replace("generation = 1", "generation = 2") for one in tables[1:]]
    second = [one.replace('CA 1"', 'CA 2"') for one in second]
    (folder / "hierarchy.toml").write_text(first + "\n" + "".join(second) + "\n" + bridges)
    shown = run("sceau ca ceremony hierarchy.toml --dry-run")
    assert shown.stdout.count("Certificate: ") == 10, shown.output
    assert "root-2-by-root-1, by root-1 (offline)" in shown.stdout

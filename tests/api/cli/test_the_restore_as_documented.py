"""docs/how-to/restore.md, command by command, on a machine whose database was put back."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.api.commands import Sceau
from tests.restored import Machine

PAGE = Path(__file__).resolve().parents[3] / "docs" / "how-to" / "restore.md"
BLOCK = re.compile(r"```sh\n(.*?)```", re.DOTALL)


def test_every_command_of_the_page_does_what_it_says(
    machine: Machine, lost: dict[str, Any], sceau: Sceau, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fetched").mkdir()
    lists = machine.container.settings.kept.floor.parent / "lists"
    revoked = lost["revoked"]
    whole = (lists / f"{revoked.authority_id}.{revoked.shard}.crl").read_bytes()
    (tmp_path / "fetched" / "from-a-cache.crl").write_bytes(whole)
    pem = x509.load_der_x509_crl(whole).public_bytes(Encoding.PEM)
    (tmp_path / "fetched" / "from-a-reader.pem").write_bytes(pem)
    look, replay, others, accept, end = BLOCK.findall(PAGE.read_text())
    said = [_run(sceau, line, 1) for line in look.splitlines()]
    assert "CRLs of" in said[0]
    assert revoked.serial in said[0]
    dry, applied = (_run(sceau, line, 0) for line in replay.splitlines())
    assert "add --apply" in dry
    assert "add --apply" not in applied
    assert "nothing" in _run(sceau, others.strip(), 0)
    assert "sceau/audit/" in _run(sceau, accept.strip(), 0)
    machine.later(seconds=10)
    published, complete, verified = (_run(sceau, line, 0) for line in end.splitlines())
    assert "49" in published
    assert "complete" in complete
    assert "a log of" in verified


def _run(sceau: Sceau, line: str, code: int) -> str:
    words = shlex.split(line)
    assert words[0] == "sceau"
    done = sceau(*words[1:])
    assert done.exit_code == code, done.output
    return str(done.stdout)

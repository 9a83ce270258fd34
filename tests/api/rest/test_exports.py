"""Exports: whole or not at all, the same bytes for the same record, signed for whoever knows the CA."""

import base64
import csv
import gzip
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from flask import Flask
from sqlalchemy import Engine, text

from api.app import create_app
from api.jobs import exports
from api.jobs.table import run_job
from api.settings import Settings
from api.wiring import Container
from directory.base.clock import utc_now
from directory.base.db import transaction
from pki.publication import export_folder
from pki.publication.export import harmless
from pki.record import authorities as authority_rows
from tests.api.certificates import certify
from tests.api.conftest import Caller
from tests.api.signing import signer_in
from tests.conftest import NOON
from tests.factories import depart, seed_organisation, seed_practitioner, seed_token

DATA = {
    "authorities.ndjson.gz", "authorities.csv.gz", "organisations.ndjson.gz", "organisations.csv.gz",
    "practitioners.ndjson.gz", "practitioners.csv.gz", "practices.csv.gz", "mailboxes.ndjson.gz",
    "mailboxes.csv.gz",
}  # fmt: skip


@pytest.fixture
def container(issuing: Container) -> Container:
    return issuing


@pytest.fixture
def app(container: Container) -> Flask:
    return create_app(container)


def write(container: Container) -> export_folder.Export:
    made = exports.write(container)
    assert made is not None
    return made


def lines(export: export_folder.Export, name: str) -> list[dict[str, Any]]:
    with gzip.open(export.folder / f"{name}.ndjson.gz") as file:
        return [json.loads(line) for line in file]


def sheet(export: export_folder.Export, name: str) -> list[dict[str, str]]:
    with gzip.open(export.folder / f"{name}.csv.gz", "rt", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def applied(engine: Engine, at: datetime) -> None:
    """A register applied at that instant."""
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO register_run (register, file_name, file_sha256, generated_at, started_at,"
                " finished_at, state) VALUES ('rpps', 'f', sha256('f'), :at, :at, :at, 'applied')"
            ),
            {"at": at},
        )


def test_it_holds_what_shows_and_nothing_else(container: Container, engine: Engine, now: datetime) -> None:
    shown = seed_practitioner(engine, 1)
    seed_practitioner(engine, 2, listed=False)
    gone = seed_practitioner(engine, 3)
    depart(engine, gone.national_id, now)
    desk = seed_organisation(engine)
    certify(engine, shown.mailbox, now - timedelta(days=1))
    made = write(container)
    assert [one["address"] for one in lines(made, "mailboxes")] == sorted([desk, shown.mailbox])
    people = {one["national_id"] for one in lines(made, "practitioners")}
    assert shown.national_id in people
    assert gone.national_id not in people
    mailbox = next(one for one in lines(made, "mailboxes") if one["address"] == shown.mailbox)
    assert mailbox["certificates"] == [base64.b64encode(b"certificate 1").decode()]
    authorities = [one["id"] for one in lines(made, "authorities")]
    assert authorities == ["organisations-1", "persons-1", "root-1", "servers-1"]
    assert [row["national_id"] for row in sheet(made, "practices")] == sorted(people)
    assert {row["finess"] for row in sheet(made, "organisations")} == {"750990012"}


def test_of_a_pair_the_one_to_encrypt_with_comes_first_and_each_says_what_it_is_for(
    container: Container, engine: Engine, now: datetime
) -> None:
    mailbox = seed_practitioner(engine).mailbox
    for number, use in ((1, "sign"), (2, "encrypt")):
        certify(engine, mailbox, now - timedelta(days=1), number=number, profile=f"practitioner-smime-{use}")
    made = write(container)
    (line,) = lines(made, "mailboxes")
    encrypt, sign = (base64.b64encode(f"certificate {number}".encode()).decode() for number in (2, 1))
    assert line["certificates"] == [encrypt, sign]
    assert line["certificate_purposes"] == [["encryption"], ["signature"]]
    (row,) = sheet(made, "mailboxes")
    assert (row["certificates"], row["certificate_purposes"]) == (f"{encrypt} {sign}", "encryption signature")


def test_the_same_record_gives_the_same_bytes(container: Container, engine: Engine, now: datetime) -> None:
    for number in range(1, 8):
        seed_practitioner(engine, number)
    first = write(container)
    second = write(replace(container, clock=lambda: now + timedelta(seconds=1)))
    assert first.stamp != second.stamp
    assert first.manifest["files"] == second.manifest["files"]
    assert set(first.manifest["files"]) == DATA
    for name, facts in first.manifest["files"].items():
        content = (second.folder / name).read_bytes()
        assert (sha256(content).hexdigest(), len(content)) == (facts["sha256"], facts["size"]), name
        assert content[4:8] == bytes(4), "no time in the gzip header"


def test_the_sums_are_those_that_sha256sum_reads(container: Container, engine: Engine) -> None:
    seed_practitioner(engine)
    made = write(container)
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=made.folder, check=True)
    named = {line.split("  ")[1] for line in (made.folder / "SHA256SUMS").read_text().splitlines()}
    assert named == {*DATA, "manifest.json"}


def test_openssl_verifies_the_signature_with_the_ca_alone(
    container: Container, engine: Engine, tmp_path: Path
) -> None:
    made = write(container)
    head, body, signature = (made.folder / "manifest.jws").read_text().split(".")

    def unpadded(told: str) -> bytes:
        return base64.urlsafe_b64decode(told + "=" * (-len(told) % 4))

    assert unpadded(body) == (made.folder / "manifest.json").read_bytes()
    chain = [
        x509.load_der_x509_certificate(base64.b64decode(one)) for one in json.loads(unpadded(head))["x5c"]
    ]
    with transaction(engine) as connection:
        root = authority_rows.load_authority(connection, "root-1")
    assert root is not None
    (tmp_path / "root.pem").write_bytes(x509.load_der_x509_certificate(root.der).public_bytes(Encoding.PEM))
    for name, one in zip(("leaf", "issuing"), chain, strict=True):
        (tmp_path / f"{name}.pem").write_bytes(one.public_bytes(Encoding.PEM))
    then = ["-attime", str(int(NOON.timestamp()))]
    verify = ["openssl", "verify", *then, "-CAfile", "root.pem", "-untrusted", "issuing.pem", "leaf.pem"]
    subprocess.run(verify, cwd=tmp_path, check=True)
    octets = unpadded(signature)
    from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

    (tmp_path / "signature").write_bytes(
        encode_dss_signature(int.from_bytes(octets[:32], "big"), int.from_bytes(octets[32:], "big"))
    )
    (tmp_path / "signed").write_text(f"{head}.{body}")
    key = subprocess.run(["openssl", "x509", "-in", "leaf.pem", "-noout", "-pubkey"], cwd=tmp_path,
                         capture_output=True, check=True).stdout  # fmt: skip
    (tmp_path / "key.pem").write_bytes(key)
    check = ["openssl", "dgst", "-sha256", "-verify", "key.pem", "-signature", "signature", "signed"]
    subprocess.run(check, cwd=tmp_path, check=True)
    usage = chain[0].extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert [one.dotted_string for one in usage] == ["1.3.6.1.5.5.7.3.36"]


def test_the_commands_of_the_reference_verify_it(engine: Engine, tmp_path: Path) -> None:
    """The shell block of docs/reference/changes.md, as an operator would paste it, on today's clock."""
    page = (Path(__file__).resolve().parents[3] / "docs/reference/changes.md").read_text()
    block = page.split("```bash\n")[1].split("```")[0]
    chosen = Settings(state=tmp_path, public_url="https://sceau.example")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "web.passphrase").write_text("for a test")
    with signer_in(tmp_path, engine, utc_now(), chosen.base_url) as signer:
        made = write(Container(settings=chosen, engine=engine, signer=signer, clock=utc_now))
    with transaction(engine) as connection:
        root = authority_rows.load_authority(connection, "root-1")
    assert root is not None
    pem = x509.load_der_x509_certificate(root.der).public_bytes(Encoding.PEM)
    (made.folder / "root.pem").write_bytes(pem)

    def run() -> subprocess.CompletedProcess[str]:
        command = ["bash", "-eu", "-o", "pipefail", "-c", block]
        return subprocess.run(command, cwd=made.folder, capture_output=True, text=True, check=False)

    good = run()
    assert good.returncode == 0, good.stderr
    assert "Verified OK" in good.stdout
    (made.folder / "manifest.json").write_text("{}")
    assert run().returncode != 0


def test_the_signer_of_lists_is_kept_and_renewed_at_half_its_life(
    container: Container, now: datetime
) -> None:
    def key() -> str:
        (path,) = container.settings.web_keys.glob("list-*.pem")
        return path.name

    write(container)
    first = key()
    write(replace(container, clock=lambda: now + timedelta(seconds=1)))
    assert key() == first
    later = now + timedelta(days=16)
    container.signer.clock = lambda: later  # type: ignore[attr-defined]
    write(replace(container, clock=lambda: later))
    assert key() != first


def test_one_is_due_daily_and_once_a_night_s_registers_have_been_applied(
    container: Container, engine: Engine, now: datetime
) -> None:
    def at(minutes: float) -> str:
        return exports.export_if_due(replace(container, clock=lambda: now + timedelta(minutes=minutes)))

    assert at(0) == "", "an empty record is nobody's export"
    applied(engine, now - timedelta(hours=1))
    assert at(0) != ""
    assert at(10) == ""
    applied(engine, now + timedelta(minutes=20))
    assert at(21) == "", "the next register may be on its way"
    assert at(26) != ""
    assert at(60) == ""
    container.signer.clock = lambda: now + timedelta(days=1)  # type: ignore[attr-defined]
    assert at(26 + 24 * 60) != ""


def test_a_person_who_asks_right_after_a_register_gets_one(
    container: Container, engine: Engine, now: datetime
) -> None:
    applied(engine, now - timedelta(seconds=5))
    assert run_job(container, "export", forced=True) == f"wrote {now:%Y%m%dT%H%M%SZ}"
    applied(engine, now)
    later = replace(container, clock=lambda: now + timedelta(seconds=10))
    assert run_job(later, "export") in (None, ""), "the clock waits for the other registers"
    assert run_job(later, "export", forced=True) == f"wrote {now + timedelta(seconds=10):%Y%m%dT%H%M%SZ}"


def test_one_is_due_at_once_when_none_leads_into_the_feed_any_more(
    container: Container, engine: Engine, now: datetime
) -> None:
    applied(engine, now - timedelta(hours=1))
    assert exports.export_if_due(container) != ""
    later = replace(container, clock=lambda: now + timedelta(minutes=10))
    assert exports.export_if_due(later) == ""
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO change (entity, key) VALUES ('crl', 'persons-1/3')"))
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM change"))
    assert exports.export_if_due(later) != ""


def test_the_last_seven_are_kept(container: Container, now: datetime) -> None:
    def at(seconds: int) -> export_folder.Export:
        return write(replace(container, clock=lambda: now + timedelta(seconds=seconds)))

    made = [at(seconds).stamp for seconds in range(9)]
    assert [one.stamp for one in export_folder.all_exports(container.settings.exports)] == made[:1:-1]


def test_what_fails_half_written_is_never_seen_and_frees_the_disk(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    whole = write(container)
    monkeypatch.setattr(exports, "seal", full)
    with pytest.raises(OSError, match="No space"):
        exports.write(replace(container, clock=lambda: whole.made_at + timedelta(seconds=5)))
    assert [one.name for one in container.settings.exports.iterdir()] == [whole.stamp]


def test_what_a_crash_left_half_written_or_half_removed_goes_with_the_next(
    container: Container, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def at(seconds: int) -> export_folder.Export:
        return write(replace(container, clock=lambda: now + timedelta(seconds=seconds)))

    def cut_off(folder: Path) -> None:
        (folder / "manifest.json").unlink()
        raise KeyboardInterrupt

    made = [at(seconds).stamp for seconds in range(7)]
    folder = container.settings.exports
    (folder / "20260901T000000Z.part").mkdir()
    with monkeypatch.context() as broken:
        broken.setattr(exports, "whole_or_not", _without_tidying)
        broken.setattr(export_folder.shutil, "rmtree", cut_off)
        with pytest.raises(KeyboardInterrupt):
            at(7)
    assert len(list(folder.iterdir())) == 9, "halves of two lie there"
    assert [one.stamp for one in export_folder.all_exports(folder)][1:] == made[:0:-1]
    at(8)
    assert len(list(folder.iterdir())) == 7


@contextmanager
def _without_tidying(folder: Path, stamp: str) -> Iterator[Path]:
    (folder / stamp).mkdir()
    yield folder / stamp


@pytest.mark.parametrize("value", ["=1+1", "+33", "-2", "@x", "\t=1", "\r=1", "\uff1d1"])
def test_no_value_of_a_register_is_a_formula(value: str) -> None:
    assert harmless(value) == f"'{value}"


def test_a_name_that_is_a_formula_reaches_the_sheet_disarmed_and_the_lines_as_it_is(
    container: Container, engine: Engine
) -> None:
    formula = '=HYPERLINK("http://evil.example";"x")'
    seed_practitioner(engine, family_name=formula, given_name='A "B", C\nD')
    made = write(container)
    (row,) = sheet(made, "practitioners")
    assert (row["family_name"], row["given_name"]) == (f"'{formula}", 'A "B", C\nD')
    assert lines(made, "practitioners")[0]["family_name"] == formula


def test_operators_find_the_newest_and_all_that_are_kept(
    container: Container, operator: Caller, now: datetime
) -> None:
    assert operator.get("/v1/exports").get_json() == {"items": []}
    assert operator.get("/v1/exports/latest").status_code == 404
    first = write(container)
    second = write(replace(container, clock=lambda: now + timedelta(seconds=1)))
    listed = operator.get("/v1/exports").get_json()["items"]
    assert [one["stamp"] for one in listed] == [second.stamp, first.stamp]
    newest = operator.get("/v1/exports/latest").get_json()
    assert newest == listed[0] == operator.get(f"/v1/exports/{second.stamp}").get_json()
    assert {one["name"] for one in newest["files"]} == DATA


def test_a_file_comes_whole_in_parts_or_not_at_all_when_it_is_known(
    container: Container, operator: Caller, engine: Engine
) -> None:
    seed_practitioner(engine)
    made = write(container)
    path = f"/v1/exports/{made.stamp}/mailboxes.ndjson.gz"
    content = (made.folder / "mailboxes.ndjson.gz").read_bytes()

    def get(**headers: str) -> tuple[int, bytes, dict[str, str]]:
        with operator.client.get(
            path, headers=operator.headers | {k.replace("_", "-"): v for k, v in headers.items()}
        ) as got:
            return got.status_code, got.data, dict(got.headers)

    status, body, headers = get()
    assert (status, body) == (200, content)
    etag = headers["ETag"]
    assert etag == f'"{sha256(content).hexdigest()}"', "strong, and the digest of the manifest"
    assert headers["Cache-Control"] == "private, no-cache"
    assert headers["Accept-Ranges"] == "bytes"
    status, body, headers = get(Range="bytes=10-19")
    assert (status, body, headers["Content-Range"]) == (206, content[10:20], f"bytes 10-19/{len(content)}")
    assert get(Range="bytes=-5")[1] == content[-5:]
    assert get(Range="bytes=10-", If_Range=etag)[1] == content[10:]
    assert get(Range="bytes=10-", If_Range='"another"')[:2] == (200, content)
    assert get(If_None_Match=etag)[:2] == (304, b"")
    dated = headers["Last-Modified"]
    for form in ("%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"):
        assert get(If_Modified_Since=parsedate_to_datetime(dated).strftime(form))[:2] == (304, b""), form
    assert get(If_Modified_Since=dated, If_None_Match='"another"')[:2] == (200, content)
    # Who asks by his own clock may have fetched the one before while this one was being made.
    assert get(If_Modified_Since="Tue, 01 Jan 2030 00:00:00 GMT")[:2] == (200, content)
    status, _, headers = get(Range=f"bytes={len(content)}-")
    assert (status, headers["Content-Type"]) == (416, "application/problem+json")
    assert container.downloads.taken == 0, "every way out gives the seat back"


@pytest.mark.parametrize(
    "path",
    ["latest/x", "latest/..", "latest/..%2f..%2fsettings.toml", "20260101T000000Z/manifest.json",
     "..%2f/manifest.json", "latest/manifest.json%00", "LATEST"],
)  # fmt: skip
def test_nothing_but_the_files_of_an_export_is_handed_out(
    path: str, container: Container, operator: Caller
) -> None:
    write(container)
    (container.settings.state / "settings.toml").write_text("secret = 1")
    answer = operator.get(f"/v1/exports/{path}")
    assert answer.status_code == 404
    assert answer.get_json()["code"] in {"unknown-export", "no-such-resource"}


def test_a_token_fetches_two_files_at_a_time(container: Container, operator: Caller) -> None:
    made = write(container)
    path = f"/v1/exports/{made.stamp}/manifest.json"
    first, second = operator.get(path), operator.get(path)
    third = operator.get(path)
    assert (first.status_code, second.status_code) == (200, 200)
    assert (third.status_code, third.get_json()["code"]) == (503, "too-many-downloads")
    assert third.headers["Retry-After"]
    first.close()
    with operator.get(path) as fourth:
        assert fourth.status_code == 200
    second.close()
    assert container.downloads.taken == 0


def test_registrars_copy_nothing(app: Flask, engine: Engine) -> None:
    seed_token(engine, "registrar")
    caller = Caller(app.test_client(), "sceau_registrar")
    assert caller.get("/v1/exports").status_code == 403


def test_memory_does_not_grow_with_the_record(container: Container, engine: Engine) -> None:
    """A page at a time: what is held of a hundred people is what is held of two."""
    import tracemalloc

    from pki.publication import export as module

    def peak(folder: Path) -> int:
        folder.mkdir()
        tracemalloc.start()
        with transaction(engine, read_only=True) as connection:
            module.write_export(connection, folder, container.clock())
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    original, module._PAGE = module._PAGE, 5
    try:
        for number in range(1, 6):
            seed_practitioner(engine, number)
        peak(container.settings.state / "warm")
        small = peak(container.settings.state / "small")
        for number in range(6, 106):
            seed_practitioner(engine, number)
        assert peak(container.settings.state / "large") < small * 1.3
    finally:
        module._PAGE = original

"""One reviewed file makes the CAs: nonsense is refused by its line, a repeat changes nothing."""

import base64
import subprocess
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy import Engine, text

from directory.base.audit import Actor
from directory.base.db import transaction
from directory.base.errors import Refusal
from directory.base.locks import try_lock
from pki.ceremony import perform, transcript
from pki.ceremony.perform import Outcome
from pki.ceremony.plan import Place, Plan, read
from pki.model import CrlForm
from pki.record import authorities
from pki.signing.file import FileKeys
from tests.pki.hierarchies import BASE_URL, BRIDGES, NATIONAL, PASSPHRASE, cross, file, generation, plan, ring

ACTOR = Actor("test:ceremony")


def hold(engine: Engine, folder: Path, read_plan: Plan, now: datetime) -> Outcome:
    return perform.perform(engine, read_plan, ring(folder), now=now, actor=ACTOR)


def rows(engine: Engine) -> dict[str, tuple[str, bytes]]:
    with engine.connect() as connection:
        return {one.id: (one.state.value, one.der) for one in authorities.authorities(connection)}


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        (
            'role = "persons"',
            'role = "person"',
            "`role` is one of root, persons, organisations, servers, not 'person'",
        ),
        ("days = 9125", "days = 9126", "`days` is a number from 1 to 9125"),
        ("days = 9125", "days = 4000", "its 4380 days are beyond its issuer's 4000"),
        ("days = 9125", "days = true", "`days` is not a whole number"),
        ('curve = "P-256"', 'curve = "P-224"', "`curve` is one of P-256, P-384, not 'P-224'"),
        ('curve = "P-256"', 'curve = "RSA-2048"', "`curve` is one of P-256, P-384, not 'RSA-2048'"),
        ('curve = "P-384"', 'curve = "P-256"\ncolour = "red"', "unknown `colour`"),
        ("shards = 16", "shards = 0", "`shards` is a number from 1 to 1024"),
        ("shards = 16\n", "", "`shards` is missing"),
        ('crl = "national"', 'crl = "plain"', "a plain CRL has one shard"),
        ('crl = "national"', 'crl = "delta"', "`crl` is one of plain, national, not 'delta'"),
        ("shards = 1\n", 'shards = 1\ncrl = "national"\n', "the CRL of a root is plain"),
        ("shards = 1\n", "shards = 2\n", "a root has one shard"),
        ("generation = 1", "generation = 2", "`id` is role and generation, root-2"),
        ('place = "file"', 'place = "pocket"', "`place` is one of file, token, offline"),
        ('issuer = "root-1"', 'issuer = "root-9"', "`issuer` is a root of this file"),
        ('issuer = "root-1"\n', "", "any other authority has one"),
        ('name = "persons-1"', 'name = "root-1"', "root-1 has the same key"),
        ('name = "root-1"', 'name = "../root-1"', "`name` has small letters"),
        ("Persons CA", "Root CA", "root-1 has the same `subject`"),
        ("Sceau Persons", "Sceau  Persons", "`subject` is empty, or has outer, double or unprintable"),
        ("[ceremony]", "[ceremonies]", "`ceremony` is missing"),
        ("present = []", 'present = ["Alice", 3]', "`present` is a list of names"),
        ("present = []", 'present = []\nbase_url = "ldap://here"', "`base_url` is an address of http"),
        ("[ceremony]", "[ceremony", "This is no TOML file"),
    ],
)
def test_nonsense_is_refused_before_any_key_is_touched(before: str, after: str, says: str) -> None:
    words = NATIONAL.read_text()
    assert before in words
    with pytest.raises(Refusal) as refused:
        read(words.replace(before, after, 1).encode(), BASE_URL)
    assert refused.value.code == "bad-ceremony"
    assert says in refused.value.text


def test_a_refusal_names_the_line_of_its_table() -> None:
    words = NATIONAL.read_text()
    line = words.splitlines().index('id = "persons-1"')
    with pytest.raises(Refusal) as refused:
        read(words.replace("shards = 16", "shards = 5000", 1).encode(), BASE_URL)
    assert refused.value.text.startswith(f"line {line}, [[authority]]")


@pytest.mark.parametrize(
    ("tables", "says"),
    [
        ((cross("root-2", "root-1"),), "`subject` is a root of this file"),
        ((generation(2), cross("persons-2", "root-1")), "`subject` is a root of this file"),
        ((generation(2), cross("root-2", "root-1", 3651)), "`days` is a number from 1 to 3650"),
        ((generation(2), BRIDGES, cross("root-2", "root-1")), "it stands there twice"),
        ((generation(1),), "`id` stands there twice"),
        (
            (generation(2).replace('place = "file"', 'place = "offline"'),),
            "only a root's key may lie offline",
        ),
    ],
)
def test_tables_that_contradict_each_other_are_refused(tables: tuple[str, ...], says: str) -> None:
    with pytest.raises(Refusal) as refused:
        plan(generation(1), *tables)
    assert says in refused.value.text


def test_a_dry_run_shows_every_certificate_and_touches_neither_key_nor_row(
    engine: Engine, now: datetime
) -> None:
    wanted = plan(generation(1), generation(2), BRIDGES)
    with transaction(engine, read_only=True) as connection:
        told = perform.preview(connection, wanted, now)
    assert [line for line in told.splitlines() if line.startswith("Certificate: ")] == [
        "Certificate: root-1, by its own key (file)",
        "Certificate: root-2, by its own key (file)",
        "Certificate: root-2-by-root-1, by root-1 (file)",
        "Certificate: root-1-by-root-2, by root-2 (file)",
        "Certificate: persons-1, by root-1 (file)",
        "Certificate: organisations-1, by root-1 (file)",
        "Certificate: persons-2, by root-2 (file)",
        "Certificate: organisations-2, by root-2 (file)",
    ]
    assert "CA:TRUE, pathlen:0" in told
    assert f"URI:{BASE_URL}/crl/root-2/0.crl" in told
    assert f"CA Issuers - URI:{BASE_URL}/ca/root-1.p7c" in told
    assert "Not After : 2051-08-26 11:54:59 UTC" in told
    assert rows(engine) == {}
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM audit_pending")).scalar_one() == 0


def test_what_the_dry_run_shows_is_what_is_signed(engine: Engine, tmp_path: Path, now: datetime) -> None:
    wanted = plan(generation(1))
    with transaction(engine, read_only=True) as connection:
        told = perform.preview(connection, wanted, now)
    done = hold(engine, tmp_path / "keys", wanted, now)
    drawn = {line.strip() for line in told.splitlines() if "(" not in line and "Certificate:" not in line}
    signed = {line.strip() for line in done.transcript.splitlines()}
    assert drawn <= signed


def test_openssl_reads_what_the_transcript_says(engine: Engine, tmp_path: Path, now: datetime) -> None:
    done = hold(engine, tmp_path / "keys", plan(generation(1)), now)
    der = rows(engine)["persons-1"][1]
    path = tmp_path / "persons.cer"
    path.write_bytes(der)
    read_by_openssl = subprocess.run(
        ["openssl", "x509", "-inform", "DER", "-in", str(path), "-noout", "-text"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    for words in ("CA:TRUE, pathlen:0", "Certificate Sign, CRL Sign", f"URI:{BASE_URL}/ca/root-1.p7c"):
        assert words in read_by_openssl
        assert words in done.transcript
    assert sha256(der).hexdigest() in done.transcript


def test_the_transcript_is_signed_by_each_key_and_its_digest_is_in_the_log(
    engine: Engine, tmp_path: Path, now: datetime
) -> None:
    wanted = plan(generation(1))
    done = hold(engine, tmp_path / "keys", wanted, now)
    known = {name: x509.load_der_x509_certificate(der) for name, (_, der) in rows(engine).items()}
    assert sorted(transcript.verify(done.transcript, known)) == sorted(known)
    assert "Present: Alice, Bob" in done.transcript
    assert wanted.sha256.hex() in done.transcript
    with pytest.raises(InvalidSignature):
        transcript.verify(done.transcript.replace("Alice", "Mallory"), known)
    with engine.connect() as connection:
        query = "SELECT subject, detail FROM audit_pending WHERE event = 'ceremony.held'"
        ((subject, detail),) = connection.execute(text(query)).all()
    assert subject == wanted.sha256.hex()
    assert detail["transcript_sha256"] == sha256(done.transcript.encode()).hexdigest()
    assert detail["present"] == ["Alice", "Bob"]


def test_openssl_verifies_the_signature_of_a_transcript(
    engine: Engine, tmp_path: Path, now: datetime
) -> None:
    done = hold(engine, tmp_path / "keys", plan(generation(1)), now)
    body, _, signatures = done.transcript.partition("Signature of ")
    root = next(line for line in f"Signature of {signatures}".splitlines() if "of root-1:" in line)
    public = x509.load_der_x509_certificate(rows(engine)["root-1"][1]).public_key()
    (tmp_path / "root.pub").write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    (tmp_path / "signature").write_bytes(base64.b64decode(root.split(": ")[1]))
    (tmp_path / "body").write_text(body)
    verified = subprocess.run(
        ["openssl", "dgst", "-sha384", "-verify", "root.pub", "-signature", "signature", "body"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert verified.stdout == "Verified OK\n"


def test_a_repeat_keeps_what_is_there_and_signs_nothing(
    engine: Engine, tmp_path: Path, now: datetime
) -> None:
    hold(engine, tmp_path / "keys", plan(generation(1)), now)
    before = rows(engine)
    again = hold(engine, tmp_path / "keys", plan(generation(1)), now + timedelta(days=400))
    assert (again.made, again.transcript) == ((), "")
    assert sorted(again.kept) == ["organisations-1", "persons-1", "root-1"]
    assert rows(engine) == before


@pytest.mark.parametrize(
    ("before", "after", "differs"),
    [
        ("Sceau Persons CA 1", "Sceau Persons CA one", "subject"),
        ("days = 4380", "days = 4379", "days"),
        ("shards = 16", "shards = 8", "shards"),
        ('name = "persons-1"', 'name = "persons-one"', "key"),
        ("trust.example", "trust.other.example", "base_url"),
    ],
)
def test_what_differs_from_the_record_is_refused_by_name(
    engine: Engine, tmp_path: Path, now: datetime, *, before: str, after: str, differs: str
) -> None:
    words = file(generation(1)).decode()
    hold(engine, tmp_path / "keys", read(words.encode()), now)
    with pytest.raises(Refusal) as refused:
        hold(engine, tmp_path / "keys", read(words.replace(before, after, 1).encode()), now)
    assert refused.value.code == "ceremony-differs"
    assert refused.value.details["differs"] == [differs]


def test_an_issuing_ca_that_would_outlive_an_older_root_is_refused(
    engine: Engine, tmp_path: Path, now: datetime
) -> None:
    hold(engine, tmp_path / "keys", plan(generation(1, roots_only=True)), now)
    with pytest.raises(Refusal) as refused:
        hold(engine, tmp_path / "keys", plan(generation(1)), now + timedelta(days=20 * 365))
    assert refused.value.code == "beyond-issuer"
    assert list(rows(engine)) == ["root-1"]


def test_a_key_of_an_earlier_try_on_another_curve_is_refused(
    engine: Engine, tmp_path: Path, now: datetime
) -> None:
    FileKeys(tmp_path / "keys", PASSPHRASE).make("root-1", ec.SECP256R1())
    with pytest.raises(Refusal) as refused:
        hold(engine, tmp_path / "keys", plan(generation(1)), now)
    assert refused.value.code == "key-differs"
    assert rows(engine) == {}


def test_a_key_that_lies_on_no_token_of_ours_is_out_of_reach(
    engine: Engine, tmp_path: Path, now: datetime
) -> None:
    wanted = plan(generation(1).replace('place = "file"', 'place = "token"'))
    with pytest.raises(Refusal) as refused:
        hold(engine, tmp_path / "keys", wanted, now)
    assert refused.value.code == "key-out-of-reach"
    assert wanted.authorities[0].key.place is Place.TOKEN


def test_two_ceremonies_do_not_run_side_by_side(engine: Engine, tmp_path: Path, now: datetime) -> None:
    with try_lock(engine, "ceremony"), pytest.raises(Refusal) as refused:
        hold(engine, tmp_path / "keys", plan(generation(1)), now)
    assert refused.value.code == "ceremony-running"


@pytest.mark.parametrize("form", list(CrlForm))
def test_a_first_run_is_the_shipped_file(
    engine: Engine, tmp_path: Path, now: datetime, form: CrlForm
) -> None:
    keys = FileKeys(tmp_path / "keys", PASSPHRASE)
    perform.establish(engine, keys, base_url=BASE_URL, now=now, actor=ACTOR, crl_form=form)
    shipped = read(perform.SHIPPED[form].read_bytes(), BASE_URL)
    assert sorted(rows(engine)) == sorted(one.id for one in shipped.authorities)
    assert {state for state, _ in rows(engine).values()} == {"active"}
    with engine.connect() as connection:
        known = {one.id: (one.crl_form, one.shards) for one in authorities.authorities(connection)}
    issuing = (form, 1 if form is CrlForm.PLAIN else 16)
    assert known == {
        "root-1": (CrlForm.PLAIN, 1), "persons-1": issuing, "organisations-1": issuing, "servers-1": issuing,
    }  # fmt: skip

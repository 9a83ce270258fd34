"""docs/how-to/persons.md, command by command; and what one person cannot do by any command."""

import re
import shlex
import stat
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Engine, text

from api.cli.main import main
from directory.base.clock import utc_now
from directory.base.db import transaction
from directory.rules import FRANCE
from pki.tlog import sequencer
from pki.tlog.checkpoint import AuditKey
from tests.api.commands import Sceau, token, told
from tests.api.signing import request_for, signer_in
from tests.factories import seed_practitioner

VERIFY = Path(__file__).resolve().parents[3] / "docs" / "how-to" / "verify-an-enrolment.md"
PAGE = Path(__file__).resolve().parents[3] / "docs" / "how-to" / "persons.md"
BLOCK = re.compile(r"```sh\n(.*?)```", re.DOTALL)
SECRET = "of a test"
ADMINISTRATORS = ("anne", "bruno")
RECOVERY = ("recovery-1", "recovery-2", "recovery-3")
Run = Callable[..., Result]


@pytest.fixture
def number(engine: Engine) -> Callable[[], None]:
    """What the job `checkpoints` does each second."""
    key = AuditKey(Ed25519PrivateKey.generate())

    def act() -> None:
        with transaction(engine) as connection:
            sequencer.sequence(connection, key, now=utc_now())

    return act


@pytest.fixture
def run(sceau: Sceau, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A line of the page: its output goes where `>` says, a passphrase is typed, `yes` is said."""
    monkeypatch.chdir(tmp_path)
    assert state == tmp_path / "var"

    def act(line: str) -> Result:
        command, _, out = line.partition(" > ")
        program, *words = shlex.split(command)
        assert program == "sceau"
        if words[0] == "sign" or words[:2] in (["person", "key"], ["anchors", "make"]):
            more = ["--yes"] if words[0] == "sign" and "--yes" not in words else []
            done = CliRunner().invoke(main, [*words, *more], input=f"{SECRET}\n{SECRET}\n")
        else:
            done = sceau(*words)
        if out:
            (tmp_path / out).write_text(done.stdout)
        return done

    return act


def well(done: Result) -> Result:
    assert done.exit_code == 0, done.output
    return done


def refused(done: Result) -> str:
    assert done.exit_code == 1, done.output
    return done.stderr.strip().splitlines()[-1].split(":", 1)[0]


@pytest.fixture
def founded(run: Run) -> Run:
    """Keys of two administrators and three recovery keys, and the anchors that name them."""
    for name in (*ADMINISTRATORS, *RECOVERY):
        well(run(f"sceau person key {name} --plain"))
    administrators = " ".join(f"--administrator {name}={name}.public.pem" for name in ADMINISTRATORS)
    recovery = " ".join(f"--recovery {name}.public.pem" for name in RECOVERY)
    well(run(f"sceau anchors make var {administrators} {recovery}"))
    return run


def person_of(run: Run, name: str) -> dict[str, str]:
    return told(well(run(f"sceau person key {name} --plain --json")))


def sign(run: Run, draft: str, *names: str) -> str:
    """The options that hand in the acts of these."""
    for name in names:
        well(run(f"sceau sign {draft} --key {name}.pem > {name}-{draft}.act"))
    return " ".join(f"--act {name}-{draft}.act" for name in names)


def test_every_command_of_the_page_does_what_it_says(
    run: Run, tmp_path: Path, number: Callable[[], None]
) -> None:
    names: dict[str, str] = {}
    keys, anchors, add, grant, end, lost, review, freeze, unfreeze = BLOCK.findall(PAGE.read_text())

    def all_of(block: str) -> list[Result]:
        done = []
        for line in block.splitlines():
            for written, meant in names.items():
                line = line.replace(written, meant)  # noqa: PLW2901 - as it is typed
            done.append(well(run(line)))
        number()
        return done

    all_of(keys)
    assert stat.S_IMODE((tmp_path / "anne.pem").stat().st_mode) == 0o600
    assert b"ENCRYPTED" in (tmp_path / "anne.pem").read_bytes()
    assert "recovery key" in all_of(anchors)[-1].stdout
    made, *_ = all_of(add)
    person = re.search(r"person:[0-9a-f]{32}", made.stdout)
    credential = re.search(r"cred:[0-9a-f]{64}", made.stdout)
    assert person
    assert credential
    names |= {"person:4f1c…": person[0], "cred:9a07…": credential[0]}
    all_of(grant)
    listed = well(run("sceau person list")).stdout
    assert re.search(rf"{person[0]} +registrar CNOM +\S+ \S+, line 1 *\n", listed)
    all_of(end)
    assert re.search(rf"{person[0]} +registrar CNOM .*line 1 .*line 2", well(run("sceau person list")).stdout)
    all_of(lost)
    all_of(review)
    today = utc_now().astimezone(FRANCE).date()
    for day, held in ((today, True), (today - timedelta(days=1), False), (today + timedelta(days=1), False)):
        assert (person[0] in well(run(f"sceau person list --on {day}")).stdout) is held
    all_of(freeze)
    assert "frozen" in well(run("sceau person list")).stdout
    all_of(unfreeze)
    assert "frozen" not in well(run("sceau person list")).stdout


def test_what_takes_a_power_away_holds_before_it_has_a_number(founded: Run) -> None:
    well(founded("sceau person draft freeze > freeze.json"))
    well(founded(f"sceau freeze {sign(founded, 'freeze.json', 'anne')}"))
    assert told(founded("sceau person list --json"))["frozen"] is True
    well(founded("sceau person draft unfreeze > unfreeze.json"))
    well(founded(f"sceau unfreeze {sign(founded, 'unfreeze.json', 'anne', 'bruno')}"))
    assert told(founded("sceau person list --json"))["frozen"] is True


def test_one_person_gives_no_power(founded: Run, number: Callable[[], None]) -> None:
    anne, chloe = told(founded("sceau anchors show --json"))["administrators"], person_of(founded, "chloe")
    well(founded("sceau person draft credential.add --public-key chloe.public.pem > add.json"))
    for names in ((), ("anne",), ("anne", "recovery-1")):
        assert (
            refused(founded(f"sceau person change add.json {sign(founded, 'add.json', *names)}"))
            == "too-few-persons"
        )
    # The same person twice, by one act, by two, and by a second credential.
    once = sign(founded, "add.json", "anne")
    assert refused(founded(f"sceau person change add.json {once} {once}")) == "used-before"
    well(founded("sceau sign add.json --key anne.pem > again.act"))
    assert refused(founded(f"sceau person change add.json {once} --act again.act")) == "too-few-persons"
    well(founded(f"sceau person change add.json {sign(founded, 'add.json', 'anne', 'bruno')}"))
    number()
    first = next(iter(anne))
    person_of(founded, "anne-2")
    well(
        founded(
            f"sceau person draft credential.add --person {first} --public-key anne-2.public.pem > second.json"
        )
    )
    owner = next(
        name
        for name in ADMINISTRATORS
        if founded(f"sceau sign second.json --key {name}.pem").stderr.startswith(f"{first} signs")
    )
    well(founded(f"sceau person change second.json {sign(founded, 'second.json', *ADMINISTRATORS)}"))
    number()
    well(
        founded(f"sceau person draft role.grant --person {chloe['person']} --role administrator > grant.json")
    )
    well(founded(f"sceau sign grant.json --key anne-2.pem --person {first} > second.act"))
    by_one = f"{sign(founded, 'grant.json', owner)} --act second.act"
    assert refused(founded(f"sceau person change grant.json {by_one}")) == "too-few-persons"


def test_no_command_leaves_fewer_than_two_administrators(founded: Run) -> None:
    administrators = told(founded("sceau anchors show --json"))["administrators"]
    for person, credential in administrators.items():
        well(founded(f"sceau person draft role.end --person {person} --role administrator > end.json"))
        named = f"--person {person} --credential {credential}"
        well(founded(f"sceau person draft credential.revoke {named} > lost.json"))
        for draft in ("end.json", "lost.json"):
            for names in (("anne",), ("anne", "bruno"), ("recovery-1", "recovery-2")):
                done = founded(f"sceau person change {draft} {sign(founded, draft, *names)}")
                assert refused(done) == "too-few-administrators"


def test_an_act_counts_once_in_its_time_for_what_it_says(
    founded: Run, tmp_path: Path, number: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    well(founded("sceau person draft freeze > freeze.json"))
    well(founded("sceau person draft unfreeze > unfreeze.json"))
    both = sign(founded, "unfreeze.json", "anne", "bruno")
    one = sign(founded, "freeze.json", "anne")
    well(founded(f"sceau freeze {one}"))
    number()
    assert refused(founded(f"sceau freeze {both}")) == "no-agreement"
    well(founded(f"sceau person change unfreeze.json {both}"))
    number()
    assert refused(founded(f"sceau freeze {one}")) == "used-before"
    with monkeypatch.context() as patch:
        patch.setattr("api.cli.sign.utc_now", lambda: datetime.fromisoformat("2026-01-01T00:00:00+00:00"))
        late = sign(founded, "freeze.json", "anne")
    assert refused(founded(f"sceau freeze {late}")) == "expired"
    other = orjson.loads((tmp_path / "freeze.json").read_bytes()) | {"installation": "00" * 16}
    (tmp_path / "elsewhere.json").write_bytes(orjson.dumps(other))
    assert (
        refused(founded(f"sceau freeze {sign(founded, 'elsewhere.json', 'anne')}")) == "another-installation"
    )


def test_keys_of_a_state_folder_count_in_a_demo_alone(founded: Run, tmp_path: Path) -> None:
    (tmp_path / "var" / "persons").mkdir()
    for name in ADMINISTRATORS:
        (tmp_path / f"{name}.pem").rename(tmp_path / "var" / "persons" / f"{name}.pem")
    assert refused(founded("sceau freeze --as anne")) == "no-demo"
    anchors = tmp_path / "var" / "anchors.json"
    anchors.write_bytes(anchors.read_bytes().replace(b'"demo":false', b'"demo":true'))
    (tmp_path / "var" / "floor" / "powers.json").unlink(missing_ok=True)
    assert refused(founded("sceau freeze --as chloe")) == "unknown-person"
    well(founded("sceau freeze --as anne"))
    assert refused(founded("sceau unfreeze --as anne")) == "too-few-persons"
    well(founded("sceau unfreeze --as anne --as bruno"))


def test_anchors_that_one_person_could_turn_are_not_made(run: Run, tmp_path: Path) -> None:
    for name in ("anne", "bruno", *RECOVERY):
        well(run(f"sceau person key {name} --plain"))
    one, two = "--administrator a=anne.public.pem", "--administrator b=bruno.public.pem"
    three = " ".join(f"--recovery {name}.public.pem" for name in RECOVERY)
    two_keys = three.rpartition(" --recovery")[0]
    for words in (
        f"{one} {three}", f"{one} --administrator b=anne.public.pem {three}", f"{one} {two} {two_keys}",
        f"{one} {two} {three} --installation x", f"{one} --administrator b=anne.pem {three}",
        f"{one} --administrator a=bruno.public.pem {three}",
    ):  # fmt: skip
        assert refused(run(f"sceau anchors make out {words}")) == "bad-anchors"
    assert not (tmp_path / "out" / "anchors.json").exists()
    well(run(f"sceau anchors make out {one} {two} {three}"))
    assert refused(run(f"sceau anchors make out {one} {two} {three}")) == "anchors-exist"
    assert run("sceau anchors show").exit_code == 2


def test_a_key_is_never_replaced_and_opens_by_its_passphrase(run: Run, tmp_path: Path) -> None:
    well(run("sceau person key anne"))
    before = (tmp_path / "anne.pem").read_bytes()
    assert refused(run("sceau person key anne")) == "key-file-exists"
    assert (tmp_path / "anne.pem").read_bytes() == before
    (tmp_path / "wrong").write_text("another")
    draft = {
        "act": "freeze",
        "installation": "00" * 16,
        "shown": {},
        "subjects": [f"installation:{'00' * 16}"],
    }
    (tmp_path / "freeze.json").write_bytes(orjson.dumps(draft))
    well(run("sceau sign freeze.json --key anne.pem"))
    assert (
        refused(run("sceau sign freeze.json --key anne.pem --passphrase-file wrong"))
        == "person-key-unreadable"
    )
    assert run("sceau person key ../anne").exit_code == 2


def test_what_is_shown_moves_no_cursor_and_nothing_else_is_signed(run: Run, tmp_path: Path) -> None:
    well(run("sceau person key anne --plain"))
    shown = {"person": "\x1b[2K\rharmless\u202e", "public_key": "a\nb"}
    draft = {"act": "credential.add", "installation": "00" * 16, "shown": shown, "subjects": ["person:x"]}
    (tmp_path / "draft.json").write_bytes(orjson.dumps(draft))
    done = well(run("sceau sign draft.json --key anne.pem"))
    assert "\x1b" not in done.stderr
    assert "\u202e" not in done.stderr
    assert "\\x1b[2K\\rharmless\\u202e" in done.stderr
    for other in ({**draft, "more": 1}, {**draft, "shown": {"n": 1.5}}, {**draft, "act": "dance"}, [], "x"):
        (tmp_path / "draft.json").write_bytes(orjson.dumps(other))
        assert refused(run("sceau sign draft.json --key anne.pem")) == "bad-draft"


def test_nothing_is_signed_without_a_yes(tmp_path: Path, run: Run) -> None:
    well(run("sceau person key anne --plain"))
    draft = {"act": "freeze", "installation": "00" * 16, "shown": {}, "subjects": ["installation:x"]}
    (tmp_path / "freeze.json").write_bytes(orjson.dumps(draft))
    done = CliRunner().invoke(main, ["sign", "freeze.json", "--key", "anne.pem"], input="yes\n")
    assert (done.exit_code, done.stdout) == (2, "")


def test_a_token_may_belong_to_a_person(sceau: Sceau, engine: Engine) -> None:
    person = f"person:{'4f' * 16}"
    made = sceau(
        "token", "create", "Anne", "--role", "registrar", "--authority", "CNOM", "--person", person, "--json"
    )
    assert told(made)["person"] == person
    assert [token["person"] for token in told(sceau("token", "list", "--json"))["tokens"]] == [person]
    with engine.connect() as connection:
        assert connection.execute(text("SELECT person FROM api_token")).scalar_one() == person
    wrong = sceau("token", "create", "B", "--role", "auditor", "--person", "anne", "--json")
    assert (wrong.exit_code, told(wrong)["type"]) == (1, "bad-token-person")


def enrolling(run: Run, number: Callable[[], None], *names: str) -> None:
    """These are registrars of the CNOM, each with a key of hers."""
    for name in names:
        person = person_of(run, name)["person"]
        well(run(f"sceau person draft credential.add --public-key {name}.public.pem > key-{name}"))
        role = f"--person {person} --role registrar --authority CNOM"
        well(run(f"sceau person draft role.grant {role} > role-{name}"))
        for draft in (f"key-{name}", f"role-{name}"):
            well(run(f"sceau person change {draft} {sign(run, draft, *ADMINISTRATORS)}"))
            number()


def test_two_registrars_sign_an_enrolment_from_a_terminal(
    founded: Run, number: Callable[[], None], sceau: Sceau, engine: Engine, tmp_path: Path
) -> None:
    """With the key at hand, or on a machine of its own; one person is refused whatever token she has."""
    enrolling(founded, number, "chloe", "david")
    one, two = token(sceau, "one"), token(sceau, "two")
    seeded = seed_practitioner(engine)
    words = ("enrol", seeded.national_id, seeded.mailbox)
    assert refused(sceau(*words, token=one)) == "act-missing"
    asked = told(well(sceau(*words, "--key", "chloe.pem", "--json", token=one)))
    approve = ("enrol", "--approve", asked["id"])
    assert refused(sceau(*approve, "--key", "chloe.pem", token=two)) == "self-approval"
    (tmp_path / "draft").write_text(well(sceau(*approve, "--draft", token=two)).stdout)
    well(founded("sceau sign draft --key david.pem > david.act"))
    assert told(well(sceau(*approve, "--act", "david.act", "--json", token=two)))["state"] == "approved"
    other = seed_practitioner(engine, 2)
    words = ("enrol", other.national_id, other.mailbox)
    draft = well(sceau(*words, "--draft", token=one)).stdout
    (tmp_path / "draft").write_text(draft)
    well(founded("sceau sign draft --key chloe.pem > chloe.act"))
    assert refused(sceau(*words, "--act", "chloe.act", token=one)) == "act-unfit"
    drafted = orjson.loads(draft)["shown"]["enrolment"]
    well(sceau(*words, "--act", "chloe.act", "--id", drafted, token=one))


def test_without_anchors_an_enrolment_is_signed_by_nobody(sceau: Sceau, engine: Engine, run: Run) -> None:
    well(run("sceau person key chloe --plain"))
    seeded, one = seed_practitioner(engine), token(sceau, "one")
    words = ("enrol", seeded.national_id, seeded.mailbox)
    for more in (["--draft"], ["--key", "chloe.pem"], ["--act", "chloe.pem"]):
        assert refused(sceau(*words, *more, token=one)) == "no-anchors"
    well(sceau(*words, token=one))


@pytest.mark.parametrize(
    ("forge", "says"),
    [
        (None, ""),
        (lambda told: told["shown"]["names"].update(family_name="THIEF"), "shown otherwise"),
        (lambda told: told["acts"].__setitem__(1, told["acts"][0]), "one person alone"),
        (lambda told: told["lines"][0]["signed"].pop(), "one administrator alone"),
        (lambda told: told["anchors"].update(installation="0" * 32), "not signed for this"),
        (lambda told: told["anchors"]["administrators"].popitem(), "KeyError"),
        (lambda told: told["acts"].__setitem__(0, told["acts"][0][:-8] + "AAAAAAAA"), "CalledProcessError"),
    ],
)
def test_an_auditor_verifies_who_signed_without_the_service(
    forge: Callable[[dict[str, Any]], object] | None, says: str, *, founded: Run, number: Callable[[], None],
    sceau: Sceau, engine: Engine, tmp_path: Path, built: dict[str, Any],
) -> None:  # fmt: skip
    """docs/how-to/verify-an-enrolment.md, as it is written."""
    enrolling(founded, number, "chloe", "david")
    one, two = token(sceau, "one"), token(sceau, "two")
    seeded = seed_practitioner(engine)
    words = ("enrol", seeded.national_id, seeded.mailbox, "--key", "chloe.pem", "--json")
    asked = told(well(sceau(*words, token=one)))
    well(sceau("enrol", "--approve", asked["id"], "--key", "david.pem", token=two))
    (tmp_path / "request.pem").write_text(request_for())
    with signer_in(tmp_path / "signer", engine, utc_now(), "https://sceau.example") as made:
        built["signer"] = made
        issued = told(well(sceau("issue", asked["id"], "--csr", "request.pem", "--json", token=one)))
    evidence = orjson.loads(well(sceau("evidence", issued["serial"])).stdout)
    if forge is not None:
        forge(evidence)
    (tmp_path / "evidence.json").write_bytes(orjson.dumps(evidence))
    (python,) = re.findall(r"```python\n(.*?)```", VERIFY.read_text(), re.DOTALL)
    (tmp_path / "verify.py").write_text(python)
    command = [sys.executable, "verify.py", "evidence.json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if forge is None:
        listed = told(well(sceau("person", "list", "--json")))["persons"]
        registrars = {p["person"] for p in listed if any(r["role"] == "registrar" for r in p["roles"])}
        assert done.stdout.split()[2:] == sorted(registrars), done.stderr
    else:
        assert done.returncode == 1
        assert says in done.stderr

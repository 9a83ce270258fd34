"""Commands say yes, no or cannot by their exit code, sentences to people and one JSON object to machines."""

import re
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from cryptography import x509
from sqlalchemy import Engine, text

from api.cli.main import main
from api.cli.output import ago
from api.front.unnamed import Unnamed
from api.settings import load_settings, save_settings
from directory.base.clock import utc_now
from tests.api.certificates import certify
from tests.api.commands import Sceau, token, told
from tests.api.health.test_health import note_trouble
from tests.api.runs import seed_run
from tests.api.signing import request_for, signer_in
from tests.factories import rpps, seed_practitioner


def every(command: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of each command that does something."""
    if not isinstance(command, click.Group):
        yield words
        return
    for name, one in command.commands.items():
        yield from every(one, (*words, name))


def test_every_command_shows_its_help_and_the_words_are_never_empty() -> None:
    known = list(every(main))
    assert ("sync", "run") in known
    for words in known:
        shown = CliRunner().invoke(main, [*words, "-h"])
        assert shown.exit_code == 0
        assert shown.stdout.startswith("Usage: main " + " ".join(words))
        assert len(shown.stdout.splitlines()) > 5


@pytest.mark.parametrize(
    "words",
    [
        ["dance"],
        ["jobs", "run"],
        ["token", "revoke", str(2**63)],
        ["measure", "lift", str(2**63), "--reason", "x"],
        ["measure", "take", "810099000019", "--kind", "suspended", "--reason", "x", "--from", "31/12/2027"],
        ["correct", "withdraw", str(2**63)],
        ["sync", "run", "rpps", "no-such-file.zip"],
        ["sync", "run", "poems", "settings.toml"],
        ["token", "create", "x", "--role", "emperor"],
        ["token", "create", "x", "--role", "operator", "--days", "367"],
        ["enrol", "810099000019"],
        ["revoke", "00"],
        ["check"],
    ],
)
def test_misuse_ends_with_2_and_words_on_stderr(sceau: Sceau, words: list[str]) -> None:
    result = sceau(*words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Usage:" in result.stderr


def test_a_token_is_shown_once_listed_without_its_secret_and_withdrawn(sceau: Sceau) -> None:
    made = told(sceau("token", "create", "Hospital gateway", "--role", "operator", "--json"))
    assert made["secret"].startswith("sceau_")
    listed = sceau("token", "list", "--json")
    assert made["secret"] not in listed.stdout
    assert [(one["id"], one["revoked_at"]) for one in told(listed)["tokens"]] == [(made["id"], None)]
    assert sceau("token", "revoke", str(made["id"])).exit_code == 0
    assert told(sceau("token", "list", "--json"))["tokens"][0]["revoked_at"] is not None


def test_a_refusal_is_a_sentence_for_people_and_an_object_for_machines_with_exit_1(sceau: Sceau) -> None:
    spoken = sceau("token", "revoke", "4711")
    assert (spoken.exit_code, spoken.stdout) == (1, "")
    assert "Traceback" not in spoken.stderr
    code, _, sentence = spoken.stderr.strip().partition(": ")
    assert sentence.endswith(".")
    written = sceau("token", "revoke", "4711", "--json")
    assert written.exit_code == 1
    assert told(written) == {"type": code, "detail": sentence}


def test_a_table_goes_out_in_whole_lines_and_progress_stays_off_stdout(sceau: Sceau) -> None:
    sceau("token", "create", "n" * 100, "--role", "operator")
    listed = sceau("token", "list")
    assert len([line for line in listed.stdout.splitlines() if "n" * 100 in line]) == 1


def test_a_table_tells_instants_to_the_second_and_json_exactly(sceau: Sceau) -> None:
    sceau("token", "create", "Gateway", "--role", "operator")
    (row,) = (line for line in sceau("token", "list").stdout.splitlines() if "Gateway" in line)
    exact = told(sceau("token", "list", "--json"))["tokens"][0]["expires_at"]
    assert re.fullmatch(r"\d+ +Gateway +operator +\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ *", row), row
    assert exact[:19].replace("T", " ") + "Z" in row


@pytest.mark.parametrize(
    ("words", "stderr_says"),
    [(["token", "list"], "PostgreSQL says"), (["enrol", "a", "b"], "PostgreSQL says")],
)
def test_a_record_out_of_reach_is_said_with_exit_2(
    sceau: Sceau, state: Path, words: list[str], stderr_says: str
) -> None:
    save_settings(state, {"database_url": f"postgresql+psycopg://sceau@/sceau?host={state}"})
    result = sceau(*words, "--json", token="x")
    assert result.exit_code == 2
    assert stderr_says in result.stderr
    assert told(result)["type"] == "record-out-of-reach"


@pytest.mark.parametrize("words", [["token", "list"], ["crl", "publish"], ["check", "a@b.example"], ["web"]])
def test_bad_settings_are_a_sentence_whatever_the_command(
    sceau: Sceau, state: Path, words: list[str]
) -> None:
    (state / "settings.toml").write_text("colour = 'blue'\n")
    result = sceau(*words)
    assert result.exit_code == 1
    assert "unknown settings: colour." in result.stderr
    assert "Traceback" not in result.stderr


def test_down_without_up_says_so(sceau: Sceau) -> None:
    result = sceau("down")
    assert result.exit_code == 0
    assert "not up" in result.stderr


def test_jobs_are_listed_run_and_refused_by_name(sceau: Sceau) -> None:
    assert told(sceau("jobs", "run", "heartbeat", "--json")) == {"job": "heartbeat", "ran": True, "did": ""}
    listed = told(sceau("jobs", "list", "--json"))["jobs"]
    (beat,) = (one for one in listed if one["name"] == "heartbeat")
    assert datetime.fromisoformat(beat["last_success"]) > utc_now() - timedelta(minutes=1)
    unknown = sceau("jobs", "run", "coffee", "--json")
    assert (unknown.exit_code, told(unknown)["type"]) == (1, "unknown-job")


def test_a_job_that_cannot_reach_what_it_needs_ends_with_2(sceau: Sceau, engine: Engine) -> None:
    seed_practitioner(engine)
    result = sceau("jobs", "run", "ldap-publication", "--json")
    assert (result.exit_code, set(told(result)) >= {"type", "detail"}) == (2, True)


def test_status_names_each_part_and_says_no_while_one_is_down(sceau: Sceau, state: Path) -> None:
    sceau("jobs", "run", "heartbeat")
    result = sceau("status", "--json")
    found = told(result)
    assert (result.exit_code, found["state"]) == (1, "degraded")
    assert {name: part["state"] for name, part in found["parts"].items()} == {
        "postgres": "ok", "worker": "ok", "signer": "down", "ldap": "down", "ldap-gate": "down",
        "ldap-guarded": "down", "web": "down",
    }  # fmt: skip
    assert all(part["reason"] for part in found["parts"].values() if part["state"] == "down")
    assert found["strangers"] == []
    drop = load_settings(state).registers
    drop.mkdir(exist_ok=True)
    (drop / "registre.csv").write_bytes(b"x")
    assert told(sceau("status", "--json"))["strangers"] == ["registre.csv"]
    assert found["troubles"] == {}
    note_trouble(state, "worker hung: look at log/postgres.log.")
    assert told(sceau("status", "--json"))["troubles"] == {"worker": "worker hung: look at log/postgres.log."}
    assert found["unnamed_proxy"] is None
    Unnamed(state).note("192.0.2.7")
    assert told(sceau("status", "--json"))["unnamed_proxy"] == "192.0.2.7"
    shown = sceau("status")
    assert "'registre.csv'" in shown.stdout
    assert "192.0.2.7" in shown.stdout
    assert "look at log/postgres.log." in shown.stdout
    assert shown.exit_code == 1
    assert {"postgres", "signer", "ldap", "web", "worker"} <= set(shown.stdout.split())


def test_check_answers_yes_by_0_and_no_by_1(sceau: Sceau, engine: Engine) -> None:
    person = seed_practitioner(engine)
    certify(engine, person.mailbox, utc_now() - timedelta(hours=1))
    yes = sceau("check", person.mailbox, "--json")
    (verdict,) = told(yes)["results"]
    assert (yes.exit_code, verdict["verdict"], verdict["reasons"]) == (0, "allowed", [])
    assert [one["serial"] for one in verdict["certificates"]] == [f"{1:040x}"]
    both = sceau("check", person.mailbox, "nobody@one.example", "--json")
    assert both.exit_code == 1
    assert [one["address"] for one in told(both)["results"]] == [person.mailbox, "nobody@one.example"]
    # Another domain, which IDNA 2003 took for this one.
    other = sceau("check", person.mailbox.replace("one.example", "one\u3002example"), "--json")
    assert other.exit_code == 1
    assert told(other)["results"][0]["reasons"] == ["malformed-address"]


def test_check_takes_no_sharp_s_for_the_ss_of_a_trusted_domain(sceau: Sceau, engine: Engine) -> None:
    person = seed_practitioner(engine, address="x@mssante.example")
    certify(engine, person.mailbox, utc_now() - timedelta(hours=1))
    assert sceau("check", person.mailbox).exit_code == 0
    other = sceau("check", "x@m\N{LATIN SMALL LETTER SHARP S}ante.example", "--json")
    (verdict,) = told(other)["results"]
    assert (other.exit_code, verdict["verdict"], verdict["certificates"]) == (1, "refused", [])
    assert "domain-not-trusted" in verdict["reasons"]


def test_sync_shows_its_plan_and_changes_nothing_until_told_to(
    sceau: Sceau, engine: Engine, tmp_path: Path
) -> None:
    vectors = Path(__file__).resolve().parents[2] / "directory" / "sync" / "vectors"
    sample = vectors / "listeblanchemssante.xml"

    def domains() -> int:
        with engine.connect() as connection:
            return int(connection.execute(text("SELECT count(*) FROM trusted_domain")).scalar_one())

    planned = sceau("sync", "run", "trusted-domains", str(sample), "--json")
    assert (planned.exit_code, told(planned)["state"], domains()) == (0, "planned", 0)
    assert "--apply" in sceau("sync", "run", "trusted-domains", str(sample)).stdout
    applied = told(sceau("sync", "run", "trusted-domains", str(sample), "--apply", "--json"))
    assert (applied["state"], applied["counts"]["created"]) == ("applied", domains())
    (tmp_path / "bad.xml").write_text("<a>")
    refused = sceau("sync", "run", "trusted-domains", str(tmp_path / "bad.xml"), "--apply", "--json")
    assert (refused.exit_code, told(refused)["state"]) == (1, "refused")
    assert told(refused)["text"].endswith(".")


def test_two_registrars_bring_a_person_to_a_certificate_and_take_it_back(
    sceau: Sceau, engine: Engine, built: dict[str, Any], tmp_path: Path
) -> None:
    person = seed_practitioner(engine)
    one, two = token(sceau, "one"), token(sceau, "two")
    number = person.national_id
    grouped = f"{number[0]} {number[1:6]} {number[6:]}"
    asked = sceau("enrol", grouped, person.mailbox, "--json", token=one)
    assert (asked.exit_code, told(asked)["state"]) == (0, "requested")
    enrolment = told(asked)["id"]
    alone = sceau("enrol", "--approve", enrolment, "--json", token=one)
    assert alone.exit_code == 1
    assert told(sceau("enrol", "--approve", enrolment, "--json", token=two))["state"] == "approved"
    (tmp_path / "request.pem").write_text(request_for())
    with signer_in(tmp_path / "signer", engine, utc_now(), "https://sceau.example") as signer:
        built["signer"] = signer
        words = ["--csr", str(tmp_path / "request.pem"), "--out", str(tmp_path / "certificate.pem")]
        issued = sceau("issue", enrolment, *words, "--json", token=one)
        assert issued.exit_code == 0, issued.stderr
        serial = told(issued)["serial"]
        loaded = x509.load_pem_x509_certificate((tmp_path / "certificate.pem").read_bytes())
        assert f"{loaded.serial_number:040x}" == serial
        take = ["revoke", serial, "--reason", "keyCompromise", "--json"]
        assert told(sceau(*take, "--dry-run", token=one))["dry_run"] is True
        assert sceau("check", person.mailbox).exit_code == 0
        assert sceau(*take, token=one).exit_code == 0
        assert sceau("check", person.mailbox).exit_code == 1
        # For good: a second revocation of a revoked certificate is a no, not an error.
        assert sceau("revoke", serial, "--reason", "superseded", token=one).exit_code == 1


def test_a_name_corrected_after_the_approval_is_not_certified_from_a_terminal(
    sceau: Sceau, engine: Engine, built: dict[str, Any], tmp_path: Path
) -> None:
    person = seed_practitioner(engine)
    one, two = token(sceau, "one"), token(sceau, "two")
    asked = told(sceau("enrol", person.national_id, person.mailbox, "--json", token=one))
    assert asked["names"]["family_name"] == "MARTIN"
    assert "MARTIN" in sceau("enrol", "--approve", asked["id"], token=two).stdout
    correction = ("family_name", "CHOSEN", "--reason", "as he says")
    made = sceau("correct", "make", "practitioner", person.national_id, *correction, token=one)
    assert made.exit_code == 0, made.output
    (tmp_path / "request.pem").write_text(request_for())
    with signer_in(tmp_path / "signer", engine, utc_now(), "https://sceau.example") as signer:
        built["signer"] = signer
        issued = sceau("issue", asked["id"], "--csr", str(tmp_path / "request.pem"), token=one)
    assert (issued.exit_code, "enrolment is void" in issued.stderr) == (1, True)


def test_a_certificate_is_all_that_goes_into_the_file_a_shell_redirects_to(
    sceau: Sceau, engine: Engine, built: dict[str, Any], tmp_path: Path
) -> None:
    person = seed_practitioner(engine)
    one, two = token(sceau, "one"), token(sceau, "two")
    enrolment = told(sceau("enrol", person.national_id, person.mailbox, "--json", token=one))["id"]
    sceau("enrol", "--approve", enrolment, token=two)
    (tmp_path / "request.pem").write_text(request_for())
    with signer_in(tmp_path / "signer", engine, utc_now(), "https://sceau.example") as signer:
        built["signer"] = signer
        issued = sceau("issue", enrolment, "--csr", str(tmp_path / "request.pem"), token=one)
    serial = f"{x509.load_pem_x509_certificate(issued.stdout.encode()).serial_number:040x}"
    assert issued.stdout.startswith("-----BEGIN CERTIFICATE-----\n")
    assert issued.stdout.endswith("-----END CERTIFICATE-----\n")
    assert issued.stdout.count("-----") == 4
    assert serial in issued.stderr


def test_requests_of_foreign_tools_are_read_or_refused_by_name(
    sceau: Sceau, engine: Engine, built: dict[str, Any], tmp_path: Path
) -> None:
    person = seed_practitioner(engine)
    one, two = token(sceau, "one"), token(sceau, "two")
    enrolment = told(sceau("enrol", person.national_id, person.mailbox, "--json", token=one))["id"]
    sceau("enrol", "--approve", enrolment, token=two)
    files = Path(__file__).resolve().parents[2] / "pki" / "certificates" / "requests"
    with signer_in(tmp_path / "signer", engine, utc_now(), "https://sceau.example") as signer:
        built["signer"] = signer
        wrong = sceau("issue", enrolment, "--csr", str(files / "version-1-value.pem"), token=one)
        issued = sceau("issue", enrolment, "--csr", str(files / "certtool.pem"), token=one)
    assert wrong.exit_code == 1
    assert "version field of this request says 1" in wrong.stderr
    assert issued.exit_code == 0


def test_a_token_is_taken_from_a_file_or_the_environment_and_never_from_the_command_line(
    sceau: Sceau, tmp_path: Path
) -> None:
    one = token(sceau, "one")
    file = tmp_path / "token"
    file.write_text(f"{one}\n")
    words = ("enrol", rpps(1), "a@one.example", "--json")
    for known in (sceau(*words, "--token-file", str(file)), sceau(*words, token=one)):
        assert told(known)["type"] == "unknown-practitioner"
    shown = sceau(*words, "--token", one)
    assert shown.exit_code == 2
    assert "list of processes" in shown.stderr
    assert one not in shown.output


def test_status_and_jobs_tell_ages_to_people_and_instants_to_machines(sceau: Sceau) -> None:
    sceau("jobs", "run", "heartbeat")
    assert re.search(r"job +heartbeat +last success \d s ago", sceau("status").stdout)
    assert datetime.fromisoformat(told(sceau("status", "--json"))["jobs"]["heartbeat"]["last_success"])
    assert re.search(r"heartbeat +every \d s +\d s ago", sceau("jobs", "list").stdout)


def test_status_tells_the_age_of_a_register_as_its_page_does(sceau: Sceau, engine: Engine) -> None:
    made = utc_now() - timedelta(hours=15, minutes=40)
    seed_run(engine, "rpps", made)
    assert re.search(rf"register +rpps +generated {made:%Y-%m-%d %H:%M}Z, 15 h ago", sceau("status").stdout)
    seed_run(engine, "finess", utc_now() + timedelta(hours=2, minutes=5))
    assert re.search(r"register +finess +generated .*Z, in 2 h", sceau("status").stdout)


def test_status_of_what_was_stopped_is_one_line(tmp_path: Path) -> None:
    save_settings(tmp_path, {"port": 8081})
    words = ["status", "--state", str(tmp_path)]
    shown = CliRunner().invoke(main, words)
    assert (shown.exit_code, shown.stderr) == (1, "")
    assert shown.stdout == f"nothing runs (state folder {tmp_path}): `sceau up` starts it again\n"
    whole = CliRunner().invoke(main, [*words, "--json"])
    assert (whole.exit_code, told(whole)["state"]) == (1, "down")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-3, "0 s ago"), (119, "119 s ago"), (121, "2 min ago"), (7_300, "2 h ago"), (200_000, "2 d ago")],
)
def test_an_age_is_told_in_the_unit_that_says_it(seconds: int, words: str, now: datetime) -> None:
    assert ago(now - timedelta(seconds=seconds), now) == words


def test_who_acts_must_be_said_and_known(sceau: Sceau, state: Path) -> None:
    nobody = sceau("enrol", rpps(1), "a@one.example", "--json")
    assert (nobody.exit_code, told(nobody)["type"]) == (1, "who-acts")
    unknown = sceau("enrol", rpps(1), "a@one.example", "--as", "registrar_a", "--json")
    assert (unknown.exit_code, told(unknown)["type"]) == (1, "unknown-credential")
    assert str(state / "demo-credentials.json") in told(unknown)["detail"]
    wrong = sceau("enrol", rpps(1), "a@one.example", "--json", token="sceau_wrong")
    assert (wrong.exit_code, told(wrong)["type"]) == (1, "bad-token")


def test_audit_says_whether_the_log_is_what_was_signed(sceau: Sceau, engine: Engine) -> None:
    token(sceau, "one")
    sceau("jobs", "run", "checkpoints")
    intact = sceau("audit", "verify", "--json")
    assert (intact.exit_code, told(intact)["intact"], told(intact)["size"]) == (0, True, 1)
    with engine.begin() as connection:
        connection.execute(text("SET session_replication_role = replica"))
        assert connection.execute(text("UPDATE audit_entry SET actor = 'somebody'")).rowcount == 1
    rewritten = sceau("audit", "verify", "--json")
    assert (rewritten.exit_code, told(rewritten)["intact"]) == (1, False)
    assert told(rewritten)["findings"]


def test_a_measure_is_taken_by_one_and_lifted_by_two(sceau: Sceau, engine: Engine) -> None:
    someone = seed_practitioner(engine).national_id
    one, two = token(sceau, "one"), token(sceau, "two")
    take = ("measure", "take", someone, "--kind", "suspended", "--reason", "x", "--json")
    taken = told(sceau(*take, token=one))
    assert taken["state"] == "in-force"
    assert told(sceau(*take, token=two))["type"] == "measure-in-force"
    lift = ("measure", "lift", str(taken["id"]), "--reason", "y", "--json")
    assert told(sceau(*lift, token=one))["state"] == "lifting-asked"
    again = sceau(*lift, token=one)
    assert (again.exit_code, told(again)["type"]) == (1, "self-approval")
    assert told(sceau(*lift, token=two))["state"] == "lifted"
    listed = sceau("measure", "list", someone, token=one)
    assert "lifted" in listed.stdout
    (kept,) = told(sceau("measure", "list", someone, "--json", token=one))["items"]
    assert (kept["reason"], kept["lifting_reason"]) == ("x", "y")


def test_a_measure_with_dates_is_prolonged_by_one_shortened_and_annulled_by_two(
    sceau: Sceau, engine: Engine
) -> None:
    someone = seed_practitioner(engine).national_id
    one, two = token(sceau, "one"), token(sceau, "two")
    first, last = (date.today() + timedelta(days=days) for days in (10, 20))  # noqa: DTZ011 - days of a far month
    words = (
        "measure",
        "take",
        someone,
        "--kind",
        "suspended",
        "--reason",
        "x",
        "--from",
        str(first),
        "--json",
    )
    taken = told(sceau(*words, "--until", str(last), token=one))
    assert taken["state"] == "to-come"
    number = str(taken["id"])
    longer_words = ("measure", "prolong", number, "--reason", "y", "--json")
    longer = told(sceau(*longer_words, token=one))
    assert (longer["ends_at"], longer["revisions"][0]["act"]) == (None, "prolonged")
    shorten = ("measure", "shorten", number, "--until", str(last), "--reason", "z", "--json")
    waits = told(sceau(*shorten, token=two))
    assert waits["ends_at"] is None
    assert told(sceau(*shorten, token=one))["type"] == "already-asked"
    other = sceau(*shorten, "--confirm", str(first), token=one)
    assert told(other)["type"] == "already-asked"
    # What the table shows is taken as it stands.
    row = sceau("measure", "list", someone, token=one).stdout
    assert row.count(waits["shortening_asked"]) == 1
    assert taken["starts_at"] in row
    agreed = sceau(*shorten, "--confirm", str(last), token=one)
    assert told(agreed)["ends_at"] == taken["ends_at"]
    pasted = sceau(*longer_words, "--until", told(agreed)["ends_at"].replace("T", " "), token=one)
    assert told(pasted)["type"] == "not-longer"
    annul = ("measure", "annul", number, "--reason", "a namesake", "--json")
    asked = told(sceau(*annul, token=one))["annulment_asked"]
    assert sceau(*annul, "--confirm", asked[:10], token=two).exit_code == 2
    assert told(sceau(*annul, token=one))["type"] == "self-approval"
    assert told(sceau(*annul, token=two))["type"] == "already-asked"
    shown = sceau("measure", "list", someone, token=two).stdout
    assert asked in shown, "the table shows what to confirm"
    assert told(sceau(*annul, "--confirm", asked, token=two))["state"] == "annulled"


def test_what_needs_a_look_is_listed_to_whom_it_touches(sceau: Sceau, engine: Engine) -> None:
    with engine.begin() as connection:
        row = (
            "INSERT INTO attention (kind, subject, authorities, since)"
            " VALUES ('number-retired', '0751', ARRAY['CNOM'], now())"
        )
        connection.execute(text(row))
    assert "0751" in sceau("attention").stdout
    assert len(told(sceau("attention", "--authority", "CNOM", "--json"))["items"]) == 1
    for other in (("--authority", "CNOP"), ("--kind", "withdrawal-pending")):
        assert told(sceau("attention", *other, "--json"))["items"] == []


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("attention", "--kind", "nonsense"), "private-data-held-back"),
        (("attention", "--authority", "CNOMM"), "CNOP"),
        (("expiring", "--authority", "cnom"), "CNOP"),
    ],
)
def test_a_filter_that_is_none_of_the_words_is_refused_with_all_of_them(
    sceau: Sceau, words: tuple[str, ...], named: str
) -> None:
    refused = sceau(*words)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert named in refused.stderr

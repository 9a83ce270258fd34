"""What a restored backup lost comes back from CRLs and the journal, as it was; then the service goes on."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from api.jobs import audit_log
from directory.base.db import transaction
from directory.base.errors import Refusal
from pki.crl.parsing import number_of
from pki.model import CrlForm, RevocationReason
from pki.record import revocations
from pki.tlog.checkpoint import last_note, read_notes
from tests.api.commands import Sceau, told
from tests.restored import Machine

Reason = RevocationReason
AUDITED = "declared by command:restore"


@pytest.mark.parametrize("crl_form", list(CrlForm))
def test_checked_replayed_and_accepted_all_are_taken_back_as_they_were(
    machine: Machine, lost: dict[str, Any], sceau: Sceau, tmp_path: Path
) -> None:
    before = machine.events()
    checked = sceau("restore", "check", "--json")
    assert checked.exit_code == 1
    assert (told(checked)["certificates"], told(checked)["events"]) == (2, 3)
    early = sceau("restore", "accept", "--reason", "too early", "--json")
    assert (early.exit_code, told(early)["type"]) == (1, "restore-incomplete")
    assert told(sceau("restore", "replay", "--json")) == {"applied": False, "certificates": 2, "events": 3}
    assert machine.events() == before
    # Kept CRLs aside, any that somebody else kept does.
    files = [str(path) for path in sorted((machine.container.settings.kept.floor.parent / "lists").iterdir())]
    assert sceau("restore", "replay", *files, "--apply").exit_code == 0
    again = told(sceau("restore", "replay", *files, "--apply", "--json"))
    assert (again["certificates"], again["events"]) == (0, 0)
    # What was released is on hold again in the record of before; only a person may lift it.
    by_serial = {serial: (action, reason, at) for serial, action, reason, at in machine.events()}
    for serial, action, reason, at in lost["events"]:
        if action != "release":
            assert by_serial[serial] == (action, reason, at)
    assert by_serial[lost["issued"].serial][:2] == ("revoke", "superseded")
    accepted = sceau("restore", "accept", "--reason", "disk lost", "--json")
    assert accepted.exit_code == 0, accepted.stderr
    machine.later(seconds=10)
    machine.run_jobs()
    now = machine.numbers()
    assert all(now[place] >= number for place, number in lost["numbers"].items())
    status = machine.status()
    for name in ("revoked", "issued", "issued and revoked"):
        assert ": revoked" in machine.asked_by_openssl(status, lost[name], tmp_path)
        listed = machine.served_list(status, lost[name])
        assert "certificate revoked" in machine.verified_by_openssl(lost[name], listed, tmp_path)
    assert ": good" in machine.asked_by_openssl(status, lost["good"], tmp_path)
    assert (
        number_of(machine.served_list(status, lost["revoked"]))
        > lost["numbers"][f"{lost['revoked'].authority_id}/{lost['revoked'].shard}"]
    )
    assert sceau("restore", "check").exit_code == 0
    twice = sceau("restore", "accept", "--reason", "again", "--json")
    assert told(twice)["type"] == "record-complete"


# Commands that answer for the record, publish it, or give trust.
GIVES = (
    ("check", "ADDRESS"),
    ("ldap", "reconcile", "--apply"),
    ("ldap", "rebuild"),
    ("enrol", "810099000019", "ADDRESS"),
    ("enrol", "--approve", "3f0c3a50-0000-4000-8000-000000000000"),
    ("release", "00"),
    ("measure", "lift", "1", "--reason", "x"),
    ("measure", "annul", "1", "--reason", "x"),
    ("measure", "shorten", "1", "--until", "2027-01-01", "--reason", "x"),
    ("correct", "make", "mailbox", "ADDRESS", "listed", "true", "--reason", "x"),
    ("correct", "withdraw", "1"),
    ("restate", "00", "--reason", "keyCompromise", "--comment", "x"),
    ("clock", "reset", "--reason", "x"),
)


def test_no_command_answers_publishes_or_gives_trust_meanwhile(
    machine: Machine, lost: dict[str, Any], sceau: Sceau
) -> None:
    """`sceau check` said allowed of a certificate that was revoked after the backup."""
    assert machine.container.watch.look() != []
    for command in GIVES:
        words = [lost["revoked"].mailbox if word == "ADDRESS" else word for word in command]
        refused = sceau(*words, "--json")
        assert (refused.exit_code, told(refused)["type"]) == (2, "record-behind"), command


def test_a_reason_corrected_to_a_lost_key_comes_back_with_its_date(machine: Machine, sceau: Sceau) -> None:
    issued = machine.issue()
    machine.revoke(issued, RevocationReason.SUPERSEDED)
    machine.run_jobs()
    copy = machine.back_up()
    machine.later(minutes=2)
    machine.correct(issued, RevocationReason.KEY_COMPROMISE)
    machine.run_jobs()
    published = machine.events()
    machine.put_back(copy)
    assert told(sceau("restore", "replay", "--apply", "--json"))["events"] == 1
    assert machine.events() == published
    with machine.container.engine.connect() as connection:
        blocked = connection.execute(text("SELECT spki_sha256 FROM blocked_key")).scalars().all()
    assert [bytes(spki) for spki in blocked] == [issued.spki_sha256]
    assert sceau("restore", "accept", "--reason", "disk lost").exit_code == 0
    assert told(sceau("audit", "verify", "--json"))["findings"] == []


def test_the_log_goes_on_under_another_origin_and_owns_to_what_it_lost(
    machine: Machine, lost: dict[str, Any], sceau: Sceau
) -> None:
    del lost
    heads = machine.container.settings.kept.heads
    before = last_note(heads)
    assert told(sceau("audit", "verify", "--json"))["intact"] is False
    with pytest.raises(Refusal, match="does not agree"):
        audit_log.sign_checkpoint(machine.container)
    assert sceau("restore", "replay", "--apply").exit_code == 0
    origin = told(sceau("restore", "accept", "--reason", "disk lost", "--json"))["origin"]
    machine.later(seconds=10)
    machine.run_jobs()
    verified = told(sceau("audit", "verify", "--json"))
    assert (verified["intact"], verified["findings"]) == (True, [])
    (loss,) = verified["losses"]
    assert AUDITED in loss
    assert "disk lost" in loss
    notes, _ = read_notes(heads)
    after = notes[notes.index(str(before)) + 1 :]
    assert after
    assert all(note.startswith(f"{origin}\n") for note in after)
    with machine.container.engine.connect() as connection:
        query = "SELECT detail ->> 'lost_head' FROM audit_entry WHERE event = 'record.accepted'"
        assert connection.execute(text(query)).scalar_one() == before


def test_a_second_restore_to_before_the_first_was_accepted_is_noticed_too(
    machine: Machine, lost: dict[str, Any], sceau: Sceau
) -> None:
    del lost
    copy = machine.back_up("_restored")
    for _ in range(2):
        assert sceau("restore", "replay", "--apply").exit_code == 0
        accepted = sceau("restore", "accept", "--reason", "disk lost", "--json")
        assert accepted.exit_code == 0, accepted.stderr
        machine.later(seconds=10)
        machine.run_jobs()
        assert told(sceau("audit", "verify", "--json"))["findings"] == []
        machine.put_back(copy)
        machine.later(seconds=10)
        assert machine.container.watch.look()


def test_a_serial_that_only_a_crl_tells_of_stays_revoked(
    machine: Machine, lost: dict[str, Any], sceau: Sceau, tmp_path: Path
) -> None:
    """The journal is lost as well: nobody knows the certificate, but its number is never called good."""
    issued, signer = lost["issued and revoked"], machine.container.signer
    signer._parts[2]._certificates.clear()
    assert sceau("restore", "replay", "--apply").exit_code == 0
    assert sceau("restore", "accept", "--reason", "disk lost").exit_code == 0
    machine.later(seconds=10)
    machine.run_jobs()
    status = machine.status()
    listed = machine.served_list(status, issued)
    assert "certificate revoked" in machine.verified_by_openssl(issued, listed, tmp_path)
    assert ": revoked" in machine.asked_by_openssl(status, issued, tmp_path)
    assert told(sceau("audit", "verify", "--json"))["findings"] == []


def test_a_strange_crl_is_not_believed(
    machine: Machine, lost: dict[str, Any], sceau: Sceau, tmp_path: Path
) -> None:
    own = next((machine.container.settings.kept.floor.parent / "lists").glob("persons-1.*[0-9].crl"))
    whole = bytearray(own.read_bytes())
    whole[-1] ^= 1
    for name, content, code in (
        ("broken.crl", b"0\x00", "crl-malformed"), ("forged.crl", bytes(whole), "crl-signature"),
    ):  # fmt: skip
        (tmp_path / name).write_bytes(content)
        refused = sceau("restore", "replay", str(tmp_path / name), "--apply", "--json")
        assert (refused.exit_code, told(refused)["type"]) == (1, code)
    with transaction(machine.container.engine, read_only=True) as connection:
        assert revocations.last_actions(connection, [lost["revoked"].serial]) == {}

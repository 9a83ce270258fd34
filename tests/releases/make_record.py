"""Write the small record of a release that later ones upgrade from: rows of every kind, as SQL.

    python -m tests.releases.make_record STATE PORT > tests/releases/0.2.0.sql

STATE is a folder that does not exist yet; a `sceau up --demo` runs there meanwhile. README.md says how.
Every row is made over REST or by a command, so that the next release can run this file as it stands.
"""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization

from tests.releases.making import acts, at_rest, authorities, registers
from tests.releases.making.acts import Enrolment
from tests.releases.making.installation import Installation
from tests.releases.making.registers import Cast, Leaving

JOBS = ("consequences", "withdrawals-due", "crl", "checkpoints", "trust-list", "privacy-watch")
# So that half of an hour's withdrawals and searches is soon reached.
LIMITS = {"withdrawals_token_hour": "20", "reading_searches_hour": "8"}


def enrol_and_certify(here: Installation) -> tuple[list[Enrolment], list[str]]:
    """Doctors, each with an enrolment and a certificate."""
    enrolments = [acts.enrol(here, *one) for one in acts.uncertified(here, 19)]
    serials = [acts.certify_twice(here, enrolments[0])]
    return enrolments, [*serials, *(acts.certify(here, one) for one in enrolments[1:15])]


def certify_the_others(here: Installation, who: Cast, spare: list[Enrolment]) -> None:
    """People of an agency, places and their machines; keys apart, a batch, a key that is another person's."""
    for person in who.adeli:
        acts.certify(here, acts.enrol(here, person, acts.mailboxes_of(person)[0], "agency"), "agency")
    for address in who.machines:
        enrolment = acts.enrol(here, who.works_there, address)
        if address == who.machines[0]:
            acts.certify(here, enrolment)
        else:
            acts.certify_apart(here, enrolment)
    acts.certify_apart(here, spare[0])
    acts.certify_batch(here, spare[1:2])
    acts.share_a_key(here, spare[2], spare[3])


def act(here: Installation, who: Cast, enrolments: list[Enrolment], serials: list[str]) -> None:
    """What people do, before any night."""
    people = [person for person, _, _ in enrolments]
    acts.share_limits(here)
    acts.certify_other_mailbox(here, *enrolments[0][:2])
    acts.revoke_and_release(here, serials[:4])
    acts.revoke_many(here, serials[4:5], serials[5:7], serials[7:8])
    acts.revoke(here, serials[8], "cACompromise", "admin_a")
    acts.take_measures(here, people[9:13])
    acts.make_corrections(here, [*who.two_names, people[8]], who.finess, who.organisations[5])
    acts.act_as_operator(here)
    acts.block_keys(here)
    acts.search(here, 20)
    acts.exceed_limits(here, people[:2])
    acts.ask_to_enrol(here, *acts.uncertified(here, 1)[0])


def live_through_nights(here: Installation, who: Cast, enrolments: list[Enrolment]) -> Leaving:
    gone = enrolments[13:15]
    leaving = Leaving(
        departed=gone[0][0], answering=acts.answering(here), stopped=gone[1][0], moved=enrolments[7][1],
        closed=enrolments[4][1], claimed=enrolments[5][1], to=who.two_names[0],
    )  # fmt: skip
    registers.take(here, 3, registers.second_day(who, leaving), bounds_file=registers.narrow(here))
    registers.take(here, 2, registers.third_day(who, leaving))
    registers.ask_the_api(here)
    for job in JOBS:
        here.sceau("jobs", "run", job)
    return leaving


def follow_the_cas(here: Installation) -> str:
    """The next generation, and revocations in its form; the certificate that is left."""
    authorities.follow(here)
    serials = [acts.certify(here, acts.enrol(here, *person)) for person in acts.uncertified(here, 3)]
    for serial in serials[1:]:
        acts.revoke(here, serial, "affiliationChanged")
        here.sceau("jobs", "run", "crl")
    return serials[0]


def answers(here: Installation, without: str = "") -> dict[str, Any]:
    """What the release itself says of this record, which later ones are held to.

    Nothing of the certificate that is revoked after it was asked.
    """
    found = here.call("GET", "/v1/enrolments?limit=100", "auditor")["items"]
    addresses = sorted({enrolment["mailbox"] for enrolment in found})
    body = {"addresses": addresses}
    checked = here.post("/v1/recipients/check", "operator", body)["items"]
    key = (here.state / "audit" / "key.pem").read_bytes()
    passphrase = (here.state / "secrets" / "web.passphrase").read_bytes().strip()
    public = serialization.load_pem_private_key(key, passphrase).public_key()
    raw = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return {
        "at": datetime.now(UTC).isoformat(),
        "log_key": raw.hex(),
        "verdicts": {
            answer["address"]: [
                answer["verdict"], answer["reasons"], [c["serial"] for c in answer["certificates"]],
            ]
            for answer in checked
            if without not in {certificate["serial"] for certificate in answer["certificates"]}
        },
    }  # fmt: skip


def main() -> None:
    here = Installation(Path(sys.argv[1]).absolute(), int(sys.argv[2]), LIMITS)
    who = registers.cast()
    registers.make_first_day(here, who)
    here.up()
    acts.add_tokens(here)
    enrolments, serials = enrol_and_certify(here)
    certify_the_others(here, who, enrolments[15:])
    act(here, who, enrolments, serials)
    leaving = live_through_nights(here, who, enrolments)
    left = follow_the_cas(here)
    said = answers(here, left)
    here.sceau("down")
    with at_rest.database(here) as where:
        at_rest.sign_ahead(here, seconds=7200)
        at_rest.note_expiry(here)
        at_rest.leave_for_the_worker(here, serials[-1:])
        at_rest.revoke(here, left)
        registers.end_in_each_way(here, who, leaving)
        sys.stdout.write(f"{at_rest.dump(where)}-- {json.dumps(said, sort_keys=True)}\n")


if __name__ == "__main__":
    main()

"""What people do over REST: enrolments, certificates, revocations, measures, corrections, agreements."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from tests.releases.making import nights
from tests.releases.making.installation import Installation, request_for, signed_request

TODAY = datetime.now(UTC).date()
CHECKED = {"method": "in-person", "document": "CPS", "checked_on": TODAY.isoformat()}
OPERATOR = "CN=mss.hopital.invalid,OU=399990002000010,O=FEDERATION HOSPITALIERE FICTIVE,ST=Doubs (25),C=FR"
Enrolment = tuple[str, str, str]


def add_tokens(here: Installation) -> None:
    """Two administrators, two registrars of an agency, an operator's token that names its operator."""
    for name in ("admin_a", "admin_b"):
        here.add_token(name, "admin")
    for name in ("agency_a", "agency_b"):
        here.add_token(name, "registrar", "--authority", "ARS")
    here.add_token("proxy", "operator", "--operator", OPERATOR)


def uncertified(here: Installation, count: int) -> list[tuple[str, str]]:
    """Doctors who were never enrolled, each with an address."""
    told = here.sceau("demo", "uncertified", "--authority", "CNOM", "--count", str(count))
    return [(person, address) for person, address in (line.split() for line in told.splitlines() if line)]


def enrol(here: Installation, person: str, address: str, pair: str = "registrar", **said: str) -> Enrolment:
    body = {"practitioner": person, "mailbox": address, "identity_check": CHECKED}
    number = here.post("/v1/enrolments", f"{pair}_a", body, **said)["id"]
    here.post(f"/v1/enrolments/{number}/approval", f"{pair}_b")
    return person, address, number


def certify(
    here: Installation, enrolment: Enrolment, pair: str = "registrar", csr: str = "", **said: str
) -> str:
    body = {"csr": csr or request_for(enrolment[1])}
    answer = here.post(f"/v1/enrolments/{enrolment[2]}/certificates", f"{pair}_a", body, **said)
    return str(answer.get("serial", ""))


def certify_twice(here: Installation, enrolment: Enrolment) -> str:
    """The same request again, under its key: one certificate."""
    csr = request_for(enrolment[1])
    serials = {certify(here, enrolment, csr=csr, **{"Idempotency-Key": "kept"}) for _ in range(2)}
    return serials.pop()


def certify_batch(here: Installation, enrolments: list[Enrolment]) -> None:
    items = [{"enrolment": number, "csr": request_for(address)} for _, address, number in enrolments]
    here.post("/v1/batches", "registrar_a", {"items": items})


def certify_apart(here: Installation, enrolment: Enrolment) -> None:
    """One certificate for each purpose, as where the setting `mail_keys` is `separate`."""
    for purpose in ("signature", "encryption"):
        path = here.state / "request.pem"
        path.write_text(request_for(enrolment[1]))
        here.sceau(
            "issue", enrolment[2], "--csr", path, "--purpose", purpose, "--as", "registrar_a",
            mail_keys="separate",
        )  # fmt: skip


def certify_other_mailbox(here: Installation, person: str, address: str) -> None:
    """On another key, of somebody who is to lose the first one."""
    for other in set(mailboxes_of(person)) - {address}:
        certify(here, enrol(here, person, other))


def ask_to_enrol(here: Installation, person: str, address: str) -> None:
    """An enrolment that no second registrar has approved."""
    body = {"practitioner": person, "mailbox": address, "identity_check": CHECKED}
    here.post("/v1/enrolments", "registrar_a", body)


def answering(here: Installation) -> str:
    """Who answers for a secretariat's mailbox, by the demo's own enrolments."""
    found = here.call("GET", "/v1/enrolments?limit=100", "auditor")["items"]
    return next(one["practitioner"] for one in found if one["mailbox"].startswith("secretariat."))


def share_a_key(here: Installation, one: Enrolment, other: Enrolment) -> str:
    """The second is refused: a key is one person's."""
    key = ec.generate_private_key(ec.SECP256R1())
    serials = [certify(here, who, csr=signed_request(who[1], key)) for who in (one, other)]
    return serials[0]


def revoke(here: Installation, serial: str, reason: str, who: str = "registrar_a") -> None:
    here.post(f"/v1/certificates/{serial}/revocation", who, {"reason": reason, "comment": "kept"})


def revoke_and_release(here: Installation, serials: list[str]) -> None:
    _, held, freed, corrected = serials
    for serial, reason in zip(
        serials, ("keyCompromise", "certificateHold", "certificateHold", "superseded"), strict=True
    ):
        revoke(here, serial, reason)
    # A colleague's hold takes two, the first of whom only asks.
    here.post(f"/v1/certificates/{held}/release", "registrar_b", {"comment": "found"})
    here.post(f"/v1/certificates/{freed}/release", "registrar_a", {"comment": "found"})
    body = {"reason": "keyCompromise", "comment": "seen later"}
    here.post(f"/v1/certificates/{corrected}/reason", "registrar_a", body)


def revoke_many(here: Installation, done: list[str], stopped: list[str], planned: list[str]) -> None:
    """Four of many: done, stopped after the first of its certificates, and planned."""
    agree(here, plan(here, done))
    slow = plan(here, stopped, per_second=1)
    agree(here, slow)
    here.post(f"/v1/revocations/bulk/{slow['id']}/stop", "admin_a", {"comment": "too wide"})
    plan(here, planned)


def plan(here: Installation, serials: list[str], **more: int) -> dict[str, Any]:
    body = {"selection": {"serials": serials}, "reason": "superseded", "comment": "kept", **more}
    return dict(here.post("/v1/revocations/bulk", "admin_a", body))


def agree(here: Installation, plan: dict[str, Any]) -> None:
    for who in ("admin_a", "admin_b")[: plan["needed"]]:
        body = {"digest": plan["digest"], "comment": "kept"}
        here.post(f"/v1/revocations/bulk/{plan['id']}/approvals", who, body)


def take_measures(here: Installation, people: list[str]) -> None:
    suspended, dated, shortened, annulled = people
    soon, later, last = (str(TODAY + timedelta(days=days)) for days in (30, 60, 90))

    def act(path: str, body: dict[str, str], who: str = "registrar_a") -> Any:
        return here.post(path, who, {"reason": "kept", **body})

    def measure(person: str, **body: str) -> str:
        return str(act(f"/v1/practitioners/{person}/measures", {"kind": "suspended", **body})["id"])

    lifted = measure(suspended)
    for who in ("registrar_a", "registrar_b"):
        act(f"/v1/measures/{lifted}/lifting", {}, who)
    measure(suspended)
    ahead = measure(dated, **{"from": soon, "until": later})
    act(f"/v1/measures/{ahead}/prolongation", {"until": last})
    shorter = measure(shortened, until=later)
    asked = act(f"/v1/measures/{shorter}/shortening", {"until": soon})
    confirmed = {"until": soon, "confirms": asked["shortening_asked"]}
    act(f"/v1/measures/{shorter}/shortening", confirmed, "registrar_b")
    wrong = measure(annulled, kind="struck-off")
    asked = act(f"/v1/measures/{wrong}/annulment", {})
    act(f"/v1/measures/{wrong}/annulment", {"confirms": asked["annulment_asked"]}, "registrar_b")


def correct(here: Installation, what: tuple[str, str], field: str, value: str, who: str = "admin_a") -> int:
    entity, key = what
    body = {"entity": entity, "key": key, "field": field, "value": value, "reason": "deed"}
    return int(here.post("/v1/corrections", who, body)["id"])


def make_corrections(here: Installation, people: list[str], finess: Sequence[str], address: str) -> None:
    """One that ends in each way, one for each entity; a closing day that a second person is to withdraw."""
    withdrawn, replaced, standing = (("practitioner", person) for person in people)
    number = correct(here, withdrawn, "given_name", "Corrigée")
    here.post(f"/v1/corrections/{number}/withdrawal", "admin_a", {"reason": "not so"})
    for value in ("Corrigée", "Recorrigée"):
        correct(here, replaced, "given_name", value)
    correct(here, standing, "family_name", "CORRIGÉE", "registrar_a")
    correct(here, ("organisation", nights.LYON[0]), "name", nights.LYON[2])
    closing = correct(here, ("organisation", finess[3]), "closed_on", TODAY.isoformat())
    here.post(f"/v1/corrections/{closing}/withdrawal", "admin_b", {"reason": "not so"})
    correct(here, ("mailbox", address), "listed", "false")


def act_as_operator(here: Installation) -> None:
    host = "mx.chu-lyon.hopital.mssante.invalid"
    addresses = {"addresses": ["security@chu-lyon.hopital.mssante.invalid"]}
    here.call("PUT", "/v1/operator/contacts", "proxy", addresses)
    for kind, hosts in (("server", [host]), ("client", [])):
        for form in (f"operator-{kind}", f"operator-{kind}-short-lived"):
            body = {"profile": form, "csr": request_for(host), "domains": hosts}
            here.post("/v1/operator/certificates", "proxy", body)


def share_limits(here: Installation) -> None:
    """A colleague's allotment, and a reset of the clock that one administrator asks for."""
    tokens = json.loads(here.sceau("token", "list", "--json"))["tokens"]
    number = next(token["id"] for token in tokens if token["name"] == "registrar_a")
    body = {"token": number, "reason": "list read again"}
    here.post("/v1/withdrawal-limits/agreements", "registrar_b", body)


def exceed_limits(here: Installation, people: list[str]) -> None:
    """The second measure is refused to whoever may take trust from one within the hour."""
    for person in people:
        here.sceau(
            "measure", "take", person, "--kind", "suspended", "--reason", "kept", "--as", "registrar_b",
            withdrawals_token_hour="1",
        )  # fmt: skip


def block_keys(here: Installation) -> None:
    """By whole digests, and in both shorter forms of lists of weak keys."""
    listed = here.state / "weak"
    listed.write_text(f"{'ab' * 32}\n{'cd' * 10}\n{'ef' * 15}\n")
    here.sceau("keys", "block", "--list", listed, "--apply")


def search(here: Installation, times: int) -> None:
    """Beyond the quota of an hour."""
    for _ in range(times):
        here.call("GET", "/v1/practitioners?name=ro&limit=5", "operator")


def mailboxes_of(person: str) -> list[str]:
    """The person's own, the first of the list first."""
    return [row[1] for row in nights.mailboxes() if row[0] == "PER" and row[4] == person]

"""Write the small record of a release that later ones upgrade from: rows of nearly every kind, as SQL.

    make_record.py STATE http://127.0.0.1:8080 > tests/releases/0.2.0.sql

STATE belongs to a running `sceau up --demo` of that release, with a few dozen people. README.md says how.
Every row is made over REST or by a command, so that the next release can run this file as it stands.
"""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

STATE, WEB = Path(sys.argv[1]), sys.argv[2]
COMMAND, REPOSITORY = Path(sys.executable).with_name("sceau"), Path(sys.executable).parents[2]
TODAY = datetime.now(UTC).date()
YESTERDAY = TODAY - timedelta(days=1)
CHECKED = {"method": "in-person", "document": "CPS", "checked_on": TODAY.isoformat()}


def tell(*words: object) -> None:
    sys.stderr.write(" ".join(map(str, words)) + "\n")


def sceau(*words: str) -> str:
    done = subprocess.run([COMMAND, *words, "--state", STATE], capture_output=True, text=True, check=False)
    tell("sceau", *words, "->", done.returncode, done.stderr.strip()[-160:])
    return done.stdout


def call(method: str, path: str, who: str, body: Any = None, **headers: str) -> Any:
    secret = json.loads((STATE / "demo-credentials.json").read_text())[who]
    said = {"Authorization": f"Bearer {secret}", **headers}
    answer = requests.request(method, WEB + path, json=body, headers=said, timeout=60)
    tell(method, path, "->", answer.status_code, "" if answer.ok else answer.text[:160])
    return answer.json()


def post(path: str, who: str, body: Any = None) -> Any:
    return call("POST", path, who, body)


def request_for(name: str) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    built = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return built.public_bytes(serialization.Encoding.PEM).decode()


def add_tokens(operator: str) -> None:
    """Two administrators, and an operator's token that names its operator."""
    path = STATE / "demo-credentials.json"
    known = json.loads(path.read_text())
    for name, role, more in (
        ("admin_a", "admin", ()), ("admin_b", "admin", ()), ("proxy", "operator", ("--operator", operator)),
    ):  # fmt: skip
        made = json.loads(sceau("token", "create", name, "--role", role, *more, "--json"))
        known[name] = made["secret"] if "secret" in made else made["token"]
    path.write_text(json.dumps(known))


def enrol(count: int) -> list[tuple[str, str, str]]:
    """Enrolments of doctors who had none: person, address and number of each."""
    people = sceau("demo", "uncertified", "--authority", "CNOM", "--count", str(count)).split("\n")
    made = []
    for person, address in (line.split() for line in people if line.strip()):
        body = {"practitioner": person, "mailbox": address, "identity_check": CHECKED}
        number = post("/v1/enrolments", "registrar_a", body)["id"]
        post(f"/v1/enrolments/{number}/approval", "registrar_b")
        made.append((person, address, number))
    return made


def certify(enrolment: tuple[str, str, str]) -> str:
    body = {"csr": request_for(enrolment[1])}
    return str(post(f"/v1/enrolments/{enrolment[2]}/certificates", "registrar_a", body)["serial"])


def revoke_and_release(serials: list[str]) -> None:
    lost, held, freed, corrected = serials
    for serial, reason in (
        (lost, "keyCompromise"), (held, "certificateHold"), (freed, "certificateHold"),
        (corrected, "superseded"),
    ):  # fmt: skip
        post(f"/v1/certificates/{serial}/revocation", "registrar_a", {"reason": reason, "comment": "kept"})
    # A colleague's hold takes two, the first of whom only asks.
    post(f"/v1/certificates/{held}/release", "registrar_b", {"comment": "found"})
    post(f"/v1/certificates/{freed}/release", "registrar_a", {"comment": "found"})
    body = {"reason": "keyCompromise", "comment": "seen later"}
    post(f"/v1/certificates/{corrected}/reason", "registrar_a", body)


def take_measures(people: list[str]) -> None:
    suspended, dated, shortened, annulled = people
    soon, later = (str(TODAY + timedelta(days=days)) for days in (30, 60))
    measure = {"kind": "suspended", "reason": "decision 1"}
    taken = post(f"/v1/practitioners/{suspended}/measures", "registrar_a", measure)["id"]
    for who in ("registrar_a", "registrar_b"):
        post(f"/v1/measures/{taken}/lifting", who, {"reason": "appeal"})
    post(f"/v1/practitioners/{suspended}/measures", "registrar_a", measure)
    ahead = {**measure, "from": soon, "until": later}
    taken = post(f"/v1/practitioners/{dated}/measures", "registrar_a", ahead)["id"]
    body = {"until": str(TODAY + timedelta(days=90)), "reason": "longer"}
    post(f"/v1/measures/{taken}/prolongation", "registrar_a", body)
    taken = post(f"/v1/practitioners/{shortened}/measures", "registrar_a", {**measure, "until": later})["id"]
    post(f"/v1/measures/{taken}/shortening", "registrar_a", {"until": soon, "reason": "appeal"})
    taken = post(f"/v1/practitioners/{annulled}/measures", "registrar_a", {**measure, "kind": "struck-off"})[
        "id"
    ]
    asked = post(f"/v1/measures/{taken}/annulment", "registrar_a", {"reason": "a namesake"})
    body = {"reason": "a namesake", "confirms": asked["annulment_asked"]}
    post(f"/v1/measures/{taken}/annulment", "registrar_b", body)


def share_limits() -> None:
    """A colleague's allotment, and a reset of the clock, each asked for by one person."""
    tokens = json.loads(sceau("token", "list", "--json"))["tokens"]
    number = next(token["id"] for token in tokens if token["name"] == "registrar_a")
    body = {"token": number, "reason": "list read again"}
    call("POST", "/v1/withdrawal-limits/agreements", "registrar_b", body, **{"Idempotency-Key": "kept"})
    post("/v1/clock/resets", "admin_a", {"reason": "time server"})


def correct(person: str, other: str) -> None:
    for key in (person, other):
        body = {
            "entity": "practitioner",
            "key": key,
            "field": "given_name",
            "value": "Corrigée",
            "reason": "deed",
        }
        made = post("/v1/corrections", "registrar_a", body)
    post(f"/v1/corrections/{made['id']}/withdrawal", "registrar_b", {"reason": "not so"})


def act_as_operator(domain: str) -> None:
    host = f"mx.{domain}"
    call("PUT", "/v1/operator/contacts", "proxy", {"addresses": [f"security@{domain}"]})
    body = {"profile": "operator-server", "csr": request_for(host), "domains": [host]}
    post("/v1/operator/certificates", "proxy", body)


def revoke_many(serials: list[str]) -> None:
    body = {"selection": {"serials": serials}, "reason": "superseded", "comment": "kept"}
    plan = post("/v1/revocations/bulk", "admin_a", body)
    for who in ("admin_a", "admin_b"):
        post(
            f"/v1/revocations/bulk/{plan['id']}/approvals", who, {"digest": plan["digest"], "comment": "kept"}
        )


def take_another_day(without: str) -> None:
    """A night that people leave and change in: history, departures, what is due later."""
    folder = STATE / "tomorrow"
    folder.mkdir(exist_ok=True)
    made = [
        sys.executable, REPOSITORY / "scripts" / "make_registers.py", folder, "--practitioners", "60",
        "--organisations", "8", "--mailboxes", "60", "--seed", "1", "--next-day",
        "--day", YESTERDAY.isoformat(), "--departures", "5%", "--moves", "10%", "--without", without,
    ]  # fmt: skip
    subprocess.run(made, check=True, capture_output=True)
    for register, pattern in (("finess", "etalab*"), ("rpps", "PS_*"), ("mailboxes", "Extraction*")):
        for path in sorted(folder.glob(pattern))[:1]:
            said = sceau("sync", "run", register, str(path), "--apply", "--json")
            if json.loads(said)["state"] == "held":
                for who in ("admin_a", "admin_b"):
                    sceau("sync", "approve", str(json.loads(said)["run"]), "--comment", "kept", "--as", who)


def answers() -> dict[str, Any]:
    """What the release itself says of this record: later ones are held to it."""
    found = call("GET", "/v1/enrolments?limit=100", "auditor")["items"]
    addresses = sorted({enrolment["mailbox"] for enrolment in found})
    checked = post("/v1/recipients/check", "operator", {"addresses": addresses, "results": False})["items"]
    key = (STATE / "audit" / "key.pem").read_bytes()
    private = serialization.load_pem_private_key(
        key, (STATE / "secrets" / "web.passphrase").read_bytes().strip()
    )
    raw = private.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return {
        "at": datetime.now(UTC).isoformat(),
        "log_key": raw.hex(),
        "verdicts": {
            answer["address"]: [
                answer["verdict"],
                answer["reasons"],
                [c["serial"] for c in answer["certificates"]],
            ]
            for answer in checked
        },
    }


def dump() -> str:
    from api.embedded.postgres import BINARIES, EmbeddedPostgres

    where = EmbeddedPostgres(STATE / "postgres").conninfo
    words = ["--no-owner", "--no-privileges", "--inserts", "--rows-per-insert=200", where]
    return subprocess.run([BINARIES / "pg_dump", *words], capture_output=True, text=True, check=True).stdout


def main() -> None:
    domain = "chu-lyon.hopital.mssante.invalid"
    add_tokens(
        "CN=mss.hopital.invalid,OU=399990002000010,O=FEDERATION HOSPITALIERE FICTIVE,ST=Doubs (25),C=FR"
    )
    enrolments = enrol(14)
    serials = [certify(enrolment) for enrolment in enrolments[:9]]
    items = [{"enrolment": number, "csr": request_for(address)} for _, address, number in enrolments[9:11]]
    post("/v1/batches", "registrar_a", {"items": items})
    revoke_and_release(serials[:4])
    revoke_many(serials[4:5])
    take_measures([person for person, _, _ in enrolments[5:9]])
    correct(enrolments[11][0], enrolments[12][0])
    act_as_operator(domain)
    share_limits()
    weak = STATE / "weak"
    weak.write_text(f"{'ab' * 32}\n{'cd' * 10}\n")
    sceau("keys", "block", "--list", str(weak), "--apply")
    call("GET", "/v1/practitioners?name=ro&limit=5", "operator")
    take_another_day(enrolments[13][0])
    sceau("sync", "resume")
    for job in ("consequences", "crl", "checkpoints", "trust-list", "expiry-notices", "privacy-watch"):
        sceau("jobs", "run", job)
    said = json.dumps(answers(), sort_keys=True)
    sys.stdout.write(f"{dump()}-- {said}\n")


if __name__ == "__main__":
    main()

"""The demo: invented registers, the three worlds of the 2010 plan, enrolments, certificates, by real paths.

Nothing here writes a row by itself: files go through `directory/sync`, people through two registrars, keys
through certificate requests.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import orjson
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from api.wiring import Container
from directory import access
from directory.base.audit import Actor
from directory.base.db import transaction
from directory.base.durable_files import write_atomically
from directory.base.errors import Kind, Refusal
from directory.feed.readers import lag_seconds
from directory.ldap import publish
from directory.rules import ORDRE_OF_PROFESSION, WITHOUT_ORDRE
from directory.sync.runs.run import run_register
from directory.sync.sources.drop_folder import PATTERNS, newest
from pki.issuance import for_enrolment
from pki.model import MailKeys, Purpose
from pki.registration import enrolment as enrolling
from pki.withdrawal.reconcile import CONSUMER as CONSEQUENCES

GENERATOR = Path(__file__).resolve().with_name("make_registers.py")
DEMO = Actor("command:demo")
YEAR = timedelta(days=365)
CERTIFIED_PER_WORLD = 24
LONGEST_WAIT = 120
CREDENTIALS = {
    "registrar_a": (access.Role.REGISTRAR, "CNOM"),
    "registrar_b": (access.Role.REGISTRAR, "CNOM"),
    "registrar_other": (access.Role.REGISTRAR, "CNOP"),
    "operator": (access.Role.OPERATOR, ""),
    "auditor": (access.Role.AUDITOR, ""),
}
# Whoever tries it out searches as the README says, before he has read of tokens.
SETTINGS = {"ldap_open": True, "trial_addresses": True}
Show = Callable[[str, int], None]


def load(container: Container, show: Show) -> None:
    """Fill an installation with the demo, or finish what an earlier try left undone.

    A part that is away for a moment (killed, restarted) is waited for: every step takes up where it stopped.
    """
    for step in (make_credentials, take_registers, certify, wait_published):
        deadline = time.monotonic() + LONGEST_WAIT
        while not _done(step, container, show, deadline):
            time.sleep(0.5)


def _done(step: Callable[[Container, Show], None], container: Container, show: Show, deadline: float) -> bool:
    try:
        step(container, show)
    except (Refusal, OperationalError) as error:
        away = isinstance(error, OperationalError) or error.kind is Kind.UNAVAILABLE
        if not away or time.monotonic() > deadline:
            raise
        return False
    return True


def make_credentials(container: Container, _: Show) -> None:
    """Tokens for the people of the demo, in a file of the state folder that only this account reads.

    The file is written before the tokens commit: a crash in between leaves words that open nothing, and the
    next run makes both anew.
    """
    path = container.settings.state / "demo-credentials.json"
    with transaction(container.engine) as connection:
        live = {token.name: token for token in access.list_tokens(connection) if token.revoked_at is None}
        if path.exists() and set(CREDENTIALS) <= set(live):
            return
        secrets = {}
        for name, (role, authority) in CREDENTIALS.items():
            if name in live:
                access.revoke_token(connection, now=container.clock(), actor=DEMO, token_id=live[name].id)
            secrets[name] = _token(container, connection, name, role, authority)[1]
        write_atomically(path, orjson.dumps(secrets, option=orjson.OPT_INDENT_2))


def take_registers(container: Container, show: Show) -> None:
    """Make the day's files once and apply each; a register already applied is left alone."""
    folder = container.settings.registers
    if any(newest(folder, register) is None for register in PATTERNS):
        folder.mkdir(parents=True, exist_ok=True)
        # The files are stamped up to 03:38: more than two hours ahead they would wait for two persons.
        day = (container.clock() - timedelta(hours=1)).date().isoformat()
        command = [
            sys.executable, str(GENERATOR), str(folder), "--practitioners", "2000", "--organisations", "200",
            "--mailboxes", "1500", "--seed", "1", "--day", day,
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Refusal(
                Kind.UNAVAILABLE, "demo-registers", f"{GENERATOR.name} failed: {done.stderr.strip()}"
            )
    for register in PATTERNS:
        path = newest(folder, register)
        with transaction(container.engine) as connection:
            query = "SELECT 1 FROM register_run WHERE register = :r AND state = 'applied'"
            known = connection.execute(text(query), {"r": register}).first()
        if path is None or known:
            continue
        report = run_register(
            container.engine,
            register=register,
            path=path,
            now=container.clock(),
            actor=DEMO,
            apply=True,
            progress=show,
            kept=container.settings.kept_files,
        )
        if report.state != "applied":
            raise Refusal(Kind.UNACCEPTABLE, "demo-registers", f"{path.name}: {report.reason}")


def certify(container: Container, show: Show) -> None:
    """Enrol and certify as many mailboxes of each kind and operator, each by two registrars of its body."""
    with transaction(container.engine) as connection:
        chosen = connection.execute(
            text(CHOSEN), {"count": CERTIFIED_PER_WORLD, "each": len(_purposes(container))}
        ).all()
        registrars = {
            authority: [
                registrar(container, connection, authority, f"demo {authority} {number}") for number in (1, 2)
            ]
            for authority in {authority_of(row.profession) for row in chosen}
        }
    for done, row in enumerate(chosen, 1):
        certify_one(container, registrars[authority_of(row.profession)], row.practitioner, row.address)
        show("certificates", done)
    with transaction(container.engine) as connection:
        for token in (token for pair in registrars.values() for token in pair):
            access.revoke_token(connection, now=container.clock(), actor=DEMO, token_id=token.id)


def wait_published(container: Container, _: Show) -> None:
    """Return when the followers of the feed have caught up: a pasted command then finds what it speaks of."""
    deadline = time.monotonic() + LONGEST_WAIT
    while True:
        now = container.clock()
        with transaction(container.engine, read_only=True) as connection:
            lags = [lag_seconds(connection, consumer, now) for consumer in (CONSEQUENCES, publish.CONSUMER)]
        if not any(lags):
            return
        if time.monotonic() > deadline:
            text = f"LDAP is {max(lags):.0f} s behind the record after {LONGEST_WAIT} s: see `sceau status`."
            raise Refusal(Kind.UNAVAILABLE, "publication-behind", text)
        time.sleep(0.2)


# For a person's mailbox, its holder; for an organisation's, somebody who practises there. Spread over
# operators and kinds, those already certified left out: a demo cut short is finished and never doubled.
CHOSEN = """
SELECT address, practitioner, profession FROM (
    SELECT DISTINCT ON (m.address) m.address, p.national_id AS practitioner, r.profession_code AS profession,
           d.operator_id, m.kind,
           dense_rank() OVER (PARTITION BY d.operator_id, m.kind ORDER BY m.address) AS place
    FROM mailbox m
    JOIN trusted_domain d ON d.name = m.domain AND d.departed_at IS NULL
    JOIN practice r ON r.national_id = m.holder OR (m.kind = 'ORG' AND r.finess = m.finess AND m.finess <> '')
    JOIN practitioner p ON p.national_id = r.national_id AND p.departed_at IS NULL
    WHERE m.departed_at IS NULL AND m.listed
    ORDER BY m.address, p.national_id, r.profession_code
) AS candidate
WHERE place <= :count
  AND (SELECT count(DISTINCT c.profile) FROM certificate c WHERE c.mailbox = address) < :each
ORDER BY address
"""


def authority_of(profession: str) -> str:
    """The body whose registrars enrol this profession."""
    return ORDRE_OF_PROFESSION.get(profession, WITHOUT_ORDRE)


def registrar(container: Container, connection: Connection, authority: str, name: str) -> access.Token:
    """A registrar of that authority whose secret nobody keeps: he acts here, and never over REST."""
    known = (
        token for token in access.list_tokens(connection) if token.name == name and token.revoked_at is None
    )
    return next(known, None) or _token(container, connection, name, access.Role.REGISTRAR, authority)[0]


def _token(
    container: Container, connection: Connection, name: str, role: access.Role, authority: str
) -> tuple[access.Token, str]:
    now = container.clock()
    return access.create_token(
        connection, now=now, actor=DEMO, name=name, role=role, authority=authority, lifetime=YEAR
    )


def certify_one(
    container: Container, registrars: list[access.Token], practitioner: str, address: str
) -> None:
    """One enrolment by two registrars and the certificate of a fresh key, from where an earlier try ended."""
    now = container.clock()
    with transaction(container.engine) as connection:
        query = (
            "SELECT id, state FROM enrolment WHERE practitioner = :p AND mailbox = :m AND state <> 'ended'"
            " ORDER BY state DESC"
        )
        begun = connection.execute(text(query), {"p": practitioner, "m": address}).first()
        enrolment, state = begun or (None, "")
        if enrolment is None:
            checked = {
                "method": "in-person",
                "document": "identity card",
                "checked_on": now.date().isoformat(),
            }
            asked = enrolling.request_enrolment(
                connection,
                now=now,
                token=registrars[0],
                practitioner=practitioner,
                mailbox=address,
                identity_check=checked,
            )
            enrolment = asked.id
    if state != "approved":
        with transaction(container.engine) as connection:
            enrolling.approve_enrolment(connection, now=now, token=registrars[1], enrolment_id=enrolment)
    for purpose in _purposes(container):
        _issue(container, registrars[0], enrolment, address, purpose)


def _purposes(container: Container) -> tuple[Purpose | None, ...]:
    """What to ask certificates for: each purpose where keys are separate, else once and without."""
    return (None,) if container.settings.mail_keys == MailKeys.JOINED.value else tuple(Purpose)


def _issue(
    container: Container, token: access.Token, enrolment: UUID, address: str, purpose: Purpose | None
) -> None:
    try:
        for_enrolment.issue_for_enrolment(
            container.engine, container.signer, now=container.clock(), token=token, enrolment_id=enrolment,
            csr=_request(address), base_url=container.settings.base_url,
            purposes=container.purposes(purpose),
        )  # fmt: skip
    except Refusal as refusal:
        # The first of a pair, when the second was cut off.
        if refusal.code != "already-certified":
            raise


def _request(address: str) -> bytes:
    """A certificate request on a key that is forgotten at once: the demo decrypts nothing."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, address[:64])])
    built = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return built.public_bytes(serialization.Encoding.DER)


def uncertified(container: Container, authority: str, count: int) -> list[tuple[str, str]]:
    """National id and address of people of this authority who practise, have a mailbox, never enrolled."""
    codes = [code for code, body in ORDRE_OF_PROFESSION.items() if body == authority]
    query = """
        SELECT m.holder, min(m.address) FROM mailbox m
        JOIN practitioner p ON p.national_id = m.holder AND p.departed_at IS NULL
        JOIN trusted_domain d ON d.name = m.domain AND d.departed_at IS NULL AND d.suspended_at IS NULL
        JOIN practice r ON r.national_id = m.holder AND r.profession_code = ANY(:codes)
        WHERE m.kind = 'PER' AND m.listed AND m.departed_at IS NULL
          AND NOT EXISTS (SELECT 1 FROM enrolment e WHERE e.practitioner = m.holder)
        GROUP BY m.holder ORDER BY m.holder LIMIT :count
    """
    with transaction(container.engine) as connection:
        found = connection.execute(text(query), {"codes": codes, "count": count}).all()
    if not found:
        raise Refusal(Kind.NOT_FOUND, "nobody-left", f"The demo has nobody left of {authority} to enrol.")
    return [(row[0], row[1]) for row in found]


def addresses_to_try(container: Container) -> list[str]:
    """One certified address of each operator, for the commands a newcomer pastes."""
    query = """
        SELECT DISTINCT ON (d.operator_id) m.address
        FROM certificate c JOIN mailbox m ON m.address = c.mailbox JOIN trusted_domain d ON d.name = m.domain
        WHERE m.kind = 'PER' AND NOT EXISTS (SELECT 1 FROM revocation r WHERE r.serial = c.serial)
        ORDER BY d.operator_id, m.address
    """
    with transaction(container.engine) as connection:
        return list(connection.execute(text(query)).scalars())

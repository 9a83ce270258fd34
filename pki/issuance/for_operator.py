"""Certificates that operators ask for themselves: servers in their own trusted domains, and their clients.

An operator is who the trusted list says: its token names it, the list says which domains are its own today.
What becomes of a certificate when a domain is withdrawn is in `pki/withdrawal/operators.py`.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from sqlalchemy import Connection, Engine

from directory.access import Token
from directory.base.errors import Kind, Refusal
from directory.base.locks import lock_until_commit
from directory.identifiers import parse_domain
from pki.certificates import public_keys
from pki.certificates.profiles import (
    OF_OPERATORS,
    OPERATOR_CLIENT,
    OPERATOR_SERVER,
    PROFILES,
    RESERVATION_LIFE,
    OperatorNames,
    ServiceNames,
    family_of,
)
from pki.certificates.public_keys import PublicKey
from pki.impediments import standing as impediments
from pki.issuance import pipeline
from pki.issuance.pipeline import Outcome, Prepared
from pki.issuance.quotas import Charged, Quotas
from pki.lint import pkix
from pki.lint.key import key_of_request
from pki.model import IssuedCertificate, Reservation, Serial
from pki.record import certificates, key_locks, reservations
from pki.registration import operators_store
from pki.registration.operators import check_domains, operator_of
from pki.registration.operators_store import Made, Operator, OperatorReservation
from pki.revocation import blocked_keys
from pki.service_keys import servers_authority
from pki.signing.signer import Signer

# Who certified them before there was a CA for servers.
FORMERLY = "organisations"
MOST_HOSTS = 100
_QUOTAS = Quotas()


def issue(
    engine: Engine,
    signer: Signer,
    *,
    now: datetime,
    token: Token,
    profile: str,
    csr: bytes,
    hosts: Sequence[str],
    base_url: str,
    opinion: pkix.SecondOpinion = pkix.findings,
    quotas: Quotas = _QUOTAS,
) -> IssuedCertificate:
    """Certify a key of the token's operator, in transactions of its own; a renewal is another, on a new key.

    Whoever gets no answer asks again with the same request: within five minutes the same reservation is
    taken up. Refuses `not-an-operator`, `unknown-profile`, `bad-hosts`, `malformed-domain`,
    `domain-not-trusted`, `domain-suspended`, `operator-suspended`, `servers-authority-missing`, `bad-csr`,
    `csr-too-large`,
    `bad-proof-of-possession`, `weak-key`, `key-blocked`, `key-already-certified`, `reason-stands`,
    `lint-failed`,
    `lint-unavailable`, `quota-reached`, `signer-unavailable`.
    """
    # 1. What is asked for, and a key whose holder has shown that he has it.
    wanted = _asked_hosts(profile, hosts)
    key = key_of_request(csr)

    # 2. What is checked before it is reserved, and again before it is handed out.
    def reserve(connection: Connection) -> Prepared:
        return _reserve(
            connection, now=now, token=token, profile=profile, key=key, hosts=wanted, base_url=base_url,
            opinion=opinion,
        )  # fmt: skip

    def store(connection: Connection, prepared: Prepared, signed: bytes) -> Outcome:
        return _store(connection, prepared, signed, token=token, hosts=wanted, now=now)

    # 3. In the order of every issuance. All operators have no body in common: each counts for itself.
    charged = Charged(replace(token, authority=f"operator-{token.operator_id}"), quotas, now)
    return pipeline.issue_one(engine, signer, reserve=reserve, store=store, charged=charged).handed_out()


def made_for(connection: Connection, *, token: Token, after: Serial | None, limit: int) -> list[Made]:
    """The certificates of the token's operator, by serial; refuses `not-an-operator`."""
    return operators_store.made_for(connection, operator_of(connection, token).id, after, limit)


def _asked_hosts(profile: str, hosts: Sequence[str]) -> tuple[str, ...]:
    if profile not in OF_OPERATORS:
        text = f"Operators are given {' and '.join(sorted(OF_OPERATORS))}."
        raise Refusal(Kind.UNACCEPTABLE, "unknown-profile", text)
    wanted = tuple(dict.fromkeys(parse_domain(host) for host in hosts))
    family = PROFILES[profile].family
    if family == OPERATOR_CLIENT.name and wanted:
        raise _bad_hosts("A client is named by its operator: it has no host.")
    if family == OPERATOR_SERVER.name and not 1 <= len(wanted) <= MOST_HOSTS:
        raise _bad_hosts(f"A server has 1 to {MOST_HOSTS} hosts.")
    return wanted


def _bad_hosts(text: str) -> Refusal:
    return Refusal(Kind.UNACCEPTABLE, "bad-hosts", text)


def _reserve(
    connection: Connection,
    *,
    now: datetime,
    token: Token,
    profile: str,
    key: PublicKey,
    hosts: tuple[str, ...],
    base_url: str,
    opinion: pkix.SecondOpinion,
) -> Prepared:
    operator = operator_of(connection, token)
    _queue(connection, operator)
    domains = check_domains(connection, operator, hosts)
    _check_undoubted(connection, operator, profile, hosts, now)
    checked = blocked_keys.check(connection, key)
    if (reserved := _taken_up(connection, operator, key, (profile, hosts), now)) is not None:
        return pipeline.resume(connection, reserved, token.actor)
    names = ServiceNames(hosts) if hosts else OperatorNames(operator.name, operator.id)
    prepared = pipeline.prepare(
        connection, now=now, actor=token.actor,
        authority=servers_authority.issuing(connection, PROFILES[profile], FORMERLY, now),
        profile=PROFILES[profile], key=checked, names=names, base_url=base_url, opinion=opinion,
    )  # fmt: skip
    serial, spki = prepared.reservation.serial, prepared.reservation.spki_sha256
    if not operators_store.add(connection, OperatorReservation(serial, operator.id, hosts, domains, spki)):
        raise pipeline.key_already_certified()
    return prepared


def _queue(connection: Connection, operator: Operator) -> None:
    """Whoever certifies for one operator waits here, so that the second sees what the first reserved."""
    lock_until_commit(connection, f"operator:{operator.id}")


def _taken_up(
    connection: Connection,
    operator: Operator,
    key: PublicKey,
    asked: tuple[str, tuple[str, ...]],
    now: datetime,
) -> Reservation | None:
    """The reservation of the same request a moment ago; refuses a key that serves anything else."""
    spki = public_keys.spki_sha256(key)
    if reservations.key_held_since(connection, spki) is not None:
        raise pipeline.key_already_certified()
    before = operators_store.of_key(connection, spki)
    if before is None:
        return None
    if before.operator_id != operator.id:
        raise pipeline.key_already_certified()
    reserved = reservations.load_reservation(connection, before.serial)
    stored = certificates.find_certificate(connection, before.serial)
    if reserved is None or stored or reserved.reserved_at < now - RESERVATION_LIFE:
        raise pipeline.key_already_certified(serial=before.serial)
    if (reserved.profile, before.hosts) != asked:
        raise pipeline.key_already_certified(serial=before.serial)
    return reserved


def _check_undoubted(
    connection: Connection, operator: Operator, profile: str, hosts: Sequence[str], now: datetime
) -> None:
    """Refuse `reason-stands` beside a certificate for the same that somebody else put on hold."""
    held = operators_store.doubted(connection, operator.id, family_of(profile), hosts, now)
    impediments.check(impediments.standing((), held=held))


def _store(
    connection: Connection,
    prepared: Prepared,
    signed: bytes,
    *,
    token: Token,
    hosts: tuple[str, ...],
    now: datetime,
) -> Outcome:
    """What is signed must be stored; whether it is handed out is asked again."""
    operator = operator_of(connection, token)
    _queue(connection, operator)
    key_locks.lock_keys(connection, [prepared.reservation.spki_sha256])

    def check(issued: IssuedCertificate) -> None:
        check_domains(connection, operator, hosts)
        _check_undoubted(connection, operator, issued.profile, hosts, now)
        # What was said of the key while it was being certified counts.
        blocked_keys.check_again(connection, issued.spki_sha256)

    return pipeline.store_checked(connection, prepared, signed, now, check, authority=None)

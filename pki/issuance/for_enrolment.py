"""A certificate for an approved enrolment: who may have it, for which key, before and after it is signed.

The order of the steps, and their transactions, are those of every issuance (`pki/issuance/pipeline.py`).
"""

from collections.abc import Callable
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, Engine

from directory.access import Token
from pki.certificates.public_keys import PublicKey
from pki.impediments import standing as impediments
from pki.issuance import circumstances, pipeline, rekey
from pki.issuance.pipeline import Outcome, Prepared
from pki.issuance.quotas import Charged, Quotas
from pki.lint import pkix
from pki.lint.key import key_of_request
from pki.model import JOINED, IssuedCertificate, Purpose
from pki.registration import eligibility
from pki.signing.signer import Signer

_QUOTAS = Quotas()


def issue_for_enrolment(
    engine: Engine,
    signer: Signer,
    *,
    now: datetime,
    token: Token,
    enrolment_id: UUID,
    csr: bytes,
    base_url: str,
    purposes: frozenset[Purpose] = JOINED,
    thorough: bool = True,
    opinion: pkix.SecondOpinion = pkix.findings,
    quotas: Quotas = _QUOTAS,
    keep: Callable[[Connection, IssuedCertificate], None] | None = None,
) -> IssuedCertificate:
    """Certify the key of a request for an approved enrolment and what it serves. In transactions of its own.

    A caller without an answer may ask again with the same request. Within five minutes the same reservation
    is taken up, and a certificate is made at most once. Refuses `bad-csr`, `csr-too-large`,
    `bad-proof-of-possession`, `weak-key`, `key-blocked`, `key-period-over`, `key-already-certified` (with
    `serial` when it was for this enrolment), `already-certified` (with the `serial` that lasts). Refuses
    `not-approved`, `enrolment-ended`, `enrolment-void`, `identity-too-old`, `quota-reached`,
    `signer-unavailable`, `lint-unavailable`, and what stands against the person or the mailbox. `keep` is
    called in the transaction that stores the certificate.
    """
    # 1. The request gives a key that its sender holds, and nothing else.
    key = key_of_request(csr)

    # 2. What is checked before it is reserved, and again before it is handed out.
    def reserve(connection: Connection) -> Prepared:
        return _reserve(
            connection, now=now, token=token, enrolment_id=enrolment_id, key=key, base_url=base_url,
            purposes=purposes, thorough=thorough, opinion=opinion,
        )  # fmt: skip

    def store(connection: Connection, prepared: Prepared, signed: bytes) -> Outcome:
        outcome = store_or_revoke(connection, prepared, signed, enrolment_id, now)
        if outcome.refusal is None and keep is not None:
            keep(connection, outcome.issued)
        return outcome

    # 3. In the order of every issuance.
    charged = Charged(token, quotas, now)
    return pipeline.issue_one(engine, signer, reserve=reserve, store=store, charged=charged).handed_out()


def _reserve(
    connection: Connection,
    *,
    now: datetime,
    token: Token,
    enrolment_id: UUID,
    key: PublicKey,
    base_url: str,
    purposes: frozenset[Purpose],
    thorough: bool,
    opinion: pkix.SecondOpinion,
) -> Prepared:
    enrolment, now = circumstances.lock(connection, enrolment_id, key, now)
    eligibility.check_issuance(token, enrolment)
    eligibility.check_identified(enrolment, now)
    basis = circumstances.reserving(connection, enrolment, key, purposes, now)
    names = impediments.check_subject(enrolment, basis.person, basis.facts, now)
    profile, checked = basis.profile(), basis.checked()
    pending = rekey.check_key(connection, enrolment, basis.use, profile, now)
    if pending is not None:
        return pipeline.resume(connection, pending, token.actor)
    return pipeline.prepare(
        connection, now=now, actor=token.actor, authority=basis.issuer(connection, now), profile=profile,
        key=checked, names=names, base_url=base_url, mailbox=enrolment.mailbox,
        practitioner=basis.person.national_id, enrolment_id=enrolment.id, thorough=thorough,
        opinion=opinion, dated=True,
    )  # fmt: skip


def store_or_revoke(
    connection: Connection, prepared: Prepared, signed: bytes, enrolment_id: UUID, now: datetime
) -> Outcome:
    """What is signed must be stored; whether it is handed out is asked again, under the person's lock."""
    spki = prepared.reservation.spki_sha256
    enrolment, now = circumstances.lock_again(connection, enrolment_id, spki, now)

    def check(issued: IssuedCertificate) -> None:
        eligibility.check_approved(enrolment)
        person, facts, against = circumstances.storing(connection, enrolment, issued, now)
        eligibility.check_enrolment(enrolment.authority, person, facts, now)
        # What was said of the key or of the one before while it was being certified counts.
        impediments.check_given(enrolment, person, facts, blocked=against.blocked, held=against.held, now=now)
        # Two keys may have been reserved side by side, while neither had its certificate.
        if against.lasting is not None:
            raise rekey.already_certified(against.lasting)

    return pipeline.store_checked(
        connection, prepared, signed, now, check, authority=enrolment.authority, dated=True
    )

"""A certificate for an approved enrolment: checked, reserved, linted, committed, signed, stored.

Opens transactions of its own, because nothing may be open while the signer works.
"""

from collections.abc import Callable
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, Engine

from directory.access import Token
from directory.base.db import transaction
from directory.base.errors import Kind, Refusal
from pki import circumstances, impediments
from pki.certificates import mailbox_profiles
from pki.certificates.csr import public_key_of_request
from pki.certificates.public_keys import PublicKey
from pki.issuance import pipeline, rekey
from pki.issuance.pipeline import Prepared
from pki.issuance.quotas import Quotas, charge, told
from pki.lint import pkix
from pki.lint.key import weaknesses
from pki.model import JOINED, IssuedCertificate, Purpose, RevocationReason
from pki.record import authorities, key_locks
from pki.record.revocations import Revocable
from pki.registration import eligibility, vouched_names
from pki.registration.enrolment import held_enrolment, mailbox_of
from pki.revocation import revoke as revoking
from pki.revocation.revoke import TakingBack
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

    Whoever gets no answer may ask again with the same request: within five minutes the same reservation is
    taken up, and a certificate is made at most once. Refuses `bad-csr`, `csr-too-large`,
    `bad-proof-of-possession`, `weak-key`, `key-already-certified` (with `serial` when it was for this
    enrolment), `already-certified` (with the `serial` that lasts), `not-approved`, `enrolment-ended`,
    `signer-unavailable`, `lint-unavailable`, `key-blocked`, `key-period-over`, `identity-too-old`,
    `quota-reached`, `enrolment-void`, and what stands against the person or the mailbox. `keep` is called in
    the transaction that stores the certificate.
    """
    # 1. The request gives a key that its sender holds, and nothing else.
    key = public_key_of_request(csr)
    if found := weaknesses(key):
        text = f"This key must not be certified: {', '.join(found)}."
        raise Refusal(Kind.UNACCEPTABLE, "weak-key", text, findings=found)
    # 2. Reserved and linted, then committed.
    with told(engine, token, now), transaction(engine) as connection:
        prepared = _reserve(
            connection, now=now, token=token, enrolment_id=enrolment_id, key=key, base_url=base_url,
            purposes=purposes, thorough=thorough, opinion=opinion,
        )  # fmt: skip
        charge(connection, quotas, token, now=now)
    # 3. Signed, with nothing open.
    signed = pipeline.sign(signer, prepared)
    # 4. Stored; revoked in the same breath when the person left meanwhile.
    with transaction(engine) as connection:
        issued, refusal = store_or_take_back(connection, prepared, signed, enrolment_id, now)
        if refusal is None and keep is not None:
            keep(connection, issued)
    if refusal is not None:
        raise refusal
    return issued


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
    # Two requests for one person queue here, so the second sees what the first reserved.
    number = key_locks.number_lock(key_locks.number_of(key))
    enrolment, now = held_enrolment(connection, enrolment_id, number, now=now)
    eligibility.check_issuance(token, enrolment)
    eligibility.check_identified(enrolment, now)
    found = circumstances.reserving(connection, enrolment, key, purposes, now)
    person, facts = found.person, found.facts
    eligibility.check_enrolment(enrolment.authority, person, facts, now)
    names = vouched_names.check_unchanged(enrolment, person, facts)
    impediments.check_given(enrolment, person, facts, now=now)
    kind = mailbox_of(facts).kind
    profile = mailbox_profiles.mail_profile(kind, purposes)
    checked = found.checked()
    pending = rekey.check_key(connection, enrolment, found.use, profile, now)
    if pending is not None:
        return pipeline.resume(connection, pending, token.actor)
    return pipeline.prepare(
        connection, now=now, actor=token.actor,
        authority=authorities.issuing_authority(connection, mailbox_profiles.ISSUER_OF_MAILBOX[kind], now),
        profile=profile, public_key=key,
        names=names, base_url=base_url, mailbox=enrolment.mailbox,
        practitioner=person.national_id, enrolment_id=enrolment.id, thorough=thorough,
        opinion=opinion, checked=checked, dated=True,
    )  # fmt: skip


def store_or_take_back(
    connection: Connection, prepared: Prepared, signed: bytes, enrolment_id: UUID, now: datetime
) -> tuple[IssuedCertificate, Refusal | None]:
    """What is signed must be stored; whether it is handed out is asked again, under the person's lock."""
    lock = key_locks.lock_name(prepared.reservation.spki_sha256)
    enrolment, now = held_enrolment(connection, enrolment_id, lock, now=now)
    issued = pipeline.store_signed(connection, prepared, signed, now, dated=True)
    try:
        eligibility.check_approved(enrolment)
        person, facts, found = circumstances.storing(connection, enrolment, issued, now)
        eligibility.check_enrolment(enrolment.authority, person, facts, now)
        # What was said of the key or of the one before while it was being certified counts.
        impediments.check_given(enrolment, person, facts, blocked=found.blocked, held=found.held, now=now)
        # Two keys may have been reserved side by side, while neither had its certificate.
        if found.lasting is not None:
            raise rekey.already_certified(found.lasting)
    except Refusal as refusal:
        comment = f"no longer allowed when it was signed: {refusal.code}"
        taking = TakingBack(
            Revocable(issued, None, enrolment.authority), RevocationReason.CESSATION_OF_OPERATION, comment
        )
        revoking.take_back(connection, [taking], now=now, actor=prepared.actor)
        return issued, refusal
    return issued, None

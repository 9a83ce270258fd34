"""Many certificates at once for the people of one authority: by the rules of single ones, as sets.

Each enrolment was approved by a second registrar before. Own lints only: pkilint would be most of the time.
What a crash leaves is what a single issuance leaves, item by item; the same batch sent again goes on where it
stood.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from itertools import islice
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Connection, Engine

from directory import store as directory_store
from directory.access import Role, Token
from directory.base.audit import Event, record
from directory.base.db import transaction
from directory.base.errors import Kind, Refusal
from directory.base.pools import Pool
from directory.model import MailboxFacts, Practitioner
from pki.certificates import mailbox_profiles, public_keys
from pki.certificates.public_keys import PublicKey
from pki.impediments import standing as impediments
from pki.issuance import batch_store, pipeline, rekey
from pki.issuance.batch_store import Batch, Item
from pki.issuance.pipeline import Prepared, ReservationOrder, Signed
from pki.issuance.quotas import Charged, Quotas
from pki.lint.key import key_of_request
from pki.model import (
    JOINED,
    Enrolment,
    IssuedCertificate,
    Purpose,
    Reservation,
    Serial,
)
from pki.powers.state import Powers
from pki.record import authorities, enrolments, key_locks, key_use
from pki.registration import eligibility, vouched_names
from pki.registration import enrolment as enrolling
from pki.revocation import blocked_keys
from pki.revocation.blocked_keys import Checked
from pki.signing.signer import Signer

LARGEST = 1000
# Whom a batch holds locked meanwhile waits for some 100 ms.
_AT_ONCE = 100
# While the record and the signer work for some parts, the next is drawn up and linted.
_IN_FLIGHT = 4
_QUOTAS = Quotas()


@dataclass(frozen=True)
class BatchItem:
    """One item: an approved enrolment, the request that gives its key (PEM or DER), and what that serves.

    `refused` says why it serves nothing: this item is refused, the others are not.
    """

    enrolment_id: UUID
    csr: bytes
    purposes: frozenset[Purpose] = JOINED
    refused: Refusal | None = None


@dataclass(frozen=True)
class _Subject:
    """All that the rules ask about one item, read as a set."""

    enrolment: Enrolment
    person: Practitioner | None
    facts: MailboxFacts


def issue_all(
    engine: Engine,
    signer: Signer,
    *,
    now: datetime,
    token: Token,
    asked: Sequence[BatchItem],
    base_url: str,
    quotas: Quotas = _QUOTAS,
) -> tuple[Batch, list[Item]]:
    """Certify the key of each item, or say why not; in transactions of its own.

    The same batch asked again, by anyone of the same authority, is the same batch. Finished items stay done,
    those cut off go on. Each certificate counts against the quotas of its sender as alone. Parts beyond them
    wait for the next hour, or for another of the same authority to send the batch again. Refuses
    `not-a-registrar`, `bad-batch`, `quota-reached`, `signer-unavailable`.
    """
    eligibility.check_registrar(token)
    _check_size(asked)
    with transaction(engine) as connection:
        batch = _begin(connection, token, asked, now)
        open_places = [item.place for item in batch_store.items(connection, batch.id) if _is_open(item)]

    def issue(places: Sequence[int]) -> None:
        _issue(
            engine, signer, batch, {place: asked[place] for place in places}, now=now, token=token,
            base_url=base_url, quotas=quotas,
        )  # fmt: skip

    with Pool(_IN_FLIGHT) as pool:
        # What one refuses or breaks on is raised once those begun have ended: nothing is cut off half-way.
        list(pool.map(issue, _chunks(open_places)))
    with transaction(engine, read_only=True) as connection:
        return batch, batch_store.items(connection, batch.id)


def seen(connection: Connection, *, token: Token, batch_id: UUID) -> tuple[Batch, list[Item]]:
    """A batch and what its items came to, for a registrar of its authority or an auditor.

    Refuses `unknown-batch`, of another body's batch too, and `not-a-registrar`.
    """
    batch = batch_store.load(connection, batch_id)
    unknown = Refusal(Kind.NOT_FOUND, "unknown-batch", f"There is no batch {batch_id}.")
    if batch is None:
        raise unknown
    if token.role is not Role.AUDITOR:
        eligibility.check_own(token, batch.authority, unknown)
    return batch, batch_store.items(connection, batch_id)


def approve_all(
    connection: Connection,
    *,
    now: datetime,
    token: Token,
    enrolment_ids: Sequence[UUID],
    signed: Sequence[bytes] | None = None,
    powers: Powers | None = None,
) -> dict[UUID, Enrolment | Refusal]:
    """The second pair of eyes on many enrolments: each approved as alone, or refused; `bad-batch`.

    `signed` is an act for each, in the same order, where the installation has anchors.
    """
    _check_size(enrolment_ids)
    acts = _acts_of(enrolment_ids, signed)
    known = batch_store.enrolments(connection, enrolment_ids)
    # In one order for all who lock several people.
    directory_store.lock_people(connection, [enrolment.practitioner for enrolment in known.values()])
    enrolments.lock_beside(connection, list(known))
    return {
        enrolment_id: _approved(connection, now, token, enrolment_id, acts.get(enrolment_id), powers=powers)
        for enrolment_id in sorted(set(enrolment_ids))
    }


def _acts_of(enrolment_ids: Sequence[UUID], signed: Sequence[bytes] | None) -> dict[UUID, bytes]:
    if signed is None:
        return {}
    if len(signed) != len(enrolment_ids):
        text = f"There are {len(signed)} acts for {len(enrolment_ids)} enrolments: one belongs to each."
        raise Refusal(Kind.UNACCEPTABLE, "bad-batch", text)
    return dict(zip(enrolment_ids, signed, strict=True))


def _approved(
    connection: Connection,
    now: datetime,
    token: Token,
    enrolment_id: UUID,
    signed: bytes | None,
    *,
    powers: Powers | None,
) -> Enrolment | Refusal:
    try:
        with connection.begin_nested():
            return enrolling.approve_enrolment(
                connection, now=now, token=token, enrolment_id=enrolment_id, signed=signed, powers=powers
            )
    except Refusal as refusal:
        return refusal


def _check_size(asked: Sequence[BatchItem] | Sequence[UUID]) -> None:
    ids = [
        (item.enrolment_id, purpose) if isinstance(item, BatchItem) else (item, None)
        for item in asked
        for purpose in (item.purposes if isinstance(item, BatchItem) else [None])
    ]
    if not 1 <= len(asked) <= LARGEST or len(set(ids)) != len(ids):
        text = f"A batch has 1 to {LARGEST} enrolments, each once (for each purpose)."
        raise Refusal(Kind.UNACCEPTABLE, "bad-batch", text)


def _begin(connection: Connection, token: Token, asked: Sequence[BatchItem], now: datetime) -> Batch:
    digest = sha256()
    for item in asked:
        # No request begins so: a batch of joined keys is known by what it was before there were others.
        purpose = (
            b"" if item.purposes == JOINED else b"".join(p.value.encode() + b"\0" for p in item.purposes)
        )
        digest.update(item.enrolment_id.bytes + sha256(purpose + item.csr).digest())
    wanted = Batch(uuid4(), token.authority, token.id, now, digest.digest())
    batch, is_new = batch_store.begin(connection, wanted, [item.enrolment_id for item in asked])
    if is_new:
        detail = {"authority": batch.authority, "items": len(asked), "sha256": batch.digest.hex()}
        record(
            connection,
            now=now,
            actor=token.actor,
            event=Event.BATCH_ASKED,
            subject=str(batch.id),
            detail=detail,
        )
    return batch


def _is_open(item: Item) -> bool:
    return item.refusal is None and item.certificate is None


def _chunks(places: Sequence[int]) -> Iterator[list[int]]:
    rest = iter(places)
    while chunk := list(islice(rest, _AT_ONCE)):
        yield chunk


def _issue(
    engine: Engine,
    signer: Signer,
    batch: Batch,
    asked: Mapping[int, BatchItem],
    *,
    now: datetime,
    token: Token,
    base_url: str,
    quotas: Quotas,
) -> None:
    # 1. Each request gives a key that its sender holds, and nothing else; what it serves is known.
    keys = _without_twins({place: _tried(_key, item) for place, item in asked.items()})

    # 2. Reserved as a set, with what each place came to.
    def reserve(connection: Connection) -> dict[int, Prepared]:
        results = _reserve(connection, asked, keys, now=now, token=token, base_url=base_url)
        batch_store.save_results(
            connection, batch.id, {place: _noted(outcome) for place, outcome in results.items()}
        )
        return {place: outcome for place, outcome in results.items() if isinstance(outcome, Prepared)}

    # 3. Stored as a set; what the signer refused, or the rules by now, is noted in its place.
    def store(connection: Connection, signed: Signed) -> None:
        ready = {
            place: (prepared, der) for place, (prepared, der) in signed.items() if isinstance(der, bytes)
        }
        refused = {place: der for place, (_, der) in signed.items() if isinstance(der, Refusal)}
        refused |= _store(connection, asked, ready, now)
        batch_store.save_results(
            connection, batch.id, {place: _noted(refusal) for place, refusal in refused.items()}
        )

    # 4. In the order of every issuance, by one question to the signer.
    pipeline.run(
        engine, reserve=reserve, sign=signer.sign_certificates, store=store,
        charged=Charged(token, quotas, now),
    )  # fmt: skip


def _key(asked: BatchItem) -> PublicKey:
    key = key_of_request(asked.csr)
    if asked.refused is not None:
        raise asked.refused
    return key


def _without_twins(keys: Mapping[int, PublicKey | Refusal]) -> dict[int, PublicKey | Refusal]:
    """Of several forms of one private key the first; those of other parts are met in the record."""
    first: dict[bytes, bytes] = {}
    distinct = dict(keys)
    for place, key in keys.items():
        if isinstance(key, Refusal):
            continue
        spki = public_keys.spki_sha256(key)
        if first.setdefault(key_locks.number_of(key), spki) != spki:
            distinct[place] = blocked_keys.twin()
    return distinct


def _tried(act: Callable[..., Any], *values: Any) -> Any:
    """What the act gives, or its refusal as a value: of many, one that is refused stops no other."""
    try:
        return act(*values)
    except Refusal as refusal:
        return refusal


def _noted(result: Prepared | Refusal) -> Serial | dict[str, Any]:
    if isinstance(result, Prepared):
        return result.reservation.serial
    return {"kind": result.kind.value, "code": result.code, "text": result.text}


def _reserve(
    connection: Connection,
    asked: Mapping[int, BatchItem],
    keys: Mapping[int, PublicKey | Refusal],
    *,
    now: datetime,
    token: Token,
    base_url: str,
) -> dict[int, Prepared | Refusal]:
    given = [key for key in keys.values() if not isinstance(key, Refusal)]
    numbers = map(key_locks.number_of, given)
    subjects = _subjects(connection, [item.enrolment_id for item in asked.values()], numbers)
    spki = {
        place: public_keys.spki_sha256(key) for place, key in keys.items() if not isinstance(key, Refusal)
    }
    taken = batch_store.taken_keys(connection, list(spki.values()))
    passed = blocked_keys.checked_among(connection, given)
    lasting = batch_store.lasting(connection, list(subjects), now + eligibility.RENEWAL_OPENS)
    held = batch_store.held(connection, list(subjects), now)

    first = {key: place for place, key in reversed(spki.items())}

    def judged(place: int, item: BatchItem) -> _Subject | Reservation:
        if isinstance(key := keys[place], Refusal):
            raise key
        subject = _allowed(subjects.get(item.enrolment_id), item.enrolment_id, token, now)
        # In the order of the single road: what is wrong with a key is said before what it serves.
        if spki[place] not in passed:
            passed[spki[place]] = blocked_keys.check(connection, key, held=True)
        pending = None
        if spki[place] in taken:
            pending = _begun(connection, subject, item, taken[spki[place]], spki[place], now=now)
        elif (twin := first[spki[place]]) != place and asked[twin].enrolment_id == item.enrolment_id:
            # Of a pair in one batch each is on a key of its own as well.
            raise pipeline.key_already_certified()
        if (other := _lasting(lasting, item)) is not None:
            raise rekey.already_certified(other)
        _check_given(subject, held, now)
        return pending or subject

    judgements = {place: _tried(judged, place, item) for place, item in asked.items()}
    results: dict[int, Prepared | Refusal] = {}
    for place, outcome in judgements.items():
        if isinstance(outcome, Refusal):
            results[place] = outcome
        elif isinstance(outcome, Reservation):
            results[place] = pipeline.resume(connection, outcome, token.actor)
    fresh = {place: subject for place, subject in judgements.items() if isinstance(subject, _Subject)}
    purposes = {place: asked[place].purposes for place in fresh}
    checked = {place: passed[spki[place]] for place in fresh}
    blocked_keys.note(connection, {key.spki_sha256: key.public_key for key in checked.values()})
    return results | _prepare(connection, fresh, checked, purposes, now=now, token=token, base_url=base_url)


def _lasting(lasting: Mapping[tuple[UUID, Purpose], Serial], asked: BatchItem) -> Serial | None:
    """A certificate that lasts and serves what this item asks for, or part of it."""
    serials = (lasting.get((asked.enrolment_id, purpose)) for purpose in Purpose if purpose in asked.purposes)
    return next((serial for serial in serials if serial is not None), None)


def _begun(
    connection: Connection,
    subject: _Subject,
    asked: BatchItem,
    holder: UUID | None,
    spki: bytes,
    *,
    now: datetime,
) -> Reservation | None:
    """What is under way for a key that somebody has; refuses another's, and one that may not serve again."""
    if holder != subject.enrolment.id or subject.facts.mailbox is None:
        raise pipeline.key_already_certified()
    profile = mailbox_profiles.mail_profile(subject.facts.mailbox.kind, asked.purposes)
    use = key_use.key_use(
        connection, spki, subject.enrolment, asked.purposes, beyond=now + eligibility.RENEWAL_OPENS, now=now
    )
    return rekey.check_key(connection, subject.enrolment, use, profile, now)


def _subjects(
    connection: Connection, enrolment_ids: Sequence[UUID], numbers: Iterable[bytes] = ()
) -> dict[UUID, _Subject]:
    """The enrolments, locked behind their people and these numbers of keys, and what the record says of both
    ends of each.
    """
    people = {
        enrolment.practitioner for enrolment in batch_store.enrolments(connection, enrolment_ids).values()
    }
    directory_store.lock_people(connection, people)
    key_locks.hold_numbers(connection, numbers)
    known = batch_store.enrolments(connection, enrolment_ids, lock=True)
    persons = directory_store.practitioners(connection, sorted(people))
    facts = directory_store.mailbox_facts(
        connection, sorted({enrolment.mailbox for enrolment in known.values()})
    )
    return {
        key: _Subject(enrolment, persons.get(enrolment.practitioner), facts[enrolment.mailbox])
        for key, enrolment in known.items()
    }


def _allowed(subject: _Subject | None, enrolment_id: UUID, token: Token, now: datetime) -> _Subject:
    """As the single road asks, in its order; `token`'s authority is the batch's."""
    if subject is None:
        raise Refusal(Kind.NOT_FOUND, "unknown-enrolment", f"There is no enrolment {enrolment_id}.")
    eligibility.check_issuance(token, subject.enrolment)
    eligibility.check_identified(subject.enrolment, now)
    _check_standing(subject, now)
    vouched_names.check_unchanged(subject.enrolment, _person(subject), subject.facts)
    return subject


def _check_standing(subject: _Subject, now: datetime) -> None:
    eligibility.check_approved(subject.enrolment)
    eligibility.check_enrolment(subject.enrolment.authority, _person(subject), subject.facts, now)


def _person(subject: _Subject) -> Practitioner:
    if subject.person is None:
        text = f"The national register has no {subject.enrolment.practitioner}."
        raise Refusal(Kind.NOT_FOUND, "unknown-practitioner", text)
    return subject.person


def _check_given(subject: _Subject, held: Mapping[UUID, Serial], now: datetime) -> None:
    enrolment, person = subject.enrolment, _person(subject)
    impediments.check_given(enrolment, person, subject.facts, held=held.get(enrolment.id), now=now)


def _prepare(
    connection: Connection,
    subjects: Mapping[int, _Subject],
    keys: Mapping[int, Checked],
    purposes: Mapping[int, frozenset[Purpose]],
    *,
    now: datetime,
    token: Token,
    base_url: str,
) -> dict[int, Prepared | Refusal]:
    by_role: dict[str, dict[int, ReservationOrder]] = {}
    for place, subject in subjects.items():
        mailbox, person = subject.facts.mailbox, subject.person
        if mailbox is None or person is None:
            raise TypeError("only what was judged is prepared")
        wanted = ReservationOrder(
            mailbox_profiles.mail_profile(mailbox.kind, purposes[place]), keys[place],
            vouched_names.check_unchanged(subject.enrolment, person, subject.facts), mailbox.address,
            person.national_id, subject.enrolment.id,
        )  # fmt: skip
        by_role.setdefault(mailbox_profiles.ISSUER_OF_MAILBOX[mailbox.kind], {})[place] = wanted
    results: dict[int, Prepared | Refusal] = {}
    for role, group in by_role.items():
        authority = authorities.issuing_authority(connection, role, now)
        made = pipeline.prepare_all(
            connection, authority, list(group.values()), now=now, actor=token.actor, base_url=base_url
        )
        results |= dict(zip(group, made, strict=True))
    return results


def _store(
    connection: Connection,
    asked: Mapping[int, BatchItem],
    signed: Mapping[int, tuple[Prepared, bytes]],
    now: datetime,
) -> dict[int, Refusal]:
    """What is signed must be stored; whether it is handed out is asked again, under the people's locks."""
    subjects = _subjects(connection, [asked[place].enrolment_id for place in signed])
    key_locks.lock_keys(connection, [prepared.reservation.spki_sha256 for prepared, _ in signed.values()])
    stored = pipeline.store_all(connection, list(signed.values()), now)
    lasting = batch_store.lasting(
        connection, list(subjects), now + eligibility.RENEWAL_OPENS, but=list(stored)
    )
    blocked = batch_store.blocked_among(
        connection, [certificate.spki_sha256 for certificate in stored.values()]
    )
    held = batch_store.held(connection, list(subjects), now)
    refused: dict[int, Refusal] = {}
    withheld: list[tuple[IssuedCertificate, str | None, Refusal]] = []
    for place, (prepared, _) in signed.items():
        issued = stored.get(prepared.reservation.serial)
        subject = subjects[asked[place].enrolment_id]
        if issued is None:
            continue
        refusal = _against(subject, _lasting(lasting, asked[place]), held, now)
        if issued.spki_sha256 in blocked:
            # What was said of the key while it was being certified counts.
            refusal = _tried(blocked_keys.check_again, connection, issued.spki_sha256)
        if refusal is not None:
            refused[place] = refusal
            withheld.append((issued, subject.enrolment.authority, refusal))
    if withheld:
        actor = next(iter(signed.values()))[0].actor
        pipeline.revoke_withheld(connection, withheld, now=now, actor=actor)
    return refused


def _against(
    subject: _Subject, other: Serial | None, held: Mapping[UUID, Serial], now: datetime
) -> Refusal | None:
    if other is not None:
        # Two keys may have been reserved side by side, while neither had its certificate.
        return rekey.already_certified(other)
    against: Refusal | None = _tried(_check_standing, subject, now) or _tried(
        _check_given, subject, held, now
    )
    return against

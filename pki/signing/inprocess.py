"""The signer itself: reads what is committed, judges it, signs it once, writes it down, hands it out.

`process` puts it behind a socket; tests and bulk work on one machine use it as it is.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from threading import Lock
from uuid import UUID

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from sqlalchemy import Connection, Engine

from directory.base.clock import Clock, utc_now
from directory.base.db import asking, transaction
from directory.base.errors import Kind, Refusal
from directory.feed.changes import place_of_crl
from pki.crl import checks
from pki.crl import store as crl_store
from pki.model import Authority, Reservation, Serial
from pki.powers.freeze import need_thawed
from pki.powers.state import Powers
from pki.record import authorities, enrolment_acts, reservations
from pki.record.enrolment_acts import Evidence
from pki.rollback import high_water
from pki.rollback.detection import OutsideMemory, Watch
from pki.rollback.signing_clock import SigningClock
from pki.signing.evidence import check_evidence, needs_evidence
from pki.signing.inspection import inspect
from pki.signing.journal import Journal
from pki.signing.keys import Keys, missing
from pki.signing.seal import seal
from pki.signing.signer import MOST_AT_ONCE, MOST_LISTED

VERSION = "sceau-signer/1"
Gate = Callable[..., None]


@dataclass(frozen=True)
class _Committed:
    """What was committed for a serial, and what persons signed for the enrolment it names."""

    reservation: Reservation
    authority: Authority
    evidence: Evidence | None


class InProcessSigner:
    """Implements `Signer` on its own database connections, one signature at a time."""

    def __init__(
        self,
        engine: Engine,
        keys: Keys,
        journal: Journal,
        clock: Clock = utc_now,
        check_crl: Gate = checks.check_crl,
        *,
        kept: OutsideMemory | None = None,
        powers: Callable[[], Powers] | None = None,
    ) -> None:
        """With `powers`, it signs for an enrolment what two persons with the power to it signed for."""
        self.clock = clock
        self.signing = SigningClock(engine, self._now, journal.folder)
        self._watch = None if kept is None else Watch(engine, kept)
        self._powers = powers
        self._engine = engine
        self._keys = keys
        self._journal = journal
        self._check_crl = check_crl
        self._loaded: dict[str, EllipticCurvePrivateKey] = {}
        # A serial is looked up, signed and written down by one thread at a time, or two could sign it.
        self._alone = Lock()

    def _now(self) -> datetime:
        return self.clock()

    def ping(self) -> str:
        """The version, once its clock lets it sign and each issuing CA's key is there.

        Refuses `clock-differs`, `clock-behind`, and what `open_keys` refuses.
        """
        self.signing.need()
        self.open_keys()
        return VERSION

    def open_keys(self) -> None:
        """See that every issuing CA's key is there and opens (the root's is not needed daily)."""
        with transaction(self._engine, read_only=True) as connection:
            issuing = [authority for authority in authorities.authorities(connection) if authority.issuer_id]
        with self._alone:
            for authority in issuing:
                # Loaded once is not there for ever: a token may be unplugged.
                if not self._keys.exists(authority.key_name):
                    raise missing(authority.key_name)
                self._key(authority)

    def sign_certificate(self, serial: Serial) -> bytes:
        """The reserved certificate, signed now or found in the journal; refusals as in `Signer`."""
        (answer,) = self.sign_certificates([serial])
        if isinstance(answer, Refusal):
            raise answer
        return answer

    def sign_certificates(self, serials: Sequence[Serial]) -> list[bytes | Refusal]:
        """Each signed now or found in the journal, after one reading of the record and one of the disk."""
        if len(serials) > MOST_AT_ONCE:
            text = f"At most {MOST_AT_ONCE} certificates are signed at once."
            raise Refusal(Kind.TOO_LARGE, "too-many-at-once", text)
        with self._alone:
            # 1. Asked again: the same answer.
            known = {serial: self._journal.certificate(serial) for serial in serials}
            # 2. What was committed, on a connection of our own.
            wanted = [serial for serial, signed in known.items() if signed is None]
            if wanted and self._watch is not None:
                self._watch.need()
            powers = self._powers_now() if wanted else None
            reserved = self._reservations(wanted) if wanted else {}
            now = self.signing.instant() if wanted else None
            # 3. Whether it may be signed, and the signature.
            answers = {
                serial: signed or self._signed(reserved[serial], now, powers)
                for serial, signed in known.items()
            }
            # 4. On disk, then out.
            fresh = {serial: answers[serial] for serial in wanted}
            self._journal.add_certificates({s: der for s, der in fresh.items() if isinstance(der, bytes)})
            return [answers[serial] for serial in serials]

    def sign_crl(self, authority_id: str, shard: int, number: int) -> bytes:
        """The reserved CRL, signed again as long as its row has no signature; never with another content.

        The journal keeps the digest of what was signed under each number, not the megabytes of it.
        """
        place = f"{place_of_crl(authority_id, shard)}/{number}"
        with self._alone, transaction(self._engine, read_only=True) as connection:
            authority, tbs, signed = self._list(connection, authority_id, shard, number)
            if signed is not None:
                return signed
            digest = sha256(tbs).digest()
            before = self._journal.list_signed(place)
            if before is not None and before != digest:
                # A restored database gave the number out a second time.
                text = f"CRL {place} has been signed with another content."
                raise Refusal(Kind.CONFLICT, "crl-number-reused", text)
            least = 0
            if self._watch is not None:
                self._watch.need()
                least = high_water.events(self._watch.kept.floor, number, place_of_crl(authority_id, shard))
            self._check_crl(connection, authority, shard, number, tbs, self.signing.instant(), least=least)
            # The key before the journal: without one, every try would leave a line and no signature.
            key = self._key(authority)
            if before is None:
                self._journal.add_list(place, digest)
            return seal(tbs, key)

    def journal(self, serial: Serial) -> bytes | None:
        """The certificate signed under this serial, None when none was."""
        with self._alone:
            return self._journal.certificate(serial)

    def signed(self, after: int) -> list[Serial]:
        """The serials of certificates signed, in that order, from the `after`-th on; [] at the end."""
        with self._alone:
            return self._journal.serials(after, MOST_LISTED)

    def _powers_now(self) -> Powers | None:
        """Who holds which power; refuses `frozen`. No CRL waits for that: they take trust away."""
        powers = None if self._powers is None else self._powers()
        if powers is not None:
            need_thawed(powers)
        return powers

    def _signed(
        self, outcome: _Committed | Refusal, now: datetime | None, powers: Powers | None
    ) -> bytes | Refusal:
        if isinstance(outcome, Refusal):
            return outcome
        reserved, authority, now = outcome.reservation, outcome.authority, now or self.signing.instant()
        try:
            certificate = inspect(reserved, authority, now)
            if powers is not None and needs_evidence(reserved):
                found = outcome.evidence
                enrolment, acts = (None, ()) if found is None else (found.enrolment, found.acts)
                check_evidence(powers, enrolment, acts, reserved, certificate, now=now)
        except Refusal as refusal:
            return refusal
        return seal(reserved.tbs, self._key(authority))

    def _evidence(self, connection: Connection, reserved: Sequence[Reservation]) -> Mapping[UUID, Evidence]:
        named = {reservation.enrolment_id for reservation in reserved}
        asked = [enrolment_id for enrolment_id in named if enrolment_id is not None]
        return {} if self._powers is None or not asked else enrolment_acts.evidence(connection, asked)

    def _reservations(self, serials: Sequence[Serial]) -> dict[Serial, _Committed | Refusal]:
        with asking(self._engine) as connection:
            committed = reservations.to_sign(connection, serials)
            evidence = self._evidence(connection, [entry.reservation for entry in committed.values()])
        outcomes: dict[Serial, _Committed | Refusal] = {}
        for serial in serials:
            if (entry := committed.get(serial)) is None:
                text = f"No reservation {serial} is committed."
                outcomes[serial] = Refusal(Kind.NOT_FOUND, "unknown-reservation", text)
            elif entry.stored:
                text = f"A certificate {serial} exists that this journal does not know."
                outcomes[serial] = Refusal(Kind.CONFLICT, "already-signed", text)
            else:
                of = entry.reservation.enrolment_id
                found = None if of is None else evidence.get(of)
                outcomes[serial] = _Committed(entry.reservation, entry.authority, found)
        return outcomes

    @staticmethod
    def _list(
        connection: Connection, authority_id: str, shard: int, number: int
    ) -> tuple[Authority, bytes, bytes | None]:
        list_bytes = crl_store.bytes_of(connection, authority_id, shard, number)
        authority = authorities.load_authority(connection, authority_id)
        if list_bytes is None or authority is None:
            text = f"No CRL {place_of_crl(authority_id, shard)}/{number} is committed."
            raise Refusal(Kind.NOT_FOUND, "unknown-crl", text)
        return authority, *list_bytes

    def _key(self, authority: Authority) -> EllipticCurvePrivateKey:
        if authority.key_name not in self._loaded:
            key = self._keys.load(authority.key_name)
            if key.public_key() != x509.load_der_x509_certificate(authority.der).public_key():
                # Keys of one installation beside the record of another: found before the journal fills with
                # signatures that nobody can verify.
                text = f"The key {authority.key_name} is not the one in the CA's certificate."
                raise Refusal(Kind.UNAVAILABLE, "ca-key-unreadable", text)
            self._loaded[authority.key_name] = key
        return self._loaded[authority.key_name]

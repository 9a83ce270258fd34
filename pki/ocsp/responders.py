"""The keys that sign OCSP answers, and the answers they sign ahead.

Where they lie is for `pki/service_keys/files.py`; `pki/issuance/for_service.py` has them certified; what an
answer says is `response`'s matter.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha1
from pathlib import Path
from types import MappingProxyType

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import Connection, Engine

from directory.base.db import transaction
from pki.certificates import identifiers
from pki.certificates.profiles import BACKDATING
from pki.model import Serial
from pki.ocsp import response as ocsp
from pki.ocsp import store as ocsp_store
from pki.ocsp.request import Request
from pki.ocsp.response import Issuer
from pki.ocsp.store import Presigned, ResponderRow, Waiting
from pki.service_keys import files as key_files

_LOG = logging.getLogger("sceau.status")
# Answers signed in one transaction: a revocation of one of them waits for so many signatures, some 50 ms.
_BATCH = 500
# Renewed well before half is gone, so that none is ever served older than that (rule 1).
_RENEWED_WITH = 0.6
# What is cut short is not signed at each look.
_JUST_NOW = timedelta(minutes=1)
_ALGORITHM = ec.ECDSA(hashes.SHA256())


@dataclass(frozen=True)
class Responder:
    """One key that signs answers of one CA, until `not_after`."""

    serial: Serial
    authority_id: str
    certificate: bytes
    key_hash: bytes
    not_after: datetime
    key: ec.EllipticCurvePrivateKey = field(repr=False, compare=False)

    def sign(self, data: bytes) -> bytes:
        """ECDSA with SHA-256, in DER."""
        return self.key.sign(data, _ALGORITHM)


@dataclass(frozen=True)
class Responders:
    """All that is needed to answer: the CAs answered for, and the newest key of each that has one."""

    issuers: tuple[Issuer, ...]
    by_authority: Mapping[str, Responder]

    def issuer(self, authority_id: str) -> Issuer:
        """The CA of that name; KeyError when it is not answered for."""
        return next(issuer for issuer in self.issuers if issuer.authority_id == authority_id)


def key_name(authority_id: str) -> str:
    """What the files of this CA's responders' keys are named."""
    return f"ocsp-{authority_id}"


def holds_key(keys_folder: Path, row: ResponderRow) -> bool:
    """Whether this responder's key lies in the folder."""
    return _path_of(keys_folder, row).exists()


def load_responders(
    connection: Connection,
    keys_folder: Path,
    passphrase: bytes,
    now: datetime,
    known: Mapping[str, Responder] = MappingProxyType({}),
) -> Responders:
    """The CAs and, for each, the longest-lived responder whose key lies in the folder and opens.

    Keys of `known`, the responders found the last time, are not opened again.
    """
    issuers = tuple(
        ocsp.issuer(authority_id, *identifiers.issuer_fields(der), not_before)
        for authority_id, der, not_before in ocsp_store.issuing(connection, now)
    )
    chosen: dict[str, Responder] = {}
    for row in ocsp_store.responders(connection, now):
        if row.authority_id in chosen:
            continue
        before = known.get(row.authority_id)
        if before is not None and before.serial == row.serial:
            chosen[row.authority_id] = before
        elif (opened := _open(row, keys_folder, passphrase)) is not None:
            chosen[row.authority_id] = opened
    return Responders(issuers, chosen)


def presign_due(engine: Engine, responders: Responders, now: datetime, hours: int, limit: int) -> int:
    """Sign ahead up to `limit` answers that are missing or ageing; gives how many were signed.

    Cheap to repeat: what is due is found by index. Answers hold for `hours`.
    """
    signed, dealt_with = 0, 1
    while dealt_with and signed < limit:
        with transaction(engine) as connection:
            made, dropped = _presign(
                connection, responders, now, timedelta(hours=hours), min(_BATCH, limit - signed)
            )
        signed += made
        # A batch of nothing but expired certificates is no sign that nothing waits behind it.
        dealt_with = made + dropped
    return signed


def _presign(
    connection: Connection, responders: Responders, now: datetime, lifetime: timedelta, limit: int
) -> tuple[int, int]:
    """How many answers of one batch were signed, and how many are promised no more."""
    ageing = now + lifetime * _RENEWED_WITH
    waiting = ocsp_store.waiting(
        connection, now, ageing, limit, list(responders.by_authority),
        older=now - BACKDATING - _JUST_NOW, whole=lifetime,
    )  # fmt: skip
    ended = [asked for asked in waiting if asked.not_after <= now]
    ocsp_store.drop(connection, ended)
    signed = 0
    for authority_id, responder in responders.by_authority.items():
        mine = [asked for asked in waiting if asked.authority_id == authority_id and asked.not_after > now]
        answers = [
            _answer(responders.issuer(authority_id), responder, asked, now, lifetime) for asked in mine
        ]
        made = [
            (asked, answer)
            for asked, answer in zip(mine, answers, strict=True)
            # One that a measure ends in this very second serves nobody.
            if answer.next_update > answer.this_update
        ]
        ocsp_store.store(connection, responder.serial, made)
        signed += len(made)
    return signed, len(ended)


def _answer(
    issuer: Issuer, responder: Responder, asked: Waiting, now: datetime, lifetime: timedelta
) -> Presigned:
    # An answer must not outlive the certificate of who signed it.
    lifetime = min(lifetime, responder.not_after - now)
    asking = Request((ocsp.question_about(issuer, asked.hash, asked.serial),))
    answer = ocsp.find(asking, issuer, {asked.serial: asked.standing})
    der = ocsp.sign(responder, issuer, answer, now=now, lifetime=lifetime)
    return Presigned(der, *ocsp.validity(answer, now, lifetime))


def _open(row: ResponderRow, keys_folder: Path, passphrase: bytes) -> Responder | None:
    """The responder with its key; None when the file is not here (yet) or another passphrase closes it."""
    try:
        key = key_files.load_key(_path_of(keys_folder, row), passphrase)
    except FileNotFoundError:
        # A row is committed where its key was made; to other machines the file may come later.
        return None
    except (OSError, ValueError, TypeError) as error:
        _LOG.warning("the OCSP key of %s does not open, an older one answers: %s", row.authority_id, error)
        return None
    # Named by the SHA-1 of the key's bits, as RFC 6960 4.2.1 (KeyHash) has it.
    key_hash = sha1(key_files.certified_bits(row.der), usedforsecurity=False).digest()
    return Responder(row.serial, row.authority_id, row.der, key_hash, row.not_after, key)


def _path_of(keys_folder: Path, row: ResponderRow) -> Path:
    return key_files.path_for(keys_folder, key_name(row.authority_id), row.der)

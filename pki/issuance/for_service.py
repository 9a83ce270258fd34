"""How short-lived signers begin and are renewed: a key made here, certified by the CA, well before time.

The certificate comes by the ordinary road (`pki/issuance/pipeline.py`); what is done with the key is for
`pki/ocsp/responders.py` and `pki/service_keys/jws.py`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import Connection, Engine

from directory.base.audit import Actor
from directory.base.db import transaction
from directory.base.locks import try_lock
from pki.certificates.profiles import LIST_SIGNER, OCSP_SIGNER, Profile, ResponderNames
from pki.issuance import pipeline
from pki.issuance.pipeline import Prepared
from pki.model import IssuedCertificate
from pki.ocsp import responders
from pki.ocsp import store as ocsp_store
from pki.ocsp.store import ResponderRow
from pki.revocation import blocked_keys
from pki.service_keys import files as key_files
from pki.service_keys import jws
from pki.signing.signer import Signer


@dataclass(frozen=True)
class _Kind:
    """One kind of short-lived signer: what it is called where, which are usable, what makes one known."""

    profile: Profile
    lock: str
    title: str
    actor: Actor
    key_name: Callable[[str], str]
    usable: Callable[[Connection, str, Path, datetime], Iterable[ResponderRow | IssuedCertificate]]
    certified: Callable[[Connection, IssuedCertificate], None]


@dataclass(frozen=True)
class _ServiceCertificateOrder:
    """A signer to be: of which kind and CA, where its key is to lie, where its CA publishes."""

    kind: _Kind
    authority_id: str
    keys_folder: Path
    passphrase: bytes
    base_url: str


def _responders(
    connection: Connection, authority_id: str, keys_folder: Path, now: datetime
) -> Iterable[ResponderRow]:
    known = ocsp_store.responders(connection, now)
    return [
        responder
        for responder in known
        if responder.authority_id == authority_id and responders.holds_key(keys_folder, responder)
    ]


def _may_answer(connection: Connection, issued: IssuedCertificate) -> None:
    row = ResponderRow(issued.serial, issued.authority_id, issued.der, issued.not_before, issued.not_after)
    ocsp_store.add_responder(connection, row)


_RESPONDER = _Kind(
    OCSP_SIGNER, "ocsp-responder", "OCSP", Actor("job:ocsp-responders"), responders.key_name,
    usable=_responders, certified=_may_answer,
)  # fmt: skip
_OF_LISTS = _Kind(
    LIST_SIGNER, "list-signer", "Lists", Actor("job:export"), jws.key_name,
    usable=jws.usable,
    # Found by its profile among the certificates: there is nothing more to say of it.
    certified=lambda *_: None,
)  # fmt: skip


def ensure_responder(
    engine: Engine,
    signer: Signer,
    *,
    authority_id: str,
    keys_folder: Path,
    passphrase: bytes,
    base_url: str,
    now: datetime,
) -> bool:
    """Make a responder for this CA unless one with more than half its life is here; whether one was made."""
    wanted = _ServiceCertificateOrder(_RESPONDER, authority_id, keys_folder, passphrase, base_url)
    return _ensure(engine, signer, wanted, now)


def ensure_list_signer(
    engine: Engine,
    signer: Signer,
    *,
    authority_id: str,
    keys_folder: Path,
    passphrase: bytes,
    base_url: str,
    now: datetime,
) -> bool:
    """Make a signer of lists for this CA unless one with more than half its life is here; whether it was."""
    wanted = _ServiceCertificateOrder(_OF_LISTS, authority_id, keys_folder, passphrase, base_url)
    return _ensure(engine, signer, wanted, now)


def _ensure(engine: Engine, signer: Signer, wanted: _ServiceCertificateOrder, now: datetime) -> bool:
    with try_lock(engine, f"{wanted.kind.lock}/{wanted.authority_id}") as alone:
        if not alone or _one_lasts(engine, wanted, now):
            return False
        _make(engine, signer, wanted, now)
    return True


def _one_lasts(engine: Engine, wanted: _ServiceCertificateOrder, now: datetime) -> bool:
    with transaction(engine, read_only=True) as connection:
        usable = wanted.kind.usable(connection, wanted.authority_id, wanted.keys_folder, now)
    return any(
        certificate.not_after - now > (certificate.not_after - certificate.not_before) / 2
        for certificate in usable
    )


def _make(engine: Engine, signer: Signer, wanted: _ServiceCertificateOrder, now: datetime) -> None:
    kind, authority_id = wanted.kind, wanted.authority_id
    key = ec.generate_private_key(ec.SECP256R1())
    name = kind.key_name(authority_id)
    path = key_files.save_key(wanted.keys_folder, name, key, wanted.passphrase)

    def reserve(connection: Connection) -> Prepared:
        return pipeline.prepare(
            connection, now=now, actor=kind.actor, authority=authority_id, profile=kind.profile,
            key=blocked_keys.check(connection, key.public_key()), base_url=wanted.base_url,
            names=ResponderNames(f"{kind.title} {authority_id} {now:%Y-%m-%d}"),
        )  # fmt: skip

    issued = pipeline.issue(engine, signer, reserve, now).issued
    with transaction(engine) as connection:
        kind.certified(connection, issued)
    key_files.forget_others(wanted.keys_folder, name, path)

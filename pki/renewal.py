"""How OCSP responders begin and are renewed: a key made here, a certificate from the CA, well before time.

The certificate comes by the ordinary road (`issuance`); keeping and using the key is `responders`' matter.
"""

from datetime import datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import Engine

from directory.base.audit import Actor
from directory.base.db import transaction
from directory.base.locks import held_if_free
from pki import issuance, ocsp_store, responders
from pki.ocsp_store import ResponderRow
from pki.profiles import OCSP_SIGNER, ResponderNames
from pki.signing.signer import Signer

_ACTOR = Actor("job:ocsp-responders")


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
    with held_if_free(engine, f"ocsp-responder/{authority_id}") as alone:
        if not alone or not _is_due(engine, authority_id, keys_folder, now):
            return False
        key = ec.generate_private_key(ec.SECP256R1())
        path = responders.save_key(keys_folder, authority_id, key, passphrase)
        with transaction(engine) as connection:
            prepared = issuance.prepare(
                connection, now=now, actor=_ACTOR, authority_id=authority_id, profile=OCSP_SIGNER,
                public_key=key.public_key(), names=ResponderNames(f"OCSP {authority_id} {now:%Y-%m-%d}"),
                base_url=base_url,
            )  # fmt: skip
        issued = issuance.issue(engine, signer, prepared, now)
        with transaction(engine) as connection:
            row = ResponderRow(issued.serial, authority_id, issued.der, issued.not_before, issued.not_after)
            ocsp_store.add_responder(connection, row)
    responders.forget_others(keys_folder, authority_id, path)
    return True


def _is_due(engine: Engine, authority_id: str, keys_folder: Path, now: datetime) -> bool:
    with transaction(engine, read_only=True) as connection:
        rows = ocsp_store.responders(connection, now)
    return not any(
        row.authority_id == authority_id
        and row.not_after - now > (row.not_after - row.not_before) / 2
        and responders.holds_key(keys_folder, row)
        for row in rows
    )

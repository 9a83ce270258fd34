"""The signature on what is published as a whole: a compact JWS (RFC 7515), ES256, its chain in `x5c`.

A reader who knows the CA can check it with common tools. `pki/issuance/for_service.py` has the key certified;
`files` holds it.
"""

import base64
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jws
from joserfc.jwk import ECKey
from sqlalchemy import Connection

from directory.base.errors import Kind, Refusal
from pki.certificates.profiles import LIST_SIGNER
from pki.model import IssuedCertificate
from pki.record import authorities, revocations
from pki.service_keys import files as key_files

ALGORITHM = "ES256"


@dataclass(frozen=True)
class ListSigner:
    """A key, its certificate in DER and the CA's that issued it."""

    certificate: bytes
    issuer: bytes
    key: ec.EllipticCurvePrivateKey = field(repr=False, compare=False)

    def sign(self, payload: bytes, kind: str = "") -> bytes:
        """The payload under its signature, in ASCII; `kind` says which sort of document it is (`typ`)."""
        # RFC 7515 4.1.6: base64 with padding, the signer's certificate first. The root is the reader's own.
        chain = [base64.b64encode(der).decode() for der in (self.certificate, self.issuer)]
        header: dict[str, Any] = {"alg": ALGORITHM, "x5c": chain}
        if kind:
            # RFC 8725 3.11: one key signs several sorts, and none must pass for another.
            header["typ"] = kind
        return jws.serialize_compact(header, payload, ECKey.import_key(self.key), [ALGORITHM]).encode()


def detached(jws_in_full: bytes) -> str:
    """A compact JWS without its payload, to lie beside it (RFC 7515 appendix F)."""
    header, _, signature = jws_in_full.decode().split(".")
    return f"{header}..{signature}"


def key_name(authority_id: str) -> str:
    """What the files of this CA's list signers' keys are named."""
    return f"list-{authority_id}"


def usable(connection: Connection, authority_id: str, folder: Path, now: datetime) -> list[IssuedCertificate]:
    """The list signers of this CA that are not revoked and whose keys lie in the folder."""
    certificates = revocations.live_of_profile(connection, LIST_SIGNER.name, authority_id, now)
    return [
        certificate
        for certificate in certificates
        if key_files.path_for(folder, key_name(authority_id), certificate.der).exists()
    ]


def load_list_signer(
    connection: Connection, authority_id: str, folder: Path, passphrase: bytes, now: datetime
) -> ListSigner:
    """The longest-lived list signer of this CA; Refusal UNAVAILABLE `no-list-signer` while there is none."""
    held = usable(connection, authority_id, folder, now)
    authority = authorities.load_authority(connection, authority_id)
    if not held or authority is None:
        text = f"There is no signer of lists under {authority_id} yet: the signer has to certify one."
        raise Refusal(Kind.UNAVAILABLE, "no-list-signer", text)
    made = max(held, key=lambda certificate: certificate.not_after)
    path = key_files.path_for(folder, key_name(authority_id), made.der)
    return ListSigner(made.der, authority.der, key_files.load_key(path, passphrase))

"""A key and its certificate made here, for who cannot make a key: given in one answer, and never again."""

import base64
from typing import Any
from uuid import UUID

from flask import request
from marshmallow import fields
from sqlalchemy import Connection

from api.http import idempotency as idempotent
from api.http.operation import Call, Opens, Resource, operation, resource
from api.http.schemas import Shape
from api.rest.certificates import IssuedAnswer
from api.rest.enrolments import IDENTIFIED, PURPOSE, issue_certificate
from api.wiring import Container
from directory.access import Role
from directory.base.db import transaction
from directory.base.errors import Kind, Refusal
from pki.certificates import pkcs12
from pki.issuance import for_enrolment
from pki.model import IssuedCertificate, Purpose
from pki.record import authorities, idempotency
from pki.record.idempotency import IdempotencyClaim, KeptAnswer

_WITHOUT_A_REQUEST = ("csr-too-large", "bad-csr", "bad-proof-of-possession", "weak-key")
# What is kept of the answer for a repeated request: that it was given, and nothing of it.
_SHOWN = KeptAnswer(201, b"")


class PackedQuery(Shape):
    """What the key is to be for."""

    purpose = fields.Enum(Purpose, by_value=True, metadata=PURPOSE)


class PackedAnswer(IssuedAnswer):
    """The certificate, and a PKCS #12 file with its key, which the passphrase opens."""

    pkcs12 = fields.String(required=True, metadata={"description": "base64", "example": "MIIK…"})
    passphrase = fields.String(required=True, metadata={"example": "k7d2p-…"})


@operation(
    "POST",
    "/v1/enrolments/<uuid:enrolment_id>/pkcs12",
    roles={Role.REGISTRAR},
    opens=Opens.NONE,
    french="""Faire une clé et son certificat.

    Pour qui ne sait pas faire de clé : un fichier PKCS #12 et sa phrase secrète, montrés une seule fois et
    gardés nulle part. Perdus, il faut révoquer le certificat et recommencer. Remettez la phrase au titulaire
    par une autre voie que le fichier. Où signature et chiffrement sont séparés, une demande pour chacun.
    """,
    answer=PackedAnswer,
    status=201,
    query=PackedQuery,
    problems=(
        *(code for code in issue_certificate.problems if code not in _WITHOUT_A_REQUEST),
        *idempotent.PROBLEMS,
        "pkcs12-shown-once",
    ),
    parameters=IDENTIFIED,
)
def make_pkcs12(call: Call, wanted: dict[str, Any], enrolment_id: UUID) -> dict[str, Any]:
    """Make a key and its certificate.

    For who cannot make a key: a PKCS #12 file and its passphrase, shown once and stored nowhere. If lost, the
    certificate is revoked and another asked for. Hand the passphrase to the holder on another way than the
    file. Where signature and encryption are separate, each is asked for.
    """
    purposes = call.container.purposes(wanted.get("purpose"))
    asked = idempotent.asked_of(request, call.token.id)
    engine = call.container.engine
    if asked is not None and idempotent.claimed_patiently(engine, asked, call.container.present) is not None:
        text = "This was made, and shown once: revoke the certificate and ask anew if the answer was lost."
        raise Refusal(Kind.CONFLICT, "pkcs12-shown-once", text)
    made = pkcs12.make_key()
    try:
        issued = _certified(call, enrolment_id, purposes, made.csr, asked)
    except Refusal:
        if asked is not None:
            idempotent.released(engine, asked)
        raise
    with transaction(engine, read_only=True) as connection:
        chain = authorities.chain_of(connection, issued.authority_id)
    packed = pkcs12.pack(made, issued, chain)
    return {
        **vars(issued),
        "pkcs12": base64.b64encode(packed.pkcs12).decode(),
        "passphrase": packed.passphrase,
    }


def _certified(
    call: Call, enrolment_id: UUID, purposes: frozenset[Purpose], csr: bytes, asked: IdempotencyClaim | None
) -> IssuedCertificate:
    def keep(connection: Connection, _: IssuedCertificate) -> None:
        if asked is not None:
            idempotency.keep(connection, asked, _SHOWN)

    container = call.container
    return for_enrolment.issue_for_enrolment(
        container.engine,
        container.signer,
        now=call.now,
        token=call.token,
        enrolment_id=enrolment_id,
        csr=csr,
        base_url=container.settings.base_url,
        purposes=purposes,
        opinion=container.opinion,
        quotas=container.settings.quotas,
        keep=keep,
    )


def pkcs12_files(container: Container) -> Resource:
    """The resource, served on `container`."""
    text = "Clés faites par le service — Keys made by the service"
    return resource("pkcs12", text, container, make_pkcs12)

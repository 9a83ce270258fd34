"""Keys over REST: reporting one as lost, with a proof by the key itself."""

from typing import Any

from marshmallow import fields

from api.front.roads import TAKES_AWAY
from api.http.operation import Opens, Resource, Transacted, operation, resource
from api.http.schemas import Hexadecimal, Shape
from api.wiring import Container
from directory.access import Role
from pki.revocation import compromise_reports
from pki.revocation.compromise_reports import Reported


class CompromiseRequest(Shape):
    """A request (CSR) signed by the lost key, whose common name is `this key is compromised`."""

    csr = fields.String(required=True, metadata={"example": "-----BEGIN CERTIFICATE REQUEST-----\n…"})


class ReportedAnswer(Shape):
    """The key, by the SHA-256 of its SubjectPublicKeyInfo, and the certificates just revoked."""

    spki_sha256 = Hexadecimal(required=True)
    revoked = fields.List(fields.String(), required=True)


@operation(
    "POST",
    "/v1/keys/compromised",
    roles=set(Role),
    opens=Opens.WRITE,
    while_behind=True,
    road=TAKES_AWAY,
    french="""Signaler une clé compromise.

    Par quiconque la détient : la preuve est une demande (CSR) signée par cette clé, dont le nom commun dit
    « this key is compromised ». La clé est bloquée pour toujours et tous ses certificats sont révoqués.
    """,
    answer=ReportedAnswer,
    body=CompromiseRequest,
    problems=("csr-too-large", "bad-csr", "bad-proof-of-possession", "weak-key", "no-compromise-proof"),
    idempotent=True,
)
def report_compromised_key(call: Transacted, asked: dict[str, Any]) -> Reported:
    """Report a compromised key.

    By whoever holds it: the proof is a request (CSR) signed by that key, whose common name says "this key is
    compromised". The key is blocked for ever and all its certificates are revoked.
    """
    return compromise_reports.report(
        call.connection, now=call.now, actor=call.token.actor, csr=asked["csr"].encode()
    )


def keys(container: Container) -> Resource:
    """The resource, served on `container`."""
    return resource("keys", "Clés — Keys", container, report_compromised_key)

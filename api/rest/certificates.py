"""Certificates: one and its state, its whole history for auditors, and its revocation."""

from dataclasses import asdict
from ssl import DER_cert_to_PEM_cert
from types import MappingProxyType
from typing import Any

from marshmallow import fields
from sqlalchemy import Connection

from api.front.roads import TAKES_AWAY
from api.http.operation import Opens, Resource, Transacted, operation, resource
from api.http.schemas import EXAMPLE_SERIAL, Base64, Hexadecimal, Instant, Line, Pem, Shape
from api.rest.enrolment_schemas import EnrolmentInFull, in_full
from api.wiring import Container
from directory.access import Role, actor_names
from directory.base.comments import LONGEST_COMMENT
from directory.base.db import transaction
from directory.base.errors import Kind, Refusal
from pki.certificates import serials
from pki.model import IssuedCertificate, Revocation, RevocationAction, RevocationReason, Serial
from pki.monitoring import certificate_history as history
from pki.record import authorities
from pki.revocation import proof_of_possession, reasons, requests
from pki.revocation import release as releasing
from pki.revocation.authorisation import may_see_holder
from pki.revocation.release import Release

IDENTIFIED = {
    "serial": {
        "schema": {"type": "string", "pattern": "^[0-9A-Fa-f]{1,40}$"},
        "description": "Numéro de série, en hexadécimal — Serial number, in hexadecimal",
        "example": EXAMPLE_SERIAL,
    }
}


class IssuedAnswer(Shape):
    """A certificate as it was issued."""

    serial = fields.String(required=True, metadata={"example": EXAMPLE_SERIAL})
    authority_id = fields.String(required=True, metadata={"example": "persons-1"})
    profile = fields.String(required=True, metadata={"example": "practitioner-smime"})
    mailbox = fields.String(required=True, allow_none=True)
    practitioner = fields.String(required=True, allow_none=True)
    subject = fields.String(required=True)
    not_before = Instant(required=True)
    not_after = Instant(required=True)
    issued_at = Instant(required=True)
    sha256 = Hexadecimal(required=True, metadata={"description": "Empreinte du DER — Digest of the DER"})
    der = Base64(required=True, metadata={"description": "Certificat X.509 — X.509 certificate"})
    pem = Pem(
        required=True,
        metadata={"description": "Le même en PEM (RFC 7468) — The same in PEM (RFC 7468)"},
    )


def chain_in_pem(container: Container, answer: Any) -> bytes:
    """The certificate and the CAs above it in PEM, the root left out: who trusts it has it (RFC 8555 9.1)."""
    with transaction(container.engine, read_only=True) as connection:
        above = authorities.chain_of(connection, answer["authority_id"])[:-1]
    chain = "".join(DER_cert_to_PEM_cert(der) for der in above)
    if answer["pem"] is None:
        text = "This is the certificate of a red-listed mailbox: a check of its address shows it."
        raise Refusal(Kind.FORBIDDEN, "holder-hidden", text)
    return f"{answer['pem']}{chain}".encode()


PEM_CHAIN = MappingProxyType({"application/pem-certificate-chain": chain_in_pem})


class RevocationAnswer(Shape):
    """One event that took a certificate back, put it on hold or released it."""

    serial = fields.String(required=True, metadata={"example": EXAMPLE_SERIAL})
    action = fields.Enum(RevocationAction, by_value=True, required=True)
    reason = fields.Enum(RevocationReason, by_value=True, required=True)
    revoked_at = Instant(required=True)


class ReleaseAnswer(RevocationAnswer):
    """The release, or the hold that still stands while a second person is awaited."""

    release_asked_at = Instant(
        required=True,
        allow_none=True,
        metadata={
            "description": "Quand la levée fut demandée, tant qu'une seconde personne doit l'accorder — When"
            " the release was asked for, while a second person has yet to agree"
        },
    )


class CertificateAnswer(IssuedAnswer):
    """A certificate and what has become of it.

    Of a red-listed mailbox, what says whose it is is null for operators and for registrars of other bodies.
    """

    subject = fields.String(required=True, allow_none=True)
    sha256 = Hexadecimal(
        required=True,
        allow_none=True,
        metadata={"description": "Empreinte du DER — Digest of the DER"},
    )
    der = Base64(
        required=True,
        allow_none=True,
        metadata={"description": "Certificat X.509 — X.509 certificate"},
    )
    pem = Pem(
        required=True,
        allow_none=True,
        metadata={"description": "Le même en PEM (RFC 7468) — The same in PEM (RFC 7468)"},
    )
    state = fields.Enum(history.State, by_value=True, required=True)
    revocation = fields.Nested(RevocationAnswer, required=True, allow_none=True)


class EventAnswer(RevocationAnswer):
    """The same event as an auditor sees it: by whom, and why."""

    actor = fields.String(required=True, metadata={"example": "token:12"})
    comment = fields.String(required=True)


class LogLineAnswer(Shape):
    """A line of the audit log; `index` and `leaf_hash` are null until it has been numbered."""

    at = Instant(required=True)
    actor = fields.String(required=True, metadata={"example": "token:12"})
    event = fields.String(required=True, metadata={"example": "certificate.issued"})
    detail = fields.Dict(required=True)
    index = fields.Integer(required=True, allow_none=True)
    leaf_hash = Hexadecimal(required=True, allow_none=True)


class VouchedAnswer(EnrolmentInFull):
    """The enrolment a certificate rests on, with its own lines of the audit log."""

    log = fields.List(fields.Nested(LogLineAnswer), required=True)


class HistoryAnswer(Shape):
    """Everything done to a certificate, oldest first, its state at the instant asked about, who vouched.

    `enrolment` is null for a certificate of the service itself.
    """

    certificate = fields.Nested(IssuedAnswer, required=True)
    as_of = Instant(required=True)
    state = fields.Enum(history.State, by_value=True, required=True)
    events = fields.List(fields.Nested(EventAnswer), required=True)
    log = fields.List(fields.Nested(LogLineAnswer), required=True)
    enrolment = fields.Nested(VouchedAnswer, required=True, allow_none=True)
    actors = fields.Dict(
        keys=fields.String(),
        values=fields.String(),
        required=True,
        metadata={
            "description": "Nom de chaque jeton qui a agi — Name of each token that acted",
            "example": {"token:12": "registrar_a"},
        },
    )


class HistoryQuery(Shape):
    """As of when `state` is asked."""

    at = Instant(metadata={"description": "Instant — Instant", "example": "2026-09-01T12:00:00Z"})


# The certificate names its mailbox, and its digest lets a guess be tried.
_TELLS_THE_HOLDER = ("mailbox", "practitioner", "subject", "sha256", "der")
# Each word with its sentence: wrong reasons come from forms that show the word alone.
REASONS = {"description": f"{reasons.list_in('french')} — {reasons.list_in('english')}"}


class ReleaseRequest(Shape):
    """Why the hold is lifted."""

    comment = Line(LONGEST_COMMENT, allow_none=True, metadata={"example": "Téléphone retrouvé"})


class RestatementRequest(Shape):
    """The reason that is true, and how that came to be known."""

    reason = fields.Enum(RevocationReason, by_value=True, required=True, metadata=REASONS)
    comment = Line(LONGEST_COMMENT, required=True, metadata={"example": "Clé retrouvée en ligne"})


class RevocationRequest(Shape):
    """Why the certificate is revoked; `certificateHold` only suspends it."""

    reason = fields.Enum(RevocationReason, by_value=True, required=True, metadata=REASONS)
    comment = Line(LONGEST_COMMENT, allow_none=True, metadata={"example": "Téléphone perdu"})


@operation(
    "GET",
    "/v1/certificates/<serial>",
    roles={Role.OPERATOR, Role.REGISTRAR, Role.AUDITOR},
    opens=Opens.SNAPSHOT,
    french="""Un certificat.

    Le certificat et son état à cet instant. D'une boîte en liste rouge, un opérateur n'apprend que l'état :
    ce qui dit à qui il est vaut `null`.
    """,
    answer=CertificateAnswer,
    problems=("malformed-serial", "unknown-certificate", "holder-hidden"),
    parameters=IDENTIFIED,
    forms=PEM_CHAIN,
)
def certificate(call: Transacted, serial: str) -> dict[str, Any]:
    """One certificate.

    The certificate and its state at this instant. Of a red-listed mailbox an operator learns the state alone:
    what says whose it is is null.
    """
    life = history.life(call.connection, serials.parse_serial(serial))
    last = life.events[-1] if life.events else None
    # Someone released from hold is as if never held, for who only uses the certificate.
    standing = None if last is None or last.action is RevocationAction.RELEASE else last
    return {**_shown(call, life.certificate), "state": life.state(call.now), "revocation": standing}


@operation(
    "GET",
    "/v1/certificates/<serial>/history",
    roles={Role.AUDITOR},
    opens=Opens.SNAPSHOT,
    french="""L'histoire d'un certificat.

    Les actes et leurs auteurs, avec les lignes du journal d'audit. Qui a répondu de la personne, par quel
    enrôlement ; et quel était l'état du certificat tel jour.
    """,
    answer=HistoryAnswer,
    query=HistoryQuery,
    problems=("malformed-serial", "unknown-certificate"),
    parameters=IDENTIFIED,
)
def certificate_history(call: Transacted, asked: dict[str, Any], serial: str) -> dict[str, Any]:
    """The history of a certificate.

    The acts and their authors, with the lines of the audit log. Who vouched for the person, by which
    enrolment; and what the certificate's state was on a given day.
    """
    wanted = serials.parse_serial(serial)
    life = history.life(call.connection, wanted)
    as_of = asked.get("at", call.now)
    log = history.log_lines(call.connection, wanted)
    vouched = _vouched(call.connection, wanted)
    acted = [*life.events, *log, *(vouched["log"] if vouched else ())]
    return {
        "certificate": life.certificate,
        "as_of": as_of,
        "state": life.state(as_of),
        "events": life.events,
        "log": log,
        "enrolment": vouched,
        "actors": actor_names(call.connection, {act.actor for act in acted}),
    }


@operation(
    "POST",
    "/v1/certificates/<serial>/revocation",
    roles={Role.REGISTRAR, Role.OPERATOR, Role.ADMIN},
    opens=Opens.WRITE,
    while_behind=True,
    road=TAKES_AWAY,
    french="""Révoquer un certificat.

    Par un agent de l'Ordre du titulaire, par un opérateur pour ses serveurs, par un administrateur. Une clé
    dite compromise est bloquée et emporte ses autres certificats. Une suspension (`certificateHold`) devient
    définitive au bout de 14 jours. Le verdict et OCSP le disent aussitôt, l'annuaire LDAP en deux
    secondes, la CRL dans la minute. Une révocation est définitive ; `certificateHold` ne fait que
    suspendre.
    """,
    answer=RevocationAnswer,
    body=RevocationRequest,
    problems=(
        "malformed-serial", "comment-too-long", "unknown-certificate", "wrong-authority", "not-a-registrar",
        "reserved-to-owner", "not-your-certificate", "reason-reserved",
        "already-revoked", "already-on-hold", "certificate-expired", "withdrawal-limit-reached",
    ),
    parameters=IDENTIFIED,
    idempotent=True,
)  # fmt: skip
def revoke_certificate(call: Transacted, asked: dict[str, Any], serial: str) -> Revocation:
    """Revoke a certificate.

    By a registrar of the holder's Ordre, by an operator for its servers, by an administrator. A key said to
    be compromised is blocked and takes its other certificates along. A hold becomes final after 14 days. The
    verdict and OCSP tell it at once, LDAP within two seconds, the CRL within the minute. A revocation is
    final; `certificateHold` only suspends.
    """
    return requests.revoke_as(
        call.connection,
        now=call.now,
        token=call.token,
        serial=serials.parse_serial(serial),
        reason=asked["reason"],
        comment=asked.get("comment") or "",
    )


@operation(
    "POST",
    "/v1/certificates/<serial>/release",
    roles={Role.REGISTRAR, Role.OPERATOR, Role.ADMIN},
    opens=Opens.WRITE,
    french="""Lever une suspension.

    La sienne, aussitôt. Celle d'un autre demande deux personnes : la première demande (`release_asked_at`),
    une autre accorde dans les sept jours par le même appel. Un opérateur ne lève que ce qu'il a suspendu.
    Rien n'est rendu tant qu'une mesure, un départ ou une clé bloquée s'y oppose. Le verdict et OCSP le disent
    aussitôt, la CRL à sa prochaine parution. Ce qu'une mesure suspend est rétabli avec sa levée.
    """,
    answer=ReleaseAnswer,
    body=ReleaseRequest,
    problems=(
        "malformed-serial", "comment-too-long", "unknown-certificate", "wrong-authority", "not-a-registrar",
        "reserved-to-owner", "not-your-certificate", "not-on-hold", "held-by-measure", "reason-stands",
        "self-approval",
    ),
    parameters=IDENTIFIED,
    idempotent=True,
)  # fmt: skip
def release_certificate(call: Transacted, asked: dict[str, Any], serial: str) -> Release:
    """Release a certificate from hold.

    One's own hold, at once. Another's takes two persons: the first asks (`release_asked_at`), another agrees
    within seven days by the same call. An operator lifts only what it held itself. Nothing is given back
    while a measure, a departure or a blocked key stands against it. The verdict and OCSP tell it at once, the
    CRL when it is next published. A measure's hold is released when the measure is lifted.
    """
    return releasing.release_as(
        call.connection,
        now=call.now,
        token=call.token,
        serial=serials.parse_serial(serial),
        comment=asked.get("comment") or "",
    )


@operation(
    "POST",
    "/v1/certificates/<serial>/reason",
    roles={Role.REGISTRAR, Role.OPERATOR, Role.ADMIN},
    opens=Opens.WRITE,
    french="""Corriger le motif d'une révocation.

    La révocation et sa date demeurent ; OCSP et la CRL disent le nouveau motif, le journal garde les deux.
    Une clé dite compromise le reste.
    """,
    answer=RevocationAnswer,
    body=RestatementRequest,
    problems=(
        "malformed-serial", "comment-missing", "comment-too-long", "unknown-certificate", "wrong-authority",
        "not-a-registrar", "reserved-to-owner", "not-your-certificate", "reason-reserved", "not-revoked",
        "already-revoked", "same-reason", "compromise-stays", "withdrawal-limit-reached",
    ),
    parameters=IDENTIFIED,
    idempotent=True,
)  # fmt: skip
def correct_reason(call: Transacted, asked: dict[str, Any], serial: str) -> Revocation:
    """Correct the reason of a revocation.

    The revocation and its date stay; OCSP and the CRL tell the new reason, the log keeps both. A key once
    said to be compromised stays so.
    """
    return proof_of_possession.restate_as(
        call.connection,
        now=call.now,
        token=call.token,
        serial=serials.parse_serial(serial),
        reason=asked["reason"],
        comment=asked["comment"],
    )


def certificates(container: Container) -> Resource:
    """The resource, served on `container`."""
    text = "Certificats — Certificates"
    return resource(
        "certificates", text, container, certificate, certificate_history, revoke_certificate,
        release_certificate, correct_reason,
    )  # fmt: skip


def _shown(call: Transacted, issued_certificate: IssuedCertificate) -> dict[str, Any]:
    vouched = history.vouched_by(call.connection, issued_certificate.serial)
    authority = None if vouched is None else vouched.authority
    shown = asdict(issued_certificate)
    if may_see_holder(call.connection, call.token, issued_certificate, authority):
        return shown
    return shown | dict.fromkeys(_TELLS_THE_HOLDER)


def _vouched(connection: Connection, serial: Serial) -> dict[str, Any] | None:
    enrolment = history.vouched_by(connection, serial)
    if enrolment is None:
        return None
    return in_full(connection, [enrolment])[0] | {"log": history.log_lines(connection, str(enrolment.id))}

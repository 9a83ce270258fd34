"""Revoking with the key itself, and saying better afterwards why a certificate was revoked.

The holder of a certificate's private key may have it revoked without a token, at any hour. The proof is a JWS
over the request, signed by that key (as ACME does it, RFC 8555 7.6). Who else may is in
`pki/revocation/authorisation.py`.
"""

from base64 import urlsafe_b64decode
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey
from sqlalchemy import Connection

from directory.access import Token
from directory.base.audit import Actor
from directory.base.comments import LONGEST_COMMENT, check_comment
from directory.base.errors import Kind, Refusal
from directory.base.json_text import RepeatedKeyError, read_json
from directory.withdrawal_limits import charge
from pki.model import Revocation, RevocationAction, RevocationReason, Serial, serial_of
from pki.record import revocations
from pki.record.revocations import Revocable
from pki.revocation import key_compromise
from pki.revocation import revoke as revoking
from pki.revocation.authorisation import check_holder_may_say, check_may_revoke, reserved_to_owner
from pki.revocation.revoke import RevocationOrder

# What the keys of our profiles sign with; `none` and every shared secret are no proof.
ALGORITHMS = ("ES256", "ES384", "RS256", "PS256")
LARGEST_REQUEST = 8192
# Clocks of practices are set by hand.
FRESH = timedelta(minutes=5)
_FIELDS = frozenset({"serial", "reason", "iat", "aud"})


class _Registry(jws.JWSRegistry):
    """Header parameters that are not known are ignored (RFC 7515 4), with room for chains and large keys."""

    max_header_length = LARGEST_REQUEST
    max_signature_length = LARGEST_REQUEST

    def __init__(self, algorithms: Collection[str] = ALGORITHMS) -> None:
        super().__init__(algorithms=algorithms, strict_check_header=False)


_HEADERS = _Registry()


@dataclass(frozen=True)
class ProvenRequest:
    """What a proven request says; `iat` is when it was signed, by the clock of who signed."""

    serial: Serial
    reason: RevocationReason
    comment: str
    iat: datetime


def revoke_with_proof(connection: Connection, *, now: datetime, request: bytes, audience: str) -> Revocation:
    """Revoke, or hold, the certificate whose key signed this request (compact JWS) for `audience`.

    Refuses `malformed-revocation-request`, and with one and the same `bad-proof-of-possession` an unknown
    serial, another's key and a broken signature: who has no key learns nothing. A holder with it may get
    `reason-reserved`, `reserved-to-owner` (certificates of the service itself), and the refusals of
    `revoke.revoke_or_suspend`. He gets `stale-request` for one not of the last five minutes, or older than
    the last event. A hold must be five minutes after a release, so that nothing can be replayed.
    """
    # 1. Read it: nothing in it is believed yet but the serial, to know whose key to try.
    token, claims = _read(request)
    asked = _asked(claims)
    if asked.reason is RevocationReason.KEY_COMPROMISE:
        key_compromise.lock_families(connection, [asked.serial])
    revocable = revocations.revocable(connection, asked.serial)
    # 2. The proof: by the certificate's own key, under an algorithm of its kind, for this service.
    if revocable is None or not _is_signed_by(token, revocable.certificate.der) or claims["aud"] != audience:
        raise _unproven()
    # 3. From here on the holder speaks.
    _check_fresh(asked, revocable, now)
    _check_holder_may(asked, revocable, now)
    act = RevocationOrder(revocable, asked.reason, asked.comment)
    return revoking.revoke_or_suspend(connection, [act], now=now, actor=Actor(f"key:{asked.serial}"))[0]


def restate_as(
    connection: Connection,
    *,
    now: datetime,
    token: Token,
    serial: Serial,
    reason: RevocationReason,
    comment: str,
) -> Revocation:
    """Correct the reason of a revocation, for whoever could have revoked; its date stays.

    Refuses `unknown-certificate`, `not-a-registrar`, `wrong-authority`, `reserved-to-owner`,
    `comment-too-long`, `comment-missing`, `not-revoked`, `already-revoked`, `same-reason`,
    `compromise-stays`, and `withdrawal-limit-reached` where a key is said to be compromised.
    """
    check_comment(comment)
    if not comment.strip():
        text = "Say why the reason is corrected: the log keeps both."
        raise Refusal(Kind.MALFORMED, "comment-missing", text)
    if reason is RevocationReason.KEY_COMPROMISE:
        key_compromise.lock_families(connection, [serial])
    revocable = revocations.revocable(connection, serial)
    if revocable is None:
        raise Refusal(Kind.NOT_FOUND, "unknown-certificate", f"There is no certificate {serial}.")
    check_may_revoke(connection, token, revocable, reason)
    done = revoking.restate(
        connection, RevocationOrder(revocable, reason, comment), now=now, actor=token.actor
    )
    if reason is RevocationReason.KEY_COMPROMISE:
        # Other certificates of the key fall with it; any other reason takes nothing more away.
        charge(connection, token, now=now)
    return done


def _read(request: bytes) -> tuple[str, Mapping[str, Any]]:
    if len(request) > LARGEST_REQUEST:
        raise _malformed(f"A request has at most {LARGEST_REQUEST} bytes.")
    try:
        token = request.decode("ascii").strip()
        signed = jws.extract_compact(token.encode(), registry=_HEADERS)
        claims = read_json(signed.payload)
        header = _header(token)
    except RepeatedKeyError as error:
        raise _malformed(f"The name {error.key!r} stands twice in one object of the JWS.") from error
    except (JoseError, ValueError, AttributeError) as error:
        # AttributeError: a header that is JSON, and no object.
        raise _malformed("This is no compact JWS over a JSON object.") from error
    _check_header(header)
    if not isinstance(claims, dict) or not claims.keys() >= _FIELDS or claims.keys() - _FIELDS - {"comment"}:
        raise _malformed("The payload has serial, reason, iat, aud, and comment if there is one.")
    return token, claims


def _header(token: str) -> Any:
    """Read here, not taken from the library: it keeps one of two equal names (RFC 7515 4 has them once)."""
    written = token.split(".", 1)[0]
    return read_json(urlsafe_b64decode(written + "=" * (-len(written) % 4)))


def _check_header(header: object) -> None:
    """RFC 7515 4.1.11: `crit` names extensions that must be understood; we know none."""
    if not isinstance(header, dict):
        raise _malformed("The header is no JSON object.")
    if "crit" in header:
        raise _malformed("The header marks parameters as critical (crit) that are not understood here.")
    try:
        _HEADERS.check_header(header)
    except JoseError as error:
        raise _malformed("A parameter of the header is not what RFC 7515 4.1 says of it.") from error


def _asked(claims: Mapping[str, Any]) -> ProvenRequest:
    comment = claims.get("comment", "")
    if not isinstance(comment, str) or len(comment) > LONGEST_COMMENT or not comment.isprintable():
        raise _malformed(f"A comment is one line of at most {LONGEST_COMMENT} characters.")
    try:
        serial = serial_of(int(str(claims["serial"]).replace(":", "")[:64], 16))
        signed_at = datetime.fromtimestamp(int(claims["iat"]), UTC)
        return ProvenRequest(serial, RevocationReason(claims["reason"]), comment, signed_at)
    except (ValueError, TypeError, OverflowError, OSError) as error:
        text = "serial is hexadecimal, reason one of those documented, iat seconds since 1970."
        raise _malformed(text) from error


def _is_signed_by(token: str, certificate: bytes) -> bool:
    public = x509.load_der_x509_certificate(certificate).public_key()
    if isinstance(public, ec.EllipticCurvePublicKey):
        key: ECKey | RSAKey = ECKey.import_key(public)
        fitting = ["ES256"] if public.curve.name == "secp256r1" else ["ES384"]
    elif isinstance(public, rsa.RSAPublicKey):
        key, fitting = RSAKey.import_key(public), ["RS256", "PS256"]
    else:
        return False
    try:
        jws.deserialize_compact(token, key, registry=_Registry(fitting))
    except (JoseError, ValueError):
        return False
    return True


def _check_fresh(asked: ProvenRequest, revocable: Revocable, now: datetime) -> None:
    # A released hold, say. The request that made it must not be able to make it again, and it may have been
    # signed by a clock that is ahead. What is final cannot be done twice, and never waits.
    last = revocable.event.revoked_at if revocable.event else revocable.certificate.not_before
    if revocable.last is RevocationAction.RELEASE and asked.reason is RevocationReason.CERTIFICATE_HOLD:
        last += FRESH
    if not now - FRESH <= asked.iat <= now + FRESH or asked.iat < last.replace(microsecond=0):
        text = (
            f"Sign anew: iat must lie within {FRESH.seconds // 60} minutes, after all that was done before."
        )
        raise Refusal(Kind.UNACCEPTABLE, "stale-request", text)


def _check_holder_may(asked: ProvenRequest, revocable: Revocable, now: datetime) -> None:
    certificate = revocable.certificate
    if certificate.practitioner is None and not certificate.profile.startswith(("operator-", "application-")):
        raise reserved_to_owner("This is a certificate of the service itself.")
    check_holder_may_say(asked.reason)
    if certificate.not_after < now:
        text = "This certificate has expired: there is nothing left to revoke."
        raise Refusal(Kind.CONFLICT, "certificate-expired", text)


def _malformed(text: str) -> Refusal:
    return Refusal(Kind.MALFORMED, "malformed-revocation-request", text)


def _unproven() -> Refusal:
    text = "The request is not signed by the key of this certificate, for this service."
    return Refusal(Kind.UNACCEPTABLE, "bad-proof-of-possession", text)

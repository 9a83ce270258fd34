"""What a ceremony leaves to read: who was there, what was made, in words and digests, signed by its keys.

Plain text, then one signature for each CA key that was used, over all that stands above them. `openssl dgst
-verify` is enough to check it (docs/how-to/ceremony.md).
"""

from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey

from pki.ceremony.build import ec_key
from pki.ceremony.describe import describe
from pki.ceremony.plan import Plan
from pki.certificates.signature_algorithms import ALGORITHMS

_SIGNATURE = "Signature of "


@dataclass(frozen=True)
class Step:
    """One act: what it was, and the certificate it ended in, in DER, if any."""

    says: str
    certificate: bytes | None = None


def write(
    plan: Plan, steps: Sequence[Step], keys: Mapping[str, EllipticCurvePrivateKey], now: datetime
) -> str:
    """The transcript, signed by each of these keys, named by their CA."""
    lines = [
        f"Sceau: transcript of the ceremony {plan.title!r}",
        f"At: {now:%Y-%m-%d %H:%M:%S} UTC",
        f"Present: {', '.join(plan.present) or 'nobody (a first run)'}",
        f"Reviewed file, SHA-256: {plan.sha256.hex()}",
        f"URLs begin with: {plan.base_url}",
        "",
    ]
    for number, step in enumerate(steps, 1):
        lines += [f"{number}. {step.says}", *_certificate(step.certificate), ""]
    body = "\n".join(lines)
    return body + "".join(f"{_SIGNATURE}{name}: {_signed(body, key)}\n" for name, key in sorted(keys.items()))


def verify(transcript: str, certificates: Mapping[str, x509.Certificate]) -> list[str]:
    """The CAs whose signatures on this transcript hold; InvalidSignature when one does not, or is unknown."""
    body, _, signatures = transcript.partition(_SIGNATURE)
    signers = []
    for line in (_SIGNATURE + signatures).splitlines():
        name, _, signature = line.removeprefix(_SIGNATURE).partition(": ")
        if name not in certificates:
            raise InvalidSignature(name)
        key = ec_key(certificates[name])
        key.verify(b64decode(signature), body.encode(), ECDSA(ALGORITHMS[key.curve.name][0]))
        signers.append(name)
    return signers


def _certificate(der: bytes | None) -> list[str]:
    if der is None:
        return []
    certificate = x509.load_der_x509_certificate(der)
    told = describe(certificate.subject.rfc4514_string(), certificate).splitlines()
    tbs = sha256(certificate.tbs_certificate_bytes).hexdigest()
    digests = [f"SHA-256 of the certificate: {sha256(der).hexdigest()}", f"SHA-256 of what was signed: {tbs}"]
    return [f"   {line}" for line in (*digests, *told)]


def _signed(body: str, key: EllipticCurvePrivateKey) -> str:
    # It begins with words, so no verifier can take it for a certificate or a CRL of this key.
    digest, _ = ALGORITHMS[key.curve.name]
    return b64encode(key.sign(body.encode(), ECDSA(digest))).decode()

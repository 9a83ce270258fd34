"""The JSON of a verdict, made here: 10,000 through a schema would take longer than deciding them.

The schemas of `api/rest/recipients.py` document it, and a test holds the bytes against the document.
"""

import base64
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Any

import orjson

from pki.verdict.answer import Gathered
from pki.verdict.model import CertificateFacts, Verdict

# Some 100 kB at a time.
_IN_A_PIECE = 500


class Included(Enum):
    """What many verdicts tell of the certificates to encrypt with."""

    NOTHING = ""
    FINGERPRINTS = "fingerprints"
    CERTIFICATES = "certificates"


def written(verdict: Verdict) -> dict[str, Any]:
    """A verdict with every reason and its certificates."""
    return {
        "address": verdict.address,
        "verdict": verdict.answer.value,
        "reasons": verdict.reasons,
        "decided_at": verdict.decided_at,
        "as_of": verdict.as_of,
        "valid_until": verdict.valid_until,
        "sources": dict(verdict.sources),
        "certificates": [_certificate(certificate) for certificate in verdict.certificates],
    }


def in_one_document(gathered: Gathered, addresses: Sequence[str], included: Included) -> Iterator[bytes]:
    """The document of many verdicts in the order asked, in pieces."""
    occasion = gathered.occasion
    head = {"decided_at": occasion.now, "as_of": occasion.as_of, "sources": dict(occasion.sources)}
    yield octets(head)[:-1] + b',"items":['
    separator = b""
    for some in _batches(addresses):
        yield separator + b",".join(_of_many(gathered, address, included) for address in some)
        separator = b","
    yield b"]}"


def in_lines(gathered: Gathered, addresses: Sequence[str], included: Included) -> Iterator[bytes]:
    """Many verdicts in the order asked, one a line, in pieces."""
    for some in _batches(addresses):
        yield b"\n".join(_of_many(gathered, address, included) for address in some) + b"\n"


def octets(value: Any) -> bytes:
    """JSON, instants in UTC."""
    return orjson.dumps(value, option=orjson.OPT_UTC_Z)


def _batches(addresses: Sequence[str]) -> Iterator[Sequence[str]]:
    return (addresses[start : start + _IN_A_PIECE] for start in range(0, len(addresses), _IN_A_PIECE))


def _of_many(gathered: Gathered, address: str, included: Included) -> bytes:
    verdict = gathered.verdict(address)
    told: dict[str, Any] = {
        "address": address,
        "verdict": verdict.answer.value,
        "reasons": verdict.reasons,
        "decided_at": verdict.decided_at,
        "as_of": verdict.as_of,
        "valid_until": verdict.valid_until,
    }
    if included is Included.CERTIFICATES:
        told["certificates"] = [_certificate(certificate) for certificate in verdict.certificates]
    elif included is Included.FINGERPRINTS:
        told["certificates"] = [{"sha256": certificate.sha256.hex()} for certificate in verdict.certificates]
    return octets(told)


def _certificate(facts: CertificateFacts) -> dict[str, Any]:
    return {
        "serial": facts.serial,
        "not_after": facts.not_after,
        "sha256": facts.sha256.hex(),
        "der": base64.b64encode(facts.der).decode(),
        "purposes": sorted(purpose.value for purpose in facts.purposes),
    }

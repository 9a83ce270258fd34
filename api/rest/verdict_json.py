"""The JSON of a verdict, made here: 10,000 through a schema would take longer than deciding them.

The schemas of `recipients.py` document it, and a test holds the bytes against the document.
"""

import base64
from typing import Any

import orjson

from pki.verdict.model import CertificateFacts, Verdict


def written(verdict: Verdict) -> dict[str, Any]:
    """A verdict with every reason and its certificates."""
    return {
        "address": verdict.address,
        "verdict": verdict.answer.value,
        "reasons": verdict.reasons,
        "decided_at": verdict.decided_at,
        "as_of": verdict.as_of,
        "valid_until": verdict.valid_until,
        "sources": verdict.sources,
        "certificates": [_certificate(certificate) for certificate in verdict.certificates],
    }


def octets(value: Any) -> bytes:
    """JSON, instants in UTC."""
    return orjson.dumps(value, option=orjson.OPT_UTC_Z)


def _certificate(facts: CertificateFacts) -> dict[str, Any]:
    return {
        "serial": facts.serial,
        "not_after": facts.not_after,
        "sha256": facts.sha256.hex(),
        "der": base64.b64encode(facts.der).decode(),
        "purposes": sorted(purpose.value for purpose in facts.purposes),
    }

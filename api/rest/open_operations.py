"""What is served to everybody, without a token, as the OpenAPI document tells it.

Only the description: each is served where its meaning lives (`api/status`, and the blueprints named in
`api/app.py`). A test holds this table against every route there is.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from api.http.operation import refusal_documented
from api.words.problems import CATALOGUE

_JOSE, _DER = "application/jose", "application/pkix-cert"
_BYTES = {"type": "string", "contentMediaType": "application/octet-stream"}
_TEXT = {"type": "string"}
_CRL, _P7 = "application/pkix-crl", "application/pkcs7-mime"
_OCSP_REQUEST, _OCSP_RESPONSE = "application/ocsp-request", "application/ocsp-response"


@dataclass(frozen=True)
class OpenOperation:
    """One request that needs no token; `titles` and `texts` are French, then English."""

    method: str
    path: str
    tag: str
    titles: tuple[str, str]
    texts: tuple[str, str]
    media: str
    schema: Mapping[str, Any]
    problems: tuple[str, ...] = ()
    body: str | None = None
    query: tuple[Mapping[str, Any], ...] = ()


TAGS = {
    "open-acts": "Sans jeton — Without a token",
    "status": "État des certificats : CRL, OCSP, CA — Certificate status: CRL, OCSP, CAs",
    "trust": "Liste de confiance — Trust list",
    "operation": "Exploitation — Operation",
}
_PATH_VALUES = {
    "ca": ("Nom de la CA — Name of the CA", "persons-1", r"^[a-z][a-z0-9-]{1,62}$"),
    "shard": ("Partition — Shard", "3", "^(0|[1-9][0-9]{0,3})$"),
    "request": (
        "Demande OCSP en base64 (RFC 6960 A.1) — OCSP request in base64",
        "MFIwUDBOMEwwSjAJBgUr",
        "^.+$",
    ),
    "version": ("Numéro de la liste — Number of the list", "12", "^[1-9][0-9]{0,18}$"),
}
OPEN = (
    OpenOperation(
        "POST", "/v1/revocations", "open-acts",
        ("Révoquer par sa propre clé", "Revoke with one's own key"),
        ("Un JWS signé par la clé du certificat tient lieu de jeton.",
         "A JWS signed with the certificate's key stands for the token."),
        "application/json", {"$ref": "#/components/schemas/RevocationAnswer"},
        ("malformed-revocation-request", "bad-proof-of-possession", "stale-request", "unknown-certificate",
         "certificate-expired", "already-revoked", "already-on-hold", "reason-reserved", "comment-missing",
         "comment-too-long", "too-many-proofs", "body-too-large", "unsupported-media-type",
         "database-unavailable", "internal-error"),
        _JOSE,
    ),
    OpenOperation(
        "POST", "/ocsp", "status",
        ("Demander l'état par OCSP", "Ask for the status by OCSP"),
        ("Réponse signée (RFC 6960), avec le nonce de la demande s'il y en a un.",
         "A signed response (RFC 6960), with the request's nonce if it has one."),
        _OCSP_RESPONSE, _BYTES, body=_OCSP_REQUEST,
    ),
    OpenOperation(
        "GET", "/ocsp/{request}", "status",
        ("Demander l'état par OCSP, en GET", "Ask for the status by OCSP, with GET"),
        ("Réponse signée que tout cache HTTP peut garder (RFC 5019 6).",
         "A signed response that any HTTP cache may keep (RFC 5019 6)."),
        _OCSP_RESPONSE, _BYTES,
    ),
    OpenOperation(
        "GET", "/crl/{ca}/{shard}.crl", "status",
        ("La CRL d'une partition", "The CRL of a shard"),
        ("Celle que nomme cRLDistributionPoints d'un certificat.",
         "The one that a certificate's cRLDistributionPoints names."),
        _CRL, _BYTES,
    ),
    OpenOperation(
        "GET", "/crl/{ca}/{shard}-delta.crl", "status",
        ("La CRL delta d'une partition", "The delta CRL of a shard"),
        ("Celle que nomme freshestCRL.", "The one that freshestCRL names."), _CRL, _BYTES,
    ),
    OpenOperation(
        "GET", "/ca/{ca}.cer", "status",
        ("Le certificat d'une CA", "The certificate of a CA"),
        ("En DER (caIssuers, RFC 5280 4.2.2.1).", "In DER (caIssuers, RFC 5280 4.2.2.1)."),
        _DER, _BYTES,
    ),
    OpenOperation(
        "GET", "/ca/{ca}.p7c", "status",
        ("Tous les certificats d'une CA", "All certificates of a CA"),
        ("Ceux d'une CA et ses ponts vers d'autres générations, en PKCS #7.",
         "Those of a CA and its bridges to other generations, in PKCS #7."),
        _P7, _BYTES,
    ),
    OpenOperation(
        "GET", "/ca/bundle.p7b", "status",
        ("Toutes les CA", "All CAs"), ("En PKCS #7.", "In PKCS #7."), _P7, _BYTES,
    ),
    OpenOperation(
        "GET", "/v1/trust-list", "trust",
        ("La liste de confiance", "The trust list"),
        ("Domaines, opérateurs et CA, signés ; 204 pour qui nomme la version qu'il a.",
         "Domains, operators and CAs, signed; 204 for who names the version he has."),
        _JOSE, _TEXT, ("record-behind", "no-trust-list", "invalid-request", "database-unavailable"),
        query=({"in": "query", "name": "version", "required": False,
                "description": "Version déjà reçue — Version already received",
                "schema": {"type": "integer", "minimum": 1}},),
    ),
    OpenOperation(
        "GET", "/v1/trust-list/{version}", "trust",
        ("Une liste de confiance gardée", "A kept trust list"),
        ("Un numéro nomme une seule liste, pour toujours.", "A number names one list for ever."),
        _JOSE, _TEXT, ("record-behind", "unknown-trust-list", "no-such-resource", "database-unavailable"),
    ),
    OpenOperation(
        "GET", "/trust-list.xml", "trust",
        ("La liste au format national", "The list in the national format"),
        ("Sa signature est `/trust-list.xml.jws`, sa somme `/trust-list.xml.sha256`.",
         "Its signature is `/trust-list.xml.jws`, its sum `/trust-list.xml.sha256`."),
        "application/xml", _TEXT, ("record-behind", "no-trust-list", "database-unavailable"),
    ),
    OpenOperation(
        "GET", "/trust-list.xml.jws", "trust",
        ("Signature de la liste nationale", "Signature of the national list"),
        ("JWS détachée de la même version.", "Detached JWS of the same version."),
        _JOSE, _TEXT, ("record-behind", "no-trust-list", "database-unavailable"),
    ),
    OpenOperation(
        "GET", "/trust-list.xml.sha256", "trust",
        ("Somme de la liste nationale", "Sum of the national list"),
        ("Comme `sha256sum --check` la lit.", "As `sha256sum --check` reads it."),
        "text/plain", _TEXT, ("record-behind", "no-trust-list", "database-unavailable"),
    ),
    OpenOperation(
        "GET", "/healthz", "operation",
        ("Le processus répond-il ?", "Does the process answer?"),
        ("Rien n'est demandé à la base.", "The record is not asked."),
        "application/json", {"type": "object"},
    ),
    OpenOperation(
        "GET", "/readyz", "operation",
        ("Tout ce qu'il faut est-il là ?", "Is all there that is needed?"),
        ("Chaque contrôle et sa raison ; 503 quand rien de vrai ne peut être dit.",
         "Each check and its reason; 503 when nothing true can be said."),
        "application/json", {"type": "object"},
    ),
    OpenOperation(
        "GET", "/metrics", "operation",
        ("Mesures pour Prometheus", "Figures for Prometheus"),
        ("Ni nom ni adresse.", "No name, no address."), "text/plain", _TEXT,
    ),
)  # fmt: skip


def with_open(document: Mapping[str, Any]) -> dict[str, Any]:
    """The OpenAPI document with these operations, which no blueprint of flask-smorest serves."""
    paths = dict(document["paths"])
    for operation in OPEN:
        paths[operation.path] = {
            **paths.get(operation.path, {}),
            operation.method.lower(): _documented(operation),
        }
    tags = [*document["tags"], *({"name": name, "description": text} for name, text in TAGS.items())]
    return {**document, "paths": paths, "tags": tags}


def _documented(operation: OpenOperation) -> dict[str, Any]:
    answered = {"description": "OK", "content": {operation.media: {"schema": operation.schema}}}
    responses = {"200": answered, **_refusals(operation)}
    if operation.path == "/v1/trust-list":
        responses["204"] = {"description": "No Content: this version is the newest"}
    made: dict[str, Any] = {
        "operationId": _identifier(operation),
        "tags": [operation.tag],
        "summary": " — ".join(operation.titles),
        "description": "\n\n".join(operation.texts),
        "x-roles": [],
        "x-titles": dict(zip(("fr", "en"), operation.titles, strict=True)),
        "security": [],
        "parameters": [*_path_values(operation.path), *operation.query],
        "responses": responses,
    }
    if operation.body is not None:
        made["requestBody"] = {"required": True, "content": {operation.body: {"schema": _BYTES}}}
    return made


def _identifier(operation: OpenOperation) -> str:
    words = "".join(
        letter if letter.isalnum() else " " for letter in f"{operation.method} {operation.path}"
    ).split()
    return "_".join(words).lower()


def _path_values(path: str) -> list[dict[str, Any]]:
    return [
        {"in": "path", "name": name, "required": True, "description": text, "example": example,
         "schema": {"type": "string", "pattern": pattern}}
        for name, (text, example, pattern) in _PATH_VALUES.items()
        if f"{{{name}}}" in path
    ]  # fmt: skip


def _refusals(operation: OpenOperation) -> dict[str, Any]:
    by_status: dict[int, list[str]] = {}
    for code in operation.problems:
        by_status.setdefault(CATALOGUE[code].status, []).append(code)
    return {str(status): refusal_documented(status, codes) for status, codes in sorted(by_status.items())}

"""How fast status is answered: OCSP, pre-signed and live."""

import hashlib
from base64 import b64encode
from urllib.parse import quote

from benches.harness import Bench, Figure, granian, wrk
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import ocsp

OCSP_TARGET = 10_000
BARE_CALLABLE = """
body = bytes(%d)
headers = [("Content-Type", "application/ocsp-response"), ("Content-Length", str(len(body)))]
def application(environ, start_response):
    if environ["REQUEST_METHOD"] == "POST":
        environ["wsgi.input"].read()
    start_response("200 OK", headers)
    return [body]
"""


def ocsp_requests(bench: Bench, *, nonce: bool) -> list[bytes]:
    """A question, in DER, about each live certificate of the issuing CA."""
    issuer = x509.load_der_x509_certificate(
        bench.rows("SELECT der FROM authority WHERE id = 'persons-1'")[0][0]
    )
    made = []
    for number, (der,) in enumerate(bench.rows("SELECT der FROM certificate WHERE mailbox IS NOT NULL")):
        builder = ocsp.OCSPRequestBuilder().add_certificate(
            x509.load_der_x509_certificate(der),
            issuer,
            hashes.SHA1(),  # noqa: S303 - what clients send
        )
        if nonce:
            builder = builder.add_extension(
                x509.OCSPNonce(hashlib.sha256(str(number).encode()).digest()), critical=False
            )
        made.append(builder.build().public_bytes(serialization.Encoding.DER))
    return made


def ocsp_get(bench: Bench) -> Figure:
    """Pre-signed OCSP answers by GET, requests a second, beside a bare callable of the same answer size."""
    lines = [
        f"GET /ocsp/{quote(b64encode(one).decode(), safe='')}" for one in ocsp_requests(bench, nonce=False)
    ]
    ours = wrk(bench, bench.web, lines)
    with granian(bench, "bare_get", BARE_CALLABLE % 1000) as url:
        bare = wrk(bench, url, lines)
    target, ok = f">= {OCSP_TARGET}/s", ours >= OCSP_TARGET
    return Figure("ocsp_get", ours, "requests/s", {"bare callable": bare}, ours / bare, target, ok)


def ocsp_nonce(bench: Bench) -> Figure:
    """OCSP with a nonce, signed live, requests a second, beside a bare callable reading the same bodies."""
    lines = [f"POST /ocsp {one.hex()}" for one in ocsp_requests(bench, nonce=True)]
    headers = {"Content-Type": "application/ocsp-request"}
    ours = wrk(bench, bench.web, lines, headers)
    with granian(bench, "bare_post", BARE_CALLABLE % 1000) as url:
        bare = wrk(bench, url, lines, headers)
    return Figure("ocsp_nonce", ours, "requests/s", {"bare callable": bare}, ours / bare, "none yet", ok=True)


FIGURES = {one.__name__: one for one in (ocsp_get, ocsp_nonce)}

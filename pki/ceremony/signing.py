"""A certificate of a CA from plan and keys: drawn, linted, signed, checked. Here and on the offline machine.

Knows no database: what exists is handed in, what comes out is stored by `perform` or carried over by hand.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    SECP384R1,
    EllipticCurve,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.serialization import Encoding

from directory.base.errors import Kind, Refusal
from pki.ceremony import build
from pki.ceremony.build import Parent
from pki.ceremony.plan import Place, Plan, Planned, PlannedAuthority
from pki.certificates.builder import subject_of
from pki.model import serial_of
from pki.signing.keys import Keys
from pki.signing.seal import seal

_CURVES: Mapping[str, EllipticCurve] = {"secp256r1": SECP256R1(), "secp384r1": SECP384R1()}


@dataclass(frozen=True)
class KeyRing:
    """Where the keys of each place are; a place that is absent here cannot be reached from here."""

    places: Mapping[Place, Keys]

    def key(self, authority: PlannedAuthority) -> tuple[EllipticCurvePrivateKey, bool]:
        """The key of this CA, and whether it was made now; refuses `key-out-of-reach`, `key-differs`.

        One that is there already is of an earlier try, cut short: nobody has seen a certificate of it.
        """
        keys = self._place(authority)
        if not keys.exists(authority.key.name):
            return keys.make(authority.key.name, _CURVES[authority.curve]), True
        return self.held(authority), False

    def held(self, authority: PlannedAuthority) -> EllipticCurvePrivateKey:
        """The key of this CA, which must be there."""
        key = self._place(authority).load(authority.key.name)
        if key.curve.name != authority.curve:
            text = f"The key {authority.key.name} is on {key.curve.name}, not on {authority.curve}."
            raise Refusal(Kind.CONFLICT, "key-differs", text)
        return key

    def reaches(self, authority: PlannedAuthority) -> bool:
        """Whether keys of that place can be used from here."""
        return authority.key.place in self.places

    def _place(self, authority: PlannedAuthority) -> Keys:
        if not self.reaches(authority):
            key = authority.key
            text = f"The key {key.name} of {authority.id} lies elsewhere ({key.place.value})."
            raise Refusal(Kind.UNAVAILABLE, "key-out-of-reach", text)
        return self.places[authority.key.place]


def sign(
    plan: Plan,
    planned: Planned,
    *,
    public: EllipticCurvePublicKey,
    signing: EllipticCurvePrivateKey,
    parent: Parent | None,
    now: datetime,
) -> bytes:
    """The certificate in DER; refuses what `build` refuses."""
    if parent is not None and signing.public_key() != build.ec_key(parent.certificate):
        text = f"The key at hand is not the one in the certificate of {parent.id}."
        raise Refusal(Kind.CONFLICT, "key-differs", text)
    drawn = build.draw(
        plan, planned, public, parent,
        serial=serial_of(x509.random_serial_number()), validity=build.span(planned, parent, now),
    )  # fmt: skip
    build.check(planned, drawn, parent)
    signed = seal(drawn.tbs_certificate_bytes, signing)
    made = x509.load_der_x509_certificate(signed)
    # A token may answer with anything: what it signed is looked at before it is kept.
    made.verify_directly_issued_by(made if parent is None else parent.certificate)
    return signed


def request(authority: PlannedAuthority, key: EllipticCurvePrivateKey) -> bytes:
    """A PKCS #10 request for this CA, in PEM: its name, its key, the proof that the key is held."""
    digest = hashes.SHA384() if authority.curve == "secp384r1" else hashes.SHA256()
    built = (
        x509.CertificateSigningRequestBuilder().subject_name(subject_of(authority.names)).sign(key, digest)
    )
    return built.public_bytes(Encoding.PEM)

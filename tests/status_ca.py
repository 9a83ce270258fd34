"""A CA small enough to read: root and issuing CA of two shards, keys in memory, rows put straight in tables.

For tests of status (CRL, OCSP) that should need neither enrolments nor lints nor the signer's process.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from sqlalchemy import Connection, Engine, text

from pki.certificates import der
from pki.certificates.profiles import Urls
from pki.crl import checks, encoding
from pki.crl import publish as crl
from pki.crl import store as crl_store
from pki.model import CrlForm, RevocationReason, Serial, serial_of
from pki.ocsp import responders
from pki.record import authorities
from pki.service_keys import files as key_files

BASE = "http://status.example"
ROOT, ISSUING = "root-1", "persons-1"
PASSPHRASE = b"of a test"
_ESTABLISH = text(
    "INSERT INTO authority (id, kind, issuer_id, subject, key_name, shards, der, sha256,"
    " not_before, not_after, created_at, crl_form)"
    " VALUES (:id, :kind, :issuer, :subject, :id, :shards, :der, sha256(:der), :from, :to, :from, :form)"
)
_FOLLOW = text(
    "INSERT INTO authority (id, kind, role, generation, issuer_id, subject, key_name, shards, der, sha256,"
    " not_before, not_after, created_at)"
    " VALUES (:id, :kind, :role, :generation, :issuer, :subject, :id, :shards, :der, sha256(:der), :from,"
    " :to, :from)"
)
_RESERVE = text(
    "INSERT INTO reservation (serial, authority_id, profile, shard, spki_sha256, tbs, tbs_sha256, lints,"
    " requested_by, reserved_at) VALUES (CAST(:serial AS text), :authority, :profile, :shard,"
    " sha256(convert_to(CAST(:serial AS text), 'UTF8')), '', sha256(''), '[]', 'test', :at)"
)
_ISSUE = text(
    "INSERT INTO certificate (serial, authority_id, profile, shard, subject, spki_sha256, der, sha256,"
    " not_before, not_after, issued_at) VALUES (:serial, :authority, :profile, :shard, 'CN=Someone', '',"
    " :der, sha256(:der), :from, :to, :from)"
)
_REVOKE = text(
    "INSERT INTO revocation"
    " (serial, authority_id, shard, action, reason, actor, revoked_at, not_after, entry)"
    " VALUES (:serial, :authority, :shard, :action, :reason, 'test', :at, :to, :entry)"
)


@dataclass(frozen=True)
class Issued:
    """One certificate and where its status belongs."""

    serial: Serial
    shard: int
    certificate: x509.Certificate
    not_after: datetime

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)


@dataclass
class StatusCa:
    """The CA and its record; also the signer of its CRLs, gate included."""

    engine: Engine
    now: datetime
    shards: int = 2
    crl_form: CrlForm = CrlForm.NATIONAL
    keys: dict[str, ec.EllipticCurvePrivateKey] = field(default_factory=dict)
    certificates: dict[str, x509.Certificate] = field(default_factory=dict)

    def establish(self) -> "StatusCa":
        for name, curve in ((ROOT, ec.SECP384R1()), (ISSUING, ec.SECP256R1())):
            self.keys[name] = ec.generate_private_key(curve)
            self.certificates[name] = self._authority(name)
        with self.engine.begin() as connection:
            # Of the national form nothing is said, as the release before says nothing.
            form = "plain" if self.crl_form is CrlForm.PLAIN else None
            connection.execute(_ESTABLISH, [self._row(ROOT, "root", None, 1) | {"form": None}])
            row = self._row(ISSUING, "issuing", ROOT, 1 if form else self.shards)
            connection.execute(_ESTABLISH, [row | {"form": form}])
        return self

    def add_issuing(self, name: str, *, days: int = 3650) -> None:
        """Another issuing CA below the root, as a ceremony would add while all runs."""
        self.keys[name] = ec.generate_private_key(ec.SECP256R1())
        self.certificates[name] = self._authority(name, days)
        role, _, generation = name.rpartition("-")
        row = self._row(name, "issuing", ROOT, self.shards)
        with self.engine.begin() as connection:
            connection.execute(_FOLLOW, row | {"role": role, "generation": int(generation)})

    def _row(self, name: str, kind: str, issuer: str | None, shards: int) -> dict[str, object]:
        certificate = self.certificates[name]
        return {"id": name, "kind": kind, "issuer": issuer, "shards": shards, "der": self.der(name),
                "subject": certificate.subject.rfc4514_string(), "from": certificate.not_valid_before_utc,
                "to": certificate.not_valid_after_utc}  # fmt: skip

    def der(self, name: str) -> bytes:
        return self.certificates[name].public_bytes(Encoding.DER)

    def pem(self) -> bytes:
        return b"".join(self.certificates[name].public_bytes(Encoding.PEM) for name in (ISSUING, ROOT))

    def issue(
        self,
        *,
        shard: int = 0,
        days: int = 300,
        authority: str = ISSUING,
        key: ec.EllipticCurvePublicKey | None = None,
    ) -> Issued:
        key = key or ec.generate_private_key(ec.SECP256R1()).public_key()
        builder = self._builder("Someone", key, authority, self.now - timedelta(minutes=5), days)
        builder = builder.add_extension(_crl_point(authority, shard), critical=False)
        if self.crl_form is CrlForm.NATIONAL:
            builder = builder.add_extension(_delta_point(authority, shard), critical=False)
        return self._store(
            builder.sign(self.keys[authority], hashes.SHA256()), shard, "practitioner-smime", authority
        )

    def reserve(self, serial: Serial, shard: int = 0) -> None:
        row = {
            "serial": serial,
            "authority": ISSUING,
            "profile": "practitioner-smime",
            "shard": shard,
            "at": self.now,
        }
        with self.engine.begin() as connection:
            connection.execute(_RESERVE, row)

    def revoke(
        self,
        issued: Issued,
        reason: RevocationReason = RevocationReason.KEY_COMPROMISE,
        *,
        action: str = "revoke",
        at: datetime | None = None,
        connection: Connection | None = None,
    ) -> None:
        """In a transaction of its own, or in the one given."""
        at = at or self.now
        entry = None if action == "release" else encoding.entry_der(issued.serial, at, reason)
        row = {"serial": issued.serial, "authority": ISSUING, "shard": issued.shard, "action": action,
               "reason": reason.value, "at": at, "to": issued.not_after, "entry": entry}  # fmt: skip
        if connection is not None:
            connection.execute(_REVOKE, row)
            return
        with self.engine.begin() as own:
            own.execute(_REVOKE, row)

    def add_responder(
        self, folder: Path, *, days: int = 30, authority: str = ISSUING, passphrase: bytes = PASSPHRASE
    ) -> x509.Certificate:
        """A responder's key in the folder and its rows, without a signer."""
        key = ec.generate_private_key(ec.SECP256R1())
        key_files.save_key(folder, responders.key_name(authority), key, passphrase)
        builder = self._builder("OCSP", key.public_key(), authority, self.now - timedelta(minutes=5), days)
        builder = builder.add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING]), critical=False
        )
        builder = builder.add_extension(x509.OCSPNoCheck(), critical=False)
        made = self._store(builder.sign(self.keys[authority], hashes.SHA256()), 0, "ocsp-signer", authority)
        with self.engine.begin() as connection:
            connection.execute(
                text(
                    "INSERT INTO ocsp_responder SELECT serial, authority_id, der, not_before, not_after"
                    " FROM certificate WHERE serial = :serial"
                ),
                {"serial": made.serial},
            )
        return made.certificate

    def ping(self) -> str:
        return "here"

    def sign_crl(self, authority_id: str, shard: int, number: int) -> bytes:
        with self.engine.connect() as connection:
            authority = authorities.load_authority(connection, authority_id)
            waiting = crl_store.bytes_of(connection, authority_id, shard, number)
            assert authority is not None
            assert waiting is not None
            tbs, _ = waiting
            checks.check_crl(connection, authority, shard, number, tbs, self.now)
        key = self.keys[authority_id]
        hash_algorithm = hashes.SHA384() if key.key_size == 384 else hashes.SHA256()
        signature = key.sign(tbs, ec.ECDSA(hash_algorithm))
        return der.sequence(tbs, encoding.signature_algorithm(authority.der), der.bit_string(signature))

    def publish(
        self, shard: int = 0, authority: str = ISSUING, **options: object
    ) -> x509.CertificateRevocationList:
        """The shard's next CRL, as it would be served."""
        crl.publish(
            self.engine,
            self,
            authority_id=authority,
            shard=shard,
            now=self.now,
            lifetime=timedelta(hours=72),
            **options,
        )
        with self.engine.connect() as connection:
            published = crl_store.latest(
                connection, authority, shard, delta=bool(options.get("delta", False))
            )
        assert published is not None
        return x509.load_der_x509_crl(published.der)

    def publish_due(self) -> int:
        """One run of the job; gives how many CRLs it published."""
        return crl.publish_due(self.engine, self, self.now, timedelta(hours=72))

    def settle(self) -> None:
        """Run the job, as every five seconds, until both kinds are out and nothing is due."""
        while self.publish_due():
            self.now += timedelta(seconds=5)

    def _store(self, certificate: x509.Certificate, shard: int, profile: str, authority: str) -> Issued:
        whole = certificate.public_bytes(Encoding.DER)
        made = Issued(
            serial_of(certificate.serial_number), shard, certificate, certificate.not_valid_after_utc
        )
        row = {"serial": made.serial, "authority": authority, "profile": profile, "shard": shard,
               "at": self.now, "der": whole, "from": certificate.not_valid_before_utc,
               "to": made.not_after}  # fmt: skip
        with self.engine.begin() as connection:
            connection.execute(_RESERVE, row)
            connection.execute(_ISSUE, row)
        return made

    def _authority(self, name: str, days: int = 3650) -> x509.Certificate:
        issuer = ROOT
        builder = self._builder(
            name, self.keys[name].public_key(), issuer, self.now - timedelta(days=1), days
        )
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        usage = dict.fromkeys(
            ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
             "key_agreement", "encipher_only", "decipher_only"), False
        ) | {"key_cert_sign": True, "crl_sign": True}  # fmt: skip
        builder = builder.add_extension(x509.KeyUsage(**usage), critical=True)
        if name != issuer:
            builder = builder.add_extension(_crl_point(issuer, 0), critical=False)
        return builder.sign(self.keys[issuer], hashes.SHA384())

    def _builder(
        self, name: str, key: ec.EllipticCurvePublicKey, issuer: str, start: datetime, days: int
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(_name(issuer))
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + timedelta(days=days))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.keys[issuer].public_key()),
                critical=False,
            )
        )


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [x509.NameAttribute(NameOID.COUNTRY_NAME, "FR"), x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    )


def _crl_point(authority: str, shard: int) -> x509.CRLDistributionPoints:
    url = x509.UniformResourceIdentifier(Urls(BASE).crl(authority, shard))
    return x509.CRLDistributionPoints([x509.DistributionPoint([url], None, None, None)])


def _delta_point(authority: str, shard: int) -> x509.FreshestCRL:
    url = x509.UniformResourceIdentifier(Urls(BASE).delta_crl(authority, shard))
    return x509.FreshestCRL([x509.DistributionPoint([url], None, None, None)])

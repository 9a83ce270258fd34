"""The certificate that our own LDAPS listener shows: issued by our CA, by the same road as any other.

Its key is the one private key that lies unencrypted (mode 0600), because slapd reads no other; it certifies
nothing.
"""

from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from api.embedded.slapd import TlsFiles
from api.files import write_atomically
from api.wiring import Container
from directory.base.audit import Actor
from directory.base.db import transaction
from pki import issuance, store
from pki.profiles import SERVICE_TLS, ServiceNames
from pki.published import authorities

ROLE = "organisations"
# Renewed at the next start with this much left; a part that runs for longer is restarted by its operator.
RENEWED_WITH = timedelta(days=60)
# A bare `localhost` is no fully qualified name and no certificate may carry it (RFC 5280 4.2.1.6, RFC 1034
# 3.5); on this machine clients reach us by address.
LOCAL_NAME = "sceau.localhost"
_PEM = serialization.Encoding.PEM


def files(state: Path) -> TlsFiles:
    """Where the certificate with its chain, its key, and the root lie."""
    folder = state / "ldap" / "tls"
    return TlsFiles(folder / "certificate.pem", folder / "key.pem", folder / "root.pem")


def ensure(container: Container) -> None:
    """Make the certificate unless one with time left is there.

    The key is written before the certificate that names it: a crash in between leaves a key without a use.
    """
    paths, now = files(container.settings.state), container.clock()
    if _holds(paths.certificate, now):
        return
    key = ec.generate_private_key(ec.SECP256R1())
    with transaction(container.engine) as connection:
        issuer = store.issuing_authority(connection, ROLE, now)
        prepared = issuance.prepare(
            connection, now=now, actor=Actor("command:up"), authority=issuer, profile=SERVICE_TLS,
            public_key=key.public_key(), names=_names(container.settings.host),
            base_url=container.settings.base_url,
        )  # fmt: skip
    issued = issuance.issue(container.engine, container.signer, prepared, now)
    with transaction(container.engine) as connection:
        chain = {
            name: x509.load_der_x509_certificate(der).public_bytes(_PEM)
            for name, der in authorities(connection)
        }
    roots = b"".join(chain[one] for one in _roots(container))
    write_atomically(paths.authority, roots, mode=0o644)
    write_atomically(
        paths.key, key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    write_atomically(paths.certificate, issued.pem.encode() + chain[issuer.id], mode=0o644)


def _roots(container: Container) -> list[str]:
    """Every root: while one follows another, clients may hold to either."""
    with transaction(container.engine, read_only=True) as connection:
        return [one.id for one in store.authorities(connection) if one.issuer_id is None]


def _holds(path: Path, now: datetime) -> bool:
    if not path.exists():
        return False
    return x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc - now > RENEWED_WITH


def _names(host: str) -> ServiceNames:
    """What the listener answers as: this machine, by name and by address, and the address it is bound to."""
    addresses = {ip_address("127.0.0.1"), ip_address("::1")}
    try:
        addresses.add(ip_address(host))
    except ValueError:
        return ServiceNames((host,), tuple(sorted(addresses, key=str)))
    return ServiceNames((LOCAL_NAME,), tuple(sorted((a for a in addresses if not a.is_unspecified), key=str)))

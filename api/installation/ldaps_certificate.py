"""The certificate that our own LDAPS listener shows: issued by our CA, by the same road as any other.

Its key is the one private key that lies unencrypted (mode 0600), because slapd reads no other; it certifies
nothing. How a running slapd comes to show it is for `api/jobs/ldaps_certificate.py`.
"""

import shutil
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import Connection

from api.embedded.slapd import TlsFiles
from api.wiring import Container
from directory.base.audit import Actor
from directory.base.db import transaction
from directory.base.durable_files import onto_disk, write_atomically
from directory.base.failpoints import passing
from pki.certificates.profiles import SERVICE_TLS, ServiceNames
from pki.issuance import pipeline
from pki.issuance.pipeline import Prepared
from pki.model import Authority, RevocationAction, serial_of
from pki.record import authorities, revocations
from pki.revocation import blocked_keys
from pki.service_keys import servers_authority

# Whose CA certified it before there was one for servers.
FORMERLY = "organisations"
# Renewed with this much left, or with a third of a life that its CA cut short. It leaves time for a person to
# look when it fails.
RENEWED_WITH, RENEWED_SHARE = timedelta(days=60), 1 / 3
# The common name is a name below `localhost`, which no other machine answers to (RFC 6761 6.3). Clients of
# this machine write `localhost` alone; why it may stand there is said in `pki/lint/accepted.py`.
LOCAL_NAMES = ("sceau.localhost", "localhost")
_PEM = serialization.Encoding.PEM


def folder_of(state: Path) -> Path:
    """Where each pair of certificate and key has a folder of its own, and `current` names the one to show."""
    return state / "ldap" / "tls"


def files(state: Path) -> TlsFiles:
    """Where the certificate with its chain, its key, and the roots lie.

    By the pair's own folder, which never changes. Through `current` somebody who reads two files would get
    one of each pair when it is switched between them.
    """
    pair = (folder_of(state) / "current").resolve()
    return TlsFiles(pair / "certificate.pem", pair / "key.pem", folder_of(state) / "root.pem")


def ensure(container: Container, actor: Actor) -> str:
    """Have a pair that may be shown for a good while: why a new one was made, '' when none was."""
    _keep_roots(container)
    why = _what_is_wrong(container)
    if why:
        _make(container, actor)
    return why


def forget_old(state: Path) -> None:
    """Remove every pair but the current one: for when slapd shows that, and would after a restart."""
    folder = folder_of(state)
    kept = {files(state).certificate.parent, folder / "root.pem", folder / "current"}
    for path in folder.iterdir():
        if path in kept:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            # A switch cut short, or the one pair that earlier releases kept here.
            path.unlink()


def _make(container: Container, actor: Actor) -> None:
    """Issue a certificate, write it and its key into a folder of their own, then switch to that.

    A crash before the switch leaves the former pair and a certificate without a use.
    """
    now = container.clock()
    # Before a serial is spent: while the signer is away, each try would burn one.
    container.signer.ping()
    key = ec.generate_private_key(ec.SECP256R1())

    def reserve(connection: Connection) -> Prepared:
        return pipeline.prepare(
            connection, now=now, actor=actor,
            authority=servers_authority.issuing(connection, SERVICE_TLS, FORMERLY, now), profile=SERVICE_TLS,
            key=blocked_keys.check(connection, key.public_key()), names=_names(container.settings.host),
            base_url=container.settings.base_url,
        )  # fmt: skip

    made = pipeline.issue(container.engine, container.signer, reserve, now)
    issued, issuer = made.issued, made.prepared.authority
    passing("ldaps.issued")
    folder = folder_of(container.settings.state)
    fresh, pair = folder / f"{issued.serial}.new", folder / issued.serial
    shutil.rmtree(fresh, ignore_errors=True)
    write_atomically(
        fresh / "key.pem",
        key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )
    passing("ldaps.key")
    write_atomically(fresh / "certificate.pem", issued.pem.encode() + _pem(issuer), mode=0o644)
    onto_disk(fresh)
    fresh.rename(pair)
    onto_disk(folder)
    passing("ldaps.pair")
    _switch(folder, pair.name)


def _switch(folder: Path, name: str) -> None:
    """Let `current` name another pair, in one step."""
    link = folder / "current.new"
    link.unlink(missing_ok=True)
    link.symlink_to(name)
    link.replace(folder / "current")
    onto_disk(folder)


def _what_is_wrong(container: Container) -> str:
    """Why the current pair will not do, '' when it will."""
    certificate, now = _pair(files(container.settings.state)), container.clock()
    if certificate is None:
        return "there was none"
    life, left = (
        certificate.not_valid_after_utc - certificate.not_valid_before_utc,
        certificate.not_valid_after_utc - now,
    )
    if left <= min(RENEWED_WITH, life * RENEWED_SHARE):
        return f"the last one ends on {certificate.not_valid_after_utc:%Y-%m-%d}"
    serial = serial_of(certificate.serial_number)
    with transaction(container.engine, read_only=True) as connection:
        if revocations.last_actions(connection, [serial]).get(serial, RevocationAction.RELEASE) is not (
            RevocationAction.RELEASE
        ):
            return "the last one was revoked"
        issuer = servers_authority.issuing(connection, SERVICE_TLS, FORMERLY, now)
    # By the CA's name alone a next generation under the same name would be taken for the last.
    if not _is_by(certificate, issuer):
        return f"{issuer.id} issues now"
    return ""


def _pair(paths: TlsFiles) -> x509.Certificate | None:
    """The certificate, None unless a key that fits it lies beside."""
    try:
        certificate = x509.load_pem_x509_certificate(paths.certificate.read_bytes())
        key = serialization.load_pem_private_key(paths.key.read_bytes(), None)
    except (FileNotFoundError, ValueError):
        return None
    return certificate if key.public_key() == certificate.public_key() else None


def _is_by(certificate: x509.Certificate, issuer: Authority) -> bool:
    issued_by = x509.load_der_x509_certificate(issuer.der).extensions
    named = issued_by.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    asked = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    return asked.key_identifier == named


def _keep_roots(container: Container) -> None:
    """Every root: while one follows another, clients may hold to either."""
    with transaction(container.engine, read_only=True) as connection:
        roots = b"".join(
            _pem(authority)
            for authority in authorities.authorities(connection)
            if authority.issuer_id is None
        )
    path = files(container.settings.state).authority
    if not path.exists() or path.read_bytes() != roots:
        write_atomically(path, roots, mode=0o644)


def _pem(authority: Authority) -> bytes:
    return x509.load_der_x509_certificate(authority.der).public_bytes(_PEM)


def _names(host: str) -> ServiceNames:
    """What the listener answers as: this machine, by name and by address, and the address it is bound to."""
    addresses = {ip_address("127.0.0.1"), ip_address("::1")}
    try:
        addresses.add(ip_address(host))
    except ValueError:
        return ServiceNames((host,), tuple(sorted(addresses, key=str)))
    return ServiceNames(LOCAL_NAMES, tuple(sorted((a for a in addresses if not a.is_unspecified), key=str)))

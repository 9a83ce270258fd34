"""Which CA certifies servers, their clients and this service's own signers: one of its own, apart from mail.

An installation made before there was such a CA goes on with the one it had until a ceremony brings one. For
uses that mail's rules forbid, it does so no longer than they allow. How it is made is for `pki.ceremony`.
"""

from datetime import datetime

from cryptography import x509
from sqlalchemy import Connection

from directory.attention import Concern, Matter, keep
from directory.base.audit import Actor
from directory.base.errors import Kind, Refusal
from pki.certificates.builder import certificate_of
from pki.certificates.profiles import MAIL_APART_FROM, MAIL_ROLES, OF_MAIL_CAS, SERVERS_ROLE, Profile
from pki.model import Authority, AuthorityState
from pki.record import authorities

# Who sees each minute that every CA can answer.
_ACTOR = Actor("job:ocsp-responders")


def issuing(connection: Connection, profile: Profile, formerly: str, now: datetime) -> Authority:
    """The CA that certifies under this profile; that of the role `formerly` while none was ever activated.

    Refuses `servers-authority-missing` where that one may no longer, and what `authorities.issuing_authority`
    does.
    """
    if _is_here(connection):
        # Revoked or at its end it is refused, rather than followed by one that had handed over.
        return authorities.issuing_authority(connection, SERVERS_ROLE, now)
    authority = authorities.issuing_authority(connection, formerly, now)
    if OF_MAIL_CAS.issuperset(profile.purposes) or (
        now < MAIL_APART_FROM and not _is_for_mail_alone(authority)
    ):
        return authority
    text = (
        f"{authority.id} is for mail, and certifies neither servers nor signers of lists: make and activate"
        " a CA for servers (docs/how-to/ceremony.md)."
    )
    raise Refusal(Kind.UNAVAILABLE, "servers-authority-missing", text)


def left_without(connection: Connection, following: Authority) -> bool:
    """Whether nobody would certify servers once this CA issues for mail."""
    return following.role in MAIL_ROLES and _is_for_mail_alone(following) and not _is_here(connection)


def note_missing(connection: Connection, now: datetime) -> None:
    """Keep the matter of its absence open, or closed."""
    absent = not _is_here(connection)
    detail = {"from": MAIL_APART_FROM.date().isoformat()}
    matters = [Matter(SERVERS_ROLE, detail=detail)] if absent and authorities.authorities(connection) else []
    keep(connection, Concern.SERVERS_AUTHORITY_MISSING, matters, among=None, now=now, actor=_ACTOR)


def _is_for_mail_alone(authority: Authority) -> bool:
    """Whether its certificate says so, as of each CA for mail made since there are CAs for servers.

    Readers as strict as OpenSSL take a server's certificate from no such CA.
    """
    extensions = certificate_of(authority.der).extensions
    return any(isinstance(extension.value, x509.ExtendedKeyUsage) for extension in extensions)


def _is_here(connection: Connection) -> bool:
    """Whether a CA for servers issues, or did."""
    return any(
        authority.role == SERVERS_ROLE and authority.state is not AuthorityState.STANDBY
        for authority in authorities.authorities(connection)
    )

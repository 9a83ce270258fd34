"""Whose client certificate a subject names, for a server that is told the subject of it and nothing else.

slapd names whoever bound by SASL EXTERNAL by the subject: no issuer, no serial, no key. One of ours
(`operator-client`) names its operator by number, and all that its operator has under one subject stand or
fall together; any other is for the trusted list (`directory/access.py`). Which CAs certify clients is for the
server.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from directory.access import ClientCertificate, accredited_operator, certified_operator
from directory.base.errors import Kind, Refusal
from directory.base.statement import Statement
from directory.distinguished_names import Attributes, comparable
from pki.profiles import OPERATOR_CLIENT, family_of

# As `pki/tbs.py` writes it into a certificate; slapd tells names in lower case.
_NUMBERED = re.compile(r"op-([1-9][0-9]{0,17})", re.ASCII)
# Of one operator: some, not thousands. Each by its own last event, and by that of its CA.
_UNEXPIRED = Statement("""
    SELECT c.subject, c.not_before, c.not_after, EXISTS (
        SELECT FROM (VALUES (c.serial), (ca.serial)) AS asked (serial)
        CROSS JOIN LATERAL (
            SELECT action FROM revocation r WHERE r.serial = asked.serial ORDER BY r.id DESC LIMIT 1) AS last
        WHERE last.action <> 'release') AS taken_back
    FROM operator_certificate o JOIN certificate c USING (serial)
    JOIN authority a ON a.id = c.authority_id LEFT JOIN certificate ca ON ca.sha256 = a.sha256
    WHERE o.operator_id = :operator AND c.profile = ANY(:profiles) AND c.not_after > :now
    ORDER BY c.not_after
""")
_OF_A_SERVER = Statement("""
    SELECT EXISTS (
        SELECT FROM operator_certificate o JOIN certificate c USING (serial)
        WHERE o.hosts <> '{}' AND c.not_after > :now AND lower(c.subject) = 'cn=' || CAST(:host AS text))
""")


@dataclass(frozen=True)
class _Issued:
    """From when until when one certificate lasts, and whether it, or its CA, is revoked or on hold."""

    not_before: datetime
    not_after: datetime
    taken_back: bool


def operator_shown(connection: Connection, subject: str, now: datetime) -> ClientCertificate:
    """The operator that a client certificate of this subject was issued to, ours or one of the trusted list.

    Refuses `unknown-certificate`. That the certificate leads to a CA that may certify clients, and that its
    key is there, is for whoever spoke TLS.
    """
    name = _comparable(subject)
    number = _number(name)
    if number and (issued := _issued(connection, number, name, now)):
        _check_all_hold(issued, now)
        return accredited_operator(connection, number, subject, now)
    _refuse_server(connection, name, now)
    return certified_operator(connection, subject, now)


def _comparable(subject: str) -> Attributes:
    try:
        return comparable(subject)
    except Refusal:
        # What is written as no name is nobody's; the trusted list may hold it all the same.
        return ()


def _number(name: Attributes) -> int:
    """The operator's number within a subject of ours, 0 where there is none."""
    numbers = [_NUMBERED.fullmatch(value) for kind, value in name if kind == "SERIALNUMBER"]
    return int(numbers[0][1]) if len(numbers) == 1 and numbers[0] else 0


def _issued(connection: Connection, number: int, name: Attributes, now: datetime) -> list[_Issued]:
    """What this operator was given under this name and has not run out, the first to end first."""
    asked = {"operator": number, "profiles": family_of(OPERATOR_CLIENT.name), "now": now}
    rows = _UNEXPIRED.rows(connection, asked)
    return [_Issued(*rest) for subject, *rest in rows if comparable(subject) == name]


def _check_all_hold(issued: Sequence[_Issued], now: datetime) -> None:
    """Refuse while one was taken back: which of them was shown is unknown."""
    taken_back = [one for one in issued if one.taken_back]
    if taken_back:
        text = (
            "A client certificate of this name is revoked or on hold, and LDAP cannot tell which one this is:"
            f" bind with a token until {taken_back[-1].not_after:%Y-%m-%d}."
        )
        raise Refusal(Kind.UNAUTHENTICATED, "unknown-certificate", text)
    if not any(one.not_before <= now for one in issued):
        text = "The client certificate of this name is not valid yet."
        raise Refusal(Kind.UNAUTHENTICATED, "unknown-certificate", text)


def _refuse_server(connection: Connection, name: Attributes, now: datetime) -> None:
    """A CA that certifies clients of ours certifies servers too, whose subject is a host alone.

    The trusted list may name an operator so: its accredited certificate and a server's are then one name.
    """
    match name:
        case (("CN", host),):
            ((is_a_server,),) = _OF_A_SERVER.rows(connection, {"host": host, "now": now})
            if is_a_server:
                text = "This is the name of a server's certificate, which opens nothing as a client."
                raise Refusal(Kind.UNAUTHENTICATED, "unknown-certificate", text)

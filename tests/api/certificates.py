"""Rows of certificates as REST shows them, without the CA: their bytes are carried here and never read."""

from datetime import datetime, timedelta
from hashlib import sha256

from sqlalchemy import Engine, text

from tests.factories import OPERATOR

YEAR = timedelta(days=365)
_RESERVE = text(
    "INSERT INTO reservation (serial, authority_id, profile, shard, mailbox, practitioner, enrolment_id,"
    " spki_sha256, tbs, tbs_sha256, lints, requested_by, reserved_at) VALUES (:serial, 'persons-1', :profile,"
    " 0, :mailbox, :holder, CAST(:enrolment AS uuid), :sha256, '', :sha256, '[]', 'test', :at)"
)
_ISSUE = text(
    "INSERT INTO certificate (serial, authority_id, profile, shard, mailbox, practitioner, subject,"
    " spki_sha256, der, sha256, not_before, not_after, issued_at) VALUES (:serial, 'persons-1',"
    " :profile, 0, :mailbox,"
    " coalesce(:holder, (SELECT holder FROM mailbox WHERE address = :mailbox)), 'CN=someone', :sha256, :der,"
    " :sha256, :at, :ends, :at)"
)
_OF_AN_OPERATOR = (
    text(
        "INSERT INTO reservation (serial, authority_id, profile, shard, spki_sha256, tbs, tbs_sha256, lints,"
        " requested_by, reserved_at) VALUES (:serial, 'organisations-1', 'operator-server', 0, :sha256, '',"
        " :sha256, '[]', 'test', :at)"
    ),
    text(
        "INSERT INTO certificate (serial, authority_id, profile, shard, subject, spki_sha256, der, sha256,"
        " not_before, not_after, issued_at) VALUES (:serial, 'organisations-1', 'operator-server', 0,"
        " :subject, :sha256, :der, :sha256, :at, :ends, :at)"
    ),
    text(
        "INSERT INTO operator_certificate (serial, operator_id, hosts, domains, spki_sha256)"
        " SELECT :serial, id, '{}', '{}', :sha256 FROM operator WHERE certificate_dn = :operator"
    ),
)
_FORGET_CONTACTS = text(
    "DELETE FROM operator_contact"
    " WHERE operator_id = (SELECT id FROM operator WHERE certificate_dn = :operator)"
)
_KEEP_CONTACT = text(
    "INSERT INTO operator_contact (operator_id, place, address, kept_at)"
    " SELECT id, :place, :address, now() FROM operator WHERE certificate_dn = :operator"
)
_TAKE_BACK = text(
    "INSERT INTO revocation (serial, authority_id, shard, action, reason, comment, actor, revoked_at,"
    " not_after, entry) SELECT serial, 'persons-1', 0, :action, :reason, 'said so', 'token:1', :at,"
    " not_after, :entry FROM certificate WHERE serial = :serial"
)


def certify(
    engine: Engine,
    mailbox: str,
    at: datetime,
    *,
    number: int = 1,
    holder: str | None = None,
    lasts: timedelta = YEAR,
    profile: str = "practitioner-smime",
    enrolment: str | None = None,
) -> str:
    """A certificate of this mailbox from `at` on; gives its serial."""
    serial, der = f"{number:040x}", f"certificate {number}".encode()
    row = {"serial": serial, "mailbox": mailbox, "holder": holder, "der": der, "sha256": sha256(der).digest(),
           "at": at, "ends": at + lasts, "profile": profile, "enrolment": enrolment}  # fmt: skip
    with engine.begin() as connection:
        connection.execute(_RESERVE, row)
        connection.execute(_ISSUE, row)
    return serial


def certify_operator(
    engine: Engine,
    at: datetime,
    *,
    number: int,
    lasts: timedelta = YEAR,
    subject: str = "CN=mx.one.example",
    operator: str = OPERATOR,
) -> str:
    """A server's certificate of this operator, named by the DN of its own, from `at` on; gives its serial."""
    serial, der = f"{number:040x}", f"certificate {number}".encode()
    row = {"serial": serial, "der": der, "sha256": sha256(der).digest(), "at": at, "ends": at + lasts,
           "subject": subject, "operator": operator}  # fmt: skip
    with engine.begin() as connection:
        for statement in _OF_AN_OPERATOR:
            connection.execute(statement, row)
    return serial


def keep_contacts(engine: Engine, *addresses: str, operator: str = OPERATOR) -> None:
    """What an operator says over REST, without its token."""
    with engine.begin() as connection:
        owner = {"operator": operator}
        connection.execute(_FORGET_CONTACTS, owner)
        for place, address in enumerate(addresses, 1):
            connection.execute(_KEEP_CONTACT, {**owner, "place": place, "address": address})


def take_back(
    engine: Engine, serial: str, at: datetime, *, action: str = "revoke", reason: str = "superseded"
) -> None:
    """An event that revokes, holds or releases."""
    entry = None if action == "release" else b"entry"
    row = {"serial": serial, "action": action, "reason": reason, "at": at, "entry": entry}
    with engine.begin() as connection:
        connection.execute(_TAKE_BACK, row)

"""The rows of certificates. Decides nothing."""

from collections.abc import Collection, Sequence

from sqlalchemy import Connection, bindparam, select, text

from directory.base.audit import BESIDE, Line, beside
from directory.base.prepared_statement import Statement
from pki.model import IssuedCertificate, Serial
from pki.record.tables import any_of, certificate

# Each way to a certificate by its own index.
_TOUCHED = text("""
    SELECT c.serial FROM unnest(CAST(:people AS text[])) AS asked (id)
    JOIN certificate c ON c.practitioner = asked.id
    UNION SELECT c.serial FROM unnest(CAST(:mailboxes AS text[])) AS asked (address)
    JOIN certificate c ON c.mailbox = asked.address
    UNION SELECT c.serial FROM unnest(CAST(:serials AS text[])) AS asked (serial)
    JOIN certificate c ON c.serial = asked.serial
""")
_CERTIFICATE_OF_SERIAL = select(certificate).where(certificate.c.serial == bindparam("serial"))
# Under the lock of its reservation, which every other who would store it waits for.
_ADD_CERTIFICATE = Statement(f"""
    WITH reserved AS MATERIALIZED (SELECT FROM reservation WHERE serial = :serial FOR UPDATE), done AS (
        INSERT INTO certificate (serial, authority_id, profile, shard, mailbox, practitioner, subject,
                                 spki_sha256, der, sha256, not_before, not_after, issued_at)
        SELECT :serial, :authority_id, :profile, :shard, :mailbox, :practitioner, :subject, :spki_sha256,
               :der, :sha256, :not_before, :not_after, :issued_at
        FROM (SELECT count(*) FROM reserved) AS locked
        ON CONFLICT (serial) DO NOTHING RETURNING serial
    ), {BESIDE} SELECT serial FROM done
""")  # noqa: S608


def stored_among(connection: Connection, serials: Sequence[Serial]) -> set[Serial]:
    """Those of these serials that have a certificate."""
    query = select(certificate.c.serial).where(certificate.c.serial == any_of(serials))
    return {Serial(serial) for serial in connection.execute(query).scalars()}


def add_certificate(connection: Connection, issued: IssuedCertificate, line: Line | None = None) -> bool:
    """Store a certificate under its reservation, with its line; False when there is one under its serial.

    Of two who store it the second waits for the first.
    """
    asked = {**vars(issued), **beside(line)}
    return _ADD_CERTIFICATE.row(connection, asked) is not None


def find_certificate(connection: Connection, serial: Serial) -> IssuedCertificate | None:
    """The certificate of that serial, or None."""
    row = connection.execute(_CERTIFICATE_OF_SERIAL, {"serial": serial}).one_or_none()
    return None if row is None else IssuedCertificate(*row)


def touched_certificates(
    connection: Connection, *, people: Collection[str], mailboxes: Collection[str], serials: Collection[str]
) -> list[Serial]:
    """What was ever certified for these people, these mailboxes, or under these serials."""
    asked = {"people": list(people), "mailboxes": list(mailboxes), "serials": list(serials)}
    return [Serial(serial) for serial in connection.execute(_TOUCHED, asked).scalars()]

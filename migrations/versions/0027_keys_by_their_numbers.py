"""Which public keys are one private key: the same modulus under another exponent, the same point mirrored.

A key that is reported was blocked by the digest of its public key alone, and its holder had the other form
certified. Of some keys blocked before nothing but that digest was ever kept: a report of a key that was never
certified, a list of digests. Their numbers are unknown, and they stay blocked as they are.
"""

from hashlib import sha256

from alembic import op
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

revision = "0027"
down_revision = "0026"

UP = r"""
-- `number`: SHA-256 over the RSA modulus or the x of the EC point, big-endian without leading zeros.
CREATE TABLE key_number (
    spki_sha256  bytea PRIMARY KEY CHECK (octet_length(spki_sha256) = 32),
    number       bytea NOT NULL CHECK (octet_length(number) = 32)
);
CREATE INDEX key_number_number ON key_number (number);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON key_number FOR EACH ROW EXECUTE FUNCTION sceau_refuse();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON key_number FOR EACH STATEMENT EXECUTE FUNCTION sceau_refuse();

CREATE FUNCTION sceau_key_family(key bytea) RETURNS SETOF bytea LANGUAGE sql STABLE AS $$
    SELECT key UNION SELECT k.spki_sha256 FROM key_number own JOIN key_number k ON k.number = own.number
    WHERE own.spki_sha256 = key
$$;
CREATE FUNCTION sceau_key_blocked(key bytea) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT b.cause FROM sceau_key_family(key) AS family (spki) JOIN blocked_key b ON b.spki_sha256 = family.spki
    ORDER BY b.since, b.spki_sha256 LIMIT 1
$$;
"""

DOWN = """
DROP FUNCTION sceau_key_blocked(bytea);
DROP FUNCTION sceau_key_family(bytea);
DROP TABLE key_number;
"""
_AT_ONCE = 5000


def number_of(der: bytes) -> bytes | None:
    key = x509.load_der_x509_certificate(der).public_key()
    if isinstance(key, EllipticCurvePublicKey):
        value = key.public_numbers().x
    elif isinstance(key, RSAPublicKey):
        value = key.public_numbers().n
    else:
        return None
    return sha256(value.to_bytes((value.bit_length() + 7) // 8)).digest()


def upgrade() -> None:
    # The driver's own cursors: several statements at once, and certificates read as they come.
    link = op.get_bind().connection.driver_connection
    link.execute(UP)
    with link.cursor(name="certificates") as reader, link.cursor() as writer:
        reader.execute("SELECT DISTINCT ON (spki_sha256) spki_sha256, der FROM certificate WHERE der <> ''")
        while rows := reader.fetchmany(_AT_ONCE):
            numbers = [(bytes(spki), number_of(bytes(der))) for spki, der in rows]
            known = [row for row in numbers if row[1] is not None]
            writer.executemany("INSERT INTO key_number VALUES (%s, %s) ON CONFLICT DO NOTHING", known)


def downgrade() -> None:
    op.get_bind().connection.driver_connection.execute(DOWN)

"""A country's rows, written by set SQL: people, practices, mailboxes with certificates, establishments.

For figures about what happens to rows, not about how they came: no file is read, no CA signs, and numbers
carry no check digit. A thousand certificates serve everybody in turn, each row with a serial of its own.
"""

# ruff: noqa: S608 - put together from constants of this module

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import Connection, Engine, text

DOMAINS = 8_655
DIFFERENT_CERTIFICATES = 1_000
MAILBOXES_PER_ESTABLISHMENT = 5
STAMPED = (
    "operator", "trusted_domain", "organisation", "practitioner", "profession", "skill", "practice",
    "mailbox",
)  # fmt: skip

FAMILIES = ("AUBRELUNE", "BELLEGARENNE", "BRINDEVAL", "ÉCHALIER", "LE GOËLLIC", "DU CLOS-PERRIN")
MARRIED = ("MÉZIÈREAU", "ORGEVAUX", "VALSERINE")
GIVENS = ("Alice", "Bruno", "Zoë", "Chloé", "Jean-Baptiste", "Karim", "Fatou", "Loïc")


def _one_of(words: Sequence[str]) -> str:
    return f"(ARRAY[{', '.join(map(repr, words))}])[1 + n % {len(words)}]"


NAMES = f"{_one_of(FAMILIES)} || CASE WHEN n % 5 = 0 THEN '-' || {_one_of(MARRIED)} ELSE '' END"
GIVEN = _one_of(GIVENS)
NUMBER = "'810' || lpad(n::text, 9, '0')"
FINESS = "lpad(((n - 1) % :places + 1)::text, 9, '0')"

STATEMENTS = (
    """INSERT INTO operator (certificate_dn, name)
       SELECT 'CN=operator-' || n || '.invalid', 'Operator ' || n FROM generate_series(1, 50) AS n
       ON CONFLICT DO NOTHING""",
    """INSERT INTO trusted_domain (name, operator_id, row_hash)
       SELECT 'domain-' || n || '.invalid', o.id, ''
       FROM generate_series(0, :domains - 1) AS n
       JOIN operator o ON o.certificate_dn = 'CN=operator-' || (1 + n % 50) || '.invalid'""",
    f"""INSERT INTO organisation (finess, name, long_name, category_code, category_label, street, postal_line,
                                  department, row_hash)
        SELECT {FINESS}, 'CLINIQUE ' || n, 'CLINIQUE DES TILLEULS NUMERO ' || n, '355', 'Centre hospitalier',
               n || ' RUE DES TILLEULS', '25000 BESANCON', '25', ''
        FROM generate_series(1, :places) AS n""",
    f"""INSERT INTO practitioner (national_id, id_type, id_number, civility, title, family_name, given_name,
                                  search_name, row_hash)
        SELECT {NUMBER}, '8', substr({NUMBER}, 2), 'M', 'DR', {NAMES}, {GIVEN}, 'X', ''
        FROM generate_series(1, :count) AS n""",
    f"""INSERT INTO profession (national_id, code, category)
        SELECT {NUMBER}, '10', 'C' FROM generate_series(1, :count) AS n""",
    f"""INSERT INTO skill (national_id, profession_code, category, skill_type, skill_code)
        SELECT {NUMBER}, '10', 'C', 'S', 'SM' || (1 + n % 60)
        FROM generate_series(1, :count) AS n WHERE n % 3 = 0""",
    f"""INSERT INTO practice (national_id, digest, profession_code, category, finess, structure_name, street,
                              postal_code, town, department, registered_by)
        SELECT {NUMBER}, decode(md5(n || '/' || k), 'hex'), '10', 'C', {FINESS},
               'CABINET MEDICAL ' || n || ' ' || k, n || ' RUE SAINT ETIENNE',
               lpad(((n * 7) % 95000 + 1000)::text, 5, '0'), 'VILLE ' || n % 3000,
               lpad((1 + n % 95)::text, 2, '0'), 'CNOM'
        FROM generate_series(1, :count) AS n,
             generate_series(1, CASE WHEN n % 5 = 0 THEN 2 ELSE 1 END) AS k""",
    f"""INSERT INTO mailbox (address, kind, holder, row_hash)
        SELECT 'person.' || n || '@domain-' || n % :domains || '.invalid', 'PER', {NUMBER}, ''
        FROM generate_series(1, :count) AS n""",
    f"""INSERT INTO reservation (serial, authority_id, profile, shard, mailbox, practitioner, spki_sha256,
                                 tbs, tbs_sha256, lints, requested_by, reserved_at)
        SELECT lpad(to_hex(n), 40, '0'), 'persons-1', 'practitioner-smime', 0,
               'person.' || n || '@domain-' || n % :domains || '.invalid', {NUMBER}, digest.of, '', digest.of,
               '{{}}', 'bench', :since
        FROM generate_series(1, :count) AS n, LATERAL (SELECT sha256(n::text::bytea) AS of) AS digest""",
    """INSERT INTO key_number (spki_sha256, number)
        SELECT digest.of, digest.of
        FROM generate_series(1, :count) AS n, LATERAL (SELECT sha256(n::text::bytea) AS of) AS digest""",
    f"""INSERT INTO certificate (serial, authority_id, profile, shard, mailbox, practitioner, subject,
                                 spki_sha256, der, sha256, not_before, not_after, issued_at)
        SELECT lpad(to_hex(n), 40, '0'), 'persons-1', 'practitioner-smime', 0,
               'person.' || n || '@domain-' || n % :domains || '.invalid', {NUMBER}, 'CN=' || n,
               digest.of, (CAST(:ders AS bytea[]))[1 + n % :different], digest.of, :since, :until, :since
        FROM generate_series(1, :count) AS n, LATERAL (SELECT sha256(n::text::bytea) AS of) AS digest""",
)


def people(engine: Engine, count: int) -> None:
    """`count` people with a certified mailbox each, an establishment for every fifth, in an empty record.

    As restored from a backup: neither the feed nor the search learns of it.
    """
    since = datetime.now(UTC) - timedelta(days=30)
    values = {
        "count": count,
        "places": max(1, count // MAILBOXES_PER_ESTABLISHMENT),
        "domains": DOMAINS,
        "ders": certificates(since),
        "different": DIFFERENT_CERTIFICATES,
        "since": since,
        "until": since + timedelta(days=1000),
    }
    with engine.begin() as connection, _only_stamped(connection):
        for statement in STATEMENTS:
            connection.execute(text(statement), values)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))


def lines_of_the_roll(count: int, like: str) -> Iterator[str]:
    """Lines of the roll's activities that tell of `people(count)`, and otherwise say what `like` says."""
    cells = like.split("|")
    for n in range(1, count + 1):
        number = f"10{n:09}"
        family = FAMILIES[n % len(FAMILIES)] + (f"-{MARRIED[n % len(MARRIED)]}" if n % 5 == 0 else "")
        cells[:3], cells[7:9] = ("8", number, f"8{number}"), (family, GIVENS[n % len(GIVENS)])
        yield "|".join(cells)


@contextmanager
def _only_stamped(connection: Connection) -> Iterator[None]:
    """Of all triggers only the one that dates rows: what happened elsewhere is only copied."""
    for table in STAMPED:
        connection.execute(text(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER stamp"))
    connection.execute(text("SET LOCAL session_replication_role = replica"))
    yield
    connection.execute(text("SET LOCAL session_replication_role = origin"))
    for table in STAMPED:
        connection.execute(text(f"ALTER TABLE {table} ENABLE TRIGGER stamp"))


def certificates(since: datetime | None = None) -> list[bytes]:
    """Certificates in DER of about the size of ours, a month old where no day is said."""
    since = since or datetime.now(UTC) - timedelta(days=30)
    key = ec.generate_private_key(ec.SECP256R1())
    return [_certificate(key, number, since) for number in range(DIFFERENT_CERTIFICATES)]


def _certificate(key: ec.EllipticCurvePrivateKey, number: int, since: datetime) -> bytes:
    address = f"person.{number}@domain-{number}.invalid"
    subject = x509.Name(
        [
            x509.NameAttribute(x509.NameOID.COUNTRY_NAME, "FR"),
            x509.NameAttribute(x509.NameOID.SURNAME, f"AUBRELUNE {number}"),
            x509.NameAttribute(x509.NameOID.GIVEN_NAME, "Alice"),
            x509.NameAttribute(x509.NameOID.SERIAL_NUMBER, f"810{number:09}"),
            x509.NameAttribute(x509.NameOID.COMMON_NAME, f"Alice AUBRELUNE {number}"),
        ]
    )
    issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Sceau bench persons 1")])
    where = x509.UniformResourceIdentifier("http://pki.domain.invalid/crl/persons-1/0.crl")
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(since)
        .not_valid_after(since + timedelta(days=1000))
        .add_extension(x509.SubjectAlternativeName([x509.RFC822Name(address)]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
        .add_extension(
            x509.CRLDistributionPoints([x509.DistributionPoint([where], None, None, None)]), critical=False
        )
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)

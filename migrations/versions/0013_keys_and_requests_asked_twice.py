"""Keys that are never certified, requests asked twice, and how much was issued in each hour."""

from alembic import op

revision = "0013"
down_revision = "0012"

UP = r"""
-- A key once blocked stays so, whoever asks and whatever the registers say of him.
CREATE TABLE blocked_key (
    spki_sha256  bytea PRIMARY KEY CHECK (octet_length(spki_sha256) = 32),
    cause        text NOT NULL CHECK (cause IN ('reported-compromised', 'weak', 'another-person')),
    since        timestamptz NOT NULL,
    serial       text REFERENCES reservation,
    actor        text NOT NULL CHECK (actor <> '')
);
-- Lists of weak keys name them by parts of digests: of the modulus in words (Debian), of the key (badkeys).
CREATE TABLE weak_key (
    form    text NOT NULL CHECK (form IN ('modulus-sha1-80', 'key-sha256-120')),
    digest  bytea NOT NULL CHECK (octet_length(digest) = CASE form WHEN 'modulus-sha1-80' THEN 10 ELSE 15 END),
    list    text NOT NULL CHECK (list <> ''),
    since   timestamptz NOT NULL,
    PRIMARY KEY (form, digest)
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON blocked_key FOR EACH ROW EXECUTE FUNCTION sceau_refuse();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON blocked_key FOR EACH STATEMENT EXECUTE FUNCTION sceau_refuse();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON weak_key FOR EACH ROW EXECUTE FUNCTION sceau_refuse();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON weak_key FOR EACH STATEMENT EXECUTE FUNCTION sceau_refuse();

-- One row for each Idempotency-Key of a token; `busy_until` while it is worked on, the answer once it is done.
CREATE TABLE idempotent_request (
    token_id     bigint NOT NULL REFERENCES api_token,
    key          text NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
    digest       bytea NOT NULL CHECK (octet_length(digest) = 32),
    asked_at     timestamptz NOT NULL,
    busy_until   timestamptz NOT NULL,
    status       smallint CHECK (status BETWEEN 200 AND 299),
    body         bytea,
    PRIMARY KEY (token_id, key),
    CHECK ((status IS NULL) = (body IS NULL))
);
CREATE INDEX idempotent_request_age ON idempotent_request (asked_at);

-- How many certificates were reserved in each hour, by token and by body; `told_at` when the log heard of the end.
CREATE TABLE quota_use (
    scope    text NOT NULL CHECK (scope <> ''),
    hour     timestamptz NOT NULL CHECK (hour = date_trunc('hour', hour, 'UTC')),
    used     integer NOT NULL CHECK (used >= 0),
    told_at  timestamptz,
    PRIMARY KEY (scope, hour)
);

-- A renewal may keep its key: then one enrolment has it in several reservations, and still nobody else has.
CREATE TABLE key_holder (
    spki_sha256   bytea PRIMARY KEY CHECK (octet_length(spki_sha256) = 32),
    enrolment_id  uuid NOT NULL REFERENCES enrolment,
    since         timestamptz NOT NULL
);
INSERT INTO key_holder SELECT spki_sha256, enrolment_id, reserved_at FROM reservation WHERE enrolment_id IS NOT NULL;
DROP INDEX reservation_key;
CREATE INDEX reservation_key ON reservation (spki_sha256, reserved_at) WHERE enrolment_id IS NOT NULL;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON key_holder FOR EACH ROW EXECUTE FUNCTION sceau_refuse();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON key_holder FOR EACH STATEMENT EXECUTE FUNCTION sceau_refuse();
"""

# Going down where a key was renewed stops here: two reservations of one key are what the old index forbids.
DOWN = """
DROP INDEX reservation_key;
CREATE UNIQUE INDEX reservation_key ON reservation (spki_sha256) WHERE enrolment_id IS NOT NULL;
DROP TABLE key_holder;
DROP TABLE quota_use;
DROP TABLE idempotent_request;
DROP TABLE weak_key;
DROP TABLE blocked_key;
"""


def execute(sql: str) -> None:
    # The driver's own cursor: several statements at once.
    op.get_bind().connection.driver_connection.execute(sql)


def upgrade() -> None:
    execute(UP)


def downgrade() -> None:
    execute(DOWN)

"""The record: registers, people, places, mailboxes, trust, history, change feed, audit.

Plain SQL, so that what the database holds can be read here without running anything.
"""

from alembic import op

revision = "0001"
down_revision = None

DIRECTORY = r"""
CREATE TABLE register_run (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    register      text NOT NULL CHECK (register IN ('rpps', 'finess', 'mailboxes', 'trusted-domains')),
    file_name     text NOT NULL,
    file_sha256   bytea NOT NULL CHECK (octet_length(file_sha256) = 32),
    layout        text,
    generated_at  timestamptz NOT NULL,
    started_at    timestamptz NOT NULL,
    finished_at   timestamptz,
    state         text NOT NULL CHECK (state IN ('planned', 'applied', 'refused')),
    reason        text,
    counts        jsonb NOT NULL DEFAULT '{}',
    CHECK ((state = 'refused') = (reason IS NOT NULL))
);
CREATE INDEX register_run_latest ON register_run (register, state, finished_at DESC);

CREATE TABLE register_rejection (
    run_id       bigint NOT NULL REFERENCES register_run ON DELETE CASCADE,
    line_number  integer NOT NULL CHECK (line_number > 0),
    reason       text NOT NULL,
    detail       text NOT NULL,
    excerpt      text NOT NULL,
    PRIMARY KEY (run_id, line_number, reason)
);

CREATE TABLE practitioner (
    national_id   text PRIMARY KEY CHECK (national_id ~ '^[0-9]{1,2}[0-9A-Z/]{6,24}$'),
    id_type       text NOT NULL,
    id_number     text NOT NULL,
    civility      text NOT NULL DEFAULT '',
    title         text NOT NULL DEFAULT '',
    family_name   text NOT NULL CHECK (family_name <> ''),
    given_name    text NOT NULL,
    search_name   text NOT NULL,
    row_hash      bytea NOT NULL,
    departed_at   timestamptz,
    sys_from      timestamptz NOT NULL
);
CREATE INDEX practitioner_search ON practitioner USING gin (to_tsvector('simple', search_name));
CREATE INDEX practitioner_name ON practitioner (search_name text_pattern_ops, national_id);

CREATE TABLE profession (
    national_id  text NOT NULL REFERENCES practitioner ON DELETE CASCADE,
    code         text NOT NULL,
    category     text NOT NULL,
    sys_from     timestamptz NOT NULL,
    PRIMARY KEY (national_id, code, category)
);
CREATE INDEX profession_code ON profession (code, national_id);

CREATE TABLE skill (
    national_id      text NOT NULL REFERENCES practitioner ON DELETE CASCADE,
    profession_code  text NOT NULL,
    category         text NOT NULL,
    skill_type       text NOT NULL,
    skill_code       text NOT NULL,
    sys_from         timestamptz NOT NULL,
    PRIMARY KEY (national_id, profession_code, category, skill_type, skill_code)
);

CREATE TABLE practice (
    national_id      text NOT NULL REFERENCES practitioner ON DELETE CASCADE,
    digest           bytea NOT NULL CHECK (octet_length(digest) = 16),
    profession_code  text NOT NULL,
    category         text NOT NULL,
    mode             text NOT NULL DEFAULT '',
    sector           text NOT NULL DEFAULT '',
    role             text NOT NULL DEFAULT '',
    activity_genre   text NOT NULL DEFAULT '',
    pharmacist_table text NOT NULL DEFAULT '',
    structure_id     text NOT NULL DEFAULT '',
    finess           text NOT NULL DEFAULT '',
    legal_finess     text NOT NULL DEFAULT '',
    siret            text NOT NULL DEFAULT '',
    structure_name   text NOT NULL DEFAULT '',
    street           text NOT NULL DEFAULT '',
    postal_code      text NOT NULL DEFAULT '',
    town             text NOT NULL DEFAULT '',
    commune          text NOT NULL DEFAULT '',
    department       text NOT NULL DEFAULT '',
    country          text NOT NULL DEFAULT '',
    telephone        text NOT NULL DEFAULT '',
    registered_by    text NOT NULL DEFAULT '',
    sys_from         timestamptz NOT NULL,
    PRIMARY KEY (national_id, digest)
);
CREATE INDEX practice_department ON practice (department, national_id);
CREATE INDEX practice_finess ON practice (finess) WHERE finess <> '';

CREATE TABLE organisation (
    finess         text PRIMARY KEY CHECK (finess ~ '^[0-9A-Z]{9}$'),
    legal_finess   text NOT NULL DEFAULT '',
    siret          text NOT NULL DEFAULT '',
    name           text NOT NULL CHECK (name <> ''),
    long_name      text NOT NULL DEFAULT '',
    category_code  text NOT NULL DEFAULT '',
    category_label text NOT NULL DEFAULT '',
    street         text NOT NULL DEFAULT '',
    postal_line    text NOT NULL DEFAULT '',
    commune        text NOT NULL DEFAULT '',
    department     text NOT NULL DEFAULT '',
    telephone      text NOT NULL DEFAULT '',
    opened_on      date,
    closed_on      date,
    row_hash       bytea NOT NULL,
    departed_at    timestamptz,
    sys_from       timestamptz NOT NULL
);

CREATE TABLE operator (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    certificate_dn  text NOT NULL UNIQUE,
    name            text NOT NULL,
    suspended_at    timestamptz,
    sys_from        timestamptz NOT NULL
);

CREATE TABLE trusted_domain (
    name          text NOT NULL CHECK (name = lower(name) AND name <> ''),
    operator_id   bigint NOT NULL REFERENCES operator,
    description   text NOT NULL DEFAULT '',
    updated_at    timestamptz,
    suspended_at  timestamptz,
    departed_at   timestamptz,
    row_hash      bytea NOT NULL,
    sys_from      timestamptz NOT NULL,
    PRIMARY KEY (name, operator_id)
);

CREATE TABLE mailbox (
    address         text PRIMARY KEY CHECK (address = lower(address) AND address ~ '^[^@[:space:]]+@[^@[:space:]]+$'),
    domain          text NOT NULL GENERATED ALWAYS AS (split_part(address, '@', 2)) STORED,
    kind            text NOT NULL CHECK (kind IN ('PER', 'ORG', 'APP', 'CAB')),
    holder          text,
    structure_type  text NOT NULL DEFAULT '',
    structure_id    text NOT NULL DEFAULT '',
    finess          text NOT NULL GENERATED ALWAYS AS (CASE WHEN structure_type = '1' THEN structure_id ELSE '' END) STORED,
    structure_name  text NOT NULL DEFAULT '',
    service         text NOT NULL DEFAULT '',
    paperless       boolean,
    listed          boolean NOT NULL DEFAULT true,
    row_hash        bytea NOT NULL,
    departed_at     timestamptz,
    sys_from        timestamptz NOT NULL,
    CHECK (kind <> 'PER' OR holder IS NOT NULL),
    CHECK (kind NOT IN ('ORG', 'APP') OR structure_id <> '')
);
CREATE INDEX mailbox_holder ON mailbox (holder) WHERE holder IS NOT NULL;
CREATE INDEX mailbox_domain ON mailbox (domain);
CREATE INDEX mailbox_finess ON mailbox (finess) WHERE finess <> '';

CREATE TABLE mailbox_attachment (
    address         text NOT NULL REFERENCES mailbox ON DELETE CASCADE,
    structure_type  text NOT NULL,
    structure_id    text NOT NULL,
    service         text NOT NULL DEFAULT '',
    sys_from        timestamptz NOT NULL,
    PRIMARY KEY (address, structure_type, structure_id, service)
);

CREATE TABLE measure (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    national_id  text NOT NULL REFERENCES practitioner,
    kind         text NOT NULL CHECK (kind IN ('suspended', 'struck-off')),
    authority    text NOT NULL,
    reason       text NOT NULL,
    starts_at    timestamptz NOT NULL,
    ends_at      timestamptz CHECK (ends_at > starts_at),
    recorded_by  text NOT NULL,
    recorded_at  timestamptz NOT NULL,
    sys_from     timestamptz NOT NULL
);
CREATE INDEX measure_of ON measure (national_id);

CREATE TABLE api_token (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name         text NOT NULL,
    secret_hash  bytea NOT NULL UNIQUE CHECK (octet_length(secret_hash) = 32),
    role         text NOT NULL CHECK (role IN ('registrar', 'operator', 'auditor', 'admin')),
    authority    text NOT NULL DEFAULT '',
    created_at   timestamptz NOT NULL,
    expires_at   timestamptz NOT NULL CHECK (expires_at > created_at),
    revoked_at   timestamptz,
    CHECK ((role = 'registrar') = (authority <> ''))
);
CREATE UNIQUE INDEX api_token_live_name ON api_token (name) WHERE revoked_at IS NULL;
"""

PKI = r"""
CREATE TABLE authority (
    id          text PRIMARY KEY CHECK (id ~ '^[a-z][a-z0-9-]{1,30}$'),
    kind        text NOT NULL CHECK (kind IN ('root', 'issuing')),
    issuer_id   text REFERENCES authority,
    subject     text NOT NULL,
    key_name    text NOT NULL,
    shards      smallint NOT NULL CHECK (shards BETWEEN 1 AND 1024),
    der         bytea NOT NULL,
    sha256      bytea NOT NULL UNIQUE,
    not_before  timestamptz NOT NULL,
    not_after   timestamptz NOT NULL CHECK (not_after > not_before),
    created_at  timestamptz NOT NULL,
    CHECK ((kind = 'root') = (issuer_id IS NULL))
);

CREATE TABLE enrolment (
    id              uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    practitioner    text NOT NULL REFERENCES practitioner,
    mailbox         text NOT NULL REFERENCES mailbox,
    authority       text NOT NULL CHECK (authority <> ''),
    identity_check  jsonb NOT NULL,
    state           text NOT NULL CHECK (state IN ('requested', 'approved', 'ended')),
    requested_by    bigint NOT NULL REFERENCES api_token,
    requested_at    timestamptz NOT NULL,
    approved_by     bigint REFERENCES api_token,
    approved_at     timestamptz,
    ended_at        timestamptz,
    sys_from        timestamptz NOT NULL,
    CHECK (approved_by <> requested_by),
    CHECK ((approved_by IS NULL) = (approved_at IS NULL)),
    CHECK (state <> 'approved' OR approved_by IS NOT NULL),
    CHECK ((state = 'ended') = (ended_at IS NOT NULL))
);
CREATE UNIQUE INDEX enrolment_live ON enrolment (mailbox, practitioner) WHERE state <> 'ended';
CREATE INDEX enrolment_practitioner ON enrolment (practitioner);

CREATE TABLE reservation (
    serial        text PRIMARY KEY CHECK (serial ~ '^[0-7][0-9a-f]{39}$'),
    authority_id  text NOT NULL,
    profile       text NOT NULL,
    shard         smallint NOT NULL CHECK (shard >= 0),
    mailbox       text,
    practitioner  text,
    enrolment_id  uuid REFERENCES enrolment,
    spki_sha256   bytea NOT NULL CHECK (octet_length(spki_sha256) = 32),
    tbs           bytea NOT NULL,
    tbs_sha256    bytea NOT NULL CHECK (octet_length(tbs_sha256) = 32),
    lints         jsonb NOT NULL,
    requested_by  text NOT NULL,
    reserved_at   timestamptz NOT NULL
);
-- A key serves one holder, once (shared keys and silent renewals are how keys of others get certified).
CREATE UNIQUE INDEX reservation_key ON reservation (spki_sha256) WHERE enrolment_id IS NOT NULL;

CREATE TABLE certificate (
    serial        text PRIMARY KEY REFERENCES reservation,
    authority_id  text NOT NULL,
    profile       text NOT NULL,
    shard         smallint NOT NULL,
    mailbox       text,
    practitioner  text,
    subject       text NOT NULL,
    spki_sha256   bytea NOT NULL,
    der           bytea NOT NULL,
    sha256        bytea NOT NULL UNIQUE,
    not_before    timestamptz NOT NULL,
    not_after     timestamptz NOT NULL CHECK (not_after > not_before),
    issued_at     timestamptz NOT NULL
);
CREATE INDEX certificate_mailbox ON certificate (mailbox) WHERE mailbox IS NOT NULL;
CREATE INDEX certificate_practitioner ON certificate (practitioner) WHERE practitioner IS NOT NULL;

CREATE TABLE revocation (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    serial        text NOT NULL REFERENCES reservation,
    authority_id  text NOT NULL,
    shard         smallint NOT NULL,
    action        text NOT NULL CHECK (action IN ('revoke', 'hold', 'release')),
    reason        text NOT NULL CHECK (reason <> ''),
    comment       text NOT NULL DEFAULT '',
    actor         text NOT NULL,
    revoked_at    timestamptz NOT NULL,
    not_after     timestamptz NOT NULL,
    entry         bytea,
    CHECK ((action = 'release') = (entry IS NULL))
);
CREATE UNIQUE INDEX revocation_final ON revocation (serial) WHERE action = 'revoke';
CREATE INDEX revocation_shard ON revocation (authority_id, shard, id);
CREATE INDEX revocation_serial ON revocation (serial, id);

CREATE TABLE crl_shard (
    authority_id  text NOT NULL REFERENCES authority,
    shard         smallint NOT NULL,
    last_number   bigint NOT NULL DEFAULT 0 CHECK (last_number >= 0),
    PRIMARY KEY (authority_id, shard)
);

CREATE TABLE crl (
    authority_id  text NOT NULL,
    shard         smallint NOT NULL,
    number        bigint NOT NULL CHECK (number > 0),
    this_update   timestamptz NOT NULL,
    next_update   timestamptz NOT NULL CHECK (next_update > this_update),
    entries       integer NOT NULL CHECK (entries >= 0),
    watermark     bigint NOT NULL,
    tbs           bytea NOT NULL,
    tbs_sha256    bytea NOT NULL,
    der           bytea,
    sha256        bytea,
    PRIMARY KEY (authority_id, shard, number),
    FOREIGN KEY (authority_id, shard) REFERENCES crl_shard,
    CHECK ((der IS NULL) = (sha256 IS NULL))
);

CREATE TABLE ocsp_responder (
    serial        text PRIMARY KEY REFERENCES certificate,
    authority_id  text NOT NULL REFERENCES authority,
    der           bytea NOT NULL,
    not_before    timestamptz NOT NULL,
    not_after     timestamptz NOT NULL
);

-- A row is the promise of an answer, made with the certificate; empty until signed and again after a revocation,
-- so that what is still to sign is found by index however many certificates there are.
CREATE TABLE ocsp_answer (
    serial       text NOT NULL,
    hash         text NOT NULL CHECK (hash IN ('sha1', 'sha256')),
    responder    text REFERENCES ocsp_responder,
    der          bytea,
    this_update  timestamptz,
    next_update  timestamptz CHECK (next_update > this_update),
    PRIMARY KEY (serial, hash),
    CHECK (num_nulls(responder, der, this_update, next_update) IN (0, 4))
);
CREATE INDEX ocsp_answer_due ON ocsp_answer (next_update);
"""

OPERATIONS = r"""
CREATE TABLE change (
    id      bigint GENERATED ALWAYS AS IDENTITY,
    xid     xid8 NOT NULL DEFAULT pg_current_xact_id(),
    at      timestamptz NOT NULL DEFAULT transaction_timestamp(),
    entity  text NOT NULL CHECK (entity IN ('mailbox', 'organisation', 'practitioner', 'authority', 'crl')),
    key     text NOT NULL,
    urgent  boolean NOT NULL DEFAULT false,
    PRIMARY KEY (xid, id)
);
-- What takes something away overtakes a long queue.
CREATE INDEX change_urgent ON change (xid, id) WHERE urgent;

CREATE TABLE feed_cursor (
    consumer    text PRIMARY KEY,
    xid         xid8 NOT NULL,
    id          bigint NOT NULL,
    updated_at  timestamptz NOT NULL
);

CREATE TABLE job_run (
    name           text PRIMARY KEY,
    last_started   timestamptz NOT NULL,
    last_success   timestamptz,
    last_failure   timestamptz,
    last_error     text,
    last_duration  double precision
);

CREATE TABLE audit_pending (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    xid      xid8 NOT NULL DEFAULT pg_current_xact_id(),
    at       timestamptz NOT NULL,
    actor    text NOT NULL,
    event    text NOT NULL,
    subject  text NOT NULL,
    detail   jsonb NOT NULL
);

CREATE TABLE audit_entry (
    index      bigint PRIMARY KEY CHECK (index >= 0),
    at         timestamptz NOT NULL,
    actor      text NOT NULL,
    event      text NOT NULL,
    subject    text NOT NULL,
    detail     jsonb NOT NULL,
    leaf_hash  bytea NOT NULL CHECK (octet_length(leaf_hash) = 32)
);
CREATE INDEX audit_entry_subject ON audit_entry (subject);

CREATE TABLE audit_checkpoint (
    size       bigint PRIMARY KEY CHECK (size > 0),
    root       bytea NOT NULL CHECK (octet_length(root) = 32),
    frontier   bytea[] NOT NULL,
    note       text NOT NULL,
    signed_at  timestamptz NOT NULL
);
"""

# History by trigger: the current table carries since when a row is true; the history table, until when it was.
# One instant per transaction, so that a reader of the past never sees half of a night.
HISTORY = r"""
CREATE FUNCTION sceau_stamp() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        NEW.sys_from := transaction_timestamp();
    ELSE
        -- Two transactions may commit in the other order than they began: time still only moves forward.
        NEW.sys_from := greatest(transaction_timestamp(), OLD.sys_from + interval '1 microsecond');
    END IF;
    RETURN NEW;
END $$;

CREATE FUNCTION sceau_archive() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    closed timestamptz;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        closed := NEW.sys_from;
    ELSE
        closed := greatest(transaction_timestamp(), OLD.sys_from + interval '1 microsecond');
    END IF;
    EXECUTE format('INSERT INTO %I SELECT ($1).*, $2', TG_TABLE_NAME || '_history') USING OLD, closed;
    RETURN NULL;
END $$;

CREATE FUNCTION sceau_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'rows of % are never changed or removed', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;
"""

WITH_HISTORY = (
    "practitioner", "profession", "skill", "practice", "organisation", "operator", "trusted_domain",
    "mailbox", "mailbox_attachment", "measure", "enrolment",
)  # fmt: skip
APPEND_ONLY = ("certificate", "reservation", "revocation", "audit_entry", "audit_checkpoint", "change")
# Removing rows from the feed's far end is housekeeping (90 days); changing them never is.
TRUNCATED_BY_AGE = ("change",)

HISTORY_OF = r"""
-- Columns only: what a row was when it ended needs no default, no generation and no uniqueness of its own.
CREATE TABLE {table}_history (LIKE {table}, sys_to timestamptz NOT NULL CHECK (sys_to > sys_from));
CREATE INDEX {table}_history_key ON {table}_history ({key}, sys_to);
CREATE TRIGGER stamp BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION sceau_stamp();
CREATE TRIGGER archive AFTER UPDATE OR DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION sceau_archive();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON {table}_history FOR EACH ROW EXECUTE FUNCTION sceau_refuse();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON {table}_history FOR EACH STATEMENT EXECUTE FUNCTION sceau_refuse();
-- The table as it stood at an instant; STABLE SQL, so the planner inlines it and its indexes serve.
CREATE FUNCTION {table}_at(instant timestamptz) RETURNS SETOF {table}_history LANGUAGE sql STABLE AS $$
    SELECT t.*, 'infinity'::timestamptz FROM {table} t WHERE t.sys_from <= instant
    UNION ALL
    SELECT h.* FROM {table}_history h WHERE h.sys_from <= instant AND h.sys_to > instant
$$;
"""

HISTORY_KEYS = {
    "practitioner": "national_id", "profession": "national_id", "skill": "national_id",
    "practice": "national_id", "organisation": "finess", "operator": "id", "trusted_domain": "name",
    "mailbox": "address", "mailbox_attachment": "address", "measure": "national_id", "enrolment": "mailbox",
}  # fmt: skip

# The change feed is written by statement triggers, so that no path into the record, bulk or single, can forget it.
# `urgent` marks what takes something away (revocation, departure, unlisting): it overtakes ordinary updates.
FEED = r"""
CREATE FUNCTION sceau_notify() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('sceau_change', '');
    RETURN NULL;
END $$;
CREATE TRIGGER notify AFTER INSERT ON change FOR EACH STATEMENT EXECUTE FUNCTION sceau_notify();

CREATE FUNCTION sceau_feed_mailbox() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO change (entity, key, urgent)
    SELECT 'mailbox', address, TG_OP = 'DELETE' OR departed_at IS NOT NULL OR NOT listed FROM rows;
    RETURN NULL;
END $$;

CREATE FUNCTION sceau_feed_practitioner() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO change (entity, key, urgent) SELECT 'practitioner', national_id, departed_at IS NOT NULL FROM rows;
    INSERT INTO change (entity, key, urgent)
    SELECT 'mailbox', m.address, r.departed_at IS NOT NULL FROM rows r JOIN mailbox m ON m.holder = r.national_id;
    RETURN NULL;
END $$;

-- Professions, skills, practices and measures show on the holder's mailboxes.
CREATE FUNCTION sceau_feed_holder() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    is_urgent boolean := TG_OP = 'DELETE' OR TG_TABLE_NAME = 'measure';
BEGIN
    INSERT INTO change (entity, key, urgent)
    SELECT 'practitioner', national_id, is_urgent FROM (SELECT DISTINCT national_id FROM rows) AS touched;
    INSERT INTO change (entity, key, urgent)
    SELECT DISTINCT 'mailbox', m.address, is_urgent FROM rows r JOIN mailbox m ON m.holder = r.national_id;
    RETURN NULL;
END $$;

CREATE FUNCTION sceau_feed_organisation() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO change (entity, key, urgent) SELECT 'organisation', finess, departed_at IS NOT NULL FROM rows;
    INSERT INTO change (entity, key, urgent)
    SELECT 'mailbox', m.address, r.departed_at IS NOT NULL
    FROM rows r JOIN mailbox m ON m.finess = r.finess WHERE m.finess <> '';
    RETURN NULL;
END $$;

CREATE FUNCTION sceau_feed_domain() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO change (entity, key, urgent)
    SELECT 'mailbox', m.address, bool_or(TG_OP = 'DELETE' OR r.departed_at IS NOT NULL OR r.suspended_at IS NOT NULL)
    FROM rows r JOIN mailbox m ON m.domain = r.name GROUP BY m.address;
    RETURN NULL;
END $$;

CREATE FUNCTION sceau_feed_operator() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO change (entity, key, urgent)
    SELECT DISTINCT 'mailbox', m.address, true
    FROM rows r JOIN trusted_domain d ON d.operator_id = r.id JOIN mailbox m ON m.domain = d.name;
    RETURN NULL;
END $$;

CREATE FUNCTION sceau_feed_certificate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO change (entity, key) SELECT 'mailbox', mailbox FROM rows WHERE mailbox IS NOT NULL;
    INSERT INTO ocsp_answer (serial, hash)
    SELECT r.serial, h FROM rows r JOIN authority a ON a.id = r.authority_id, unnest(ARRAY['sha1', 'sha256']) AS h
    WHERE a.kind = 'issuing';
    RETURN NULL;
END $$;

-- A revocation empties the pre-signed answers in its own transaction (waiting for whoever is signing them), and
-- wakes whoever keeps answers in memory.
CREATE FUNCTION sceau_feed_revocation() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE ocsp_answer a SET responder = NULL, der = NULL, this_update = NULL, next_update = NULL
    FROM rows r WHERE a.serial = r.serial;
    INSERT INTO change (entity, key, urgent)
    SELECT 'mailbox', c.mailbox, true FROM rows r JOIN certificate c USING (serial) WHERE c.mailbox IS NOT NULL;
    PERFORM pg_notify('sceau_revocation', serial) FROM rows;
    RETURN NULL;
END $$;

CREATE FUNCTION sceau_feed_authority() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO change (entity, key) SELECT 'authority', id FROM rows;
    RETURN NULL;
END $$;

CREATE FUNCTION sceau_feed_crl() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO change (entity, key)
    SELECT 'crl', authority_id || '/' || shard FROM rows WHERE der IS NOT NULL;
    RETURN NULL;
END $$;
"""

FED_BY = {
    "mailbox": ("sceau_feed_mailbox", ("INSERT", "UPDATE", "DELETE")),
    "practitioner": ("sceau_feed_practitioner", ("INSERT", "UPDATE")),
    "profession": ("sceau_feed_holder", ("INSERT", "DELETE")),
    "skill": ("sceau_feed_holder", ("INSERT", "DELETE")),
    "practice": ("sceau_feed_holder", ("INSERT", "DELETE")),
    "measure": ("sceau_feed_holder", ("INSERT", "UPDATE")),
    "organisation": ("sceau_feed_organisation", ("INSERT", "UPDATE")),
    "trusted_domain": ("sceau_feed_domain", ("INSERT", "UPDATE", "DELETE")),
    "operator": ("sceau_feed_operator", ("UPDATE",)),
    "certificate": ("sceau_feed_certificate", ("INSERT",)),
    "revocation": ("sceau_feed_revocation", ("INSERT",)),
    "authority": ("sceau_feed_authority", ("INSERT",)),
    "crl": ("sceau_feed_crl", ("UPDATE",)),
}

GUARDS = r"""
-- A signed CRL is never unsigned, renumbered or rewritten.
CREATE FUNCTION sceau_crl_signed_once() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.der IS NOT NULL OR NEW.tbs <> OLD.tbs OR NEW.number <> OLD.number THEN
        RAISE EXCEPTION 'a CRL is signed once' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER signed_once BEFORE UPDATE ON crl FOR EACH ROW EXECUTE FUNCTION sceau_crl_signed_once();

CREATE FUNCTION sceau_number_rises() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.last_number <= OLD.last_number THEN
        RAISE EXCEPTION 'CRL numbers only rise' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER number_rises BEFORE UPDATE ON crl_shard FOR EACH ROW EXECUTE FUNCTION sceau_number_rises();
-- A row taken away and put back at zero would number the same CRL twice.
CREATE TRIGGER never_removed BEFORE DELETE ON crl_shard FOR EACH ROW EXECUTE FUNCTION sceau_refuse();
CREATE TRIGGER never_removed BEFORE DELETE ON crl FOR EACH ROW EXECUTE FUNCTION sceau_refuse();

-- Revoked is final (EN 319 411-1 REV-6.3.9-04): nothing may follow a revocation of the same serial.
CREATE FUNCTION sceau_revoked_is_final() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- Two events of one serial queue here, so that the second sees the first whatever it did.
    PERFORM 1 FROM reservation WHERE serial = NEW.serial FOR UPDATE;
    PERFORM 1 FROM revocation WHERE serial = NEW.serial AND action = 'revoke';
    IF FOUND THEN
        RAISE EXCEPTION 'certificate % is revoked for good', NEW.serial USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER final BEFORE INSERT ON revocation FOR EACH ROW EXECUTE FUNCTION sceau_revoked_is_final();

-- The present state of each certificate that ever was revoked or held: its last event.
CREATE VIEW revocation_state AS
    SELECT DISTINCT ON (serial) * FROM revocation ORDER BY serial, id DESC;
"""


def statements() -> list[str]:
    made = [DIRECTORY, PKI, OPERATIONS, HISTORY]
    made += [HISTORY_OF.format(table=table, key=HISTORY_KEYS[table]) for table in WITH_HISTORY]
    for table in APPEND_ONLY:
        acts = "UPDATE" if table in TRUNCATED_BY_AGE else "UPDATE OR DELETE"
        made.append(
            f"CREATE TRIGGER append_only BEFORE {acts} ON {table} FOR EACH ROW EXECUTE FUNCTION sceau_refuse();"
            f"CREATE TRIGGER no_truncate BEFORE TRUNCATE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION sceau_refuse();"
        )
    made.append(FEED)
    for table, (function, acts) in FED_BY.items():
        made += [
            f"CREATE TRIGGER feed_{act.lower()} AFTER {act} ON {table}"
            f" REFERENCING {'OLD' if act == 'DELETE' else 'NEW'} TABLE AS rows"
            f" FOR EACH STATEMENT EXECUTE FUNCTION {function}();"
            for act in acts
        ]
    made.append(GUARDS)
    return made


def execute(sql: str) -> None:
    # The driver's own cursor: several statements at once, and '%' means itself.
    op.get_bind().connection.driver_connection.execute(sql)


def upgrade() -> None:
    for statement in statements():
        execute(statement)


def downgrade() -> None:
    execute("DROP VIEW revocation_state")
    for table in WITH_HISTORY:
        execute(f"DROP FUNCTION {table}_at(timestamptz)")
        execute(f"DROP TABLE {table}_history CASCADE")
    tables = (
        "ocsp_answer", "ocsp_responder", "crl", "crl_shard", "revocation", "certificate", "reservation",
        "enrolment", "authority", "api_token", "measure", "mailbox_attachment", "mailbox", "trusted_domain",
        "operator", "organisation", "practice", "skill", "profession", "practitioner", "register_rejection",
        "register_run", "change", "feed_cursor", "job_run", "audit_pending", "audit_entry", "audit_checkpoint",
    )  # fmt: skip
    for table in tables:
        execute(f"DROP TABLE {table} CASCADE")
    functions = (
        "stamp", "archive", "refuse", "notify", "feed_mailbox", "feed_practitioner", "feed_holder",
        "feed_organisation", "feed_domain", "feed_operator", "feed_certificate", "feed_revocation",
        "feed_authority", "feed_crl", "crl_signed_once", "number_rises", "revoked_is_final",
    )  # fmt: skip
    for function in functions:
        execute(f"DROP FUNCTION sceau_{function}()")

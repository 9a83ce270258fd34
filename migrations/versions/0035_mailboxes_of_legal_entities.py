"""Mailboxes under the number of a legal entity or a SIRET follow the places that FINESS knows by it.

The feed tells of them when such a place opens, closes, leaves, or comes under another number. It does once
now, since they were told closed before. The indexes serve the verdict, now and as of an instant.
"""

from alembic import op

revision = "0035"
down_revision = "0034"

INDEXES = """
CREATE INDEX mailbox_siret ON mailbox (structure_id) WHERE structure_type = '3';
CREATE INDEX organisation_history_legal_finess ON organisation_history (legal_finess, sys_to)
    WHERE legal_finess <> '';
CREATE INDEX organisation_history_siret ON organisation_history (siret, sys_to) WHERE siret <> '';
"""
FEED = r"""
-- The mailboxes registered under the number of any of these places, of its legal entity, or its SIRET.
CREATE FUNCTION sceau_mailboxes_of_places(places text[], entities text[], sirets text[])
RETURNS SETOF text LANGUAGE sql STABLE AS $$
    SELECT address FROM mailbox WHERE finess = ANY (places || entities) AND finess <> ''
    UNION
    SELECT address FROM mailbox WHERE structure_type = '3' AND structure_id = ANY (sirets)
$$;

-- A place that comes under another legal entity or SIRET may have been the last one of its number.
CREATE FUNCTION sceau_feed_renumbered_place() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO change (entity, key, urgent)
    SELECT 'mailbox', m.address, true
    FROM (
        SELECT b.legal_finess FROM before b JOIN rows r USING (finess)
        WHERE b.legal_finess <> r.legal_finess GROUP BY b.legal_finess) AS left_behind
    JOIN mailbox m ON m.finess = left_behind.legal_finess WHERE m.finess <> '';
    INSERT INTO change (entity, key, urgent)
    SELECT 'mailbox', m.address, true
    FROM (
        SELECT b.siret FROM before b JOIN rows r USING (finess)
        WHERE b.siret <> r.siret GROUP BY b.siret) AS left_behind
    JOIN mailbox m ON m.structure_id = left_behind.siret WHERE m.structure_type = '3';
    RETURN NULL;
END $$;
CREATE TRIGGER feed_update_renumbered AFTER UPDATE ON organisation
    REFERENCING OLD TABLE AS before NEW TABLE AS rows
    FOR EACH STATEMENT EXECUTE FUNCTION sceau_feed_renumbered_place();
"""
# After the trigger on `organisation`, which waited for those who write: no place of theirs is missed.
JUDGED_OTHERWISE = """
INSERT INTO change (entity, key, urgent)
SELECT 'mailbox', m.address, {urgent} FROM mailbox m
WHERE m.kind IN ('ORG', 'APP') AND m.departed_at IS NULL AND (
    m.finess <> '' AND NOT EXISTS (SELECT FROM organisation o WHERE o.finess = m.finess)
    AND EXISTS (SELECT FROM organisation o WHERE o.legal_finess = m.finess AND o.legal_finess <> '')
    OR m.structure_type = '3'
    AND EXISTS (SELECT FROM organisation o WHERE o.siret = m.structure_id AND o.siret <> ''))
"""
OF_A_PLACE = r"""
CREATE OR REPLACE FUNCTION sceau_feed_organisation() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO change (entity, key, urgent) SELECT 'organisation', finess, departed_at IS NOT NULL FROM rows;
{mailboxes}    RETURN NULL;
END $$;
"""
OF_TIME = r"""
CREATE OR REPLACE FUNCTION sceau_feed_time(until timestamptz) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    since timestamptz;
    told bigint;
BEGIN
    SELECT reached INTO STRICT since FROM feed_clock FOR UPDATE;
    IF until <= since THEN
        RETURN 0;
    END IF;
    WITH person AS (
        SELECT national_id, bool_or(begun) AS urgent FROM (
            SELECT national_id, true AS begun FROM measure WHERE starts_at > since AND starts_at <= until
            UNION ALL
            SELECT national_id, false FROM measure WHERE ends_at > since AND ends_at <= until) AS due
        GROUP BY national_id
    ), place AS (
        -- A French calendar day, as in FINESS; closed from its first minute.
        SELECT finess, legal_finess, siret FROM organisation
        WHERE closed_on > (since AT TIME ZONE 'Europe/Paris')::date
        AND closed_on <= (until AT TIME ZONE 'Europe/Paris')::date
    )
    INSERT INTO change (entity, key, urgent)
    SELECT 'practitioner', national_id, urgent FROM person
    UNION ALL
    SELECT 'mailbox', m.address, p.urgent FROM person p JOIN mailbox m ON m.holder = p.national_id
    UNION ALL
    SELECT 'organisation', finess, true FROM place
    UNION ALL
{mailboxes}    UNION ALL
    SELECT DISTINCT 'mailbox', mailbox, true FROM certificate
    WHERE mailbox IS NOT NULL AND not_after > since AND not_after <= until;
    GET DIAGNOSTICS told = ROW_COUNT;
    UPDATE feed_clock SET reached = until;
    RETURN told;
END $$;
"""
NAMED = r"""
-- The number of the establishment that a certificate's subject names: FINESS, or a SIRET under the register of
-- companies. A comma inside a name is escaped (RFC 4514 2.4): no establishment can be called another's number.
CREATE OR REPLACE FUNCTION sceau_establishment_of(subject text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT substring(subject FROM '(?:^|(?:^|[^\\])(?:\\\\)*,)organizationIdentifier='
        '{number}')
$$;
"""
NOW = (
    (OF_A_PLACE, "mailboxes", """
    INSERT INTO change (entity, key, urgent)
    SELECT 'mailbox', address, bool_or(gone) FROM (
        SELECT m.address, r.departed_at IS NOT NULL AS gone
        FROM rows r JOIN mailbox m ON m.finess = r.finess WHERE m.finess <> ''
        UNION ALL
        SELECT m.address, r.departed_at IS NOT NULL
        FROM rows r JOIN mailbox m ON m.finess = r.legal_finess WHERE m.finess <> ''
        UNION ALL
        SELECT m.address, r.departed_at IS NOT NULL
        FROM rows r JOIN mailbox m ON m.structure_id = r.siret WHERE m.structure_type = '3') AS touched
    GROUP BY address;
"""),
    (OF_TIME, "mailboxes", """
    SELECT 'mailbox', address, true FROM sceau_mailboxes_of_places(
        ARRAY(SELECT finess FROM place), ARRAY(SELECT legal_finess FROM place),
        ARRAY(SELECT siret FROM place)) AS address
"""),
    (NAMED, "number", "(?:FI:FR-(?=[0-9A-Z]{9}(?:,|$))|NTRFR-(?=[0-9]{14}(?:,|$)))([0-9A-Z]+)"),
)  # fmt: skip
BEFORE = (
    (OF_A_PLACE, "mailboxes", """
    INSERT INTO change (entity, key, urgent)
    SELECT 'mailbox', m.address, r.departed_at IS NOT NULL
    FROM rows r JOIN mailbox m ON m.finess = r.finess WHERE m.finess <> '';
"""),
    (OF_TIME, "mailboxes", """
    SELECT 'mailbox', m.address, true FROM place p JOIN mailbox m ON m.finess = p.finess WHERE m.finess <> ''
"""),
    (NAMED, "number", "FI:FR-([0-9A-Z]{9})(?:,|$)"),
)  # fmt: skip


def execute(sql: str) -> None:
    # The driver's own cursor: several statements at once.
    op.get_bind().connection.driver_connection.execute(sql)


def define(functions: tuple[tuple[str, str, str], ...]) -> None:
    for template, part, text in functions:
        execute(template.replace("{" + part + "}", text))


def upgrade() -> None:
    execute(INDEXES)
    execute(FEED)
    define(NOW)
    execute(JUDGED_OTHERWISE.format(urgent="false"))


def downgrade() -> None:
    define(BEFORE)
    execute("DROP TRIGGER feed_update_renumbered ON organisation")
    execute("DROP FUNCTION sceau_feed_renumbered_place()")
    execute("DROP FUNCTION sceau_mailboxes_of_places(text[], text[], text[])")
    execute("DROP INDEX mailbox_siret, organisation_history_legal_finess, organisation_history_siret")
    # The release before tells them closed.
    execute(JUDGED_OTHERWISE.format(urgent="true"))

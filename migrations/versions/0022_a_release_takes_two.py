"""Another's hold is released by two persons, as a measure is lifted; a second hold has a term of its own."""

from alembic import op

revision = "0022"
down_revision = "0021"

UP = r"""
-- Shaped as `measure_lifting`. Bound to the hold that was seen: of a later one it is asked anew.
CREATE TABLE hold_release (
    hold_id       bigint PRIMARY KEY REFERENCES revocation,
    reason        text NOT NULL,
    asked_by      bigint NOT NULL REFERENCES api_token,
    asked_at      timestamptz NOT NULL,
    confirmed_by  bigint REFERENCES api_token,
    confirmed_at  timestamptz,
    CHECK (confirmed_by <> asked_by),
    CHECK ((confirmed_by IS NULL) = (confirmed_at IS NULL))
);

-- A hold put beside another keeps the date of the first, and ends fourteen days after it was put itself.
CREATE OR REPLACE FUNCTION sceau_keep_holds() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM standing_hold h USING rows r WHERE h.serial = r.serial;
    INSERT INTO standing_hold (serial, actor, since)
    SELECT serial, actor, coalesce(recorded_at, revoked_at) FROM rows WHERE action = 'hold';
    RETURN NULL;
END $$;
"""

DOWN = r"""
CREATE OR REPLACE FUNCTION sceau_keep_holds() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM standing_hold h USING rows r WHERE h.serial = r.serial;
    INSERT INTO standing_hold (serial, actor, since)
    SELECT serial, actor, revoked_at FROM rows WHERE action = 'hold';
    RETURN NULL;
END $$;
DROP TABLE hold_release;
"""


def execute(sql: str) -> None:
    # The driver's own cursor: several statements at once.
    op.get_bind().connection.driver_connection.execute(sql)


def upgrade() -> None:
    execute(UP)


def downgrade() -> None:
    execute(DOWN)

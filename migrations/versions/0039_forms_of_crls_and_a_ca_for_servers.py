"""How each CA publishes what it revoked, fixed with it; a CA for servers and clients."""

from alembic import op

revision = "0039"
down_revision = "0038"

UP = r"""
ALTER TABLE authority ADD COLUMN crl_form text, DROP CONSTRAINT authority_role_check;
-- What exists has shards and deltas; a root has one complete CRL. It is no change of what certificates point to.
ALTER TABLE authority DISABLE TRIGGER USER;
UPDATE authority SET crl_form = CASE WHEN issuer_id IS NULL THEN 'plain' ELSE 'national' END;
ALTER TABLE authority ENABLE TRIGGER USER;
ALTER TABLE authority
    ALTER COLUMN crl_form SET NOT NULL,
    ADD CHECK (crl_form IN ('plain', 'national')),
    ADD CHECK (crl_form = 'national' OR shards = 1),
    ADD CHECK (crl_form = 'plain' OR issuer_id IS NOT NULL),
    ADD CONSTRAINT authority_role_check CHECK (role IN ('root', 'persons', 'organisations', 'servers'));

-- The release before says of none in which form it publishes.
CREATE FUNCTION sceau_authority_crl_form() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.crl_form := coalesce(NEW.crl_form, CASE WHEN NEW.issuer_id IS NULL THEN 'plain' ELSE 'national' END);
    RETURN NEW;
END $$;
CREATE TRIGGER crl_form BEFORE INSERT ON authority FOR EACH ROW EXECUTE FUNCTION sceau_authority_crl_form();
"""

# A CA for servers may be there: the release before reads its row, and makes no other. To a plain CA it gives deltas.
DOWN = """
DROP TRIGGER crl_form ON authority;
DROP FUNCTION sceau_authority_crl_form();
ALTER TABLE authority DROP COLUMN crl_form, DROP CONSTRAINT authority_role_check;
ALTER TABLE authority ADD CONSTRAINT authority_role_check CHECK (role IN ('root', 'persons', 'organisations'))
    NOT VALID;
"""


def execute(sql: str) -> None:
    # The driver's own cursor: several statements at once.
    op.get_bind().connection.driver_connection.execute(sql)


def upgrade() -> None:
    execute(UP)


def downgrade() -> None:
    execute(DOWN)

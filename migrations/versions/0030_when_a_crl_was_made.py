"""When a CRL was made, beside its thisUpdate, which lies before: what is due goes by the former."""

from alembic import op

revision = "0030"
down_revision = "0029"

VIEW = """
CREATE OR REPLACE VIEW crl_dated AS
    SELECT c.authority_id, c.shard, c.number,
           CASE WHEN c.number <= d.number THEN least(c.this_update, d.at) ELSE c.this_update END AS this_update,
           c.next_update, c.watermark, c.der, c.sha256, c.base, coalesce(c.number <= d.number, false) AS voided
           {more}
    FROM crl c LEFT JOIN crl_redated d ON d.authority_id = c.authority_id AND d.shard = c.shard;
"""
MADE = """, CASE WHEN c.number <= d.number THEN least(coalesce(c.made_at, c.this_update), d.at)
                  ELSE coalesce(c.made_at, c.this_update) END AS made_at"""


def execute(sql: str) -> None:
    # The driver's own cursor: several statements at once.
    op.get_bind().connection.driver_connection.execute(sql)


def upgrade() -> None:
    execute("ALTER TABLE crl ADD COLUMN made_at timestamptz;" + VIEW.format(more=MADE))


def downgrade() -> None:
    execute("DROP VIEW crl_dated;" + VIEW.format(more="") + "ALTER TABLE crl DROP COLUMN made_at;")

"""The tables of the directory, as SQLAlchemy sees them.

The migrations are the authority on checks, triggers, history and indexes; a test compares both. Every table
named in `migrations/versions/0001_record.py` under WITH_HISTORY also has `<name>_history` and
`<name>_at(instant)`.
"""

from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Column,
    Computed,
    Date,
    Double,
    ForeignKey,
    Identity,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, TSVECTOR
from sqlalchemy.types import UserDefinedType

from directory.base.db import UtcDateTime


class Xid8(UserDefinedType[int]):
    """PostgreSQL's 64-bit transaction number, which never wraps."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """The type's name in SQL."""
        return "xid8"


metadata = MetaData()

register_run = Table(
    "register_run",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("register", Text, nullable=False),
    Column("file_name", Text, nullable=False),
    Column("file_sha256", LargeBinary, nullable=False),
    Column("layout", Text),
    Column("generated_at", UtcDateTime, nullable=False),
    Column("started_at", UtcDateTime, nullable=False),
    Column("finished_at", UtcDateTime),
    Column("state", Text, nullable=False),
    Column("reason", Text),
    Column("counts", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("step", Text),
    Column("attempts", SmallInteger, nullable=False, server_default=text("1")),
    Column("applies", Boolean, nullable=False, server_default=text("true")),
    Column("actor", Text, nullable=False, server_default=text("''::text")),
    Column("measures", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("findings", JSONB, nullable=False, server_default=text("'[]'::jsonb")),
    Column("approvals_needed", SmallInteger, nullable=False, server_default=text("0")),
    Column("kept_file", Text),
    Column("increment", Boolean, nullable=False, server_default=text("false")),
)

register_step = Table(
    "register_step",
    metadata,
    Column("run_id", BigInteger, ForeignKey("register_run.id", ondelete="CASCADE"), primary_key=True),
    Column("step", Text, primary_key=True),
    Column("started_at", UtcDateTime, nullable=False),
    Column("finished_at", UtcDateTime),
    Column("detail", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
)

register_known = Table(
    "register_known",
    metadata,
    Column("register", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("digest", Uuid, nullable=False),
    Column("row_hash", LargeBinary, nullable=False),
)

register_rejection = Table(
    "register_rejection",
    metadata,
    Column("run_id", BigInteger, ForeignKey("register_run.id", ondelete="CASCADE"), primary_key=True),
    Column("line_number", Integer, primary_key=True),
    Column("reason", Text, primary_key=True),
    Column("detail", Text, nullable=False),
    Column("excerpt", Text, nullable=False),
)

register_approval = Table(
    "register_approval",
    metadata,
    Column("run_id", BigInteger, ForeignKey("register_run.id"), primary_key=True),
    Column("token_id", BigInteger, ForeignKey("api_token.id"), primary_key=True),
    Column("comment", Text, nullable=False),
    Column("approved_at", UtcDateTime, nullable=False),
)

succession = Table(
    "succession",
    metadata,
    Column("national_id", Text, ForeignKey("practitioner.national_id"), primary_key=True),
    Column("successor", Text, ForeignKey("practitioner.national_id")),
    Column("run_id", BigInteger, ForeignKey("register_run.id"), nullable=False),
    Column("linked_at", UtcDateTime, nullable=False),
    Column("sys_from", UtcDateTime, nullable=False),
)

source_state = Table(
    "source_state",
    metadata,
    Column("source", Text, primary_key=True),
    Column("register", Text, nullable=False),
    Column("file_name", Text, nullable=False, server_default=text("''::text")),
    Column("etag", Text, nullable=False, server_default=text("''::text")),
    Column("last_modified", Text, nullable=False, server_default=text("''::text")),
    Column("attempts", SmallInteger, nullable=False, server_default=text("0")),
    Column("next_attempt_at", UtcDateTime),
    Column("answered_at", UtcDateTime),
    Column("reason", Text),
    Column("cursor", Text),
)

stated_since = Table(
    "stated_since",
    metadata,
    Column("register", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("stated_at", UtcDateTime, nullable=False),
)

annuaire_role = Table(
    "annuaire_role",
    metadata,
    Column("role_id", Text, primary_key=True),
    Column("practitioner_id", Text, nullable=False),
)

practitioner = Table(
    "practitioner",
    metadata,
    Column("national_id", Text, primary_key=True),
    Column("id_type", Text, nullable=False),
    Column("id_number", Text, nullable=False),
    Column("civility", Text, nullable=False, server_default=text("''::text")),
    Column("title", Text, nullable=False, server_default=text("''::text")),
    Column("family_name", Text, nullable=False),
    Column("given_name", Text, nullable=False),
    Column("search_name", Text, nullable=False),
    Column("row_hash", LargeBinary, nullable=False),
    Column("departed_at", UtcDateTime),
    Column("sys_from", UtcDateTime, nullable=False),
)

profession = Table(
    "profession",
    metadata,
    Column("national_id", Text, ForeignKey("practitioner.national_id", ondelete="CASCADE"), primary_key=True),
    Column("code", Text, primary_key=True),
    Column("category", Text, primary_key=True),
    Column("sys_from", UtcDateTime, nullable=False),
)

professional_name = Table(
    "professional_name",
    metadata,
    Column("national_id", Text, ForeignKey("practitioner.national_id", ondelete="CASCADE"), primary_key=True),
    Column("profession_code", Text, primary_key=True),
    Column("category", Text, primary_key=True),
    Column("family_name", Text, primary_key=True),
    Column("given_name", Text, primary_key=True),
    Column("sys_from", UtcDateTime, nullable=False),
)

skill = Table(
    "skill",
    metadata,
    Column("national_id", Text, ForeignKey("practitioner.national_id", ondelete="CASCADE"), primary_key=True),
    Column("profession_code", Text, primary_key=True),
    Column("category", Text, primary_key=True),
    Column("skill_type", Text, primary_key=True),
    Column("skill_code", Text, primary_key=True),
    Column("sys_from", UtcDateTime, nullable=False),
)

practice = Table(
    "practice",
    metadata,
    Column("national_id", Text, ForeignKey("practitioner.national_id", ondelete="CASCADE"), primary_key=True),
    Column("digest", LargeBinary, primary_key=True),
    Column("profession_code", Text, nullable=False),
    Column("category", Text, nullable=False),
    Column("mode", Text, nullable=False, server_default=text("''::text")),
    Column("sector", Text, nullable=False, server_default=text("''::text")),
    Column("role", Text, nullable=False, server_default=text("''::text")),
    Column("activity_genre", Text, nullable=False, server_default=text("''::text")),
    Column("pharmacist_table", Text, nullable=False, server_default=text("''::text")),
    Column("structure_id", Text, nullable=False, server_default=text("''::text")),
    Column("finess", Text, nullable=False, server_default=text("''::text")),
    Column("legal_finess", Text, nullable=False, server_default=text("''::text")),
    Column("siret", Text, nullable=False, server_default=text("''::text")),
    Column("structure_name", Text, nullable=False, server_default=text("''::text")),
    Column("street", Text, nullable=False, server_default=text("''::text")),
    Column("postal_code", Text, nullable=False, server_default=text("''::text")),
    Column("town", Text, nullable=False, server_default=text("''::text")),
    Column("commune", Text, nullable=False, server_default=text("''::text")),
    Column("department", Text, nullable=False, server_default=text("''::text")),
    Column("country", Text, nullable=False, server_default=text("''::text")),
    Column("telephone", Text, nullable=False, server_default=text("''::text")),
    Column("registered_by", Text, nullable=False, server_default=text("''::text")),
    Column("sys_from", UtcDateTime, nullable=False),
)

organisation = Table(
    "organisation",
    metadata,
    Column("finess", Text, primary_key=True),
    Column("legal_finess", Text, nullable=False, server_default=text("''::text")),
    Column("siret", Text, nullable=False, server_default=text("''::text")),
    Column("name", Text, nullable=False),
    Column("long_name", Text, nullable=False, server_default=text("''::text")),
    Column("category_code", Text, nullable=False, server_default=text("''::text")),
    Column("category_label", Text, nullable=False, server_default=text("''::text")),
    Column("street", Text, nullable=False, server_default=text("''::text")),
    Column("postal_line", Text, nullable=False, server_default=text("''::text")),
    Column("commune", Text, nullable=False, server_default=text("''::text")),
    Column("department", Text, nullable=False, server_default=text("''::text")),
    Column("telephone", Text, nullable=False, server_default=text("''::text")),
    Column("opened_on", Date),
    Column("closed_on", Date),
    Column("row_hash", LargeBinary, nullable=False),
    Column("departed_at", UtcDateTime),
    Column("sys_from", UtcDateTime, nullable=False),
)

operator = Table(
    "operator",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("certificate_dn", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("suspended_at", UtcDateTime),
    Column("sys_from", UtcDateTime, nullable=False),
    UniqueConstraint("certificate_dn"),
)

trusted_domain = Table(
    "trusted_domain",
    metadata,
    Column("name", Text, primary_key=True),
    Column("operator_id", BigInteger, ForeignKey("operator.id"), primary_key=True),
    Column("description", Text, nullable=False, server_default=text("''::text")),
    Column("updated_at", UtcDateTime),
    Column("suspended_at", UtcDateTime),
    Column("departed_at", UtcDateTime),
    Column("row_hash", LargeBinary, nullable=False),
    Column("sys_from", UtcDateTime, nullable=False),
)

mailbox = Table(
    "mailbox",
    metadata,
    Column("address", Text, primary_key=True),
    Column("domain", Text, Computed("split_part(address, '@'::text, 2)", persisted=True), nullable=False),
    Column("kind", Text, nullable=False),
    Column("holder", Text),
    Column("structure_type", Text, nullable=False, server_default=text("''::text")),
    Column("structure_id", Text, nullable=False, server_default=text("''::text")),
    Column(
        "finess",
        Text,
        Computed(
            "\nCASE\n    WHEN (structure_type = '1'::text) THEN structure_id\n    ELSE ''::text\nEND",
            persisted=True,
        ),
        nullable=False,
    ),
    Column("structure_name", Text, nullable=False, server_default=text("''::text")),
    Column("service", Text, nullable=False, server_default=text("''::text")),
    Column("paperless", Boolean),
    Column("listed", Boolean, nullable=False, server_default=text("true")),
    Column("row_hash", LargeBinary, nullable=False),
    Column("departed_at", UtcDateTime),
    Column("sys_from", UtcDateTime, nullable=False),
)

mailbox_attachment = Table(
    "mailbox_attachment",
    metadata,
    Column("address", Text, ForeignKey("mailbox.address", ondelete="CASCADE"), primary_key=True),
    Column("structure_type", Text, primary_key=True),
    Column("structure_id", Text, primary_key=True),
    Column("service", Text, primary_key=True, server_default=text("''::text")),
    Column("sys_from", UtcDateTime, nullable=False),
)

measure = Table(
    "measure",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("national_id", Text, ForeignKey("practitioner.national_id"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("authority", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("starts_at", UtcDateTime, nullable=False),
    Column("ends_at", UtcDateTime),
    Column("recorded_by", Text, nullable=False),
    Column("recorded_at", UtcDateTime, nullable=False),
    Column("sys_from", UtcDateTime, nullable=False),
)


def agreement() -> tuple[Column[Any], ...]:
    """What one person asked for and another agrees to (`directory/dual_control.py`)."""
    return (
        Column("reason", Text, nullable=False),
        Column("asked_by", BigInteger, ForeignKey("api_token.id"), nullable=False),
        Column("asked_at", UtcDateTime, nullable=False),
        Column("confirmed_by", BigInteger, ForeignKey("api_token.id")),
        Column("confirmed_at", UtcDateTime),
    )


measure_lifting = Table(
    "measure_lifting",
    metadata,
    Column("measure_id", BigInteger, ForeignKey("measure.id"), primary_key=True, autoincrement=False),
    *agreement(),
)

measure_shortening = Table(
    "measure_shortening",
    metadata,
    Column("measure_id", BigInteger, ForeignKey("measure.id"), primary_key=True, autoincrement=False),
    Column("until", UtcDateTime, nullable=False),
    *agreement(),
)

measure_annulment = Table(
    "measure_annulment",
    metadata,
    Column("measure_id", BigInteger, ForeignKey("measure.id"), primary_key=True, autoincrement=False),
    *agreement(),
)

measure_revision = Table(
    "measure_revision",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("measure_id", BigInteger, ForeignKey("measure.id"), nullable=False),
    Column("act", Text, nullable=False),
    Column("ends_at", UtcDateTime),
    Column("reason", Text, nullable=False),
    Column("asked_by", Text, nullable=False),
    Column("confirmed_by", Text),
    Column("recorded_at", UtcDateTime, nullable=False),
)

measure_phase = Table(
    "measure_phase",
    metadata,
    Column("measure_id", BigInteger, ForeignKey("measure.id"), primary_key=True, autoincrement=False),
    Column("phase", Text, nullable=False),
    Column("told_at", UtcDateTime, nullable=False),
    Column("due_at", UtcDateTime, nullable=False),
)

correction_withdrawal = Table(
    "correction_withdrawal",
    metadata,
    Column("correction_id", BigInteger, ForeignKey("correction.id"), primary_key=True, autoincrement=False),
    *agreement(),
)

correction = Table(
    "correction",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("entity", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("field", Text, nullable=False),
    Column("value", Text, nullable=False),
    Column("register_value", Text, nullable=False),
    Column("authority", Text, nullable=False, server_default=text("''::text")),
    Column("reason", Text, nullable=False),
    Column("made_by", Text, nullable=False),
    Column("made_at", UtcDateTime, nullable=False),
    Column("ending", Text),
    Column("ended_by", Text),
    Column("ended_at", UtcDateTime),
)

attention = Table(
    "attention",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("authorities", ARRAY(Text), nullable=False, server_default=text("'{}'::text[]")),
    Column("since", UtcDateTime, nullable=False),
    Column("detail", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("resolved_at", UtcDateTime),
    Column("resolved_by", Text),
)

withdrawal_use = Table(
    "withdrawal_use",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("scope", Text, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("used", Integer, nullable=False),
)

withdrawal_agreement = Table(
    "withdrawal_agreement",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("token_id", BigInteger, ForeignKey("api_token.id"), nullable=False),
    Column("scopes", ARRAY(Text), nullable=False),
    Column("number", Integer, nullable=False),
    Column("agreed_by", BigInteger, ForeignKey("api_token.id"), nullable=False),
    Column("reason", Text, nullable=False),
    Column("agreed_at", UtcDateTime, nullable=False),
)

withdrawal_alarm = Table(
    "withdrawal_alarm",
    metadata,
    Column("scope", Text, primary_key=True),
    Column("told_at", UtcDateTime, nullable=False),
)

api_token = Table(
    "api_token",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("name", Text, nullable=False),
    Column("secret_hash", LargeBinary, nullable=False),
    Column("role", Text, nullable=False),
    Column("authority", Text, nullable=False, server_default=text("''::text")),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Column("revoked_at", UtcDateTime),
    Column("operator_id", BigInteger, ForeignKey("operator.id")),
    Column("person", Text),
    UniqueConstraint("secret_hash"),
)

change = Table(
    "change",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("xid", Xid8, primary_key=True, server_default=text("pg_current_xact_id()")),
    Column("at", UtcDateTime, nullable=False, server_default=text("transaction_timestamp()")),
    Column("entity", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("urgent", Boolean, nullable=False, server_default=text("false")),
)

feed_cursor = Table(
    "feed_cursor",
    metadata,
    Column("consumer", Text, primary_key=True),
    Column("xid", Xid8, nullable=False),
    Column("id", BigInteger, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
)

feed_floor = Table(
    "feed_floor",
    metadata,
    Column("single", Boolean, primary_key=True, server_default=text("true")),
    Column("xid", Xid8, nullable=False, server_default=text("'0'::xid8")),
    Column("id", BigInteger, nullable=False, server_default=text("0")),
    Column("cluster", BigInteger, nullable=False, server_default=text("sceau_cluster()")),
)

red_listed = Table(
    "red_listed",
    metadata,
    Column("address", Text, primary_key=True),
    Column("xid", Xid8, nullable=False, server_default=text("pg_current_xact_id()")),
    Column("cluster", BigInteger, nullable=False, server_default=text("sceau_cluster()")),
    Column("at", UtcDateTime, nullable=False, server_default=text("transaction_timestamp()")),
)

feed_key = Table(
    "feed_key",
    metadata,
    Column("single", Boolean, primary_key=True, server_default=text("true")),
    Column("key", LargeBinary, nullable=False),
)

feed_clock = Table(
    "feed_clock",
    metadata,
    Column("single", Boolean, primary_key=True, server_default=text("true")),
    Column("reached", UtcDateTime, nullable=False),
)

job_run = Table(
    "job_run",
    metadata,
    Column("name", Text, primary_key=True),
    Column("last_started", UtcDateTime, nullable=False),
    Column("last_success", UtcDateTime),
    Column("last_failure", UtcDateTime),
    Column("last_error", Text),
    Column("last_duration", Double),
)

beat = Table(
    "beat",
    metadata,
    Column("who", Text, primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("wrong", Text, nullable=False),
)

# Rewritten all the time and of one hour's worth: a database that crashed begins to count anew.
reading_use = Table(
    "reading_use",
    metadata,
    Column("reading", Text, primary_key=True),
    Column("scope", Text, primary_key=True),
    Column("minute", UtcDateTime, primary_key=True),
    Column("used", BigInteger, nullable=False),
    prefixes=["UNLOGGED"],
)

reading_alarm = Table(
    "reading_alarm",
    metadata,
    Column("reading", Text, primary_key=True),
    Column("scope", Text, primary_key=True),
    Column("told_at", UtcDateTime, nullable=False),
    prefixes=["UNLOGGED"],
)

audit_pending = Table(
    "audit_pending",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("xid", Xid8, nullable=False, server_default=text("pg_current_xact_id()")),
    Column("at", UtcDateTime, nullable=False),
    Column("actor", Text, nullable=False),
    Column("event", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("detail", JSONB, nullable=False),
)

audit_entry = Table(
    "audit_entry",
    metadata,
    Column("index", BigInteger, primary_key=True),
    Column("at", UtcDateTime, nullable=False),
    Column("actor", Text, nullable=False),
    Column("event", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("detail", JSONB, nullable=False),
    Column("leaf_hash", LargeBinary, nullable=False),
)

audit_checkpoint = Table(
    "audit_checkpoint",
    metadata,
    Column("size", BigInteger, primary_key=True),
    Column("root", LargeBinary, nullable=False),
    Column("frontier", ARRAY(LargeBinary), nullable=False),
    Column("note", Text, nullable=False),
    Column("signed_at", UtcDateTime, nullable=False),
)

search_person = Table(
    "search_person",
    metadata,
    Column("national_id", Text(collation="C"), primary_key=True),
    Column("sort_name", Text(collation="C"), nullable=False),
    Column("terms", TSVECTOR, nullable=False),
)

search_place = Table(
    "search_place",
    metadata,
    Column("finess", Text(collation="C"), primary_key=True),
    Column("sort_name", Text(collation="C"), nullable=False),
    Column("terms", TSVECTOR, nullable=False),
)

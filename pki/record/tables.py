"""The tables of the PKI, as SQLAlchemy sees them, in the same database and metadata as the directory's.

The migrations are the authority on checks and triggers; a test compares both.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    cast,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from directory.base.db import UtcDateTime
from directory.tables import agreement, metadata

authority = Table(
    "authority",
    metadata,
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("issuer_id", Text, ForeignKey("authority.id")),
    Column("subject", Text, nullable=False),
    Column("key_name", Text, nullable=False),
    Column("shards", SmallInteger, nullable=False),
    Column("der", LargeBinary, nullable=False),
    Column("sha256", LargeBinary, nullable=False),
    Column("not_before", UtcDateTime, nullable=False),
    Column("not_after", UtcDateTime, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("role", Text, nullable=False),
    Column("generation", Integer, nullable=False, server_default=text("1")),
    Column("state", Text, nullable=False, server_default=text("'active'::text")),
    Column("offline", Boolean, nullable=False, server_default=text("false")),
    Column("crl_form", Text, nullable=False),
    UniqueConstraint("sha256"),
    UniqueConstraint("role", "generation"),
)

enrolment = Table(
    "enrolment",
    metadata,
    Column("id", Uuid, primary_key=True, server_default=text("gen_random_uuid()")),
    Column("practitioner", Text, ForeignKey("practitioner.national_id"), nullable=False),
    Column("mailbox", Text, ForeignKey("mailbox.address"), nullable=False),
    Column("authority", Text, nullable=False),
    Column("identity_check", JSONB, nullable=False),
    Column("state", Text, nullable=False),
    Column("requested_by", BigInteger, ForeignKey("api_token.id"), nullable=False),
    Column("requested_at", UtcDateTime, nullable=False),
    Column("approved_by", BigInteger, ForeignKey("api_token.id")),
    Column("approved_at", UtcDateTime),
    Column("ended_at", UtcDateTime),
    Column("sys_from", UtcDateTime, nullable=False),
)

enrolment_names = Table(
    "enrolment_names",
    metadata,
    Column("enrolment_id", Uuid, ForeignKey("enrolment.id"), primary_key=True),
    Column("names", JSONB, nullable=False),
)
# Of an enrolment written by a release that kept no names, what the history says that both persons saw.
NAMES_OF_ENROLMENT = """coalesce(
    (SELECT n.names FROM enrolment_names n WHERE n.enrolment_id = {id}),
    (SELECT s.names FROM sceau_names_seen(ARRAY[{id}]) AS s))"""

enrolment_act = Table(
    "enrolment_act",
    metadata,
    Column("enrolment_id", Uuid, ForeignKey("enrolment.id"), primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("person", Text, nullable=False),
    Column("credential", Text, nullable=False),
    Column("signed", Text, nullable=False),
    Column("at", UtcDateTime, nullable=False),
)

reservation = Table(
    "reservation",
    metadata,
    Column("serial", Text, primary_key=True),
    Column("authority_id", Text, nullable=False),
    Column("profile", Text, nullable=False),
    Column("shard", SmallInteger, nullable=False),
    Column("mailbox", Text),
    Column("practitioner", Text),
    Column("enrolment_id", Uuid, ForeignKey("enrolment.id")),
    Column("spki_sha256", LargeBinary, nullable=False),
    Column("tbs", LargeBinary, nullable=False),
    Column("tbs_sha256", LargeBinary, nullable=False),
    Column("lints", JSONB, nullable=False),
    Column("requested_by", Text, nullable=False),
    Column("reserved_at", UtcDateTime, nullable=False),
)

certificate = Table(
    "certificate",
    metadata,
    Column("serial", Text, ForeignKey("reservation.serial"), primary_key=True),
    Column("authority_id", Text, nullable=False),
    Column("profile", Text, nullable=False),
    Column("shard", SmallInteger, nullable=False),
    Column("mailbox", Text),
    Column("practitioner", Text),
    Column("subject", Text, nullable=False),
    Column("spki_sha256", LargeBinary, nullable=False),
    Column("der", LargeBinary, nullable=False),
    Column("sha256", LargeBinary, nullable=False),
    Column("not_before", UtcDateTime, nullable=False),
    Column("not_after", UtcDateTime, nullable=False),
    Column("issued_at", UtcDateTime, nullable=False),
    UniqueConstraint("sha256"),
)

revocation = Table(
    "revocation",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("serial", Text, ForeignKey("reservation.serial"), nullable=False),
    Column("authority_id", Text, nullable=False),
    Column("shard", SmallInteger, nullable=False),
    Column("action", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("comment", Text, nullable=False, server_default=text("''::text")),
    Column("actor", Text, nullable=False),
    Column("revoked_at", UtcDateTime, nullable=False),
    Column("not_after", UtcDateTime, nullable=False),
    Column("entry", LargeBinary),
    Column("restates", BigInteger, ForeignKey("revocation.id")),
    Column("recorded_at", UtcDateTime),
)

standing_hold = Table(
    "standing_hold",
    metadata,
    Column("serial", Text, ForeignKey("reservation.serial"), primary_key=True),
    Column("actor", Text, nullable=False),
    Column("since", UtcDateTime, nullable=False),
)

hold_release = Table(
    "hold_release",
    metadata,
    Column("hold_id", BigInteger, ForeignKey("revocation.id"), primary_key=True, autoincrement=False),
    *agreement(),
)

bulk_revocation = Table(
    "bulk_revocation",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("selection", JSONB, nullable=False),
    Column("reason", Text, nullable=False),
    Column("comment", Text, nullable=False),
    Column("per_second", Integer, nullable=False),
    Column("total", Integer, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("needed", SmallInteger, nullable=False),
    Column("asked_by", BigInteger, ForeignKey("api_token.id"), nullable=False),
    Column("asked_at", UtcDateTime, nullable=False),
    Column("state", Text, nullable=False),
    Column("reached", Integer, nullable=False, server_default=text("0")),
    Column("revoked", Integer, nullable=False, server_default=text("0")),
    Column("skipped", Integer, nullable=False, server_default=text("0")),
    Column("started_at", UtcDateTime),
    Column("finished_at", UtcDateTime),
)

bulk_revocation_item = Table(
    "bulk_revocation_item",
    metadata,
    Column("bulk_id", BigInteger, ForeignKey("bulk_revocation.id"), primary_key=True),
    Column("place", Integer, primary_key=True),
    Column("serial", Text, ForeignKey("certificate.serial"), nullable=False),
)

bulk_revocation_approval = Table(
    "bulk_revocation_approval",
    metadata,
    Column("bulk_id", BigInteger, ForeignKey("bulk_revocation.id"), primary_key=True),
    Column("token_id", BigInteger, ForeignKey("api_token.id"), primary_key=True),
    Column("comment", Text, nullable=False),
    Column("approved_at", UtcDateTime, nullable=False),
)

cross_certificate = Table(
    "cross_certificate",
    metadata,
    Column("id", Text, primary_key=True),
    Column("serial", Text, ForeignKey("certificate.serial"), nullable=False, unique=True),
    Column("subject_id", Text, ForeignKey("authority.id"), nullable=False),
    Column("issuer_id", Text, ForeignKey("authority.id"), nullable=False),
    Column("der", LargeBinary, nullable=False),
    Column("not_before", UtcDateTime, nullable=False),
    Column("not_after", UtcDateTime, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)

withdrawal_due = Table(
    "withdrawal_due",
    metadata,
    Column("serial", Text, ForeignKey("certificate.serial"), primary_key=True),
    Column("cause", Text, primary_key=True),
    Column("due_at", UtcDateTime, nullable=False),
)

crl_shard = Table(
    "crl_shard",
    metadata,
    Column("authority_id", Text, ForeignKey("authority.id"), primary_key=True),
    Column("shard", SmallInteger, primary_key=True),
    Column("last_number", BigInteger, nullable=False, server_default=text("0")),
)

clock_reset = Table(
    "clock_reset",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    *agreement(),
)

crl_redated = Table(
    "crl_redated",
    metadata,
    Column("authority_id", Text, primary_key=True),
    Column("shard", SmallInteger, primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    ForeignKeyConstraint(["authority_id", "shard"], ["crl_shard.authority_id", "crl_shard.shard"]),
)

crl = Table(
    "crl",
    metadata,
    Column("authority_id", Text, primary_key=True),
    Column("shard", SmallInteger, primary_key=True),
    Column("number", BigInteger, primary_key=True),
    Column("this_update", UtcDateTime, nullable=False),
    Column("next_update", UtcDateTime, nullable=False),
    Column("entries", Integer, nullable=False),
    Column("watermark", BigInteger, nullable=False),
    Column("tbs", LargeBinary, nullable=False),
    Column("tbs_sha256", LargeBinary, nullable=False),
    Column("der", LargeBinary),
    Column("sha256", LargeBinary),
    Column("base", BigInteger),
    Column("made_at", UtcDateTime),
    ForeignKeyConstraint(["authority_id", "shard"], ["crl_shard.authority_id", "crl_shard.shard"]),
)

crl_event = Table(
    "crl_event",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("authority_id", Text, nullable=False),
    Column("shard", SmallInteger, nullable=False),
    Column("number", BigInteger),
    Column("revocations", ARRAY(BigInteger), nullable=False),
)

ocsp_responder = Table(
    "ocsp_responder",
    metadata,
    Column("serial", Text, ForeignKey("certificate.serial"), primary_key=True),
    Column("authority_id", Text, ForeignKey("authority.id"), nullable=False),
    Column("der", LargeBinary, nullable=False),
    Column("not_before", UtcDateTime, nullable=False),
    Column("not_after", UtcDateTime, nullable=False),
)

ocsp_answer = Table(
    "ocsp_answer",
    metadata,
    Column("serial", Text, primary_key=True),
    Column("hash", Text, primary_key=True),
    Column("responder", Text, ForeignKey("ocsp_responder.serial")),
    Column("der", LargeBinary),
    Column("this_update", UtcDateTime),
    Column("next_update", UtcDateTime),
)

operator_certificate = Table(
    "operator_certificate",
    metadata,
    Column("serial", Text, ForeignKey("reservation.serial"), primary_key=True),
    Column("operator_id", BigInteger, ForeignKey("operator.id"), nullable=False),
    Column("hosts", ARRAY(Text), nullable=False),
    Column("domains", ARRAY(Text), nullable=False),
    Column("spki_sha256", LargeBinary, nullable=False, unique=True),
)

operator_contact = Table(
    "operator_contact",
    metadata,
    Column("operator_id", BigInteger, ForeignKey("operator.id"), primary_key=True),
    Column("place", SmallInteger, primary_key=True, autoincrement=False),
    Column("address", Text, nullable=False),
    Column("kept_at", UtcDateTime, nullable=False),
    UniqueConstraint("operator_id", "address"),
)

batch = Table(
    "batch",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("authority", Text, nullable=False),
    Column("requested_by", BigInteger, ForeignKey("api_token.id"), nullable=False),
    Column("requested_at", UtcDateTime, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    UniqueConstraint("authority", "digest"),
)

batch_item = Table(
    "batch_item",
    metadata,
    Column("batch_id", Uuid, ForeignKey("batch.id"), primary_key=True),
    Column("place", SmallInteger, primary_key=True, autoincrement=False),
    Column("enrolment_id", Uuid, nullable=False),
    Column("serial", Text, ForeignKey("reservation.serial")),
    Column("refusal", JSONB),
)

trust_list = Table(
    "trust_list",
    metadata,
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("content_sha256", LargeBinary, nullable=False),
    Column("made_at", UtcDateTime, nullable=False),
    Column("next_update", UtcDateTime, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("signature", Text, nullable=False),
    Column("xml", LargeBinary, nullable=False),
    Column("xml_signature", Text, nullable=False),
)

trust_list_due = Table(
    "trust_list_due",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("urgent", Boolean, nullable=False),
)

expiry_notice = Table(
    "expiry_notice",
    metadata,
    Column("serial", Text, ForeignKey("certificate.serial"), primary_key=True),
    Column("days", SmallInteger, primary_key=True, autoincrement=False),
    Column("recipient", Text, primary_key=True),
    Column("attempts", SmallInteger, nullable=False, server_default=text("0")),
    Column("next_attempt_at", UtcDateTime),
    Column("sent_at", UtcDateTime),
    Column("last_error", Text, nullable=False, server_default=text("''::text")),
)

blocked_key = Table(
    "blocked_key",
    metadata,
    Column("spki_sha256", LargeBinary, primary_key=True),
    Column("cause", Text, nullable=False),
    Column("since", UtcDateTime, nullable=False),
    Column("serial", Text, ForeignKey("reservation.serial")),
    Column("actor", Text, nullable=False),
)

key_number = Table(
    "key_number",
    metadata,
    Column("spki_sha256", LargeBinary, primary_key=True),
    Column("number", LargeBinary, nullable=False),
)

weak_key = Table(
    "weak_key",
    metadata,
    Column("form", Text, primary_key=True),
    Column("digest", LargeBinary, primary_key=True),
    Column("list", Text, nullable=False),
    Column("since", UtcDateTime, nullable=False),
)

idempotent_request = Table(
    "idempotent_request",
    metadata,
    Column("token_id", BigInteger, ForeignKey("api_token.id"), primary_key=True),
    Column("key", Text, primary_key=True),
    Column("digest", LargeBinary, nullable=False),
    Column("asked_at", UtcDateTime, nullable=False),
    Column("busy_until", UtcDateTime, nullable=False),
    Column("status", SmallInteger),
    Column("body", LargeBinary),
)

recipient_check = Table(
    "recipient_check",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("token_id", BigInteger, ForeignKey("api_token.id"), nullable=False),
    Column("state", Text, nullable=False),
    Column("included", Text, nullable=False),
    Column("number", Integer, nullable=False),
    Column("decided", Integer, nullable=False, server_default=text("0")),
    Column("attempts", SmallInteger, nullable=False, server_default=text("0")),
    Column("asked_at", UtcDateTime, nullable=False),
    Column("finished_at", UtcDateTime),
    Column("size", BigInteger),
    Column("sha256", LargeBinary),
)

quota_use = Table(
    "quota_use",
    metadata,
    Column("scope", Text, primary_key=True),
    Column("hour", UtcDateTime, primary_key=True),
    Column("used", Integer, nullable=False),
    Column("told_at", UtcDateTime),
)

key_holder = Table(
    "key_holder",
    metadata,
    Column("spki_sha256", LargeBinary, primary_key=True),
    Column("enrolment_id", Uuid, ForeignKey("enrolment.id"), nullable=False),
    Column("since", UtcDateTime, nullable=False),
)

certificate_replacement = Table(
    "certificate_replacement",
    metadata,
    Column("serial", Text, ForeignKey("certificate.serial"), primary_key=True),
    Column("measure_id", BigInteger, ForeignKey("measure.id"), nullable=False),
    Column("enrolment_id", Uuid, ForeignKey("enrolment.id"), nullable=False),
    Column("asked_at", UtcDateTime, nullable=False),
    Column("replaced_by", Text, ForeignKey("certificate.serial")),
    Column("refused", Text),
)


def any_of(values: Sequence[str]) -> Any:
    """One array parameter, however many values: a list of parameters ends at 65,535."""
    return func.any(cast(list(values), ARRAY(Text)))

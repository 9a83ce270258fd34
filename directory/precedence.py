"""Which source wins, field by field, as data: what is said here, a measure, the register that knows best.

Of one source's files the one that was generated last wins, whichever edition it is of. The reference repeats
this table (docs/reference/registers.md), and a test holds both, and the record's columns, against each other.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

from directory.feed.changes import Entity


class Source(Enum):
    """Who may say something of the record, by the name people know it under."""

    CORRECTION = "local correction"
    MEASURE = "measure of an Ordre"
    SUCCESSION = "number that was replaced"
    RPPS = "rpps"
    FINESS = "finess"
    MAILBOXES = "mailboxes"
    TRUSTED_DOMAINS = "trusted-domains"


@dataclass(frozen=True)
class Rule:
    """Of these columns of a table, the first of `sources` that says anything is believed."""

    table: str
    fields: tuple[str, ...]
    sources: tuple[Source, ...]


PRECEDENCE = (
    Rule("practitioner", ("civility", "title", "family_name", "given_name"),
         (Source.CORRECTION, Source.RPPS)),
    Rule("practitioner", ("id_type", "id_number", "departed_at"), (Source.RPPS,)),
    Rule("profession", ("code", "category"), (Source.RPPS,)),
    Rule("professional_name", ("profession_code", "category", "family_name", "given_name"), (Source.RPPS,)),
    Rule("skill", ("profession_code", "category", "skill_type", "skill_code"), (Source.RPPS,)),
    # The place where somebody practises, as his own register has it, whatever FINESS calls the establishment.
    Rule("practice",
         ("profession_code", "category", "mode", "sector", "role", "activity_genre", "pharmacist_table",
          "structure_id", "finess", "legal_finess", "siret", "structure_name", "street", "postal_code",
          "town", "commune", "department", "country", "telephone", "registered_by"),
         (Source.RPPS,)),
    Rule("measure", ("kind", "authority", "reason", "starts_at", "ends_at"), (Source.MEASURE,)),
    Rule("organisation", ("name", "long_name", "street", "postal_line", "telephone", "closed_on"),
         (Source.CORRECTION, Source.FINESS)),
    Rule("organisation",
         ("legal_finess", "siret", "category_code", "category_label", "commune", "department", "opened_on",
          "departed_at"),
         (Source.FINESS,)),
    Rule("mailbox", ("structure_name", "service"), (Source.CORRECTION, Source.MAILBOXES)),
    Rule("mailbox", ("listed",), (Source.CORRECTION,)),
    Rule("mailbox", ("holder",), (Source.SUCCESSION, Source.MAILBOXES)),
    Rule("mailbox", ("kind", "structure_type", "structure_id", "paperless", "departed_at"),
         (Source.MAILBOXES,)),
    Rule("trusted_domain", ("description", "updated_at", "departed_at"), (Source.TRUSTED_DOMAINS,)),
)  # fmt: skip


def _correctable() -> Mapping[Entity, Mapping[str, bool]]:
    by_entity: dict[Entity, dict[str, bool]] = {}
    for rule in PRECEDENCE:
        if rule.sources[0] is Source.CORRECTION:
            told = dict.fromkeys(rule.fields, len(rule.sources) > 1)
            by_entity.setdefault(Entity(rule.table), {}).update(told)
    return MappingProxyType({entity: MappingProxyType(told) for entity, told in by_entity.items()})


# What may be corrected here: field by field, whether a register says it as well.
CORRECTABLE = _correctable()

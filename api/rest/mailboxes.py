"""The mailboxes of people and places that may be shown, the preferred first.

Which show is decided by `directory.rules.visible`, which are good for use by `pki.verdict.decide`, as for
every other channel.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from marshmallow import fields, validate

from api.http.operation import Transacted
from api.http.schemas import EXAMPLE_ADDRESS, EXAMPLE_SERIAL, Shape
from api.rest.correction_schemas import corrected
from directory.corrections import Mark, marks
from directory.feed.changes import Entity
from directory.rules import visible
from directory.store import mailbox_facts
from pki.verdict.answer import verdicts
from pki.verdict.model import Verdict

PREFERRED = (
    "Préférées d'abord : celles qui ont un certificat valable, puis par adresse ; liste rouge absente — "
    "Preferred first: those with a certificate good for use, then by address; unlisted absent"
)


class MailboxAnswer(Shape):
    """A mailbox that may be shown; `certificates` are the serials good for use now."""

    address = fields.String(required=True, metadata={"example": EXAMPLE_ADDRESS})
    verdict = fields.String(required=True, validate=validate.OneOf(["allowed", "refused", "unknown"]))
    certificates = fields.List(fields.String(metadata={"example": EXAMPLE_SERIAL}), required=True)
    corrected = corrected()


@dataclass(frozen=True)
class Shown:
    """A mailbox as it is given."""

    address: str
    verdict: str
    certificates: Sequence[str]
    corrected: Sequence[Mark]


def shown(call: Transacted, held: Mapping[str, Sequence[str]]) -> Mapping[str, Sequence[Shown]]:
    """For each holder, who holds these addresses, the mailboxes that may be shown."""
    every = [address for addresses in held.values() for address in addresses]
    facts = mailbox_facts(call.connection, every)
    listed = [address for address in every if visible(facts[address], call.now)]
    lifetime = call.container.verdict_lifetime
    decided = verdicts(call.connection, listed, sender=None, at=None, now=call.now, lifetime=lifetime)
    marked = marks(call.connection, Entity.MAILBOX, listed)
    given = {verdict.address: _given(verdict, marked.get(verdict.address, ())) for verdict in decided}
    return {
        holder: sorted(
            (given[address] for address in addresses if address in given),
            key=lambda mailbox: (not mailbox.certificates, mailbox.address),
        )
        for holder, addresses in held.items()
    }


def _given(verdict: Verdict, marked: Sequence[Mark]) -> Shown:
    serials = [certificate.serial for certificate in verdict.certificates]
    return Shown(verdict.address, verdict.answer.value, serials, marked)

"""`sceau evidence`: what two persons signed for a certificate, by which powers, for whoever verifies it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import orjson

from api.cli.output import container, refusals_told, state_option
from directory.base.db import transaction
from directory.base.errors import Kind, Refusal
from pki.certificates import serials
from pki.model import IssuedCertificate
from pki.powers.state import PowerLine, Powers
from pki.record import certificates, enrolment_acts, reservations
from pki.record.enrolment_acts import Evidence
from pki.registration.handed_in import need_anchors
from pki.registration.shown import shown


@click.command()
@click.argument("serial")
@state_option
def evidence(serial: str, state: Path | None) -> None:
    """Print as JSON who signed for the certificate SERIAL: both acts, what they saw, the powers behind them.

    docs/how-to/verify-an-enrolment.md verifies it with openssl and a page of Python.

    \b
    Example:  sceau evidence 5f03… > evidence.json
    """
    parts = container(state)
    with refusals_told():
        powers = need_anchors(None if parts.powers is None else parts.powers.current())
        with transaction(parts.engine, read_only=True) as connection:
            wanted = serials.parse_serial(serial)
            issued = certificates.find_certificate(connection, wanted)
            reserved = reservations.load_reservation(connection, wanted)
            of = None if reserved is None else reserved.enrolment_id
            found = {} if of is None else enrolment_acts.evidence(connection, [of])
        if issued is None or of is None or of not in found:
            text = f"The record has no certificate {serial} of an enrolment."
            raise Refusal(Kind.NOT_FOUND, "unknown-certificate", text)
    click.echo(orjson.dumps(_told(issued, found[of], powers), option=orjson.OPT_INDENT_2).decode())


def _told(issued: IssuedCertificate, found: Evidence, powers: Powers) -> dict[str, Any]:
    persons = {act.person for act in found.acts}
    return {
        "anchors": orjson.loads(powers.anchors.text()),
        "lines": [_line(line) for line in _lines(powers, persons)],
        "shown": shown(found.enrolment),
        "acts": [act.signed.decode() for act in found.acts],
        "certificate": issued.pem,
    }


def _lines(powers: Powers, persons: set[str]) -> Sequence[PowerLine]:
    tenures = [
        *(known.tenure for known in powers.credentials().values() if known.person in persons),
        *(tenure for held, each in powers.roles().items() if held.person in persons for tenure in each),
    ]
    bounds = (line for tenure in tenures for line in (tenure.since, tenure.until))
    return sorted((line for line in bounds if line is not None), key=lambda line: line.index or 0)


def _line(line: PowerLine) -> dict[str, Any]:
    return {"at": line.at, "shown": dict(line.shown), "signed": [text.decode() for text in line.signed]}

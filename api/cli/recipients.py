"""`sceau check`: may these exchange?"""

from base64 import b64encode
from datetime import datetime
from pathlib import Path

import click

from api.cli.output import answer, container, json_option, refusals_told, state_option
from directory.base.db import transaction
from pki.verdict.answer import verdicts
from pki.verdict.model import Answer


@click.command()
@click.argument("addresses", nargs=-1, required=True)
@click.option("--sender", default=None, help="Address that wants to send.")
@click.option("--at", type=click.DateTime(["%Y-%m-%dT%H:%M:%S.%f%z", "%Y-%m-%dT%H:%M:%S%z"]), default=None,
              help="An instant in the past, with its zone.")  # fmt: skip
@state_option
@json_option
def check(
    addresses: tuple[str, ...], sender: str | None, at: datetime | None, state: Path | None, as_json: bool
) -> None:
    """Say for each of ADDRESSES whether health data may be sent there; exit 0 only when all are allowed.

    \b
    Examples:
      sceau check dr.b@two.example --sender dr.a@one.example
      sceau check dr.b@two.example --at 2026-09-01T08:00:00+0200
    """
    parts = container(state, as_json=as_json, complete=True)
    with refusals_told(as_json=as_json):
        lifetime = parts.verdict_lifetime
        with transaction(parts.engine, read_only=True) as connection:
            decisions = verdicts(
                connection, addresses, sender=sender, at=at, now=parts.clock(), lifetime=lifetime,
                trials=parts.settings.trial_addresses,
            )  # fmt: skip
    told = [
        {
            "address": verdict.address,
            "verdict": verdict.answer.value,
            "reasons": list(verdict.reasons),
            "decided_at": verdict.decided_at,
            "as_of": verdict.as_of,
            "valid_until": verdict.valid_until,
            "sources": dict(verdict.sources),
            "certificates": [
                {
                    "serial": certificate.serial,
                    "not_after": certificate.not_after,
                    "der": b64encode(certificate.der).decode(),
                    "purposes": sorted(purpose.value for purpose in certificate.purposes),
                }
                for certificate in verdict.certificates
            ],
        }
        for verdict in decisions
    ]
    rows = [
        (
            verdict.address,
            verdict.answer.value,
            ", ".join(verdict.reasons),
            ", ".join(certificate.serial for certificate in verdict.certificates),
        )
        for verdict in decisions
    ]
    answer(
        # `results` is their former name, until the next version.
        {"items": told, "results": told},
        as_json=as_json,
        rows=rows,
        headers=("address", "verdict", "reasons", "certificates"),
    )
    if any(verdict.answer is not Answer.ALLOWED for verdict in decisions):
        raise SystemExit(1)

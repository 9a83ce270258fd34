"""`sceau release`, `restate`, `revoke-many`: the acts after a revocation, and revocations of many."""

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import click

from api.cli.enrolment import identity_option, who_acts, withdrawing
from api.cli.output import NUMBER, answer, container, json_option, refusals_told, state_option
from directory.base.db import transaction
from directory.base.errors import Kind, Refusal
from pki.certificates import serials as serials_wing
from pki.model import RevocationReason
from pki.revocation import bulk, proof_of_possession
from pki.revocation import release as releasing
from pki.revocation.bulk import Preview
from pki.revocation.bulk_store import Bulk, Selection

REASON = click.Choice([reason.value for reason in RevocationReason])
HEADERS = ("id", "state", "total", "reached", "revoked", "skipped", "approvals", "reason", "digest")
# Windows writes a byte order mark before a text; bytes that are no text are no serial number either.
_LINES = click.File("r", encoding="utf-8-sig", errors="replace")
_DAY = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"])


@click.command()
@click.argument("serial")
@click.option("--comment", default="", help="Why, in a sentence; kept in the log.")
@identity_option
@state_option
@json_option
def release(
    serial: str, comment: str, name: str | None, secret: str | None, state: Path | None, as_json: bool
) -> None:
    """Release the certificate SERIAL from hold, within the 14 days after which a hold is final.

    One's own hold ends at once. Another's takes two: the first asks, another agrees by the same command
    within seven days. Nothing is given back while a measure, a departure or a blocked key stands against it.

    \b
    Examples:
      sceau release 5f03… --comment "phone found" --as registrar_a
      sceau release 5f03… --comment "phone found" --as registrar_b
    """
    parts = container(state, as_json=as_json, gives=True)
    with refusals_told(as_json=as_json), transaction(parts.engine) as connection:
        done = releasing.release_as(
            connection, now=parts.present(connection), token=who_acts(parts, connection, name, secret),
            serial=serials_wing.parse_serial(serial), comment=comment,
        )  # fmt: skip
    released = done.release_asked_at is None
    told = {
        "serial": done.serial, "released_at": done.revoked_at if released else None,
        "release_asked_at": done.release_asked_at,
    }  # fmt: skip
    answer(told, as_json=as_json, rows=[tuple(told.values())], headers=tuple(told))


@click.command()
@click.argument("serial")
@click.option("--reason", type=REASON, required=True, help="The reason that is true.")
@click.option("--comment", required=True, help="How that came to be known; kept in the log.")
@identity_option
@state_option
@json_option
def restate(
    serial: str, reason: str, comment: str, name: str | None, secret: str | None, state: Path | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Correct the reason for which SERIAL was revoked; the revocation and its date stay.

    \b
    Example:  sceau restate 5f03… --reason keyCompromise --comment "key found online" --as registrar_a
    """
    parts = container(state, as_json=as_json, gives=True)
    with withdrawing(parts, as_json=as_json) as connection:
        done = proof_of_possession.restate_as(
            connection, now=parts.present(connection), token=who_acts(parts, connection, name, secret),
            serial=serials_wing.parse_serial(serial), reason=RevocationReason(reason), comment=comment,
        )  # fmt: skip
    told = {"serial": done.serial, "reason": done.reason.value, "revoked_at": done.revoked_at}
    answer(told, as_json=as_json, rows=[tuple(told.values())], headers=tuple(told))


@click.group(name="revoke-many")
def revoke_many() -> None:
    """Revoke many certificates: plan, agree, watch, stop."""


@revoke_many.command()
@click.option("--serials", type=_LINES, default=None, help="A file with one serial on each line.")
@click.option("--authority", default=None, help="Of this CA, e.g. persons-1.")
@click.option("--profile", default=None, help="Of this profile, e.g. practitioner-smime.")
@click.option(
    "--establishment",
    default=None,
    help="Of this establishment (FINESS or SIRET), or of all of this legal entity.",
)
@click.option(
    "--operator", type=NUMBER, default=None, help="Of this operator, and of mailboxes in its domains."
)
@click.option("--issued-from", type=_DAY, default=None, help="Issued from this instant on (UTC).")
@click.option("--issued-until", type=_DAY, default=None, help="Issued before this instant (UTC).")
@click.option("--keys", type=_LINES, default=None, help="A file of SHA-256 of public keys (SPKI).")
@click.option("--reason", type=REASON, required=True)
@click.option("--comment", required=True, help="Why, in a sentence; kept in the log.")
@click.option("--per-second", type=click.IntRange(1, 100_000), default=bulk.USUAL_RATE, show_default=True)
@click.option("--apply", "applies", is_flag=True, help="Write the plan down; else it is only shown.")
@identity_option
@state_option
@json_option
def plan(
    serials: TextIO | None, keys: TextIO | None, issued_from: datetime | None, issued_until: datetime | None,
    authority: str | None, profile: str | None, establishment: str | None, operator: int | None,
    reason: str, comment: str, per_second: int, applies: bool, name: str | None, secret: str | None,
    state: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Show what a selection would revoke; with --apply write it down, for two administrators to agree to.

    \b
    Example:
      sceau revoke-many plan --profile operator-server --reason superseded --comment "incident 31" --as admin
    """
    parts = container(state, as_json=as_json)
    with refusals_told(as_json=as_json), transaction(parts.engine) as connection:
        token = who_acts(parts, connection, name, secret)
        selection = Selection(
            serials=tuple(serials_wing.parse_serial(line) for line in _lines(serials)), authority=authority,
            profile=profile, establishment=establishment, operator=operator, issued_from=_utc(issued_from),
            issued_until=_utc(issued_until), keys=tuple(_digest(line).hex() for line in _lines(keys)),
        )  # fmt: skip
        seen = bulk.preview(connection, now=parts.present(connection), token=token, selection=selection)
        made = None
        if applies:
            made = bulk.plan(
                connection, now=parts.present(connection), token=token, selection=selection,
                reason=RevocationReason(reason), comment=comment, per_second=per_second,
            )  # fmt: skip
    told = _previewed(seen) | {"id": made.id if made else None}
    rows: list[tuple[Any, ...]] = [
        (certificate.serial, certificate.profile, certificate.issued_at, certificate.subject)
        for certificate in seen.samples
    ]
    rows.append((f"{seen.total} in all", f"{seen.needed} must agree", seen.digest.hex(), made and made.id))
    answer(told, as_json=as_json, rows=rows, headers=("serial", "profile", "issued", "subject"))


@revoke_many.command()
@click.argument("number", type=NUMBER)
@click.option("--digest", required=True, help="The digest of what you looked at.")
@click.option("--comment", required=True, help="The evidence you looked at.")
@identity_option
@state_option
@json_option
def approve(
    number: int, digest: str, comment: str, name: str | None, secret: str | None, state: Path | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Agree to revocation NUMBER; it begins with the last agreement that is needed.

    \b
    Example:  sceau revoke-many approve 3 --digest 7a1c… --comment "compared with the report" --as admin
    """
    parts = container(state, as_json=as_json)
    with withdrawing(parts, as_json=as_json) as connection:
        token = who_acts(parts, connection, name, secret)
        made = bulk.approve(
            connection, now=parts.present(connection), token=token, number=number, digest=_digest(digest),
            comment=comment,
        )  # fmt: skip
    _show([made], as_json=as_json)


@revoke_many.command()
@click.argument("number", type=NUMBER)
@click.option("--comment", required=True, help="Why it ends here.")
@identity_option
@state_option
@json_option
def stop(
    number: int, comment: str, name: str | None, secret: str | None, state: Path | None, as_json: bool
) -> None:
    """Stop revocation NUMBER for good, between two batches; revoked certificates stay so.

    \b
    Example:  sceau revoke-many stop 3 --comment "selection too wide" --as admin
    """
    parts = container(state, as_json=as_json)
    with refusals_told(as_json=as_json), transaction(parts.engine) as connection:
        token = who_acts(parts, connection, name, secret)
        made = bulk.stop(
            connection, now=parts.present(connection), token=token, number=number, comment=comment
        )
    _show([made], as_json=as_json)


@revoke_many.command(name="list")
@identity_option
@state_option
@json_option
def list_bulks(name: str | None, secret: str | None, state: Path | None, as_json: bool) -> None:
    """List revocations of many, the newest first, with how far each has come.

    \b
    Example:  sceau revoke-many list --as admin
    """
    parts = container(state, as_json=as_json)
    with refusals_told(as_json=as_json), transaction(parts.engine, read_only=True) as connection:
        token = who_acts(parts, connection, name, secret)
        bulks = bulk.all_seen(connection, token=token, before=None, limit=100)
    _show(bulks, as_json=as_json)


def _show(bulks: list[Bulk], *, as_json: bool) -> None:
    told = [_told(listed_bulk) for listed_bulk in bulks]
    answer({"items": told}, as_json=as_json, rows=[_row(row) for row in told], headers=HEADERS)


def _told(listed_bulk: Bulk) -> dict[str, Any]:
    return {**asdict(listed_bulk), "reason": listed_bulk.reason.value, "digest": listed_bulk.digest.hex()}


def _row(told: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(told[name] for name in HEADERS)


def _previewed(seen: Preview) -> dict[str, Any]:
    return {**asdict(seen), "digest": seen.digest.hex()}


def _lines(file: TextIO | None) -> list[str]:
    return [] if file is None else [line.strip() for line in file if line.strip()]


def _digest(written: str) -> bytes:
    try:
        digest = bytes.fromhex(written)
    except ValueError:
        digest = b""
    if len(digest) != 32:  # noqa: PLR2004 - the length of a SHA-256
        raise Refusal(Kind.MALFORMED, "malformed-digest", "A digest has 64 hexadecimal digits.")
    return digest


def _utc(given: datetime | None) -> datetime | None:
    return None if given is None else given.replace(tzinfo=UTC)

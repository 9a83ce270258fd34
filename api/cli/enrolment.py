"""`sceau enrol`, `issue`, `revoke`: the registrar's acts from a terminal, by the same rules as over REST."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, datetime
from pathlib import Path
from typing import BinaryIO, TextIO
from uuid import UUID

import click
import orjson
from click.core import ParameterSource
from sqlalchemy import Connection

from api.cli.output import Command, answer, container, json_option, refusals_told, state_option
from api.cli.person import read_act, signed_in_demo, signed_with
from api.cli.sign import FILE
from api.wiring import Container
from directory import access, withdrawal_limits
from directory.base.db import transaction
from directory.base.errors import Kind, Refusal
from directory.identifiers import read_national_id
from pki.acts.act import ActKind
from pki.certificates import serials
from pki.issuance import for_enrolment
from pki.model import Enrolment, Purpose, RevocationReason
from pki.registration import enrolment as enrolling
from pki.registration.handed_in import need_anchors
from pki.registration.shown import to_sign
from pki.revocation import requests

# A token has 49 characters: a file named by mistake is not read whole.
_LONGEST_FILE = 1000
_TOKEN_OF_FILE = "sceau.token"  # noqa: S105 - the name of a place


def identity_option(command: Command) -> Command:
    """Add `--as NAME` and `--token-file`: who acts. A name is looked up in the demo's credentials."""
    command = click.option(
        "--token", "secret", envvar="SCEAU_TOKEN", default=None, hidden=True, callback=_secret
    )(command)
    command = click.option(
        "--token-file",
        # Windows writes a byte order mark before a text.
        type=click.File("r", encoding="utf-8-sig"),
        default=None,
        expose_value=False,
        is_eager=True,
        callback=_keep_token_of_file,
        help="File of your bearer token, - for standard input [the variable SCEAU_TOKEN].",
    )(command)
    return click.option(
        "--as", "name", default=None, help="A name in demo-credentials.json, e.g. registrar_a."
    )(command)


def _keep_token_of_file(context: click.Context, _: click.Parameter, given: TextIO | None) -> None:
    if given is not None:
        context.meta[_TOKEN_OF_FILE] = given.read(_LONGEST_FILE).strip()


def _secret(context: click.Context, _: click.Parameter, given: str | None) -> str | None:
    """The token; one on the command line is refused, since every account reads the list of processes."""
    if context.get_parameter_source("secret") is ParameterSource.COMMANDLINE:
        text = (
            "A token on the command line shows in the list of processes: revoke it,"
            " then give --token-file FILE or the variable SCEAU_TOKEN."
        )
        raise click.UsageError(text)
    secret: str | None = context.meta.get(_TOKEN_OF_FILE, given)
    return secret


def who_acts(parts: Container, connection: Connection, name: str | None, secret: str | None) -> access.Token:
    """The live token that acts; refuses `unknown-credential`, `who-acts`, `bad-token`."""
    if name is not None:
        path = parts.settings.state / "demo-credentials.json"
        known = orjson.loads(path.read_bytes()) if path.exists() else {}
        secret = known.get(name)
        if secret is None:
            raise Refusal(
                Kind.NOT_FOUND, "unknown-credential", f"{path} holds no {name!r}: give --token-file instead."
            )
    if secret is None:
        raise Refusal(
            Kind.UNAUTHENTICATED,
            "who-acts",
            "Say who acts: --as registrar_a, --token-file FILE, or SCEAU_TOKEN.",
        )
    token = access.authenticate(connection, secret, parts.present(connection))
    return replace(token, allowance=parts.settings.allowance)


@contextmanager
def withdrawing(parts: Container, *, as_json: bool) -> Iterator[Connection]:
    """The transaction of an act that takes trust away; that a limit was reached is written into the log."""
    with (
        refusals_told(as_json=as_json),
        withdrawal_limits.audit_limit_refusals(parts.engine, parts.clock()),
        transaction(parts.engine) as connection,
    ):
        yield connection


@dataclass(frozen=True)
class _Asked:
    """Who asks or approves from a terminal, and what he signs with."""

    parts: Container
    name: str | None
    secret: str | None
    key: Path | None
    act: Path | None
    drafted: UUID | None

    def seen(self, enrolment_id: UUID) -> Enrolment:
        """The enrolment that is to be approved."""
        with transaction(self.parts.engine, read_only=True) as connection:
            return enrolling.enrolment_seen(
                connection, token=self._token(connection), enrolment_id=enrolment_id
            )

    def drawn_up(self, practitioner: str, mailbox: str, identity_check: Mapping[str, str]) -> Enrolment:
        """The enrolment as it is asked for, under the id that was signed for, if one was."""
        with transaction(self.parts.engine, read_only=True) as connection:
            return enrolling.draw_up(
                connection, now=self.parts.present(connection), token=self._token(connection),
                practitioner=read_national_id(practitioner, strict=self.parts.settings.strict_rpps),
                mailbox=mailbox, identity_check=identity_check, enrolment_id=self.drafted,
            )  # fmt: skip

    def handed_in(self, kind: ActKind, enrolment: Enrolment) -> Enrolment:
        """Ask or approve, with the act where one is signed: nothing is open while somebody reads."""
        powers, signed = self.parts.powers_followed, self._signed(kind, enrolment)
        with transaction(self.parts.engine) as connection:
            now, token = self.parts.present(connection), self._token(connection)
            if kind is ActKind.ENROLMENT_APPROVE:
                return enrolling.approve_enrolment(
                    connection, now=now, token=token, enrolment_id=enrolment.id, signed=signed, powers=powers
                )
            return enrolling.request_enrolment(
                connection, now=now, token=token, practitioner=enrolment.practitioner,
                mailbox=enrolment.mailbox, identity_check=enrolment.identity_check,
                enrolment_id=enrolment.id, signed=signed, powers=powers,
            )  # fmt: skip

    def _signed(self, kind: ActKind, enrolment: Enrolment) -> bytes | None:
        if self.act is not None:
            return read_act(self.act)
        powers = self.parts.powers_followed
        if powers is None and self.key is None:
            return None
        powers = need_anchors(powers)
        draft = to_sign(enrolment, kind, powers.anchors.installation)
        if self.key is not None:
            return signed_with(powers, draft, self.key)
        own = self.name is not None and (self.parts.settings.persons / f"{self.name}.pem").is_file()
        return signed_in_demo(self.parts, powers, draft, self.name or "") if own else None

    def _token(self, connection: Connection) -> access.Token:
        return who_acts(self.parts, connection, self.name, self.secret)


@click.command()
@click.argument("practitioner", required=False)
@click.argument("mailbox", required=False)
@click.option("--approve", "approved", type=click.UUID, default=None, help="Approve this enrolment instead.")
@click.option("--key", type=FILE, help="Sign with your key (PEM), where the installation has anchors.")
@click.option("--draft", is_flag=True, help="Print what is to be signed (`sceau sign`), and ask for nothing.")
@click.option("--act", type=FILE, help="The draft, signed elsewhere.")
@click.option("--id", "drafted", type=click.UUID, help="The enrolment that the draft names, with --act.")
@click.option(
    "--method",
    type=click.Choice(["in-person", "video", "existing-card"]),
    default="in-person",
    show_default=True,
)
@click.option("--document", default="identity card", show_default=True, help="The document shown.")
@click.option(
    "--checked-on", type=click.DateTime(["%Y-%m-%d"]), default=None, help="Day of the check [today]."
)
@identity_option
@state_option
@json_option
def enrol(
    practitioner: str | None,
    mailbox: str | None,
    approved: UUID | None,
    key: Path | None,
    draft: bool,
    act: Path | None,
    drafted: UUID | None,
    method: str,
    document: str,
    checked_on: datetime | None,
    name: str | None,
    secret: str | None,
    state: Path | None,
    as_json: bool,
) -> None:
    """Request the enrolment of PRACTITIONER (national id) for MAILBOX; another registrar then approves it.

    \b
    Examples:
      sceau enrol 810099000019 dr.a@one.example --as registrar_a
      sceau enrol --approve 3f0c… --as registrar_b
      sceau enrol 810099000019 dr.a@one.example --token-file token --key chloe.pem
    """
    if approved is None and not (practitioner and mailbox):
        raise click.UsageError("Give PRACTITIONER and MAILBOX, or --approve ID.")
    parts = container(state, as_json=as_json, gives=True)
    day: date = (checked_on or parts.clock()).date()
    with refusals_told(as_json=as_json):
        asked = _Asked(parts, name, secret, key, act, drafted)
        if approved is not None:
            kind, drawn_up = ActKind.ENROLMENT_APPROVE, asked.seen(approved)
        else:
            check = {"method": method, "document": document, "checked_on": day.isoformat()}
            kind = ActKind.ENROLMENT_REQUEST
            drawn_up = asked.drawn_up(practitioner or "", mailbox or "", check)
        if draft:
            here = need_anchors(parts.powers_followed).anchors.installation
            click.echo(to_sign(drawn_up, kind, here).text().decode())
            return
        made = asked.handed_in(kind, drawn_up)
    told = {
        "id": str(made.id),
        "state": made.state.value,
        "practitioner": made.practitioner,
        "mailbox": made.mailbox,
    }
    named = {key: value for key, value in (made.names or {}).items() if key not in ("kind", "address")}
    row = (*told.values(), ", ".join(str(value) for value in named.values() if isinstance(value, str)))
    answer({**told, "names": made.names}, as_json=as_json, rows=[row], headers=(*told, "names"))


@click.command()
@click.argument("enrolment", type=click.UUID)
@click.option("--csr", type=click.File("rb"), required=True, help="PKCS#10 request, PEM or DER.")
@click.option(
    "--purpose",
    type=click.Choice([purpose.value for purpose in Purpose]),
    default=None,
    help="The use of the key, where the setting mail_keys is separate.",
)
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), default=None, help="Where to write the PEM."
)
@identity_option
@state_option
@json_option
def issue(
    enrolment: UUID, csr: BinaryIO, purpose: str | None, out: Path | None, name: str | None,
    secret: str | None, state: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Issue the certificate of an approved ENROLMENT to the key of a certificate request.

    \b
    Examples:
      sceau issue 3f0c… --csr request.pem --as registrar_a --out certificate.pem
      sceau issue 3f0c… --csr request.pem --as registrar_a --purpose encryption
    """
    parts = container(state, as_json=as_json, gives=True)
    with refusals_told(as_json=as_json):
        with transaction(parts.engine) as connection:
            token = who_acts(parts, connection, name, secret)
        made = for_enrolment.issue_for_enrolment(
            parts.engine,
            parts.signer,
            now=parts.present(),
            token=token,
            enrolment_id=enrolment,
            csr=csr.read(),
            base_url=parts.settings.base_url,
            purposes=parts.purposes(None if purpose is None else Purpose(purpose)),
            quotas=parts.settings.quotas,
        )
    if out is not None:
        out.write_text(made.pem)
    told = {"serial": made.serial, "not_after": made.not_after, "pem": made.pem}
    answer(
        told,
        as_json=as_json,
        rows=[(made.serial, made.not_after, out or "")],
        headers=("serial", "not after", "file"),
        # The PEM alone goes into the file that a shell redirects to.
        beside=out is None,
    )
    if out is None and not as_json:
        sys.stdout.write(made.pem)


@click.command()
@click.argument("serial")
@click.option("--reason", type=click.Choice([reason.value for reason in RevocationReason]), required=True)
@click.option("--comment", default="", help="Why, in a sentence; kept in the log.")
@click.option("--dry-run", is_flag=True, help="Say what would be revoked, and revoke nothing.")
@identity_option
@state_option
@json_option
def revoke(
    serial: str, reason: str, comment: str, dry_run: bool, name: str | None, secret: str | None,
    state: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Revoke the certificate SERIAL (hexadecimal), for good unless the reason is certificateHold.

    \b
    keyCompromise         key lost, stolen or known to somebody else, or that cannot be ruled out
    affiliationChanged    a name, profession or establishment in it is no longer true
    superseded            another certificate replaces it; nothing is wrong with the key
    cessationOfOperation  needed no more: end of activity, mailbox closed, server taken down
    certificateHold       suspended while in doubt, final after 14 days unless released
    privilegeWithdrawn    the right to use it is withdrawn: struck off, rules broken
    cACompromise          the CA's own key; reserved to its owner
    \b
    Example:  sceau revoke 5f03… --reason keyCompromise --comment "lost laptop" --as registrar_a
    """
    parts = container(state, as_json=as_json)
    with withdrawing(parts, as_json=as_json) as connection:
        token = who_acts(parts, connection, name, secret)
        done = requests.revoke_as(
            connection,
            now=parts.present(connection),
            token=token,
            serial=serials.parse_serial(serial),
            reason=RevocationReason(reason),
            comment=comment,
        )
        if dry_run:
            connection.rollback()
    told = {
        "serial": done.serial,
        "reason": done.reason.value,
        "revoked_at": done.revoked_at,
        "dry_run": dry_run,
    }
    answer(told, as_json=as_json, rows=[tuple(told.values())], headers=tuple(told))

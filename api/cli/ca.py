"""`sceau ca`: the ceremony that makes CAs, the offline machine's part in it, the step to the next generation.

Run by the account of the signer: these commands, and the signer, are all that ever opens a CA key.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from api.cli.output import COMMAND, answer, container, json_option, people, refusals_told, state_option
from api.installation.ca_keys import ca_keys
from api.settings import Settings, load_settings
from directory.base.clock import utc_now
from directory.base.db import transaction
from directory.base.errors import Kind, Refusal
from pki.ceremony import intake, offline, perform, plan, rollover, signing
from pki.ceremony import store as ceremony_store
from pki.ceremony.plan import Place, Plan
from pki.ceremony.signing import KeyRing
from pki.certificates.serials import parse_serial
from pki.model import Authority, CrlForm, RevocationReason, Serial
from pki.record import authorities

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
plan_argument = click.argument("plan_file", metavar="FILE", type=FILE)
folder_option = click.option(
    "--folder", type=FOLDER, required=True, help="The folder that is carried between the two machines."
)
_STATES = {"active": "issues", "standby": "stands by", "retired": "retired"}


@click.group()
def ca() -> None:
    """Certificate authorities: make them, follow one generation by the next."""


@ca.command()
@plan_argument
@click.option("--dry-run", is_flag=True, help="Print all that would be signed; touch no key and no row.")
@click.option("--transcript", type=click.Path(dir_okay=False, path_type=Path), help="Where to write it.")
@click.option("--folder", type=FOLDER, help="Where to write requests for the offline machine.")
@state_option
@json_option
def ceremony(
    plan_file: Path, dry_run: bool, transcript: Path | None, folder: Path | None, state: Path | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Make the CAs that FILE names and that do not exist; existing ones are compared and kept.

    \b
    Examples:
      sceau ca ceremony hierarchy.toml --dry-run
      sceau ca ceremony hierarchy.toml --transcript ceremony.txt
    """
    parts = container(state, as_json=as_json)
    with refusals_told(as_json=as_json):
        read = _plan(plan_file, parts.settings)
        if dry_run:
            with transaction(parts.engine, read_only=True) as connection:
                click.echo(perform.preview(connection, read, parts.clock()), nl=False)
            return
        done = perform.perform(parts.engine, read, _ring(parts.settings), now=parts.clock(), actor=COMMAND)
        for name, request in done.requests.items():
            _keep(folder, f"{name}.csr", request)
    _tell(done.transcript, transcript)
    told = {"made": done.made, "kept": done.kept, "waiting": done.waiting}
    answer(told, as_json=as_json, rows=_steps(told), headers=("authority", "state"))


@ca.command()
@click.argument("name")
@click.option("--ceremony", "plan_file", type=FILE, required=True, help="The reviewed file.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="[default: standard output]")
@state_option
def request(name: str, plan_file: Path, out: Path | None, state: Path | None) -> None:
    """Write the request (PKCS #10) of the issuing CA NAME, signed by its key, which must be here.

    \b
    Example:  sceau ca request persons-1 --ceremony hierarchy.toml --out persons-1.csr
    """
    with refusals_told():
        settings = load_settings(state)
        planned = _plan(plan_file, settings).authority(name)
        made = signing.request(planned, _ring(settings).held(planned))
    if out is None:
        click.echo(made.decode(), nl=False)
    else:
        out.write_bytes(made)


@ca.command()
@click.argument("certificate_file", metavar="CERTIFICATE", type=FILE)
@click.option("--ceremony", "plan_file", type=FILE, required=True, help="The reviewed file.")
@click.option(
    "--sha256", "fingerprint", help="Its digest in the offline machine's transcript; a root needs it."
)
@state_option
@json_option
def certificate(
    certificate_file: Path, plan_file: Path, fingerprint: str | None, state: Path | None, as_json: bool
) -> None:
    """Take in a CA certificate that was signed offline, once all of it is as the reviewed file says.

    \b
    Example:  sceau ca certificate persons-1.cer --ceremony hierarchy.toml
    """
    parts = container(state, as_json=as_json)
    with refusals_told(as_json=as_json):
        name = intake.take_certificate(
            parts.engine, _plan(plan_file, parts.settings), _ring(parts.settings),
            certificate_file.read_bytes(), now=parts.clock(), actor=COMMAND, fingerprint=fingerprint,
        )  # fmt: skip
    answer({"taken": name}, as_json=as_json, rows=[(name,)], headers=("taken",))


@ca.command()
@click.argument("crl_file", metavar="CRL", type=FILE)
@state_option
@json_option
def crl(crl_file: Path, state: Path | None, as_json: bool) -> None:
    """Publish the CRL (DER) of a root whose key lies offline, once it has passed its gate.

    \b
    Example:  sceau ca crl root-1.crl
    """
    parts = container(state, as_json=as_json)
    with refusals_told(as_json=as_json):
        name, number = intake.take_list(
            parts.engine, crl_file.read_bytes(), floor_file=parts.settings.crl_floor, now=parts.clock(),
            actor=COMMAND,
        )  # fmt: skip
    told = {"authority": name, "number": number}
    answer(told, as_json=as_json, rows=[(name, number)], headers=("authority", "CRL"))


@ca.command(name="sign-offline")
@plan_argument
@folder_option
@click.option("--transcript", type=click.Path(dir_okay=False, path_type=Path), help="Where to write it.")
@state_option
@json_option
def sign_offline(
    plan_file: Path, folder: Path, transcript: Path | None, state: Path | None, as_json: bool
) -> None:
    """On the offline machine: sign what FILE asks of its roots; requests come from the folder.

    The root's key lies encrypted in `ca` of the state folder, where it is made at the first run. No database.

    \b
    Example:  sceau ca sign-offline hierarchy.toml --folder carried --state offline
    """
    with refusals_told(as_json=as_json):
        settings = load_settings(state)
        ring = _ring(settings, offline=True)
        done = offline.sign_all(_plan(plan_file, settings, here=False), ring, folder, utc_now())
    _tell(done.transcript, transcript)
    told = {"made": done.made, "missing": done.missing}
    answer(told, as_json=as_json, rows=_steps(told), headers=("authority", "state"))


@ca.command(name="root-crl")
@plan_argument
@click.argument("name")
@folder_option
@click.option("--revoke", "revoked", multiple=True, metavar="SERIAL=REASON", help="Add an entry; repeatable.")
@click.option("--days", type=int, default=365, show_default=True, help="Days it holds.")
@state_option
def root_crl(
    plan_file: Path, name: str, folder: Path, revoked: tuple[str, ...], days: int, state: Path | None
) -> None:  # fmt: skip
    """On the offline machine: make the next CRL of the root NAME, after the one in the folder.

    \b
    Example:  sceau ca root-crl hierarchy.toml root-1 --folder carried --state offline
    """
    with refusals_told():
        settings = load_settings(state)
        offline.root_crl(
            _plan(plan_file, settings, here=False), name, _ring(settings, offline=True), folder,
            revoked=_revoked(revoked), days=days, now=utc_now(),
        )  # fmt: skip
    click.echo(str(folder / f"{name}.crl"))


@ca.command()
@click.argument("name")
@state_option
@json_option
def activate(name: str, state: Path | None, as_json: bool) -> None:
    """Let the CA NAME issue, once its CRLs, its OCSP responder and the bridges between roots are there.

    \b
    Example:  sceau ca activate persons-2
    """
    _turn(rollover.activate, name, state, as_json=as_json)


@ca.command()
@click.argument("name")
@state_option
@json_option
def retire(name: str, state: Path | None, as_json: bool) -> None:
    """Let the CA NAME issue no more; its CRL and OCSP go on.

    \b
    Example:  sceau ca retire persons-1
    """
    _turn(rollover.retire, name, state, as_json=as_json)


@ca.command(name="list")
@state_option
@json_option
def list_authorities(state: Path | None, as_json: bool) -> None:
    """List every CA and every certificate between roots, and until when offline roots have a CRL.

    \b
    Example:  sceau ca list
    """
    parts = container(state, as_json=as_json)
    with refusals_told(as_json=as_json), transaction(parts.engine, read_only=True) as connection:
        all_authorities, between = authorities.authorities(connection), ceremony_store.crosses(connection)
        due = rollover.root_crl_ends(connection)
    told = [
        {"id": authority.id, "state": authority.state.value, "role": authority.role,
         "issuer": authority.issuer_id, "offline": authority.offline, "subject": authority.subject,
         "not_after": authority.not_after, "crl": authority.crl_form.value, "shards": authority.shards}
        for authority in all_authorities
    ]  # fmt: skip
    bridges = [
        {"id": cross.id, "subject": cross.subject_id, "issuer": cross.issuer_id, "not_after": cross.not_after}
        for cross in between
    ]
    lines: list[tuple[Any, ...]] = [
        (
            authority.id,
            _state(authority),
            authority.subject,
            authority.issuer_id,
            f"{authority.not_after:%Y-%m-%d}",
            _crl(authority),
        )
        for authority in all_authorities
    ]
    lines += [
        (cross.id, "cross", cross.subject_id, cross.issuer_id, f"{cross.not_after:%Y-%m-%d}", "")
        for cross in between
    ]
    headers = ("authority", "state", "subject", "issuer", "ends", "CRL")
    if due is not None:
        lines.append(("CRL", "offline", "", None, f"{due:%Y-%m-%d}", ""))
    whole = {"items": told, "crosses": bridges, "root_crl_ends": due}
    answer(whole, as_json=as_json, rows=lines, headers=headers)


def _plan(path: Path, settings: Settings, *, here: bool = True) -> Plan:
    # The offline machine has no address: there the file must name it.
    return plan.read(path.read_bytes(), settings.base_url if here else "")


def _ring(settings: Settings, *, offline: bool = False) -> KeyRing:
    if offline:
        return KeyRing({Place.OFFLINE: ca_keys(settings)})
    place = Place.FILE if settings.token is None else Place.TOKEN
    return KeyRing({place: ca_keys(settings)})


def _keep(folder: Path | None, name: str, content: bytes) -> None:
    if folder is None:
        people.print(f"{name}: `sceau ca request` writes it; with --folder this command does.")
        return
    (folder / name).write_bytes(content)


def _tell(told: str, transcript: Path | None) -> None:
    if not told:
        return
    if transcript is None:
        people.print(told, markup=False, soft_wrap=True)
    else:
        transcript.write_text(told)


def _steps(told: Mapping[str, tuple[str, ...]]) -> list[tuple[Any, ...]]:
    words = {"made": "made", "kept": "kept", "waiting": "waits offline", "missing": "no request"}
    return [(name, words[what]) for what, names in told.items() for name in names]


def _revoked(words: tuple[str, ...]) -> dict[Serial, RevocationReason]:
    reasons = {}
    for word in words:
        serial, _, reason = word.partition("=")
        try:
            reasons[parse_serial(serial)] = RevocationReason(reason)
        except ValueError as error:
            known = ", ".join(code.value for code in RevocationReason)
            text = f"{reason!r} is no reason: one of {known}."
            raise Refusal(Kind.MALFORMED, "malformed-reason", text) from error
    return reasons


def _turn(act: Callable[..., Authority], name: str, state: Path | None, *, as_json: bool) -> None:
    parts = container(state, as_json=as_json)
    with refusals_told(as_json=as_json), transaction(parts.engine) as connection:
        act(connection, name, now=parts.clock(), actor=COMMAND)
        authority = authorities.load_authority(connection, name)
    if authority is not None:
        answer(
            {"id": authority.id, "state": authority.state.value}, as_json=as_json,
            rows=[(authority.id, _state(authority))],
            headers=("authority", "state"),
        )  # fmt: skip


def _crl(authority: Authority) -> str:
    return (
        authority.crl_form.value
        if authority.crl_form is CrlForm.PLAIN
        else f"{authority.crl_form.value} ({authority.shards})"
    )


def _state(authority: Authority) -> str:
    return _STATES[authority.state.value]

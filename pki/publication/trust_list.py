"""The trust list: which domains, operators and CAs are trusted here, whole, numbered and signed.

As JSON under a JWS, as XML in the national white list's format, and the CAs alone as PKCS #7. What it is made
of lies in `trust_list_store`; when a job looks and how it is handed out are for `api`.
"""

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any
from xml.sax.saxutils import escape

import orjson
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7
from sqlalchemy import Connection, Engine, RowMapping

from directory.base.audit import Actor, Event, record
from directory.base.db import transaction
from pki.publication import trust_list_store as store
from pki.publication.trust_list_store import Version, Waiting
from pki.service_keys.jws import ListSigner, detached

FORMAT = 1
# `typ` of the two signatures (RFC 7515 4.1.9).
LIST_TYPE, XML_TYPE = "sceau-trust-list+json", "sceau-trust-list+xml"
NAMESPACE = "https://listeblanche.mssante.fr/schema"
# A list says itself until when it holds; half of that is time to mend what keeps the next from being made.
LIFE = timedelta(days=7)
# A night that moves a thousand domains makes one version; a suspension waits for no other change.
SPACING, URGENT_SPACING = timedelta(minutes=10), timedelta(seconds=10)
_ACTOR = Actor("job:trust-list")
Entry = dict[str, Any]


@dataclass(frozen=True)
class Content:
    """What a list says, without its number and times: the same content makes no new version."""

    operators: tuple[Entry, ...]
    domains: tuple[Entry, ...]
    authorities: tuple[Entry, ...]
    cross_certificates: tuple[Entry, ...]

    @property
    def digest(self) -> bytes:
        """SHA-256 over the content as it is written."""
        return sha256(orjson.dumps(self, option=orjson.OPT_UTC_Z)).digest()


@dataclass(frozen=True)
class _Draft:
    """A content that wants to be signed as the version after `previous`; `done` are the notes it answers."""

    content: Content
    previous: Version | None
    done: Waiting


def publish_if_due(engine: Engine, signer: Callable[[], ListSigner], now: datetime) -> int | None:
    """Publish a version when the content changed or the last one ages: its number, None when none was due.

    `signer` is asked for its key only then, and outside every transaction.
    """
    with transaction(engine, read_only=True) as connection:
        notes = store.waiting(connection)
        newest = store.latest(connection)
        if not is_due(newest, notes, now):
            return None
        content = compose(connection, newest)
    draft = _Draft(content, newest, notes)
    if newest is not None and newest.content_sha256 == content.digest and not _ages(newest, now):
        with transaction(engine) as connection:
            store.forget(connection, notes)
        return None
    return _publish(engine, signer(), draft, now)


def is_due(newest: Version | None, notes: Waiting, now: datetime) -> bool:
    """Whether to look now: none yet, one that ages, or notes that have waited as long as they must."""
    if newest is None or _ages(newest, now):
        return True
    spacing = URGENT_SPACING if notes.urgent else SPACING
    # One dated ahead, by a clock that jumped, holds up nothing.
    return bool(notes.ids) and not timedelta() <= now - newest.made_at < spacing


def _ages(newest: Version, now: datetime) -> bool:
    return newest.next_update - now < LIFE / 2


def _publish(engine: Engine, signer: ListSigner, draft: _Draft, now: datetime) -> int | None:
    made = sign(draft.content, 1 + (draft.previous.version if draft.previous else 0), signer, now)
    with transaction(engine) as connection:
        store.alone_until_commit(connection)
        if store.latest_number(connection) != made.version - 1:
            # Another worker was first: it leaves the notes of this one to the next look.
            return None
        store.add(connection, made)
        store.forget(connection, draft.done)
        record(
            connection, now=now, actor=_ACTOR, event=Event.TRUST_LIST_PUBLISHED, subject=str(made.version),
            detail={
                "sha256": sha256(made.payload).hexdigest(), "content_sha256": made.content_sha256.hex(),
                "domains": len(draft.content.domains), "operators": len(draft.content.operators),
                "authorities": len(draft.content.authorities),
            },
        )  # fmt: skip
    return made.version


def compose(connection: Connection, previous: Version | None) -> Content:
    """What the record says now; where a state is as in `previous`, it holds since the same instant."""
    known = _since(previous)
    return Content(
        operators=tuple(
            {"certificate_dn": row.certificate_dn, "name": row.name}
            | _state(known, ("operator", row.certificate_dn), row)
            for row in store.operators(connection)
        ),
        domains=tuple(
            {"name": row.name, "operator": row.certificate_dn, "description": row.description}
            | {"updated_at": row.updated_at}
            | _state(known, (row.name, row.certificate_dn), row)
            for row in store.domains(connection)
        ),
        authorities=tuple(_certified(row) for row in store.authorities(connection)),
        cross_certificates=tuple(_certified(row) for row in store.cross_certificates(connection)),
    )


def sign(content: Content, version: int, signer: ListSigner, now: datetime) -> Version:
    """This content as that version, in both forms, under the signer's key, no longer than that key holds."""
    made_at = now.astimezone(UTC).replace(microsecond=0)
    ends = x509.load_der_x509_certificate(signer.certificate).not_valid_after_utc
    next_update = min(made_at + LIFE, ends)
    told = {
        "format": FORMAT, "version": version, "made_at": made_at, "next_update": next_update,
        "content_sha256": content.digest.hex(), **vars(content),
    }  # fmt: skip
    payload, xml = orjson.dumps(told, option=orjson.OPT_UTC_Z), as_xml(content, made_at)
    return Version(
        version, content.digest, made_at, next_update,
        payload, detached(signer.sign(payload, LIST_TYPE)), xml, detached(signer.sign(xml, XML_TYPE)),
    )  # fmt: skip


def as_jws(version: Version) -> bytes:
    """The version as it was signed: a compact JWS around its JSON."""
    header, _, signature = version.signature.partition("..")
    return b".".join(
        (header.encode(), base64.urlsafe_b64encode(version.payload).rstrip(b"="), signature.encode())
    )


def as_xml(content: Content, made_at: datetime) -> bytes:
    """The trusted domains in the national white list's format (registries: order and dates of its sample).

    It knows no state, and who stands in it is trusted: what is suspended is left out. Contacts are not kept
    here, so theirs are empty.
    """
    entries = "".join(_as_element(domain) for domain in content.domains if domain["state"] == "trusted")
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<ListeBlancheMSSante xmlns="{NAMESPACE}">\n'
        f"<DateDeGeneration>{_instant(made_at)}</DateDeGeneration>\n"
        f"<ListeDomaines>\n{entries}</ListeDomaines>\n</ListeBlancheMSSante>\n"
    ).encode()


def as_bundle(certificates: list[bytes]) -> bytes:
    """Certificates in DER as PKCS #7 without content (RFC 8551 3.2.2, certs-only), in DER."""
    loaded = [x509.load_der_x509_certificate(der) for der in certificates]
    return pkcs7.serialize_certificates(loaded, Encoding.DER)


def _as_element(entry: Entry) -> str:
    fields = {
        "Nom": entry["name"], "Description": entry["description"], "DNCertificatOperateur": entry["operator"],
        "ResponsableContact": "", "SupportContact": "",
        "DateMAJ": _instant(entry["updated_at"] or entry["since"]),
    }  # fmt: skip
    inside = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in fields.items())
    return f"<Domaine>{inside}</Domaine>\n"


def _instant(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _since(previous: Version | None) -> dict[tuple[str, str], tuple[str, datetime]]:
    """For each operator and right of the previous list: its state, and since when."""
    if previous is None:
        return {}
    told = orjson.loads(previous.payload)
    keyed = [(("operator", operator["certificate_dn"]), operator) for operator in told["operators"]]
    keyed += [((domain["name"], domain["operator"]), domain) for domain in told["domains"]]
    return {key: (entry["state"], datetime.fromisoformat(entry["since"])) for key, entry in keyed}


def _state(known: Mapping[tuple[str, str], tuple[str, datetime]], key: tuple[str, str], row: Any) -> Entry:
    state, begun = ("trusted", row.sys_from) if row.suspended_at is None else ("suspended", row.suspended_at)
    before = known.get(key)
    # A row's own instant moves with each change of its description.
    since = before[1] if before is not None and before[0] == state else begun.replace(microsecond=0)
    return {"state": state, "since": since}


def _certified(row: RowMapping) -> Entry:
    told = {name: value for name, value in row.items() if name != "der"}
    digest, whole = sha256(row["der"]).hexdigest(), base64.b64encode(row["der"]).decode()
    return told | {"sha256": digest, "certificate": whole}

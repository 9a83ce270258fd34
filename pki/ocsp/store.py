"""The rows behind OCSP: what stands about a serial, which answers are signed, which wait. No DER."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, text

from pki.model import Serial, SerialStatus


@dataclass(frozen=True)
class Presigned:
    """An answer signed ahead of any question."""

    der: bytes
    this_update: datetime
    next_update: datetime


@dataclass(frozen=True)
class Waiting:
    """A promised answer not yet signed, or soon to be renewed; `not_after` is the certificate's."""

    serial: Serial
    hash: str
    authority_id: str
    not_after: datetime
    standing: SerialStatus


@dataclass(frozen=True)
class ResponderRow:
    """A responder's certificate; its key lies in a file of the web's."""

    serial: Serial
    authority_id: str
    der: bytes
    not_before: datetime
    not_after: datetime


# A measure recorded ahead holds its person's certificates from its own instant on, whoever is late to write
# that down. `ends` is the next instant at which one of them begins or ends: no answer holds beyond it.
_MEASURED = """
    LEFT JOIN LATERAL (
        SELECT min(m.starts_at) FILTER (
                   WHERE m.starts_at <= clock_timestamp() AND m.starts_at > m.recorded_at) AS begun,
               min(CASE WHEN m.starts_at > clock_timestamp() THEN m.starts_at ELSE m.ends_at END) AS ends
        FROM measure m WHERE m.national_id = ANY(ARRAY(
            SELECT c.practitioner
            UNION ALL SELECT u.national_id FROM succession u WHERE u.successor = c.practitioner
            UNION ALL SELECT u.successor FROM succession u JOIN practitioner p USING (national_id)
            WHERE u.national_id = c.practitioner AND p.departed_at IS NOT NULL))
        AND (m.ends_at IS NOT NULL OR m.starts_at > m.recorded_at)
        AND (m.ends_at IS NULL OR m.ends_at > greatest(m.starts_at, clock_timestamp()))
    ) AS measured ON c.practitioner IS NOT NULL
    CROSS JOIN LATERAL (
        SELECT measured.begun IS NOT NULL AND coalesce(last.action, 'release') = 'release' AS late) AS hold
"""
_STATE = """
    CASE WHEN hold.late THEN 'hold' ELSE last.action END,
    CASE WHEN hold.late THEN 'certificateHold' ELSE last.reason END,
    CASE WHEN hold.late THEN greatest(measured.begun, c.issued_at) ELSE last.revoked_at END, measured.ends"""
# One statement, hence one instant: certificate, last event and stored answer belong together.
_STANDING = text(f"""
    SELECT c.sha256, {_STATE}, a.der, a.this_update, a.next_update
    FROM (SELECT CAST(:serial AS text) AS serial) AS asked
    LEFT JOIN certificate c ON c.serial = asked.serial AND c.authority_id = :authority
    LEFT JOIN LATERAL (
        SELECT action, reason, revoked_at FROM revocation_state r
        WHERE r.serial = asked.serial AND r.authority_id = :authority LIMIT 1
    ) AS last ON true
    {_MEASURED}
    LEFT JOIN ocsp_answer a ON a.serial = asked.serial AND a.hash = :hash
""")  # noqa: S608 - constants of this module
_STANDINGS = text(f"""
    SELECT asked.serial, c.sha256, {_STATE}
    FROM unnest(CAST(:serials AS text[])) AS asked (serial)
    LEFT JOIN certificate c ON c.serial = asked.serial AND c.authority_id = :authority
    LEFT JOIN LATERAL (
        SELECT action, reason, revoked_at FROM revocation_state r
        WHERE r.serial = asked.serial AND r.authority_id = :authority LIMIT 1
    ) AS last ON true
    {_MEASURED}
""")  # noqa: S608 - same
# A CA that issues no more is answered for to its end; after it, it can certify nobody to answer.
_ISSUING = text("""
    SELECT id, der, not_before FROM authority WHERE kind = 'issuing' AND not_after > :now ORDER BY id
""")
# Two statements because each is answered by the index alone, whatever the number of certificates. What nobody
# here can sign is passed over, or a full batch of it would hold up the answers of every other CA.
_OURS = """
    EXISTS (SELECT FROM certificate c WHERE c.serial = a.serial
            AND (c.authority_id = ANY(:authorities) OR c.not_after <= :now))
"""
_UNSIGNED = text(f"""
    SELECT serial, hash FROM ocsp_answer a WHERE next_update IS NULL AND {_OURS}
    LIMIT :limit FOR UPDATE OF a SKIP LOCKED
""")  # noqa: S608 - constants of this module
_AGEING = text(f"""
    SELECT serial, hash FROM ocsp_answer a WHERE next_update < :before AND {_OURS}
    AND (this_update < :older OR next_update - this_update >= CAST(:whole AS interval))
    ORDER BY next_update LIMIT :limit FOR UPDATE OF a SKIP LOCKED
""")  # noqa: S608 - same
_WAITING = text(f"""
    SELECT asked.serial, asked.hash, c.authority_id, c.not_after, c.sha256, {_STATE}
    FROM unnest(CAST(:serials AS text[]), CAST(:hashes AS text[])) AS asked (serial, hash)
    JOIN certificate c ON c.serial = asked.serial
    LEFT JOIN LATERAL (
        SELECT action, reason, revoked_at FROM revocation_state r WHERE r.serial = c.serial LIMIT 1
    ) AS last ON true
    {_MEASURED}
""")  # noqa: S608 - same
_STORE = text("""
    UPDATE ocsp_answer a SET responder = :responder, der = made.der, this_update = made.this_update,
           next_update = made.next_update
    FROM unnest(CAST(:serials AS text[]), CAST(:hashes AS text[]), CAST(:ders AS bytea[]),
                CAST(:these AS timestamptz[]), CAST(:nexts AS timestamptz[]))
         AS made (serial, hash, der, this_update, next_update)
    WHERE a.serial = made.serial AND a.hash = made.hash
""")
_DROP = text("DELETE FROM ocsp_answer WHERE serial = :serial AND hash = :hash")
# Clients do not ask about a responder (id-pkix-ocsp-nocheck): that its key is lost, only we can heed.
_RESPONDERS = text("""
    SELECT o.serial, o.authority_id, o.der, o.not_before, o.not_after FROM ocsp_responder o
    LEFT JOIN LATERAL (
        SELECT action FROM revocation_state r WHERE r.serial = o.serial LIMIT 1
    ) AS last ON true
    WHERE o.not_before <= :now AND o.not_after > :now AND coalesce(last.action, 'release') = 'release'
    ORDER BY o.not_after DESC, o.serial
""")
_ADD_RESPONDER = text("""
    INSERT INTO ocsp_responder (serial, authority_id, der, not_before, not_after)
    VALUES (:serial, :authority_id, :der, :not_before, :not_after)
""")


def standing(
    connection: Connection, authority_id: str, serial: Serial, hash_name: str
) -> tuple[SerialStatus, Presigned | None]:
    """What the record says of a serial of this CA, and the answer signed ahead, if there is one."""
    asked = {"authority": authority_id, "serial": serial, "hash": hash_name}
    *state, der, this_update, next_update = connection.execute(_STANDING, asked).one()
    known = SerialStatus(*state)
    return known, None if der is None else Presigned(der, this_update, next_update)


def standings(
    connection: Connection, authority_id: str, serials: Sequence[Serial]
) -> dict[Serial, SerialStatus]:
    """What the record says of each of these serials of this CA, all at one instant."""
    rows = connection.execute(_STANDINGS, {"authority": authority_id, "serials": list(serials)})
    return {Serial(serial): SerialStatus(*state) for serial, *state in rows}


def issuing(connection: Connection, now: datetime) -> list[tuple[str, bytes, datetime]]:
    """Id, certificate and first day of each CA whose certificates are answered for."""
    return [(row.id, row.der, row.not_before) for row in connection.execute(_ISSUING, {"now": now})]


def waiting(
    connection: Connection,
    now: datetime,
    before: datetime,
    limit: int,
    authorities: Sequence[str],
    *,
    older: datetime,
    whole: timedelta,
) -> list[Waiting]:
    """Up to `limit` answers to sign: those promised and unsigned first, then those ending before `before`.

    Of the latter, an answer that holds for less than a `whole` lifetime was cut short by a measure that
    begins or ends. It is signed anew only when it was true since before `older`, since it would last no
    longer.

    Of certificates of these CAs, and of any that have expired by `now`.

    They stay locked until commit. A revocation waits and then empties the responses about to be stored, so
    that no answer older than it can survive it. Rows another worker holds are passed over.
    """
    whose = {"authorities": list(authorities), "now": now}
    keys = list(connection.execute(_UNSIGNED, whose | {"limit": limit}))
    keys += connection.execute(
        _AGEING, whose | {"before": before, "older": older, "whole": whole, "limit": limit - len(keys)}
    )
    asked = {"serials": [row.serial for row in keys], "hashes": [row.hash for row in keys]}
    return [
        Waiting(Serial(serial), hash_name, authority_id, not_after, SerialStatus(*state))
        for serial, hash_name, authority_id, not_after, *state in connection.execute(_WAITING, asked)
    ]


def store(connection: Connection, responder: Serial, signed: Sequence[tuple[Waiting, Presigned]]) -> None:
    """Keep the answers signed ahead by this responder."""
    if signed:
        rows = {
            "responder": responder,
            "serials": [asked.serial for asked, _ in signed],
            "hashes": [asked.hash for asked, _ in signed],
            "ders": [made.der for _, made in signed],
            "these": [made.this_update for _, made in signed],
            "nexts": [made.next_update for _, made in signed],
        }
        connection.execute(_STORE, rows)


def drop(connection: Connection, ended: Sequence[Waiting]) -> None:
    """Promise no more answers about these: their certificates have expired; questions are answered live."""
    if ended:
        connection.execute(_DROP, [{"serial": asked.serial, "hash": asked.hash} for asked in ended])


def responders(connection: Connection, now: datetime) -> list[ResponderRow]:
    """The responders that may sign now, none revoked or on hold, the one that lasts longest first."""
    return [
        ResponderRow(Serial(serial), *rest) for serial, *rest in connection.execute(_RESPONDERS, {"now": now})
    ]


def add_responder(connection: Connection, row: ResponderRow) -> None:
    """Let a responder sign from now on."""
    values = {"serial": row.serial, "authority_id": row.authority_id, "der": row.der}
    connection.execute(_ADD_RESPONDER, values | {"not_before": row.not_before, "not_after": row.not_after})

"""What a run would do to the record, counted before it does it: who leaves, arrives, moves, stops practising.

Set SQL over the run's temporary tables, whose work grows with what is planned; the size of the record is
counted once. How much is too much is for `bounds.py`.
"""

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType

from sqlalchemy import Connection, text

from directory.sync.runs.bounds import LastRun

# A place is an establishment, or else an address; rows from before cells were normalised have other spaces.
_PLACE = (
    "coalesce(nullif(btrim({0}.finess), ''), nullif(btrim({0}.structure_id), ''),"
    " btrim(regexp_replace({0}.street, '[[:space:]\u00a0]+', ' ', 'g')) || '|' || btrim({0}.postal_code))"
)
# What a column may say of somebody; a column that came empty shows as people who lose all that it said.
_COLUMNS = (
    "mode", "sector", "role", "activity_genre", "pharmacist_table", "structure_id", "finess", "legal_finess",
    "siret", "structure_name", "street", "postal_code", "town", "commune", "department", "country",
    "telephone", "registered_by",
)  # fmt: skip

_RPPS = f"""
WITH acts AS (
    SELECT count(*) FILTER (WHERE act = 'remove' AND key NOT LIKE '0%') AS departures,
           count(*) FILTER (WHERE act = 'remove' AND key LIKE '0%') AS adeli_departures,
           count(*) FILTER (WHERE act = 'create') AS arrivals,
           count(*) FILTER (WHERE act = 'change') AS changes
    FROM planned
), held AS (
    SELECT count(*) FILTER (WHERE national_id NOT LIKE '0%') AS present,
           count(*) FILTER (WHERE national_id LIKE '0%') AS adeli_present
    FROM practitioner WHERE departed_at IS NULL
), changed AS (
    SELECT p.key,
           EXISTS (SELECT FROM practice t WHERE t.national_id = p.key) AS practised,
           EXISTS (SELECT FROM staged s WHERE s.national_id = p.key AND s.practice IS NOT NULL) AS practises,
           EXISTS (SELECT FROM practice t JOIN staged s ON s.national_id = t.national_id
                   WHERE t.national_id = p.key AND s.practice IS NOT NULL
                   AND {_PLACE.format("t")} = {_PLACE.format("s")}) AS stays,
           EXISTS (SELECT FROM skill t WHERE t.national_id = p.key AND NOT EXISTS (
                   SELECT FROM staged s WHERE s.national_id = p.key
                   AND (s.skill_type, s.skill_code) = (t.skill_type, t.skill_code)))
           AND NOT EXISTS (SELECT FROM spared x WHERE x.key = 'skills ' || p.key) AS unlearns
    FROM planned p WHERE p.act = 'change'
), moves AS (
    SELECT count(*) FILTER (WHERE practised AND practises AND NOT stays) AS moved,
           count(*) FILTER (WHERE practised AND NOT practises) AS stopped,
           count(*) FILTER (WHERE unlearns) AS skills_lost
    FROM changed
), odd AS (
    SELECT count(*) AS unknown_codes FROM planned p
    WHERE p.act IN ('create', 'change') AND EXISTS (
        SELECT FROM staged s WHERE s.national_id = p.key AND (
            s.profession <> ALL (:profession) OR s.category <> ALL (:category)
            OR s.mode <> ALL (:mode) OR s.skill_type <> ALL (:skill_type)))
)
SELECT *, present + arrivals AS people FROM acts, held, moves, odd
"""  # noqa: S608 - constants of this module

_SAID = ", ".join(f"bool_or({name} <> '') AS {name}" for name in _COLUMNS)
_LOST = ", ".join(f"count(*) FILTER (WHERE b.{name} AND NOT a.{name}) AS {name}" for name in _COLUMNS)
_EMPTIED = f"""
WITH before AS (
    SELECT p.key, {_SAID} FROM planned p JOIN practice t ON t.national_id = p.key
    WHERE p.act = 'change' GROUP BY p.key
), after AS (
    SELECT p.key, {_SAID} FROM planned p JOIN staged s ON s.national_id = p.key
    WHERE p.act = 'change' AND s.practice IS NOT NULL GROUP BY p.key
)
SELECT {_LOST} FROM before b JOIN after a USING (key)
"""  # noqa: S608 - same

_FINESS = """
WITH acts AS (
    SELECT count(*) FILTER (WHERE act = 'remove') AS departures,
           count(*) FILTER (WHERE act = 'create') AS arrivals,
           count(*) FILTER (WHERE act = 'change') AS changes
    FROM planned
), shut AS (
    SELECT count(*) AS closures
    FROM planned p JOIN organisation o ON o.finess = p.key JOIN staged s ON s.finess = p.key
    WHERE p.act = 'change' AND o.closed_on IS NULL AND s.closed_on IS NOT NULL
), borne AS (
    -- The numbers of legal entities and the SIRETs of places that change or go, as they are and as they would
    -- be.
    SELECT o.legal_finess, o.siret FROM planned p JOIN organisation o ON o.finess = p.key
    WHERE p.act IN ('change', 'remove') AND o.departed_at IS NULL
), staying AS (
    SELECT o.legal_finess, o.siret FROM organisation o WHERE o.departed_at IS NULL
    AND NOT EXISTS (SELECT FROM planned p WHERE p.key = o.finess AND p.act IN ('change', 'remove'))
    UNION ALL
    SELECT s.legal_finess, s.siret FROM planned p JOIN staged s ON s.finess = p.key
    WHERE p.act IN ('create', 'change')
), deserted AS (
    SELECT array_agg(number) AS numbers FROM (
        (SELECT legal_finess AS number FROM borne UNION SELECT siret FROM borne)
        EXCEPT (SELECT legal_finess FROM staying UNION SELECT siret FROM staying)) AS gone
), structures AS (
    SELECT count(*) FILTER (WHERE m.address IS NOT NULL) AS mailboxes_deserted
    FROM deserted d CROSS JOIN sceau_mailboxes_of_places('{}', d.numbers, d.numbers) AS of_it (address)
    JOIN mailbox m USING (address)
    WHERE m.holder IS NULL AND m.departed_at IS NULL
    AND NOT EXISTS (SELECT FROM organisation o WHERE m.finess <> '' AND o.finess = m.finess)
), held AS (SELECT count(*) AS present FROM organisation WHERE departed_at IS NULL),
    served AS (SELECT count(*) AS mailboxes FROM mailbox WHERE holder IS NULL AND departed_at IS NULL)
SELECT * FROM acts, shut, structures, held, served
"""

# A person's step from his ADELI number to the number that took its place moves no mailbox.
_MAILBOXES = """
WITH acts AS (
    SELECT count(*) FILTER (WHERE p.act = 'remove' AND m.holder IS NOT NULL) AS departures_personal,
           count(*) FILTER (WHERE p.act = 'remove' AND m.holder IS NULL) AS departures_organisation,
           -- Who comes back arrives: a closed mailbox that opens again is trusted again.
           count(*) FILTER (WHERE s.opens AND s.holder IS NOT NULL) AS arrivals_personal,
           count(*) FILTER (WHERE s.opens AND s.holder IS NULL) AS arrivals_organisation,
           count(*) FILTER (WHERE p.act = 'change' AND NOT s.keeps) AS moved,
           count(*) FILTER (WHERE s.odd) AS unknown_codes
    FROM planned p
    LEFT JOIN mailbox m ON m.address = p.key
    LEFT JOIN LATERAL (
        SELECT max(s.holder) AS holder,
               p.act = 'create' OR (p.act = 'change' AND m.departed_at IS NOT NULL) AS opens,
               bool_or(s.structure_type <> ALL (:structure_type)) AS odd,
               bool_or(CASE WHEN m.kind IN ('ORG', 'APP')
                            THEN s.kind = m.kind AND (
                               (s.structure_type, s.structure_id) = (m.structure_type, m.structure_id)
                               -- As a release before kept it: the spelling of its register.
                               OR (m.structure_type IN ('', s.structure_type)
                                   AND replace(m.structure_id, ' ', '')
                                       IN (s.structure_id, '1' || s.structure_id)))
                            ELSE s.kind = m.kind AND s.holder IS NOT DISTINCT FROM m.holder END
                       OR EXISTS (SELECT FROM succession u
                                  WHERE u.national_id = m.holder AND u.successor = s.holder)) AS keeps
        FROM staged s WHERE s.address = p.key
    ) AS s ON true
), held AS (
    SELECT count(*) FILTER (WHERE holder IS NOT NULL) AS personal,
           count(*) FILTER (WHERE holder IS NULL) AS organisation,
           count(*) AS present
    FROM mailbox WHERE departed_at IS NULL
)
SELECT *, present + arrivals_personal + arrivals_organisation AS mailboxes FROM acts, held
"""

# A domain that keeps one operator is not lost, whichever: rights pass from one to another in bulk.
_TRUSTED_DOMAINS = """
WITH rights AS (
    SELECT d.name, bool_or(p.key IS NULL) AS keeps
    FROM trusted_domain d JOIN operator o ON o.id = d.operator_id
    LEFT JOIN planned p ON p.act = 'remove' AND p.key = d.name || ' ' || o.certificate_dn
    WHERE d.departed_at IS NULL GROUP BY d.name
), gained AS (
    SELECT DISTINCT split_part(p.key, ' ', 1) AS name FROM planned p
    WHERE p.act = 'create' OR p.act = 'change' AND NOT EXISTS (
        SELECT FROM trusted_domain d JOIN operator o ON o.id = d.operator_id
        WHERE d.departed_at IS NULL AND p.key = d.name || ' ' || o.certificate_dn)
), lost AS (
    SELECT r.name FROM rights r WHERE NOT r.keeps AND NOT EXISTS (SELECT FROM gained g WHERE g.name = r.name)
)
SELECT (SELECT count(*) FROM rights) AS domains,
       (SELECT count(*) FROM lost) AS domains_lost,
       (SELECT count(*) FROM gained g JOIN rights r USING (name)) AS domains_moved,
       (SELECT count(*) FROM gained g WHERE NOT EXISTS (
            SELECT FROM rights r WHERE r.name = g.name)) AS domains_new,
       (SELECT count(*) FROM mailbox m JOIN lost l ON l.name = m.domain
        WHERE m.departed_at IS NULL) AS mailboxes_cut_off,
       (SELECT count(*) FROM mailbox WHERE departed_at IS NULL) AS mailboxes
"""

_MEASURES = MappingProxyType(
    {"rpps": _RPPS, "finess": _FINESS, "mailboxes": _MAILBOXES, "trusted-domains": _TRUSTED_DOMAINS}
)
_LAST = text("""
    SELECT generated_at, layout, counts, started_at FROM register_run
    WHERE register = :register AND state = 'applied' AND NOT increment ORDER BY id DESC LIMIT 1
""")

_LATELY = text("""
    SELECT m.key AS name, CAST(sum(CAST(m.value AS numeric)) AS float) AS total
    FROM register_run r, jsonb_each_text(r.measures) m
    WHERE r.register = :register AND r.increment AND r.state = 'applied' AND r.finished_at > :since
    AND r.id > (SELECT coalesce(max(a.id), 0) FROM register_run a
                WHERE a.register = :register AND a.state = 'applied' AND a.approvals_needed > 0)
    GROUP BY m.key
""")


def measure(connection: Connection, register: str, codes: Mapping[str, frozenset[str]]) -> dict[str, float]:
    """What the planned run of this register would do: the counts and wholes that its bounds name.

    Called after the plan, on the connection that holds the temporary tables; `codes` are those of the bounds
    in force.
    """
    counts = _first_row(connection, _MEASURES[register], codes)
    if register == "rpps":
        emptied = _first_row(connection, _EMPTIED, {})
        counts |= {f"emptied-{name}": people for name, people in emptied.items() if people}
        counts["emptied"] = max(emptied.values())
    return counts


def last_applied(connection: Connection, register: str) -> LastRun | None:
    """The run of this register's whole file that was applied last; None when none ever was."""
    row = connection.execute(_LAST, {"register": register}).one_or_none()
    return None if row is None else LastRun(row.generated_at, row.counts, row.layout, row.started_at)


def lately(connection: Connection, register: str, *, since: datetime) -> dict[str, float]:
    """What increments of this register did since then, and since a person last let one of its runs through.

    Many small steps would pass where one large one is stopped.
    """
    rows = connection.execute(_LATELY, {"register": register, "since": since})
    return {row.name: row.total for row in rows}


def _first_row(
    connection: Connection, statement: str, codes: Mapping[str, frozenset[str]]
) -> dict[str, float]:
    # An empty cell is no unknown code.
    asked = {cell: ["", *sorted(known)] for cell, known in codes.items() if f":{cell})" in statement}
    row = connection.execute(text(statement), asked).mappings().one()
    return {name.replace("_", "-"): count for name, count in row.items()}

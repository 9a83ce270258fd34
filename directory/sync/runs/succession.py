"""Numbers that replace numbers: people leave ADELI for the RPPS, and nobody is lost on the way.

A number of ADELI that vanishes is linked to the RPPS number of the same person, when exactly one can be
meant, and retired otherwise. Its row stays, departed. The mailboxes follow the link in the same transaction.
Whether a certificate of the old number still serves is for `pki`, which reads the table.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime

from sqlalchemy import Connection, text

from directory.rules import search_form

# Both kinds of number in one place: TRE_G08 types 0 and 8.
_GONE = """
    CREATE TEMP TABLE gone ON COMMIT DROP AS
    SELECT p.key AS national_id FROM planned p JOIN practitioner o ON o.national_id = p.key
    WHERE p.act = 'remove' AND o.id_type = '0'
    UNION
    SELECT u.national_id FROM planned p
    JOIN practitioner c ON c.national_id = p.key AND c.id_type = '8'
    JOIN practitioner o ON o.search_name = c.search_name AND o.id_type = '0' AND o.departed_at IS NOT NULL
    JOIN succession u ON u.national_id = o.national_id AND u.successor IS NULL
    WHERE p.act = 'create'
"""

_SAME_PROFESSION = """
    EXISTS (SELECT FROM profession n WHERE n.national_id = c.national_id AND n.code IN (
        SELECT code FROM profession t WHERE t.national_id = o.national_id
        UNION ALL SELECT code FROM profession_history t WHERE t.national_id = o.national_id))
"""
# An address of the old number that the mailbox file has since given to the new one tells as much as a place.
_SAME_PLACE = """
    EXISTS (
        SELECT FROM practice n JOIN (
            SELECT structure_id, finess, siret, department FROM practice t
            WHERE t.national_id = o.national_id
            UNION ALL SELECT structure_id, finess, siret, department FROM practice_history t
            WHERE t.national_id = o.national_id
        ) AS t ON n.structure_id = t.structure_id AND n.structure_id <> ''
               OR n.finess = t.finess AND n.finess <> '' OR n.siret = t.siret AND n.siret <> ''
               OR n.department = t.department AND n.department <> ''
        WHERE n.national_id = c.national_id
    ) OR EXISTS (
        SELECT FROM mailbox m JOIN mailbox_history h ON h.address = m.address AND h.holder = o.national_id
        WHERE m.holder = c.national_id)
"""
# A namesake who is still in ADELI may be the one meant: his pairs count, though he goes nowhere tonight.
_CANDIDATES = f"""
    SELECT o.national_id, c.national_id, o.family_name, o.given_name, c.family_name, c.given_name
    FROM practitioner o
    JOIN practitioner c ON c.search_name = o.search_name AND c.id_type = '8' AND c.departed_at IS NULL
    WHERE o.id_type = '0'
    AND o.search_name IN (SELECT x.search_name FROM practitioner x JOIN gone USING (national_id))
    AND (o.departed_at IS NULL OR EXISTS (SELECT FROM gone g WHERE g.national_id = o.national_id))
    AND NOT EXISTS (SELECT FROM succession u WHERE u.successor = c.national_id)
    AND {_SAME_PROFESSION} AND ({_SAME_PLACE})
"""  # noqa: S608 - constants of this module
_NAMED_BY_MAILBOXES = f"""
    SELECT DISTINCT o.national_id, c.national_id, o.family_name, o.given_name, c.family_name, c.given_name
    FROM planned p JOIN mailbox m ON m.address = p.key
    JOIN mailbox_history h ON h.address = m.address AND h.sys_to >= transaction_timestamp()
    JOIN practitioner o ON o.national_id = h.holder AND o.id_type = '0' AND o.departed_at IS NOT NULL
    JOIN practitioner c ON c.national_id = m.holder AND c.id_type = '8' AND c.departed_at IS NULL
    WHERE p.act = 'change' AND o.search_name = c.search_name
    AND NOT EXISTS (SELECT FROM succession u
                    WHERE u.national_id = o.national_id AND u.successor IS NOT NULL)
    AND NOT EXISTS (SELECT FROM succession u WHERE u.successor = c.national_id)
    AND {_SAME_PROFESSION}
"""  # noqa: S608 - same

_LINK = text("""
    INSERT INTO succession (national_id, successor, run_id, linked_at)
    SELECT old, new, :run_id, :now FROM unnest(CAST(:old AS text[]), CAST(:new AS text[])) AS x (old, new)
    ON CONFLICT (national_id) DO UPDATE
    SET successor = excluded.successor, run_id = excluded.run_id, linked_at = excluded.linked_at
""")
_FOLLOW = text("""
    UPDATE mailbox m SET holder = x.new
    FROM unnest(CAST(:old AS text[]), CAST(:new AS text[])) AS x (old, new)
    WHERE m.holder = x.old AND m.departed_at IS NULL
""")
_RETIRE = text("""
    INSERT INTO succession (national_id, run_id, linked_at)
    SELECT national_id, :run_id, :now FROM gone ON CONFLICT (national_id) DO NOTHING
""")
# A number that is back in ADELI had no successor after all: what followed goes back with it.
_GIVE_BACK = text("""
    WITH back AS (
        DELETE FROM succession u USING planned p, practitioner o
        WHERE p.act = 'change' AND p.key = u.national_id AND o.national_id = u.national_id
        AND o.departed_at IS NULL
        RETURNING u.national_id, u.successor, u.sys_from
    )
    UPDATE mailbox m SET holder = b.national_id
    FROM back b JOIN mailbox_history h ON h.holder = b.national_id AND h.sys_to >= b.sys_from
    WHERE m.holder = b.successor AND h.address = m.address
""")


def succeed(connection: Connection, *, run_id: int, now: datetime) -> dict[str, int]:
    """Link or retire the numbers of ADELI that go with this run of the RPPS, and those retired before whose
    person arrives with it.

    Called after the run's acts, in their transaction, where its temporary tables stand. Gives how many were
    "linked" and "retired".
    """
    connection.execute(_GIVE_BACK)
    connection.execute(text(_GONE))
    gone = set(connection.execute(text("SELECT national_id FROM gone")).scalars())
    if not gone:
        return {"linked": 0, "retired": 0}
    pairs = unambiguous(connection.execute(text(_CANDIDATES)))
    linked = _link(connection, {old: new for old, new in pairs.items() if old in gone}, run_id, now)
    retired = connection.execute(_RETIRE, {"run_id": run_id, "now": now}).rowcount
    return {"linked": linked, "retired": retired}


def succeed_by_mailbox(connection: Connection, *, run_id: int, now: datetime) -> dict[str, int]:
    """Link retired numbers to the people whom this run of the mailboxes names for the same addresses.

    Called after the run's acts, in their transaction. Gives how many were "linked".
    """
    pairs = unambiguous(connection.execute(text(_NAMED_BY_MAILBOXES)))
    return {"linked": _link(connection, pairs, run_id, now)}


def unambiguous(candidates: Iterable[Sequence[str]]) -> dict[str, str]:
    """Old numbers and the new one of the same person, where neither could be anybody else's.

    A candidate: old number, new number, family and given name of the one, of the other. The folded names must
    be the same each on its own: together, `LE GALL | ANNE` and `LE | GALL ANNE` read alike.
    """
    agreeing = [
        (old, new)
        for old, new, *names in candidates
        if (search_form(names[0]), search_form(names[1])) == (search_form(names[2]), search_form(names[3]))
    ]
    olds, news = Counter(old for old, _ in agreeing), Counter(new for _, new in agreeing)
    return {old: new for old, new in agreeing if olds[old] == news[new] == 1}


def _link(connection: Connection, pairs: dict[str, str], run_id: int, now: datetime) -> int:
    if pairs:
        both = {"old": list(pairs), "new": list(pairs.values())}
        connection.execute(_LINK, {**both, "run_id": run_id, "now": now})
        connection.execute(_FOLLOW, both)
    return len(pairs)

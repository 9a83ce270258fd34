"""What a trust list of the national size costs: to make, and to tell who has it already."""

import gzip
import statistics
import time
from datetime import UTC, datetime

import orjson
from benches.harness import Bench, Figure
from sqlalchemy import text

from api.jobs.list_signer import list_signer
from directory.base.db import transaction
from pki.publication import trust_list

# The national white list of May 2026.
DOMAINS, OPERATORS = 8_655, 321
MOST_SECONDS = 1.0
_SEED = (
    """
    INSERT INTO operator (certificate_dn, name)
    SELECT 'CN=mss-' || n || '.bench.invalid,O=Opérateur ' || n || ',C=FR', 'Opérateur ' || n
    FROM generate_series(1, :operators) AS n ON CONFLICT DO NOTHING
    """,
    """
    INSERT INTO trusted_domain (name, operator_id, description, row_hash, updated_at)
    SELECT 'etablissement-' || n || '.bench.invalid', o.id, 'Domaine de l''établissement ' || n, '', now()
    FROM generate_series(1, :domains) AS n
    JOIN operator o ON o.name = 'Opérateur ' || (1 + n % :operators) ON CONFLICT DO NOTHING
    """,
)


def made(bench: Bench) -> Figure:
    """Seconds to make and sign the list of 8,655 domains in both forms, beside their rows as plain JSON."""
    container = bench.container
    with container.engine.begin() as connection:
        for statement in _SEED:
            connection.execute(text(statement), {"domains": DOMAINS, "operators": OPERATORS})
    signer, now = list_signer(container), datetime.now(UTC)
    ours, beside = [], []
    for _ in range(5):
        started = time.monotonic()
        with transaction(container.engine, read_only=True) as connection:
            version = trust_list.sign(trust_list.compose(connection, None), 1, signer, now)
        ours.append(time.monotonic() - started)
        started = time.monotonic()
        with transaction(container.engine, read_only=True) as connection:
            rows = connection.execute(
                text("SELECT * FROM trusted_domain d JOIN operator o ON o.id = d.operator_id")
            )
            orjson.dumps([tuple(row) for row in rows], default=str)
        beside.append(time.monotonic() - started)
    jws, value = trust_list.as_jws(version), statistics.median(ours)
    others = {
        "rows as JSON": statistics.median(beside), "JWS, kB": len(jws) / 1000,
        "XML, kB": len(version.xml) / 1000,
        "JWS under gzip, kB": len(gzip.compress(jws)) / 1000,
        "stored (payload and XML under gzip), kB": len(gzip.compress(version.payload + version.xml)) / 1000,
    }  # fmt: skip
    return Figure(
        "trust-list", value, "s", others, statistics.median(beside) / value, f"< {MOST_SECONDS} s",
        ok=value < MOST_SECONDS,
    )  # fmt: skip


FIGURES = {"trust-list": made}

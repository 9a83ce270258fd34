"""How fast certificates are made, whole road included."""

import time
from datetime import UTC, datetime, timedelta

from benches.harness import Bench, Figure
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import text

from api import demo


def certificates(bench: Bench) -> Figure:
    """Certificates a second through the whole road, beside building and signing alone.

    The road: request, approval, reserve, lint, sign, store.
    """
    container = bench.container
    count = bench.size or 200
    with container.engine.begin() as connection:
        chosen = connection.execute(text(demo.CHOSEN), {"count": 10_000}).all()
        registrars = {
            authority: [
                demo.registrar(container, connection, authority, f"bench {authority} {n}") for n in (1, 2)
            ]
            for authority in {demo.authority_of(row.profession) for row in chosen}
        }
    chosen = chosen[:count]
    started = time.monotonic()
    for row in chosen:
        demo.certify_one(
            container, registrars[demo.authority_of(row.profession)], row.practitioner, row.address
        )
    ours = len(chosen) / (time.monotonic() - started)
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "bare")])
    started = time.monotonic()
    for _ in range(2000):
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        builder = (
            builder.serial_number(x509.random_serial_number())
            .not_valid_before(now)
            .not_valid_after(now + timedelta(1))
        )
        builder.sign(key, hashes.SHA256())
    bare = 2000 / (time.monotonic() - started)
    return Figure(
        "certificates",
        ours,
        "certificates/s",
        {"built and signed alone": bare},
        ours / bare,
        "none yet",
        ok=True,
    )


FIGURES = {one.__name__: one for one in (certificates,)}

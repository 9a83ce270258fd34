"""The next CAs: one for persons that issues in the national form, one that stands by, two bridges."""

import time

from tests.releases.making.installation import TREE, Installation

NEXT = """
[[authority]]
id = "root-2"
role = "root"
generation = 2
subject = "Sceau Root CA 2"
curve = "P-384"
key = { name = "root-2", place = "file" }
days = 9125
shards = 1

[[authority]]
id = "persons-2"
role = "persons"
generation = 2
subject = "Sceau Persons CA 2"
issuer = "root-2"
curve = "P-256"
key = { name = "persons-2", place = "file" }
days = 4380
crl = "national"
shards = 2

[[authority]]
id = "organisations-2"
role = "organisations"
generation = 2
subject = "Sceau Organisations CA 2"
issuer = "root-2"
curve = "P-256"
key = { name = "organisations-2", place = "file" }
days = 4380
crl = "plain"

[[cross]]
subject = "root-2"
issuer = "root-1"
days = 3650

[[cross]]
subject = "root-1"
issuer = "root-2"
days = 3650
"""
LONGEST_WAIT = 150


def follow(here: Installation) -> None:
    """Hold the ceremony of the next generation; the CA for persons hands over."""
    shipped = next(path for path in TREE.glob("pki/**/shipped.toml"))
    hierarchy = here.state / "hierarchy.toml"
    hierarchy.write_text(shipped.read_text() + NEXT)
    here.sceau("ca", "ceremony", hierarchy)
    activate(here, "persons-2")
    here.sceau("ca", "retire", "persons-1")


def activate(here: Installation, name: str) -> None:
    """Once its CRLs and its OCSP responder are there, which the worker makes within a minute."""
    deadline = time.monotonic() + LONGEST_WAIT
    while not here.sceau("ca", "activate", name) and time.monotonic() < deadline:
        time.sleep(5)

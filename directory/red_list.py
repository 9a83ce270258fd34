"""The red list: which mailboxes are on it, and since when in the feed's time; keys that hide them.

Who is listed is said in `corrections.py`; what shows, in `rules.py`. This module keeps a mailbox unseen where
it showed before. In the feed it stands under a key that only its former readers can tell; it goes from the
exports of before.
"""

import hmac
from collections.abc import Collection, Mapping

from sqlalchemy import Connection, text

from directory.feed.changes import Seen

# 128 bits: nobody guesses one, and two of a country's mailboxes never share one.
_KEY_LETTERS = 32

_KEY = text("SELECT key FROM feed_key")
_ON_IT = text(
    "SELECT address, CASE WHEN cluster = sceau_cluster() THEN CAST(xid AS text) ELSE '0' END FROM red_listed"
    " WHERE address = ANY(CAST(:addresses AS text[]))"
)
_SINCE = text(
    "SELECT CAST(xid AS text) FROM red_listed"
    " WHERE xid >= CAST(CAST(:first AS text) AS xid8) AND cluster = sceau_cluster()"
)


def opaque_key(secret: bytes, address: str) -> str:
    """The key of a mailbox that does not say its address: the same for ever, made by this record alone."""
    return hmac.digest(secret, address.encode(), "sha256").hex()[:_KEY_LETTERS]


def secret_of_keys(connection: Connection) -> bytes:
    """What opaque keys of this record are made with."""
    return bytes(connection.execute(_KEY).scalar_one())


def red_listed(connection: Connection, addresses: Collection[str]) -> Mapping[str, int]:
    """Those of these addresses that are on the red list, with the transaction that put them there.

    0 when that was in another cluster: no place of this one is older.
    """
    rows = connection.execute(_ON_IT, {"addresses": list(addresses)}) if addresses else ()
    return {address: int(xid) for address, xid in rows}


def is_red_listed(connection: Connection, address: str) -> bool:
    """Whether this mailbox is on the red list."""
    return bool(red_listed(connection, [address]))


def grew_since(connection: Connection, seen: Seen) -> bool:
    """Whether a mailbox that is on the red list was put there after what `seen` tells."""
    rows = connection.execute(_SINCE, {"first": str(seen.first_unseen)}).scalars()
    return any(int(xid) not in seen for xid in rows)

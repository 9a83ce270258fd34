"""Where Unix sockets lie: beside the data of their server, or elsewhere when that path is too long.

An account that may put a socket of its own in that folder is taken for the server: the folder is ours alone.
"""

import os
import stat
from hashlib import sha256
from pathlib import Path
from tempfile import gettempdir
from urllib.parse import quote

from directory.base.errors import Kind, Refusal

# sun_path holds 108 bytes, the final zero among them.
LONGEST_SOCKET = 107
# PostgreSQL names its socket after its port.
POSTGRES_SOCKET = ".s.PGSQL.5432"
POSTGRES_USER = "sceau"


def socket_path(beside: Path) -> Path:
    """The socket wanted at `beside`, or in a short folder named after that path when that is too long."""
    wanted = beside.resolve()
    if len(os.fsencode(wanted)) <= LONGEST_SOCKET:
        return wanted
    return Path(gettempdir()) / f"sceau-{sha256(os.fsencode(wanted.parent)).hexdigest()[:12]}" / wanted.name


def postgres_folder(cluster: Path) -> Path:
    """Where the PostgreSQL of a trial has its socket, whose cluster lies in this folder."""
    return socket_path(cluster / "run" / POSTGRES_SOCKET).parent


def postgres_url(cluster: Path, part: str = "") -> str:
    """SQLAlchemy URL of the database that this PostgreSQL serves, for its owner or for one part.

    It names the file of the password, which libpq reads by itself, and not the password.
    """
    user = f"{POSTGRES_USER}_{part}" if part else POSTGRES_USER
    host, file = quote(str(postgres_folder(cluster))), quote(str(postgres_password(cluster, part)))
    return f"postgresql+psycopg://{user}@/{POSTGRES_USER}?host={host}&passfile={file}"


def postgres_password(cluster: Path, part: str = "") -> Path:
    """The file of the password of the owner or of one part, in the form that libpq reads (`.pgpass`).

    Beside the cluster and not in it: the account that runs PostgreSQL has nothing to read there.
    """
    return cluster.resolve().parent / "secrets" / f"database-{part or 'owner'}"


def make_folder(folder: Path, data: Path) -> None:
    """Make the folder of a socket (0700); refuse one that is neither ours nor of the owner of `data`."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    status = folder.lstat()
    # The short folder's name can be foreseen, and everyone may make folders beside it.
    if not stat.S_ISDIR(status.st_mode) or status.st_uid not in {os.geteuid(), data.stat().st_uid}:
        text = f"{folder} was made by somebody else: remove it, or choose a state folder with a shorter path."
        raise Refusal(Kind.CONFLICT, "socket-folder-taken", text)

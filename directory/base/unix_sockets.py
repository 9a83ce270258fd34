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


def postgres_url(cluster: Path) -> str:
    """SQLAlchemy URL of the database that this PostgreSQL serves."""
    host = quote(str(postgres_folder(cluster)))
    return f"postgresql+psycopg://{POSTGRES_USER}@/{POSTGRES_USER}?host={host}"


def make_folder(folder: Path, data: Path) -> None:
    """Make the folder of a socket (0700); refuse one that is neither ours nor of the owner of `data`."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    status = folder.lstat()
    # The short folder's name can be foreseen, and everyone may make folders beside it.
    if not stat.S_ISDIR(status.st_mode) or status.st_uid not in {os.geteuid(), data.stat().st_uid}:
        text = f"{folder} was made by somebody else: remove it, or choose a state folder with a shorter path."
        raise Refusal(Kind.CONFLICT, "socket-folder-taken", text)

"""How root runs PostgreSQL, which refuses root: in a user namespace, else as the system account `sceau`.

A namespace maps root onto an ordinary user inside only: files stay root's, below folders that no other
account enters. Containers commonly forbid it; there the account gets the cluster's own folder. The owner of
the folder runs the server, so an installation does not change its mind when its surroundings do.
"""

import fcntl
import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from directory.base.errors import Kind, Refusal

ACCOUNT = "sceau"
_LOCK = Path("/run/sceau-account.lock")
_SEARCHED = os.pathsep.join((*os.get_exec_path(), "/usr/sbin", "/sbin"))
_ENTERS = 'for folder; do test -x "$folder" || { printf %s "$folder"; exit 1; }; done'


def before(folder: Path) -> list[str]:
    """What to put before a command that works on `folder`, so that it does not run as root."""
    if os.geteuid() != 0:
        return []
    owner = folder.stat()
    return _in_namespace() if owner.st_uid == 0 else _as_account(owner.st_uid, owner.st_gid)


def prepare(folders: Sequence[Path], *, state: Path | None, programs: Path) -> None:
    """See that a command with `before()` in front can work on `folders`, the first of which says who runs it.

    `state` is the installation's own folder: the account may pass through it and not list it. Refuses
    (UNAVAILABLE) when there is no way to leave root, naming the first folder that the account cannot enter.
    """
    if os.geteuid() != 0:
        return
    owner = folders[0].stat()
    if owner.st_uid != 0:
        _refuse_closed(owner.st_uid, owner.st_gid, folders, programs)
    elif not _runs([*_in_namespace(), "true"]):
        uid, gid = _account()
        if state is not None:
            os.chown(state, -1, gid)
            state.chmod(0o710)
        _refuse_closed(uid, gid, folders, programs)
        for path in (entry for folder in folders for entry in (folder, *folder.rglob("*"))):
            os.lchown(path, uid, gid)


def _in_namespace() -> list[str]:
    """Root seen as an ordinary account inside: one that has a name, since initdb looks it up (a fresh
    Debian has no account 1000).
    """
    named = next((account for account in pwd.getpwall() if account.pw_name == "nobody"), None)
    shown = named or next(account for account in pwd.getpwall() if account.pw_uid)
    return ["unshare", "--user", f"--map-user={shown.pw_uid}", f"--map-group={shown.pw_gid}", "--"]


def _as_account(uid: int, gid: int) -> list[str]:
    # `keep`: the kernel forgets whose death ends us when an account changes, and the supervisor counts on it.
    return ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--pdeathsig=keep", "--"]


def _account() -> tuple[int, int]:
    """User and group number of the account, made when absent."""
    with _alone():
        if not _runs(["getent", "passwd", ACCOUNT]):
            useradd = shutil.which("useradd", path=_SEARCHED) or "useradd"
            shell = ["--shell", "/usr/sbin/nologin"]
            _runs([useradd, "--system", "--user-group", "--no-create-home", *shell, ACCOUNT])
    try:
        account = pwd.getpwnam(ACCOUNT)
    except KeyError as error:
        text = (
            "PostgreSQL does not run as root, this system allows no user namespace, and the account"
            f" {ACCOUNT!r} could not be made. Run `useradd --system {ACCOUNT}`, or run as an ordinary user."
        )
        raise Refusal(Kind.UNAVAILABLE, "postgres-refuses-root", text) from error
    return account.pw_uid, account.pw_gid


@contextmanager
def _alone() -> Iterator[None]:
    """One process of this machine at a time.

    useradd asks whether the name is there before it waits for its own lock. Of two at once, the later gives
    the account another number, and the earlier one's folders belong to nobody any more.
    """
    with os.fdopen(os.open(_LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _refuse_closed(uid: int, gid: int, folders: Sequence[Path], programs: Path) -> None:
    theirs = {folder.resolve() for folder in folders}
    above = (parent for path in (*folders, programs) for parent in reversed(path.resolve().parents))
    on_the_way = [str(folder) for folder in dict.fromkeys(above) if folder not in theirs]
    command = [*_as_account(uid, gid), "sh", "-c", _ENTERS, "sh", *on_the_way]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own words
    if done.returncode == 0:
        return
    words = f"the account {ACCOUNT!r}, which runs PostgreSQL for root,"
    text = (
        f"{words} cannot enter {done.stdout}: give a state folder that it can (--state /var/lib/sceau)"
        " and clone into one (/opt, /srv), or run as an ordinary user."
        if done.stdout
        else f"{words} could not be used: {done.stderr.strip()}. Run as an ordinary user."
    )
    raise Refusal(Kind.UNAVAILABLE, "postgres-refuses-root", text[0].upper() + text[1:])


def _runs(command: Sequence[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0  # noqa: S603 - ours
    except OSError:
        return False

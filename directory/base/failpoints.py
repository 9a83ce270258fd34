"""Places where a test makes the program die, fail or wait, so that what follows a crash can be looked at.

Nothing is armed unless the process that starts says so (`api/settings.py` reads SCEAU_FAILPOINT); an unarmed
place costs one look into an empty dictionary.
"""

import errno
import os
import re
import signal
import time

from directory.base.errors import Kind, Refusal

_FORM = re.compile(r"(?P<name>[a-z.-]+)(:(?P<nth>[1-9]\d*))?=(?P<action>kill|raise|enospc|sleep)")
_SLEEP_SECONDS = 3600
_armed: dict[str, tuple[int, str]] = {}


def arm(spec: str) -> None:
    """`name[:n]=kill|raise|enospc|sleep`: what happens when the n-th pass comes by; '' disarms all."""
    _armed.clear()
    if not spec:
        return
    match = _FORM.fullmatch(spec)
    if match is None:
        raise Refusal(Kind.MALFORMED, "bad-setting", f"{spec!r} is no fail point: name[:n]=action.")
    _armed[match["name"]] = (int(match["nth"] or 1), match["action"])


def passing(name: str) -> None:
    """Say that the program comes by `name`; does what was armed for it, which may be to return never."""
    if name not in _armed:
        return
    left, action = _armed[name]
    _armed[name] = (left - 1, action)
    if left != 1:
        return
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if action == "enospc":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if action == "raise":
        raise RuntimeError(f"fail point {name}")
    time.sleep(_SLEEP_SECONDS)

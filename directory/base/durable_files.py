"""Names in a folder: a file that was renamed into it may be lost again until the folder itself is on disk."""

import os
from pathlib import Path


def onto_disk(folder: Path) -> None:
    """Return once the names in `folder` would survive a loss of power; OSError when it is no folder."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

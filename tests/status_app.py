"""What Granian loads in tests of status: the callable alone, in front of an application that knows nothing.

Granian starts workers of its own, so what they need comes by the environment.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from api.database_timeout import impatient
from api.status.reply import Environ, StartResponse
from api.status.wsgi import StatusApplication
from directory.base.db import connect_engine


def elsewhere(_: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("418 I'm a teapot", [])
    return (b"",)


status = StatusApplication(
    impatient(connect_engine(os.environ["TEST_DATABASE_URL"]), 2),
    keys_folder=Path(os.environ["TEST_KEYS"]),
    passphrase=os.environ["TEST_PASSPHRASE"].encode(),
    hours=8,
)
application = status.start().wrap(elsewhere)

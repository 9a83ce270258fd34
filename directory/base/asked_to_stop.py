"""How a process hears that it is to end: SIGTERM and SIGINT, whatever its main thread is in the middle of.

A handler of Python runs between two steps of the main thread. It must take no lock that this thread may hold.
`threading.Event` has one, and a SIGTERM in its `wait` made a worker that nothing but SIGKILL ended.
"""

import signal
from collections.abc import Callable
from queue import SimpleQueue


def asked_to_stop() -> Callable[[], None]:
    """Hear the signals from now on; gives what waits until one came. For the main thread alone."""
    # Its `put` may interrupt itself and `get` (queue.SimpleQueue).
    heard: SimpleQueue[int] = SimpleQueue()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: heard.put(number))

    def wait() -> None:
        heard.get()

    return wait

"""Ports for servers that a test starts: free, and none that the kernel gives to who connects meanwhile.

One that the kernel chose is free again once it is closed, and the next client to connect may get it.
"""

import random
import socket

# Below the range of Linux for connections (ip_local_port_range, from 32,768 on).
_FIRST, _LAST = 10_000, 32_000
_GIVEN: set[int] = set()
# Processes of one run would draw the same ones from its seed.
_RANDOM = random.SystemRandom()


def free_port() -> int:
    """One that nobody listens at on 127.0.0.1, given once in a process."""
    while True:
        port = _RANDOM.randint(_FIRST, _LAST)
        if port not in _GIVEN and _is_free(port):
            _GIVEN.add(port)
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True

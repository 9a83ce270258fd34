"""The connections of this process: how many there may be, how long one may take nothing of its answer.

No source holds more than its share of them. Granian accepts them and tells nothing of one that asks nothing.
The kernel's view of them is read here. A connection is ended through a second handle on it, which Granian
sees as the client having left.
"""

import os
import resource
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from api.front.askers import source_of
from api.front.shares import OF_A_SOURCE

# What one process holds; Granian is told the same.
MOST = 4096
# Files besides: the record, logs, exports being handed out.
_OTHER_FILES = 512
# Below this part of them there is room for everybody.
_AMPLE = 16
_OF_THE_NET = {socket.AF_INET, socket.AF_INET6}
_LOOK_SECONDS = 1.0
# While somebody waits for the end of one: the next file of an export, a seat for another reader.
_AWAITED_SECONDS = 0.05
# A look at all of them takes a core, and whoever is served meanwhile waits for it: it may have a twentieth.
_REST = 20
# A reader who takes nothing for so long is gone, or wants our memory.
_UNREAD_MILLISECONDS = 30_000

Peer = str


def make_room() -> None:
    """Let this process open as many files as it needs for its connections, where the system allows it."""
    wanted = MOST + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


class Connections:
    """Looks at all of them once a second at most; at those whose end is awaited twenty times a second.

    `is_at_work` says of a client's `address:port` whether he is being served.

    Proxies that are trusted bring everybody's connections: theirs are not counted.
    """

    def __init__(
        self, is_at_work: Callable[[Peer], bool], is_proxy: Callable[[str], bool], most: int = MOST
    ) -> None:
        self._is_at_work, self._is_proxy, self._most = is_at_work, is_proxy, most
        self._awaited: dict[Peer, list[Callable[[], None]]] = {}
        # Where those awaited were seen last: a descriptor keeps its number as long as it is open.
        self._numbers: dict[Peer, int] = {}
        self._rested = float("-inf")
        self._due = float("-inf")
        self._lock = threading.Lock()
        self._wanted = threading.Event()

    def start(self) -> None:
        """Begin; once in each process."""
        threading.Thread(target=self._watch, name="connections", daemon=True).start()

    def when_closed(self, peer: Peer, act: Callable[[], None]) -> None:
        """Call `act`, on a thread of its own, once the connection of this client has ended."""
        with self._lock:
            self._awaited.setdefault(peer, []).append(act)
        self._wanted.set()

    def hang_up(self, peer: Peer) -> None:
        """End the connection of this client now: an answer that stops half-way must not look whole."""
        with suppress(OSError):
            _end([int(name) for name in os.listdir("/proc/self/fd")], {peer})  # noqa: PTH208 - names

    def _watch(self) -> None:
        bounded = False
        while True:
            if not self._awaited:
                self._wanted.wait(_LOOK_SECONDS)
            self._wanted.clear()
            if self._awaited:
                time.sleep(_AWAITED_SECONDS)
            # A folder of descriptors that cannot be read now can be the next time.
            with suppress(OSError):
                bounded = bounded or _bound_unread()
                if self._is_due(time.monotonic()):
                    self._look_at_all()
                else:
                    self._look_at_awaited()

    def _is_due(self, now: float) -> bool:
        """Whether all are to be looked at: once a second, and as soon as it may be for one not found yet."""
        with self._lock:
            all_found = self._awaited.keys() <= self._numbers.keys()
        return now >= (self._due if all_found else self._rested)

    def _look_at_all(self) -> None:
        began = time.monotonic()
        try:
            self._look()
        finally:
            ended = time.monotonic()
            self._rested = ended + _REST * (ended - began)
            self._due = max(self._rested, began + _LOOK_SECONDS)

    def _look_at_awaited(self) -> None:
        for peer, number in list(self._numbers.items()):
            if not _is_at(number, peer):
                self._tell(peer)

    def _look(self) -> None:
        numbers = [int(name) for name in os.listdir("/proc/self/fd")]  # noqa: PTH208 - names, each second
        with self._lock:
            awaited = list(self._awaited)
        if len(numbers) < self._most // _AMPLE and not awaited:
            return
        of_source: dict[str, list[Peer]] = defaultdict(list)
        number_of: dict[Peer, int] = {}
        for number, _, peer in _connections(numbers):
            of_source[source_of(peer[0])].append(_named(peer))
            number_of[_named(peer)] = number
        self._numbers = {peer: number_of[peer] for peer in awaited if peer in number_of}
        for peer in awaited:
            if peer not in number_of:
                self._tell(peer)
        surplus = {peer for peers in of_source.values() for peer in self._surplus(peers)}
        if surplus:
            _end(numbers, surplus)

    def _surplus(self, peers: list[Peer]) -> list[Peer]:
        """Of a source that has more than its share, as many as are too many, none of them being served."""
        too_many = len(peers) - self._most // OF_A_SOURCE
        if too_many <= 0 or self._is_proxy(peers[0].rpartition(":")[0].strip("[]")):
            return []
        return [peer for peer in peers if not self._is_at_work(peer)][:too_many]

    def _tell(self, peer: Peer) -> None:
        with self._lock:
            acts = self._awaited.pop(peer, [])
        self._numbers.pop(peer, None)
        for act in acts:
            act()


def _end(numbers: list[int], surplus: set[Peer]) -> None:
    for _, handle, peer in _connections(numbers):
        if _named(peer) in surplus:
            # Already gone is as well.
            with suppress(OSError):
                handle.shutdown(socket.SHUT_RDWR)


def _connections(numbers: list[int]) -> Iterator[tuple[int, socket.socket, Any]]:
    """Second handles, one at a time, on the connections that came in by a port of ours; and their peers.

    Each with the number of the first handle.
    """
    ports = {handle.getsockname()[1] for _, handle in _sockets(numbers) if _listens(handle)}
    for number, handle in _sockets(numbers):
        with suppress(OSError):
            if handle.getsockname()[1] in ports and not _listens(handle):
                yield number, handle, handle.getpeername()


def _is_at(number: int, peer: Peer) -> bool:
    """Whether the connection of this client is open under this number still."""
    for _, handle in _sockets([number]):
        with suppress(OSError):
            return _named(handle.getpeername()) == peer
    return False


def _sockets(numbers: list[int]) -> Iterator[tuple[int, socket.socket]]:
    for number in numbers:
        try:
            copy = os.dup(number)
        except OSError:
            continue  # closed since it was listed
        try:
            handle = socket.socket(fileno=copy)
        except OSError:
            os.close(copy)  # no socket
            continue
        with handle:
            if handle.family in _OF_THE_NET:
                yield number, handle


def _listens(handle: socket.socket) -> bool:
    return handle.type == socket.SOCK_STREAM and bool(
        handle.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    )


def _named(peer: tuple[Any, ...]) -> Peer:
    """As RSGI names a client."""
    address, port = peer[:2]
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _bound_unread() -> bool:
    """Let the kernel end connections whose reader takes nothing: those accepted from now on inherit it.

    False while nobody listens yet.
    """
    listening = False
    numbers = [int(name) for name in os.listdir("/proc/self/fd")]  # noqa: PTH208 - names
    for _, handle in _sockets(numbers):
        if _listens(handle):
            handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNREAD_MILLISECONDS)
            listening = True
    return listening

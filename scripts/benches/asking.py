"""Someone who asks for verdicts while a figure is taken, and how long the answers took."""

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Self

from benches.harness import Bench

_CLIENT = Path(__file__).with_name("asking_client.py")
# For whom it is enough to see that answers come.
EACH_SECOND = 40


class Asking:
    """Asks while it is entered: so many questions a second, or with 0 as many as are answered."""

    def __init__(
        self, bench: Bench, paths: list[str], each_second: int = EACH_SECOND, *, connections: int = 1
    ) -> None:
        self._given = {
            "host": bench.settings.host, "port": bench.settings.port, "paths": paths,
            "headers": bench.operator, "each_second": each_second, "connections": connections,
        }  # fmt: skip
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self._took: list[float] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._took.sort()

    @property
    def count(self) -> int:
        """How many answers came."""
        return len(self._took)

    @property
    def p50(self) -> float:
        """Milliseconds that half the answers took at most."""
        return 1000 * self._took[len(self._took) // 2]

    @property
    def p99(self) -> float:
        """Milliseconds that 99 of 100 answers took at most."""
        return 1000 * self._took[len(self._took) * 99 // 100]

    def _ask(self) -> None:
        # In this process an import would keep it from looking at the clock.
        command = [sys.executable, str(_CLIENT)]
        asking = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        asking.stdin.write(json.dumps(self._given) + "\n")
        asking.stdin.flush()
        self._ended.wait()
        told, _ = asking.communicate("\n")
        self._took = json.loads(told)

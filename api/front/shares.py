"""Shares of what a process has to give: no source holds more than a quarter, no credential more than an
eighth.
"""

import threading
from typing import TypeVar

from api.front.askers import Asker
from directory.base.errors import Kind, Refusal

Key = TypeVar("Key", str, bytes)
OF_A_SOURCE, OF_A_CREDENTIAL = 4, 8
# Seconds after which a share is worth asking for again.
_RETRY_SECONDS = 2


class Shares:
    """At most `most` at a time of something; `name` says of what, in a sentence shown to who is refused.

    Any thread may call.
    """

    def __init__(self, most: int, name: str) -> None:
        self.most = most
        self._name = name
        self._taken = 0
        self._of_source: dict[str, int] = {}
        self._of_credential: dict[bytes, int] = {}
        self._lock = threading.Lock()

    @property
    def taken(self) -> int:
        """How much is."""
        return self._taken

    def of_source(self, source: str) -> int:
        """How much one source has."""
        return self._of_source.get(source, 0)

    def heaviest(self) -> str | None:
        """The source that has most, None while nothing is taken."""
        with self._lock:
            return max(self._of_source, key=self._of_source.__getitem__, default=None)

    def take(self, asker: Asker, amount: int = 1) -> None:
        """Take so much, to be given back; Refusal TOO_MANY `share-used-up`, UNAVAILABLE `process-full`."""
        with self._lock:
            self._look_at(asker, amount)
            if self._taken + amount > self.most:
                text = f"All {self._name} of this process are taken just now; nothing was done."
                raise Refusal(Kind.UNAVAILABLE, "process-full", text, retry_after=_RETRY_SECONDS)
            self._taken += amount
            _count_up(self._of_source, asker.source, amount)
            if asker.credential is not None:
                _count_up(self._of_credential, asker.credential, amount)

    def check(self, asker: Asker, amount: int = 1) -> None:
        """Refuse what would be beyond the share of this asker, whatever is left for all."""
        with self._lock:
            self._look_at(asker, amount)

    def give_back(self, asker: Asker, amount: int = 1) -> None:
        """Give back what was taken."""
        with self._lock:
            self._taken -= amount
            _count_down(self._of_source, asker.source, amount)
            if asker.credential is not None:
                _count_down(self._of_credential, asker.credential, amount)

    def _look_at(self, asker: Asker, amount: int) -> None:
        """Refuse what is beyond a share; the lock is held."""
        if self._of_source.get(asker.source, 0) + amount > self.most // OF_A_SOURCE:
            raise self._refused("Your address holds", "a quarter")
        if (
            asker.credential is not None
            and self._of_credential.get(asker.credential, 0) + amount > self.most // OF_A_CREDENTIAL
        ):
            raise self._refused("This token holds", "an eighth")

    def _refused(self, who: str, part: str) -> Refusal:
        text = f"{who} {part} of the {self._name}, which is the most that one may; nothing was done."
        return Refusal(Kind.TOO_MANY, "share-used-up", text, retry_after=_RETRY_SECONDS)


# A `Counter` takes four times as long for each.
def _count_up(counted: dict[Key, int], key: Key, amount: int) -> None:
    counted[key] = counted.get(key, 0) + amount


def _count_down(counted: dict[Key, int], key: Key, amount: int) -> None:
    left = counted[key] - amount
    if left:
        counted[key] = left
    else:
        del counted[key]

"""What who needs an answer at once feels while others are slow, or ask for all they can: OCSP, revocation.

All of it within 127.0.0.0/8, for as long as a figure takes.
"""

import asyncio
import http.client
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import timedelta
from pathlib import Path

from benches import status
from benches.harness import ROOT, Bench, Figure

from directory import access
from directory.access import Role
from directory.base.audit import Actor
from directory.base.db import transaction

OCSP_MILLISECONDS, REVOCATION_MILLISECONDS = 100, 500
HELD, ADDRESSES, BULK_CHECKS = 500, 50, 60
# Octets announced, of which a dripping one brings one a second.
_ANNOUNCED = 100_000
REVOCATIONS, _OF_ONE_TOKEN = 120, 40
_HEADS = (
    "POST /v1/recipients/check HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n",
    "POST /ocsp HTTP/1.1\r\nHost: x\r\nContent-Type: application/ocsp-request\r\nContent-Length: 900\r\n\r\n",
    "POST /v1/revocations HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
    "GET /v1/practitioners HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n",
)


def storm_ocsp(bench: Bench) -> Figure:
    """An OCSP answer by GET in a storm, p99 in milliseconds, beside the same at rest."""
    paths = status.get_paths(bench, status.seeded(bench))
    ask = _asker(bench, itertools.cycle(paths))
    calm = _p99(_times(ask, bench.seconds))
    with _storm(bench):
        taken = _times(ask, 3 * bench.seconds)
    return _figure("storm_ocsp", taken, calm, OCSP_MILLISECONDS)


def storm_revocation(bench: Bench) -> Figure:
    """A revocation over REST in a storm, from request to answer, p99 in milliseconds, beside at rest."""
    serials = iter(status.seeded(bench)[:: max(1, len(status.seeded(bench)) // (3 * REVOCATIONS))])
    calm = _p99([_revoked(bench, next(serials), token) for token in _tokens(bench, REVOCATIONS // 2)])
    with _storm(bench):
        taken = [_revoked(bench, next(serials), token) for token in _tokens(bench, REVOCATIONS)]
    return _figure("storm_revocation", taken, calm, REVOCATION_MILLISECONDS)


def _figure(name: str, taken: list[float], calm: float, most: int) -> Figure:
    value = _p99(taken)
    beside = {"at rest": calm, "median": sorted(taken)[len(taken) // 2], "longest": max(taken)}
    return Figure(name, value, "ms", beside, most / value, f"<= {most} ms", value <= most)


def _p99(taken: list[float]) -> float:
    return sorted(taken)[max(0, len(taken) * 99 // 100 - 1)]


def _times(ask: Callable[[], None], seconds: int) -> list[float]:
    """Milliseconds of each, one after another with a moment between, for so long."""
    ends, taken = time.monotonic() + seconds, []
    while time.monotonic() < ends:
        started = time.monotonic()
        ask()
        taken.append((time.monotonic() - started) * 1000)
        time.sleep(0.005)
    return taken


def _asker(bench: Bench, paths: Iterator[str]) -> Callable[[], None]:
    """Asks by a new connection each time, so that every worker is asked."""

    def ask() -> None:
        with closing(_link(bench)) as link:
            link.request("GET", next(paths))
            answer = link.getresponse()
            if answer.status != http.client.OK or not answer.read():
                raise SystemExit(f"OCSP answers {answer.status}")

    return ask


def _revoked(bench: Bench, serial: str, token: str) -> float:
    body = json.dumps({"reason": "superseded"})
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    with closing(_link(bench)) as link:
        started = time.monotonic()
        link.request("POST", f"/v1/certificates/{serial}/revocation", body, headers)
        answer = link.getresponse()
        told = answer.read()
        taken = (time.monotonic() - started) * 1000
    if answer.status != http.client.OK:
        raise SystemExit(f"a revocation is answered {answer.status}: {told!r}")
    return taken


def _link(bench: Bench) -> http.client.HTTPConnection:
    """From an address that takes no part in the storm."""
    return http.client.HTTPConnection(
        bench.settings.host, bench.settings.port, timeout=30, source_address=("127.0.0.250", 0)
    )


def _tokens(bench: Bench, count: int) -> Iterator[str]:
    """Tokens of administrators, each used within what one may revoke in an hour."""
    container = bench.container
    for _ in range(0, count, _OF_ONE_TOKEN):
        with transaction(container.engine) as connection:
            _, secret = access.create_token(
                connection, now=container.clock(), actor=Actor("bench"), name=f"storm-{time.monotonic_ns()}",
                role=Role.ADMIN, lifetime=timedelta(hours=1),
            )  # fmt: skip
        yield from [secret] * min(_OF_ONE_TOKEN, count)


@contextmanager
def _storm(bench: Bench) -> Iterator[None]:
    """The storm, in a process of its own."""
    addresses = [a for (a,) in bench.rows("SELECT address FROM mailbox ORDER BY address")]
    domain = addresses[0].partition("@")[2]
    asked = (addresses + [f"nobody{n}@{domain}" for n in range(10_000)])[:10_000]
    body = bench.folder / "storm.json"
    body.write_text(json.dumps({"addresses": asked}))
    port, token = str(bench.settings.port), bench.operator["Authorization"]
    command = [sys.executable, "-m", "benches.storm", bench.settings.host, port, token, str(body)]
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'scripts'}:{ROOT}"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
    try:
        # The first line says that every one of them is there.
        if not process.stdout.readline():
            raise SystemExit("the storm has not begun")
        yield
        if process.poll() is not None:
            raise SystemExit("the storm was over too soon")
    finally:
        process.terminate()
        process.wait()


async def _hold(host: str, port: int, number: int) -> None:
    """One connection held open, opened again whenever it is cut; every other one drips."""
    head = _HEADS[number // 2 % len(_HEADS)]
    head = head % _ANNOUNCED if "%d" in head else head
    while True:
        with suppress(OSError):
            reader, writer = await asyncio.open_connection(
                host, port, local_addr=(f"127.0.0.{1 + number % ADDRESSES}", 0)
            )
            ending = asyncio.ensure_future(reader.read())
            with closing(writer):
                writer.write(head.encode())
                while not ending.done():
                    await asyncio.wait({ending}, timeout=1)
                    if number % 2 and "chunked" not in head:
                        writer.write(b"x")
            with suppress(OSError):
                await ending
        await asyncio.sleep(0.2)


async def _check(host: str, port: int, request: bytes, begun: asyncio.Event) -> None:
    """Ten thousand addresses asked about, again and again; the answers read and thrown away."""
    while True:
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            reader, writer = await asyncio.open_connection(host, port, local_addr=("127.0.0.251", 0))
            with closing(writer):
                while True:
                    writer.write(request)
                    head = (await reader.readuntil(b"\r\n\r\n")).lower()
                    begun.set()
                    size = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
                    await reader.readexactly(size)
                    if b" 429 " in head or b" 503 " in head:
                        await asyncio.sleep(1)
        await asyncio.sleep(0.2)


async def _rage(host: str, port: int, token: str, body: bytes) -> None:
    head = (
        "POST /v1/recipients/check HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Authorization: {token}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    begun = asyncio.Event()
    held = [_hold(host, port, number) for number in range(HELD)]
    checks = [_check(host, port, head.encode() + body, begun) for _ in range(BULK_CHECKS)]
    together = asyncio.gather(*held, *checks)
    await begun.wait()
    await asyncio.sleep(1)
    print("begun", flush=True)
    await together


FIGURES = {figure.__name__: figure for figure in (storm_ocsp, storm_revocation)}

if __name__ == "__main__":
    asyncio.run(_rage(sys.argv[1], int(sys.argv[2]), sys.argv[3], Path(sys.argv[4]).read_bytes()))

"""A signal is heard at whatever step of the waiting it comes."""

import subprocess
import sys

# A signal at each event of a trace of the wait; one that never comes to it, by the clock.
AT_EVERY_STEP = """
import os, signal, sys, threading
from directory.base.asked_to_stop import asked_to_stop

for step in range(1, 20):
    wait, left = asked_to_stop(), [step]

    def trace(frame, event, argument):
        frame.f_trace_opcodes = True
        left[0] -= 1
        if not left[0]:
            signal.raise_signal(signal.SIGTERM)
        return trace

    late = threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGINT))
    late.start()
    sys.settrace(trace)
    wait()
    sys.settrace(None)
    late.join()
print("heard each")
"""


def test_a_signal_is_heard_wherever_it_comes_in_between() -> None:
    done = subprocess.run(
        [sys.executable, "-c", AT_EVERY_STEP], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "heard each\n", "")

"""Signals that come to a whole group are the supervisor's business, in workers alone."""

import os
import signal
import subprocess
import sys

SCRIPT = """
import os, signal, subprocess, sys, time
from leyden.serve.processes import leave_signals

leave_signals()
for number in (signal.SIGINT, signal.SIGTERM):
    os.kill(os.getpid(), number)
forked = os.fork()
if not forked:
    time.sleep(60)
started = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
for pid in (forked, started.pid):
    os.kill(pid, signal.SIGTERM)
print(os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1]), started.wait())
"""


def test_a_worker_leaves_signals_and_what_it_starts_does_not() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=30, check=False, env={**os.environ})
    assert (done.returncode, done.stdout.split()) == (0, [str(-signal.SIGTERM)] * 2), done.stderr

"""A process that is told to stop, where neither its work nor its log comes to an end."""

import signal
import subprocess
import sys
from subprocess import PIPE

LOGGING = """
import logging
from flows import drain

logging.basicConfig()
drain.HINT_S, drain.LIMIT_S = 1.2, 2.0
drain.install()
drain.draining()
print("ready", flush=True)
while True:
    logging.warning("x" * 1000)
"""


def test_it_ends_in_time_though_nobody_reads_its_log():
    with subprocess.Popen([sys.executable, "-c", LOGGING], stdout=PIPE, stderr=PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        try:
            assert process.wait(30) == 1
        finally:
            process.kill()

"""What the access log costs: `access_log.py PROGRAM`.

Prints tab-separated rows: name, value with unit, goal. CPU time is that of all processes of the server, from /proc; the
same requests with the access log on and off, by turns. Then the log process is stopped under load.
"""

import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time

from measure import Server, called, free_port, row, settings

ROUNDS = 5
ROUND_S = 2
CONNECTIONS = 32


class Quiet(Server):
    """A server whose access log goes to a file, or nowhere."""

    def __init__(self, program, access):
        super().__init__(program)
        self.access = access

    def __enter__(self):
        self.home = tempfile.TemporaryDirectory(prefix="chatcorn-bench-")
        self.port = free_port()
        self.log, write = os.pipe()
        os.set_blocking(self.log, False)
        self.partial = b""
        environment = dict(os.environ, **settings(self.home.name), RATE_LIMIT_ENABLED="false")
        command = [self.program, "serve", "--bind", f"127.0.0.1:{self.port}", "--access-logfile", self.access,
                   "--log-level", "error"]
        self.process = subprocess.Popen(command, cwd=self.home.name, env=environment, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=write)
        os.close(write)
        self.wait_healthy()
        return self

    def cpu_s(self):
        # schedstat counts nanoseconds, stat ticks.
        total = 0
        for pid in self.tree():
            for thread in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{thread}/schedstat") as file:
                    total += int(file.read().split()[0])
        return total / 1e9

    def burst(self):
        """One round: requests served, CPU seconds of the server, p99 in ms."""
        before = self.cpu_s()
        out = subprocess.run(["wrk", "-t2", f"-c{CONNECTIONS}", f"-d{ROUND_S}s", "--latency",
                              f"http://127.0.0.1:{self.port}/api/health"], capture_output=True, text=True, check=True).stdout
        time.sleep(0.3)
        used = self.cpu_s() - before
        served = int(re.search(r"(\d+) requests in", out)[1])
        value, unit = re.search(r"99%\s+([\d.]+)(us|ms|s)", out).groups()
        return served, used, float(value) * {"us": 0.001, "ms": 1, "s": 1000}[unit]


def main():
    program = os.path.abspath(sys.argv[1])
    with Quiet(program, "off") as off, Quiet(program, "access.log") as on:
        costs = {"off": [], "on": []}
        for _ in range(ROUNDS):
            for name, server in (("off", off), ("on", on)):
                served, used, _ = server.burst()
                costs[name].append(used / served * 1e6)
        spread = [with_log - without for with_log, without in zip(costs["on"], costs["off"])]
        row("CPU of all processes a request, access log off", f"{statistics.median(costs['off']):.2f} us")
        row("the access log's part of it, on against off",
            f"{statistics.median(spread):.2f} us ({min(spread):.2f} to {max(spread):.2f})", "<= 5 us a request")
    with Quiet(program, "access.log") as server:
        log = next(pid for pid in server.tree() if called(pid) == "chatcorn log")
        running, stopped = [], []
        for _ in range(ROUNDS):
            running.append(server.burst()[2])
            os.kill(log, signal.SIGSTOP)
            try:
                stopped.append(server.burst()[2])
            finally:
                os.kill(log, signal.SIGCONT)
            # What has gathered is written before the next round.
            time.sleep(1)
        running, stopped = statistics.median(running), statistics.median(stopped)
        row("p99 with the log process stopped, beside it running",
            f"{stopped:.2f} ms, {running:.2f} ms: {stopped / running:.2f}x", "<= 2x")


main()

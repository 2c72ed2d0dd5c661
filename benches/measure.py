"""What bin/bench measures of a running Chatcorn from outside: `measure.py memory|start|kill PROGRAM`.

Prints tab-separated rows: name, value with unit, goal. Every server is this script's own child, on a free port, in a
directory of its own, with an upstream that refuses, so that no engine starts.
"""

import contextlib
import http.client
import os
import select
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

TRIES = 11
WAIT_S_MAX = 20
IDLE_S = 20
TICKS = os.sysconf("SC_CLK_TCK")


def main():
    section, program = sys.argv[1:]
    {"memory": memory, "start": start, "kill": kill}[section](program)


def memory(program):
    with Server(program) as server:
        server.wait_healthy()
        for _ in range(200):
            server.healthy()
        before = server.cpu_ticks()
        time.sleep(IDLE_S)
        used = server.cpu_ticks() - before
        rows = [(pid, pss_kib(pid)) for pid in server.tree()]
        for pid, kib in rows:
            row(f"PSS of {called(pid)}", f"{kib / 1024:.1f} MiB")
        row(f"PSS of all {len(rows)} processes, idle", f"{sum(kib for _, kib in rows) / 1024:.1f} MiB", "<= 25 MiB")
        row("idle CPU of all", f"{used / TICKS / IDLE_S * 100:.2f} % of a core", "< 0.5 %")


def start(program):
    took = []
    for _ in range(TRIES):
        with Server(program) as server:
            server.wait_healthy()
            took.append(time.monotonic() - server.started)
    spread("start to first answered health check", took, "<= 150 ms")


def kill(program):
    """From kill -9 to the line "worker ready" having come out of the log: an upper bound."""
    took = []
    with Server(program) as server:
        server.wait_healthy()
        server.lines_until(lambda lines: sum('"worker ready"' in line for line in lines) >= 4)
        for _ in range(TRIES):
            # The oldest: so no slot dies often enough to be made to wait.
            victim = min(server.workers(), key=birth)
            begun = time.monotonic()
            os.kill(victim, signal.SIGKILL)
            server.lines_until(lambda lines: any('"worker ready"' in line for line in lines))
            took.append(time.monotonic() - begun)
    spread("kill -9 of a worker to the next one ready", took, "<= 20 ms")


class Server:
    """One Chatcorn with these variables; leaving the block ends it and what it left."""

    def __init__(self, program, **variables):
        self.program, self.variables = program, variables

    def __enter__(self):
        self.home = tempfile.TemporaryDirectory(prefix="chatcorn-bench-")
        self.port = free_port()
        self.log, write = os.pipe()
        os.set_blocking(self.log, False)
        self.partial = b""
        environment = os.environ | settings(self.home.name) | self.variables
        command = [self.program, "serve", "--bind", f"127.0.0.1:{self.port}"]
        self.started = time.monotonic()
        self.process = subprocess.Popen(command, cwd=self.home.name, env=environment, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=write)
        os.close(write)
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self.log)
        self.home.cleanup()

    def wait_healthy(self):
        until = time.monotonic() + WAIT_S_MAX
        while not self.healthy():
            if self.process.poll() is not None or time.monotonic() > until:
                sys.exit(f"measure: {self.program} does not answer:\n" + "\n".join(self.read_lines()))
            time.sleep(0.0005)

    def healthy(self):
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            try:
                connection.request("GET", "/api/health")
                return connection.getresponse().status == 200
            finally:
                connection.close()
        return False

    def lines_until(self, enough):
        """Reads the log until `enough` of the lines read here is true."""
        lines, until = [], time.monotonic() + WAIT_S_MAX
        while not enough(lines):
            if not select.select([self.log], [], [], max(0, until - time.monotonic()))[0]:
                sys.exit("measure: the log did not say it in time:\n" + "\n".join(lines[-20:]))
            lines += self.read_lines()

    def read_lines(self):
        with contextlib.suppress(BlockingIOError):
            read = os.read(self.log, 1 << 16)
            if not read:
                sys.exit("measure: the log ended")
            self.partial += read
        *lines, self.partial = self.partial.split(b"\n")
        return [line.decode(errors="replace").replace('": "', '":"') for line in lines]

    def tree(self):
        """The master and everything below it."""
        pids = [self.process.pid]
        for pid in pids:
            pids += children(pid)
        return pids

    def workers(self):
        return [pid for pid in children(self.process.pid) if "worker" in called(pid)]

    def cpu_ticks(self):
        return sum(sum(map(int, stat(pid)[11:13])) for pid in self.tree())


def settings(home):
    return {
        "CHAT_UPSTREAM": "http://127.0.0.1:9",
        "LOG_DIR": f"{home}/logs",
        "LOG_FORMAT": "json",
        "DATABASE_URL": f"sqlite:{home}/chatcorn.db",
        "CONTROL_SOCKET": f"{home}/control.sock",
    }


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]


def stat(pid):
    """The fields of /proc/PID/stat behind the name: 0 is the state, 11 and 12 are utime and stime, 19 the start."""
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()


def birth(pid):
    return int(stat(pid)[19]), pid


def called(pid):
    """What the process names itself; nothing when it is gone by now."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/comm") as file:
        return file.read().strip()
    return ""


def pss_kib(pid):
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Pss:"))


def spread(name, seconds, goal):
    ms = sorted(1000 * value for value in seconds)
    row(f"{name}, median of {len(ms)}", f"{statistics.median(ms):.1f} ms ({ms[0]:.1f} to {ms[-1]:.1f})", goal)


def row(name, value, goal=""):
    print(name, value, goal, sep="\t", flush=True)


if __name__ == "__main__":
    main()

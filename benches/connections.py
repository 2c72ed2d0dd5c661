"""Many connections at once, and what each of them costs: `connections.py PROGRAM [NAME ...]`.

Prints tab-separated rows as measure.py does. Everything goes to one server of this script's own, on the loopback address, which
ends with the script. NAME: idle, pipeline, slow; all by default. `slow` needs slowhttptest and leaves its rows out without it.
"""

import contextlib
import os
import resource
import selectors
import shutil
import socket
import subprocess
import sys
import threading
import time

import measure

IDLE = 10_000
SLOW = 1_000
PIPELINED = 1_000
# What slowhttptest looks for in us: heads and bodies that do not come, answers that are not taken.
HEADER_S, BODY_S, SLACK_S = 10, 30, 1
# Until a connection that does nothing gives its buffers back.
REST_S = 4
GET = b"GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n"


def main():
    program, *names = sys.argv[1:]
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    os.environ["WORKER_CONNECTIONS"] = "4000"
    os.environ["RATE_LIMIT_ENABLED"] = "false"
    for name in names or ["idle", "pipeline", "slow"]:
        with measure.Server(program) as server:
            server.wait_healthy()
            {"idle": idle, "pipeline": pipeline, "slow": slow}[name](server)


def idle(server):
    """Each connection has asked once and is kept."""
    for _ in range(400):
        server.healthy()
    before = pss(server)
    with contextlib.ExitStack() as stack:
        began = time.monotonic()
        for _ in range(IDLE):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            connection.sendall(GET)
            if not connection.recv(4096).startswith(b"HTTP/1.1 200"):
                sys.exit("connections: a kept connection was not served")
        took = time.monotonic() - began
        # The first of them have not moved for seconds by now; the last ones rest after a second, which the sweeper sees within two.
        time.sleep(REST_S)
        each = (pss(server) - before) / IDLE
        measure.row(f"{IDLE} idle kept connections, memory of each (PSS of all processes)", f"{each:.2f} KiB", "<= 16 KiB")
        measure.row(f"{IDLE} connections opened and asked, one after the other", f"{took:.1f} s")
        measure.row("a health check beside them", f"{spread(server, 200)}")


def pipeline(server):
    """So many requests in one write, the last but few of them broken."""
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        began = time.monotonic()
        sender = threading.Thread(target=connection.sendall, args=(GET * (PIPELINED - 1) + GET.replace(b"Host", b"Ho st") + GET * 50,))
        sender.start()
        read = b""
        while part := connection.recv(1 << 16):
            read += part
        sender.join()
    good, bad = read.count(b"HTTP/1.1 200 OK"), read.count(b"HTTP/1.1 400 ")
    took = (time.monotonic() - began) * 1000
    fate = "in order, nothing behind the 400" if (good, bad) == (PIPELINED - 1, 1) and read.rfind(b"200 OK") < read.find(b" 400 ") else "WRONG"
    measure.row(f"{PIPELINED} pipelined requests, the last one bad", f"{good} served, {bad} refused, {took:.0f} ms: {fate}")


def slow(server):
    """slowhttptest's three attacks, with a client beside each that asks all the time."""
    program = shutil.which("slowhttptest")
    if program is None:
        print("slowhttptest is not installed: its rows are missing", file=sys.stderr)
        return
    url = f"http://127.0.0.1:{server.port}"
    forms = {
        "slow heads (-H)": ["-H", "-u", f"{url}/healthz", "-i", "3"],
        "slow bodies (-B)": ["-B", "-f", "application/json", "-u", f"{url}/api/chat", "-i", "5", "-s", "8192"],
        "slow readers (-X)": ["-X", "-u", f"{url}/page/page.js", "-w", "64", "-y", "128", "-n", "5", "-z", "8", "-k", "10"],
    }
    for name, form in forms.items():
        seconds = (BODY_S if "-H" not in form else HEADER_S) + 15
        for _ in range(400):
            server.healthy()
        before, watch = pss(server), Watch(server)
        command = [program, *form, "-c", str(SLOW), "-r", "500", "-l", str(seconds), "-p", "3", "-x", "24"]
        with watch:
            subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=seconds + 60, check=False)
        each = (watch.pss_max - before) / SLOW
        measure.row(f"{SLOW} {name}: others meanwhile", f"{watch.failed} of {watch.asked} failed, worst {watch.worst * 1000:.0f} ms", "none")
        measure.row(f"{SLOW} {name}: memory of each", f"{each:.1f} KiB", "<= 64 KiB")
    fates(server)


def fates(server):
    """When each of so many slow connections was closed."""
    head, body = b"GET /healthz HTTP/1.1\r\nHost: t\r\nX: ", b"POST /api/chat HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
    for name, start, limit in [("heads", head, HEADER_S), ("bodies", body, BODY_S)]:
        closed = closing_times(server.port, start, limit + 3 * SLACK_S)
        late = max(closed, default=float("inf"))
        measure.row(f"{SLOW} slow {name}: closed after", f"{min(closed):.1f} to {late:.1f} s, {len(closed)} of {SLOW}", f"<= {limit + SLACK_S} s")


def closing_times(port, start, patience):
    selector, closed = selectors.DefaultSelector(), []
    for _ in range(SLOW):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.sendall(start)
        selector.register(connection, selectors.EVENT_READ, time.monotonic())
    end = time.monotonic() + patience
    while selector.get_map() and time.monotonic() < end:
        for key, _ in selector.select(0.5):
            if not key.fileobj.recv(4096):
                closed.append(time.monotonic() - key.data)
                selector.unregister(key.fileobj)
                key.fileobj.close()
    for key in list(selector.get_map().values()):
        key.fileobj.close()
    return closed


class Watch:
    """Asks all the time, from a thread, and looks at the memory once a second."""

    def __init__(self, server):
        self.server, self.asked, self.failed, self.worst, self.pss_max = server, 0, 0, 0.0, 0
        self.over = threading.Event()

    def __enter__(self):
        self.threads = [threading.Thread(target=self.ask), threading.Thread(target=self.look)]
        for thread in self.threads:
            thread.start()

    def __exit__(self, *_):
        self.over.set()
        for thread in self.threads:
            thread.join()

    def ask(self):
        while not self.over.wait(0.02):
            began = time.monotonic()
            self.failed += not self.server.healthy()
            self.asked += 1
            self.worst = max(self.worst, time.monotonic() - began)

    def look(self):
        while not self.over.wait(1):
            self.pss_max = max(self.pss_max, pss(self.server))


def pss(server):
    return sum(measure.pss_kib(pid) for pid in server.tree())


def spread(server, count):
    took = []
    for _ in range(count):
        began = time.monotonic()
        if not server.healthy():
            return "failed"
        took.append((time.monotonic() - began) * 1000)
    took.sort()
    return f"{took[count // 2]:.1f} ms (worst {took[-1]:.1f})"


if __name__ == "__main__":
    main()

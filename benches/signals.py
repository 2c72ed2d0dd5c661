"""How soon signals and deaths are dealt with, Chatcorn beside nginx and gunicorn: `signals.py PROGRAM [PEERS]`.

Prints tab-separated rows: name, value with unit, goal. Times are from the signal to what it should bring about, as seen
from outside: a line of the log, or the processes that are gone. PEERS is as for reload.py.
"""

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time

import measure
import reload

TRIES = 7
PEER_TRIES = 3
GONE_S_MAX = 5
HELD = (b"POST /api/chat HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nContent-Length: 31\r\n\r\n"
        b'{"message":"x", "stream": true}')
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def main():
    program = sys.argv[1]
    peers = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else None
    term(program)
    drain(program)
    roll(program)
    orphans(program, peers)


def term(program):
    """TERM to the line that says that the server stops."""
    states = {
        "idle": lambda server: None,
        "in a reload": lambda server: server.process.send_signal(signal.SIGHUP),
        "in an upgrade's proof": lambda server: begin(server, signal.SIGUSR2, '"upgrade: proving'),
        "in an upgrade's replacement": lambda server: begin(server, signal.SIGUSR2, "replacing this one"),
    }
    for state, prepare in states.items():
        took = []
        for _ in range(TRIES):
            with serving(program) as server:
                prepare(server)
                took.append(until_line(server, lambda: server.process.terminate(), '"to":"stopping"'))
        measure.spread(f"TERM to its being heard, {state}", took, "<= 100 ms")


def begin(server, what, line):
    until_line(server, lambda: server.process.send_signal(what), line)


def drain(program):
    """A new worker is killed while the old ones drain, held by a stream: to the line that its successor is ready."""
    took = []
    with HoldingUpstream() as upstream:
        for _ in range(TRIES):
            with serving(program, CHAT_UPSTREAM=upstream.url, GRACEFUL_TIMEOUT="1") as server:
                held = socket.create_connection(("127.0.0.1", server.port))
                held.sendall(HELD)
                held.recv(1 << 16)
                old = set(server.workers())
                until_line(server, lambda: server.process.send_signal(signal.SIGHUP), '"message":"reloaded"')
                new = [pid for pid in server.workers() if pid not in old]
                took.append(until_line(server, lambda: os.kill(new[0], signal.SIGKILL), '"worker ready"'))
                held.close()
    measure.spread("a worker killed in a drain to the next one ready", took, "<= 500 ms")


def roll(program):
    """HUP to the end of the last old worker, with nobody connected."""
    took = []
    with serving(program) as server:
        for _ in range(TRIES):
            old = set(server.workers())
            begun = time.monotonic()
            server.process.send_signal(signal.SIGHUP)
            while old & set(server.workers()):
                time.sleep(0.0005)
            took.append(time.monotonic() - begun)
            until(lambda: len(server.workers()) == 4)
    measure.spread("reload of 4 idle workers, HUP to the last old one gone", took, "<= 200 ms")


def orphans(program, peers):
    """kill -9 of the master to the end of its last child."""
    took = []
    for _ in range(TRIES):
        with serving(program) as server:
            took.append(until_gone(server.process))
    measure.spread("kill -9 of the master to its last child gone, Chatcorn", took, "<= 100 ms")
    if os.path.exists("/usr/sbin/nginx"):
        peer("nginx", reload.nginx)
    if peers and (peers / "bin/gunicorn").exists():
        peer("gunicorn", lambda home, port: reload.gunicorn(peers, home, port))
    else:
        measure.row("kill -9 of the master, gunicorn", "not installed here")


def peer(name, start):
    took = []
    for _ in range(PEER_TRIES):
        with tempfile.TemporaryDirectory(prefix="chatcorn-bench-") as home:
            port = measure.free_port()
            process = start(pathlib.Path(home), port)
            until(lambda: accepts(port) and len(measure.children(process.pid)) >= 4)
            took.append(until_gone(process))
    if None in took:
        measure.row(f"kill -9 of the master to its last child gone, {name}", f"still there after {GONE_S_MAX} s")
    else:
        measure.spread(f"kill -9 of the master to its last child gone, {name}", took, "")


def until_gone(process):
    """Kills it; seconds until its children are gone, None when they stay (and are killed then)."""
    children = measure.children(process.pid)
    begun = time.monotonic()
    process.kill()
    process.wait()
    while left := [pid for pid in children if lives(pid)]:
        if time.monotonic() > begun + GONE_S_MAX:
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            return None
        time.sleep(0.0005)
    return time.monotonic() - begun


def lives(pid):
    with contextlib.suppress(OSError):
        return measure.stat(pid)[0] != "Z"
    return False


def accepts(port):
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    return False


@contextlib.contextmanager
def serving(program, **variables):
    """A Chatcorn of which four workers serve; its log is read up to there."""
    with measure.Server(program, **variables) as server:
        server.lines_until(lambda lines: any('"message":"serving"' in line for line in lines))
        yield server


def until_line(server, act, part):
    begun = time.monotonic()
    act()
    server.lines_until(lambda lines: any(part in line for line in lines))
    return time.monotonic() - begun


def until(condition):
    end = time.monotonic() + measure.WAIT_S_MAX
    while not condition():
        if time.monotonic() > end:
            sys.exit("signals: waited in vain")
        time.sleep(0.005)


class HoldingUpstream:
    """Sends one piece of a reply and then nothing, to whoever asks; a process of its own."""

    def __enter__(self):
        listener = socket.create_server(("127.0.0.1", 0))
        self.url = "http://127.0.0.1:%d/v1" % listener.getsockname()[1]
        self.child = os.fork()
        if not self.child:
            hold(listener)
        listener.close()
        return self

    def __exit__(self, *_):
        os.kill(self.child, signal.SIGKILL)
        os.waitpid(self.child, 0)


def hold(listener):
    kept = []
    while True:
        connection, _ = listener.accept()
        kept.append(connection)
        with contextlib.suppress(OSError):
            connection.recv(1 << 16)
            connection.sendall(STREAM_HEAD + b"%x\r\n%s\r\n" % (len(reload.PIECE), reload.PIECE))


if __name__ == "__main__":
    main()

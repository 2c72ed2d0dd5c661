"""What limits cost a running Chatcorn: `limit.py PROGRAM`, with wrk, redis-server and nginx.

Prints tab-separated rows: name, value with unit, goal. Rounds by turns, so that a disturbance meets all that is compared.
"""

import contextlib
import http.client
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

from measure import TICKS, Server, children, free_port, row

ROUNDS = 3
ROUND_S = 3
CONNECTIONS = 64
WIDE = {"RATE_LIMIT_DEFAULT": "1000000/minute;1000000/hour;1000000/day", "RATE_LIMIT_CHAT": ""}
MILLION = 1_000_000

# Every request is another client's: a counter in each of wrk's threads, seen through the proxy that wrk is.
EACH_ANOTHER = """
local threads = 0
function setup(thread) thread:set("mine", threads) threads = threads + 1 end
local n = FROM
function request()
  n = n + 1
  local id = n * 2 + mine
  local address = string.format("10.%d.%d.%d", math.floor(id / 65536) % 256, math.floor(id / 256) % 256, id % 256)
  return wrk.format("GET", nil, {["X-Forwarded-For"] = address})
end
"""


def main():
    program = sys.argv[1]
    with tempfile.TemporaryDirectory(prefix="chatcorn-bench-") as home, Redis(home) as redis:
        cost_of_a_request(program)
        flood(program, home, redis)
        trips(program, redis)
        million(program, home, redis)


def cost_of_a_request(program):
    """CPU of all processes for one request of a limited route, limits on against off."""
    with Limited(program, WIDE) as on, Limited(program, {"RATE_LIMIT_ENABLED": "false"}) as off:
        costs = {on: [], off: []}
        for _ in range(ROUNDS):
            for server, cost in costs.items():
                before = server.cpu_ticks()
                requests = wrk(server.port, "/api/nothing")[1]
                cost.append((server.cpu_ticks() - before) / TICKS / requests * 1e6)
        told = {server: statistics.median(cost) for server, cost in costs.items()}
        row("CPU of a limited request, limits on and off", f"{told[on]:.2f} and {told[off]:.2f} us, {told[on] - told[off]:+.2f} us", "<= +0.5 us")


def flood(program, home, redis):
    """One client that is refused, against nginx's limit_req in the same run; Redis hears nothing of it. nginx as it is, with
    our header fields, and with these and an access log, which Chatcorn then has too."""
    once = {"RATE_LIMIT_DEFAULT": "1/day", "REDIS_URL": redis.url}
    logged = {**once, "ACCESS_LOGFILE": f"{home}/ours.log"}
    with Limited(program, once) as server, Limited(program, logged) as logging:
        for each in (server, logging):
            each.settle(redis)
            wrk(each.port, "/api/nothing", seconds=1)
        told = fields(server.port)
        with Nginx(home, "plain") as plain, Nginx(home, "same", told) as same, Nginx(home, "logged", told, f"{home}/access.log") as both:
            for each in (server, logging, plain, same, both):
                if (told := status(each.port)) != 429:
                    sys.exit(f"limit: a flooded server answers {told} and not 429")
            compared((server, logging), (plain, same, both), redis)


def compared(ours, theirs, redis):
    rates = {server: [] for server in (*ours, *theirs)}
    before = redis.calls()
    for _ in range(ROUNDS):
        for server, rate in rates.items():
            rate.append(wrk(server.port, "/api/nothing")[0])
    quiet, logging, plain, same, both = (statistics.median(rate) for rate in rates.values())
    row("429 flood of one client, no access log", f"{quiet:.0f} a second: {quiet / same:.2f} of nginx limit_req with our header fields ({same:.0f}), {quiet / plain:.2f} of one with its own few ({plain:.0f})", ">= 1.0 of nginx")
    row("the same, with an access log", f"{logging:.0f} a second: {logging / both:.2f} of nginx with our header fields and an access log ({both:.0f})", ">= 1.0 of nginx")
    row("calls to Redis in that flood", f"{redis.calls() - before} in {2 * ROUNDS * ROUND_S} s", "one in 5 s")


def trips(program, redis):
    """What Redis adds to one request, and what it leaves of the throughput."""
    with Limited(program, {**WIDE, "REDIS_URL": redis.url}) as far, Limited(program, WIDE) as near:
        far.settle(redis)
        before = redis.calls()
        requests = wrk(far.port, "/api/nothing", seconds=1)[1]
        row("calls to Redis for an admitted request", f"{(redis.calls() - before) / requests:.3f}", "1")
        added, trip = [], []
        for _ in range(ROUNDS):
            added.append(p50_ms(far.port) - p50_ms(near.port))
            trip.append(redis.trip_ms())
        row("added latency with Redis, p50", f"{statistics.median(added):.3f} ms; a trip alone {statistics.median(trip):.3f} ms", "<= trip + 0.1 ms")
        rates = {far: [], near: []}
        for _ in range(ROUNDS):
            for server, rate in rates.items():
                rate.append(wrk(server.port, "/api/nothing")[0])
        with_redis, alone = (statistics.median(rate) for rate in rates.values())
        row(f"throughput with Redis, {CONNECTIONS} connections", f"{with_redis:.0f} a second, {with_redis / alone:.2f} of shared memory alone", ">= 0.5")


def million(program, home, redis):
    """A million clients in Redis and in a table that is made for them."""
    redis.ask("FLUSHALL")
    empty = redis.bytes()
    script = os.path.join(home, "another.lua")
    table = {"RATE_LIMIT_TABLE": "64MiB", "RATE_LIMIT_DEFAULT": "200 per day;50 per hour;10 per minute"}
    with Limited(program, {**table, "REDIS_URL": redis.url}) as server:
        server.settle(redis)
        while redis.keys() < MILLION:
            known = redis.keys()
            with open(script, "w") as file:
                file.write(EACH_ANOTHER.replace("FROM", str(known)))
            wrk(server.port, "/api/nothing", seconds=5, script=script)
            if redis.keys() == known:
                sys.exit("limit: no new clients arrive in Redis")
        keys = redis.keys()
        row("a million clients in Redis", f"{(redis.bytes() - empty) / keys * MILLION / 2**20:.0f} MiB ({keys} keys)", "<= 200 MiB")
        row("shared memory for a million clients", f"{server.shared_mib():.0f} MiB", "<= 90 MiB")


class Limited(Server):
    """A Chatcorn with these settings, without access lines."""

    def __init__(self, program, variables):
        super().__init__(program)
        self.variables = {"ACCESS_LOGFILE": "off", **variables}

    def __enter__(self):
        os.environ.update(self.variables)
        super().__enter__()
        for name in self.variables:
            del os.environ[name]
        self.wait_healthy()
        return self

    def settle(self, redis):
        """Waits until every thread has its connection: two a worker."""
        until = time.monotonic() + 10
        while redis.clients() < 1 + 2 * len(self.workers()) and time.monotonic() < until:
            time.sleep(0.02)

    def shared_mib(self):
        """The table, as the kernel has it mapped in the master."""
        with open(f"/proc/{self.process.pid}/maps") as file:
            spans = [line.split()[0].split("-") for line in file if "chatcorn-limits" in line]
        return sum(int(end, 16) - int(start, 16) for start, end in spans) / 2**20


class Redis:
    """A redis-server on a port of its own."""

    def __init__(self, home):
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", home]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def __enter__(self):
        for _ in range(200):
            try:
                self.wire = socket.create_connection(("127.0.0.1", self.port))
                return self
            except OSError:
                time.sleep(0.02)
        sys.exit("limit: redis-server does not start")

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def ask(self, *words):
        self.wire.sendall(f"*{len(words)}\r\n".encode() + b"".join(f"${len(word)}\r\n{word}\r\n".encode() for word in words))
        told = b""
        while b"\r\n" not in told:
            told += self.wire.recv(65536)
        if told.startswith(b"$") and not told.startswith(b"$-1"):
            length = told.index(b"\r\n") + 4 + int(told[1:told.index(b"\r\n")])
            while len(told) < length:
                told += self.wire.recv(65536)
        return told.decode()

    def number(self, section, name):
        lines = self.ask("INFO", section).splitlines()
        return next((int(line.partition(":")[2].partition("=")[2].split(",")[0] if "=" in line else line.partition(":")[2])
                     for line in lines if line.startswith(name)), 0)

    def calls(self):
        return self.number("commandstats", "cmdstat_evalsha:") + self.number("commandstats", "cmdstat_eval:")

    def clients(self):
        return self.number("clients", "connected_clients:")

    def bytes(self):
        return self.number("memory", "used_memory:")

    def keys(self):
        return int(self.ask("DBSIZE")[1:])

    def trip_ms(self):
        """An EVALSHA with nothing to do, median."""
        sha = self.ask("SCRIPT", "LOAD", "return 1").splitlines()[-1]
        took = []
        for _ in range(2000):
            begun = time.perf_counter()
            self.ask("EVALSHA", sha, "0")
            took.append(time.perf_counter() - begun)
        return statistics.median(took) * 1e3


class Nginx:
    """nginx whose limit_req answers 429 to nearly everybody."""

    def __init__(self, home, name, fields=(), access_log="off"):
        self.home = os.path.join(home, name)
        os.mkdir(self.home)
        added = "".join(f"add_header {field} '{value}' always;" for field, value in fields)
        self.port = free_port()
        paths = "".join(f"{area}_temp_path {self.home}/{area};" for area in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"])
        with open(os.path.join(self.home, "conf"), "w") as file:
            file.write(f"""worker_processes 4; daemon off; pid {self.home}/pid; error_log /dev/null crit;
events {{ worker_connections 1024; }}
http {{ access_log {access_log}; keepalive_requests 100000000; {paths} {added}
limit_req_zone $binary_remote_addr zone=one:10m rate=1r/m; limit_req_status 429;
server {{ listen 127.0.0.1:{self.port} backlog=2048; location / {{ limit_req zone=one; try_files /none @answer; }}
# `return` in the same place would answer before limit_req is asked.
location @answer {{ return 404; }} }} }}
""")

    def __enter__(self):
        nginx = shutil.which("nginx") or "/usr/sbin/nginx"
        command = [nginx, "-e", f"{self.home}/err", "-c", f"{self.home}/conf"]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return self
            except OSError:
                time.sleep(0.02)
        sys.exit("limit: nginx does not start")

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()


def fields(port):
    """The fields of our answer that nginx does not send by itself."""
    own = {"date", "server", "connection", "content-length", "content-type"}
    with socket.create_connection(("127.0.0.1", port)) as wire:
        wire.sendall(b"GET /api/nothing HTTP/1.1\r\nHost: t\r\n\r\n")
        head = wire.recv(65536).decode().partition("\r\n\r\n")[0].split("\r\n")[1:]
    told = (line.partition(": ")[::2] for line in head)
    return [(name, value.replace("'", "\\'")) for name, value in told if name.lower() not in own]


def status(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with contextlib.closing(connection):
        for _ in range(2):
            connection.request("GET", "/api/nothing")
            answer = connection.getresponse()
            answer.read()
    return answer.status


def wrk(port, path, seconds=ROUND_S, script=None):
    """Requests a second, and requests."""
    command = ["wrk", "-t2", f"-c{CONNECTIONS}", f"-d{seconds}s", *(["-s", script] if script else []), f"http://127.0.0.1:{port}{path}"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    rate = next(float(line.split()[1]) for line in lines if line.startswith("Requests/sec"))
    return rate, next(int(line.split()[0]) for line in lines if " requests in " in line)


def p50_ms(port):
    """One kept connection, one request after the other."""
    request = b"GET /api/nothing HTTP/1.1\r\nHost: t\r\n\r\n"
    took = []
    with socket.create_connection(("127.0.0.1", port)) as wire:
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(2000):
            begun = time.perf_counter()
            wire.sendall(request)
            told = b""
            while b"\r\n\r\n" not in told or not told.endswith(b"}"):
                told += wire.recv(65536)
            took.append(time.perf_counter() - begun)
    return statistics.median(took) * 1e3


if __name__ == "__main__":
    main()

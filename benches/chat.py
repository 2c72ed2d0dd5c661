"""The chat API beside what else could stand before a model: `chat.py PROGRAM INSTANT [CACHE]`.

INSTANT is benches/instant.rs, built: the upstream that answers at once, and the clients. CACHE may hold two virtual
environments: `peers` with gunicorn, Flask and requests, `litellm-proxy` with the proxy of that name; one that is not
there is named as absent. nginx passes on without looking. Prints tab-separated rows: name, value, goal.
"""

import contextlib
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

import measure

ROUNDS, ROUND_S, CONNECTIONS = 5, 3, 32
STREAMS = 1000
TICKS = os.sysconf("SC_CLK_TCK")
BODY = b'{"model":"any","messages":[{"role":"user","content":"hello"}]}'
FLASK = """
import requests
from flask import Flask, request, jsonify
app = Flask(__name__)
session = requests.Session()
@app.post("/v1/chat/completions")
def complete():
    asked = request.get_json()
    if not asked.get("messages"):
        return jsonify(error="messages"), 400
    answer = session.post("{upstream}/v1/chat/completions", json=asked, timeout=60)
    return jsonify(answer.json()), answer.status_code
"""
NGINX = """
worker_processes 4; daemon off; pid {home}/pid; error_log {home}/out;
events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 100000000;
client_body_temp_path {home}/a; proxy_temp_path {home}/b; fastcgi_temp_path {home}/c; uwsgi_temp_path {home}/d; scgi_temp_path {home}/e;
upstream model {{ server {address}; keepalive 128; keepalive_requests 100000000; }}
server {{ listen 127.0.0.1:{port} backlog=2048;
location / {{ proxy_pass http://model; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; }} }} }}
"""
LITELLM = """
model_list:
  - model_name: any
    litellm_params: {{model: openai/any, api_base: {upstream}/v1, api_key: sk-nobody}}
litellm_settings: {{telemetry: false}}
"""


def main():
    program, instant = sys.argv[1:3]
    cache = pathlib.Path(sys.argv[3]) if len(sys.argv) > 3 else None
    address = f"127.0.0.1:{measure.free_port()}"
    with Running([instant, "serve", address]) as upstream:
        upstream.wait(address)
        with tempfile.TemporaryDirectory(prefix="chatcorn-bench-") as home:
            Bench(program, instant, cache, address, pathlib.Path(home)).run()


class Silent(Exception):
    """A server that does not answer, with the end of what it said."""


class Running:
    """A process and its children, ended with the block."""

    def __init__(self, command, home=None, **environment):
        self.command, self.home, self.environment = command, home, environment

    def __enter__(self):
        # What it prints must not fill a pipe that nobody reads.
        self.said = tempfile.TemporaryFile()
        environment = dict(os.environ, **self.environment)
        self.process = subprocess.Popen(self.command, cwd=self.home, env=environment, stdin=subprocess.DEVNULL,
                                        stdout=self.said, stderr=self.said, start_new_session=True)
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.said.close()

    def wait(self, address, seconds=20):
        until = time.monotonic() + seconds
        while not answers(address):
            if self.process.poll() is not None or time.monotonic() > until:
                self.said.seek(0)
                raise Silent(f"{self.command[0]} does not answer:\n" + self.said.read().decode(errors="replace")[-2000:])
            time.sleep(0.05)

    def tree(self):
        pids = [self.process.pid]
        for pid in pids:
            pids += measure.children(pid)
        return pids

    def workers(self):
        return [pid for pid in self.tree() if "worker" in measure.called(pid)]

    def mib(self):
        return sum(measure.pss_kib(pid) for pid in self.tree()) / 1024


class Bench:
    def __init__(self, program, instant, cache, address, home):
        self.program, self.instant, self.cache, self.address, self.home = program, instant, cache, address, home
        self.numbers = {}

    def run(self):
        self.rates()
        self.slow_peers()
        self.latency()
        self.streams()
        self.memory()

    @contextlib.contextmanager
    def chatcorn(self, **more):
        port, home = measure.free_port(), pathlib.Path(tempfile.mkdtemp(dir=self.home))
        settings = dict(measure.settings(home), CHAT_UPSTREAM=f"http://{self.address}/v1", RATE_LIMIT_ENABLED="true",
                        RATE_LIMIT_DEFAULT="1000000 per second", RATE_LIMIT_CHAT="1000000 per second", **more)
        with Running([self.program, "serve", "--bind", f"127.0.0.1:{port}"], home, **settings) as server:
            server.wait(f"127.0.0.1:{port}")
            yield server, f"127.0.0.1:{port}"

    @contextlib.contextmanager
    def nginx(self):
        port, home = measure.free_port(), pathlib.Path(tempfile.mkdtemp(dir=self.home))
        (home / "conf").write_text(NGINX.format(home=home, port=port, address=self.address))
        with Running(["/usr/sbin/nginx", "-e", f"{home}/out", "-c", f"{home}/conf"]) as server:
            server.wait(f"127.0.0.1:{port}")
            yield server, f"127.0.0.1:{port}"

    @contextlib.contextmanager
    def flask(self):
        port, home = measure.free_port(), pathlib.Path(tempfile.mkdtemp(dir=self.home))
        (home / "app.py").write_text(FLASK.replace("{upstream}", f"http://{self.address}"))
        command = [self.cache / "peers/bin/gunicorn", "--workers", "4", "--threads", "2", "--bind", f"127.0.0.1:{port}",
                   "--keep-alive", "75", "app:app"]
        with Running(command, home) as server:
            server.wait(f"127.0.0.1:{port}")
            yield server, f"127.0.0.1:{port}"

    @contextlib.contextmanager
    def litellm(self):
        port, home = measure.free_port(), pathlib.Path(tempfile.mkdtemp(dir=self.home))
        (home / "config.yaml").write_text(LITELLM.format(upstream=f"http://{self.address}"))
        command = [self.cache / "litellm-proxy/bin/litellm", "--config", home / "config.yaml", "--port", str(port),
                   "--host", "127.0.0.1"]
        # No keys are asked for anywhere here; it starts without one only when it is told that this is meant.
        local = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
                 "PATH": f"{self.cache}/litellm-proxy/bin:{os.environ['PATH']}"}
        with Running(command, home, **local) as server:
            server.wait(f"127.0.0.1:{port}", 180)
            yield server, f"127.0.0.1:{port}"

    def said(self, *words):
        done = subprocess.run([self.instant, *map(str, words)], capture_output=True, text=True, timeout=120)
        if done.returncode:
            sys.exit(f"chat: instant {words}: {done.stderr}")
        return [float(word) for word in done.stdout.split()]

    def rate(self, address, connections=CONNECTIONS, seconds=ROUND_S):
        return self.said("rate", address, connections, seconds)[0]

    def rates(self):
        if not shutil.which("nginx", path="/usr/sbin:/usr/bin"):
            return measure.row("/v1 beside nginx", "nginx is not installed here")
        with self.nginx() as (_, nginx), self.chatcorn() as (_, chatcorn):
            places = {"the upstream itself": self.address, "nginx proxy_pass": nginx, "chatcorn": chatcorn}
            rounds = {name: [] for name in places}
            for _ in range(ROUNDS):
                for name, address in places.items():
                    rounds[name].append(self.rate(address))
        medians = {name: statistics.median(values) for name, values in rounds.items()}
        self.numbers.update(medians)
        for name, values in rounds.items():
            share = medians[name] / medians["nginx proxy_pass"]
            goal = ">= 0.80 of nginx" if name == "chatcorn" else ""
            measure.row(f"/v1, one answer, {name}",
                        f"{medians[name]:.0f} requests/s ({min(values):.0f} to {max(values):.0f}), {share:.2f} of nginx", goal)

    def slow_peers(self):
        peers = [("gunicorn + Flask + requests", "peers/bin/gunicorn", self.flask, 40),
                 ("litellm proxy", "litellm-proxy/bin/litellm", self.litellm, 100)]
        for name, path, start, goal in peers:
            if not self.cache or not (self.cache / path).exists():
                measure.row(f"/v1, one answer, {name}", "not installed here")
                continue
            try:
                with start() as (server, address):
                    self.rate(address, 8, 2)
                    rate = statistics.median(self.rate(address, 8, 5) for _ in range(3))
                    mib = server.mib()
            except Silent as silent:
                print(silent, file=sys.stderr)
                measure.row(f"/v1, one answer, {name}", "does not start here")
                continue
            times = self.numbers.get("chatcorn", 0) / rate
            measure.row(f"/v1, one answer, {name}", f"{rate:.0f} requests/s, {mib:.0f} MiB; chatcorn {times:.0f} times", f">= {goal} times")

    def latency(self):
        direct, through, stored = [], [], []
        with self.chatcorn() as (server, chatcorn):
            for _ in range(3):
                direct.append(self.said("pace", self.address, 1000, 4))
                through.append(self.said("pace", chatcorn, 1000, 4))
            mib = server.mib()
            for _ in range(3):
                stored.append(self.said("pace", chatcorn, 1000, 4, "/api/chat"))
        middle = lambda rounds, at: statistics.median(values[at] for values in rounds)
        failed = sum(values[2] for values in direct + through + stored)
        added = [middle(through, at) - middle(direct, at) for at in (0, 1)]
        measure.row("/v1 at 1,000 requests/s, added", f"p50 {added[0]:.2f} ms, p99 {added[1]:.2f} ms; {failed:.0f} failed",
                    "p50 <= 0.3 ms, p99 <= 1 ms")
        measure.row("/api/chat, stored, at 1,000 requests/s", f"p50 {middle(stored, 0):.2f} ms, p99 {middle(stored, 1):.2f} ms",
                    "p99 <= 10 ms")
        measure.row("chatcorn after that, all processes", f"{mib:.0f} MiB")

    def streams(self):
        with self.chatcorn(WEB_CONCURRENCY="1", THREADS="1") as (server, address):
            for model, name, goal in [("burst", "an upstream that does not wait", 150_000), ("paced", "one that paces each chunk", 40_000)]:
                self.said("chunks", address, model, 4, 1)
                per_core, rates = [], []
                for _ in range(3):
                    before = cpu_s(server.workers())
                    rate = self.said("chunks", address, model, 8, ROUND_S)[0]
                    # The streams under way at the end were counted too.
                    per_core.append(rate * ROUND_S / max(cpu_s(server.workers()) - before, 1e-9))
                    rates.append(rate)
                measure.row(f"stream chunks from {name}",
                            f"{statistics.median(per_core):.0f} per second of a core; {statistics.median(rates):.0f}/s by one thread",
                            f">= {goal} per second of a core")

    def memory(self):
        with self.chatcorn() as (server, address):
            idle = sum(measure.pss_kib(pid) for pid in server.workers()) / 1024
            held = subprocess.Popen([self.instant, "hold", address, str(STREAMS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            assert int(held.stdout.readline()) == STREAMS
            open_now = sum(measure.pss_kib(pid) for pid in server.workers()) / 1024
            held.communicate()
        measure.row(f"{STREAMS} open streams, all workers together", f"{open_now:.1f} MiB (idle {idle:.1f})", "<= 40 MiB")


def cpu_s(pids):
    return sum(sum(map(int, measure.stat(pid)[11:13])) for pid in pids) / TICKS


def answers(address):
    asked = urllib.request.Request(f"http://{address}/v1/chat/completions", BODY, {"Content-Type": "application/json"})
    with contextlib.suppress(OSError):
        with urllib.request.urlopen(asked, timeout=5) as answer:
            return answer.status == 200
    return False


if __name__ == "__main__":
    try:
        main()
    except Silent as silent:
        sys.exit(f"chat: {silent}")

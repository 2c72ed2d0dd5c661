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
# What Chatcorn replaces, doing what Chatcorn does for each request and no more: the deployment that gunicorn's guides
# describe (4 workers, 2 threads), limits by flask-limiter in memory with their headers, set high; the body looked at;
# security headers and CORS on every answer; a request id, taken over or made, that goes on to the upstream; errors as
# JSON; one access line a request through a filter that cuts secrets out, in a file that rotates at 10 MB. `call` is
# `requests.post`, as such apps have it, or a session for each thread, which keeps its connections.
FLASK = """
import threading, uuid
import requests
from flask import Flask, g, jsonify, request
from flask_limiter import Limiter
from flask_limiter.util import get_remote_address
from werkzeug.exceptions import HTTPException
app = Flask(__name__)
limiter = Limiter(get_remote_address, app=app, storage_uri="memory://", headers_enabled=True,
                  default_limits=["1000000000 per day", "100000000 per hour", "10000000 per minute"])
local = threading.local()
HEADERS = {{
    "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "X-XSS-Protection": "1; mode=block",
    "Strict-Transport-Security": "max-age=31536000; includeSubDomains", "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'", "Cache-Control": "no-store",
    "Access-Control-Allow-Origin": "*",
}}
def pooled(*args, **more):
    if not hasattr(local, "session"):
        local.session = requests.Session()
    return local.session.post(*args, **more)
call = {call}
@app.before_request
def identify():
    g.id = request.headers.get("X-Request-Id") or uuid.uuid4().hex
@app.after_request
def protect(response):
    response.headers.update(HEADERS)
    response.headers["X-Request-Id"] = g.id
    return response
def refused(status, kind, text):
    return jsonify(error={{"message": text, "type": kind, "param": None, "code": kind}}), status
@app.errorhandler(HTTPException)
def wrong(error):
    return refused(error.code, "rate_limit_error" if error.code == 429 else "invalid_request_error", error.description)
@app.errorhandler(requests.RequestException)
def failed(error):
    app.logger.warning("upstream failed: %s", error)
    return refused(502, "server_error", "The model did not answer. Try again.")
@app.post("/v1/chat/completions")
@limiter.limit("1000000 per second")
def complete():
    asked = request.get_json()
    messages = asked.get("messages") if isinstance(asked, dict) else None
    if not isinstance(messages, list) or not messages:
        return refused(400, "invalid_request_error", "messages must be an array of at least one message")
    if not isinstance(asked.get("model", ""), str) or asked.get("n", 1) != 1 or asked.get("stream") not in (None, False, True):
        return refused(400, "invalid_request_error", "model, n or stream is wrong")
    answer = call("{upstream}/v1/chat/completions", json=asked, headers={{"X-Request-Id": g.id}}, timeout=60)
    answer.raise_for_status()
    return jsonify(answer.json())
"""
GUNICORN = """
import logging, re
SECRETS = re.compile(r"(?i)(bearer |token[=:]|password[=:]|api[_-]?key[=:])[^ &]+|hf_[A-Za-z0-9]+|sk-[A-Za-z0-9_-]+")
class Sanitized(logging.Formatter):
    def format(self, record):
        return SECRETS.sub("[REDACTED]", super().format(record))
logconfig_dict = {{
    "version": 1, "disable_existing_loggers": False,
    "formatters": {{"plain": {{"()": Sanitized, "format": "%(message)s"}}}},
    "handlers": {{"file": {{"class": "logging.handlers.RotatingFileHandler", "filename": "{home}/access.log",
                          "maxBytes": 10000000, "backupCount": 5, "formatter": "plain"}},
                 "console": {{"class": "logging.StreamHandler", "formatter": "plain"}}}},
    "root": {{"level": "INFO", "handlers": ["console"]}},
    "loggers": {{"gunicorn.access": {{"level": "INFO", "handlers": ["file"], "propagate": False}}}},
}}
accesslog = "{home}/access.log"
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
    def flask(self, call="requests.post"):
        port, home = measure.free_port(), pathlib.Path(tempfile.mkdtemp(dir=self.home))
        (home / "app.py").write_text(FLASK.format(upstream=f"http://{self.address}", call=call))
        (home / "gunicorn.conf.py").write_text(GUNICORN.format(home=home))
        command = [self.cache / "peers/bin/gunicorn", "--workers", "4", "--threads", "2", "--bind", f"127.0.0.1:{port}",
                   "--timeout", "120", "--keep-alive", "75", "app:app"]
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
                 ("the same with a pooled session", "peers/bin/gunicorn", lambda: self.flask("pooled"), 0),
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
            measure.row(f"/v1, one answer, {name}", f"{rate:.0f} requests/s, {mib:.0f} MiB; chatcorn {times:.0f} times", f">= {goal} times" if goal else "")

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

"""Reloads and upgrades under load, Chatcorn beside nginx and gunicorn: `reload.py PROGRAM [PEERS]`.

An open-loop client asks 300 times a second, half on kept connections that never retry, half on a new connection each,
with POSTs that a fake upstream answers; meanwhile each server gets 20 HUPs, and Chatcorn 10 USR2 after that (nginx and gunicorn need two signals and change
their pid). Prints tab-separated rows: name, value, goal.
CHATCORN_BENCH_LONG in the environment: Chatcorn again and again until it was asked 100,000 times under reloads, and as
often under upgrades (a quarter of an hour together).
PEERS is a folder that may hold a virtual environment with gunicorn and Flask; a peer that is not there is named as absent.
"""

import asyncio
import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import measure

RELOADS, UPGRADES = 20, 10
RELOAD_EVERY_S = 1.5
KEPT, KEPT_EVERY_S = 30, 0.2
SINGLE_EVERY_S = 1 / 150
ASKED_MIN = 100_000 if "CHATCORN_BENCH_LONG" in os.environ else 1
ANSWER_S_MAX = 20
BODY = b'{"message":"x","context_mode":"fresh"}'
PIECE = b'data: {"model":"fake","choices":[{"index":0,"delta":{"content":"yes"},"finish_reason":null}]}\n\n'
LAST = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


def main():
    program = sys.argv[1]
    peers = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else None
    asyncio.run(compare(program, peers))


async def compare(program, peers):
    upstream = await asyncio.start_server(answer_upstream, "127.0.0.1", 0)
    address = "http://127.0.0.1:%d/v1" % upstream.sockets[0].getsockname()[1]
    own = lambda home, port: chatcorn(program, home, port, address)
    await run("chatcorn", own, asked_min=ASKED_MIN)
    await run("chatcorn", own, UPGRADES, signal.SIGUSR2, ASKED_MIN)
    if shutil.which("nginx", path="/usr/sbin:/usr/bin"):
        await run("nginx", nginx)
    if peers and (peers / "bin/gunicorn").exists():
        await run("gunicorn", lambda home, port: gunicorn(peers, home, port))
    else:
        measure.row("reloads, gunicorn", "not installed here", "")


async def run(name, start, count=RELOADS, what=signal.SIGHUP, asked_min=1):
    """As often as it takes to ask so many times, each time with a new server."""
    total, rounds = {"asked": 0, "failed": 0, "why": {}}, 0
    while total["asked"] < asked_min:
        tally = await one_round(start, count, what)
        rounds += 1
        for part in ("asked", "failed"):
            total[part] += tally[part]
        for reason, times in tally["why"].items():
            total["why"][reason] = total["why"].get(reason, 0) + times
    goal = "0 failed" if name == "chatcorn" else ""
    called = "reloads" if what == signal.SIGHUP else "upgrades"
    measure.row(f"{rounds * count} {called} at 300 POSTs/s, {name}", f"{total['failed']} of {total['asked']} failed", goal)
    for reason, times in sorted(total["why"].items()):
        print(f"  {name}: {times} x {reason}", file=sys.stderr)


async def one_round(start, count, what):
    with tempfile.TemporaryDirectory(prefix="chatcorn-bench-") as home:
        port = measure.free_port()
        process = start(pathlib.Path(home), port)
        try:
            await answers(port)
            return await under_reloads(process, port, count, what)
        finally:
            process.terminate()
            process.wait(40)


async def under_reloads(process, port, count, what):
    tally = {"asked": 0, "failed": 0, "why": {}}
    stop = asyncio.Event()
    clients = [asyncio.create_task(kept(port, number, stop, tally)) for number in range(KEPT)]
    clients.append(asyncio.create_task(single(port, stop, tally)))
    await asyncio.sleep(1)
    for _ in range(count):
        process.send_signal(what)
        await asyncio.sleep(RELOAD_EVERY_S)
    stop.set()
    await asyncio.gather(*clients)
    return tally


async def kept(port, number, stop, tally):
    """One connection, a request now and then, never one again that failed."""
    streams = None
    due = time.monotonic() + KEPT_EVERY_S * number / KEPT
    while not stop.is_set():
        await asyncio.sleep(max(0, due - time.monotonic()))
        due += KEPT_EVERY_S
        streams = await ask(port, streams, tally)
    if streams:
        streams[1].close()


async def single(port, stop, tally):
    due, tasks = time.monotonic(), set()
    while not stop.is_set():
        await asyncio.sleep(max(0, due - time.monotonic()))
        due += SINGLE_EVERY_S
        tasks.add(asyncio.create_task(once(port, tally)))
        tasks = {task for task in tasks if not task.done()}
    await asyncio.gather(*tasks)


async def once(port, tally):
    streams = await ask(port, None, tally)
    if streams:
        streams[1].close()


async def ask(port, streams, tally):
    """One POST; the connection when it can be used again."""
    tally["asked"] += 1
    try:
        reader, writer = streams or await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /api/chat HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
                     b"Content-Length: %d\r\n\r\n%s" % (len(BODY), BODY))
        status, closes = await asyncio.wait_for(read_answer(reader), ANSWER_S_MAX)
        if status != 200:
            raise OSError(f"status {status}")
        if not closes:
            return reader, writer
        writer.close()
    except (OSError, EOFError, TimeoutError, asyncio.TimeoutError) as error:
        tally["failed"] += 1
        reason = f"{'kept' if streams else 'new'} connection: {error or type(error).__name__}"
        tally["why"][reason] = tally["why"].get(reason, 0) + 1
    return None


async def read_answer(reader):
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    status = int(head.split(b" ", 2)[1])
    if b"transfer-encoding: chunked" in head:
        while size := int(await reader.readline(), 16):
            await reader.readexactly(size + 2)
        await reader.readline()
    else:
        length = head.partition(b"content-length:")[2].split(b"\r\n", 1)[0]
        await reader.readexactly(int(length))
    return status, b"connection: close" in head


async def answer_upstream(reader, writer):
    with contextlib.suppress(OSError, EOFError):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = head.partition(b"content-length:")[2].split(b"\r\n", 1)[0] or b"0"
            await reader.readexactly(int(length))
            body = PIECE + LAST
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n%s"
                         % (len(body), body))
    writer.close()


async def answers(port):
    until = time.monotonic() + measure.WAIT_S_MAX
    while time.monotonic() < until:
        tally = {"asked": 0, "failed": 0, "why": {}}
        streams = await ask(port, None, tally)
        if streams:
            streams[1].close()
        if not tally["failed"]:
            return
        await asyncio.sleep(0.05)
    sys.exit(f"reload: nothing answers: {tally['why']}")


def chatcorn(program, home, port, upstream):
    environment = os.environ | measure.settings(home) | {"CHAT_UPSTREAM": upstream, "RATE_LIMIT_ENABLED": "false"}
    return quiet([program, "serve", "--bind", f"127.0.0.1:{port}"], home, environment)


def nginx(home, port):
    areas = "".join(f"{area}_temp_path {home}/{area};" for area in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (home / "conf").write_text(
        f"worker_processes 4; daemon off; pid {home}/pid; error_log {home}/error;\n"
        f"events {{ worker_connections 1024; }}\n"
        f"http {{ access_log off; {areas} server {{ listen 127.0.0.1:{port}; location / {{ return 200 '{{}}'; }} }} }}\n")
    return quiet(["/usr/sbin/nginx", "-e", f"{home}/error", "-c", f"{home}/conf"], home, os.environ)


def gunicorn(peers, home, port):
    (home / "app.py").write_text(
        "from flask import Flask, request\napp = Flask(__name__)\n\n\n"
        "@app.post('/api/chat')\ndef chat():\n    return {'message': request.get_json()['message']}\n")
    command = [peers / "bin/gunicorn", "-w", "4", "--threads", "2", "-t", "120", "-b", f"127.0.0.1:{port}", "app:app"]
    return quiet(command, home, os.environ)


def quiet(command, home, environment):
    return subprocess.Popen([str(word) for word in command], cwd=home, env=environment, stdin=subprocess.DEVNULL,
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    main()

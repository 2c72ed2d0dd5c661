"""Another engine. Argument: port. It loads for two looks, starts a helper, says what it knows, dies when it is told to."""
import http.server
import json
import os
import subprocess
import sys


class Engine(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    looks = 0

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        Engine.looks += 1
        self.answer(200 if self.path == "/health" and Engine.looks > 2 else 503, {})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if "die" in asked["messages"][-1]["content"]:
            print("out of memory", flush=True)
            os._exit(3)
        said = {"pid": os.getpid(), "group": os.getpgid(0), "helper": helper.pid, "token": os.environ.get("HF_TOKEN")}
        message = {"index": 0, "message": {"role": "assistant", "content": json.dumps(said)}, "finish_reason": "stop"}
        self.answer(200, {"model": "other", "choices": [message]})

    def log_message(self, *_):
        pass


helper = subprocess.Popen(["sleep", "600"])
print("loads with api_key=sk-live-1234567890abcdef1234567890abcdef", flush=True)
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Engine)
server.serve_forever()

"""An OpenAI-compatible server behind TLS. Arguments: certificate, key. Prints its port, then a line for each request."""
import http.server
import json
import ssl
import sys


class Answers(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        bearer = self.headers["Authorization"]
        print(f"{self.command} {self.path}, {self.headers['Host']}, {bearer}", flush=True)
        said = {"role": "assistant", "content": "sealed"}
        if asked["messages"][-1]["content"] == "refuse":
            self.answer(401, "application/json", {"error": {"message": f"{bearer} is not known", "code": bearer}})
        elif asked.get("stream"):
            piece = {"model": "tls", "choices": [{"index": 0, "delta": said, "finish_reason": "stop"}]}
            self.answer(200, "text/event-stream", f"data: {json.dumps(piece)}\n\ndata: [DONE]\n\n")
        else:
            choice = {"index": 0, "message": said, "finish_reason": "stop"}
            self.answer(200, "application/json", {"model": "tls", "choices": [choice]})

    def answer(self, status, kind, body):
        body = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.serve_forever()

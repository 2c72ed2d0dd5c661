"""An OpenAI-compatible server behind TLS. Arguments: certificate, key. Prints its port, then each Authorization it gets."""
import http.server
import json
import ssl
import sys


class Answers(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        print(self.headers["Authorization"], flush=True)
        message = {"index": 0, "message": {"role": "assistant", "content": "sealed"}, "finish_reason": "stop"}
        body = json.dumps({"model": "tls", "choices": [message], "asked": asked}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
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

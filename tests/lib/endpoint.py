# SPDX-License-Identifier: BSD-3-Clause
"""An HTTP endpoint in the test's own process that remembers what it was sent, and can be told to
misbehave. (tests/receiver is the one that people run.)"""
import http.server
import json
import threading

CONTENT_TYPE = "application/cloudevents-batch+json"


class Endpoint:
    """Use as a context manager. Batches are counted by their Tapwire-Batch header: a batch that
    comes again must be the same, a new one must be the next."""

    def __init__(self):
        self.events = []      # of all batches, in order, each batch once
        self.batches = 0
        self.redelivered = 0
        self.errors = []      # what was wrong with what came
        self.refuse = lambda: None  # returns a status to answer with, instead of taking the batch
        self._bodies = {}     # Tapwire-Batch -> body
        self._epoch = None
        self._lock = threading.Lock()
        endpoint = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with endpoint._lock:
                    status = endpoint.refuse() or endpoint._take(self.headers, body)
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_args):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = "http://127.0.0.1:%d/hook" % self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_exc):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _take(self, headers, body):
        name = headers.get("Tapwire-Batch")
        if headers.get("Content-Type") != CONTENT_TYPE:
            self.errors.append("Content-Type is %r" % headers.get("Content-Type"))
        if name in self._bodies:
            self.redelivered += 1
            if self._bodies[name] != (headers.get("webhook-id"), body):
                self.errors.append("batch %s came again, and differs" % name)
            return 200
        try:
            epoch, number = name.rsplit("/", 1)
            events = json.loads(body)
        except (AttributeError, ValueError) as error:
            self.errors.append("batch %r: %s" % (name, error))
            return 400
        if int(number) != self.batches + 1 or epoch != (self._epoch or epoch):
            self.errors.append("batch %s came after %s/%d" % (name, self._epoch, self.batches))
        self._epoch = epoch
        self._bodies[name] = (headers.get("webhook-id"), body)
        self.batches += 1
        self.events += events
        return 200

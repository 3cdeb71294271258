# SPDX-License-Identifier: BSD-3-Clause
"""Bodies for other receivers than webhooks, and what their answers say of single events."""
import json
import pathlib
import re
import sys
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "receiver"))
from lab import Lab, wait_for  # noqa: E402


class Endpoint:
    """Keeps each request as (path, headers, body) and answers with answer(body): (status, text)."""

    def __init__(self, answer):
        self.requests = []
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                endpoint.requests.append((self.path, self.headers, body))
                status, text = answer(body)
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def lab(build, scratch):
    with Lab(build, scratch) as it:
        yield it


def deliver(lab, endpoint, count, path="/", **keys):
    lab.configure(url=f"http://127.0.0.1:{endpoint.port}{path}", batch_delay_ms=50, **keys)
    lab.start_courier()
    lab.feed(count)
    wait_for(lambda: lab.target()["backlog"] == 0)


def ok(_body):
    return 200, ""


def test_ndjson(lab):
    with Endpoint(ok) as endpoint:
        deliver(lab, endpoint, 30, format="ndjson")
    lines = [json.loads(line) for _, _, body in endpoint.requests for line in body.splitlines()]
    assert [int(event["sequence"]) for event in lines] == list(range(1, 31))
    assert all(headers["content-type"] == "application/x-ndjson" for _, headers, _ in endpoint.requests)
    assert all(body.endswith("}\n") for _, _, body in endpoint.requests)


# --- Elasticsearch ---

class Elastic:
    """The bulk API as its documentation tells it: an item each, in order; an id is created once."""

    def __init__(self, refuse=None, busy=0):
        self.documents = {}
        self.refuse = refuse
        self.busy = busy
        self.bulks = []

    def __call__(self, body):
        lines = [json.loads(line) for line in body.splitlines()]
        items = []
        for action, document in zip(lines[::2], lines[1::2]):
            index, key = action["create"]["_index"], action["create"]["_id"]
            status, error = 201, None
            if self.refuse and re.search(self.refuse, document["subject"]):
                status, error = 400, {"type": "mapper_parsing_exception", "reason": "failed to parse \u00e4"}
            elif key in self.documents:
                status, error = 409, {"type": "version_conflict_engine_exception", "reason": "exists"}
            elif self.busy:
                self.busy -= 1
                status, error = 429, {"type": "es_rejected_execution_exception", "reason": "full"}
            else:
                self.documents[key] = (index, document)
            items.append({"create": {"_index": index, "_id": key, "status": status,
                                     **({"error": error} if error else {})}})
        self.bulks.append([item["create"]["status"] for item in items])
        return 200, json.dumps({"took": 1, "errors": any(s >= 300 for s in self.bulks[-1]), "items": items})


def test_elasticsearch_takes_ids_and_an_index_of_the_day(lab):
    elastic = Elastic()
    with Endpoint(elastic) as endpoint:
        deliver(lab, endpoint, 30, "/_bulk", format="elasticsearch", index="files-{date}-x")
    assert list(elastic.documents) == [f"epoch-1-{n}" for n in range(1, 31)]
    for index, document in elastic.documents.values():
        assert index == "files-" + document["observedtime"][:10].replace("-", ".") + "-x"
        assert document["@timestamp"] == document["time"] and document["specversion"] == "1.0"
    assert lab.target()["refused"] == 0


def test_elasticsearch_items_that_are_refused_are_buried_and_the_others_are_not_sent_again(lab):
    elastic = Elastic(refuse="/file-(7|19)$")
    with Endpoint(elastic) as endpoint:
        deliver(lab, endpoint, 30, "/_bulk", format="elasticsearch")
        wait_for(lambda: lab.target()["refused"] == 2)
        assert sum(map(len, elastic.bulks)) == 30
        assert len(elastic.documents) == 28
        assert lab.status()["spool"]["dead_letters"] == 2


def test_elasticsearch_that_is_busy_gets_the_batch_again_and_no_duplicate(lab):
    elastic = Elastic(busy=5, refuse="/file-3$")
    with Endpoint(elastic) as endpoint:
        deliver(lab, endpoint, 30, "/_bulk", format="elasticsearch", retry_max_ms=20)
    assert len(elastic.documents) == 29
    assert 409 in elastic.bulks[-1] or len(elastic.bulks) > 2
    assert lab.target()["retries"] > 0 and lab.target()["refused"] == 1


def test_elasticsearch_that_refuses_all_gives_no_event_up(lab):
    elastic = Elastic(refuse=".")
    with Endpoint(elastic) as endpoint:
        lab.configure(url=f"http://127.0.0.1:{endpoint.port}/_bulk", format="elasticsearch", retry_max_ms=10,
                      retry_min_ms=1, batch_delay_ms=50)
        lab.start_courier()
        lab.feed(30)
        wait_for(lambda: lab.target()["retries"] > 6)
        assert lab.status()["spool"]["dead_letters"] == 0
        elastic.refuse = None
        wait_for(lambda: lab.target()["backlog"] == 0)
    assert len(elastic.documents) + lab.status()["spool"]["dead_letters"] == 30


def test_an_elasticsearch_that_answers_no_bulk_has_not_taken_it(lab):
    with Endpoint(lambda body: (200, "<html>welcome</html>")) as endpoint:
        lab.configure(url=f"http://127.0.0.1:{endpoint.port}/_bulk", format="elasticsearch")
        lab.start_courier()
        lab.feed(3)
        wait_for(lambda: lab.target()["retries"] > 1)
        assert lab.target()["backlog"] == 3 and "says nothing" in lab.target()["last_error"]


# --- the others ---

def test_clickhouse(lab):
    with Endpoint(ok) as endpoint:
        deliver(lab, endpoint, 10, "/?user=u", format="clickhouse", table="db.files")
    for path, headers, body in endpoint.requests:
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(path).query)
        assert query["query"] == ["INSERT INTO db.files FORMAT JSONEachRow"] and query["user"] == ["u"]
        assert query["insert_deduplication_token"] == [headers["webhook-id"]]
        assert query["date_time_input_format"] == ["best_effort"]
    rows = [json.loads(line) for _, _, body in endpoint.requests for line in body.splitlines()]
    assert [int(row["sequence"]) for row in rows] == list(range(1, 11))


def test_loki(lab):
    with Endpoint(lambda body: (204, "")) as endpoint:
        lab.configure(url=f"http://127.0.0.1:{endpoint.port}/loki/api/v1/push", format="loki", batch_delay_ms=300)
        lab.start_courier()
        feeds = [lab.start_feed(20, "--vdev", f"xvd{c}", epoch=f"disk-{c}") for c in "ab"]
        assert [feed.wait(timeout=30) for feed in feeds] == [0, 0]
        wait_for(lambda: lab.target()["backlog"] == 0)
    seen = {}
    for _, headers, body in endpoint.requests:
        assert headers["content-type"] == "application/json"
        for stream in json.loads(body)["streams"]:
            labels = stream["stream"]
            assert labels["job"] == "tapwire" and labels["host"] == "testhost"
            assert labels["volume"] == "3f0c9a52-0000-4000-8000-000000000001"
            for stamp, line in stream["values"]:
                event = json.loads(line)
                assert re.fullmatch(r"\d{19}", stamp)
                assert int(stamp) % 10**9 == int(event["observedtime"][20:29])
                assert event["source"].split("/")[4] == labels["disk"]
                seen.setdefault(labels["disk"], []).append(int(event["sequence"]))
    assert seen == {"xvda": list(range(1, 21)), "xvdb": list(range(1, 21))}


class Splunk:
    """The collector stops at an event that it does not take, and says which; those before it are in."""

    def __init__(self, refuse):
        self.events = []
        self.refuse = refuse

    def __call__(self, body):
        for number, line in enumerate(body.splitlines()):
            event = json.loads(line)
            if re.search(self.refuse, event["event"]["subject"]):
                return 400, json.dumps({"text": "Error in handling indexed fields", "code": 15,
                                        "invalid-event-number": number})
            self.events.append(event)
        return 200, '{"text":"Success","code":0}'


def test_splunk(lab):
    splunk = Splunk("/file-(1|13)$")
    token = lab.dir / "token"
    token.write_text("b0221cd8-c4b4-465a-9a3c-273e3a75aa29\n")
    token.chmod(0o600)
    with Endpoint(splunk) as endpoint:
        deliver(lab, endpoint, 30, "/services/collector/event", format="splunk_hec", index="files",
                bearer_token_file=token)
        wait_for(lambda: lab.target()["refused"] == 2)
    assert [int(e["event"]["sequence"]) for e in splunk.events] == [n for n in range(1, 31) if n not in (1, 13)]
    for event in splunk.events:
        assert (event["host"], event["sourcetype"], event["index"]) == ("testhost", "tapwire", "files")
        assert event["source"] == event["event"]["source"]
        assert isinstance(event["time"], float)
    assert all(headers["authorization"] == "Splunk " + token.read_text().strip()
               for _, headers, _ in endpoint.requests)

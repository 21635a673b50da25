"""A real Envoy before real servers, with the configuration that `tfscale k8s route job=envoy` prints."""

from __future__ import annotations

import http.server
import json
import threading

import pytest
from support.envoy_proxy import envoy
from support.served_models import served, write_double, write_slow

TOKEN = "a-token-that-nobody-guesses-0123456789"
PREDICT = "/v1/models/double:predict"
ASKED = {"instances": [[1, 1, 1]]}


@pytest.fixture(scope="module")
def servers(tf, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    one = {"double": write_double(folder / "one", factor=2.0), "slow": write_slow(folder / "slow", products=300)}
    other = {"double": write_double(folder / "other", factor=3.0)}
    with served(one, token=TOKEN) as first, served(other, token=TOKEN) as second:
        yield first, second


def test_requests_are_shared_out_and_both_protocols_answered(servers, tmp_path):
    places = [f"127.0.0.1:{one.port}" for one in servers]
    words = (f"route.to={places[0]}", f"route.canary={places[1]}", "route.weight=40", "route.prefix=/digits")
    with envoy(tmp_path, *words) as proxy:
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        answers = [proxy.post(f"/digits{PREDICT}", ASKED, **bearer).json["predictions"][0][0] for _ in range(100)]
        assert set(answers) == {2.0, 3.0} and 20 <= answers.count(3.0) <= 60
        tensor = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}
        (output,) = proxy.post("/digits/v2/models/double/infer", {"inputs": [tensor]}, **bearer).json["outputs"]
        assert output["data"] in ([2, 4, 6], [3, 6, 9])
        assert proxy.post(PREDICT, ASKED, **bearer).status == 404  # not below the prefix


def test_tokens_are_checked_before_a_request_goes_on(servers, tmp_path):
    place = f"127.0.0.1:{servers[0].port}"
    with envoy(tmp_path, f"route.to={place}", "route.check=127.0.0.1:1") as proxy:
        assert proxy.post(PREDICT, ASKED, Authorization=f"Bearer {TOKEN}").status == 403  # nobody can be asked
    with envoy(tmp_path, f"route.to={place}", f"route.check={place}") as proxy:
        assert proxy.post(PREDICT, ASKED).status == 401
        assert proxy.post(PREDICT, ASKED, Authorization="Bearer another").status == 403
        assert proxy.post(PREDICT, ASKED, Authorization=f"Bearer {TOKEN}").json == {"predictions": [[2, 2, 2]]}
    page = servers[0].get("/metrics", port=servers[0].probes).body.decode()
    assert 'tfscale_serve_requests_total{model="double",status="401"}' not in page  # refused at the proxy's question


def test_a_slow_answer_is_cut_and_a_failed_one_asked_again(servers, tmp_path):
    place = f"127.0.0.1:{servers[0].port}"
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    with envoy(tmp_path, f"route.to={place}", "route.timeout=0.2") as proxy:
        assert proxy.post("/v1/models/slow:predict", ASKED, **bearer).status == 504
    failures: list[int] = []

    class Failing(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            status = failures.pop() if failures else 200
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = json.dumps({"predictions": status}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Failing) as failing:
        thread = threading.Thread(target=failing.serve_forever)
        thread.start()
        try:
            with envoy(tmp_path, f"route.to=127.0.0.1:{failing.server_port}", "route.retries=2") as proxy:
                failures[:] = [503, 502]
                assert proxy.post(PREDICT, ASKED).json == {"predictions": 200}
        finally:
            failing.shutdown()
            thread.join()

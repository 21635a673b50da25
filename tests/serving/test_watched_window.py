"""What counts say between two looks, on pages as the server writes them and a clock of the test's."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from tfscale.errors import DataMissing, IOFailure, UsageError
from tfscale.serving.service_metrics import Counts, ServiceMetrics, read_counts
from tfscale.serving.watched_servers import Asked, NoAnswer, each_of, watch
from tfscale.serving.watched_window import Bounds, Tally, Window, quantile


class Server:
    """Its page, and what it answers between two looks: (status, seconds, how many) each."""

    def __init__(self, *looks, version=3):
        self.metrics, self.looks, self.version, self.failed = ServiceMetrics(), list(looks), version, {}

    def answer(self, *answered):
        for status, seconds, count in answered:
            for _ in range(count):
                self.metrics.request("digits", status, seconds)

    def page(self):
        return self.metrics.written({"digits": {**self.failed, self.version: ""}}).decode()

    def look(self):
        """The page at the next look; an exception is raised, and a function called first."""
        now = self.looks.pop(0) if self.looks else ()
        if isinstance(now, Exception):
            raise now
        if callable(now):
            now = now(self) or ()
        self.answer(*now)
        return self.page()


def watched(*servers, seconds=10.0, version="", gone=5.0, **bounds):
    clock = [0.0]
    pages = {f"http://{number}": server for number, server in enumerate(servers)}
    asked = Asked("digits", tuple(pages), Bounds(**bounds), seconds, gone=gone, every=1.0, version=version)
    outcome = watch(
        asked,
        page_of=lambda address: pages[address].look(),
        now=lambda: clock[0],
        sleep=lambda pause: clock.__setitem__(0, clock[0] + pause),
    )
    return outcome, clock[0]


GOOD = ((200, 0.02, 60),)


def test_what_was_counted_before_is_left_out_and_all_is_good_at_the_end():
    server = Server(((500, 0.1, 1000),), GOOD, GOOD, ((401, 0.0, 500), (200, 0.02, 1), (504, 30.0, 1)))
    outcome, seconds = watched(server, most_errors=0.01)
    assert (outcome.passed, outcome.unjudged, seconds) == ("", "", 10.0)
    assert (outcome.tally.judged, outcome.tally.failed, outcome.tally.callers) == (122, 1, 500)
    assert "122 requests, 1 failed (0.82 %), p99" in outcome.tally.sentence
    assert "500 of the callers' own errors left out" in outcome.tally.sentence


def test_a_bound_is_passed_at_once_but_not_before_there_are_enough_requests():
    server = Server((), ((500, 0.1, 99),), (), ((200, 0.1, 1),), GOOD)
    outcome, seconds = watched(server)
    assert seconds == 3.0 and outcome.passed.startswith("99 of 100 requests failed (99 %), more than watch.most_errors")
    outcome, seconds = watched(Server((), ((200, 0.02, 980), (503, 0.1, 10), (500, 0.1, 5), (504, 1, 5))))
    assert outcome.passed and seconds == 1.0  # 2 %
    outcome, _ = watched(Server((), ((200, 0.02, 990), (500, 0.1, 10))))
    assert not outcome.passed  # a share of 1 % is the bound itself


def test_no_room_is_a_failure_and_what_callers_do_wrong_is_none():
    assert "2 of 100 requests failed" in watched(Server((), ((200, 0.02, 98), (429, 0.001, 2))))[0].passed
    wrong = tuple((status, 0.01, 20) for status in (401, 403, 404, 408, 413, 415, 421))
    outcome, _ = watched(Server((), ((200, 0.02, 100), *wrong)))
    assert not outcome.passed and outcome.tally.callers == 140
    outcome, _ = watched(Server((), ((200, 0.02, 49), (422, 0.01, 40), (400, 0.01, 11))))
    assert "the model refused 51 of 100 requests (51 %), more than watch.most_refused=0.5" in outcome.passed
    assert not watched(Server((), ((200, 0.02, 50), (422, 0.01, 50))), least_requests=50)[0].passed


def test_p99_is_a_bound_where_it_is_asked_for():
    slow = ((200, 0.02, 980), (200, 0.3, 20))
    assert not watched(Server((), slow))[0].passed
    assert (
        "p99 is 0.375 s of 1,000 requests, more than watch.most_p99=0.25"
        in watched(Server((), slow), most_p99=0.25)[0].passed
    )
    assert not watched(Server((), slow), most_p99=0.5)[0].passed
    with pytest.raises(UsageError, match="tell nothing of longer requests than 10 s"):
        watched(Server(slow), most_p99=10.0)


def test_quantiles_are_those_of_prometheus():
    """The cases of histogram_quantile in its documentation and in promql/quantile.go."""
    buckets = {0.1: 50.0, 0.2: 80.0, 1.0: 100.0, math.inf: 100.0}
    assert quantile(buckets, 0.25) == pytest.approx(0.05)
    assert quantile(buckets, 0.5) == pytest.approx(0.1)
    assert quantile(buckets, 0.65) == pytest.approx(0.15)
    assert quantile(buckets, 0.99) == pytest.approx(0.96)
    assert quantile({0.1: 50.0, math.inf: 100.0}, 0.99) == 0.1  # the last finite bound
    assert quantile({}, 0.99) is None and quantile({0.1: 0.0, math.inf: 0.0}, 0.99) is None


def test_a_server_that_starts_again_counts_from_zero(messages):
    def again(server):
        server.metrics = ServiceMetrics()
        return ((200, 0.02, 50), (500, 0.1, 1))

    outcome, _ = watched(Server(GOOD, GOOD, again, GOOD))
    assert (outcome.tally.judged, outcome.tally.failed, outcome.tally.restarts) == (60 + 51 + 60, 1, 1)
    assert messages.text.count("was started again; what it counts from then on is added") == 1
    outcome, _ = watched(Server(GOOD, lambda server: again(server) * 3))  # already more than before
    assert (outcome.tally.judged, outcome.tally.restarts) == (153, 1)
    window = Window()  # of a page that doesn't say when it began
    for count in (5.0, 7.0, 3.0, 4.0):
        window.add(Counts({"200": count}, {0.1: count, math.inf: count}))
    assert window.tally == Tally(Counter({"200": 6}), Counter({0.1: 6, math.inf: 6}), 1)


def test_several_servers_are_judged_together():
    outcome, _ = watched(Server((), GOOD), Server((), ((500, 0.1, 60),)))
    assert outcome.passed.startswith("60 of 120 requests failed")


def test_a_name_of_several_servers_is_the_address_of_each(monkeypatch):
    assert each_of(["http://a:1/metrics", "dns+http://127.0.0.1:8081/metrics", "http://127.0.0.1:8081/metrics"]) == (
        "http://a:1/metrics",
        "http://127.0.0.1:8081/metrics",
    )
    known = [(0, 0, 0, "", (one, 8081)) for one in ("10.0.0.1", "10.0.0.2", "fd00::1")]
    monkeypatch.setattr("socket.getaddrinfo", lambda host, port, type: known)
    assert each_of(["dns+http://digits-metrics:8081/metrics"]) == (
        "http://10.0.0.1:8081/metrics",
        "http://10.0.0.2:8081/metrics",
        "http://[fd00::1]:8081/metrics",
    )
    monkeypatch.undo()
    with pytest.raises(IOFailure, match="the name nowhere.invalid isn't known"):
        each_of(["dns+http://nowhere.invalid:8081/metrics"])
    with pytest.raises(UsageError, match="no address of metrics"):
        each_of(["dns+ftp://a"])


def test_a_server_that_is_gone_is_worse_than_errors(messages):
    silence = [NoAnswer("Connection refused")] * 20
    outcome, seconds = watched(Server((), GOOD, *silence))
    assert seconds == 6.0 and "http://0 hasn't answered for 5 s: Connection refused" in outcome.passed
    outcome, seconds = watched(Server(*silence))
    assert seconds == 5.0 and "hasn't answered" in outcome.passed
    outcome, seconds = watched(Server((), *silence), gone=60.0)
    assert seconds == 10.0 and outcome.passed == "http://0 doesn't answer at the end: Connection refused"
    outcome, _ = watched(Server((), *silence[:3], GOOD, GOOD), Server((), GOOD))
    assert not outcome.passed and outcome.tally.judged == 180 and "gives counts again" in messages.text


def test_only_the_version_that_is_watched_counts(messages):
    def switched(server):
        server.version = 3
        return ((200, 0.02, 7),)  # between two looks nobody knows whose they are

    outcome, seconds = watched(Server((), ((500, 0.1, 200),), switched, GOOD, GOOD, version=2), version="3")
    assert not outcome.passed and (outcome.tally.judged, outcome.tally.failed) == (120, 0)
    assert seconds == 12.0  # ten of the version
    outcome, _ = watched(Server((), ((500, 0.1, 200),), version=2), version="3")
    assert outcome.unjudged == "http://0 serves version 2, and not 3" and not outcome.too_few
    outcome, _ = watched(Server((), ((500, 0.1, 50),), switched, GOOD, GOOD, version=2))  # whichever it is
    assert not outcome.passed and outcome.tally.judged == 120 and "serves version 3 now" in messages.text


def test_what_another_version_answers_in_between_is_left_out():
    def by(version):
        def answer(server):
            server.version = version
            return ((500 if version == 2 else 200, 0.02, 60),)

        return answer

    outcome, _ = watched(Server((), by(3), by(2), by(2), by(3), by(3)), version="3")
    assert not outcome.passed and (outcome.tally.judged, outcome.tally.failed) == (120, 0)


def test_a_version_that_cannot_be_served_does_not_hold(messages):
    def broken(server):
        server.failed = {3: "no signature"}

    outcome, seconds = watched(Server((), GOOD, broken, version=2), version="3")
    assert seconds == 2.0 and outcome.passed == "http://0 can't serve version 3"
    outcome, _ = watched(Server((), GOOD, broken, GOOD, version=2))
    assert not outcome.passed and "http://0 can't serve version 3: its log says why" in messages.text


def test_too_few_requests_tell_nothing():
    outcome, _ = watched(Server((), ((500, 0.1, 99),)))
    assert not outcome.passed and outcome.too_few
    assert outcome.unjudged == "99 requests are too few to judge (watch.least_requests=100)"


def test_pages_of_others():
    with pytest.raises(UsageError, match="no model 'digts'; did you mean 'digits'"):
        read_counts(Server().page(), "digts")
    with pytest.raises(DataMissing, match="says nothing of a model digits yet"):
        read_counts(ServiceMetrics().written({}).decode(), "digits")
    for page in ("", "<html>hello</html>", "# TYPE up gauge\nup 1\n"):
        with pytest.raises(UsageError, match="no metrics of tfscale serve"):
            read_counts(page, "digits")

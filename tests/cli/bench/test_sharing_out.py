"""A case becomes jobs, the shares of the jobs an outcome."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from cute_logger.node.cli.bench.case import Case, Job, Kind, fill_of, jobs_of
from cute_logger.node.cli.bench.share import Share, outcome_of

SERVERS = ["http://a", "http://b", "http://c"]
FIXED = Case(Kind.FIXED_RATE, rate=300, producers=3, processes=2, streams=3)


def test_producers_and_their_rate_are_spread_over_processes_and_streams() -> None:
    jobs = jobs_of(FIXED, SERVERS, ["s0", "s1", "s2"])
    assert [job.streams for job in jobs] == [["s0", "s2"], ["s1"]]
    assert [job.rate for job in jobs] == [200, 100]
    assert [job.servers[0] for job in jobs] == ["http://a", "http://b"]
    assert all(sorted(job.servers) == SERVERS for job in jobs)


def test_no_process_stays_without_work() -> None:
    assert len(jobs_of(replace(FIXED, processes=8), SERVERS, ["s0"])) == 3


def test_each_reader_of_a_tail_waits_for_all_that_is_appended_to_its_stream() -> None:
    case = Case(Kind.TAIL, rate=10, readers=3, streams=2, processes=3, seconds=2, warm_up_s=1)
    pace, *reading = jobs_of(case, SERVERS, ["s0", "s1"])
    assert (pace.role, pace.streams, pace.rate) == ("produce", ["s0", "s1"], 10)
    assert [job.streams for job in reading] == [["s0"], ["s1"], ["s0"]]
    assert {job.records for job in reading} == {15}


def test_what_is_caught_up_is_filled_in_before() -> None:
    case = Case(Kind.CATCH_UP, records=700, readers=2)
    fill = fill_of(case, SERVERS, ["s"])
    assert fill is not None
    assert (fill.role, fill.records) == ("produce", 700)
    assert [job.records for job in jobs_of(case, SERVERS, ["s"])] == [700]
    assert fill_of(FIXED, SERVERS, ["s"]) is None


def test_a_job_survives_the_way_to_its_worker() -> None:
    (job, _) = jobs_of(FIXED, SERVERS, ["s0", "s1", "s2"])
    assert Job.from_dict(json.loads(json.dumps(job.to_dict()))) == job


@pytest.mark.parametrize(
    "wrong",
    [{"value_bytes": 0}, {"producers": 0}, {"seconds": 0}, {"rate": 0}, {"streams": 4}],
    ids=str,
)
def test_settings_that_make_no_sense_are_named(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(FIXED, **wrong)


def test_shares_add_up_to_rates_cost_and_latencies() -> None:
    case = Case(Kind.PIPELINED, value_bytes=100, seconds=2)
    shares = [Share(records=600, total=800, cpu_s=0.1), Share(records=400, total=700, cpu_s=0.2)]
    shares[0].latencies.add(0.001)
    shares[1].fail(ValueError("no"), 3)
    outcome = outcome_of(case, [("produce", share) for share in shares])
    assert (outcome.records_per_s, outcome.mb_per_s) == (500, 0.05)
    assert outcome.client_cpu_us == pytest.approx(200)
    assert (outcome.errors, outcome.error) == (3, "ValueError: no")
    assert outcome.latency_ms is not None
    assert outcome.latency_ms["p50"] == pytest.approx(1, rel=0.006)


def test_a_tail_counts_deliveries_and_a_catch_up_the_slowest_reader() -> None:
    produced, delivered = Share(records=10, total=10), Share(records=30, total=30, seconds=4)
    tail = Case(Kind.TAIL, rate=5, readers=3, seconds=2)
    assert outcome_of(tail, [("produce", produced), ("read", delivered)]).records == 30
    catch_up = Case(Kind.CATCH_UP, readers=2)
    both = [("read", delivered), ("read", Share(records=30, total=30, seconds=5))]
    assert outcome_of(catch_up, both).records_per_s == 12

import threading
import time

import pytest

from m1lite.toolbox.workers import Workers


class Waiter:
    """Waits for one job."""

    def __init__(self, workers, key, function):
        self.told, self.ended = [], threading.Event()
        workers.submit(key, function, self.done)

    def done(self, result, shared):
        self.told.append((result, shared))
        self.ended.set()

    @property
    def result(self):
        assert self.ended.wait(30)
        assert len(self.told) == 1
        return self.told[0][0]


def run(workers, functions):
    waiters = [Waiter(workers, key, function) for key, function in enumerate(functions)]
    return ["late" if waiter.result is None else waiter.result for waiter in waiters]


def test_results_belong_to_their_jobs_whatever_the_order_of_ending():
    def slow_first(index):
        time.sleep(0.02 if index % 3 == 0 else 0)
        return index

    workers = Workers(num_workers=3, deadline_seconds=10)
    assert run(workers, [lambda index=index: slow_first(index) for index in range(50)]) == list(range(50))


def test_at_most_so_many_jobs_run_at_once():
    lock, busy, peaks = threading.Lock(), [], []

    def work():
        with lock:
            busy.append(1)
            peaks.append(len(busy))
        time.sleep(0.01)
        with lock:
            busy.pop()
        return True

    workers = Workers(num_workers=3, deadline_seconds=10)
    assert run(workers, [work] * 20) == [True] * 20
    assert max(peaks) == 3


def test_waiting_for_a_worker_does_not_count_as_running():
    def work():
        time.sleep(0.05)
        return True

    workers = Workers(num_workers=1, deadline_seconds=0.2)
    assert run(workers, [work] * 8) == [True] * 8  # 0.4 s in all


def test_equal_keys_share_one_execution():
    calls, begin = [], threading.Event()

    def work():
        begin.wait(10)
        calls.append(1)
        return len(calls)

    workers = Workers(num_workers=2, deadline_seconds=10)
    waiters = [Waiter(workers, "same", work) for _ in range(5)]
    begin.set()
    assert [waiter.result for waiter in waiters] == [1] * 5
    assert [waiter.told[0][1] for waiter in waiters] == [False, True, True, True, True], "the first asker is no sharer"
    again = Waiter(workers, "same", work)
    assert (again.result, again.told[0][1]) == (2, False)


def test_hanging_jobs_are_given_up_and_free_their_places():
    release = threading.Event()

    def hang():
        release.wait(30)
        return "late result"

    workers = Workers(num_workers=2, deadline_seconds=0.1)
    begun = time.monotonic()
    assert run(workers, [hang, hang, hang, lambda: "quick"]) == ["late", "late", "late", "quick"]
    assert time.monotonic() - begun < 5
    begun = time.monotonic()
    again = Waiter(workers, 0, hang)  # joins the first one, which still hangs
    assert again.told == [(None, True)], "told before `submit` returned"
    assert time.monotonic() - begun < 0.05
    release.set()


def test_a_late_result_still_counts_as_late_for_those_who_waited():
    workers = Workers(num_workers=1, deadline_seconds=0.05)
    waiter, begun = Waiter(workers, "slow", lambda: time.sleep(0.4) or "done"), time.monotonic()
    assert waiter.result is None
    assert time.monotonic() - begun < 0.4, "told at the deadline"
    time.sleep(0.6)
    assert len(waiter.told) == 1, "and not again when the job ended"


def test_waiters_of_one_caller_are_not_blocked_by_the_hanging_jobs_of_another():
    release = threading.Event()
    workers = Workers(num_workers=1, deadline_seconds=0.2)
    workers.submit("hang", lambda: release.wait(30), lambda *_: None)
    assert Waiter(workers, "quick", lambda: "quick").result == "quick"
    release.set()


def test_threads_end_with_the_work():
    def ours():
        return [thread for thread in threading.enumerate() if thread not in before]

    before = threading.enumerate()
    workers = Workers(num_workers=2, deadline_seconds=0.3)
    assert run(workers, [lambda: True] * 10) == [True] * 10
    assert {thread.name for thread in ours()} <= {"m1lite-tool", "m1lite-tool-deadlines"}
    deadline = time.monotonic() + 5
    while ours() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert ours() == []
    assert run(workers, [lambda: True] * 3) == [True] * 3, "and begin anew"


def test_limits_are_checked():
    with pytest.raises(ValueError, match="`workers` must be at least 1, got 0"):
        Workers(num_workers=0, deadline_seconds=1)
    with pytest.raises(ValueError, match="`deadline_seconds` must be above 0, got -1"):
        Workers(num_workers=1, deadline_seconds=-1)

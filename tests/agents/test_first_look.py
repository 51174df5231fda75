"""Which frames stand before a question."""

from m1lite.agents.first_look import GivenTimes, Shuffled, asked_times, whole_video
from m1lite.records import Answer, Sample, Task
from m1lite.video.budget import FrameBudget

BUDGET = FrameBudget(max_frames=4)


def sample(times=()):
    return Sample(
        id="q", video="v.mp4", duration=8.0, task=Task.TRACKING, question="?", answer=Answer(), times=tuple(times)
    )


def test_the_budget_spreads_frames_over_the_whole_video():
    assert whole_video(sample([2.0]), BUDGET, 8.0) == [1.0, 3.0, 5.0, 7.0]


def test_tracking_is_shown_the_frames_it_is_asked_about():
    eight = [0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5]
    assert asked_times(sample(eight), BUDGET, 8.0) == eight, "eight different ones, whatever the budget spreads"
    assert asked_times(sample(eight), BUDGET, 5.0) == eight[:5], "the file is shorter than the sample says"
    assert asked_times(sample(), BUDGET, 8.0) == [1.0, 3.0, 5.0, 7.0]


def test_another_order_is_the_same_for_all_episodes_of_a_question():
    eight = [0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5]
    look = Shuffled(asked_times, seed=3)
    shown = look(sample(eight), BUDGET, 8.0)
    assert sorted(shown) == eight != shown
    assert look(sample(eight), BUDGET, 8.0) == shown
    assert Shuffled(asked_times, seed=4)(sample(eight), BUDGET, 8.0) != shown


def test_frames_may_be_given_by_question():
    assert GivenTimes({"q": (1.0, 3.0)})(sample(), BUDGET, 8.0) == [1.0, 3.0]

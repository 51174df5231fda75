"""Which frames stand before a question."""

from m1lite.agents.first_look import ClueSegments, DenserClues, GivenTimes, Shuffled, asked_times, whole_video
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


def test_clues_are_shown_more_densely_at_one_budget():
    budget = FrameBudget(max_frames=8)
    look = DenserClues({"q": [(4.0, 6.0)]})
    shown = look(sample(), budget, 10.0)
    # 8 * 1.5 * 2 / (1.5 * 2 + 8) = 2.18, so 2 of 8 frames lie in a fifth of the video, and 6 in the rest.
    assert len(shown) == 8
    assert [second for second in shown if 4 <= second < 6] == [4.5, 5.5]
    assert DenserClues({"other": [(4.0, 6.0)]})(sample(), budget, 10.0) == budget.times(0, 10.0)
    assert DenserClues({"q": [(12.0, 15.0), (6.0, 6.0)]})(sample(), budget, 10.0) == budget.times(0, 10.0)


def test_clues_alone_are_shown_at_the_budgets_rate():
    clues = {"q": [(4.0, 5.0), (0.5, 1.0), (4.5, 5.5)]}
    assert ClueSegments(clues)(sample(), FrameBudget(fps=2), 10.0) == [0.5, 4.0, 4.5, 5.0]
    few = ClueSegments(clues)(sample(), FrameBudget(fps=2, max_frames=3), 10.0)
    assert len(few) == 3
    assert all(0.5 <= second < 1 or 4 <= second < 5.5 for second in few)
    assert ClueSegments({})(sample(), BUDGET, 8.0) == [1.0, 3.0, 5.0, 7.0]

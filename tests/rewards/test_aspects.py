"""Terms about one aspect of an answer, on answers and on whole replies, against values worked out by hand."""

import pytest

from m1lite.agents.text_answers import TextAnswers
from m1lite.metrics.presets.tracking import videochat_r1_tracking_reward
from m1lite.metrics.presets.videochat_gqa import videochat_r1_glue_iou, videochat_r1_gqa_answer
from m1lite.records import Answer, Box, Episode, Sample, Span, Task, Trajectory
from m1lite.rewards.aspects import Accuracy, EventRecall, overlap, timed_overlap

TRUTHS = {
    Task.GROUNDING: Answer(spans=(Span(start=2, end=6),)),
    Task.CHOICE: Answer(text="a dog"),
    Task.COUNTING: Answer(number=3),
    Task.GROUNDED_QA: Answer(text="a dog", spans=(Span(start=0, end=2), Span(start=6, end=8))),
    Task.TRACKING: Answer(boxes=(Box(left=0, top=0, right=10, bottom=10),) * 8),
    Task.CAPTION: Answer(events=("a ball falls", "it breaks", "a man laughs")),
}
OPTIONS = ("a cat", "a dog", "a man")


def asked(task, answer, options=OPTIONS):
    """An answer as a term is asked about it; a text is read as the recipes read replies."""
    sample = Sample(
        id="q", video="v.mp4", duration=20.0, task=task, question="which?", answer=TRUTHS[task],
        options=options if task in (Task.CHOICE, Task.GROUNDED_QA) else (),
        times=tuple(range(8)) if task is Task.TRACKING else (), size=(20, 10),
    )  # fmt: skip
    if isinstance(answer, str):
        answer = TextAnswers(shares=True).parse_answer(answer, sample).value
    trajectory = Trajectory(agent="ada", answer=answer)
    return sample, Episode(sample=sample, index=0, seed=0, visible={}, trajectories={"ada": trajectory}), trajectory


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("<answer>4 to 8</answer>", 2 / 6),
        ("<think>2 to 6</think><answer>2.00 to 6.00</answer>", 1.0),
        ("<answer>7 to 9</answer>", 0.0),
        ("<answer>3 to 3</answer>", 0.0),  # no length: the released code keeps the value of the reply before
        ("<answer>soon</answer>", 0.0),
        ("<think>2 to 6</think>", 0.0),  # thoughts do not answer
    ],
)
def test_overlap_of_a_span(text, value):
    assert overlap(*asked(Task.GROUNDING, text)) == pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "iou", "accuracy"),
    [
        ("<answer>B</answer><glue>[(0, 2), (6, 8)]</glue>", 1.0, 1.0),
        ("<answer>A</answer><glue>[(1, 7)]</glue>", 2 / 8, 0.0),
        ("<answer>B</answer><glue>[(0, 1), (0.5, 2)]</glue>", 0.5, 1.0),  # merged: 0 to 2
        ("<answer>B</answer><glue>sometime</glue>", 0.0, 1.0),  # each term for itself
        ("<answer>perhaps</answer><glue>[(0, 2), (6, 8)]</glue>", 1.0, 0.0),
        ("<answer>B</answer><glue>[]</glue>", 0.0, 1.0),
        ("nothing", 0.0, 0.0),
    ],
)
def test_grounded_choices_pay_spans_and_letter_each_for_itself(text, iou, accuracy):
    question = asked(Task.GROUNDED_QA, text)
    assert overlap(*question) == pytest.approx(iou)
    assert Accuracy()(*question) == accuracy
    # The same as the released code pays, wherever that one can be trusted.
    assert videochat_r1_glue_iou(text, [(0, 2), (6, 8)]) == pytest.approx(iou)
    if text != "nothing":
        assert videochat_r1_gqa_answer(text, "(B)") == accuracy


def test_an_article_is_no_letter_as_it_is_in_the_released_code():
    assert Accuracy()(*asked(Task.CHOICE, "<answer>A dog I think</answer>")) == 1.0, "by its words"
    assert Accuracy()(*asked(Task.CHOICE, "<answer>A strange thing</answer>", ("x", "a dog"))) == 0.0
    assert videochat_r1_gqa_answer("<answer>A strange thing</answer>", "(A)") == 1.0
    assert Accuracy()(*asked(Task.CHOICE, "<answer>The best answer is B</answer>")) == 1.0
    assert Accuracy()(*asked(Task.COUNTING, "<answer>3</answer>")) == 1.0
    assert Accuracy()(*asked(Task.COUNTING, None)) == 0.0


def test_overlap_of_eight_boxes():
    """Shares of a picture of 10 x 20 pixels: half of the box is 0 to 0.5 to the right."""
    half, whole = [0, 0, 0.5, 0.5], [0, 0, 1, 0.5]
    assert overlap(*asked(Task.TRACKING, f"<answer>{[whole] * 8}</answer>")) == pytest.approx(1.0)
    mixed = f"<answer>{[whole] + [half] * 7}</answer>"
    assert overlap(*asked(Task.TRACKING, mixed)) == pytest.approx((1 + 7 * 0.5) / 8)
    assert videochat_r1_tracking_reward(mixed, [whole] * 8) == pytest.approx((1 + 7 * 0.5) / 8)
    assert overlap(*asked(Task.TRACKING, f"<answer>{[whole] * 7}</answer>")) == 0.0, "exactly eight"


def test_time_aware_overlap_is_less_for_far_bounds():
    # IoU 2/6; both bounds are off by 2 of 20 seconds.
    assert timed_overlap(*asked(Task.GROUNDING, "<answer>4 to 8</answer>")) == pytest.approx(2 / 6 * 0.9 * 0.9)
    assert timed_overlap(*asked(Task.GROUNDING, "<answer>2 to 30</answer>")) == 0.0, "never a penalty"
    assert timed_overlap(*asked(Task.GROUNDING, None)) == 0.0


def test_events_by_words_and_by_a_judge():
    told = "<answer>A ball  falls\nsomeone laughs</answer>"
    assert EventRecall()(*asked(Task.CAPTION, told)) == pytest.approx(1 / 3)

    class Judge:
        prepared = ()

        def __call__(self, prediction, target):
            assert (prediction, len(target)) == (("A ball  falls", "someone laughs"), 3)
            return [True, True], [True, False, True]

        def prepare(self, pairs):
            self.prepared = pairs

    judge = Judge()
    term = EventRecall(judge=judge)
    assert term(*asked(Task.CAPTION, told)) == pytest.approx(2 / 3)
    assert term(*asked(Task.CAPTION, None)) == 0.0, "nothing was told, nobody is asked"
    term.prepare([asked(Task.CAPTION, told)[1], asked(Task.CAPTION, None)[1], asked(Task.CHOICE, "B")[1]])
    assert len(judge.prepared) == 1
    judge.__class__.__call__ = lambda self, prediction, target: None
    assert term(*asked(Task.CAPTION, told)) is None, "a judge that fails gives no value"


def test_short_texts_are_graded_by_a_judge():
    class Judge:
        def __call__(self, question, prediction, target):
            return {"the dog": 0.5, None: 0.0}[prediction]

        def prepare(self, answers):
            assert answers == [("which?", "the dog", "a dog")]

    term = Accuracy(judge=Judge())
    question = asked(Task.GROUNDED_QA, "<answer>the dog</answer><glue>[(1, 2)]</glue>", ())
    term.prepare([question[1]])
    assert term(*question) == 0.5
    assert term(*asked(Task.GROUNDED_QA, None, ())) == 0.0
    assert Accuracy()(*question) == 0.0
    assert Accuracy()(*asked(Task.GROUNDED_QA, Answer(text="A  Dog"), ())) == 1.0


@pytest.mark.parametrize("task", list(Task))
def test_a_term_that_a_question_does_not_ask_for_is_left_out(task):
    question = asked(task, None)
    assert (overlap(*question) is None) == (task in (Task.CHOICE, Task.COUNTING, Task.CAPTION))
    assert (timed_overlap(*question) is None) == (task is not Task.GROUNDING)
    assert (Accuracy()(*question) is None) == (task in (Task.GROUNDING, Task.TRACKING, Task.CAPTION))
    assert (EventRecall()(*question) is None) == (task is not Task.CAPTION)

"""Options and open answers as metrics: missing answers, several batches, errors."""

import pytest
import torch

from m1lite.metrics import GroupedMetric, MultipleChoiceAccuracy, OpenAnswerScore


def values(metric):
    return {name: value.item() for name, value in metric.compute().items()}


def test_a_missing_choice_is_wrong_or_skipped():
    batches = [([0, None, 2], [0, 1, 1]), ([None], [2]), ([3, 3], [3, 3])]
    pairs = [pair for prediction, target in batches for pair in zip(prediction, target, strict=True)]
    right = sum(chosen == true for chosen, true in pairs)
    answered = sum(chosen is not None for chosen, _ in pairs)
    for missing, count in (("zero", len(pairs)), ("skip", answered)):
        metric = MultipleChoiceAccuracy(missing=missing)
        for prediction, target in batches:
            metric.update(prediction, torch.tensor(target))
        assert values(metric) == pytest.approx({"accuracy": right / count, "answered": answered / len(pairs)})


def test_a_tensor_of_choices_says_the_same_as_a_list():
    listed, tensor = MultipleChoiceAccuracy(missing="skip"), MultipleChoiceAccuracy(missing="skip")
    listed.update([1, None, torch.tensor(2)], torch.tensor([1, 0, 0]))
    tensor.update(torch.tensor([1, -1, 2]), torch.tensor([1, 0, 0]))
    assert values(listed) == values(tensor) == pytest.approx({"accuracy": 0.5, "answered": 2 / 3})


def test_nothing_answered_leaves_no_accuracy():
    metric = MultipleChoiceAccuracy(missing="skip")
    metric.update([None, None], torch.tensor([0, 1]))
    with pytest.warns(UserWarning, match="saw no samples"):
        found = values(metric)
    assert found["answered"] == 0.0
    assert found["accuracy"] != found["accuracy"]


def test_choice_errors_name_the_value():
    with pytest.raises(ValueError, match="`missing` is 'drop'; it must be 'zero' or 'skip'"):
        MultipleChoiceAccuracy(missing="drop")
    with pytest.raises(ValueError, match=r"`target\[1\]` is -1"):
        MultipleChoiceAccuracy().update([0, 0], torch.tensor([0, -1]))
    with pytest.raises(ValueError, match=r"`prediction` has shape \(1,\) and `target` \(2,\)"):
        MultipleChoiceAccuracy().update([0], torch.tensor([0, 1]))
    with pytest.raises(TypeError, match=r"`prediction\[0\]` is 0\.5; an option is an index from 0"):
        MultipleChoiceAccuracy().update([0.5], torch.tensor([0]))
    with pytest.raises(TypeError, match=r"`prediction` has dtype torch\.float32"):
        MultipleChoiceAccuracy().update(torch.tensor([0.0]), torch.tensor([0]))
    unchecked = MultipleChoiceAccuracy(validate_args=False)
    unchecked.update([0, -1], torch.tensor([0, -1]))
    assert values(unchecked)["accuracy"] == 0.5


def test_open_answers_over_batches():
    batches = [(["The cat", None], ["cat", "dog"]), (["3"], [["three", "3"]])]
    metric = OpenAnswerScore()
    for batch in batches:
        metric.update(*batch)
    scores = torch.cat([metric.score(*batch) for batch in batches])
    assert values(metric) == pytest.approx({"exact": scores.mean().item(), "answered": 2 / 3})
    assert scores.tolist() == [1.0, 0.0, 1.0]


def test_open_answers_by_rouge():
    pytest.importorskip("rouge_score")
    metric = OpenAnswerScore(measure="rouge")
    metric.update(["red car", "blue", None], ["a red car", "red", "red"])
    rouge = (2 * 2 / 5 + 2 * 1 / 3 + 2 * 2 / 5) / 3  # words, pairs of words, longest common subsequence
    assert values(metric) == pytest.approx({"rouge": rouge / 3, "answered": 2 / 3})


def test_open_answers_by_a_judge():
    asked = []

    def judge(question, prediction, target):
        asked.append((question, prediction, target))
        return {"a cat": 1.0, "a pet": 0.5, "?": None}[prediction]

    metric = OpenAnswerScore(judge=judge)
    metric.update(["a cat", None], ["cat", "dog"], ["who sleeps?", "who barks?"])
    metric.update(["?", "a pet"], ["cat", ["cat", "kitten"]], question=["who?", "what is it?"])
    assert values(metric) == pytest.approx({"judge": 1.5 / 3, "answered": 0.75, "judged": 0.75})
    assert asked == [("who sleeps?", "a cat", "cat"), ("who?", "?", "cat"), ("what is it?", "a pet", ["cat", "kitten"])]
    grouped = GroupedMetric(OpenAnswerScore(judge=judge), by="task")
    grouped.update(["a cat", "a pet"], ["cat", "cat"], ["who?", "what?"], task=["sleep", "look"])
    assert grouped.compute()["judge/task=look"] == 0.5
    with pytest.raises(ValueError, match="2 answers, 2 targets and no questions"):
        metric.update(["a", "b"], ["a", "b"])
    with pytest.raises(ValueError, match=r"graded 'x' with 3; a grade is in \[0, 1\]"):
        OpenAnswerScore(judge=lambda *_: 3).update(["x"], ["y"], ["z"])


def test_open_answer_errors_name_the_value():
    with pytest.raises(ValueError, match="`measure` is 'f1'"):
        OpenAnswerScore(measure="f1")
    with pytest.raises(ValueError, match="`prediction` holds 1 answers for 2 targets"):
        OpenAnswerScore().update(["cat"], ["cat", "dog"])

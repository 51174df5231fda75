"""NExT-GQA, ReXTime and CG-Bench as officially scored: readers, their faults and reports, by hand."""

import math
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from m1lite.metrics.functional import temporal_set_iou
from m1lite.metrics.presets import find_preset
from m1lite.metrics.presets.grounded_qa import (
    cgbench_choice,
    cgbench_iou,
    cgbench_set_iou,
    cgbench_spans,
    next_gqa_iop,
    next_gqa_iou,
    next_gqa_items,
    rextime_items,
)


def fenced(text):
    return f'So:\n```json\n{{"result": {text}}}\n``` I hope.'


GROUND = {"9": {"duration": 40.0, "location": {"0": [[10.0, 20.0], [30.0, 35.0]], "1": [[0.0, 4.0]]}}}
ANSWERS = {"9_0": {"answer": 2, "prediction": 2}, "9_1": {"answer": 1, "prediction": 1}}
TRUTH = [
    {"qid": "a", "relevant_windows": [[0, 10], [40, 60]], "ans": "A"},
    {"qid": "b", "relevant_windows": [[0, 30]], "ans": "B"},
    {"qid": "c", "relevant_windows": [[5, 6]], "ans": "C"},
]
WINDOWS = {"a": [[40, 54, 0.9], [0, 10, 0.8]], "b": [[0, 12]], "c": [[0.0, 0.0]]}


class TestNextGqa:
    @pytest.mark.parametrize(
        ("span", "window", "iou", "iop"),
        [
            ([8.0, 9.0], [2.0, 4.0], -4 / 7, -4.0),
            ([8.0, 2.0], [2.0, 8.0], -1.0, 0.0),
            ([8.0, 8.0], [2.0, 8.0], 0.0, 1.0),
            ([5.0, 5.0], [5.0, 5.0], 0.0, 1.0),
            ([9.0, 9.0], [2.0, 8.0], 0.0, 0.0),
            ([4.0, 6.0], [0.0, 10.0], 0.2, 1.0),
            ([math.nan, math.nan], [0.0, 2.0], 1.0, 0.0),
            ([math.nan, 1.0], [3.0, 1.0], 0.0, 0.0),
            ([3.0, 47.8], [math.nan, 7.0], 0.0, math.nan),
        ],
    )
    def test_overlaps_may_be_negative(self, span, window, iou, iop):
        span, window = torch.tensor(span), torch.tensor(window)
        assert next_gqa_iou(span, window).item() == pytest.approx(iou)
        assert next_gqa_iop(span, window).item() == pytest.approx(iop, nan_ok=True)

    def test_a_question_without_a_span_is_in_no_mean_of_grounding(self):
        items = next_gqa_items(GROUND, {"9_0": [12.0, 14.0]}, ANSWERS)
        assert find_preset("nextgqa").score(items) == {
            "Acc@GQA": 100.0,
            "mIoP": 100.0,
            "IoP@0.3": 100.0,
            "IoP@0.5": 100.0,
            "mIoU": 20.0,
            "IoU@0.3": 0.0,
            "IoU@0.5": 0.0,
            "Acc@QA": 100.0,
        }

    def test_shares_of_the_video_are_rounded_as_numpy_does(self):
        (item,) = next_gqa_items(GROUND, {"9_1": [0.00875, 0.05]}, None, gaussian_mode=True, subset={"9_1"})
        spans, windows, right = find_preset("nextgqa").read(item)
        assert spans[0].tolist() == [0.4, 2.0]  # 0.35, which round() makes 0.3
        assert windows.tolist() == [[[0.0, 4.0]]]
        assert right == [None]

    def test_first_and_last_number_of_a_span_count(self):
        (item,) = next_gqa_items(GROUND, {"9_1": [1.0, 9.0, 3.0]}, ANSWERS, subset=["9_1"])
        assert find_preset("nextgqa").read(item)[0][0].tolist() == [1.0, 3.0]

    def test_no_items_are_nan(self):
        with pytest.warns(UserWarning, match="saw no samples"):
            assert all(math.isnan(value) for value in find_preset("nextgqa").score([]).values())


class TestRexTime:
    def score(self, **fields):
        lines = [{"qid": qid} | {name: of[qid] for name, of in fields.items()} for qid in ("b", "a", "c")]
        return find_preset("rextime").score(rextime_items(lines, TRUTH))

    def test_spans_are_percent_and_answers_fractions(self):
        found = self.score(pred_relevant_windows=WINDOWS, ans={"a": "A", "b": "A", "c": "C"})
        assert found["MR-full-mIoU"] == 36.67
        assert found["MR-full-R1@0.3"] == found["MR-full-R1@0.4"] == 66.67
        assert found["MR-full-R1@0.5"] == found["MR-full-R1@0.7"] == 33.33
        assert found["VQA"] == 2 / 3
        assert [found[f"VQA,mIoU@{bound}"] for bound in (0.3, 0.5, 0.7)] == [1 / 3] * 3

    @pytest.mark.filterwarnings("ignore:.*saw no samples")
    def test_what_is_not_submitted_is_not_reported(self):
        spans = self.score(pred_relevant_windows=WINDOWS)
        assert set(spans) == {"MR-full-mIoU", *(f"MR-full-R1@{0.3 + 0.05 * step:.2g}" for step in range(14))}
        assert self.score(ans={"a": "A", "b": "", "c": ""}) == {"VQA": 1 / 3}

    def test_questions_must_match(self):
        with pytest.raises(ValueError, match=r"`qid` 'c' is in only one of submission and ground truth \(1 such\)"):
            list(rextime_items([{"qid": "a"}, {"qid": "b"}], TRUTH))


class TestCgBench:
    @pytest.mark.parametrize(
        ("response", "spans"),
        [
            (fenced("[[8, 11], [20, 30]]"), [(8.0, 11.0), (20.0, 30.0)]),
            (fenced("[]"), []),
            (fenced("null"), []),
            (fenced("[8, 11]"), [(8.0, 11.0)]),
            (fenced('[["8", "11"]]'), [(8.0, 11.0)]),
            (fenced("[[8, null]]"), None),
            (fenced("[[8, 11], [9, 12]]"), [(8.0, 11.0), (9.0, 12.0)]),
            (fenced("[[NaN, 11]]"), []),
            (fenced("[[0, 1e400]]"), []),
            (fenced("[[0, 1" + "0" * 400 + "]]"), []),
            ("8 to 11, 20-30", [(8.0, 11.0), (20.0, -30.0)]),  # the dash is read as a sign
            ("8 to 11, 20 to 30.5", [(8.0, 11.0), (20.0, 30.5)]),
            ("8 11 11 30", None),
            ("8 11 20", None),
            ("no idea", []),
            ("", None),
            (None, None),
        ],
    )
    def test_spans(self, response, spans):
        assert cgbench_spans(response) == spans

    @pytest.mark.parametrize(
        ("response", "right"),
        [
            (fenced('"E"'), True),
            (fenced("E"), True),
            (fenced('"e"'), False),
            (fenced("null"), False),
            ('```json\n{"answer": "E"}\n```', True),
            ("A or E", True),
            ("Answer: A", False),
            ("e", None),
            ("Eagle", None),
            ("", None),
            (None, None),
        ],
    )
    def test_choices(self, response, right):
        assert cgbench_choice(response, "E") is right

    def test_reversed_spans_are_negative_time(self):
        assert cgbench_iou([[5, 1]], [[1, 5]]) == 0.0
        assert cgbench_iou([[1, 5], [10, 8]], [[1, 5]]) == 2.0
        assert cgbench_iou([[1, 5], [5, 1]], [[1, 5]]) == 1.0
        assert cgbench_iou([[math.nan, 5]], [[1, 5]]) == cgbench_iou([], []) == cgbench_iou([[3, 3]], [[3, 3]]) == 0.0
        assert cgbench_iou([[2, 6], [3, math.nan]], [[4, 12]]) == 0.2

    @given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)).map(sorted).map(tuple), min_size=1))
    def test_without_them_it_is_the_set_iou(self, spans):
        prediction, target = torch.tensor(spans, dtype=torch.float64), torch.tensor([[2.0, 5.0]], dtype=torch.float64)
        assert cgbench_set_iou(prediction, target) == temporal_set_iou(prediction, target)

    def test_samples_are_padded_with_nan(self):
        nan = math.nan
        prediction = torch.tensor([[[1.0, 5.0], [10.0, 8.0]], [[1.0, 5.0], [nan, nan]], [[nan, nan], [nan, nan]]])
        assert cgbench_set_iou(prediction, torch.tensor([[[1.0, 5.0]]] * 3)).tolist() == [2.0, 1.0, 0.0]

    @pytest.mark.filterwarnings("ignore:.*saw no samples")
    def test_the_report_counts_what_has_a_result(self):
        def item(spans, long, clue, **judged):
            responses = {"interval_response": spans, "long_response": long, "clue_response": clue}
            return {"clue_intervals": [[0, 10]], "right_answer": "A", **responses, **judged}

        items = [
            item(fenced("[[0, 3]]"), "A", "A", open_judgement=1),
            item("no idea", "B", "A", open_judgement=None),
            item(fenced("[[0, 5]]"), None, "A"),
            item(None, "A", "b"),
        ]
        found = find_preset("cgbench").score(items)
        assert found == pytest.approx(
            {
                "miou": 0.8 / 3,
                "miou_total": 3,
                "long": 2 / 3,
                "long_total": 3,
                "clue": 1.0,
                "clue_total": 3,
                "rec": 8 / 15,
                "rec_total": 3,
                "acc": 3 / 10,
                "acc_total": 2,
                "open": 1.0,
                "open_total": 2,
                "CRR": 2 / 3,
            }
        )
        empty = find_preset("cgbench").score([])
        assert math.isnan(empty.pop("CRR"))
        assert set(empty.values()) == {0.0}

    @pytest.mark.parametrize(
        "response",
        [
            "9" * 1_000_000,
            "```json" * 100_000,
            "```json\n" + "[" * 1_000_000 + "\n```",
            fenced("9" * 1_000_000),
            "```json\n" + ": a" * 200_000 + "\n```",
            "1.5 " * 100_001,
            "A " * 200_000,
        ],
        ids=["digits", "fences", "brackets", "whole number", "words", "numbers", "letters"],
    )
    def test_long_texts_take_no_long_time(self, response):
        start = time.perf_counter()
        cgbench_choice(response, "E")
        cgbench_spans(response)
        assert time.perf_counter() - start < 20  # a pattern that backtracks would take hours

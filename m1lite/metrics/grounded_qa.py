"""Grounded question answering as metrics: answers together with the spans of time they rest on.

:class:`GroundedQA` takes one span per question, :class:`ClueGroundedQA` several. Answers alone stand in qa.py.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from m1lite.metrics._base import VideoMetric
from m1lite.metrics._spans import check_spans, stack_sets
from m1lite.metrics.functional.grounded_qa import best_overlap, grounded_answer_score
from m1lite.metrics.functional.grounding import temporal_iop, temporal_iou
from m1lite.metrics.functional.spans import temporal_set_iou
from m1lite.metrics.grounding import check_missing, check_thresholds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Overlap = Callable[[Tensor, Tensor], Tensor]


_OF_ALL = ("acc@qa", "answered", "located")
"""What is a share of all questions, those without a span too."""
_CLUE_KEYS = ("miou", "rec@iou", "acc@iou", "acc@long", "acc@clue")
_MERGED_IOU = partial(temporal_set_iou, empty=0.0)


class GroundedQA(VideoMetric):
    r"""Accuracy of answers, overlap of the one span given for each, and accuracy where that span fits.

    A question may have several true spans; the best one counts, for IoU and IoP (the share of the predicted span that
    lies in the true one) on their own. ``acc@gqa@<threshold>`` counts right answers whose span reaches the threshold.
    No span scores 0 and no answer is wrong; both stay in the denominators.

    ``update`` takes ``prediction``, a tensor ``(N, 2)`` of starts and ends (NaN for no span) or a sequence of N pairs
    in which ``None`` is no span; ``target``, a tensor ``(N, 2)`` or ``(N, T, 2)`` padded with NaN, or a list of true
    spans for every question, in the same unit; and ``right``, 1 or 0 for every answer (see
    :func:`~m1lite.metrics.functional.choice_match`), a tensor ``(N,)`` or a sequence in which ``None`` is no answer.

    ``compute`` gives a dictionary of fractions: ``acc@qa``, ``acc@gqa@<threshold>``, ``miop``, ``iop@<threshold>``,
    ``miou``, ``iou@<threshold>``, and the shares ``answered`` and ``located`` of questions with an answer and with a
    span; where there are no samples they are NaN, with a warning. Each is the mean of the per-sample
    :meth:`score` under its key (where none is skipped).

    Args:
        thresholds: of IoU and IoP, in (0, 1].
        answer_thresholds: overlap from which a right answer counts as grounded, in (0, 1].
        answer_overlap: which overlap these are about, ``"iop"`` (NExT-GQA) or ``"iou"`` (ReXTime).
        iop: how IoP is computed. NExT-GQA lets a span without length inside a true one score 1:
            ``partial(temporal_iop, point=1.0)``; the default does not reward saying a single moment.
        strict: overlaps must lie *above* a threshold.
        missing: ``"zero"``, or ``"skip"``: a question without a span leaves every mean but ``acc@qa``, as in NExT-GQA.
        validate_args: refuse true spans that are reversed or not finite and values of ``right`` that are not 0 or 1;
            costs one read-back per update.
        kwargs: passed on to :class:`torchmetrics.Metric`.

    Raises:
        ValueError: if an argument is outside its range; on update if shapes do not fit or a value is refused.

    References:
        Xiao et al. 2024, arXiv:2309.01327 (NExT-GQA), section 5.1; its code (doc-doc/NExT-GQA 63772e0) skips questions
        without a span. See also the presets ``nextgqa`` and ``rextime``.

    Example:
        >>> metric = GroundedQA(thresholds=[0.5])
        >>> metric.update([[0.0, 4.0], None], [[[1.0, 5.0], [8.0, 9.0]], [[2.0, 3.0]]], torch.tensor([1, 1]))
        >>> {name: round(value.item(), 3) for name, value in metric.compute().items()}  # doctest: +NORMALIZE_WHITESPACE
        {'acc@qa': 1.0, 'acc@gqa@0.5': 0.5, 'miop': 0.375, 'iop@0.5': 0.5, 'miou': 0.3, 'iou@0.5': 0.5,
        'answered': 1.0, 'located': 0.5}
    """

    sums: Tensor
    count: Tensor
    grounding_count: Tensor

    def __init__(
        self,
        *,
        thresholds: Sequence[float] = (0.3, 0.5),
        answer_thresholds: Sequence[float] = (0.5,),
        answer_overlap: Literal["iop", "iou"] = "iop",
        iop: Overlap = temporal_iop,
        strict: bool = False,
        missing: Literal["zero", "skip"] = "zero",
        validate_args: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if answer_overlap not in ("iop", "iou"):
            raise ValueError(f"`answer_overlap` is {answer_overlap!r}; it is 'iop' or 'iou'.")
        if not answer_thresholds:
            raise ValueError("`answer_thresholds` is empty; give at least one threshold.")
        self.thresholds = check_thresholds(thresholds)
        self.answer_thresholds = check_thresholds(answer_thresholds)
        self.answer_overlap = answer_overlap
        self.iop = iop
        self.strict = strict
        self.missing = check_missing(missing)
        self.validate_args = validate_args
        self.add_sums("sums", shape=(5 + 2 * len(self.thresholds) + len(self.answer_thresholds),))  # one per key
        self.add_sums("count", "grounding_count")

    def score(
        self, prediction: Tensor | Sequence[Any], target: Tensor | Sequence[Any], right: Tensor | Sequence[Any]
    ) -> dict[str, Tensor]:
        """Return what every question scores ``(N,)``, under the keys of :meth:`compute`; 0 for what is missing."""
        span, target, located = _stack_spans(prediction, target)
        return self._scores(span, target, located, _as_flags(right, "right", span))

    def update(
        self, prediction: Tensor | Sequence[Any], target: Tensor | Sequence[Any], right: Tensor | Sequence[Any]
    ) -> None:
        """Add questions."""
        span, target, located = _stack_spans(prediction, target)
        flags = _as_flags(right, "right", span)
        if self.validate_args:
            _check(target, right=flags)
        scores = self._scores(span, target, located, flags)
        self.sums += torch.stack([values.sum(dtype=torch.float64) for values in scores.values()])
        self.count += len(span)
        # A question without a span adds 0 to every sum, so that skipping it changes this count only.
        self.grounding_count += located.sum() if self.missing == "skip" else len(span)

    def compute(self) -> dict[str, Tensor]:
        """Return accuracies, mean overlaps and the shares that reach the thresholds."""
        keys = self._keys()
        counts = torch.stack([self.count if key in _OF_ALL else self.grounding_count for key in keys])
        return dict(zip(keys, self.ratio(self.sums, counts), strict=True))

    def _keys(self) -> list[str]:
        keys = ["acc@qa", *_named("acc@gqa", self.answer_thresholds)]
        for name in ("iop", "iou"):
            keys += [f"m{name}", *_named(name, self.thresholds)]
        return [*keys, "answered", "located"]

    def _scores(self, span: Tensor, target: Tensor, located: Tensor, flags: Tensor) -> dict[str, Tensor]:
        """Score stacked questions, a value ``(N,)`` per key."""
        overlaps = {
            name: best_overlap(span, target, overlap=overlap)
            for name, overlap in (("iop", self.iop), ("iou", temporal_iou))
        }
        rows = [flags == 1]
        rows += [
            grounded_answer_score(overlaps[self.answer_overlap], flags, threshold=threshold, strict=self.strict)
            for threshold in self.answer_thresholds
        ]
        for overlap in overlaps.values():
            rows += [overlap, *_reaches(overlap, self.thresholds, strict=self.strict).unbind(-1)]
        rows += [~flags.isnan(), located]
        dtype = overlaps["iou"].dtype  # at least float32, whatever came in
        return {key: row.to(dtype) for key, row in zip(self._keys(), rows, strict=True)}


class ClueGroundedQA(VideoMetric):
    r"""Answers about long videos, the clue spans given for them, and answers when only the clues are shown.

    The overlap of a question is the IoU of the time that the predicted and the true clue spans cover. With thresholds
    :math:`T`, ``rec@iou`` is the mean over :math:`t \in T` of the share of questions whose IoU reaches :math:`t`, and
    ``acc@iou`` the mean over :math:`t` of the share whose IoU reaches :math:`t` and whose answer is right.
    ``crr`` says how much of what can be answered from the clues alone is also answered from the whole video:

    .. math:: \mathrm{CRR} = \min(\text{acc}_\text{long}, \text{acc}_\text{clue}) / \text{acc}_\text{clue}

    No spans score 0 and no answer is wrong; both stay in the denominators.

    ``update`` takes ``prediction``, for every question a list of spans, or ``None`` for no answer, or a tensor
    ``(N, P, 2)`` padded with NaN; ``target``, likewise without ``None``, in the same unit; ``right`` and
    ``clue_right``, 1 or 0 for every answer from the whole video and from the clues alone (see
    :func:`~m1lite.metrics.functional.choice_match`), tensors ``(N,)`` or sequences in which ``None`` is no answer.

    ``compute`` gives a dictionary of fractions: ``miou``, ``rec@iou``, ``acc@iou``, ``acc@long`` and ``acc@clue``, each
    the mean of the per-sample :meth:`score` under its key (where none is skipped), and ``crr``, which is NaN where no
    answer from the clues is right. All are NaN, with a warning, where there are no samples.

    Args:
        thresholds: of IoU, in (0, 1].
        strict: IoU must lie *above* a threshold, as in VLMEvalKit's copy of CG-Bench.
        missing: ``"zero"``, or ``"skip"``: no answer leaves the denominators it belongs to, as in CG-Bench; those of
            ``acc@iou`` count questions with both an answer and spans.
        overlap: how the IoU ``(N,)`` of ``(N, P, 2)`` and ``(N, T, 2)``, both padded with NaN, is computed. The default
            merges the spans of a side and gives 0 where neither side has any.
        validate_args: refuse true spans that are reversed or not finite and flags that are not 0 or 1; costs one
            read-back per update.
        kwargs: passed on to :class:`torchmetrics.Metric`.

    Raises:
        ValueError: if an argument is outside its range; on update if shapes do not fit or a value is refused.

    References:
        Chen et al. 2024, arXiv:2412.12075 (CG-Bench); its code (CG-Bench/CG-Bench f826608) leaves unreadable answers
        out: see the preset ``cgbench``.

    Example:
        >>> metric = ClueGroundedQA()
        >>> clues = [[[8.0, 11.0], [20.0, 30.0]], [[3.0, 5.0]]]
        >>> metric.update([[[8.0, 11.0]], None], clues, torch.tensor([1, 0]), torch.tensor([1, 1]))
        >>> {name: round(value.item(), 3) for name, value in metric.compute().items()}
        {'miou': 0.115, 'rec@iou': 0.2, 'acc@iou': 0.2, 'acc@long': 0.5, 'acc@clue': 1.0, 'crr': 0.5}
    """

    sums: Tensor
    counts: Tensor

    def __init__(
        self,
        *,
        thresholds: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5),
        strict: bool = False,
        missing: Literal["zero", "skip"] = "zero",
        overlap: Overlap = _MERGED_IOU,
        validate_args: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not thresholds:
            raise ValueError("`thresholds` is empty; rec@iou is a mean over at least one.")
        self.thresholds = check_thresholds(thresholds)
        self.strict = strict
        self.missing = check_missing(missing)
        self.overlap = overlap
        self.validate_args = validate_args
        self.add_sums("sums", "counts", shape=(len(_CLUE_KEYS),))

    def score(
        self,
        prediction: Tensor | Sequence[Any],
        target: Tensor | Sequence[Any],
        right: Tensor | Sequence[Any],
        clue_right: Tensor | Sequence[Any],
    ) -> dict[str, Tensor]:
        """Return what every question scores ``(N,)``, under the keys of :meth:`compute`; 0 for what is missing."""
        prediction, target, answered = stack_sets(prediction, target)
        flags = _as_flags(right, "right", target), _as_flags(clue_right, "clue_right", target)
        return self._scores(prediction, target, answered, *flags)

    def update(
        self,
        prediction: Tensor | Sequence[Any],
        target: Tensor | Sequence[Any],
        right: Tensor | Sequence[Any],
        clue_right: Tensor | Sequence[Any],
    ) -> None:
        """Add questions."""
        prediction, target, answered = stack_sets(prediction, target)
        flags, clue_flags = _as_flags(right, "right", target), _as_flags(clue_right, "clue_right", target)
        if self.validate_args:
            _check(target, right=flags, clue_right=clue_flags)
        scores = self._scores(prediction, target, answered, flags, clue_flags)
        self.sums += torch.stack([values.sum(dtype=torch.float64) for values in scores.values()])
        # What is missing adds 0 to the sums, so that skipping it changes the counts only.
        told, clue_told = ~flags.isnan(), ~clue_flags.isnan()
        counted = torch.stack([answered, answered, answered & told, told, clue_told])
        self.counts += counted.sum(-1) if self.missing == "skip" else len(target)

    def compute(self) -> dict[str, Tensor]:
        """Return mean IoU, recall and accuracy over the thresholds, both accuracies and their ratio."""
        means = dict(zip(_CLUE_KEYS, self.ratio(self.sums, self.counts), strict=True))
        clue = means["acc@clue"]
        return {**means, "crr": torch.minimum(means["acc@long"], clue) / clue}

    def _scores(
        self, prediction: Tensor, target: Tensor, answered: Tensor, flags: Tensor, clue_flags: Tensor
    ) -> dict[str, Tensor]:
        """Score stacked questions, a value ``(N,)`` per key."""
        iou = torch.where(answered, self.overlap(prediction, target), 0.0)
        reached = _reaches(iou, self.thresholds, strict=self.strict).to(iou.dtype).mean(-1)
        right, clue_right = ((values == 1).to(iou.dtype) for values in (flags, clue_flags))
        return dict(zip(_CLUE_KEYS, (iou, reached, reached * right, right, clue_right), strict=True))


def _stack_spans(prediction: Tensor | Sequence[Any], target: Tensor | Sequence[Any]) -> tuple[Tensor, Tensor, Tensor]:
    """Write one span per question ``(N, 2)``, the true ones ``(N, T, 2)``, and which questions have a span ``(N,)``."""
    if isinstance(prediction, Tensor):
        prediction = prediction[:, None]
    else:
        prediction = [
            None if span is None else span[None] if isinstance(span, Tensor) else [span] for span in prediction
        ]
    if isinstance(target, Tensor) and target.ndim == 2:
        target = target[:, None]
    spans, target, answered = stack_sets(prediction, target)
    if spans.shape[1] == 0:  # not one question has a span
        spans = spans.new_full((len(spans), 1, 2), float("nan"))
    span = spans[:, 0]
    return span, target, answered & ~span.isnan().any(-1)


def _as_flags(right: Tensor | Sequence[Any], name: str, like: Tensor) -> Tensor:
    """Write 1 for right, 0 for wrong and NaN for no answer, float64 ``(N,)``, beside the N rows of ``like``."""
    if not isinstance(right, Tensor):
        right = torch.tensor([float("nan") if flag is None else float(flag) for flag in right], dtype=torch.float64)
    if right.shape != (len(like),):
        raise ValueError(f"`{name}` has shape {tuple(right.shape)} for {len(like)} questions; give one flag for each.")
    return right.to(device=like.device, dtype=torch.float64)


def _check(target: Tensor, **flags: Tensor) -> None:
    """Refuse true spans that are reversed or not finite and flags other than 0, 1 and NaN; one read-back."""
    length = target[..., 1] - target[..., 0]
    fine = ((length >= 0) & (length < float("inf")) | target.isnan().all(-1)).all()
    for values in flags.values():
        fine = fine & _are_flags(values).all()
    if bool(fine):
        return
    check_spans(target, padded=True)
    for name, values in flags.items():
        wrong = ~_are_flags(values)
        if bool(wrong.any()):
            row = int(wrong.nonzero()[0])
            raise ValueError(f"`{name}[{row}]` is {values[row].item():g}; a right answer is 1, a wrong one 0.")


def _are_flags(values: Tensor) -> Tensor:
    return (values == 0) | (values == 1) | values.isnan()


def _reaches(overlaps: Tensor, thresholds: Sequence[float], *, strict: bool) -> Tensor:
    """Say which overlaps ``(...)`` reach which thresholds ``(..., thresholds)``, in the dtype of the overlaps."""
    bounds = overlaps.new_tensor(thresholds)
    return overlaps[..., None] > bounds if strict else overlaps[..., None] >= bounds


def _named(name: str, thresholds: Sequence[float]) -> list[str]:
    """Give every threshold its key."""
    return [f"{name}@{threshold:g}" for threshold in thresholds]

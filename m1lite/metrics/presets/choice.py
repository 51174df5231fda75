"""Official protocols of multiple-choice benchmarks: Video-MME, MVBench, MLVU, Video-Holmes, VideoMMMU and MMR-V.

They differ in how a letter is read, in whether an unreadable answer counts, and in what is averaged. The sane
counterparts are :func:`~m1lite.metrics.functional.parse_choice`, :class:`~m1lite.metrics.MultipleChoiceAccuracy` and
:class:`~m1lite.metrics.GroupedMetric`.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

import torch
from torch import Tensor

from m1lite.metrics._base import VideoMetric
from m1lite.metrics.grouped import GroupedMetric
from m1lite.metrics.presets import _choice_readers as readers
from m1lite.metrics.presets._videommmu_open import videommmu_open_right
from m1lite.metrics.presets.base import Preset

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_GROUP = "group"
_VIDEO_MME_DURATIONS = ("short", "medium", "long")
_HOLMES_TYPES = ("SR", "IMC", "TCI", "TA", "MHR", "PAR", "CTI")
_MMR_V_IMPLICIT = {
    "Metaphor Understanding",
    "Theme Understanding",
    "Emotion Recognition",
    "Implicit Symbol",
    "Comment Matching",
}
_MMR_V_EXPLICIT = {
    "Counterintuitive Reasoning",
    "Causal Reasoning",
    "Sequential Structure Reasoning",
    "Video Type and Intent",
    "Cross-modal Creative Transfer",
}
_VIDEOMMMU_SUBJECTS = {
    "Art and Design": ("Art", "Art_Theory", "Design", "Music"),
    "Business": ("Accounting", "Economics", "Finance", "Manage", "Marketing"),
    "Science": ("Biology", "Chemistry", "Geography", "Math", "Physics"),
    "Health and Medicine": (
        "Basic_Medical_Science",
        "Clinical_Medicine",
        "Diagnostics_and_Laboratory_Medicine",
        "Pharmacy",
        "Public_Health",
    ),
    "Humanities and Social Science": ("History", "Literature", "Sociology", "Psychology"),
    "Tech and Engineering": (
        "Agriculture",
        "Architecture_and_Engineering",
        "Computer_Science",
        "Electronics",
        "Energy_and_Power",
        "Materials",
        "Mechanical_Engineering",
    ),
}

Scored = tuple[Tensor, list[str]]
"""Arguments of ``update`` for one item: whether it is right, bool ``(1,)``, and the group it is in."""


class VideoMMEItem(TypedDict):
    """One question of Video-MME with the model's answer."""

    duration: str
    """``short``, ``medium`` or ``long``."""
    answer: str
    """The right letter."""
    response: str
    """The model's whole output."""


class TaskItem(TypedDict):
    """One question of MVBench or MLVU with the model's answer."""

    task_type: str
    """Name of the task, such as ``Action Sequence`` or ``needle``."""
    answer: str
    """The right option with its letter, ``(A) text``."""
    response: str
    """The model's output; MVBench gives its first line, with ``(`` before it."""


class VideoHolmesItem(TypedDict):
    """One question of Video-Holmes with the model's answer."""

    question_type: str
    """One of the seven types SR, IMC, TCI, TA, MHR, PAR, CTI."""
    answer: str
    """The right letter."""
    response: str
    """The model's whole output."""


class VideoMMMUItem(TypedDict):
    """One question of VideoMMMU with the model's answer."""

    id: str
    """``<split>_<subject>_<number>``."""
    question_type: str
    """``multiple-choice``, or another for an open question."""
    options: Sequence[str]
    """Texts of the options."""
    answer: str | Sequence[str]
    """The right letter; for an open question the true text, or several."""
    response: str
    """The model's whole output."""


class MMRVItem(TypedDict):
    """One question of MMR-V with the model's answer, under the names of its result files."""

    correctAnswer: str
    """The right letter in brackets, ``(A)``."""
    abilityType_L2: str
    """Name of the ability, such as ``Implicit Symbol``."""
    videoType: str
    """Kind of video, such as ``TV``."""
    raw_response: str
    """The model's whole output."""
    final_answer: NotRequired[Any]
    """What was stored as the answer, where something was; anything but a text is read as Python writes it."""


class RightCounts(VideoMetric):
    """Share of samples that are right, with the two counts that official tables round from.

    ``update`` takes ``right``, bool ``(N,)``. ``compute`` gives the fraction ``accuracy`` (NaN, with a warning, without
    any sample), and the counts ``right`` and ``count``.
    """

    right: Tensor
    count: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_sums("right", "count")

    def update(self, right: Tensor) -> None:
        """Add samples."""
        self.right += right.sum()
        self.count += len(right)

    def compute(self) -> dict[str, Tensor]:
        """Return ``accuracy``, ``right`` and ``count``."""
        return {"accuracy": self.ratio(self.right, self.count), "right": self.right, "count": self.count}


def read_video_mme(item: VideoMMEItem) -> Scored | None:
    """Score one item of Video-MME; None where no letter is found, since such an item leaves the denominator.

    Raises:
        ValueError: if the duration is none of the three.

    Example:
        >>> read_video_mme({"duration": "short", "answer": "B", "response": "(B)"})
        (tensor([True]), ['short'])
    """
    if item["duration"] not in _VIDEO_MME_DURATIONS:
        raise ValueError(f"`duration` is {item['duration']!r}; Video-MME has {list(_VIDEO_MME_DURATIONS)}.")
    letter = readers.video_mme_letter(item["response"])
    return _scored(letter == item["answer"], item["duration"]) if letter else None


def report_video_mme(values: Mapping[str, Tensor]) -> dict[str, float]:
    """Report in percent with 1 decimal; 0 where nothing was answered, as the official script prints."""
    groups = _counts(values)
    shares = {duration: _percent(*groups.get(duration, (0, 0)), digits=1) for duration in _VIDEO_MME_DURATIONS}
    return {**shares, "overall": _percent(*_total(values), digits=1)}


def read_mvbench(item: TaskItem) -> Scored:
    """Score one item of MVBench.

    Example:
        >>> read_mvbench({"task_type": "Action Count", "answer": "(A) 3", "response": "(A) three"})
        (tensor([True]), ['Action Count'])
    """
    return _scored(readers.mvbench_right(item["response"], item["answer"]), item["task_type"])


def report_mvbench(values: Mapping[str, Tensor]) -> dict[str, float]:
    """Report in percent per task; ``Avg`` is over all questions."""
    return {**_task_percents(values), "Avg": values["accuracy"].item() * 100}


def read_mlvu(item: TaskItem) -> Scored:
    """Score one item of MLVU.

    Example:
        >>> read_mlvu({"task_type": "needle", "answer": "(A) red", "response": "A."})
        (tensor([False]), ['needle'])
    """
    return _scored(readers.mlvu_right(item["response"], item["answer"]), item["task_type"])


def report_mlvu(values: Mapping[str, Tensor]) -> dict[str, float]:
    """Report in percent per task; ``Avg`` (M-Avg) is the mean over the tasks that occur."""
    return {**_task_percents(values), "Avg": values["accuracy/macro"].item() * 100}


def read_video_holmes(item: VideoHolmesItem) -> Scored:
    """Score one item of Video-Holmes.

    Example:
        >>> read_video_holmes({"question_type": "SR", "answer": "B", "response": "<answer>B</answer>"})
        (tensor([True]), ['SR'])
    """
    return _scored(readers.video_holmes_letter(item["response"]) == item["answer"], item["question_type"])


def report_video_holmes(values: Mapping[str, Tensor]) -> dict[str, float]:
    """Report fractions with 2 decimals, per type and over all questions; 0 where there are no questions."""
    groups = _counts(values)
    shares = {kind: _rounded(*groups.get(kind, (0, 0)), digits=2) for kind in _HOLMES_TYPES}
    right, count = _total(values)
    return {**shares, "Overall Accuracy": _rounded(right, count, digits=2), "Total Questions": float(count)}


def read_video_mmmu(item: VideoMMMUItem) -> Scored | None:
    """Score one item of VideoMMMU; None for an empty response, since such an item leaves the denominator.

    A question of type ``perception`` is read as an open one and compared as a letter, so that it is always wrong.

    Raises:
        ValueError: if the id is not of the official form.

    Example:
        >>> item = {"id": "dev_Art_1", "question_type": "multiple-choice", "options": ["x", "y"], "answer": "B"}
        >>> read_video_mmmu({**item, "response": "(B)"})
        (tensor([True]), ['Art'])
    """
    subject = re.fullmatch(r"[^_]*+_(.+)_[0-9]+", item["id"])
    if subject is None:
        raise ValueError(f"`id` is {item['id']!r}; VideoMMMU's are of the form 'validation_Art_1'.")
    answer, response = item["answer"], item["response"]
    right: bool | None
    if item["question_type"] == "multiple-choice":
        letter = readers.videommmu_letter(response, item["options"])
        right = None if letter is None else letter != "" and letter in ([answer] if isinstance(answer, str) else answer)
    else:
        right = videommmu_open_right(response, answer)
        right = False if right and item["question_type"] == "perception" else right
    return None if right is None else _scored(right, subject[1])


def report_video_mmmu(values: Mapping[str, Tensor]) -> dict[str, float]:
    """Report fractions with 5 decimals: ``Overall``, each domain (0 without questions) and each subject that occurs."""
    groups = _counts(values)
    shares = {"Overall": _rounded(*_total(values), digits=5)}
    for domain, subjects in _VIDEOMMMU_SUBJECTS.items():
        present = {subject: groups[subject] for subject in subjects if subject in groups}
        right, count = (sum(numbers) for numbers in zip((0, 0), *present.values(), strict=True))
        shares[f"Overall-{domain}"] = _rounded(right, count, digits=5)
        shares |= {subject: _rounded(*numbers, digits=5) for subject, numbers in present.items()}
    return shares


def read_mmr_v(item: MMRVItem) -> Scored:
    """Score one item of MMR-V; its group is the kind of reasoning and of video.

    Example:
        >>> item = {"correctAnswer": "(B)", "abilityType_L2": "Implicit Symbol", "videoType": "TV"}
        >>> read_mmr_v({**item, "raw_response": "It is [B]."})
        (tensor([True]), ['["Implicit", "TV"]'])
    """
    ability, video = (kind.strip() or "Unknown" for kind in (item.get("abilityType_L2", ""), item.get("videoType", "")))
    reasoning = "Implicit" if ability in _MMR_V_IMPLICIT else "Explicit" if ability in _MMR_V_EXPLICIT else "Other"
    true = re.search(r"\(([A-L])\)", item["correctAnswer"].upper())
    stored = str(item["final_answer"]) if "final_answer" in item else None
    letter = readers.mmr_v_letter(item["raw_response"], stored)
    return _scored(letter == (true[1] if true else None), json.dumps([reasoning, video]))


def report_mmr_v(values: Mapping[str, Tensor]) -> dict[str, float]:
    """Report in percent with 2 decimals: ``total``, ``reasoning/<kind>`` and ``video_type/<kind>``.

    Each comes with the counts that the official table shows beside it, as ``<key>/correct`` and ``<key>/count``.
    """
    tables: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for label, counts in _counts(values).items():
        reasoning, video = json.loads(label)
        for key in ("total", f"reasoning/{reasoning}", f"video_type/{video}"):
            tables[key] = [held + more for held, more in zip(tables[key], counts, strict=True)]
    report: dict[str, float] = {}
    for key, (right, count) in (tables or {"total": [0, 0]}).items():
        accuracy = float(f"{right / count * 100:.2f}") if count else float("nan")
        report |= {key: accuracy, f"{key}/correct": float(right), f"{key}/count": float(count)}
    return report


def _scored(right: bool, group: str) -> Scored:
    return torch.tensor([right]), [group]


def _metric() -> VideoMetric:
    return GroupedMetric(RightCounts(), by=_GROUP)


def _total(values: Mapping[str, Tensor]) -> tuple[int, int]:
    return int(values["right"]), int(values["count"])


def _counts(values: Mapping[str, Tensor]) -> dict[str, tuple[int, int]]:
    """Return right and all samples of every group."""
    mark = f"count/{_GROUP}="
    groups = [key.removeprefix(mark) for key in values if key.startswith(mark)]
    return {group: (int(values[f"right/{_GROUP}={group}"]), int(values[mark + group])) for group in groups}


def _task_percents(values: Mapping[str, Tensor]) -> dict[str, float]:
    return {task: right / count * 100 for task, (right, count) in _counts(values).items()}


def _percent(right: int, count: int, *, digits: int) -> float:
    return float(f"{100 * right / count:.{digits}f}") if count else 0.0


def _rounded(right: int, count: int, *, digits: int) -> float:
    return float(f"{right / count:.{digits}f}") if count else 0.0


VIDEO_MME: Preset[VideoMMEItem] = Preset(
    name="video_mme",
    read=read_video_mme,
    metric=_metric,
    report=report_video_mme,
    source="thanku-all/parse_answer afd52cfe3dde5b3685e0d4f760c10c756860c758 eval_your_results.py",
)
MVBENCH: Preset[TaskItem] = Preset(
    name="mvbench",
    read=read_mvbench,
    metric=_metric,
    report=report_mvbench,
    source="OpenGVLab/Ask-Anything 4dd8210b030374bb0c510a57dfbe916f70d3ef71 video_chat2/mvbench.ipynb",
)
MLVU: Preset[TaskItem] = Preset(
    name="mlvu",
    read=read_mlvu,
    metric=_metric,
    report=report_mlvu,
    source="JUNJIE99/MLVU fd060c10a43ea48a35100a22688a927b8e531199 multiple_choice_evaluation/choice_bench.py",
)
VIDEO_HOLMES: Preset[VideoHolmesItem] = Preset(
    name="video_holmes",
    read=read_video_holmes,
    metric=_metric,
    report=report_video_holmes,
    source="TencentARC/Video-Holmes 52ef8da286ccad03036a65e7b67c160bc3a24fb9 evaluate.py",
)
VIDEO_MMMU: Preset[VideoMMMUItem] = Preset(
    name="video_mmmu",
    read=read_video_mmmu,
    metric=_metric,
    report=report_video_mmmu,
    source="EvolvingLMMs-Lab/VideoMMMU 88b4ac3e07326eaabda3a4afe8e7f30dd02bc143 lmms_eval/tasks/videommmu/utils.py",
)
MMR_V: Preset[MMRVItem] = Preset(
    name="mmr_v",
    read=read_mmr_v,
    metric=_metric,
    report=report_mmr_v,
    source="GaryStack/MMR-V 87ac4e5309c411b090c956ef73b02d2ffe7080b5 scripts/main-results.py",
)

PRESETS: tuple[Preset[Any], ...] = (VIDEO_MME, MVBENCH, MLVU, VIDEO_HOLMES, VIDEO_MMMU, MMR_V)

"""What whole replies earn by the reward of each recipe's YAML, weights and gates included, against sums by hand."""

import pytest
from hydra.utils import instantiate

from m1lite.configuration import compose
from m1lite.metrics.presets.r1 import blocks
from m1lite.records import (
    Answer,
    Episode,
    Message,
    MessageKind,
    Sample,
    Span,
    Status,
    Task,
    ToolCall,
    ToolResult,
    Trajectory,
    Turn,
    TurnKind,
)

SPAN = (Span(start=2, end=6),)
THOUGHT = "<think>so</think>"
RIGHT = f"{THOUGHT}<answer>B</answer>"
ASKED = {
    "when": {"task": Task.GROUNDING, "answer": Answer(spans=SPAN)},
    "which": {"task": Task.CHOICE, "answer": Answer(text="a dog"), "options": ("a cat", "a dog")},
    "shown": {"task": Task.GROUNDED_QA, "answer": Answer(text="a dog", spans=SPAN), "options": ("a cat", "a dog")},
    "what": {"task": Task.GROUNDED_QA, "answer": Answer(text="a dog", spans=SPAN)},
    "all": {"task": Task.CAPTION, "answer": Answer(events=("a ball falls", "it breaks"))},
}


def call(tool, before=THOUGHT, **args):
    """A turn with a call, and the call."""
    written = ", ".join(f'"{name}": {value}' for name, value in args.items())
    text = f'{before}<tool_call>{{"name": "{tool}", "arguments": {{{written}}}}}</tool_call>'
    return text, ToolCall(tool=tool, args=args)


def earned(recipe, question, *turns, overrides=()):
    """Compose the recipe, say these replies, and give the breakdown."""
    config = compose([f"experiment={recipe}", "root=/clips", "output_dir=/tmp/unused", *overrides])
    sample = Sample(id="q", video="v.mp4", duration=20.0, question="?", **ASKED[question])
    trajectory = Trajectory(agent="ada")
    episode = Episode(sample=sample, index=0, seed=0, visible={}, trajectories={"ada": trajectory})
    for number, said in enumerate(turns):
        text, made = said if isinstance(said, tuple) else (said, None)
        kind = TurnKind.COMMUNICATE if number else TurnKind.PLAN
        trajectory.turns.append(
            Turn(kind=kind, round=number, prompt_ids=[], reply_ids=[1], logprobs=[0.0], policy_version=0, seed=0,
                 text=text)
        )  # fmt: skip
        if made is not None:
            number_told = "the frame number is 40" if made.tool == "get_frame_number" else "shown"
            trajectory.calls.append(made)
            trajectory.results.append(ToolResult(text=number_told))
            episode.messages.append(
                Message(author="ada", round=number + 1, kind=MessageKind.RESULT, text="", call=made)
            )
    last = trajectory.turns[-1]
    if blocks(last.text, "answer"):
        parsed = instantiate(config.team.players.answers).parse_answer(last.text, sample)
        last.status, trajectory.answer = parsed.status, parsed.value
    else:
        last.status = Status.INVALID_PLAN
    (breakdown,) = instantiate(config.rewards)([episode])
    return breakdown["ada"]


CROP = call("crop_video", start_time=2, end_time=10)  # IoU with the truth 0.5
CLIP = call("video_clip", start=2, end=10)
CHOOSE = call("choose_frames", "<think>from 30 to 60</think>", start_frame=30, end_frame=60)
HASTY = call("choose_frames", "<think>from 10 to 20</think>", start_frame=30, end_frame=60)
LOCATE = call("get_frame_number", time='"00:02"')


@pytest.mark.parametrize(
    ("recipe", "question", "turns", "total"),
    [
        ("videochat_r1_grounding", "when", [f"{THOUGHT}<answer>2 to 10</answer>"], 1 + 0.5),
        ("videochat_r1_grounding", "when", ["<answer>2 to 10</answer>"], 0 + 0.5),
        ("videochat_r1_gqa", "shown", [f"{RIGHT}<glue>[(2, 4)]</glue>"], 1 + 0.5 + 1),
        ("videochat_r1_gqa", "shown", [f"{RIGHT}<glue>late</glue>"], 0 + 0 + 1),
        ("videochat_r1_qa", "which", [RIGHT], 1 + 1),
        ("videochat_r1_quality", "which", [f"{THOUGHT}<answer>A DOG</answer>"], 1 + 1),
        ("time_r1", "when", [f"{THOUGHT}<answer>4 to 8</answer>"], 1 + 2 / 6 * 0.9 * 0.9),
        ("video_r1", "which", [RIGHT], 1 + 1),
        ("longvt", "what", [CROP, f"{THOUGHT}<answer>A dog.</answer>"], 1 + 1 + 0.5),
        ("longvt", "what", [CROP, f"{THOUGHT}<answer>{'a dog ' * 200}</answer>"], 0 + 0 + 0.5),
        ("longvt", "what", [f"{THOUGHT}<answer>a dog</answer>"], 1 + 1 + 0),
        ("videozoomer", "which", [RIGHT], 0.9 + 0.1),
        ("videozoomer", "which", [f"{THOUGHT}<answer>A</answer>"], 0 + 0.1),
        ("frame_thinker", "which", [CHOOSE, RIGHT], 1),
        ("frame_thinker", "which", [LOCATE, CHOOSE, RIGHT], 1 + 0.2),
        ("frame_thinker", "which", [HASTY, RIGHT], 0),
        ("frame_thinker", "which", [LOCATE, CHOOSE, f"{THOUGHT}<answer>A</answer>"], 0),
        ("video_mtr", "shown", [CLIP, RIGHT], 1),
        ("timesearch_r", "which", [RIGHT], 1 + 0.5),
        ("vital_reasoning", "when", [f"{THOUGHT}<answer>2 to 10</answer>"], 0.5 / 0.7 + 1 + 0),
        ("vital_tool", "when", [CLIP, f"{THOUGHT}<answer>2 to 6</answer>"], 1 + 1 + 1),
    ],
)
def test_the_sum_of_a_reply(recipe, question, turns, total):
    assert earned(recipe, question, *turns).total == pytest.approx(total)


def test_without_thoughts_the_form_is_without_them():
    plain = ["team.players.answers.think=false"]
    assert earned("videochat_r1_qa", "which", "<answer>B</answer>", overrides=plain).total == 1 + 1
    assert earned("videochat_r1_qa", "which", RIGHT, overrides=plain).total == 0 + 1
    assert earned("videochat_r1_5", "which", "<answer>B</answer>").total == 1 + 1, "it asks without thoughts anyway"


def test_captions_without_a_judge():
    alone = ["rewards.terms.recall.term.judge=null"]
    told = f"{THOUGHT}<answer>A ball falls\nit rains</answer>"
    assert earned("videochat_r1_caption", "all", told, overrides=alone).total == 1 + 0.5


def test_turns_of_video_mtr_are_paid_where_the_answer_is_right():
    # A turn's form is worth 0.1, the window 0.5, the answer 1; what follows counts 0.95 as much.
    assert earned("video_mtr", "shown", CLIP, RIGHT).turns == pytest.approx((0.1 + 0.5 + 0.95 * 1.1, 1.1))
    wrong = earned("video_mtr", "shown", CLIP, f"{THOUGHT}<answer>A</answer>")
    assert wrong.turns == pytest.approx((0.95 * 0.1, 0.1))

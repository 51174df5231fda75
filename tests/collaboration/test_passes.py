"""Several passes over one question, on the real loop with a policy that goes by the frames it is shown."""

from types import SimpleNamespace

import pytest
from transformers import AutoConfig, AutoProcessor

from m1lite.agents.media_chat import media_chat
from m1lite.agents.native import NativeAgent
from m1lite.agents.text_answers import TextAnswers
from m1lite.collaboration.passes import CluePerception, IterativePerception
from m1lite.engines.scripted import ScriptedEngine
from m1lite.engines.sight import sight_of
from m1lite.evaluation import Evaluator
from m1lite.records import Answer, Sample, Span, Task
from m1lite.rewards.scoring import score_answers
from m1lite.toolbox import Toolbox
from m1lite.video.budget import FrameBudget
from m1lite.video.cache import FrameCache

UNIFORM = [1.0, 3.0, 5.0, 7.0]
CHOICE = {"task": Task.CHOICE, "options": ("a cat", "a dog"), "answer": Answer(text="a dog")}
GROUNDING = {"task": Task.GROUNDING, "answer": Answer(spans=(Span(start=4, end=6),))}


def budget(unit, frames, fps=1.0):
    return FrameBudget(
        fps=fps, max_frames=frames, min_frame_pixels=unit, max_frame_pixels=unit, total_pixels=frames * unit
    )


@pytest.fixture
def watch(vision_bases, clip):
    """Plays one question in passes; gives the episode, and for each pass the seconds shown and the prompt read."""
    directory, frames = vision_bases["qwen2_5_vl"], FrameCache(50_000_000)
    tokenizer = AutoProcessor.from_pretrained(directory).tokenizer
    chat = media_chat(tokenizer, sight_of(AutoConfig.from_pretrained(directory)))
    unit = chat.sight.factor**2

    def play(passes, *lines, **question):
        agent = NativeAgent(
            name="ada", answers=TextAnswers(think=False), chat=chat, frames=frames, view=budget(unit, 4),
        )  # fmt: skip
        said, read = iter(lines), []

        def reply(request):
            read.append(([p.media.timestamps[0] for p in request.media], tokenizer.decode(request.prompt_ids)))
            return [*tokenizer(next(said)).input_ids, chat.end_of_turn_id]

        engine = ScriptedEngine(reply, policies=["ada"], eos_token_ids=[chat.end_of_turn_id])
        evaluator = Evaluator(
            sampler=engine, tools=Toolbox([], frames), score=score_answers, max_rounds=0, run_team=passes(unit)
        )
        sample = Sample(id="q", video=clip, duration=8.0, question="Which?", **question)
        (episode,) = evaluator.play([agent], [sample], temperature=0.0)
        assert next(said, None) is None
        return episode, read

    return play


def test_passes_look_more_densely_where_the_last_answer_said(watch):
    episode, read = watch(
        lambda unit: IterativePerception(
            passes=3, first=TextAnswers(), last=TextAnswers(think=False), view=budget(unit, 8)
        ),
        "<think>?</think><answer>A</answer><glue>[(0, 1)]</glue>",
        "<answer>A</answer><glue>[(4, 6)]</glue>",
        "<answer>B</answer>",
        **CHOICE,
    )
    first, second, third = (seconds for seconds, _ in read)
    assert [len(seconds) for seconds in (first, second, third)] == [8, 8, 8], "one budget for all passes"
    assert sum(seconds < 1 for seconds in second) == 1
    # 8 * 1.5 * 2 / (1.5 * 2 + 6) = 2.67, so 3 of 8 frames lie in a quarter of the video.
    assert sum(4 <= seconds < 6 for seconds in third) == 3
    assert sum(4 <= seconds < 6 for seconds in first) == 2
    prompts = [text for _, text in read]
    assert ["<glue>" in text for text in prompts] == [True, True, False]
    assert ["<think>" in text for text in prompts] == [True, True, False]
    assert all("(0, 1)" not in text for text in prompts), "no pass reads what an earlier one said"
    assert episode.sample.task is Task.CHOICE
    assert episode.answer == Answer(text="a dog")


def test_an_answer_without_a_span_is_followed_by_a_uniform_pass(watch):
    _, read = watch(
        lambda unit: IterativePerception(passes=2),
        "<answer>A</answer><glue>soon</glue>",
        "<answer>B</answer>",
        **CHOICE,
    )
    assert [seconds for seconds, _ in read] == [UNIFORM, UNIFORM]


def test_a_grounding_answer_is_its_own_clue(watch):
    passes = ("<answer>4 to 6</answer>", "<answer>4.5 to 6</answer>")
    episode, read = watch(lambda unit: IterativePerception(passes=2), *passes, **GROUNDING)
    assert sum(4 <= second < 6 for second in read[1][0]) == 1
    assert episode.answer.spans == (Span(start=4.5, end=6.0),)


def test_a_second_pass_sees_the_clue_alone_and_finer(watch):
    _, read = watch(
        lambda unit: CluePerception(fine=budget(4 * unit, 8, fps=2.0)),
        "<answer>A</answer><glue>[(4, 6), (7, 7.5)]</glue>",
        "<answer>B</answer>",
        **CHOICE,
    )
    assert read[0][0] == UNIFORM
    assert read[1][0] == [4.0, 4.5, 5.0, 5.5, 7.0]
    tokens = [text.count("<|image_pad|>") for _, text in read]
    assert tokens == [4 * 1, 5 * 2], "one token a frame, then two"


def test_what_cannot_be_iterated_is_refused():
    with pytest.raises(ValueError, match="`passes` is 1; perception is iterated from 2 passes on"):
        IterativePerception(passes=1)
    with pytest.raises(ValueError, match="`episodes` is 8; several passes go by the clues of one episode"):
        IterativePerception()([], [], None, None, episodes=8)
    with pytest.raises(ValueError, match="ada cannot be shown frames; several passes are for agents that see"):
        CluePerception(fine=budget(784, 4))([], [SimpleNamespace(name="ada")], None, None, episodes=1)

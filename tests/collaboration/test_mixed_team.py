"""Two agents with different tokenizers, templates and spellings in one episode, with real tools on a symbolic scene."""

import json

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from m1lite.agents.agent import Agent
from m1lite.agents.chat import Chat
from m1lite.agents.compact import CompactSpelling
from m1lite.agents.json_spelling import JsonSpelling
from m1lite.collaboration.loop import run
from m1lite.data.demonstrations import Demonstrator
from m1lite.modules.tiny import tiny_tokenizer
from m1lite.records import Answer, Box, Sample, Span, Status, Task
from m1lite.toolbox import Toolbox
from m1lite.toolbox.classical import CLASSICAL_TOOLS
from m1lite.toolbox.perception import Detection

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_chat():
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet, special = pre_tokenizers.ByteLevel.alphabet(), ["<|im_start|>", "<|im_end|>"]
    core.train_from_iterator(
        ["decision plan keep tool args"],
        trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|im_end|>")
    tokenizer.chat_template = TEMPLATE
    return Chat(tokenizer)


def look(video, seconds):
    square = Detection(object="red-square", box=Box(left=3, top=4, right=15, bottom=16), lane="left")
    return [[square] if 9 <= second < 15 else [] for second in seconds]


def test_every_agent_reads_and_writes_in_its_own_spelling():
    ada = Agent(
        name="ada", spelling=CompactSpelling(CLASSICAL_TOOLS), chat=Chat(tiny_tokenizer()), tools=CLASSICAL_TOOLS
    )
    bea = Agent(
        name="bea",
        spelling=JsonSpelling(),
        chat=byte_chat(),
        tools=CLASSICAL_TOOLS,
        role="You are bea.",
        max_context=9000,
    )
    truth = Answer(spans=(Span(start=9, end=15),))
    samples = [
        Sample(id=f"s{n}", video="v", duration=47, task=Task.GROUNDING, question="when red-square", answer=truth)
        for n in range(6)
    ]
    teacher, toolbox = Demonstrator([ada, bea], keep_probability=0.5), Toolbox(CLASSICAL_TOOLS, look=look)
    episodes = run(samples, teacher.players, teacher.sampler, toolbox, episodes=1, seed=0)
    heard = ""
    for episode in episodes:
        assert {turn.status for trajectory in episode.trajectories.values() for turn in trajectory.turns} == {Status.OK}
        assert episode.answer == truth
        bea_turns = episode.trajectories["bea"].turns
        assert [step["tool"] for step in json.loads(bea_turns[0].text)]
        heard += "".join(bea.chat.tokenizer.decode(turn.prompt_ids) for turn in bea_turns)
        for message in episode.messages:
            if message.author == "ada" and message.call is not None:
                line = f"ada's {message.call.tool}({json.dumps(dict(message.call.args))}) found: {message.text}"
                assert line in "".join(bea.chat.tokenizer.decode(turn.prompt_ids) for turn in bea_turns)
    assert "ada plans [" in heard
    assert "ada keeps its plan." in heard
    assert "ada changes the rest of its plan to [" in heard
    assert heard.count("<|im_start|>system\nYou are bea.\nYou belong to a team") == 6
    assert {row.trajectory.agent for row in teacher.demonstrations(episodes)} == {"ada", "bea"}

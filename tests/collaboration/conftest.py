"""A team on the tiny vocabulary, and a script that answers for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from m1lite.agents.agent import Agent
from m1lite.agents.chat import Chat
from m1lite.agents.compact import CompactSpelling
from m1lite.engines.base import Request, Sampling
from m1lite.engines.scripted import ScriptedEngine
from m1lite.modules.tiny import tiny_tokenizer
from m1lite.records import Answer, Sample, Span, Status, Task, ToolCall, ToolResult
from m1lite.toolbox.base import DirectTools
from m1lite.toolbox.classical import CLASSICAL_TOOLS

NAMES = ("ada", "bea", "cyd", "dov")
CHAT = Chat(tiny_tokenizer())
BOT = CHAT.tokenizer.convert_tokens_to_ids("<bot>")


def make_agents(names: Sequence[str] = NAMES, spelling=None, **options) -> list[Agent]:
    spelling = spelling or CompactSpelling(CLASSICAL_TOOLS)
    return [Agent(name=name, spelling=spelling, chat=CHAT, tools=CLASSICAL_TOOLS, **options) for name in names]


def make_samples(count: int = 1) -> list[Sample]:
    truth = Answer(spans=(Span(start=9, end=15),))
    return [
        Sample(id=f"s{n}", video=f"v{n}", duration=47, task=Task.GROUNDING, question="when red-square", answer=truth)
        for n in range(count)
    ]


@dataclass
class Script:
    """Replies by agent and turn number; whoever has no line left keeps, and answers when asked to."""

    lines: Mapping[str, Sequence[str]]
    asked: list[Request] = field(default_factory=list)
    calls: list[tuple[Sample, ToolCall]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tools = DirectTools(self.run_tools)
        self.engine = ScriptedEngine(self.reply, policies=NAMES, eos_token_ids=[CHAT.end_of_turn_id], logprob=-0.5)

    def reply(self, request: Request) -> list[int]:
        self.asked.append(request)
        turn = list(request.prompt_ids).count(BOT) - 1
        lines = self.lines.get(request.policy, ())
        if "answer :" in self.last_message(request):
            text = "red-square 9 15"
        else:
            text = lines[turn] if turn < len(lines) else "none" if turn == 0 else "keep"
        return [*CHAT.encode(text), CHAT.end_of_turn_id]

    @staticmethod
    def last_message(request: Request) -> str:
        return CHAT.tokenizer.decode(list(request.prompt_ids)).rpartition("<user>")[2]

    def run_tools(self, calls: Sequence[tuple[Sample, ToolCall]]) -> list[ToolResult]:
        self.calls.extend(calls)
        results = []
        for sample, call in calls:
            refused = call.args.get("event") == "red-circle"
            error = f"no red-circle in {sample.video}" if refused else None
            status = Status.TOOL_ERROR if refused else Status.OK
            results.append(ToolResult(text="" if refused else "red-square 9 15", error=error, status=status))
        return results


@pytest.fixture
def heard():
    """What an agent was told, turn by turn."""

    def read(trajectory) -> list[str]:
        prompts = [CHAT.tokenizer.decode(turn.prompt_ids) for turn in trajectory.turns]
        return [prompt.rpartition("<user> ")[2].removesuffix(" <bot>") for prompt in prompts]

    return read


@pytest.fixture(scope="session")
def script():
    return Script


@pytest.fixture(scope="session")
def agents():
    return make_agents


@pytest.fixture(scope="session")
def samples():
    return make_samples


@pytest.fixture(scope="session")
def short_replies() -> Sampling:
    return Sampling(max_new_tokens=2)

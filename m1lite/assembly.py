"""Puts a team together: agents with their chats and tools, and one engine per base. No training and no configuration.

What an agent is stands in agents/agent.py, what a base is in modules/bases.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from m1lite.agents.agent import Agent
from m1lite.agents.chat import Chat
from m1lite.agents.first_look import whole_video
from m1lite.agents.media_chat import MediaChat, media_chat
from m1lite.agents.native import NativeAgent
from m1lite.agents.native_calls import describe_tools
from m1lite.engines.base import Engine, EngineGroup, Sampling
from m1lite.engines.sight import sight_of

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from m1lite.agents.agent import Player
    from m1lite.agents.first_look import FirstLook
    from m1lite.agents.native_calls import Answers
    from m1lite.agents.plan import Spelling
    from m1lite.engines.sight import Sight
    from m1lite.engines.supervised import MakeEngine
    from m1lite.modules.bases import Base
    from m1lite.toolbox.base import Tool, Toolbox
    from m1lite.video.budget import FrameBudget


@dataclass(kw_only=True, slots=True, frozen=True)
class Member:
    """What makes one agent differ from the others."""

    base: str
    """Name of the base it is an adapter of."""
    tools: Sequence[str]
    """Names of the tools it may call."""
    role: str = ""
    """Who it is, for the system prompt."""
    full: bool = False
    """Whether all weights of a copy of the base are trained, which an engine of its own serves."""


class MakeAgents(Protocol):
    """Makes all agents of a team; a partial of :func:`text_agents` or :func:`seeing_agents`."""

    def __call__(self, members: Mapping[str, Member], bases: Mapping[str, Base], toolbox: Toolbox) -> Sequence[Player]:
        """Make them, in order."""


def text_agents(
    members: Mapping[str, Member],
    bases: Mapping[str, Base],
    toolbox: Toolbox,
    *,
    spelling: Spelling,
    chat: Callable[[PreTrainedTokenizerBase], Chat] = Chat,
    sampling: Sampling,
    max_context: int,
) -> list[Agent]:
    """Make the agents of a team that reads and plans, in order.

    Args:
        members: agent name to what it is.
        bases: base name to base; its tokenizer becomes the agents' chat.
        toolbox: has every tool that a member names.
        spelling: common to all agents.
        chat: makes a base's chat from its tokenizer.
        sampling: of every reply.
        max_context: tokens of prompt and replies together.

    Raises:
        UnknownToolError: if a member names a tool that the toolbox lacks.
        ValueError: if a member names an unknown base.
    """
    _check_bases(members, bases)
    chats = {name: chat(base.tokenizer) for name, base in bases.items()}
    return [
        Agent(
            name=name,
            spelling=spelling,
            chat=chats[member.base],
            tools=[toolbox[tool] for tool in member.tools],
            sampling=sampling,
            role=member.role,
            max_context=max_context,
        )
        for name, member in members.items()
    ]


def seeing_agents(  # noqa: PLR0913 - one for each part of an agent
    members: Mapping[str, Member],
    bases: Mapping[str, Base],
    toolbox: Toolbox,
    *,
    answers: Answers,
    chat: Callable[[PreTrainedTokenizerBase, Sight], MediaChat] = media_chat,
    look: FirstLook = whole_video,
    manual: Callable[[Sequence[Tool]], str] = describe_tools,
    view: FrameBudget,
    tool_view: FrameBudget,
    sampling: Sampling,
    max_context: int,
) -> list[NativeAgent]:
    """Make the agents of a team that sees frames and calls tools natively, in order.

    Args:
        members: agent name to what it is; an empty role is the agents' own.
        bases: base name to base; each that a member names must see.
        toolbox: has every tool that a member names; its cache of frames is the agents' too.
        answers: asks for answers and reads them.
        chat: makes a base's chat from its tokenizer and how it sees.
        look: which frames they are shown at first.
        manual: words what they can call and how.
        view: how many these may be, and how large.
        tool_view: what the results of one turn may show.
        sampling: of every reply.
        max_context: tokens of prompt, frames and replies together.

    Raises:
        UnknownToolError: if a member names a tool that the toolbox lacks.
        ValueError: if a member names an unknown base or one that does not see, or the toolbox decodes no frames.
    """
    _check_bases(members, bases)
    if toolbox.frames is None:
        raise ValueError("The toolbox has no `frames`, so that nobody can see; give it a `FrameCache`.")
    chats = {}
    for name in dict.fromkeys(member.base for member in members.values()):
        sight = sight_of(bases[name].model.config)
        if sight is None:
            raise ValueError(f"Base {name!r} ({type(bases[name].model).__name__}) does not see; use `text_agents`.")
        chats[name] = chat(bases[name].tokenizer, sight)
    return [
        NativeAgent(
            name=name,
            answers=answers,
            chat=chats[member.base],
            frames=toolbox.frames,
            tools=[toolbox[tool] for tool in member.tools],
            look=look,
            manual=manual,
            view=view,
            tool_view=tool_view,
            sampling=sampling,
            max_context=max_context,
            **({"role": member.role} if member.role else {}),
        )
        for name, member in members.items()
    ]


def _check_bases(members: Mapping[str, Member], bases: Mapping[str, Base]) -> None:
    for name, member in members.items():
        if member.base not in bases:
            raise ValueError(f"Agent {name!r} names base {member.base!r}; there are {sorted(bases)}.")


def make_engines(
    members: Mapping[str, Member], bases: Mapping[str, Base], make: MakeEngine, *, max_context: int
) -> EngineGroup:
    """Build one engine per base that has adapters, and one per member with weights of its own.

    Build them after the process group.

    Args:
        members: agent name to what it is.
        bases: base name to base; the engine loads it by its name or directory.
        make: builds one engine; one that is ``Supervised`` outlives its faults.
        max_context: tokens of prompt and replies together.
    """
    groups: dict[tuple[str, str], list[str]] = {}
    for name, member in members.items():
        groups.setdefault((member.base, name if member.full else ""), []).append(name)
    engines: dict[str, Engine] = {}
    for (base, _), policies in groups.items():
        engine = make(bases[base].name, policies, max_model_len=max_context)
        engines.update(dict.fromkeys(policies, engine))
    return EngineGroup(engines)


class PolicyWeights:
    """Takes what a team publishes of any agent: an adapter goes onto the engine's base, a whole model in its place.

    Args:
        engines: serve the agents; one with a whole model of its own serves nobody else.
    """

    def __init__(self, engines: EngineGroup) -> None:
        self.engines = engines

    def load_adapter(self, policy: str, tensors: Mapping[str, Tensor], config: Mapping[str, Any], version: int) -> None:
        """Serve ``policy`` with these tensors from now on; an empty configuration says that they are a whole model."""
        if config:
            self.engines.load_adapter(policy, tensors, config, version)
        else:
            self.engines.engine_of(policy).load_base(tensors.items(), version)

    def versions(self) -> dict[str, int]:
        """Policy name to the version that it is served under."""
        return self.engines.versions()

"""Agents with their tools and chats, and one engine per base that serves its own agents."""

import pytest

from m1lite.agents.chat import Chat
from m1lite.agents.compact import CompactSpelling
from m1lite.agents.text_answers import TextAnswers
from m1lite.assembly import Member, make_engines, seeing_agents, text_agents
from m1lite.engines.base import EngineError, Request, Sampling
from m1lite.engines.hf import HfEngine
from m1lite.modules.bases import load_base, stored_tiny_base
from m1lite.toolbox import Toolbox, UnknownToolError
from m1lite.toolbox.classical import CLASSICAL_TOOLS
from m1lite.toolbox.clips import clip_tool
from m1lite.video.budget import FrameBudget
from m1lite.video.cache import FrameCache

MEMBERS = {
    "ada": Member(base="q3", tools=["grounding_tool", "rough_browser"]),
    "cyd": Member(base="q2", tools=["spatial_tool"], role="looks closely"),
    "bea": Member(base="q3", tools=[]),
}
SAMPLING = Sampling(temperature=0.7, max_new_tokens=5)


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bases")
    return {
        name: stored_tiny_base(str(folder / name), architecture, hidden_size=32, num_layers=1)
        for name, architecture in (("q3", "qwen3"), ("q2", "qwen2"), ("idle", "qwen2"))
    }


def agents_of(members, bases, toolbox):
    return text_agents(
        members, bases, toolbox, spelling=CompactSpelling(CLASSICAL_TOOLS), sampling=SAMPLING, max_context=99
    )


def test_agents_are_what_their_members_say(bases, world_toolbox):
    agents = agents_of(MEMBERS, bases, world_toolbox)
    assert [agent.name for agent in agents] == ["ada", "cyd", "bea"]
    assert [[tool.name for tool in agent.tools] for agent in agents] == [
        ["grounding_tool", "rough_browser"],
        ["spatial_tool"],
        [],
    ]
    assert [agent.role for agent in agents] == ["", "looks closely", ""]
    assert {agent.sampling for agent in agents} == {SAMPLING}
    assert {agent.max_context for agent in agents} == {99}
    assert len({agent.spelling for agent in agents}) == 1
    ada, cyd, bea = agents
    assert ada.chat is bea.chat
    assert ada.chat.tokenizer is bases["q3"].tokenizer
    assert cyd.chat.tokenizer is bases["q2"].tokenizer


def test_a_chat_is_made_once_per_base(bases, world_toolbox):
    made = []

    def chat(tokenizer):
        made.append(tokenizer)
        return Chat(tokenizer)

    text_agents(
        MEMBERS,
        bases,
        world_toolbox,
        spelling=CompactSpelling(CLASSICAL_TOOLS),
        chat=chat,
        sampling=SAMPLING,
        max_context=99,
    )
    assert made == [base.tokenizer for base in bases.values()]


@pytest.fixture
def seeing(vision_bases, bases):
    """Makes a team that sees on the base of a name."""

    def make(base, toolbox, tools=("video_clip",)):
        found = {"seer": load_base(str(vision_bases["qwen2_5_vl"]), weights=False), "blind": bases["q3"]}
        members = {
            name: Member(base=base, tools=tools, role=role) for name, role in (("ada", ""), ("bea", "You zoom."))
        }
        budget = FrameBudget(max_frames=4)
        return seeing_agents(
            members, found, toolbox, answers=TextAnswers(), view=budget, tool_view=budget, sampling=SAMPLING,
            max_context=99,
        )  # fmt: skip

    return make


def test_agents_that_see_share_a_chat_and_the_tools_frames(seeing):
    toolbox = Toolbox([clip_tool("video_clip", max_frames=3), clip_tool("zoom")], FrameCache(1000))
    ada, bea = seeing("seer", toolbox)
    assert (ada.name, bea.name, bea.role) == ("ada", "bea", "You zoom.")
    assert ada.role != ""
    assert ada.chat is bea.chat
    assert ada.frames is bea.frames is toolbox.frames
    assert [tool.name for tool in ada.tools] == ["video_clip"]
    with pytest.raises(ValueError, match=r"Base 'blind' \(Qwen3ForCausalLM\) does not see; use `text_agents`\."):
        seeing("blind", toolbox)
    with pytest.raises(UnknownToolError, match=r"telescope.*zoom"):
        seeing("seer", toolbox, tools=["telescope"])
    with pytest.raises(ValueError, match=r"The toolbox has no `frames`"):
        seeing("seer", Toolbox([clip_tool("zoom")], look=lambda video, seconds: []))


def test_unknown_bases_and_tools_are_refused_by_name(bases, world_toolbox):
    with pytest.raises(ValueError, match=r"Agent 'eva' names base 'q9'; there are \['idle', 'q2', 'q3'\]\."):
        agents_of({"eva": Member(base="q9", tools=[])}, bases, world_toolbox)
    with pytest.raises(UnknownToolError, match=r"telescope.*grounding_tool"):
        agents_of({"eva": Member(base="q3", tools=["telescope"])}, bases, world_toolbox)


def test_every_base_in_use_gets_one_engine(bases):
    made = []

    def make(model, policies, *, max_model_len):
        made.append((model, list(policies), max_model_len))
        return HfEngine(model, policies, max_model_len=max_model_len)

    group = make_engines(MEMBERS, bases, make, max_context=24)
    assert made == [(bases["q3"].name, ["ada", "bea"], 24), (bases["q2"].name, ["cyd"], 24)]
    assert group.engine_of("ada") is group.engine_of("bea")
    assert group.engine_of("ada") is not group.engine_of("cyd")
    assert group.versions() == {"ada": 0, "bea": 0, "cyd": 0}
    with pytest.raises(EngineError, match="'dov'"):
        group.engine_of("dov")

    def ask(policy):
        return Request(policy=policy, prompt_ids=list(range(6, 12)), sampling=SAMPLING, seed=4)

    together = group.generate([ask("cyd"), ask("ada"), ask("bea")])
    assert together[1].token_ids == together[2].token_ids, "no adapter yet, one base, one seed"
    for policy, name, reply in (("cyd", "q2", together[0]), ("ada", "q3", together[1])):
        own = HfEngine(bases[name].model, [policy], max_model_len=24).generate([ask(policy)])[0]
        assert own.token_ids == reply.token_ids
        assert own.logprobs == pytest.approx(reply.logprobs, abs=1e-5)
    group.close()

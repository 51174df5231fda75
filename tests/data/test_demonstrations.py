"""The cold start's teacher, run through the real loop with the real tools on symbolic scenes."""

from collections import Counter
from pathlib import Path

import pytest

from m1lite.agents.agent import Agent
from m1lite.agents.chat import Chat, pack
from m1lite.agents.compact import CompactSpelling
from m1lite.collaboration.loop import run
from m1lite.collaboration.topology import RandomDag, complete, hidden
from m1lite.data.demonstrations import Demonstrator, read_results
from m1lite.data.worlds import World, WorldSpec
from m1lite.engines.base import Request, Sampling
from m1lite.modules.sft import turns_row
from m1lite.modules.tiny import tiny_tokenizer
from m1lite.records import MessageKind, Status, Task, TurnKind
from m1lite.toolbox import Toolbox
from m1lite.toolbox.classical import CLASSICAL_TOOLS
from m1lite.toolbox.perception import Detection

SPEC = WorldSpec(num_train=12, train_per_task=2, tasks=tuple(Task))
WORLD = World(spec=SPEC, folder=Path("/nowhere"))
SAMPLES = WORLD.split("train")
SCENES = {str(WORLD.video("train", index)): SPEC.scene("train", index) for index in range(SPEC.num_train)}
TOOLS = {tool.name: tool for tool in CLASSICAL_TOOLS}
TEAM = {
    "ada": ("grounding_tool", "video_retrieval", "global_sampling", "time_step_retrieval"),
    "bea": ("rough_browser", "spatial_tool", "image_retrieval", "time_step_retrieval"),
    "cyd": ("grounding_tool", "fine_browser", "image_retrieval", "global_sampling"),
    "dov": ("rough_browser", "spatial_tool", "video_retrieval", "fine_browser"),
}


def look(video, seconds):
    found = []
    for second in seconds:
        there = sorted((e for e in SCENES[video].events if e.start <= second < e.end), key=lambda e: e.left)
        found.append([Detection(object=e.object, box=e.box_at(second), lane=e.lane) for e in there])
    return found


@pytest.fixture(scope="module")
def toolbox():
    return Toolbox(CLASSICAL_TOOLS, look=look)


@pytest.fixture(scope="module")
def agents():
    chat, spelling = Chat(tiny_tokenizer()), CompactSpelling(CLASSICAL_TOOLS)
    return [
        Agent(name=name, spelling=spelling, chat=chat, tools=[TOOLS[tool] for tool in tools])
        for name, tools in TEAM.items()
    ]


def play(teacher, toolbox, samples=SAMPLES, episodes=1, seed=0, topology=complete):
    return run(samples, teacher.players, teacher.sampler, toolbox, episodes=episodes, seed=seed, topology=topology)


def test_every_reply_is_valid_and_every_word_is_known(agents, toolbox):
    episodes = play(Demonstrator(agents), toolbox, episodes=3, topology=RandomDag(0.5))
    unknown = agents[0].chat.tokenizer.unk_token_id
    kinds = Counter()
    for episode in episodes:
        assert not [m for m in episode.messages if m.status is not Status.OK]
        for name, trajectory in episode.trajectories.items():
            assert trajectory.answer == episode.sample.answer
            assert {call.tool for call in trajectory.calls} <= set(TEAM[name])
            for turn in trajectory.turns:
                assert turn.reply_ids[-1] == agents[0].chat.end_of_turn_id
                assert unknown not in [*turn.prompt_ids, *turn.reply_ids]
                kinds[turn.kind, turn.text == "keep"] += 1
    kept, revised = kinds[TurnKind.COMMUNICATE, True], kinds[TurnKind.COMMUNICATE, False]
    assert kept / (kept + revised) == pytest.approx(0.8, abs=0.04)


def spelled(sample, text):
    """An independent reading: does this result alone, read by a person, give the answer (grounding and counting)?"""
    words = text.split()
    if sample.task is Task.COUNTING:
        return words[0] == "seen" and int(words[1]) == sample.answer.number
    span = sample.answer.spans[0]
    places = [place for place, word in enumerate(words) if word == sample.question.split()[1]]
    return any(words[place + 1 : place + 3] == [f"{span.start:.0f}", f"{span.end:.0f}"] for place in places)


@pytest.mark.parametrize("topology", [hidden, complete])
def test_answers_are_in_the_loss_where_their_reader_was_shown_them(agents, toolbox, topology):
    teacher = Demonstrator(agents, answer_weight=3.0)
    episodes = play(teacher, toolbox, episodes=4, topology=topology)
    demonstrations = teacher.demonstrations(episodes)
    assert len(demonstrations) == 4 * len(episodes)
    pairs = [(episode, name) for episode in episodes for name in episode.trajectories]
    seen = Counter()
    for (episode, name), demonstration in zip(pairs, demonstrations, strict=True):
        assert demonstration.trajectory is episode.trajectories[name]
        *others, answer = demonstration.weights
        assert others == [1.0] * len(others)
        if episode.sample.task in (Task.GROUNDING, Task.COUNTING):
            prompts = "".join(
                f" {agents[0].chat.tokenizer.decode(turn.prompt_ids)} " for turn in demonstration.trajectory.turns
            )
            results = [line.split(" = ")[1].split(" <end>")[0] for line in prompts.split(" | ") if " = " in line]
            assert sorted(results) == sorted(read_results(episode, name)), "it reads all of them, and no others"
            assert answer == (3.0 if any(spelled(episode.sample, text) for text in results) else 0.0)
            seen[answer] += 1
    assert min(seen[0.0], seen[3.0]) > 5


def test_drills_teach_nothing_but_the_answer(agents, toolbox):
    teacher = Demonstrator(agents, drills=True)
    episodes = play(teacher, toolbox, topology=complete)
    drills = teacher.demonstrations(episodes)
    assert len(drills) > 0.95 * 4 * len(episodes), "with all peers visible nearly everyone is shown the answer"
    assert {drill.task for drill in drills} == set(Task)
    for drill in drills:
        assert drill.weights == [0.0] * (len(drill.weights) - 1) + [1.0]
        row = turns_row(drill.trajectory.turns, drill.weights)
        answer = drill.trajectory.turns[-1].reply_ids
        assert [token for token, weight in zip(row.input_ids, row.weights, strict=True) if weight] == answer
    alone = teacher.demonstrations(play(teacher, toolbox, topology=hidden))
    assert {drill.trajectory.agent for drill in alone if drill.task is Task.COUNTING} == {"bea", "dov"}


def test_rows_are_what_pack_lays_out(agents, toolbox):
    teacher = Demonstrator(agents)
    demonstrations = [d for d in teacher.demonstrations(play(teacher, toolbox)) if d.trajectory.agent == "ada"]
    batch = pack([d.trajectory for d in demonstrations], [d.weights for d in demonstrations], pad_id=0, temperature=1.0)
    for row, demonstration in enumerate(demonstrations):
        learnt = turns_row(demonstration.trajectory.turns, demonstration.weights)
        length = int(batch.attention_mask[row].sum())
        assert batch.input_ids[row, :length].tolist() == learnt.input_ids
        assert batch.advantages[row, :length].tolist() == learnt.weights
        assert any(learnt.weights)


def test_demonstrations_depend_on_the_seed_alone(agents, toolbox):
    def rows(samples, seed):
        teacher = Demonstrator(agents)
        episodes = play(teacher, toolbox, samples, seed=seed, topology=RandomDag(0.5))
        return [
            (d.trajectory.agent, turns_row(d.trajectory.turns, d.weights)) for d in teacher.demonstrations(episodes)
        ]

    together = rows(SAMPLES[:8], 3)
    assert together == [row for sample in SAMPLES[:8] for row in rows([sample], 3)]
    assert together != rows(SAMPLES[:8], 4)


def test_a_revision_replaces_the_rest(agents, toolbox):
    teacher = Demonstrator(agents, keep_probability=0.0)
    episodes = play(teacher, toolbox, SAMPLES[:6])
    decisions = [m for episode in episodes for m in episode.messages if m.kind is MessageKind.DECISION]
    assert decisions
    assert all(m.text.startswith("revise ") and 1 <= len(m.plan.steps) <= 2 for m in decisions)


def test_requests_of_other_teams_are_refused(agents):
    request = Request(policy="ada", prompt_ids=[1], sampling=Sampling(), seed=4)
    with pytest.raises(ValueError, match="A request of 'ada' is not of this team; run the loop on its `players`"):
        Demonstrator(agents).generate([request])


@pytest.mark.parametrize(
    ("options", "said"),
    [({"keep_probability": 1.5}, "`keep_probability` is 1.5"), ({"answer_weight": 0}, "`answer_weight` is 0")],
)
def test_impossible_settings_are_refused(options, said, agents):
    with pytest.raises(ValueError, match=said):
        Demonstrator(agents, **options)

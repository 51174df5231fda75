"""Rewards per turn and per term on their way to the tokens, a KL penalty in the reward, and statistics over ranks."""

import json
from functools import partial

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from m1lite.callbacks.learning import Rollout, advantages_over_ranks
from m1lite.callbacks.penalty import KlInReward
from m1lite.modules.rows import take_rows
from m1lite.records import Answer, Episode, Sample, Task
from m1lite.rewards.table import RewardTable, terms, turns
from m1lite.rl.advantages import gdpo_advantages, group_advantages, reinforce_pp
from m1lite.rl.turns import turn_advantages

NAN = float("nan")


def test_rewards_per_turn_reach_the_tokens_of_their_turn(campaign):
    def by_length(sample, episode, trajectory, total):
        return tuple(float(sum(turn.reply_ids) % 7) for turn in trajectory.turns)

    run = campaign()
    run.rollout.reward = partial(run.reward, turns=by_length)
    run.rollout.table = RewardTable(own=turns)
    run.rollout.advantage = partial(turn_advantages, advantage=group_advantages)
    batch = run.fit(steps=1).batches[0]
    for agent in ("ada", "bea", "cyd"):
        for row, episode in enumerate(batch.episodes):
            group = batch.episodes[row // 3 * 3 : row // 3 * 3 + 3]
            expected = []
            for place, turn in enumerate(episode.trajectories[agent].turns):
                peers = [e.trajectories[agent].turns for e in group if len(e.trajectories[agent].turns) > place]
                values = [sum(peer[place].reply_ids) % 7 for peer in peers]
                advantage = sum(turn.reply_ids) % 7 - sum(values) / len(values)
                expected += [advantage] * len(turn.reply_ids)
            tokens = batch.tokens[agent]
            assert tokens.advantages[row][tokens.loss_mask[row]].tolist() == pytest.approx(expected, abs=1e-5)


def test_terms_can_be_normalised_one_by_one(campaign):
    run = campaign()
    run.rollout.table, run.rollout.advantage = RewardTable(own=terms), gdpo_advantages
    log = run.fit(steps=1)
    batch = log.batches[0]
    group = torch.tensor([0, 0, 0, 1, 1, 1])
    shares = torch.tensor([list(row["bea"].shares.values()) for row in batch.rewards])
    expected = gdpo_advantages(shares, group)
    for row, advantage in enumerate(expected.tolist()):
        found = batch.tokens["bea"].advantages[row][batch.tokens["bea"].loss_mask[row]]
        assert found.tolist() == pytest.approx([advantage] * len(found), abs=1e-5)
    totals = [row["bea"].total for row in batch.rewards]
    assert log.steps[0]["bea/reward"] == pytest.approx(sum(totals) / len(totals), abs=1e-5)


def test_the_penalty_is_the_divergence_of_what_was_written(campaign):
    run = campaign(learning_rate=0.05)
    batch = run.fit(steps=2).batches[1].tokens["ada"]
    team, batch = run.team, take_rows(batch, range(5), width=batch.input_ids.shape[1])
    rewards = torch.tensor([1.0, 0.0, 2.0, NAN, 0.5])
    found = KlInReward(beta=0.5, micro_batch_tokens=30)(team, batch, rewards)
    gap = (batch.sampled_logprobs - team.reference_logprobs("ada", batch)) * batch.loss_mask
    torch.testing.assert_close(found, rewards - 0.5 * gap.sum(1), equal_nan=True)
    with pytest.raises(ValueError, match=r"shape \(5, 2\) meet `by_turn=False`"):
        KlInReward(beta=0.5)(team, batch, rewards[:, None].expand(5, 2))
    with pytest.raises(ValueError, match="`beta` is -1"):
        KlInReward(beta=-1)


def test_a_penalty_changes_the_advantages_of_a_run(campaign):
    plain, penalised = campaign(), campaign()
    penalised.rollout.penalty = KlInReward(beta=5.0)
    batches = [run.fit(steps=2).batches for run in (plain, penalised)]
    # At the first step the policy is the reference: all that is taken off is rounding, of which 1e-4 beside the std
    # lets a little through in a group of equal rewards.
    first = [batch[0].tokens["ada"].advantages for batch in batches]
    torch.testing.assert_close(*first, atol=0.1, rtol=0)
    later = [batch[1].tokens["ada"] for batch in batches]
    assert not torch.equal(later[0].advantages, later[1].advantages)


def test_every_turn_pays_for_what_it_wrote(campaign):
    def by_length(sample, episode, trajectory, total):
        return tuple(float(sum(turn.reply_ids) % 7) for turn in trajectory.turns)

    run = campaign(learning_rate=0.05)
    run.rollout.reward = partial(run.reward, turns=by_length)
    run.rollout.table = RewardTable(own=turns)
    run.rollout.advantage = partial(turn_advantages, advantage=lambda rewards, group: rewards)
    run.rollout.penalty = KlInReward(beta=0.5, by_turn=True)
    references = {}
    scored = run.team.reference_logprobs

    def noted(agent, part):
        found = scored(agent, part)
        for ids, row in zip(part.input_ids.tolist(), found.tolist(), strict=True):
            references[agent, tuple(ids)] = row
        return found

    run.team.reference_logprobs = noted
    batch = run.fit(steps=2).batches[1]
    charged = 0.0
    for agent in ("ada", "bea", "cyd"):
        tokens = batch.tokens[agent]
        for row, episode in enumerate(batch.episodes):
            start, own = 0, []
            ids = tokens.input_ids[row].tolist()
            reference = next(
                found for (name, key), found in references.items() if name == agent and list(key) == ids[: len(key)]
            )
            for turn in episode.trajectories[agent].turns:
                places = range(start + len(turn.prompt_ids), start + len(turn.prompt_ids) + len(turn.reply_ids))
                start = places.stop
                gap = sum(logprob - reference[place] for logprob, place in zip(turn.logprobs, places, strict=True))
                own += [sum(turn.reply_ids) % 7 - 0.5 * gap] * len(turn.reply_ids)
                charged += abs(gap)
            assert tokens.advantages[row][tokens.loss_mask[row]].tolist() == pytest.approx(own, abs=1e-4)
    assert charged > 0.1, "at the second step the policy must differ from its reference"


def rollout(*rewards):
    asked = {"video": "none.mp4", "duration": 9.0, "task": Task.COUNTING, "question": "?", "answer": Answer(number=1)}
    episodes = [Episode(sample=Sample(id=f"q{n // 2}", **asked), index=n % 2, seed=0, visible={}) for n in range(4)]
    return Rollout(samples=[], episodes=episodes, breakdowns=[{}] * 4, rewards=torch.tensor(rewards))


def test_a_sample_teaches_if_any_agents_rewards_differ():
    assert rollout([1.0, 2.0], [1.0, 2.0], [1.0, NAN], [1.0, 2.0]).teaching() == []
    assert rollout([1.0, 2.0], [1.0, 3.0], [1.0, NAN], [1.0, 2.0]).teaching() == ["q0"]
    per_turn = rollout([[1.0, 2.0]], [[1.0, 2.0]], [[1.0, NAN]], [[0.0, NAN]])
    assert per_turn.teaching() == ["q1"]
    assert per_turn.sums.tolist() == [[3.0], [3.0], [1.0], [0.0]]


def share(rank, address, folder):
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=3)
    parts = [torch.tensor([[1.0], [3.0], [NAN]]), torch.zeros(0, 1), torch.tensor([[4.0], [4.0]])]
    group = [torch.tensor([0, 0, 1]), torch.zeros(0, dtype=torch.long), torch.tensor([0, 0])]
    found = [advantages_over_ranks(parts[rank], group[rank], reinforce_pp).tolist()]
    per_turn = [part[:, :, None].expand(-1, -1, width) for part, width in zip(parts, (2, 0, 1), strict=True)]
    rule = partial(turn_advantages, advantage=group_advantages)
    found.append(advantages_over_ranks(per_turn[rank], group[rank], rule).tolist())
    (folder / f"{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


def test_batch_statistics_are_those_of_all_ranks(tmp_path):
    mp.start_processes(share, args=(f"file://{tmp_path / 'meet'}", tmp_path), nprocs=3, start_method="spawn")
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(3)]
    whole = reinforce_pp(torch.tensor([1.0, 3.0, NAN, 4.0, 4.0]), torch.tensor([0, 0, 1, 2, 2])).tolist()
    assert [row[0] for row in found[0][0]] == pytest.approx(whole[:3])
    assert found[1] == [[], []]
    assert [row[0] for row in found[2][0]] == pytest.approx(whole[3:])
    assert found[0][1] == [[[-1.0, -1.0]], [[1.0, 1.0]], [[0.0, 0.0]]]
    assert found[2][1] == [[[0.0, 0.0]], [[0.0, 0.0]]]

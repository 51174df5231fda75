"""Does a method learn? A toy team task with a known optimum, through the module, objective and advantages of a run.

    python -m benchmarks.toy_team --seed 0

Three agents answer one of four questions with two tokens each: which of six clues to look at, and one of six answers.
An agent is right where both are the question's own, and the team where two agents are. The optimum is 1; acting at
random, an agent is right once in 36 times, and the team twice in a thousand. Agents are tables of logits, one row per
question and clue. Updates, objectives, advantages and credit are those of a run with ``rl=<method>``.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from typing import Any

import lightning.pytorch as pl
import torch
from hydra.utils import instantiate
from torch import Tensor, nn

from m1lite.configuration import compose
from m1lite.modules.batch import RolloutBatch
from m1lite.modules.marl import MarlModule
from m1lite.records import TokenBatch
from m1lite.rl.advantages import per_agent

AGENTS = ("ada", "bea", "cyd")
METHODS = ("grpo", "dr_grpo", "dapo", "gspo", "cispo", "dgrpo")
QUESTIONS, ANSWERS, EPISODES, STEPS, RATE = 4, 6, 8, 60, 0.08
TARGET = 0.95
CLUE = torch.tensor([2, 0, 3, 1])
"""Which clue belongs to each question."""
TRUTH = torch.tensor([5, 1, 4, 0])


class ToyTeam(nn.Module):
    """Agents without a language model: the logits of a token depend on the question and the token before."""

    def __init__(self) -> None:
        super().__init__()
        self.agents = list(AGENTS)
        self.tables = nn.ParameterDict(
            {agent: nn.Parameter(torch.zeros(QUESTIONS * (1 + ANSWERS), ANSWERS)) for agent in AGENTS}
        )

    def adapter_parameters(self, agent: str) -> dict[str, nn.Parameter]:
        """Return the agent's only parameter."""
        return {"table": self.tables[agent]}

    def scores(self, agent: str, ids: Tensor) -> Tensor:
        """Return log-probs ``(B, 2, V)`` of both tokens, given the ids (question, clue, answer) ``(B, 3)``."""
        rows = torch.stack([ids[:, 0], QUESTIONS * (1 + ids[:, 1]) + ids[:, 0]], dim=1)
        return self.tables[agent][rows].log_softmax(-1)

    def logprobs(self, agent: str, batch: TokenBatch) -> tuple[Tensor, Tensor]:
        """Score the sampled tokens; as the real team does."""
        scores = self.scores(agent, batch.input_ids)
        chosen = scores.gather(-1, batch.input_ids[:, 1:, None])[..., 0]
        entropy = -(scores.exp() * scores).sum(-1).detach()
        return tuple(nn.functional.pad(values, (1, 0)) * batch.loss_mask for values in (chosen, entropy))

    @torch.no_grad()
    def reference_logprobs(self, agent: str, batch: TokenBatch) -> Tensor:
        """Score under the uniform policy, which the tables start from."""
        return -torch.log(torch.tensor(float(ANSWERS))) * batch.loss_mask

    @torch.no_grad()
    def act(self, questions: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Draw each agent's ids ``(E, 3)``: question, clue, answer."""
        found = {}
        for agent in AGENTS:
            ids = torch.stack([questions, torch.zeros_like(questions), torch.zeros_like(questions)], dim=1)
            for place in range(2):
                probs = self.scores(agent, ids)[:, place].exp()
                ids[:, place + 1] = torch.multinomial(probs, 1, generator=generator)[:, 0]
            found[agent] = ids
        return found


def right(ids: Tensor) -> Tensor:
    """Whether the clue and the answer are the question's, ``(E,)`` of 0 and 1."""
    return ((ids[:, 1] == CLUE[ids[:, 0]]) & (ids[:, 2] == TRUTH[ids[:, 0]])).float()


def team_right(acted: dict[str, Tensor]) -> Tensor:
    """Whether most agents are right, ``(E,)`` of 0 and 1."""
    return (sum(right(ids) for ids in acted.values()) >= 2).float()


def expected_score(team: ToyTeam) -> float:
    """Return the probability that the vote is right, over questions: exact, without sampling."""
    questions = torch.arange(QUESTIONS)
    ids = torch.stack([questions, CLUE[questions], TRUTH[questions]], dim=1)
    with torch.no_grad():
        chances = [team.scores(agent, ids).gather(-1, ids[:, 1:, None])[..., 0].sum(1).exp() for agent in AGENTS]
    a, b, c = chances
    return (a * b * c + a * b * (1 - c) + a * (1 - b) * c + (1 - a) * b * c).mean().item()


class Rollouts:
    """A loader that plays: one batch per step, from the current tables."""

    def __init__(self, team: ToyTeam, module: MarlModule, rules: Any, *, steps: int, seed: int) -> None:
        self.team, self.module, self.steps = team, module, steps
        self.credit, self.advantage = instantiate(rules.credit), instantiate(rules.advantage)
        self.generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Any:
        for _ in range(self.steps):
            yield self.batch()

    def batch(self) -> RolloutBatch:
        """Play every question ``EPISODES`` times."""
        group = torch.arange(QUESTIONS).repeat_interleave(EPISODES)
        acted = self.team.act(group, self.generator)
        own = torch.stack([right(ids) + (ids[:, 1] == CLUE[ids[:, 0]]) for ids in acted.values()], dim=1)
        advantages = per_agent(self.credit(own, team_right(acted)), group, self.advantage)  # (E, A)
        batch = RolloutBatch([])
        batch.tokens = {agent: self.tokens(agent, acted[agent], advantages[:, n]) for n, agent in enumerate(AGENTS)}
        return batch

    def tokens(self, agent: str, ids: Tensor, advantages: Tensor) -> TokenBatch:
        """Lay one agent's episodes out."""
        loss_mask = torch.tensor([False, True, True]).expand(len(ids), 3)
        batch = TokenBatch(
            agent=agent,
            input_ids=ids,
            attention_mask=torch.ones_like(loss_mask),
            loss_mask=loss_mask,
            sampled_logprobs=torch.zeros(ids.shape),
            advantages=advantages[:, None] * loss_mask,
            temperature=1.0,
            policy_version=self.module.versions[agent],
        )
        with torch.no_grad():
            batch.sampled_logprobs = self.team.logprobs(agent, batch)[0]
        return batch


class Curve(pl.Callback):
    """Keeps the expected score after every step."""

    def __init__(self, team: ToyTeam) -> None:
        self.team, self.scores = team, [expected_score(team)]

    def on_train_batch_end(self, *_: Any) -> None:
        """Score the tables as they are now."""
        self.scores.append(expected_score(self.team))


def learn(method: str, *, seed: int = 0, steps: int = STEPS) -> list[float]:
    """Train a team by the configuration of a method, and return its expected score before and after every step."""
    config = compose([f"rl={method}", "output_dir=unused"])
    team = ToyTeam()
    module = MarlModule(
        team,  # type: ignore[arg-type]
        optimizer=partial(torch.optim.Adam, lr=RATE),
        objective=instantiate(config.rl.objective),
        update_epochs=2,
    )
    curve = Curve(team)
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=steps,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[curve],
    )
    trainer.fit(module, Rollouts(team, module, config.rl, steps=steps, seed=seed))
    return curve.scores


def report(curves: dict[str, list[float]]) -> list[str]:
    """Write every curve as numbers, and one line per figure."""
    lines = ["step      " + "".join(f"{name:>10}" for name in curves)]
    lines += [
        f"{step:<10}" + "".join(f"{scores[step]:>10.3f}" for scores in curves.values())
        for step in range(0, STEPS + 1, 5)
    ]
    lines += [f"figure toy_team_{name} {scores[-1]:.3f} score target >= {TARGET}" for name, scores in curves.items()]
    return lines


def main() -> None:
    """Train by every method, print the curves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--methods", nargs="*", default=list(METHODS), help="names in conf/rl")
    arguments = parser.parse_args()
    started = time.perf_counter()
    curves = {method: learn(method, seed=arguments.seed) for method in arguments.methods}
    print("\n".join(report(curves)))
    print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()

"""Small real parts that several folders' tests share: two tiny bases, a team on them, and batches of random tokens."""

import torch

from m1lite.modules.bases import Base
from m1lite.modules.team import Team
from m1lite.modules.tiny import tiny_base
from m1lite.records import TokenBatch

MEMBERS = {"ada": "qwen3", "bea": "qwen3", "cyd": "qwen2"}


def make_bases(*, gradient_checkpointing=False):
    """Two bases of width 32, always of the same random weights."""
    bases = {}
    for number, architecture in enumerate(("qwen3", "qwen2")):
        model, tokenizer = tiny_base(architecture, hidden_size=32, num_layers=2, seed=number)
        bases[architecture] = Base(
            model=model, tokenizer=tokenizer, name="", gradient_checkpointing=gradient_checkpointing
        )
    return bases


def make_team(members=None, *, bases=None, gradient_checkpointing=False, stir=0.0, rank=4, **kwargs):
    """A team on the two bases; ``stir`` gives the B matrices random values, which start at zero."""
    bases = bases or make_bases(gradient_checkpointing=gradient_checkpointing)
    team = Team(bases, members or MEMBERS, rank=rank, alpha=2 * rank, **kwargs)
    if stir:
        generator = torch.Generator().manual_seed(99)
        with torch.no_grad():
            for agent in team.agents:
                for parameter in team.adapter_parameters(agent).values():
                    parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=stir)
    return team


def make_batch(agent="ada", rows=5, width=24, *, seed=0, temperature=1.0, version=0):
    """Random rows of uneven length; the first third of each row is read, the rest written or read at random."""
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(width // 2, width + 1, (rows,), generator=draw)
    place = torch.arange(width)
    attention = place < lengths[:, None]
    loss = attention & (place >= width // 3) & (torch.rand(rows, width, generator=draw) < 0.6)
    return TokenBatch(
        agent=agent,
        input_ids=torch.randint(6, 100, (rows, width), generator=draw) * attention,
        attention_mask=attention,
        loss_mask=loss,
        sampled_logprobs=-torch.rand(rows, width, generator=draw) * loss,
        advantages=torch.randn(rows, width, generator=draw) * loss,
        temperature=temperature,
        policy_version=version,
    )

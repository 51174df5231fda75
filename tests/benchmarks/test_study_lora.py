import pytest
from omegaconf import OmegaConf

from benchmarks.study_lora import RATES, configured, read_rates
from m1lite.configuration import ConfigError


def make_config(engine):
    return OmegaConf.create(
        {
            "team": {
                "agents": {"ada": {"base": "qwen3"}, "cyd": {"base": "qwen2"}},
                "adapters": {"rank": 16, "alpha": 32},
            },
            "engine": {"_target_": engine},
            "marl": {"optimizer": {"_target_": "torch.optim.AdamW", "lr": 1e-3, "weight_decay": 0.0}},
        }
    )


def test_a_lora_variant_differs_from_the_run_by_rank_and_rate():
    given = make_config("m1lite.engines.vllm.VllmEngine")
    found = configured(given, "lora32", RATES)
    assert found.team.adapters == {"rank": 32, "alpha": 64}
    assert found.engine.max_lora_rank == 32
    assert found.marl.optimizer.cyd == {"_target_": "torch.optim.AdamW", "lr": 2e-3, "weight_decay": 0.0}
    assert found.team.agents == given.team.agents
    assert given == make_config("m1lite.engines.vllm.VllmEngine"), "the run's own configuration must stay"


def test_full_copies_are_agents_of_the_run_with_the_rate_of_their_architecture():
    given = make_config("m1lite.engines.vllm.VllmEngine")
    found = configured(given, "full", read_rates(["full.qwen2=3e-4"]))
    assert {name: (member.base, member.full) for name, member in found.team.agents.items()} == {
        "ada": ("qwen3", True),
        "cyd": ("qwen2", True),
    }
    assert {name: optimizer.lr for name, optimizer in found.marl.optimizer.items()} == {"ada": 1e-3, "cyd": 3e-4}
    assert found.engine.max_adapters == 0
    assert found.marl.schedule._target_ == "m1lite.modules.schedules.constant"
    assert configured(make_config("m1lite.engines.hf.HfEngine"), "full", RATES).engine.keys() == {"_target_"}


def test_a_rate_that_is_missing_or_unreadable_is_named():
    config = make_config("m1lite.engines.hf.HfEngine")
    with pytest.raises(ConfigError, match=r"no learning rate for 'full.qwen2'; give one with --lr full.qwen2="):
        configured(config, "full", {"full.qwen3": 1e-3})
    with pytest.raises(ConfigError, match="`--lr lora8=fast` cannot be read"):
        read_rates(["lora8=fast"])

"""The same training steps by TRL 1.16.0's ``GRPOTrainer``: prompts, group size, lengths, adapter, optimiser and KL."""

from __future__ import annotations

import tempfile
import warnings
from typing import Any

from benchmarks.train_parts import ALPHA, BETA, LAYERS, RANK, RATE, Clock, Setting, share_of_even, write_prompts


def train(model: str, *, setting: Setting, steps: int) -> Clock:
    """Train one agent on ``setting.questions`` prompts per step.

    Args:
        model: directory of the base.
        setting: sizes.
        steps: to train.

    Raises:
        ImportError: if TRL is not installed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of vLLM versions, which play no part
        from trl import GRPOConfig, GRPOTrainer
    from datasets import Dataset
    from datasets.table import InMemoryTable
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, TrainerCallback

    clock = Clock()

    class Ends(TrainerCallback):
        """Notes when steps end."""

        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.tick()

    def even(completion_ids: list[list[int]], **_: Any) -> list[float]:
        return [share_of_even(ids) for ids in completion_ids]

    prompts = InMemoryTable.from_pydict({"prompt": write_prompts(setting.questions * 4, setting)})
    rows = setting.questions * setting.episodes
    with tempfile.TemporaryDirectory() as folder:
        config = GRPOConfig(
            output_dir=folder,
            max_steps=steps,
            per_device_train_batch_size=rows,
            gradient_accumulation_steps=1,
            num_generations=setting.episodes,
            max_completion_length=setting.reply_tokens,
            temperature=1.0,
            top_p=1.0,
            top_k=0,
            beta=BETA,
            loss_type="grpo",
            scale_rewards="group",
            learning_rate=RATE,
            lr_scheduler_type="constant",
            weight_decay=0.0,
            max_grad_norm=1.0,
            optim="adamw_torch",
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            report_to=[],
            save_strategy="no",
            logging_steps=1,
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        trainer = GRPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(model),
            reward_funcs=even,
            args=config,
            train_dataset=Dataset(prompts, fingerprint="prompts"),  # one computed from pickles fails with pyarrow 26
            processing_class=PreTrainedTokenizerFast.from_pretrained(model, padding_side="left"),
            peft_config=LoraConfig(
                r=RANK, lora_alpha=ALPHA, target_modules=list(LAYERS), lora_dropout=0.0, task_type="CAUSAL_LM"
            ),
            callbacks=[Ends()],
        )
        trainer.train()
    return clock

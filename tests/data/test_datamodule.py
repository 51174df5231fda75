"""Batches are a function of (seed, step), shares of ranks add up, and Lightning resumes at the very next batch."""

from itertools import chain

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from m1lite.data.datamodule import Files, SampleDataModule, StepLoader, in_order, step_indices
from m1lite.records import Answer, Sample, Task


def sample(name: str) -> Sample:
    return Sample(
        id=name, video="v.mp4", duration=8, task=Task.COUNTING, question="count objects", answer=Answer(number=2)
    )


SPLITS = {
    "train": [sample(f"train-{i}") for i in range(11)],
    "val": [sample(f"val-{i}") for i in range(5)],
    "test": [sample("test-0")],
}


SOURCE = Files(read=lambda root, split: SPLITS[split], root="")


class Batch:
    """The smallest thing that Lightning carries to a device."""

    def __init__(self, samples: list[Sample]) -> None:
        self.samples = samples

    def to(self, *_, **__) -> "Batch":
        return self


class Recorder(LightningModule):
    """Writes down the ids of every batch that it is trained on."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.seen = []

    def training_step(self, batch, _):
        self.seen.append([sample.id for sample in batch.samples])
        return self.layer(torch.ones(1)).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(folder, max_steps, ckpt_path=None, batch_size=3):
    module, saved = Recorder(), ModelCheckpoint(folder, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    data = SampleDataModule(SOURCE, Batch, batch_size=batch_size, seed=5)
    trainer = Trainer(
        accelerator="cpu", max_steps=max_steps, callbacks=[saved], logger=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
    )  # fmt: skip
    trainer.fit(module, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    return module.seen


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("stop", [2, 3, 4], ids=["within a pass", "at its end", "after its end"])
def test_lightning_resumes_at_the_next_batch(tmp_path, stop):
    whole = fit(tmp_path / "whole", 8)
    assert whole == [[SPLITS["train"][i].id for i in step_indices(11, 3, seed=5, step=s)] for s in range(8)]
    first = fit(tmp_path / "first", stop)
    rest = fit(tmp_path / "rest", 8, ckpt_path=tmp_path / "first" / f"step={stop}.ckpt")
    assert first + rest == whole


@pytest.mark.parametrize(("num_samples", "batch_size"), [(11, 3), (12, 3), (3, 3), (7, 1)])
def test_a_pass_takes_every_sample_at_most_once(num_samples, batch_size):
    steps = num_samples // batch_size
    for start in (0, steps, 5 * steps):
        taken = list(chain(*(step_indices(num_samples, batch_size, seed=1, step=start + i) for i in range(steps))))
        assert len(taken) == len(set(taken)) == steps * batch_size
        assert set(taken) <= set(range(num_samples))


def test_passes_and_seeds_have_orders_of_their_own():
    orders = {tuple(step_indices(50, 50, seed=seed, step=step)) for seed in range(4) for step in range(4)}
    assert len(orders) == 16


def test_every_sample_is_reached_over_the_passes():
    taken = set(chain(*(step_indices(11, 3, seed=0, step=step) for step in range(30))))
    assert taken == set(range(11))


@pytest.mark.parametrize("batch_size", [0, 12])
def test_impossible_batch_size_is_refused_before_the_first_step(batch_size):
    with pytest.raises(ValueError, match=f"`batch_size` is {batch_size}; it must be from 1 to the 11 samples"):
        StepLoader(SPLITS["train"], batch_size, list, seed=0)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_ranks_share_a_step_without_overlap(world_size):
    alone = StepLoader(SPLITS["train"], 5, list, seed=3)
    ranks = [StepLoader(SPLITS["train"], 5, list, seed=3, rank=r, world_size=world_size) for r in range(world_size)]
    for step in range(6):
        shares = [loader.batch(step) for loader in ranks]
        ids = [one.id for one in chain(*shares)]
        assert sorted(ids) == sorted(one.id for one in alone.batch(step))
        assert len(set(ids)) == 5
        assert min(map(len, shares)) >= 5 // world_size


def test_a_rank_without_a_sample_is_refused():
    with pytest.raises(ValueError, match="`batch_size` is 2 over 3 ranks; give every rank at least one sample"):
        StepLoader(SPLITS["train"], 2, list, seed=0, world_size=3)


def test_the_position_refuses_another_seed():
    loader = StepLoader(SPLITS["train"], 3, list, seed=0)
    state = StepLoader(SPLITS["train"], 3, list, seed=7).state_dict()
    with pytest.raises(ValueError, match="trained with seed=7, this run has 0; resume with the same seed"):
        loader.load_state_dict(state)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_evaluation_takes_every_sample_once(world_size):
    ranks = [in_order(SPLITS["val"], 3, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert {len(batches) for batches in ranks} == {2}
    ids = [one.id for batches in ranks for batch in batches for one in batch]
    assert sorted(ids) == [f"val-{i}" for i in range(5)]


def test_splits_are_read_once_and_collated():
    calls = []

    def counted(root, split):
        calls.append((root, split))
        return SPLITS[split]

    data = SampleDataModule(Files(read=counted, root="clips"), Batch, batch_size=3, eval_batch_size=4)
    assert [len(batch.samples) for batch in data.val_dataloader()] == [4, 1]
    assert [len(batch.samples) for batch in data.val_dataloader()] == [4, 1]
    assert len(data.train_dataloader()) == 3
    assert [[one.id for one in batch.samples] for batch in data.test_dataloader()] == [["test-0"]]
    assert calls == [("clips", "val"), ("clips", "train"), ("clips", "test")]


def test_repeated_id_is_refused():
    twice = Files(read=lambda root, split: [sample("a"), sample("a")], root="")
    data = SampleDataModule(twice, Batch, batch_size=1)
    with pytest.raises(ValueError, match="The id 'a' stands twice in split 'val'"):
        data.split("val")


@pytest.mark.filterwarnings("ignore")
def test_lightning_takes_the_evaluation_batches_as_one_loader():
    class Validated(Recorder):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            self.seen.append((dataloader_idx, batch_idx, [sample.id for sample in batch.samples]))

        test_step = validation_step

    module = Validated()
    data = SampleDataModule(SOURCE, Batch, batch_size=3, eval_batch_size=4)
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
    trainer.validate(module, datamodule=data, verbose=False)
    trainer.test(module, datamodule=data, verbose=False)
    assert module.seen == [
        (0, 0, [f"val-{number}" for number in range(4)]),
        (0, 1, ["val-4"]),
        (0, 0, ["test-0"]),
    ]

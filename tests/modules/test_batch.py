import torch
from lightning.fabric.utilities.apply_func import move_data_to_device

from m1lite.modules.batch import RolloutBatch, no_tokens
from m1lite.records import Answer, Sample, Task


def question(name):
    return Sample(
        id=name, video="a.mp4", duration=9.0, task=Task.COUNTING, question="count objects", answer=Answer(number=2.0)
    )


def test_lightning_hands_on_the_very_object_and_moves_its_tensors(make_batch):
    batch = RolloutBatch([question("q1"), question("q2")])
    assert move_data_to_device(batch, torch.device("cpu")) is batch
    batch.tokens = {"ada": make_batch()}
    assert move_data_to_device(batch, torch.device("meta")) is batch
    tokens = batch.tokens["ada"]
    for name in ("input_ids", "attention_mask", "loss_mask", "sampled_logprobs", "advantages"):
        assert getattr(tokens, name).device.type == "meta"
    assert [sample.id for sample in batch.samples] == ["q1", "q2"]


def test_no_tokens_has_the_dtypes_of_a_batch(make_batch):
    empty, full = no_tokens("ada", torch.device("cpu")), make_batch()
    for name in ("input_ids", "attention_mask", "loss_mask", "sampled_logprobs", "advantages"):
        assert getattr(empty, name).dtype == getattr(full, name).dtype
        assert len(getattr(empty, name)) == 0

import pytest
import torch

from m1lite.modules import bases
from m1lite.modules.bases import base_tensors, hash_weights, load_base, stored_tiny_base
from m1lite.modules.tiny import save_tiny_base, tiny_base


@pytest.mark.parametrize("architecture", ["qwen3", "qwen2"])
def test_a_base_comes_back_from_its_directory_frozen(tmp_path, architecture):
    save_tiny_base(tmp_path, architecture, hidden_size=32)
    model, tokenizer = tiny_base(architecture, hidden_size=32)
    base = load_base(str(tmp_path))
    assert hash_weights(base.model) == hash_weights(model)
    assert base.name == str(tmp_path)
    assert not base.model.training
    assert not any(parameter.requires_grad for parameter in base.model.parameters())
    words = "keep ? red-square 12"
    assert base.tokenizer(words).input_ids == tokenizer(words).input_ids


def test_dtype_is_that_asked_for_and_changes_the_hash(tmp_path):
    save_tiny_base(tmp_path, hidden_size=32)
    half = load_base(str(tmp_path), dtype="bfloat16")
    assert {tensor.dtype for _, tensor in base_tensors(half.model)} == {torch.bfloat16}
    assert hash_weights(half.model) != hash_weights(load_base(str(tmp_path)).model)
    with pytest.raises(ValueError, match=r"`dtype` 'int8' is not one of \['bfloat16', 'float16', 'float32'\]"):
        load_base(str(tmp_path), dtype="int8")


@pytest.mark.parametrize("load", [load_base, stored_tiny_base], ids=["by name", "tiny"])
def test_without_weights_it_is_a_name_a_tokenizer_and_a_shape(tmp_path, load):
    save_tiny_base(tmp_path, "qwen2", hidden_size=32)
    more = {"architecture": "qwen2"} if load is stored_tiny_base else {}
    whole, light = (load(str(tmp_path), weights=weights, **more) for weights in (True, False))
    assert {tensor.device.type for tensor in light.model.state_dict().values()} == {"meta"}
    shapes = [{name: tensor.shape for name, tensor in base.model.state_dict().items()} for base in (whole, light)]
    assert shapes[0] == shapes[1]
    assert light.name == whole.name == str(tmp_path)
    assert light.tokenizer("keep 12").input_ids == whole.tokenizer("keep 12").input_ids


def test_its_weights_load_into_a_bare_model():
    model, _ = tiny_base(hidden_size=32, seed=1)
    other, _ = tiny_base(hidden_size=32, seed=2)
    other.load_state_dict(dict(base_tensors(model)))
    assert hash_weights(other) == hash_weights(model)


def test_a_tiny_base_is_made_once_and_then_taken_as_it_lies(tmp_path):
    folder = tmp_path / "untrained" / "small"
    made = stored_tiny_base(str(folder), "qwen2", hidden_size=32, num_layers=1, seed=5)
    model, _ = tiny_base("qwen2", hidden_size=32, num_layers=1, seed=5)
    assert hash_weights(made.model) == hash_weights(model)
    assert made.name == str(folder)
    assert [path.name for path in folder.parent.iterdir()] == ["small"], "nothing half-written is left"
    again = stored_tiny_base(str(folder), "qwen2", hidden_size=32, num_layers=1, seed=6)
    assert hash_weights(again.model) == hash_weights(model)


def test_other_ranks_wait_for_the_first_to_write(tmp_path, monkeypatch):
    folder = tmp_path / "small"
    model, _ = tiny_base("qwen3", hidden_size=32, seed=1)

    def write_meanwhile():
        assert not folder.exists()
        save_tiny_base(folder, "qwen3", hidden_size=32, seed=1)

    monkeypatch.setattr(bases, "this_rank", lambda: 1)
    monkeypatch.setattr(bases, "barrier", write_meanwhile)
    base = stored_tiny_base(str(folder), "qwen3", hidden_size=32, seed=1)
    assert hash_weights(base.model) == hash_weights(model)

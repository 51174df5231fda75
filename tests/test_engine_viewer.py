"""A viewer over an engine writes what the model writes on its own, alone and when several threads ask at once."""

import importlib.util
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from time import sleep
from typing import ClassVar

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from m1lite.engine_viewer import EngineViewer, vllm_viewer
from m1lite.engines.base import Generation
from m1lite.engines.hf import HfEngine
from m1lite.modules.tiny import save_tiny_base
from m1lite.modules.tiny_vision import save_tiny_vision_base
from m1lite.toolbox.backends.loading import ModelError
from m1lite.video.reader import Frames

BEGIN, END = "<|im_start|>", "<|im_end|>\n"
PICTURE = "<|vision_start|><|image_pad|><|vision_end|>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seer")
    save_tiny_vision_base(folder, hidden_size=64)
    return str(folder)


@pytest.fixture(scope="module")
def frames():
    pixels = torch.randint(0, 256, (2, 3, 56, 84), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    return Frames(pixels=pixels, timestamps=[1.0, 2.5])


def on_its_own(folder, instruction, frames):
    """Let transformers' own processor and model write a reply of six tokens."""
    model, processor = (
        AutoModelForImageTextToText.from_pretrained(folder).eval(),
        AutoProcessor.from_pretrained(folder),
    )
    shown = [] if frames is None else list(zip(frames.timestamps, frames.pixels, strict=True))
    pictures = [Image.fromarray(pixels.permute(1, 2, 0).numpy()) for _, pixels in shown]
    user = "".join(f"<{second:.1f} seconds>{PICTURE}" for second, _ in shown) + instruction
    text = f"{BEGIN}system\nYou are a helpful assistant.{END}{BEGIN}user\n{user}{END}{BEGIN}assistant\n"
    inputs = processor(text=[text], images=pictures or None, return_tensors="pt")
    with torch.no_grad():
        ids = model.generate(**inputs, max_new_tokens=6, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    return processor.tokenizer.decode(ids, skip_special_tokens=True).strip()


def engines():
    yield "hf"
    missing = importlib.util.find_spec("vllm") is None
    skip = pytest.mark.skipif(missing, reason="vLLM is not installed")
    yield pytest.param("vllm", marks=[pytest.mark.slow, skip])


@pytest.fixture(scope="module", params=engines())
def viewer(request, folder):
    small = {"max_new_tokens": 6, "max_context": 512}
    if request.param == "vllm":
        viewer = vllm_viewer(folder, dtype="float32", kv_cache_bytes=64 << 20, **small)
        assert vllm_viewer(folder, dtype="float32", kv_cache_bytes=64 << 20, **small) is viewer
    else:
        viewer = EngineViewer(folder, make=HfEngine, **small)
    yield viewer
    viewer.close()


def test_replies_are_those_of_the_model(viewer, folder, frames):
    with ThreadPoolExecutor(3) as threads:  # as tools ask
        asked = [("red square ?", frames), ("blue circle", None), ("red square ?", None)]
        replies = list(threads.map(lambda one: viewer(*one), asked))
    assert replies == [on_its_own(folder, *one) for one in asked]
    assert viewer("red square ?", frames) == replies[0]
    odd = Frames(pixels=frames.pixels[:1, :, :50, :75], timestamps=[3.0])  # no multiples of 28
    assert isinstance(viewer("red square ?", odd), str)
    assert not viewer._held._pixels


def test_too_long_is_an_error_that_spoils_no_other(viewer, folder):
    with ThreadPoolExecutor(2) as threads:
        long, short = (threads.submit(viewer, text) for text in ("red " * 600, "blue circle"))
        with pytest.raises(ModelError, match="gave no reply: "):
            long.result()
        assert short.result() == on_its_own(folder, "blue circle", None)


class Slow:
    """An engine that draws when it may, and notes the sizes of its batches."""

    batches: ClassVar[list[int]] = []
    may = Event()

    def __init__(self, model, policies, *, max_model_len, frames):
        pass

    def generate(self, requests):
        self.batches.append(len(requests))
        assert self.may.wait(30)
        return [Generation(token_ids=[1], logprobs=[0.0], policy_version=0, finish_reason="length") for _ in requests]


def test_what_is_asked_during_a_draw_is_one_batch(folder):
    viewer = EngineViewer(folder, make=Slow)
    with ThreadPoolExecutor(4) as threads:
        replies = [threads.submit(viewer, "red")]
        while not Slow.batches:
            sleep(0.001)
        replies += [threads.submit(viewer, "red") for _ in range(3)]
        while len(viewer._waiting) < 3:
            sleep(0.001)
        Slow.may.set()
        assert len({reply.result() for reply in replies}) == 1
    assert Slow.batches == [1, 3]


class Broken:
    """An engine that fails."""

    def __init__(self, model, policies, *, max_model_len, frames):
        pass

    def generate(self, requests):
        raise RuntimeError("out of memory")


def test_any_fault_is_told(folder, tmp_path):
    with pytest.raises(ModelError, match=r"gave no reply: RuntimeError: out of memory"):
        EngineViewer(folder, make=Broken)("red")
    save_tiny_base(tmp_path / "blind", architecture="qwen2", hidden_size=32, num_layers=1, seed=0)
    with pytest.raises(ModelError, match=r"does not see through engines; give one of Qwen2\.5-VL's or Qwen3-VL's"):
        EngineViewer(str(tmp_path / "blind"), make=Broken)("red")
    with pytest.raises(ModelError, match="No engine could be built for '/nowhere'"):
        EngineViewer("/nowhere", make=Broken)("red")
    with pytest.raises(ValueError, match="`max_new_tokens` must be at least 1 and below `max_context`, got 9 and 9"):
        EngineViewer(folder, make=Broken, max_new_tokens=9, max_context=9)

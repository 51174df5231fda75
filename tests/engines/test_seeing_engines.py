"""Engines that see, against the families' own processors and models: three turns, adapters, and a weight sync."""

import copy
import importlib.util
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from transformers import AutoModelForImageTextToText, AutoProcessor

from m1lite.engines import _vllm_compat as compat
from m1lite.engines.base import EngineError
from m1lite.engines.hf import HfEngine
from m1lite.engines.sight import sight_of
from m1lite.records import PlacedMedia
from m1lite.video.cache import FrameCache
from m1lite.video.media import media_pixels
from tests.engines.seeing_talks import Talk, gaps, hold, logprobs, make_chat

POLICIES = ["ada", "bea", "cyd"]
"""The first two carry adapters, the last is the base."""
WRONG, RIGHT = 0.05, 1e-4


class Seer:
    """The trainer: a base that sees and two adapters on its language model."""

    def __init__(self, directory):
        self.base = AutoModelForImageTextToText.from_pretrained(directory).eval()
        self.processor = AutoProcessor.from_pretrained(directory)
        self.sight = sight_of(self.base.config)
        self.chat = make_chat(self.processor, self.sight)
        self.adapted = {policy: self.adapt(number) for number, policy in enumerate(POLICIES[:2])}

    def adapt(self, number):
        config = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", exclude_modules=r".*visual.*")
        model = get_peft_model(copy.deepcopy(self.base), config).eval()
        generator = torch.Generator().manual_seed(number)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_" in name:
                    parameter.normal_(0.0, 0.1, generator=generator)
        return model

    def publish(self, engine, version):
        for policy, model in self.adapted.items():
            engine.load_adapter(
                policy, get_peft_model_state_dict(model), model.peft_config["default"].to_dict(), version
            )

    def move(self, scale, *, only=""):
        """Change the base under all policies; ``only`` names a part of it."""
        generator = torch.Generator().manual_seed(9)
        with torch.no_grad():
            for name, tensor in self.base.named_parameters():
                if only in name:
                    tensor += scale * torch.randn(tensor.shape, generator=generator)
        self.adapted = {policy: self.adapt(number) for number, policy in enumerate(POLICIES[:2])}

    def score(self, request, reply):
        return logprobs(self.adapted.get(request.policy, self.base), self.processor, self.sight, request, reply)


@pytest.fixture(params=["qwen2_5_vl", "qwen3_vl"])
def family(request):
    return request.param


@pytest.fixture
def seer(family, vision_bases):
    return Seer(vision_bases[family])


def make_engine(kind, directory):
    if kind == "hf":
        return HfEngine(directory, POLICIES, frames=FrameCache(50_000_000), max_model_len=512)
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("vLLM is not installed")
    from m1lite.engines.vllm import VllmEngine

    return VllmEngine(
        directory,
        POLICIES,
        max_adapters=2,
        max_lora_rank=8,
        max_model_len=512,
        kv_cache_bytes=64 << 20,
        frames=FrameCache(50_000_000),
    )


@pytest.mark.parametrize("kind", ["hf", pytest.param("vllm", marks=pytest.mark.slow)])
def test_log_probs_are_those_of_the_model_at_every_turn_and_after_a_sync(
    kind, family, seer, vision_bases, clip, monkeypatch
):
    engine = make_engine(kind, vision_bases[family])
    try:
        seer.publish(engine, 1)
        talks = hold(engine, seer.chat, clip, POLICIES)
        assert max(gaps(talks, seer.score)) < RIGHT
        if kind == "vllm":
            assert_vllm_would_read_the_same(engine._llm, seer, talks[0].turns[-1][0])
        with monkeypatch.context() as patch:  # the fault: keys, values and features of the old tower stay
            seer.move(0.03, only="visual")
            if kind == "vllm":
                patch.setattr(compat, "reset_caches", lambda llm: None)
                engine.load_base(seer.base.state_dict().items(), 2)
                assert is_wrong(engine, seer, clip)
        engine.load_base(seer.base.state_dict().items(), 3)
        assert max(gaps(talks, seer.score)) > WRONG  # the weights did move
        talks = hold(engine, seer.chat, clip, POLICIES)
        assert max(gaps(talks, seer.score)) < RIGHT
        seer.move(0.03)
        engine.load_base(seer.base.state_dict().items(), 4)
        talks = hold(engine, seer.chat, clip, POLICIES)
        assert max(gaps(talks, seer.score)) < RIGHT
    finally:
        engine.close()
    assert not {token for talk in talks for _, reply, _ in talk.turns for token in reply} & set(seer.sight.media_ids)


def assert_vllm_would_read_the_same(llm, seer, request):
    """vLLM's own renderer expands the ids to those that we give it, and cuts the pictures as we do."""
    short, end = [], 0
    for one in request.media:
        short += [*request.prompt_ids[end : one.offset], seer.sight.image_id]
        end = one.offset + seer.sight.num_tokens(one.media.size)
    short += request.prompt_ids[end:]
    pictures = [media_pixels(FrameCache(0), one.media)[0].permute(1, 2, 0).numpy() for one in request.media]
    prompt = {"prompt_token_ids": short, "multi_modal_data": {"image": pictures}}
    (rendered,) = llm.renderer.render_cmpl([prompt], skip_mm_cache=True)
    assert list(rendered["prompt_token_ids"]) == request.prompt_ids
    assert [place.offset for place in rendered["mm_placeholders"]["image"]] == [one.offset for one in request.media]
    for one, item in zip(request.media, rendered["mm_kwargs"]["image"], strict=True):
        patches = seer.sight.patches(media_pixels(FrameCache(0), one.media))[0]
        assert torch.equal(item["pixel_values"].data, patches)


def is_wrong(engine, seer, clip):
    """Whether an engine fails or draws from something else than the trainer's weights."""
    try:
        return max(gaps(hold(engine, seer.chat, clip, POLICIES), seer.score)) > WRONG
    except EngineError:  # vLLM's two halves disagree about what is in the cache
        engine.abort()
        return True


@pytest.fixture
def hf(family, vision_bases):
    return make_engine("hf", vision_bases[family])


def first_request(seer, clip):
    return Talk("cyd", 0).show(seer.chat, clip, 0)


def test_media_tokens_are_never_drawn_however_likely(hf, seer, clip):
    request = first_request(seer, clip)
    (before,) = hf.generate([request])
    with torch.no_grad():  # the head would give nothing else
        hf._model.get_output_embeddings().weight[list(seer.sight.media_ids)] *= 1000
    requests = [replace(request, seed=seed) for seed in range(20)]
    drawn = {token for reply in hf.generate(requests) for token in reply.token_ids}
    assert before.token_ids
    assert not drawn & set(seer.sight.media_ids)


def test_each_frame_goes_through_the_tower_once_for_all_replies(hf, seer, clip):
    request = first_request(seer, clip)
    for policy in ("ada", "cyd"):
        hf.generate([replace(request, seed=seed, policy=policy) for seed in range(4)])
    assert (hf._features.num_computed, len(request.media)) == (2, 2)


def test_pictures_that_do_not_fit_their_placeholders_are_refused(hf, seer, clip, vision_bases, family, base_model):
    request = first_request(seer, clip)
    moved = tuple(PlacedMedia(media=one.media, offset=one.offset + 1) for one in request.media)
    for media, message in (
        (request.media[:1], "12 placeholder tokens, but 1 pictures with 6 features"),
        ((), "12 placeholder tokens, but 0 pictures"),
        (moved, r"the frame at 0\.5 s of .* has 6 features, but at token"),
    ):
        with pytest.raises(EngineError, match=message):
            hf.submit(replace(request, media=media))
    assert hf.num_unfinished == 0
    without = HfEngine(vision_bases[family], POLICIES)
    with pytest.raises(EngineError, match="'cyd' is shown 2 pictures, but the engine was built without `frames`"):
        without.submit(request)
    blind = HfEngine(base_model, POLICIES, frames=FrameCache(0))
    with pytest.raises(EngineError, match="'cyd' is shown 2 pictures, but its base has no vision tower"):
        blind.submit(replace(request, prompt_ids=[7] * 9))
    gone = [replace(one, media=replace(one.media, uri="gone.mp4")) for one in request.media]
    hf.submit(replace(request, media=tuple(gone)))
    with pytest.raises(EngineError, match=r"gone\.mp4"):
        hf.step()
    assert hf.num_unfinished == 0
    assert hf.generate([request])

import pytest

from m1lite.engines.base import EngineError, Request, Sampling
from m1lite.engines.scripted import ScriptedEngine


def request(policy="ada", tokens=10, prompt=(1, 2, 3)):
    return Request(policy=policy, prompt_ids=prompt, sampling=Sampling(max_new_tokens=tokens), seed=4)


def test_the_script_sees_the_request_and_its_reply_is_cut_after_the_end_of_turn():
    engine = ScriptedEngine(
        lambda r: [len(r.prompt_ids), r.seed, 9, 7, 7], policies=["ada"], eos_token_ids=[9], logprob=-0.5
    )
    (reply,) = engine.generate([request()])
    assert reply.token_ids == [3, 4, 9]
    assert reply.logprobs == [-0.5, -0.5, -0.5]
    assert reply.finish_reason == "stop"


def test_a_long_script_is_cut_at_the_limits():
    engine = ScriptedEngine(lambda _: [7] * 50, policies=["ada"], eos_token_ids=[9], max_model_len=8)
    short, long = engine.generate([request(tokens=2), request(tokens=10)])
    assert (short.token_ids, short.finish_reason) == ([7, 7], "length")
    assert long.token_ids == [7] * 5  # 3 + 5 = 8


def test_an_empty_script_is_an_error():
    with pytest.raises(EngineError, match="script of policy 'ada' returned no token"):
        ScriptedEngine(lambda _: [], policies=["ada"]).generate([request()])


def test_weights_are_noted_as_versions():
    engine = ScriptedEngine(lambda _: [1], policies=["ada", "bea"])
    engine.load_adapter("ada", {}, {}, 3)
    engine.load_base([], 7)
    assert engine.versions() == {"ada": 3, "bea": 7}
    engine.close()

"""What a run cost adds up over its parts, and files appear whole."""

import json

import pytest

from m1lite.evaluation import Verdict
from m1lite.ledger import Ledger, write_whole


def verdict(name, sampled, read):
    return Verdict(
        sample_id=name, video="v", task="choice", team=0.0, agents={}, parsed={}, calls=0,
        sampled_tokens=sampled, read_tokens=read,
    )  # fmt: skip


def test_a_run_that_is_continued_adds_up(tmp_path):
    path = tmp_path / "run" / "ledger.json"
    first = Ledger.read(path)
    assert first == Ledger()
    first.spend({"world": (2.0, 3.0), "sft": (5.0, 9.0)})
    first.cold_start["qwen3"] = [{"seconds": 1.0}]
    first.keep("sft", [verdict("a", 3, 40), verdict("b", 2, 50)])
    first.count("sft", {"read": 90, "sampled": 5})
    first.count("marl_training", {"read": 50, "trained": 60})
    first.write(path)
    second = Ledger.read(path)
    second.spend({"sft": (1.0, 2.0), "marl": (4.0, 8.0)})
    assert second.seconds == {"world": 2.0, "sft": 6.0, "marl": 4.0}
    assert second.cpu_seconds == {"world": 3.0, "sft": 11.0, "marl": 8.0}
    assert second.cold_start == {"qwen3": [{"seconds": 1.0}]}
    second.count("marl_training", {"read": 5, "sampled": 2})
    assert second.tokens == {
        "sft": {"read": 90, "sampled": 5},
        "marl_training": {"read": 55, "sampled": 2, "trained": 60},
    }
    assert (len(first.verdicts["sft"]), second.verdicts) == (2, {}), "verdicts lie in files of their own"


def test_what_was_written_before_tokens_were_counted_is_read(tmp_path):
    (tmp_path / "ledger.json").write_text('{"seconds": {"sft": 1.0}, "cpu_seconds": {"sft": 2.0}, "cold_start": {}}')
    assert Ledger.read(tmp_path / "ledger.json").tokens == {}


def test_a_file_is_whole_or_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "new" / "metrics.json"
    write_whole(path, json.dumps([1]))
    assert path.read_text(encoding="utf-8") == "[1]"
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "[2, \ud800]")
    assert path.read_text(encoding="utf-8") == "[1]"
    write_whole(path, "[3]")
    assert path.read_text(encoding="utf-8") == "[3]"

"""Models are loaded once for all who name them alike, and one at a time."""

import time
from threading import Thread

import pytest
import transformers

from m1lite.toolbox.backends.detection import ZeroShotDetector
from m1lite.toolbox.backends.loading import ModelError, ModelSource
from m1lite.toolbox.backends.relevance import ImageTextEncoder


def test_backends_that_name_a_model_alike_share_it():
    first, again = ZeroShotDetector("/a", threshold=0.1), ZeroShotDetector("/a", threshold=0.9)
    assert first._source is again._source
    assert ZeroShotDetector("/b")._source is not first._source
    assert ZeroShotDetector("/a", device="cuda")._source is not first._source
    assert ImageTextEncoder("/a")._source is not first._source  # another class of transformers


def test_two_threads_never_load_at_once(monkeypatch):
    """Else transformers leaves tied weights of one of the models as they were drawn."""
    under_way, most = [], []

    def load(name, **options):
        under_way.append(name)
        most.append(len(under_way))
        time.sleep(0.05)
        under_way.remove(name)
        raise OSError("nothing there")

    monkeypatch.setattr(transformers.AutoModel, "from_pretrained", load)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda name, **options: None)
    failed = []

    def use(name):
        source = ModelSource(name, model_class="AutoModel", processor_class="AutoTokenizer")
        with pytest.raises(ModelError, match=f"The model '{name}' cannot be loaded as AutoModel"), source.use():
            pass
        failed.append(name)

    threads = [Thread(target=use, args=[name]) for name in ("/a", "/b", "/c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(failed) == ["/a", "/b", "/c"]
    assert most == [1, 1, 1]

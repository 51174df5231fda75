"""A real server behind a socket gets the frames, and a tiny Qwen2.5-VL from disk writes what it writes on its own."""

import base64
import http.server
import io
import json
import threading

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from m1lite.modules.tiny_vision import save_tiny_vision_base
from m1lite.toolbox.backends.loading import ModelError
from m1lite.toolbox.backends.viewers import EndpointViewer, TransformersViewer
from m1lite.toolbox.chat_endpoint import ChatEndpoint
from m1lite.video.reader import Frames


@pytest.fixture
def frames():
    levels = torch.tensor([40, 200], dtype=torch.uint8)
    return Frames(pixels=levels[:, None, None, None].expand(2, 3, 56, 84).contiguous(), timestamps=[1.0, 2.5])


@pytest.fixture
def server():
    """A server that notes requests and replies with what ``reply`` holds: a text, or a status."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            served.requests.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            status = served.reply if isinstance(served.reply, int) else 200
            body = json.dumps({"choices": [{"message": {"content": served.reply}}]}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.requests, served.reply = [], " A dog. \n"
    thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield served
    served.shutdown()
    thread.join()
    served.server_close()


def viewer(server, model="vlm"):
    url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    return EndpointViewer(ChatEndpoint(base_url=url, model=model, tries=1, deadline_seconds=20))


def test_an_endpoint_gets_seconds_frames_and_the_instruction(server, frames):
    assert viewer(server)("What is it?", frames) == "A dog."
    ((message,),) = [request["messages"] for request in server.requests]
    kinds = [part["type"] for part in message["content"]]
    assert kinds == ["text", "image_url", "text", "image_url", "text"]
    assert [part["text"] for part in message["content"] if "text" in part] == ["1 s:", "2.5 s:", "What is it?"]
    for place, level in ((1, 40), (3, 200)):
        head, _, data = message["content"][place]["image_url"]["url"].partition(",")
        assert head == "data:image/jpeg;base64"
        picture = np.array(Image.open(io.BytesIO(base64.b64decode(data))))
        assert picture.shape == (56, 84, 3)
        assert abs(int(picture.mean()) - level) <= 1


def test_an_endpoint_without_frames_and_without_a_reply(server):
    assert viewer(server)("Sum up.") == "A dog."
    assert server.requests[0]["messages"][0]["content"] == [{"type": "text", "text": "Sum up."}]
    server.reply = 404
    with pytest.raises(ModelError, match=r"ChatEndpoint\('vlm' at http.* gave no reply \(status 404: "):
        viewer(server)("Sum up.")
    assert viewer(server).identity == viewer(server).identity != viewer(server, "other").identity
    with pytest.raises(ValueError, match="`quality` must be from 1 to 100, got 0"):
        EndpointViewer(None, quality=0)


def test_a_model_of_transformers_writes_what_it_writes_on_its_own(tmp_path, frames):
    save_tiny_vision_base(tmp_path, hidden_size=64)
    found = TransformersViewer(str(tmp_path), max_new_tokens=6)
    reply = found("red square ?", frames)
    model, processor = (
        AutoModelForImageTextToText.from_pretrained(tmp_path).eval(),
        AutoProcessor.from_pretrained(tmp_path),
    )
    pictures = [Image.fromarray(one.permute(1, 2, 0).numpy()) for one in frames.pixels]
    mark = "<|vision_start|><|image_pad|><|vision_end|>"
    text = f"<|im_start|>user\n1 s:{mark}2.5 s:{mark}red square ?<|im_end|>\n<|im_start|>assistant\n"
    inputs = processor(text=[text], images=pictures, return_tensors="pt")
    with torch.no_grad():
        ids = model.generate(**inputs, max_new_tokens=6, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert reply == processor.tokenizer.decode(ids, skip_special_tokens=True).strip()
    dark = Frames(pixels=torch.zeros_like(frames.pixels), timestamps=frames.timestamps)
    assert isinstance(found("red square ?", dark), str)
    assert isinstance(found("red square ?"), str)  # without frames
    assert found.identity != TransformersViewer(str(tmp_path), max_new_tokens=7).identity
    with pytest.raises(ValueError, match="`max_new_tokens` must be at least 1, got 0"):
        TransformersViewer("x", max_new_tokens=0)

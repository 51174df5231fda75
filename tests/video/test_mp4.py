"""The table of an MP4 file says the same as its packets, or nothing."""

import os
from fractions import Fraction

import av
import numpy as np
import pytest

from m1lite.video._mp4 import claimed_samples, cut_off, steady_track


def write(path, *, times=range(40), options=None, muxer_options=None, sound=False, codec="libx264", turned=False):
    """Write 40 small frames at chosen tenths of a second."""
    with av.open(str(path), "w", options=muxer_options or {}) as container:
        stream = container.add_stream(codec, rate=10, options=options or {"g": "8", "bf": "2"})
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 10)
        if sound:
            container.add_stream("aac", rate=16000)
        for level, when in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.full((32, 48, 3), 5 * level, dtype=np.uint8), format="rgb24")
            frame.pts, frame.time_base = when, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def table(path):
    with path.open("rb") as file:
        return steady_track(file, os.path.getsize(path))


def packets(path):
    """Showing time, key frame or not, and delay of every packet, in showing order and in seconds."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        found = [packet for packet in container.demux(stream) if packet.pts is not None]
        base = stream.time_base
        rows = sorted((packet.pts, packet.is_keyframe, packet.pts - packet.dts) for packet in found)
    first = rows[0][0]
    return [(float((pts - first) * base), key, float(delay * base)) for pts, key, delay in rows]


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"options": {"g": "250", "bf": "0"}},
        {"options": {"g": "12", "bf": "3", "b_pyramid": "normal"}, "sound": True},
        {"options": {"g": "10", "bf": "2", "x264-params": "open-gop=1"}},
        {"muxer_options": {"movflags": "faststart"}},
    ],
)
def test_the_table_says_what_the_packets_say(tmp_path, how):
    path = write(tmp_path / "a.mp4", **how)
    track, rows = table(path), packets(path)
    assert track.num_frames == len(rows) == 40
    assert track.frame_seconds == pytest.approx(0.1)
    assert track.codec == b"avc1"
    assert track.seconds(np.arange(40)) == pytest.approx([start for start, _, _ in rows])
    assert track.seconds(track.key_places) == pytest.approx([start for start, key, _ in rows if key])
    delays = [delay for _, key, delay in rows if key]
    assert (track.key_delays / track.timescale).tolist() == pytest.approx(delays)
    assert track.reordered == any(delay != rows[0][2] for _, _, delay in rows)


def test_other_files_have_no_such_table(tmp_path):
    assert table(write(tmp_path / "a.mkv")) is None
    varying = [place + place // 5 for place in range(40)]
    assert table(write(tmp_path / "varying.mp4", times=varying)) is None
    fragments = write(tmp_path / "fragments.mp4", muxer_options={"movflags": "frag_keyframe+empty_moov"})
    assert table(fragments) is None
    late = write(tmp_path / "late.mp4", times=range(5, 45))  # an edit list that begins with nothing
    assert table(late) is None
    (tmp_path / "a.txt").write_text("ftyp")
    assert table(tmp_path / "a.txt") is None


def test_a_video_cut_by_its_edit_list_has_no_table(tmp_path):
    content = write(tmp_path / "a.mp4").read_bytes()
    place = content.index(b"elst") + 12  # after version and count: length, start
    length = int.from_bytes(content[place : place + 4], "big")
    for half, start in ((length // 2, None), (length, 10**6)):
        new = half.to_bytes(4, "big") + (content[place + 4 : place + 8] if start is None else start.to_bytes(4, "big"))
        (tmp_path / "b.mp4").write_bytes(content[:place] + new + content[place + 8 :])
        assert table(tmp_path / "b.mp4") is None


def test_claimed_samples_are_those_of_the_file(tmp_path):
    path = write(tmp_path / "a.mp4")
    with path.open("rb") as file:
        assert claimed_samples(file, os.path.getsize(path)) == (40, 40)
        assert cut_off(file, os.path.getsize(path)) is None


def test_boxes_that_nest_forever_end(tmp_path):
    inner = b""
    for _ in range(1000):
        inner = (len(inner) + 8).to_bytes(4, "big") + b"trak" + inner
    content = b"\0\0\0\x08ftyp" + (len(inner) + 8).to_bytes(4, "big") + b"moov" + inner
    (tmp_path / "deep.mp4").write_bytes(content)
    (tmp_path / "many.mp4").write_bytes(b"\0\0\0\x08ftyp" + b"\0\0\0\x08free" * 300_000)
    for name in ("deep.mp4", "many.mp4"):
        with (tmp_path / name).open("rb") as file:
            size = os.path.getsize(tmp_path / name)
            assert claimed_samples(file, size) == (0, 0)
            assert steady_track(file, size) is None

import pytest

from m1lite.video._nal import is_unreferenced, length_bytes


def unit(*content, size=4):
    return len(content).to_bytes(size, "big") + bytes(content)


@pytest.mark.parametrize(
    ("codec", "units", "expected"),
    [
        ("h264", [unit(0x01, 5)], True),  # a slice that nothing refers to
        ("h264", [unit(0x21, 5)], False),
        ("h264", [unit(0x65, 5)], False),  # a key frame
        ("h264", [unit(0x09, 16), unit(0x06, 1, 2, 3), unit(0x01, 5), unit(0x01, 6)], True),
        ("h264", [unit(0x01, 5), unit(0x41, 6)], False),  # one of its slices is referred to
        ("h264", [unit(0x06, 1)], False),  # no slice: a message alone is not left out
        ("hevc", [unit(0 << 1, 1, 9)], True),  # TRAIL_N
        ("hevc", [unit(1 << 1, 1, 9)], False),  # TRAIL_R
        ("hevc", [unit(8 << 1, 1, 9)], True),  # RASL_N
        ("hevc", [unit(21 << 1, 1, 9)], False),  # CRA
        ("hevc", [unit(20 << 1, 1, 9)], False),  # IDR_N_LP
        ("hevc", [unit(39 << 1, 1, 9), unit(6 << 1, 1, 9)], True),  # a message, RADL_N
        ("h264", [], False),
    ],
)
def test_units(codec, units, expected):
    assert is_unreferenced(codec, b"".join(units), 4) is expected
    assert is_unreferenced(codec, memoryview(b"".join(units)), 4) is expected


def test_damaged_packets_end():
    for packet in (b"\0", b"\0\0\0\0" * 9, b"\xff" * 20, b"\0\0\0\x09\x01"):
        assert is_unreferenced("h264", packet, 4) in (True, False)


def test_parameters():
    avc = bytes([1, 100, 0, 31, 0xFF, 0xE1, 0])
    assert length_bytes("h264", avc) == 4
    assert length_bytes("h264", avc[:4] + bytes([0xFD]) + avc[5:]) == 2
    assert length_bytes("h264", b"\0\0\0\1\x67\x64\0\x1f") is None  # start codes instead of lengths
    for layers, expected in ((0, None), (1, 4), (2, None)):
        assert length_bytes("hevc", bytes([1] + [0] * 20 + [layers << 3 | 3, 0])) == expected
    assert length_bytes("av1", avc) is None
    assert length_bytes("h264", b"") is None

"""Videos with a sound, written by PyAV, for tests."""

import av
import numpy as np


def write_sound(path, samples, *, delay=0.0, rate=44_100, seconds=6):
    """Write grey pictures, four a second, and a stereo sound that starts ``delay`` seconds later; no sound for None."""
    with av.open(str(path), "w") as container:
        pictures = container.add_stream("libx264", rate=4)
        pictures.width, pictures.height, pictures.pix_fmt = 64, 48, "yuv420p"
        sound = None if samples is None else container.add_stream("aac", rate=rate, layout="stereo")
        for _ in range(4 * seconds):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 128, np.uint8), format="rgb24")
            container.mux(pictures.encode(frame))
        container.mux(pictures.encode(None))
        if sound is not None:
            frame = av.AudioFrame.from_ndarray(np.stack([samples, samples]).astype(np.float32), "fltp", "stereo")
            frame.rate, frame.pts = rate, round(delay * rate)
            container.mux(sound.encode(frame))
            container.mux(sound.encode(None))
    return path


def beep(seconds=6.0, rate=44_100):
    """Give silence with a tone of 440 Hz from second 2 to 3."""
    time = np.arange(round(seconds * rate)) / rate
    return 0.5 * np.sin(2 * np.pi * 440 * time) * ((time >= 2) & (time < 3))

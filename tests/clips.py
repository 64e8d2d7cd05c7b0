"""Short real videos whose pixels say the number of each frame, for tests."""

import fractions

import numpy as np
from PIL import Image

BITS, BAND, HEIGHT = 8, 6, 32
WIDTH = BITS * BAND
CODECS = {".mp4": "libx264", ".mkv": "libx264", ".webm": "libvpx-vp9", ".avi": "mpeg4"}


def picture(number, height=HEIGHT, width=WIDTH):
    """Return a frame uint8[H, W, 3] of black and white bands that spell its number in binary."""
    bits = np.arange(width) * BITS // width
    return np.broadcast_to(255 * (number >> bits & 1).astype(np.uint8)[None, :, None], (height, width, 3)).copy()


def number(frame):
    """Return the number that a frame spells."""
    bright = frame[:, :, 1].mean(axis=0).reshape(BITS, -1)[:, 2:-1].mean(axis=1) > 127
    return int((bright << np.arange(BITS)).sum())


def write(path, count=24, *, stamps=None, rate=25, codec=None, size=(HEIGHT, WIDTH), first=0, **options):
    """Encode frames first, first + 1, ...; `stamps` are their times in milliseconds, evenly spaced if not given."""
    import av

    unit = fractions.Fraction(1, rate) if stamps is None else fractions.Fraction(1, 1000)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec or CODECS[path.suffix], rate=rate, options={"g": "8"} | options)
        stream.height, stream.width = size
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", unit
        for i in range(count):
            frame = av.VideoFrame.from_ndarray(picture(first + i, *size), format="rgb24")
            frame.pts, frame.time_base = i if stamps is None else int(stamps[i]), unit
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_pictures(folder, count=8, *, start=1, step=1, pattern="img_{:05d}.jpg", size=(HEIGHT, WIDTH), first=0):
    """Save frames first, first + 1, ... as JPEG files numbered from `start`."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.fromarray(picture(first + i, *size)).save(folder / pattern.format(start + i * step), quality=95)
    return folder

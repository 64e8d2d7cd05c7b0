"""Videos as phones, recorders and cutters leave them, and what a plain decode makes of any video."""

import fractions
import struct

import numpy as np

from tests import clips

SIZES = {"libx265": (64, 128), "h263": (96, 128)}  # what they can encode
FORMATS = {"mjpeg": "yuvj420p", "prores_ks": "yuv422p10le", "gif": "rgb8", "png": "rgb24", "qtrle": "rgb24"}
FORMATS |= {"cinepak": "rgb24"}
STEPS = (33, 33, 100, 10)  # milliseconds


def plain(path):
    """Return all frames as PyAV's own loop gives them, [N, H, W, 3]."""
    import av

    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def encode(path, codec, count=14, *, uneven=False, **options):
    """Encode frames that spell 0, 1, ... with any codec, evenly or unevenly spaced; returns the path.

    Raises:
      Exception: of PyAV, where the container does not take the codec.
    """
    import av

    size, unit = SIZES.get(codec, (32, 48)), fractions.Fraction(1, 1000 if uneven else 25)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options={"g": "5"} | options)
        stream.height, stream.width = size
        stream.pix_fmt = FORMATS.get(codec, "yuv420p")
        stream.codec_context.time_base = unit
        for i in range(count):
            frame = av.VideoFrame.from_ndarray(clips.picture(i, *size), format="rgb24").reformat(format=stream.pix_fmt)
            frame.pts = sum(STEPS[j % 4] for j in range(i)) if uneven else i
            frame.time_base = unit
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def copy(source, path, start=0, end=None, skip=(), **options):
    """Copy packets without encoding again: from the key frame before a stamp, which becomes 0, to another.

    Packets with negative stamps, which only lead to the start, are hidden where the container can say so.
    """
    import av

    with av.open(str(source)) as old, av.open(str(path), "w", options=options) as new:
        stream = old.streams.video[0]
        target = new.add_stream_from_template(stream)
        old.seek(start, stream=stream, backward=True)
        for number, packet in enumerate(old.demux(stream)):
            if packet.dts is None or (end is not None and packet.pts >= end) or number in skip:
                continue
            packet.pts, packet.dts, packet.stream = packet.pts - start, packet.dts - start, target
            new.mux(packet)
    return path


def edit(path, entries):
    """Replace the edit list of an MP4 by (seconds, stamp of the stream at which they begin, -1 for nothing)."""
    data = bytearray(path.read_bytes())
    start = data.index(b"elst") - 4
    before = int.from_bytes(data[start : start + 4], "big")
    body = b"".join(struct.pack(">IiI", int(seconds * 1000), stamp, 1 << 16) for seconds, stamp in entries)
    box = struct.pack(">I4sII", 16 + len(body), b"elst", 0, len(entries)) + body
    data[start : start + before] = box
    for name in (b"edts", b"trak", b"moov"):  # around it
        place = data.index(name) - 4
        size = int.from_bytes(data[place : place + 4], "big") + len(box) - before
        data[place : place + 4] = size.to_bytes(4, "big")
    path.write_bytes(data)
    return path


def shown(path, matrix=None, aspect=None, size=(32, 64)):
    """Write a picture with a bright corner, to be turned by a matrix of 3 x 3 whole numbers, or with odd pixels."""
    import av

    picture = np.zeros((*size, 3), np.uint8)
    picture[: size[0] // 2, : size[1] // 4] = 255
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        if matrix is not None:
            stream.set_display_matrix(matrix)
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        for i in range(3):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = i
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def overwrite(path, share, content):
    """Put other bytes at a share of a file."""
    data = bytearray(path.read_bytes())
    start = int(share * len(data))
    data[start : start + len(content)] = content
    path.write_bytes(data)
    return path

"""Open files of videos with PyAV; whatever it raises over a broken one becomes one sentence."""

import contextlib
import errno
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from jax_promptmtl.core.errors import UserError

NOT_THE_FILE = {errno.EACCES, errno.EPERM, errno.ENOENT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM}


def pyav() -> Any:
    """Return the module PyAV, which only videos need."""
    try:
        import av
    except ImportError:
        raise UserError("Reading videos needs PyAV; install it with pip install 'jax_promptmtl[video]'.") from None
    return av


@contextlib.contextmanager
def opened(video: str | os.PathLike, *, careful: bool = False) -> Iterator[tuple[Any, Any]]:
    """Open a file; metadata that is no UTF-8 does no harm.

    Args:
      video: the file.
      careful: stop at the first fault, in one thread; else decoders conceal what they can.

    Yields:
      (container, stream of pictures), of PyAV.

    Raises:
      UserError: no video, no decoder for it, or broken. Broken files bring up any exception in PyAV, not only its own.
    """
    path, av = pathlib.Path(video), pyav()
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            stream = pictures_of(container, path)
            if careful:
                stream.codec_context.options, stream.codec_context.thread_count = {"err_detect": "explode"}, 1
            yield container, stream
    except UserError:
        raise
    except Exception as error:
        raise unreadable(path, error) from error


def pictures_of(container: Any, path: pathlib.Path) -> Any:
    """Return the first stream of pictures that is no cover."""
    covers = pyav().stream.Disposition.attached_pic
    streams = [stream for stream in container.streams.video if not stream.disposition & covers]
    if not streams:
        raise UserError(f"File {str(path)!r} has no video in it; leave it out.")
    if streams[0].codec_context is None:
        raise undecodable(path)
    return streams[0]


def undecodable(path: pathlib.Path) -> UserError:
    """Return the error of a file in a code that PyAV does not know."""
    return UserError(
        f"PyAV has no decoder for the video {str(path)!r}: it is in a rare code, or its header is broken; convert it, "
        "or leave it out."
    )


def unreadable(path: pathlib.Path, error: Exception) -> UserError:
    """Return the error of a file that PyAV cannot read."""
    reason = reason_of(error)
    if isinstance(error, pyav().error.DecoderNotFoundError):
        return undecodable(path)
    if getattr(error, "errno", None) in NOT_THE_FILE:
        return UserError(f"Cannot read the video {str(path)!r}: {reason}; make it readable or leave it out.")
    return UserError(f"Video {str(path)!r} cannot be read ({reason}); get the file again or leave it out.")


def reason_of(error: BaseException | None) -> str:
    """Return in words why PyAV stopped.

    >>> reason_of(OverflowError("too large")), reason_of(OSError(5, "Input/output error"))
    ('OverflowError: too large', 'Input/output error')
    """
    return getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"

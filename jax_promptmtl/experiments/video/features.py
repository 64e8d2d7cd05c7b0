"""The features job: what a frozen VideoMAE says of every moment of videos, as files that other models are trained on.

Windows follow VideoMAEv2's extract_tad_feature.py: they start every `stride` frames as long as they are whole, and a
feature is the normed mean over the tokens. Frames are cut into stretches of a window, the last one filled with the
video's last frame, and a feature is the mean over the places of a moment, repeated for the frames of it; it is what
auxiliaries of features see, see `models/video/featured.py`.
"""

import json
import os
import pathlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from jax_promptmtl.core.errors import UserError, pick
from jax_promptmtl.core.files import read_json, write_whole
from jax_promptmtl.core.hashes import weights_sha256
from jax_promptmtl.data.videos import folders, video_file
from jax_promptmtl.data.videos.sampling import Sampling, resize
from jax_promptmtl.models.layers.transformer import LayerNorm
from jax_promptmtl.models.video import featured
from jax_promptmtl.models.video.form import InputForm
from jax_promptmtl.models.video.pixels import PIXELS
from jax_promptmtl.models.video.videomae import EPSILON, VideoMae, VideoMaeConfig
from jax_promptmtl.problems.video_tasks import SPECS, files

Array = np.ndarray
PyTree = Any
Compute = Callable[[Array], Any]
CARD = "features.json"


def run(config: Any, workdir: pathlib.Path, *, dry_run: bool) -> None:
    """Write <video>.npy for every video below `config.root`, and features.json, which says how they were made.

    Raises:
      UserError: no videos, weights that cannot be read, two videos of one name, files of another making.
    """
    found = named(folders.listing(str(pathlib.Path(config.root).expanduser())).videos if config.root else ())
    sizes, params = open_model(config)
    keys = ("rule", "window", "stride", "size", "pixels")
    about = {"sha256": weights_sha256(params), **{key: config[key] for key in keys}}
    left = {name: video for name, video in found.items() if not (workdir / f"{name}.npy").exists()}
    print(f"{len(found):,} videos, {len(found) - len(left):,} of them done; features of {sizes.width} channels")
    if dry_run:
        return
    require_same(workdir / CARD, about)
    compute = partial(jax.jit(partial(rule_of(config), config, sizes)), jax.device_put(params))
    with tqdm(total=len(found), initial=len(found) - len(left), unit="video", disable=None) as bar:
        for name, video in left.items():
            save(workdir / f"{name}.npy", extract(config, compute, video))
            bar.update()


def named(videos: Any) -> dict[str, str]:
    """Return the name of its features for every video.

    Raises:
      UserError: none, or two of one name.
    """
    found: dict[str, str] = {}
    for video in videos:
        path = pathlib.Path(video)
        name = path.name if path.is_dir() else path.stem
        if name in found:
            raise UserError(f"Features of {found[name]!r} and {video!r} would be one file; rename one of them.")
        found[name] = video
    if not found:
        raise UserError("There are no videos; give the folder that they are in as --config.root.")
    return found


def open_model(config: Any) -> tuple[VideoMaeConfig, PyTree]:
    """Return sizes and weights of the VideoMAE."""
    if not config.weights:
        raise UserError("Features need a trained model; give --config.weights, a file of a VideoMAE.")
    spec, model = SPECS[config.task], files.plain_sizes({"model": config.model}, files.card_of(config.weights))
    sizes = spec.sizes(model, 1, InputForm(config.window, (config.size, config.size)))
    params = spec.read(files.place_of(config.weights), sizes)
    if config.rule == "windows" and "pool" not in params:
        raise UserError(f"The weights {config.weights!r} lack the last norm, fc_norm, which windows need; give others.")
    return sizes, params


def require_same(path: pathlib.Path, about: dict[str, Any]) -> None:
    """Write down how features are made, and refuse a folder of others."""
    if not path.exists():
        write_whole(path, json.dumps(about, indent=2) + "\n")
    known = read_json(path)
    for key, value in about.items():
        if known.get(key) != value:
            raise UserError(
                f"The features in {str(path.parent)!r} were made with {key} {known.get(key)!r}, not {value!r}; give "
                "another --workdir."
            )


def rule_of(config: Any) -> Callable[..., Any]:
    """Return the function of (config, sizes, weights, windows uint8[B, L, H, W, 3])."""
    return {"windows": pooled, "frames": by_frame}[pick(config.rule, ("windows", "frames"), "rule")]


def pooled(config: Any, sizes: VideoMaeConfig, params: PyTree, windows: Any) -> Any:
    """Return the normed mean of the tokens of every window, float[B, D]."""
    tokens: Any = VideoMae(sizes).apply({"params": params["trunk"]}, PIXELS[config.pixels](windows))
    return LayerNorm(EPSILON).apply({"params": params["pool"]["fc_norm"]}, tokens.mean(axis=1))


def by_frame(config: Any, sizes: VideoMaeConfig, params: PyTree, windows: Any) -> Any:
    """Return a feature of every frame, float[B, L, D]."""
    found = featured.features(sizes, params["trunk"], PIXELS[config.pixels](windows))
    return found.repeat(sizes.tubelet, axis=1)


def extract(config: Any, compute: Compute, video: str) -> Array:
    """Return the features of a video, float32[T, D], or [D, T] of frames; a batch of windows is in memory at a time."""
    count = video_file.length(video)
    whole = config.rule == "windows"
    starts = np.arange(0, count - config.window + 1, config.stride) if whole else np.arange(0, count, config.window)
    if not len(starts):
        raise UserError(f"Video {video!r} has {count} frames, fewer than a window of {config.window}; leave it out.")
    found = [np.asarray(compute(windows))[:real] for windows, real in batches(config, video, starts, count)]
    features = np.concatenate(found).astype(np.float32)
    return features if whole else np.ascontiguousarray(features.reshape(-1, features.shape[-1])[:count].T)


def batches(config: Any, video: str, starts: Array, count: int) -> Iterator[tuple[Array, int]]:
    """Yield windows uint8[B, L, S, S, 3] of a video, and how many of them are no filling."""
    shape = Sampling(frames=config.window, size=config.size, whole=True)
    for first in range(0, len(starts), config.batch_size):
        some = starts[first : first + config.batch_size]
        filled = np.pad(some, (0, config.batch_size - len(some)), mode="edge")
        wanted = np.minimum(filled[:, None] + np.arange(config.window), count - 1)
        numbers, where = np.unique(wanted, return_inverse=True)
        frames = resize(video_file.frames(video, numbers), shape, None, False)
        yield frames[where.reshape(wanted.shape)], len(some)


def save(path: pathlib.Path, features: Array) -> None:
    """Write features such that a file is whole or not there."""
    draft = path.with_name(f".{path.stem}.{os.getpid()}.tmp")
    with draft.open("wb") as file:
        np.save(file, features)
    os.replace(draft, path)

"""Declared pixels, against transformers' own processor and open_clip's transform written out anew."""

import itertools
import json

import numpy as np
import pytest
from PIL import Image, ImageOps

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data.preprocess import CLIP_MEAN, CLIP_STD, Preprocess
from jax_promptmtl.models.clip import pixels

SIDES = [(24, 24), (37, 24), (24, 31), (61, 33), (30, 47), (20, 90), (9, 12), (12, 9), (5, 30)]
RNG = np.random.default_rng(0)
STATS = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}


def told(folder, size, **files):
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return Preprocess(**pixels.declared(folder, size))


def picture(sides):
    return RNG.integers(0, 256, (*sides, 3), np.uint8)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"size": 24, "crop_size": 24},
        {"size": {"shortest_edge": 30}, "crop_size": {"height": 24, "width": 24}},
        {"size": {"shortest_edge": 20}, "crop_size": 24},
        {"size": {"height": 24, "width": 24}, "do_center_crop": False},
        {"size": {"height": 30, "width": 30}, "crop_size": 24},
        {"size": [24, 24], "do_center_crop": False, "resample": 2},
        {"do_resize": False, "crop_size": 24},
        {"size": 24, "crop_size": 24, "do_rescale": False, "do_normalize": False},
        {"size": 24, "crop_size": 24, "do_rescale": False},
        {"size": 24, "crop_size": 24, "do_normalize": False},
        {"size": 24, "crop_size": 24, "rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3, "image_std": [1.0] * 3},
        *({"size": 24, "crop_size": 24, "resample": number} for number in pixels.RESAMPLING),
        {"size": 24, "crop_size": 24, "use_square_size": False, "do_convert_rgb": True, "do_pad": False},
    ],
    ids=str,
)
def test_hugging_faces_processor(options, tmp_path):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.CLIPImageProcessorPil(**STATS | options)
    size = 224 if not options else 24
    ours = told(tmp_path, size, preprocessor_config=STATS | options)
    written = told(tmp_path, size, preprocessor_config=json.loads(theirs.to_json_string()))
    for sides in SIDES:
        image = picture(sides)
        expected = theirs(Image.fromarray(image), return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
        np.testing.assert_allclose(ours.evaluate(image), expected, rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(written.evaluate(image), ours.evaluate(image))


def of_open_clip(image, size, mode, interpolation, fill):
    """Do what `image_transform` of open_clip does for inference, with Pillow alone."""
    kind, picture = {"bilinear": Image.Resampling.BILINEAR}.get(interpolation, Image.Resampling.BICUBIC), image
    if mode == "squash":
        return picture.resize((size, size), kind)
    if mode == "shortest":
        w, h = picture.size
        w, h = (size, int(size * h / w)) if w <= h else (int(size * w / h), size)
    else:
        ratio = max(side / size for side in picture.size)
        w, h = (round(side / ratio) for side in picture.size)
        fits = [(size - side) // 2 for side in (w, h)] + [(size - side + 1) // 2 for side in (w, h)]
        return ImageOps.expand(picture.resize((w, h), kind), tuple(fits), fill=(fill,) * 3)
    left, top = round((w - size) / 2.0), round((h - size) / 2.0)
    return picture.resize((w, h), kind).crop((left, top, left + size, top + size))


@pytest.mark.parametrize("mode", [None, "shortest", "longest", "squash"])
@pytest.mark.parametrize("interpolation", [None, "bicubic", "bilinear", "random"])
@pytest.mark.parametrize("size", [None, 24, [24, 24]])
def test_open_clips_transform(mode, interpolation, size, tmp_path):
    cfg = {"size": size, "mean": CLIP_MEAN, "std": CLIP_STD, "interpolation": interpolation, "resize_mode": mode}
    cfg |= {"fill_color": 77, "mode": "RGB"}
    ours = told(tmp_path, 24, open_clip_config={"preprocess_cfg": {k: v for k, v in cfg.items() if v is not None}})
    for sides in SIDES:
        image = Image.fromarray(picture(sides))
        grey = np.asarray(of_open_clip(image, 24, mode or "shortest", interpolation, 77), np.float64) / 255
        expected = (grey - np.array(CLIP_MEAN)) / np.array(CLIP_STD)
        np.testing.assert_allclose(ours.evaluate(np.asarray(image)), expected, rtol=1e-6, atol=1e-6)


def test_training_takes_the_declared_filter(tmp_path):
    ours = told(tmp_path, 24, open_clip_config={"preprocess_cfg": {"interpolation": "bilinear"}})
    assert ours.interpolation == "bilinear" and ours.random


def test_without_files_pixels_are_openais(tmp_path):
    assert pixels.declared(tmp_path, 24) == {"size": 24, "mean": CLIP_MEAN, "std": CLIP_STD}
    (tmp_path / "open_clip_config.json").write_text('{"model_cfg": {}}')
    assert pixels.declared(tmp_path / "weights.pt", 24) == {"size": 24, "mean": CLIP_MEAN, "std": CLIP_STD}


def test_the_file_that_belongs_to_the_weights_counts(tmp_path):
    (tmp_path / "open_clip_config.json").write_text('{"preprocess_cfg": {"mean": 0.1, "resize_mode": "squash"}}')
    (tmp_path / "preprocessor_config.json").write_text('{"size": 24, "crop_size": 24}')
    theirs, ours = (pixels.declared(tmp_path, 24, prefer_open_clip=choice) for choice in (True, False))
    assert theirs == {"size": 24, "mean": (0.1,) * 3, "std": CLIP_STD, "resize": "squash"}
    assert ours == {"size": 24, "mean": CLIP_MEAN, "std": CLIP_STD, "offset": "floor"}


@pytest.mark.parametrize(
    "file, content, message",
    [
        ("preprocessor_config", {"size": 24, "crop_size": 24, "do_flip": True}, "Unknown key of .* 'do_flip'"),
        ("preprocessor_config", {"size": {"longest_edge": 24}}, "size {'longest_edge': 24}, which is not understood"),
        ("preprocessor_config", {"size": {"shortest_edge": 9, "longest_edge": 24}}, "size .*not understood"),
        ("preprocessor_config", {"size": {"height": 24, "width": 30}}, "the side of a square"),
        ("preprocessor_config", {"crop_size": {"height": 24}}, "crop_size"),
        ("preprocessor_config", {"crop_size": "24"}, "crop_size '24'"),
        ("preprocessor_config", {"resample": 9}, "resample 9"),
        ("preprocessor_config", {"do_center_crop": False}, "do_center_crop False"),
        ("preprocessor_config", {"image_processor_type": "BitImageProcessor"}, "image_processor_type 'BitImage"),
        ("preprocessor_config", {"do_pad": True}, "do_pad"),
        ("preprocessor_config", {"size": 30, "crop_size": 30}, "declares pictures of 30 pixels, .* take 24"),
        ("preprocessor_config", {"crop_size": 24, "image_std": [1, 0, 1]}, "three numbers"),
        ("preprocessor_config", {"crop_size": 24, "image_mean": [1, 0]}, "three numbers"),
        ("open_clip_config", {"preprocess_cfg": {"resize_mode": "crop"}}, "resize_mode .* 'crop'"),
        ("open_clip_config", {"preprocess_cfg": {"interpolation": "nearest"}}, "interpolation 'nearest'"),
        ("open_clip_config", {"preprocess_cfg": {"gamma": 2}}, "preprocess_cfg key of .* 'gamma'"),
        ("open_clip_config", {"preprocess_cfg": {"mode": "L"}}, "mode 'L'"),
        ("open_clip_config", {"preprocess_cfg": {"size": [24, 30]}}, "size .*the side of a square"),
        ("open_clip_config", {"preprocess_cfg": {"resize_mode": "longest", "fill_color": 300}}, "fill_color 300"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(file, content, message, tmp_path):
    with pytest.raises(UserError, match=message):
        told(tmp_path, 24, **{file: content})


def test_what_is_usual_is_not_written_down(tmp_path):
    for number, (edge, crop) in enumerate(itertools.product((24, 30), repeat=2)):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "preprocessor_config.json").write_text(json.dumps({"size": edge, "crop_size": crop}))
        found = pixels.declared(tmp_path / str(number), crop)
        assert found.get("edge", crop) == edge and ("edge" in found) == (edge != crop)

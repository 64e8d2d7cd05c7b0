"""The pixels that weights declare beside them, as options of `data.preprocess.Preprocess`; nothing is skipped.

Facts: `CLIPImageProcessor` of transformers; `PreprocessCfg` and `image_transform` of open_clip.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from jax_promptmtl.core.errors import UserError, pick
from jax_promptmtl.core.files import read_json
from jax_promptmtl.data.preprocess import CLIP_MEAN, CLIP_STD, Preprocess

HF_FILE, OPEN_CLIP_FILE = "preprocessor_config.json", "open_clip_config.json"
RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}  # Pillow's numbers
FORMAL = {  # keys of Hugging Face's files that touch no pixel of a single RGB picture
    *("do_convert_rgb", "default_to_square", "data_format", "input_data_format", "return_tensors", "device"),
    *("processor_class", "_processor_class", "_valid_processor_keys", "_valid_kwargs_names", "disable_grouping"),
    *("image_processor_type", "feature_extractor_type", "image_seq_length", "do_pad", "pad_size", "size_divisor"),
}
Options = dict[str, Any]


def declared(path: str | Path, size: int, *, prefer_open_clip: bool = False) -> Options:
    """Return what the files beside weights say of pixels, without what is usual: `Preprocess(**declared(...))`.

    Args:
      path: the folder of the weights, or a file in it.
      size: side of the pictures that the image tower takes.
      prefer_open_clip: which file counts where both are there.

    Raises:
      UserError: a key or value that is not understood, or pictures of another size than the tower's.
    """
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    hf, open_clip = folder / HF_FILE, folder / OPEN_CLIP_FILE
    own = read_json(open_clip).get("preprocess_cfg") if open_clip.is_file() else None
    found: Options = {"size": size}
    if hf.is_file() and not (prefer_open_clip and own):
        found, file = of_hugging_face(read_json(hf), str(hf)), hf
    elif own:
        found, file = of_open_clip({"size": size} | own, str(open_clip)), open_clip
    if found["size"] != size:
        raise UserError(f"{str(file)!r} declares pictures of {found['size']} pixels, but the weights take {size}.")
    require_stats(found, str(folder))
    found = {"mean": CLIP_MEAN, "std": CLIP_STD} | found
    usual = vars(Preprocess(size))
    always = ("size", "mean", "std")
    return {key: found[key] for key in always} | {
        key: value for key, value in found.items() if key not in always and value != usual[key]
    }


def require_stats(found: Options, where: str) -> None:
    """Refuse a mean or standard deviation that is not three numbers."""
    mean, std = found.get("mean", CLIP_MEAN), found.get("std", CLIP_STD)
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise UserError(f"The pixel mean {mean} and std {std} in {where!r} must be three numbers each, std positive.")


def refuse(key: str, value: Any, where: str, legal: str) -> NoReturn:
    """Refuse a value by its key."""
    raise UserError(f"{where!r} has {key} {value!r}, which is not understood; legal: {legal}.")


def triple(value: Any) -> tuple[float, ...]:
    """Return one number or several as a tuple; one number counts for all channels."""
    return tuple(value) if isinstance(value, (list, tuple)) else (value,) * 3


def square(value: Any, key: str, where: str) -> int:
    """Return the side of a square given as a number, a pair, or height and width."""
    if isinstance(value, Mapping) and set(value) == {"height", "width"}:
        value = (value["height"], value["width"])
    sides = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    if not sides or sides != sides[:1] * len(sides) or type(sides[0]) is not int or sides[0] < 1:
        refuse(key, value, where, "the side of a square")
    return sides[0]


def of_open_clip(cfg: Mapping[str, Any], where: str) -> Options:
    """Return the options of a `preprocess_cfg` of open_clip."""
    cfg = {key: value for key, value in cfg.items() if value is not None}
    known = ("size", "mode", "mean", "std", "interpolation", "resize_mode", "fill_color")
    for key in cfg:
        pick(key, known, f"preprocess_cfg key of {where!r}")
    if cfg.get("mode", "RGB") != "RGB":
        refuse("mode", cfg["mode"], where, "RGB")
    interpolation = pick(cfg.get("interpolation", "bicubic"), ("bicubic", "bilinear", "random"), "interpolation")
    resize = pick(cfg.get("resize_mode", "shortest"), ("shortest", "longest", "squash"), f"resize_mode of {where!r}")
    found: Options = {"size": square(cfg["size"], "size", where), "resize": resize}
    found["interpolation"] = "bilinear" if interpolation == "bilinear" else "bicubic"
    if resize == "longest":  # the others leave nothing to fill
        found["fill"] = cfg.get("fill_color", 0)
        if found["fill"] not in range(256):
            refuse("fill_color", found["fill"], where, "0 to 255")
    return found | {key: triple(cfg[key]) for key in ("mean", "std") if key in cfg}


def of_hugging_face(cfg: Mapping[str, Any], where: str) -> Options:
    """Return the options of a preprocessor_config.json of `CLIPImageProcessor`, whose defaults are CLIP's."""
    cfg = {key: value for key, value in cfg.items() if value is not None}
    steps = ("do_resize", "do_center_crop", "do_rescale", "do_normalize")
    known = (*steps, "size", "crop_size", "resample", "rescale_factor", "image_mean", "image_std", "use_square_size")
    for key in cfg.keys() - FORMAL:
        pick(key, known, f"key of {where!r}")
    for key in ("image_processor_type", "feature_extractor_type"):
        if not str(cfg.get(key, "CLIP")).startswith("CLIP"):
            refuse(key, cfg[key], where, "CLIPImageProcessor")
    if cfg.get("do_pad"):
        refuse("do_pad", cfg["do_pad"], where, "false")
    do = {step: cfg.get(step, True) for step in steps}
    found: Options = {"offset": "floor", "resize": "none"}
    if do["do_resize"]:
        found |= resizing(cfg, where)
    found["size"] = cropped(cfg, found, do["do_center_crop"], where)
    found["rescale"] = cfg.get("rescale_factor", 1 / 255) if do["do_rescale"] else 1.0
    if do["do_normalize"]:
        return found | {"mean": triple(cfg.get("image_mean", CLIP_MEAN)), "std": triple(cfg.get("image_std", CLIP_STD))}
    return found | {"mean": (0.0,) * 3, "std": (1.0,) * 3}


def resizing(cfg: Mapping[str, Any], where: str) -> Options:
    """Return how `size` and `resample` resize."""
    size = cfg.get("size", {"shortest_edge": 224})
    number = cfg.get("resample", 3)
    if number not in RESAMPLING:
        refuse("resample", number, where, ", ".join(f"{key} ({name})" for key, name in RESAMPLING.items()))
    if isinstance(size, int) and not cfg.get("use_square_size"):
        size = {"shortest_edge": size}
    if isinstance(size, Mapping) and set(size) == {"shortest_edge"}:
        found = {"resize": "shortest", "edge": square(size["shortest_edge"], "size", where)}
    elif isinstance(size, Mapping) and set(size) != {"height", "width"}:
        refuse("size", size, where, "shortest_edge, or height and width")
    else:
        found = {"resize": "squash", "edge": square(size, "size", where)}
    return found | {"interpolation": RESAMPLING[number]}


def cropped(cfg: Mapping[str, Any], found: Options, crops: bool, where: str) -> int:
    """Return the side of the picture in the end, and drop an `edge` that is no other."""
    if crops:
        size = square(cfg.get("crop_size", 224), "crop_size", where)
    elif found["resize"] == "squash":
        size = found["edge"]
    else:
        refuse("do_center_crop", False, where, "true, where size does not give height and width")
    if found.get("edge") == size:
        found["edge"] = 0
    return size

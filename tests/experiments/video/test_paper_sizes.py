"""Every preset of dlm_full at full size: shapes alone, so that nothing is allocated and nothing runs."""

import runpy

import jax
import numpy as np
import pytest

from jax_promptmtl.core import tree
from jax_promptmtl.methods.make import make_method
from jax_promptmtl.problems.video_tasks import SPECS
from jax_promptmtl.problems.video_tasks.files import Features, InputForm
from tests.runs import ROOT

MODULE = runpy.run_path(str(ROOT / "configs" / "dlm_full.py"))
FULL, VIDEO_FULL = MODULE["get_config"], MODULE["video_full"]
PLAIN = [preset for preset in VIDEO_FULL.SPLITS if preset not in VIDEO_FULL.STAGES]
PRESETS = (*PLAIN, *VIDEO_FULL.STAGES)
WIDTHS = {  # of the middle tokens
    **{"recognition": 768, "spatial_action": 768, "temporal_action": 512},
    **{"segmentation": 64, "video_object": 256, "video_instance": 256},
}
N0, BOTTLENECK, RANK = 10, 16, 64


def one(width, primary):
    """Return the parameters of the mapper of one auxiliary, by the formulas: P, L, the FC pair, the adapter."""
    layer = 12 * width**2 + 13 * width
    pair = width * BOTTLENECK + BOTTLENECK + BOTTLENECK * primary + primary
    return N0 * width + layer + pair + 2 * primary * RANK + RANK + primary


def count(config, widths, primary):
    """Return the parameters of the config's mapper for auxiliaries of these widths."""
    aux = {f"aux{number}": width for number, width in enumerate(widths)}
    method = make_method(dict(config.method), {"aux": aux, "primary_dim": primary, "middle": 1, "towers": {}})
    context = {
        name: (jax.ShapeDtypeStruct((1, 8, width), np.float32), jax.ShapeDtypeStruct((1, 8), bool))
        for name, width in aux.items()
    }
    return tree.count(jax.eval_shape(method.init, jax.random.key(0), context)["params"])


def sizes_of(task, model):
    form = InputForm(16, (224, 224), features=Features(128, 768))
    return SPECS[task].sizes(model.to_dict(), 20, form)


@pytest.mark.parametrize("preset", PRESETS)
def test_the_mapper_has_the_parameters_of_the_formulas(preset):
    config = FULL(preset)
    primary = SPECS[config.task].width(sizes_of(config.task, config.model))
    assert primary == WIDTHS[config.task]
    widths = {task: SPECS[task].width(sizes_of(task, config.aux[task].model)) for task in MODULE["TASKS"]}
    assert widths == WIDTHS
    assert count(config, widths.values(), primary) == sum(one(width, primary) for width in widths.values())
    assert count(config, [768], primary) == one(768, primary)


@pytest.mark.parametrize(
    ("primary", "widths", "expected"),
    [
        (768, (768, 768, 64, 256, 256), 16_421_200),  # a transformer beside two others, 50Salads, VID and YouTube-VIS
        (64, (768, 768, 768, 256, 256), 22_963_472),
        (256, (768, 768, 768, 64, 256), 22_358_864),
    ],
)
def test_the_paper_s_six_models_give_the_known_integers(primary, widths, expected):
    assert count(FULL("ssv2"), widths, primary) == sum(one(width, primary) for width in widths) == expected


def test_a_full_size_transformer_has_its_published_parameters():
    shapes = jax.eval_shape(lambda: SPECS["recognition"].draw(sizes_of("recognition", FULL("ssv2").model), 0))
    assert tree.count(shapes["trunk"]) == 86_227_200 - 2 * 768 + 12 * 768  # no last norm; key biases, which are 0

"""TransVOD's two stages: what each compares with the truth."""

import jax.numpy as jnp
import numpy as np

from jax_promptmtl.models.video.form import InputForm
from jax_promptmtl.models.video.transvod import TransVodConfig
from jax_promptmtl.problems.video_tasks.spec import Rules
from jax_promptmtl.problems.video_tasks.video_object import SPEC
from jax_promptmtl.tasks import video_object


def test_with_the_temporal_part_only_its_detections_are_compared():
    rng = np.random.default_rng(0)
    outputs = video_object.Boxes(
        jnp.asarray(rng.normal(size=(2, 3, 1, 4, 5))), jnp.asarray(rng.random((2, 3, 1, 4, 4)))
    )
    box = jnp.asarray([[[[0.1, 0.1, 0.5, 0.6]]]] * 2)
    batch = {"box": box, "label": jnp.zeros((2, 1), int), "valid": jnp.ones((2, 1, 1), bool)}
    task = SPEC.rule(SPEC.task, Rules(sizes=TransVodConfig()))
    last = video_object.Boxes(*(x[:, -1:] for x in outputs))
    np.testing.assert_allclose(task.loss(outputs, batch)[0], video_object.loss(last, batch)[0], rtol=1e-6)
    assert SPEC.rule(SPEC.task, Rules(sizes=TransVodConfig(selected=()))) is SPEC.task


def test_padding_is_seen_and_zero():
    shown = np.array([[[True, False]]])
    inputs = SPEC.see(InputForm(1, (1, 2)), {"frames": np.full((1, 1, 1, 2, 3), 255, np.uint8), "shown": shown})
    assert (inputs["video"][0, 0, 0, 0] > 2).all() and not inputs["video"][0, 0, 0, 1].any()
    np.testing.assert_array_equal(inputs["mask"], shown)

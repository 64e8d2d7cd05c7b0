"""In which form models see videos: frames, pixels, padding."""

import jax.numpy as jnp
import numpy as np
import pytest

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.models.video.form import Features, InputForm
from jax_promptmtl.models.video.pixels import NORMALISED, PIXELS, STANDARDISED, uniform

FRAMES = np.random.default_rng(0).integers(0, 256, (2, 8, 3, 4, 3), np.uint8)


def test_pixels_are_normalised_as_imagenets():
    mean, spread = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    seen = InputForm(8, (3, 4)).video({"frames": jnp.asarray(FRAMES)})
    np.testing.assert_allclose(seen, (FRAMES / 255 - mean) / spread, atol=1e-5)


def test_pixels_are_standardised_in_every_video_for_itself():
    seen = np.asarray(PIXELS[STANDARDISED](jnp.asarray(FRAMES)))
    for video, made in zip(FRAMES.astype(np.float64), seen, strict=True):
        centred = video - video.mean(axis=(0, 1, 2))
        np.testing.assert_allclose(made, centred / (1 + centred.std()), atol=1e-5)
    assert NORMALISED in PIXELS


@pytest.mark.parametrize(
    ("count", "places"), [(1, [4]), (3, [1, 4, 6]), (8, list(range(8))), (16, sorted([*range(8)] * 2))]
)
def test_frames_at_even_distances(count, places):
    np.testing.assert_array_equal(uniform(FRAMES, count), FRAMES[:, places])


def test_what_reads_features_says_so():
    features = Features(5, 7, 0.5, 0.25)
    assert InputForm(0, (0, 0), features=features).features_of() is features
    with pytest.raises(UserError, match="give it features"):
        InputForm(4, (8, 8)).features_of()


def test_a_form_of_another_size_sees_where_frames_are_padding_and_no_frame_that_is():
    shown = np.zeros((1, 8, 12), bool)
    shown[:, :, :8] = True  # the right third is padding
    frames = np.arange(6, dtype=np.uint8)[None, :, None, None, None] * np.ones((1, 6, 8, 12, 3), np.uint8)
    batch = {"frames": frames, "shown": shown, "present": np.arange(6)[None] < 4}
    form = InputForm(2, (4, 6))
    np.testing.assert_array_equal(form.shown(batch), shown[:, ::2, ::2])
    np.testing.assert_array_equal(np.unique(form.seen(batch, "frames")), [1, 3])
    assert form.seen(batch, "present").all()
    np.testing.assert_array_equal(InputForm(6, (8, 12)).seen(batch, "present"), batch["present"])

"""Saved prompts: what is written is read, and what does not fit is refused."""

from dataclasses import replace

import numpy as np
import pytest

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data import prompt_file

CARD = prompt_file.PromptCard("recognition", "vit", "ab", 6, 8, ("one", "two"), "dynamic", "train")
PROMPTS = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
FITS = {"middle": 6, "dim": 8, "task": "recognition"}


def test_prompts_and_card_come_back(tmp_path):
    prompt_file.save(tmp_path / "deep" / "prompts", PROMPTS, CARD)
    prompts, card = prompt_file.load(tmp_path / "deep" / "prompts", **FITS)
    np.testing.assert_array_equal(prompts, PROMPTS)
    assert replace(card, aux=tuple(card.aux)) == CARD


@pytest.mark.parametrize(("key", "other"), [("middle", 5), ("dim", 16), ("task", "segmentation")])
def test_prompts_for_another_model_are_one_sentence(tmp_path, key, other):
    prompt_file.save(tmp_path / "prompts", PROMPTS, CARD)
    with pytest.raises(UserError, match=rf"are for {key} {FITS[key]!r}, and the model has {other!r}"):
        prompt_file.load(tmp_path / "prompts", **{**FITS, key: other})


@pytest.mark.parametrize("harm", ["prompts.json", "prompts.safetensors"])
def test_torn_or_missing_files_are_one_sentence(tmp_path, harm):
    for content in (None, b"{"):
        prompt_file.save(tmp_path / "prompts", PROMPTS, CARD)
        path = tmp_path / harm
        path.unlink() if content is None else path.write_bytes(content)
        with pytest.raises(UserError, match="Cannot read the prompts"):
            prompt_file.load(tmp_path / "prompts", **FITS)


@pytest.mark.parametrize("width", [3, 8, 24])
def test_another_width_keeps_size_and_angles_where_it_can(width):
    fitted = prompt_file.fit_width(PROMPTS, width, 0)
    assert fitted.shape == (5, width) and fitted.dtype == np.float32
    np.testing.assert_allclose(np.mean(fitted**2), np.mean(PROMPTS**2), rtol=1e-5)
    np.testing.assert_array_equal(fitted, prompt_file.fit_width(PROMPTS, width, 0))
    if width >= 8:
        np.testing.assert_allclose(fitted @ fitted.T, PROMPTS @ PROMPTS.T * width / 8, rtol=1e-4, atol=1e-4)

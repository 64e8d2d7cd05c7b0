"""The pretraining job: a dry run says what it would train and trains nothing; weights to start from are read."""

import dataclasses

import jax
import numpy as np
import pytest

from configs import pretrain_clip
from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import UserError
from jax_promptmtl.experiments.image import pretrain
from jax_promptmtl.models.clip.model import ClipConfig
from jax_promptmtl.models.clip.tokenizer import Tokenizer

SIZES = ClipConfig(8, 16, 8, 12, 1, 1, 6, 514, 8, 1, 1, "gelu")


def test_a_dry_run_prints_sizes_and_trains_nothing(tmp_path, capsys, monkeypatch):
    words = [["bell"], ["red", "bell"], ["car"], ["fast", "car"]]
    corpus = np.zeros((4, 64, 64), np.uint8), words, ["bell", "bell", "car", None], list("abcd")
    monkeypatch.setattr(pretrain.icon_corpus, "corpus", lambda: corpus)
    config = pretrain_clip.get_config()
    config.corpus.held_out = 0.4
    pretrain.run(config, tmp_path / "none", dry_run=True)
    assert "icons" in capsys.readouterr().out and not (tmp_path / "none").exists()


def test_a_second_stage_starts_from_the_saved_weights(tmp_path):
    first = pretrain.initial(SIZES, "", seed=3)
    pretrain.save(tmp_path / "clip", SIZES, first, Tokenizer([]))
    again = pretrain.initial(SIZES, str(tmp_path / "clip"), seed=4)
    assert tree.flatten(first).keys() == tree.flatten(again).keys()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-3), first, again)  # stored in float16


def test_weights_of_another_size_are_refused(tmp_path):
    pretrain.save(tmp_path / "clip", SIZES, pretrain.initial(SIZES, "", seed=3), Tokenizer([]))
    with pytest.raises(UserError, match="sizes"):
        pretrain.initial(dataclasses.replace(SIZES, image_layers=2), str(tmp_path / "clip"), seed=0)


def test_the_second_stage_shows_distorted_coloured_and_cluttered_pictures_from_its_first_step():
    config = pretrain_clip.get_config("cluttered")
    for step in (0, config.train.steps - 1):
        options = pretrain.view(config, 36, step)
        assert (options.warp, options.printed, options.cluttered) == (config.warp, 0.0, config.cluttered)

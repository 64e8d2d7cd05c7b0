"""The pretraining job: a dry run says what it would train and trains nothing."""

import numpy as np

from configs import pretrain_clip
from jax_promptmtl import pretrain


def test_a_dry_run_prints_sizes_and_trains_nothing(tmp_path, capsys, monkeypatch):
    words = [["bell"], ["red", "bell"], ["car"], ["fast", "car"]]
    corpus = np.zeros((4, 64, 64), np.uint8), words, ["bell", "bell", "car", None], list("abcd")
    monkeypatch.setattr(pretrain.icon_corpus, "corpus", lambda: corpus)
    config = pretrain_clip.get_config()
    config.corpus.held_out = 0.4
    pretrain.run(config, tmp_path / "none", dry_run=True)
    assert "icons" in capsys.readouterr().out and not (tmp_path / "none").exists()

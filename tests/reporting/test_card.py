"""The model card beside every checkpoint."""

import json
import shlex

import jax_promptmtl
from jax_promptmtl import export, predict
from jax_promptmtl.core import command
from jax_promptmtl.engine import checkpoint
from tests.tiny import TASKS


def test_the_card_says_what_the_checkpoint_says(home):
    text = (home / "work" / "checkpoints" / "train" / "README.md").read_text()
    params, meta = checkpoint.read(home / "work" / "checkpoints" / "train")
    about, told = meta["about"], json.loads((home / "work" / "results.json").read_text())
    assert text.startswith("# MmAP: folder\n") and f"{told['trainable']:,} trained parameters" in text and params
    assert about["backbone"]["sha256"] in text and about["split_hash"] in text and "`a {}`" in text
    assert "ink + wax; oil + pen" in text and "3: cat, dog, red fox" in text
    for task, accuracy in zip(TASKS, told["accuracy"]["MmAP"], strict=True):
        assert f"| {task} | 3: cat, dog, red fox | 6 | {accuracy:.1f} |" in text


def test_its_commands_are_those_of_the_command_line(home, tmp_path):
    text = (home / "work" / "checkpoints" / "train" / "README.md").read_text()
    lines = [shlex.split(line)[3:] for line in text.splitlines() if line.startswith("python -m")]
    picture = str(home / "images" / "ink" / "cat" / "0.png")
    assert command.run(predict.start, [*lines[0][:-1], picture]) == 0 and lines[0][-1] == "picture.png"
    options = export.parse(lines[1])
    assert jax_promptmtl.load(options.workdir).tasks == TASKS and str(options.out) == "classifier"

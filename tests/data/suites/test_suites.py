"""Choice of a suite and its options."""

import pytest

from jax_promptmtl.data import suites
from jax_promptmtl.errors import UserError


@pytest.mark.parametrize(
    "config,message",
    [
        ({"name": "icon"}, r"Unknown suite 'icon'; legal values: folder, icons, tfds\. Did you mean 'icons'\?"),
        (
            {"name": "folder", "root": "x", "shot": 3},
            r"Unknown option of suite 'folder' 'shot'; .* Did you mean 'shots'",
        ),
        ({"name": "folder"}, "Suite 'folder' needs the option 'root'"),
        ({"name": "tfds", "names": ()}, "Suite 'tfds' needs the option 'names'"),
        ({"name": "folder", "root": "x", "shots": -1}, "Option 'shots' of suite 'folder' is -1"),
        ({"name": "icons", "evaluate_on": "train"}, "Unknown evaluate_on 'train'; legal values: test, tune"),
    ],
)
def test_bad_options_are_one_sentence(config, message):
    with pytest.raises(UserError, match=message):
        suites.build(config)

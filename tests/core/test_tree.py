"""Masks, the trainable/frozen cut, counts, differences and checksums of trees."""

import copy
import zlib

import jax
import numpy as np
import pytest

from jax_promptmtl.core import tree


@pytest.fixture
def params():
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    block = lambda: {"attn": {"query": {"kernel": draw(3, 3), "bias": draw(3)}}, "ln_1": {"scale": draw(3)}}  # noqa: E731
    return {
        "image": {"blocks_0": block(), "blocks_10": block()},
        "text": {"position": draw(4, 3)},
        "logit_scale": draw(),
    }


def test_flatten_gives_every_leaf_once_in_the_order_of_paths(params):
    leaves = tree.flatten(params)
    assert list(leaves) == sorted(leaves, key=lambda path: path.split("/"))
    assert {id(leaf) for leaf in leaves.values()} == {id(leaf) for leaf in jax.tree.leaves(params)}
    assert leaves["image/blocks_10/attn/query/bias"] is params["image"]["blocks_10"]["attn"]["query"]["bias"]
    assert jax.tree.structure(tree.unflatten(leaves)) == jax.tree.structure(params)


PATTERNS = {
    ("everything",): ([".*"], 8),
    ("biases",): ([".*/bias"], 2),
    ("nothing",): ([], 0),
    ("a whole path, not a part of one",): (["bias", "image", "blocks_1"], 0),
    ("block 0 but not 10",): ([r"image/blocks_0/.*"], 3),
    ("either",): ([".*/scale", "logit_scale"], 3),
}


@pytest.mark.parametrize("case", PATTERNS, ids=lambda case: case[0])
def test_a_mask_is_true_where_a_pattern_matches_the_whole_path(params, case):
    patterns, count = PATTERNS[case]
    mask = tree.mask_from_patterns(params, patterns)
    assert jax.tree.structure(mask) == jax.tree.structure(params)
    assert sum(jax.tree.leaves(mask)) == count


@pytest.mark.parametrize("pattern", [".*", ".*/bias", "none of them"])
def test_merge_inverts_partition_without_copying(params, pattern):
    mask = tree.mask_from_patterns(params, [pattern])
    chosen, others = tree.partition(params, mask)
    for path, keep in tree.flatten(mask).items():
        holes = tree.flatten(chosen)[path], tree.flatten(others)[path]
        assert (holes[0] is None, holes[1] is None) == (not keep, keep)
    for merged in (tree.merge(chosen, others), tree.merge(others, chosen)):
        assert all(leaf is tree.flatten(params)[path] for path, leaf in tree.flatten(merged).items())
    assert tree.count(chosen) + tree.count(others) == tree.count(params)


def test_gradients_of_a_partition_have_its_holes(params):
    chosen, others = tree.partition(params, tree.mask_from_patterns(params, [".*/bias"]))

    def loss(chosen, others):
        return sum((leaf**2).sum() for leaf in jax.tree.leaves(tree.merge(chosen, others)))

    gradients = jax.grad(loss)(chosen, others)
    assert jax.tree.structure(gradients) == jax.tree.structure(chosen)
    jax.tree.map(lambda g, leaf: np.testing.assert_allclose(g, 2 * leaf, rtol=1e-6), gradients, chosen)


def test_count_is_the_sum_of_sizes_also_of_shapes(params):
    sizes = 2 * (9 + 3 + 3) + 12 + 1
    assert tree.count(params) == sizes
    assert tree.count(jax.eval_shape(lambda: params)) == sizes


def test_differences_name_missing_surplus_and_reshaped_leaves(params):
    assert tree.describe_difference(params, params) == ""
    given = copy.deepcopy(params)
    del given["text"]["position"]
    given["text"]["extra"] = np.zeros(1)
    given["logit_scale"] = np.zeros(2)
    expected = "-text/position, +text/extra, logit_scale has shape (2,) not ()"
    assert tree.describe_difference(params, given) == expected


def test_a_checksum_sees_one_flipped_bit(params):
    before = tree.checksums(params)
    leaf = params["text"]["position"]
    assert before["text/position"] == zlib.crc32(leaf.tobytes())
    leaf.view(np.uint32)[2, 1] ^= 1
    after = tree.checksums(params)
    assert [path for path in before if before[path] != after[path]] == ["text/position"]
    assert tree.checksums({"a": np.asfortranarray(leaf)}) == tree.checksums({"a": leaf})

"""ResNet against the same net written out in torch with the names of torchvision's weights, and its sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import UserError
from jax_promptmtl.models.video import convert_transvod
from jax_promptmtl.models.video.resnet import ResNet, ResNetConfig

TINY = ResNetConfig(depths=(1, 2, 1, 3), width=4)


def test_the_map_equals_the_reference():
    from tests import detr_torch

    net = detr_torch.shaken(detr_torch.ResNetDC5(TINY))
    image = np.random.default_rng(0).standard_normal((2, 3, 37, 51)).astype(np.float32)
    with detr_torch.torch.no_grad():
        theirs = net(detr_torch.torch.tensor(image)).permute(0, 2, 3, 1).numpy()
    params = convert_transvod.resnet_tree(detr_torch.state_of(net))
    ours = jax.jit(ResNet(TINY).apply)({"params": params}, image.transpose(0, 2, 3, 1))
    assert theirs.shape[1:] == (*TINY.shape_of(37, 51), TINY.channels) and np.ptp(theirs) > 0
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5 * np.abs(theirs).max())


def test_resnet_50_has_its_size():
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    shapes = jax.eval_shape(ResNet(ResNetConfig()).init, jax.random.key(0), images)["params"]
    assert tree.count(shapes) == 25_557_032 - 2_049_000  # torchvision's, without the classifier
    assert len(shapes) == 1 + 3 + 4 + 6 + 3


def test_leaves_of_other_nets_are_refused():
    with pytest.raises(UserError, match=r"fc\.weight"):
        convert_transvod.resnet_tree({"fc.weight": np.zeros((2, 2))})

"""Checkpoints of ActionFormer by the names that upstream gives, against the net written out in torch."""

import jax
import numpy as np
import pytest

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import UserError
from jax_promptmtl.models.video import convert_actionformer
from jax_promptmtl.models.video.actionformer import ActionFormer, ActionFormerConfig

torch = pytest.importorskip("torch")
nn, functional = torch.nn, torch.nn.functional
IN, D, HEADS, WINDOW, STEM, BRANCH, CLASSES = 6, 8, 2, 5, 2, 2, 3


class Norm(nn.Module):
    """LayerNorm over the channels of [B, C, T], with weights of upstream's shape."""

    def __init__(self):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(1, D, 1)), nn.Parameter(torch.zeros(1, D, 1))

    def forward(self, x):
        return functional.layer_norm(x.mT, (D,)).mT * self.weight + self.bias


def named(**modules):
    """Return a module that has others by name."""
    module = nn.Module()
    for name, inner in modules.items():
        setattr(module, name, inner)
    return module


def conv(inputs, outputs, stride=1, groups=1, bias=False):
    return named(conv=nn.Conv1d(inputs, outputs, 3, stride, 1, groups=groups, bias=bias))


def factor(shape):
    module = nn.Module()
    module.scale = nn.Parameter(torch.ones(shape))
    return module


def block(stride):
    parts = {f"{name}_conv": conv(D, D, stride, D) for name in ("query", "key", "value")}
    parts |= {f"{name}_norm": Norm() for name in ("query", "key", "value")}
    parts |= {name: nn.Conv1d(D, D, 1) for name in ("query", "key", "value", "proj")}
    mlp = nn.Sequential(nn.Conv1d(D, 4 * D, 1), nn.GELU(), nn.Dropout(0), nn.Conv1d(4 * D, D, 1), nn.Dropout(0))
    whole = named(ln1=Norm(), ln2=Norm(), attn=named(**parts), mlp=mlp)
    whole.drop_path_attn, whole.drop_path_mlp, whole.stride = factor((1, D, 1)), factor((1, D, 1)), stride
    return whole


def run_block(m, x):
    def attend(x):
        q, k, v = (
            getattr(m.attn, n)(getattr(m.attn, f"{n}_norm")(getattr(m.attn, f"{n}_conv").conv(x)))
            for n in ("query", "key", "value")
        )
        q, k, v = (y.view(1, HEADS, D // HEADS, -1).mT for y in (q, k, v))
        logits = q @ k.mT / (D // HEADS) ** 0.5
        steps = torch.arange(q.shape[2])
        logits = logits.masked_fill((steps[:, None] - steps).abs() > WINDOW // 2, -torch.inf)
        return m.attn.proj((logits.softmax(-1) @ v).mT.reshape(1, D, -1))

    short = functional.max_pool1d(x, 3, 2, 1) if m.stride == 2 else x
    x = short + m.drop_path_attn.scale * attend(m.ln1(x))
    return x + m.drop_path_mlp.scale * m.mlp(m.ln2(x))


def upstream():
    """Return a random net with upstream's names, no two of whose leaves could be confused."""
    torch.manual_seed(0)
    listed = nn.ModuleList
    backbone = named(embd=listed([conv(IN, D), conv(D, D)]), embd_norm=listed([Norm(), Norm()]))
    backbone.stem, backbone.branch = listed(block(1) for _ in range(STEM)), listed(block(2) for _ in range(BRANCH))
    heads = [named(head=listed([conv(D, D), conv(D, D)]), norm=listed([Norm(), Norm()])) for _ in range(2)]
    heads[0].cls_head, heads[1].offset_head = conv(D, CLASSES, bias=True), conv(D, 2, bias=True)
    heads[1].scale = listed(factor(()) for _ in range(BRANCH + 1))
    net = named(backbone=backbone, neck=named(fpn_norms=listed(Norm() for _ in range(BRANCH + 1))))
    net.cls_head, net.reg_head = heads
    with torch.no_grad():
        for leaf in net.parameters():
            leaf += 0.3 * torch.randn(leaf.shape)
    return net


@torch.no_grad()
def run(net, features):
    """Return logits [N, C] and offsets [N, 2] of features [T, inputs]."""
    x, levels = torch.tensor(features).T[None], []
    for layer, norm in zip(net.backbone.embd, net.backbone.embd_norm, strict=True):
        x = torch.relu(norm(layer.conv(x)))
    for i, layer in enumerate([*net.backbone.stem, *net.backbone.branch]):
        x = run_block(layer, x)
        levels += [x] if i >= STEM - 1 else []

    def say(head, out, x):
        for layer, norm in zip(head.head, head.norm, strict=True):
            x = torch.relu(norm(layer.conv(x)))
        return out.conv(x)[0].T

    levels = [norm(x) for norm, x in zip(net.neck.fpn_norms, levels, strict=True)]
    reach = zip(net.reg_head.scale, levels, strict=True)
    offsets = [torch.relu(s.scale * say(net.reg_head, net.reg_head.offset_head, x)) for s, x in reach]
    return torch.cat([say(net.cls_head, net.cls_head.cls_head, x) for x in levels]).numpy(), torch.cat(offsets).numpy()


@pytest.mark.parametrize("new", [True, False], ids=["zip", "before 1.6"])
def test_upstreams_checkpoint_says_what_upstreams_net_says(tmp_path, new):
    net = upstream()
    average = {f"module.{name}": leaf for name, leaf in net.state_dict().items()}
    raw = {name: leaf + 1 for name, leaf in average.items()}
    state = {"state": {0: {"step": torch.ones(1)}}}
    content = {"epoch": 35, "state_dict": raw, "state_dict_ema": average, "optimizer": state}
    torch.save(content, tmp_path / "epoch_035.pth.tar", _use_new_zipfile_serialization=new)
    config, params = convert_actionformer.load(tmp_path, HEADS, WINDOW)
    assert config == ActionFormerConfig(IN, D, HEADS, WINDOW, 2, STEM, BRANCH, 3, CLASSES)
    features = np.random.default_rng(0).standard_normal((24, IN)).astype(np.float32)
    found = jax.jit(ActionFormer(config).apply)({"params": params}, features[None], np.ones((1, 24), bool))
    logits, offsets = run(net, features)
    np.testing.assert_allclose(found.logits[0], logits, atol=3e-5)
    np.testing.assert_allclose(found.offsets[0], offsets, atol=3e-5)
    assert np.ptp(logits) > 0.1 and (offsets > 0).any()
    assert tree.count(params) == sum(leaf.numel() for leaf in net.parameters())


def test_without_an_average_the_weights_themselves_are_read():
    state = {name: leaf.numpy() for name, leaf in upstream().state_dict().items()}
    both = {f"state_dict.module.{name}": leaf for name, leaf in state.items()}
    whole = [convert_actionformer.to_tree(given) for given in (state, both)]
    assert tree.checksums(whole[0]) == tree.checksums(whole[1])


def test_other_variants_are_named():
    state = {name: leaf.numpy() for name, leaf in upstream().state_dict().items()}
    with pytest.raises(UserError, match=r"\+backbone\.stem\.0\.attn\.rel_pe"):
        convert_actionformer.to_tree(state | {"backbone.stem.0.attn.rel_pe": np.zeros((1, 1, 2, 5), np.float32)})
    with pytest.raises(UserError, match=r"-neck\.fpn_norms\.1\.bias"):
        convert_actionformer.to_tree({name: leaf for name, leaf in state.items() if name != "neck.fpn_norms.1.bias"})
    with pytest.raises(UserError, match="not an ActionFormer"):
        convert_actionformer.to_tree({"fc.weight": np.zeros((2, 2), np.float32)})
    with pytest.raises(UserError, match="heads of width 8"):
        convert_actionformer.infer_config(convert_actionformer.to_tree(state), heads=3)

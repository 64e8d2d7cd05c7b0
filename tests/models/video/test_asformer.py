"""ASFormer against the same net written out in torch, its parameter counts, padding and prompts."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import UserError
from jax_promptmtl.models.video import asformer, convert_asformer
from jax_promptmtl.models.video.asformer import AsFormer, AsFormerConfig
from jax_promptmtl.models.video.middle import Cut

TINY = AsFormerConfig(inputs=6, width=8, layers=4, decoders=2, classes=3)
LENGTHS = (13, 10)


def batch(lengths=LENGTHS, padded=None, junk=0.0, seed=0):
    """Return features of the given lengths in a padded batch, with `junk` in the padding."""
    rng = np.random.default_rng(seed)
    features = np.full((len(lengths), padded or max(lengths), TINY.inputs), junk, np.float32)
    mask = np.zeros(features.shape[:2], bool)
    for row, length in enumerate(lengths):
        features[row, :length] = rng.standard_normal((length, TINY.inputs))
        mask[row, :length] = True
    return {"features": features, "mask": mask}


def random_params(config, seed=0):
    inputs = (jnp.zeros((1, 4, config.inputs)), jnp.ones((1, 4), bool))
    params = jax.jit(AsFormer(config).init)(jax.random.key(seed), *inputs)["params"]
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: leaf + 0.2 * rng.standard_normal(leaf.shape).astype(np.float32), params)


@pytest.fixture(scope="module")
def params():
    return random_params(TINY)


# --- parity -----------------------------------------------------------------------------------------------------------


def reference(config):
    """Return a torch module with the leaf names of upstream's checkpoints, for one video [1, inputs, L] at a time."""
    torch = pytest.importorskip("torch")
    conv = torch.nn.Conv1d

    class Attention(torch.nn.Module):
        def __init__(self, size):
            super().__init__()
            half = config.width // 2
            self.query_conv, self.key_conv = conv(config.width, half, 1), conv(config.width, half, 1)
            self.value_conv, self.conv_out = conv(config.width, half, 1), conv(half, config.width, 1)
            self.size = size

        def forward(self, x, source):
            bl, length = self.size, x.shape[-1]
            q, k, v = self.query_conv(x)[0], self.key_conv(x)[0], self.value_conv(source)[0]
            mixed = []
            for t in range(length):  # one query at a time, by the definition of its window
                first = t // bl * bl - bl // 2
                width = bl + 2 * (bl // 2)
                logits, visible, values = [], [], []
                for column in range(width):
                    s = first + column
                    inside = 0 <= s < length
                    row = t % bl
                    allowed = column < 2 * bl - 1 if config.window_mask == "released" else row <= column < row + bl
                    visible.append(float(inside and allowed))
                    logits.append(q[:, t] @ k[:, s] / math.sqrt(len(q)) if inside else torch.zeros(()))
                    values.append(v[:, s] if inside else torch.zeros(len(v)))
                visible = torch.tensor(visible)
                weights = torch.softmax(torch.stack(logits) + torch.log(visible + 1e-6), 0) * visible
                mixed.append(weights @ torch.stack(values))
            return self.conv_out(torch.relu(torch.stack(mixed, 1)[None]))

    class Module(torch.nn.Module):
        def __init__(self, size, alpha):
            super().__init__()
            self.feed_forward = torch.nn.Module()
            dilated = conv(config.width, config.width, 3, padding=size, dilation=size)
            self.feed_forward.layer = torch.nn.Sequential(dilated, torch.nn.ReLU())
            self.instance_norm = torch.nn.InstanceNorm1d(config.width)
            self.att_layer, self.conv_1x1, self.alpha = Attention(size), conv(config.width, config.width, 1), alpha

        def forward(self, x, memory):
            u = self.feed_forward.layer(x)
            normal = self.instance_norm(u)
            return x + self.conv_1x1(self.alpha * self.att_layer(normal, normal if memory is None else memory) + u)

    class Stage(torch.nn.Module):
        def __init__(self, inputs, alpha):
            super().__init__()
            self.conv_1x1, self.conv_out = conv(inputs, config.width, 1), conv(config.width, config.classes, 1)
            self.layers = torch.nn.ModuleList(Module(2**i, alpha) for i in range(config.layers))

        def forward(self, x, memory):
            x = self.conv_1x1(x)
            for layer in self.layers:
                x = layer(x, memory)
            return self.conv_out(x), x

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = Stage(config.inputs, 1.0)
            stages = (Stage(config.classes, math.exp(-3 * s)) for s in range(config.decoders))
            self.decoders = torch.nn.ModuleList(stages)

        def forward(self, x):
            logits, memory = self.encoder(x, None)
            stages = [logits]
            for decoder in self.decoders:
                logits, memory = decoder(torch.softmax(logits, 1), memory)
                stages.append(logits)
            return torch.stack(stages, 1)

    torch.manual_seed(0)
    return Net().eval()


@pytest.mark.parametrize("window_mask", ["released", "fixed"])
def test_padded_batches_equal_the_reference_video_by_video(window_mask):
    config = AsFormerConfig(6, 8, 4, 2, 3, window_mask)
    net = reference(config)
    import torch

    params = convert_asformer.to_tree({name: leaf.numpy() for name, leaf in net.state_dict().items()})
    assert convert_asformer.infer_config(params, window_mask) == config
    inputs = batch(padded=17, junk=9.0)
    ours = jax.jit(AsFormer(config).apply)({"params": params}, **inputs)
    for row, length in enumerate(LENGTHS):
        with torch.no_grad():
            video = torch.tensor(inputs["features"][row, :length].T)[None]
            theirs = net(video)[0].permute(0, 2, 1).numpy()
        np.testing.assert_allclose(ours[:, row, :length], theirs, atol=1e-5)
        assert np.ptp(theirs) > 0.1
        assert not ours[:, row, length:].any()


@pytest.mark.parametrize("new", [True, False], ids=["zip", "before 1.6"])
def test_checkpoint_file(tmp_path, new):
    net = reference(TINY)
    import torch

    torch.save(net.state_dict(), tmp_path / "epoch-120.model", _use_new_zipfile_serialization=new)
    config, params = convert_asformer.load(tmp_path / "epoch-120.model")
    assert config == TINY and tree.count(params) == sum(p.numel() for p in net.parameters())
    state = {name: leaf.numpy() for name, leaf in net.state_dict().items()}
    del state["encoder.layers.1.conv_1x1.bias"]
    with pytest.raises(UserError, match="-encoder/blocks_1/mix/bias"):
        convert_asformer.infer_config(convert_asformer.to_tree(state))
    with pytest.raises(UserError, match="position"):
        convert_asformer.to_tree(state | {"encoder.position.weight": np.zeros(3)})


@pytest.mark.parametrize("classes, count", [(19, 1_134_476), (11, 1_130_860), (48, 1_147_584)])
def test_parameter_counts_are_those_of_the_paper_s_models(classes, count):
    assert tree.count(convert_asformer.shapes(AsFormerConfig(classes=classes))) == count


# --- halves and prompts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("insertion", asformer.INSERTIONS)
def test_the_halves_are_the_whole_bit_for_bit(params, insertion):
    handle, inputs = asformer.handle("video", TINY, params, insertion=insertion), batch()
    whole = AsFormer(TINY).apply({"params": params}, **inputs)
    state = handle.lower(params, inputs)
    assert handle.middle == 2 and state.tokens.shape == (2, 13, handle.dim)
    np.testing.assert_array_equal(handle.upper(params, state, None), whole)
    np.testing.assert_array_equal(handle.upper(params, state, jnp.zeros((2, 0, 8))), whole)


@pytest.mark.parametrize("middle", [0, 1, 3])
def test_any_cut_gives_the_same(params, middle):
    handle, inputs = asformer.handle("video", TINY, params, Cut(middle)), batch()
    whole = jax.jit(AsFormer(TINY).apply)({"params": params}, **inputs)
    halves = jax.jit(lambda p, x: handle.upper(p, handle.lower(p, x), None))(params, inputs)
    np.testing.assert_allclose(halves, whole, atol=1e-6)


@pytest.mark.parametrize("insertion", asformer.INSERTIONS)
@pytest.mark.parametrize("prompted", [False, True])
def test_padding_has_no_influence(params, insertion, prompted):
    handle = asformer.handle("video", TINY, params, insertion=insertion)
    prompts = jax.random.normal(jax.random.key(2), (1, 5, 8)) if prompted else None
    outs = []
    for inputs in (batch(), batch(padded=21, junk=50.0)):
        state = jax.jit(handle.lower)(params, inputs)
        outs.append(jax.jit(handle.upper)(params, state, prompts))
    np.testing.assert_allclose(outs[1][:, :, :13], outs[0], atol=1e-5)


def test_prompts_leave_after_as_many_layers_as_told(params):
    state = asformer.handle("video", TINY, params, Cut(1)).lower(params, batch())
    prompts = jax.random.normal(jax.random.key(2), (2, 5, 8))

    def out(given, drop_after):
        upper = asformer.handle("video", TINY, params, Cut(1, drop_after)).upper
        return np.asarray(jax.tree.leaves(jax.jit(upper)(params, state, given))[0])

    none, kept, depth = out(None, 0), out(prompts, 0), asformer.handle("video", TINY, params, Cut(1)).depth
    np.testing.assert_array_equal(out(prompts, depth - 1), kept)
    once = out(prompts, 1)
    assert np.abs(once - kept).max() > 1e-5 and np.abs(once - none).max() > 1e-5


def test_prompts_count_everywhere_but_their_order_does_not(params):
    handle = asformer.handle("video", TINY, params)
    upper, state = jax.jit(handle.upper), jax.jit(handle.lower)(params, batch())
    prompts = jax.random.normal(jax.random.key(2), (2, 5, 8))
    out, plain = upper(params, state, prompts), upper(params, state, None)
    np.testing.assert_allclose(upper(params, state, prompts[:, ::-1]), out, rtol=1e-5, atol=1e-4)
    change = np.abs(out - plain).max(axis=(0, 3))
    assert (change[state.mask] > 1e-4).all()  # frames far from any edge feel them too
    shared = upper(params, state, prompts[:1])
    np.testing.assert_allclose(shared[:, 0], out[:, 0], atol=1e-5)


def test_prepended_prompts_are_time_steps(params):
    handle = asformer.handle("video", TINY, params, insertion="prepend_time")
    upper, state = jax.jit(handle.upper), jax.jit(handle.lower)(params, batch())
    prompts = jax.random.normal(jax.random.key(2), (2, 5, 8))
    out = upper(params, state, prompts)
    assert np.abs(upper(params, state, prompts[:, ::-1]) - out).max() > 1e-3
    longer = jnp.concatenate([prompts, state.tokens], axis=1)
    mask = jnp.concatenate([jnp.ones((2, 5), bool), state.mask], axis=1)
    encoded = upper(params, state._replace(tokens=longer, mask=mask), None)[0, :, 5:]
    np.testing.assert_allclose(out[0], encoded, atol=1e-5)  # the encoder's logits; the decoders have their old windows


def test_one_module_with_prompts_by_the_definition():
    """Compare one module with the rule written out frame by frame."""
    config = AsFormerConfig(inputs=8, width=8, layers=2, decoders=0, classes=3)
    params = random_params(config)
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    rng = np.random.default_rng(0)
    x, prompts = rng.standard_normal((5, 8)), rng.standard_normal((3, 8))
    handle = asformer.handle("video", config, params, Cut(1))  # one module with windows of 2 is left
    state = handle.lower(params, {"features": jnp.zeros((1, 5, 8)), "mask": jnp.ones((1, 5), bool)})
    state = state._replace(tokens=jnp.asarray(x, jnp.float32)[None])
    ours = handle.upper(params, state, jnp.asarray(prompts, jnp.float32)[None])[0, 0]

    m = p["encoder"]["blocks_1"]

    def affine(name, z):
        return z @ m[name]["kernel"] + m[name]["bias"]

    kernel, wide = m["conv"]["kernel"], np.pad(x, ((2, 2), (0, 0)))
    u = np.maximum(sum(wide[2 * tap : 2 * tap + 5] @ kernel[tap] for tap in range(3)) + m["conv"]["bias"], 0)
    u_p = np.maximum(prompts @ kernel[1] + m["conv"]["bias"], 0)
    both = np.concatenate([u, u_p])
    n, n_p = ((y - z.mean(0)) / np.sqrt(z.var(0) + 1e-5) for y, z in ((u, u), (u_p, both)))
    k, v = affine("key", np.concatenate([n, n_p])), affine("value", np.concatenate([n, n_p]))
    out = []
    for t in range(5):
        first = t // 2 * 2 - 1
        seen = [s for s in range(first, first + 3) if 0 <= s < 5] + [5, 6, 7]
        logits = affine("query", n[t]) @ k[seen].T / 2.0
        weights = np.exp(logits - logits.max())
        mixed = weights / weights.sum() @ v[seen]
        out.append(x[t] + affine("mix", affine("out", np.maximum(mixed, 0)) + u[t]))
    head = p["encoder"]["head"]
    np.testing.assert_allclose(ours, np.array(out) @ head["kernel"] + head["bias"], atol=1e-4)


def test_training_drops_channels_and_features(params):
    model, inputs = AsFormer(TINY), batch()
    apply = jax.jit(lambda key: model.apply({"params": params}, **inputs, deterministic=False, rngs={"dropout": key}))
    outs = [apply(jax.random.key(seed)) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(outs[0], outs[1])
    assert np.abs(outs[0] - outs[2]).max() > 1e-2


# --- bad input --------------------------------------------------------------------------------------------------------


def test_what_does_not_fit_is_refused(params):
    with pytest.raises(UserError, match="window_mask"):
        AsFormerConfig(window_mask="broken")
    with pytest.raises(UserError, match="insertion"):
        asformer.handle("video", TINY, params, insertion="append")
    with pytest.raises(UserError, match=r"\[videos, frames, 6\]"):
        asformer.handle("video", TINY, params).lower(params, {"features": np.zeros((1, 4, 5)), "mask": np.ones((1, 4))})

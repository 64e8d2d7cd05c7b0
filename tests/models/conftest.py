"""OpenAI's CLIP written out in torch, as an independent reference with the leaf names of its checkpoints."""

import pytest

try:
    import torch
except ModuleNotFoundError:  # the tests that need it skip themselves
    torch = None

if torch is not None:

    class OpenAIBlock(torch.nn.Module):
        """openai/CLIP clip/model.py ResidualAttentionBlock."""

        def __init__(self, width, causal):
            super().__init__()
            self.attn = torch.nn.MultiheadAttention(width, width // 64)
            self.ln_1 = torch.nn.LayerNorm(width)
            self.mlp = torch.nn.Sequential()
            self.mlp.add_module("c_fc", torch.nn.Linear(width, 4 * width))
            self.mlp.add_module("c_proj", torch.nn.Linear(4 * width, width))
            self.ln_2 = torch.nn.LayerNorm(width)
            self.causal = causal

        def forward(self, x):
            mask = torch.full((x.shape[0], x.shape[0]), -torch.inf).triu(1) if self.causal else None
            h = self.ln_1(x)
            x = x + self.attn(h, h, h, need_weights=False, attn_mask=mask)[0]
            h = self.mlp.c_fc(self.ln_2(x))
            return x + self.mlp.c_proj(h * torch.sigmoid(1.702 * h))

    class OpenAITransformer(torch.nn.Module):
        def __init__(self, width, layers, causal=False):
            super().__init__()
            self.resblocks = torch.nn.Sequential(*[OpenAIBlock(width, causal) for _ in range(layers)])

        def forward(self, x):
            return self.resblocks(x.permute(1, 0, 2)).permute(1, 0, 2)

    class OpenAIVisual(torch.nn.Module):
        """openai/CLIP clip/model.py VisionTransformer."""

        def __init__(self, c):
            super().__init__()
            width = c["image_width"]
            self.conv1 = torch.nn.Conv2d(3, width, c["patch"], c["patch"], bias=False)
            self.class_embedding = torch.nn.Parameter(torch.randn(width))
            self.positional_embedding = torch.nn.Parameter(torch.randn(1 + (c["image_size"] // c["patch"]) ** 2, width))
            self.ln_pre, self.ln_post = torch.nn.LayerNorm(width), torch.nn.LayerNorm(width)
            self.transformer = OpenAITransformer(width, c["layers"])
            self.proj = torch.nn.Parameter(torch.randn(width, c["embed_dim"]))

        def forward(self, image):
            x = self.conv1(image).flatten(2).permute(0, 2, 1)
            x = torch.cat([self.class_embedding.expand(x.shape[0], 1, -1), x], 1) + self.positional_embedding
            return self.ln_post(self.transformer(self.ln_pre(x))[:, 0]) @ self.proj

    class OpenAIClip(torch.nn.Module):
        """openai/CLIP clip/model.py CLIP, with the three scalars that its archives carry."""

        def __init__(self, c):
            super().__init__()
            self.visual = OpenAIVisual(c)
            self.transformer = OpenAITransformer(c["text_width"], c["layers"], causal=True)
            self.token_embedding = torch.nn.Embedding(c["vocab"], c["text_width"])
            self.positional_embedding = torch.nn.Parameter(torch.randn(c["context"], c["text_width"]))
            self.ln_final = torch.nn.LayerNorm(c["text_width"])
            self.text_projection = torch.nn.Parameter(torch.randn(c["text_width"], c["embed_dim"]))
            self.logit_scale = torch.nn.Parameter(torch.tensor(2.5))
            for name, value in zip(("input_resolution", "context_length", "vocab_size"), (12, 9, 40), strict=True):
                self.register_buffer(name, torch.tensor(value))

        def forward(self, image, tokens):
            image = self.visual(image)
            x = self.ln_final(self.transformer(self.token_embedding(tokens) + self.positional_embedding))
            text = x[torch.arange(x.shape[0]), tokens.argmax(-1)] @ self.text_projection
            image, text = (f / f.norm(dim=1, keepdim=True) for f in (image, text))
            return self.logit_scale.exp() * image @ text.T


@pytest.fixture(scope="session")
def openai_clip():
    """Return the reference class; it takes a dict of sizes."""
    pytest.importorskip("torch")
    return OpenAIClip

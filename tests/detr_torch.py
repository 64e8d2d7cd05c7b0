"""Deformable DETR and TransVOD written out in torch, with the leaf names of upstreams' checkpoints."""

import math

import pytest

torch = pytest.importorskip("torch")
nn, functional = torch.nn, torch.nn.functional


class Bottleneck(nn.Module):
    def __init__(self, channels, inner, stride, dilation, projected):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, inner, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3, self.bn3 = nn.Conv2d(inner, 4 * inner, 1, bias=False), nn.BatchNorm2d(4 * inner)
        if projected:
            shortcut = nn.Conv2d(channels, 4 * inner, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(4 * inner))

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(torch.relu(self.bn2(self.conv2(y)))))
        return torch.relu(y + (self.downsample(x) if hasattr(self, "downsample") else x))


class ResNetDC5(nn.Module):
    """The last stage has stride 1; there the first block has dilation 1 and the others have 2."""

    def __init__(self, config):
        super().__init__()
        self.conv1 = nn.Conv2d(3, config.width, 7, 2, padding=3, bias=False)
        self.bn1, channels = nn.BatchNorm2d(config.width), config.width
        for i, (stride, depth) in enumerate(zip((1, 2, 2, 1), config.depths, strict=True)):
            inner, blocks = config.width * 2**i, []
            for j in range(depth):
                dilation = 2 if i == 3 and j else 1
                blocks.append(Bottleneck(channels, inner, 1 if j else stride, dilation, projected=j == 0))
                channels = 4 * inner
            setattr(self, f"layer{i + 1}", nn.Sequential(*blocks))

    def forward(self, x):
        x = functional.max_pool2d(torch.relu(self.bn1(self.conv1(x))), 3, 2, padding=1)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


class DeformableAttention(nn.Module):
    """On one map; `reference` is [N, Q, 2] or [N, Q, 4] in [0, 1] of the padded map, `valid` [N, M] true where real."""

    def __init__(self, c):
        super().__init__()
        self.heads, self.points = c.heads, c.points
        self.sampling_offsets = nn.Linear(c.width, c.heads * c.points * 2)
        self.attention_weights = nn.Linear(c.width, c.heads * c.points)
        self.value_proj, self.output_proj = nn.Linear(c.width, c.width), nn.Linear(c.width, c.width)

    def forward(self, query, reference, cells, shape, valid, copies=1):
        (count, queries, width), (rows, columns) = query.shape, shape
        value = self.value_proj(cells) * valid[..., None]
        offsets = self.sampling_offsets(query).view(count, queries, self.heads, self.points, 2)
        weights = self.attention_weights(query).view(count, queries, self.heads, self.points).softmax(-1)
        reference = reference[:, :, None, None]
        if reference.shape[-1] == 2:
            where = reference + offsets / torch.tensor([columns, rows])
        else:
            where = reference[..., :2] + offsets / self.points * reference[..., 2:] / 2
        # Upstream keeps the points once per reference frame; a kernel for one map reads the first of that memory.
        memory = where[:, :, :, None].expand(-1, -1, -1, copies, -1, -1).flatten()
        where = memory[: where.numel()].view(where.shape)
        heads = []
        for h in range(self.heads):
            channels = slice(h * width // self.heads, (h + 1) * width // self.heads)
            grid = value[..., channels].transpose(1, 2).reshape(count, -1, rows, columns)
            seen = functional.grid_sample(grid, 2 * where[:, :, h] - 1, align_corners=False)  # [N, C, Q, P]
            heads.append((seen * weights[:, None, :, h]).sum(-1).transpose(1, 2))
        return self.output_proj(torch.cat(heads, -1))


class Mlp(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(c.width, c.inner), nn.Linear(c.inner, c.width)

    def added(self, x):
        return x + self.linear2(torch.relu(self.linear1(x)))


class EncoderLayer(Mlp):
    def __init__(self, c):
        super().__init__(c)
        self.self_attn, self.norm1, self.norm2 = DeformableAttention(c), nn.LayerNorm(c.width), nn.LayerNorm(c.width)

    def forward(self, x, position, reference, shape, valid):
        x = self.norm1(x + self.self_attn(x + position, reference, x, shape, valid))
        return self.norm2(self.added(x))


class QueryLayer(Mlp):
    """Of the temporal query encoder; the decoder's layer has another cross-attention."""

    def __init__(self, c):
        super().__init__(c)
        self.self_attn = nn.MultiheadAttention(c.width, c.heads, batch_first=True)
        self.cross_attn = nn.MultiheadAttention(c.width, c.heads, batch_first=True)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(c.width) for _ in range(3))

    def forward(self, x, others):
        x = self.norm2(x + self.self_attn(x, x, x)[0])
        return self.norm3(self.added(self.norm1(x + self.cross_attn(x, others, others)[0])))


class DecoderLayer(QueryLayer):
    def __init__(self, c):
        super().__init__(c)
        self.cross_attn = DeformableAttention(c)

    def forward(self, x, position, reference, cells, shape, valid, copies=1):
        query = x + position
        x = self.norm2(x + self.self_attn(query, query, x)[0])
        x = self.norm1(x + self.cross_attn(x + position, reference, cells, shape, valid, copies))
        return self.norm3(self.added(x))


class BoxHead(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, out) for out in (width, width, 4))

    def forward(self, x):
        return self.layers[2](torch.relu(self.layers[1](torch.relu(self.layers[0](x)))))


def group(**parts):
    """Return a module of named parts."""
    module = nn.Module()
    for name, part in parts.items():
        setattr(module, name, part)
    return module


def logit(x):
    return torch.log(x.clamp(1e-5, 1) / (1 - x).clamp(1e-5, 1))


def moved(change, reference):
    known = reference.shape[-1]
    return torch.cat([change[..., :known] + logit(reference), change[..., known:]], -1).sigmoid()


class TransVod(nn.Module):
    """One clip, whose first frame is the key frame."""

    def __init__(self, config):
        super().__init__()
        c, self.selected, self.released = config.detector, config.selected, config.temporal_points == "released"
        self.width = c.width
        self.backbone = nn.ModuleList([group(body=ResNetDC5(c.resnet))])
        project = nn.Conv2d(c.resnet.channels, c.width, 1)
        self.input_proj = nn.ModuleList([nn.Sequential(project, nn.GroupNorm(c.groups, c.width))])
        self.query_embed = nn.Embedding(c.queries, 2 * c.width)
        self.class_embed = nn.ModuleList(nn.Linear(c.width, c.classes) for _ in range(c.decoders))
        self.bbox_embed = nn.ModuleList(BoxHead(c.width) for _ in range(c.decoders))
        decoder = nn.ModuleList(DecoderLayer(c) for _ in range(c.decoders))
        self.transformer = group(
            encoder=group(layers=nn.ModuleList(EncoderLayer(c) for _ in range(c.encoders))),
            decoder=group(layers=decoder, bbox_embed=self.bbox_embed),  # refinement: the same heads
            level_embed=nn.Parameter(torch.randn(1, c.width)),
            reference_points=nn.Linear(c.width, 2),
        )
        if config.selected:
            for i in range(len(config.selected)):
                setattr(self.transformer, f"temporal_query_layer{i + 1}", QueryLayer(c))
            self.transformer.temporal_decoder = group(layers=nn.ModuleList([DecoderLayer(c)]))
            self.transformer.temporal_encoder_layer = QueryLayer(c)  # which is in the files, but never runs
            self.temp_class_embed, self.temp_bbox_embed = nn.Linear(c.width, c.classes), BoxHead(c.width)

    def position(self, valid):
        """Return [F, h, w, D] of a mask [F, h, w]."""
        halves = []
        for axis in (1, 2):
            count = valid.float().cumsum(axis)
            place = (count - 0.5) / (count.select(axis, -1).unsqueeze(axis) + 1e-6) * 2 * math.pi
            half = torch.zeros(*valid.shape, self.width // 2)
            for j in range(self.width // 2):
                angle = place / 10000 ** (2 * (j // 2) / (self.width // 2))
                half[..., j] = torch.sin(angle) if j % 2 == 0 else torch.cos(angle)
            halves.append(half)
        return torch.cat(halves, -1)

    def forward(self, video, valid):
        """Return the stages' logits and boxes of the key frame, of [F, 3, H, W] and a mask [F, H, W]."""
        t = self.transformer
        maps = self.input_proj[0](self.backbone[0].body(video))
        frames, shape = len(maps), maps.shape[-2:]
        valid = functional.interpolate(valid[None].float(), size=shape)[0].bool()
        ratio = torch.stack([valid[:, 0].float().mean(1), valid[:, :, 0].float().mean(1)], -1)[:, None]
        position = self.position(valid).flatten(1, 2) + t.level_embed[0]
        y, x = torch.meshgrid(*((torch.arange(n) + 0.5) / n for n in shape), indexing="ij")
        places = torch.stack([x, y], -1).reshape(1, -1, 2).expand(frames, -1, 2)
        cells, valid = maps.flatten(2).transpose(1, 2), valid.flatten(1)
        for layer in t.encoder.layers:
            cells = layer(cells, position, places, shape, valid)
        query, x = self.query_embed.weight.expand(frames, -1, -1).chunk(2, -1)
        reference, stages = t.reference_points(query).sigmoid(), []
        for layer, classify, place in zip(t.decoder.layers, self.class_embed, self.bbox_embed, strict=True):
            x = layer(x, query, reference * torch.cat([ratio] * (reference.shape[-1] // 2), -1), cells, shape, valid)
            reference = moved(place(x), reference)
            stages.append((classify(x)[0], reference[0]))
        if self.selected:
            stages.append(self.ask(x, reference, ratio, cells, shape, valid))
        return stages

    def ask(self, x, reference, ratio, cells, shape, valid):
        """Return logits and boxes of the key frame after it has asked the others."""
        t, others, key = self.transformer, x[1:].flatten(0, 1), x[:1]
        score = self.class_embed[-1](others).sigmoid()
        for i, count in enumerate(self.selected):
            best = score.flatten().topk(count * (len(x) - 1)).indices // score.shape[-1]
            key = getattr(t, f"temporal_query_layer{i + 1}")(key, others[best][None])
        where = reference[:1] * torch.cat([ratio[:1]] * 2, -1)
        copies = len(x) - 1 if self.released else 1
        key = t.temporal_decoder.layers[0](key, 0, where, cells[:1], shape, valid[:1], copies)
        return self.temp_class_embed(key)[0], moved(self.temp_bbox_embed(key), reference[:1])[0]


def shaken(module, seed=0):
    """Return a module in evaluation mode with random weights and statistics everywhere."""
    torch.manual_seed(seed)
    for name, leaf in module.state_dict().items():
        if name.endswith("running_var"):
            leaf.uniform_(0.5, 2)
        elif leaf.is_floating_point():
            leaf.add_(0.2 * torch.randn_like(leaf))
    return module.eval()


def state_of(module):
    """Return the leaves of a module as arrays."""
    return {name: leaf.numpy() for name, leaf in module.state_dict().items()}

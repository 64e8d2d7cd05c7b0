"""The icons that pretrain the embedded CLIP: other families than the suite's, without its held-out drawings."""

import hashlib

import numpy as np

from jax_promptmtl.data.icons import concepts, glyphs, icon_split, likeness

FAMILIES = ("mdi6", "fluent_reg", "fluent_fil", "mi", "mi_out", "mi_sharp", "codicon")


def corpus() -> tuple[np.ndarray, list[list[str]], list[str | None], list[str]]:
    """Render the pretraining corpus.

    Left out: exact copies of an earlier glyph, glyphs without a word in their name, and every near-duplicate
    (`likeness.SAME_DRAWING`) of a drawing that the suite tests or tunes on.

    Returns:
      masks uint8[N, 64, 64], caption words, concept or None, and keys `family:name`; N about 16 thousand.

    Raises:
      UserError: a wheel is missing; `pip install 'jax_promptmtl[pretrain]'` brings them all.
    """
    held_out = glyphs.render_keys([row.key for row in icon_split.rows() if row.part in ("tune", "test")])
    masks, captions, named, keys, seen = [], [], [], [], set()
    for family in FAMILIES:
        names, drawn = glyphs.render_masks(family)
        fresh = likeness.nearest(drawn, held_out) < likeness.SAME_DRAWING
        for name, mask, ok in zip(names, drawn, fresh, strict=True):
            mark, caption = hashlib.sha256(mask.tobytes()).digest(), concepts.words(family, name)
            if ok and caption and mark not in seen:
                seen.add(mark)
                masks.append(mask)
                captions.append(caption)
                named.append(concepts.concept(family, name))
                keys.append(f"{family}:{name}")
    return np.stack(masks), captions, named, keys

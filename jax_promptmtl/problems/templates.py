"""The texts of classes: templates, ensembles of them, their tokens, and what would make two classes one."""

import json
import pathlib
import string
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jax import Array

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.core.files import ASSETS, read_json
from jax_promptmtl.models.clip.model import Backbone, normalize

Texts = str | Sequence[str]  # one template, or an ensemble
Template = Texts | Mapping[str, Any]  # or such for every task, or for every class of every task
ENSEMBLES = {"imagenet80": "templates_imagenet80.txt"}  # of openai/CLIP, `notebooks/Prompt_Engineering_for_ImageNet`


def resolve(template: Template) -> Template:
    """Return a template with what it names in its place, checked.

    Args:
      template: such as "a photo of a {}."; several, whose class features are averaged; a name of `ENSEMBLES`; a .txt
        file with one template a line; {task: template} or {task: {class: template}}, or a .json file of one.

    Raises:
      UserError: a template without exactly one {}, or a file that is none.
    """
    if isinstance(template, str) and template in ENSEMBLES:
        template = lines(ASSETS / ENSEMBLES[template])
    elif isinstance(template, str) and template.endswith(".txt"):
        template = lines(pathlib.Path(template).expanduser())
    elif isinstance(template, str) and template.endswith(".json"):
        template = read_json(pathlib.Path(template).expanduser())
    template = plain(template)
    for one in every(template):
        require(one)
    return template


def plain(template: Any) -> Any:
    """Return a template as JSON has it, which is how checkpoints keep it."""
    try:
        return json.loads(json.dumps(template.to_dict() if hasattr(template, "to_dict") else template))
    except TypeError:
        raise UserError(f"config.template is {template!r}; give a text, a list of texts, or such by task.") from None


def lines(path: pathlib.Path) -> list[str]:
    """Return the lines of a file of templates."""
    try:
        found = [line.strip() for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Cannot read the templates {str(path)!r} ({error}); give a text file in UTF-8.") from None
    if not found:
        raise UserError(f"The templates {str(path)!r} are none; give one a line.")
    return found


def every(template: Template) -> list[Any]:
    """Return all single templates of what `resolve` gives."""
    if isinstance(template, Mapping):
        return [one for part in template.values() for one in every(part)] or [None]
    return [template] if isinstance(template, str) or not isinstance(template, Sequence) else list(template) or [None]


def require(template: Any) -> None:
    """Refuse what is no text with one {} for the class, and nothing else to fill in."""
    try:
        fields = [(field, spec, to) for _, field, spec, to in string.Formatter().parse(template) if field is not None]
    except (ValueError, TypeError):
        fields = []
    if fields != [("", "", None)]:
        raise UserError(
            f"The template {str(template)!r} must have exactly one {{}}, where the class's name goes, such as 'a photo "
            "of a {}.'; correct config.template."
        )


def templates(template: Template, task: str, class_name: str) -> list[str]:
    """Return the templates of a class."""
    for key, what in ((task, "task"), (class_name, "class")):
        if isinstance(template, Mapping):
            if key not in template:
                raise UserError(f"config.template has templates by {what} and none for {key!r}; give some.")
            template = template[key]
    found = [template] if isinstance(template, str) else list(template)
    for one in found:
        require(one)
    return found


class Ensemble:
    """The token rows of the class texts of all tasks, several per class where there are several templates.

    Attributes:
      tokens: per task int32[C_t * M, context length], the M texts of a class one after another.
      weight: float32[T, C, M] of each text in its class's feature; None where every class has one text.
      classes: C_t of every task.
    """

    def __init__(self, backbone: Backbone, tasks: Sequence[Any], template: Template, slot: int):
        """Fill the templates; `slot` placeholder ids after the start token are what prompts of layer 0 replace."""
        filled = [[fill(templates(template, task.name, name), name) for name in task.class_names] for task in tasks]
        most = max(len(texts) for classes in filled for texts in classes)
        padded = [[(texts * most)[:most] for texts in classes] for classes in filled]
        rows = [[text for texts in classes for text in texts] for classes in padded]
        self.tokens = [tokenize(backbone, texts, slot) for texts in rows]
        self.classes = [len(classes) for classes in filled]
        self.weight = None
        if most > 1:
            self.weight = np.zeros((len(tasks), max(self.classes), most), np.float32)
            for row, classes in zip(self.weight, filled, strict=True):
                for share, texts in zip(row, classes, strict=False):
                    share[: len(texts)] = 1 / len(texts)

    @property
    def real(self) -> np.ndarray:
        """Return bool[T, C], true for the classes that a task has."""
        real: np.ndarray = np.arange(max(self.classes)) < np.array(self.classes)[:, None]
        return real


def average(features: Array, weight: np.ndarray | None) -> Array:
    """Return float[T, C, E] of the features float[T, C * M, E] of all texts: the mean of those of length 1."""
    if weight is None:
        return features
    split = rearrange(normalize(features), "t (c m) e -> t c m e", m=weight.shape[2])
    return jnp.einsum("tcme,tcm->tce", split, weight)


def fill(patterns: Sequence[str], class_name: str) -> list[str]:
    """Return the texts of a class, in whose name "_" reads as a space.

    >>> fill(["a {}."], "red_fox")
    ['a red fox.']
    """
    return [pattern.format(class_name.replace("_", " ")) for pattern in patterns]


def tokenize(backbone: Backbone, texts: Sequence[str], slot: int) -> np.ndarray:
    """Return int32[N, context length] of texts, zero-padded, with `slot` placeholders after the start token."""
    tokens = backbone.tokenizer.tokenize(texts, backbone.config.context_length - slot)
    return np.insert(tokens, [1] * slot, 0, axis=1).astype(np.int32)


def require_apart(backbone: Backbone, tasks: Sequence[Any], template: Template) -> None:
    """Refuse classes whose texts are the same tokens, texts that are too long, and names that are empty."""
    for task in tasks:
        seen: dict[bytes, str] = {}
        if not task.class_names:
            raise UserError(f"Task {task.name!r} has no classes; give some.")
        for name in task.class_names:
            if not name.strip(" _"):
                raise UserError(
                    f"Task {task.name!r} has a class with the name {name!r}, which says nothing; rename it."
                )
            texts = fill(templates(template, task.name, name), name)
            key = tokenize(backbone, texts, 0).tobytes()
            if (other := seen.setdefault(key, name)) != name or task.class_names.count(name) > 1:
                raise UserError(
                    f"Classes {other!r} and {name!r} of task {task.name!r} have the same text for the text tower "
                    f"({texts[0]!r}); rename or join them."
                )

"""Find a model inside what trainings put around it: prefixes of any depth, copies that are averages, other parts."""

import re
from collections.abc import Iterable, Mapping

import numpy as np

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.models.weights.table import State

INSIDE = re.compile(r"(^|(?<=\.))(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
AVERAGE = re.compile(r"(^|[._])(ema|swa|averaged?|avg|teacher|momentum|shadow)([._]|$)")


def under(
    state: Mapping[str, np.ndarray], anchors: Iterable[str], *, average: bool = False, trunk: str = ""
) -> State | None:
    """Return the leaves of the one model that has an anchor, without the prefix of their names.

    What stands beside the prefix (an optimiser, a loss, another model) is left out. Of a model and its running average,
    `average` says which.

    Args:
      state: leaves by name.
      anchors: names of which a model has one; the first with a model counts.
      average: prefer a running average of the weights.
      trunk: regular expression of what is part of the model though it ends the prefix, such as "backbone".

    Returns:
      None if no leaf is an anchor.

    Raises:
      UserError: several models.

    >>> under({"state_dict.module.fc.bias": 1, "state_dict_ema.module.fc.bias": 2, "epoch": 3}, ["fc.bias"])
    {'fc.bias': 1}
    """
    state = {INSIDE.sub("", name): leaf for name, leaf in state.items()}
    for anchor in anchors:
        prefixes = [name[: -len(anchor)] for name in state if name.endswith(anchor)]
        prefixes = [prefix for prefix in prefixes if not prefix or prefix.endswith(".")]
        chosen = [prefix for prefix in prefixes if bool(AVERAGE.search(prefix)) == average] or prefixes
        if len(chosen) > 1:
            shown = ", ".join(repr(prefix) for prefix in sorted(chosen)[:3])
            raise UserError(f"The weights hold {len(chosen)} models (under {shown}); save one of them alone.")
        if chosen:
            prefix = re.sub(rf"(^|(?<=\.))(({trunk})\.)+$", "", chosen[0]) if trunk else chosen[0]
            return {name.removeprefix(prefix): leaf for name, leaf in state.items() if name.startswith(prefix)}
    return None

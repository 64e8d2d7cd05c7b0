"""The 126 classes of MiniDomainNet cut out of TFDS's DomainNet, whose images and train and test halves are its own.

TFDS keeps no file names, so this cannot be matched with MiniDomainNet's split files; hence another name in reports.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from jax_promptmtl.data.images import STORED
from jax_promptmtl.data.source import Suite
from jax_promptmtl.data.suites import tfds
from jax_promptmtl.data.suites.folder import MEGAPIXELS

NAMES = tuple(f"domainnet/{domain}" for domain in ("clipart", "painting", "real", "sketch"))
NAMED = """
aircraft_carrier alarm_clock ant anvil asparagus axe banana basket bathtub bear bee bird blackberry blueberry
bottlecap broccoli bus butterfly cactus cake calculator camel camera candle cannon canoe carrot castle cat
ceiling_fan cell_phone cello chair chandelier coffee_cup compass computer cow crab crocodile cruise_ship dog
dolphin dragon drums duck dumbbell elephant eyeglasses feather fence fish flamingo flower foot fork frog giraffe
goatee grapes guitar hammer helicopter helmet horse kangaroo lantern laptop leaf lion lipstick lobster
microphone monkey mosquito mouse mug mushroom onion panda peanut pear peas pencil penguin pig pillow pineapple
potato power_outlet purse rabbit raccoon rhinoceros rifle saxophone screwdriver sea_turtle see_saw sheep shoe
skateboard snake speedboat spider squirrel strawberry streetlight string_bean submarine swan table teapot
teddy-bear television The_Eiffel_Tower The_Great_Wall_of_China tiger toe train truck umbrella vase watermelon
whale zebra
"""
CLASSES = tuple(NAMED.split())


def build(
    *,
    shots: int = 3,
    seed: int = 0,
    data_dir: str = "",
    manifest: str = "",
    background: str = STORED.background,
    exif: bool = STORED.exif,
    megapixels: float = MEGAPIXELS,
) -> Suite:
    """Build the suite from prepared TFDS data sets.

    Args:
      shots: training images per class and domain; 0 for all.
      seed: draws the shots.
      data_dir: the TFDS folder; empty for TFDS's own default.
      manifest: the split's file, read if it exists, else written; empty draws anew, which reads every record.
      background, exif, megapixels: see `folder.build`; Dassl drops transparency and leaves pictures as they are stored.

    Returns:
      A suite of the tasks clipart, painting, real and sketch.

    Raises:
      UserError: see `tfds.build`.
    """
    how = {"background": background, "exif": exif, "megapixels": megapixels}
    return suite(NAMES, CLASSES, shots=shots, seed=seed, data_dir=data_dir, manifest=manifest, **how)


def suite(names: Sequence[str], classes: Sequence[str], **options: Any) -> Suite:
    """Build the suite of given data sets, named `something/task`, and classes; see `build`."""
    whole = tfds.build(names=names, classes=classes, **options)
    tasks = tuple(dataclasses.replace(task, name=task.name.rsplit("/", 1)[-1]) for task in whole.tasks)
    return dataclasses.replace(whole, name="domainnet126-tfds", tasks=tasks)

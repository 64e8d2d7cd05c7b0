"""MmAP on the icon suite: grouping by gradients, then group-shared and task-specific prompts.

    python -m jax_promptmtl.main --config=configs/mmap.py

Time and expected accuracy are in README.md. Any key can be changed: --config.suite.shots=6 --config.seed=1.
"""

from ml_collections import ConfigDict

from jax_promptmtl.configs import common


def get_config() -> ConfigDict:
    """Return the config."""
    config = ConfigDict()
    config.job = "tune"
    config.title = "MmAP"  # of the table's last column
    config.seed = 0  # of initial parameters, data order and augmentation
    config.stage = "train"  # or evaluate: only what a finished run in the work directory trained
    config.parallel = "jit"  # or pmap, classes (divides class texts), fsdp (weights, optimiser); docs/scaling.md
    config.workers = 0  # processes that read images; 0 reads in threads
    config.evaluation_batch_size = 64
    config.template = (
        "{}"  # class text, such as "a photo of a {}."; the embedded CLIP learnt from bare names. imagenet80,
    )
    # a .txt file with one a line, or a .json file of {task: texts}: the mean of several texts

    config.backbone = ConfigDict()
    config.backbone.path = "icon_clip"  # the embedded one, or a folder or file of weights
    config.backbone.activation = ""  # quick_gelu or gelu, where nothing beside the weights tells
    config.backbone.tokenizer = ""  # path, where it is not beside the weights
    config.backbone.dtype = "float32"  # or bfloat16, of the frozen towers; not exact, for accelerators
    config.memory = ConfigDict()  # all save memory and change no result
    config.memory.remat = False  # compute the inside of every block again in the backward pass
    config.memory.class_chunk = 0  # class texts to encode at a time; 0: all
    config.memory.image_chunk = 0  # images to take through a training step at a time; 0: all

    config.suite = ConfigDict({"name": "icons"}, convert_dict=True)  # see data/suites
    config.suite.shots = 12  # training images per class and task
    config.suite.seed = 0  # draws the shots
    config.suite.evaluate_on = "test"  # or tune, for choosing hyper-parameters
    config.suite.data_dir = ""  # empty: the user's cache

    config.augment = ConfigDict()  # of training images
    config.augment.scale = (0.7, 1.0)  # area of the crop
    config.augment.ratio = (0.8, 1.25)  # width / height of the crop
    config.augment.flip = 0.0  # probability of a mirror image

    config.method = ConfigDict()  # see methods/mmap.py
    config.method.name = "mmap"
    config.method.sets = ("group", "task")  # eq. 9-10
    config.method.length = 4  # prompt tokens b per set and layer
    config.method.rows = 4  # m of the source prompt; divides b
    config.method.columns = 64  # n of the source prompt; divides both widths
    config.method.source_std = 0.02
    config.method.scale_std = 1.0
    config.method.order = "scale_source"
    config.sharing = ConfigDict({"group": "group", "task": "task"})  # which tasks share which set: all, group, task
    config.tune = ()  # patterns of backbone weights to train as well, such as (".*/bias",)

    # sgd is the paper's, see configs/mmap_vit_b16.py; the rate was chosen with suite.evaluate_on=tune
    config.train = common.training(epochs=6, batch_size=32, optimizer=common.optimizer(3e-3))
    config.train.sampler = "union"  # or stratified: every task in every batch
    config.train.reduction = "mean"  # or sum_of_task_means (eq. 11), with the stratified sampler

    config.grouping = ConfigDict()
    config.grouping.source = "learn"  # or one, random (same sizes as the learned ones), given
    config.grouping.groups = ()  # task names, where given: (("a", "b"), ("c", "d"))
    config.grouping.similarity = "dot"  # eq. 8; or cosine, split_half
    config.grouping.objective = "mean"  # or sum, centered, signed; see methods/clustering.py
    config.grouping.singletons = "forbidden"  # or allowed
    config.grouping.num_groups = 0  # 0: whatever is best
    config.grouping.warmup_epochs = 1.0  # whose snapshots do not count
    config.grouping.method = config.method.copy_and_resolve_references()  # the global prompts P_glb
    config.grouping.method.sets = ("group",)
    config.grouping.sharing = ConfigDict({"group": "all"})
    config.grouping.tune = ()
    config.grouping.train = config.train.copy_and_resolve_references()
    config.grouping.train.epochs = 3
    config.grouping.train.sampler = "stratified"
    return config

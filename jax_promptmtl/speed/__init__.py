"""The speed of this project against PyTorch's on the same work."""

SECTIONS = ("products", "kernels", "steps", "evaluation", "growth", "memory")  # of the measurements
TASKS = {"coop": 1, "vpt": 1, "maple": 1, "mmap": 4}  # method: how many tasks it is measured with

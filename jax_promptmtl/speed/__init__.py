"""Benchmark of speed and memory against PyTorch on the same work."""

SECTIONS = ("products", "kernels", "steps", "evaluation", "growth", "memory")  # of the measurements
TASKS = {"coop": 1, "vpt": 1, "maple": 1, "mmap": 4}  # method: number of tasks in its cells

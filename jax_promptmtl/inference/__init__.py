"""Use of trained checkpoints: prediction, export, and interpretation of prompts."""

PLATFORMS = ("cpu", "cuda", "tpu")  # of an export
LEGAL = (*PLATFORMS, "rocm")
VIDEO_JOBS = ("finetune", "video")  # whose results see videos

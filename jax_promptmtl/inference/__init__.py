"""What was trained, in use: predictions, exports, and what the prompts mean."""

PLATFORMS = ("cpu", "cuda", "tpu")  # of an export
LEGAL = (*PLATFORMS, "rocm")
VIDEO_JOBS = ("finetune", "video")  # whose results see videos

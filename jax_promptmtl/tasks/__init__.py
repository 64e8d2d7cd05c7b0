"""Video tasks: targets, losses, decoding and metrics as pure functions; see `task.py`.

`problems/video_tasks` joins them with models.
"""

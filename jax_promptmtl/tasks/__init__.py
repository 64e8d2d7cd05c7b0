"""The tasks of videos: targets, losses, decoding and measures, as pure functions; see `task.py`.

`problems/video_tasks` joins them with models.
"""

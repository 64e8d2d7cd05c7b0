"""What the tests of video data sets share."""

import pytest

from tests import video_trees


@pytest.fixture
def annotations_only(monkeypatch):
    """Write no videos and frames."""
    for writer in ("write", "write_pictures"):
        monkeypatch.setattr(video_trees.clips, writer, lambda *arguments, **options: None)

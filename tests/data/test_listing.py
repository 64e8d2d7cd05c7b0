"""What is below a folder: against trees made here, with links, pipes and folders of operating systems."""

import os

import pytest

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data.listing import listing, loose, subfolders


def make(root, *names, content=b"x"):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


def test_pictures_of_all_endings_and_what_is_passed_over(tmp_path):
    pictures = ("a.jpg", "b/c.JFIF", "b/d/e.avif", "f.jp2", "g.tga", "h.ppm", "i.jpe")
    make(tmp_path, *pictures, "notes.txt", "b/x.psd", "b/clip.mp4", ".hidden.png", "README")
    found = listing(tmp_path)
    assert list(found.sizes) == sorted(pictures) and set(found.sizes.values()) == {1}
    assert found.passed == ["README", "b/clip.mp4", "b/x.psd", "notes.txt"]


@pytest.mark.parametrize(
    "name", ["@eaDir", "__MACOSX", "$RECYCLE.BIN", "System Volume Information", "lost+found", ".git", "@EADIR"]
)
def test_folders_of_systems_are_passed_over(tmp_path, name):
    make(tmp_path, "a.png", f"{name}/b.png", f"c/{name}/d.png", "c/e.png")
    assert list(listing(tmp_path).sizes) == ["a.png", "c/e.png"]
    assert [place.name for place in subfolders(tmp_path)] == ["c"] and loose(tmp_path) == ["a.png"]


def test_links_are_followed_once(tmp_path):
    make(tmp_path, "class/real/a.png", "elsewhere/b.png", "class/c.png")
    home = tmp_path / "class"
    (home / "again").symlink_to("real")
    (home / "loop").symlink_to(".")
    (home / "real" / "up").symlink_to("..")
    (home / "far").symlink_to("../elsewhere")
    (home / "far2").symlink_to("../elsewhere")
    (home / "self").symlink_to("self")
    found = listing(home)
    assert sorted(name.rpartition("/")[2] for name in found.sizes) == ["a.png", "b.png", "c.png"]
    assert "real/a.png" in found.sizes and found.passed == ["self"]


def test_what_is_no_regular_file_counts_as_empty(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    assert listing(tmp_path).sizes == {"gone.png": 0, "loop.png": 0, "pipe.png": 0, "zero.png": 0}


def test_deep_folders(tmp_path):
    place = tmp_path
    for _ in range(300):
        place /= "abc"
    place.mkdir(parents=True)
    (place / "a.png").write_bytes(b"x")
    assert len(listing(tmp_path).sizes) == 1


def test_a_folder_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="Cannot read the folder"):
        listing(tmp_path / "nowhere")

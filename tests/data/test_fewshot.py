"""Few-shot splits: nested, reproducible, pinned by a hash."""

import json
import random

import pytest

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data import fewshot

NAMES = {
    task: {c: [f"{task}/{c}/{i:03d}.png" for i in range(count)] for c, count in (("car", 40), ("cup", 30), ("few", 4))}
    for task in ("art", "photo")
}


def draw(shots, seed=0, names=NAMES, **options):
    return fewshot.split(names, shots=shots, seed=seed, **options)


def test_shots_are_nested_and_the_rest_tests():
    previous = set()
    for shots in (1, 3, 6, 12, 24):
        halves = draw(shots)["art"]["car"]
        assert previous < set(halves["train"]) and len(halves["train"]) == shots
        assert set(halves["train"]) | set(halves["test"]) == set(NAMES["art"]["car"])
        assert not set(halves["train"]) & set(halves["test"])
        previous = set(halves["train"])


def test_fewer_than_k_gives_all_without_repeats():
    halves = draw(12)["art"]["few"]
    assert sorted(halves["train"]) == NAMES["art"]["few"] and halves["test"] == []


def test_reserve_fixes_one_test_set_for_all_shots():
    tests = [draw(shots, reserve=24)["photo"]["cup"]["test"] for shots in (1, 6, 24)]
    assert tests[0] == tests[1] == tests[2] and len(tests[0]) == 6


def test_listing_order_and_other_classes_do_not_matter():
    shuffled = {t: {c: random.Random(1).sample(n, len(n)) for c, n in reversed(cs.items())} for t, cs in NAMES.items()}
    assert draw(6, names=shuffled) == draw(6)
    alone = {"art": {"car": NAMES["art"]["car"]}}
    assert draw(6, names=alone)["art"]["car"] == draw(6)["art"]["car"]


def test_seed_task_and_class_each_change_the_draw():
    def numbers(seed, task, c):
        return fewshot.order([f"{i:03d}" for i in range(40)], seed=seed, task=task, class_name=c)

    draws = [numbers(0, "art", "car"), numbers(1, "art", "car"), numbers(0, "photo", "car"), numbers(0, "art", "cup")]
    assert len(set(map(tuple, draws))) == 4


def test_groups_take_turns():
    groups = {f"{g}{i}": g for g in "abc" for i in range(5)}
    queue = fewshot.order(list(groups), seed=0, task="t", class_name="c", groups=groups)
    for start in range(0, 15, 3):
        assert {groups[name] for name in queue[start : start + 3]} == set("abc")


def test_the_draw_is_pinned_across_versions():
    assert fewshot.generator(0, "art").integers(0, 1000, 4).tolist() == [910, 845, 491, 127]


def test_manifest_round_trip_names_files_and_refuses_edits(tmp_path):
    path = tmp_path / "deep" / "split.json"
    sha256 = fewshot.write_manifest(path, draw(3), shots=3, seed=0)
    assert fewshot.read_manifest(path) == (draw(3), sha256)
    assert [p.name for p in path.parent.iterdir()] == ["split.json"]
    content = json.loads(path.read_text())
    content["tasks"]["art"]["car"]["train"][0] = "art/car/039.png"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"does not match its sha256 .* delete it to draw the split anew\."):
        fewshot.read_manifest(path)


@pytest.mark.parametrize("text", ["", "[]", "{}", "\x00"])
def test_unreadable_manifest_is_one_sentence(tmp_path, text):
    (tmp_path / "split.json").write_text(text)
    with pytest.raises(UserError, match="Cannot read the split manifest"):
        fewshot.read_manifest(tmp_path / "split.json")


def test_manifest_of_another_version_is_one_sentence(tmp_path):
    path = tmp_path / "split.json"
    fewshot.write_manifest(path, draw(3), shots=3, seed=0)
    path.write_text(path.read_text().replace('"version": 1', '"version": 9'))
    with pytest.raises(UserError, match="has version 9; legal: 1"):
        fewshot.read_manifest(path)


def test_held_out_names_test_and_the_rest_is_not_used():
    held_out = {"art": {"car": ["art/car/z.png", "art/car/y.png"]}}
    halves = draw(3, names={"art": NAMES["art"]}, held_out=held_out)["art"]
    assert halves["car"] == {"train": draw(3)["art"]["car"]["train"], "test": ["art/car/y.png", "art/car/z.png"]}
    assert halves["cup"]["test"] == []


def test_pin_draws_once_and_refuses_another_draw(tmp_path):
    path, draws = tmp_path / "split.json", []

    def counted():
        draws.append(1)
        return draw(3)

    about = {"shots": 3, "seed": 0, "pool": "union"}
    assert (
        fewshot.pin(path, counted, **about) == fewshot.pin(path, counted, **about) == (draw(3), fewshot.digest(draw(3)))
    )
    assert len(draws) == 1
    assert fewshot.pin(path, counted, shots=3, seed=0, reserve=12)[0] == draw(3)  # what it does not tell is not checked
    with pytest.raises(UserError, match=r"has shots=3, but the config asks for shots=6; change the config"):
        fewshot.pin(path, counted, **(about | {"shots": 6}))
    assert fewshot.pin("", counted, **about) == fewshot.pin(path, counted, **about) and len(draws) == 2


def test_pin_where_nothing_can_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"Cannot write the split '.*split\.json' \(.*\); set `manifest` elsewhere"):
        fewshot.pin(tmp_path / "file" / "split.json", lambda: draw(3), shots=3, seed=0)

"""Every class has both sides in every style; the committed result is checked in test_icon_split.py."""

from jax_promptmtl.data.icons import division


def test_wanted_adds_up():
    for size in range(2, 40):
        goal = division.wanted(size)
        assert sum(goal.values()) == size and goal["train"] >= 1 and goal["test"] >= 1


def test_divide_gives_a_shared_group_one_part_and_every_style_both_sides():
    styles_of = {0: frozenset("ab"), 1: frozenset("a"), 2: frozenset("b"), 3: frozenset("ab"), 4: frozenset("b")}
    part = division.divide("x", styles_of, {g: f"eva:{g}" for g in styles_of})
    for style in "ab":
        mine = {part[g] for g, styles in styles_of.items() if style in styles}
        assert {"train", "test"} <= mine
    assert part == division.divide("x", styles_of, {g: f"eva:{g}" for g in styles_of})

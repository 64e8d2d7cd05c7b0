"""Reading objects out of icon names."""

import tomllib

import pytest

from jax_promptmtl.core.files import ASSETS
from jax_promptmtl.data.icons import concepts, glyphs

TABLE = tomllib.loads((ASSETS / "concepts.toml").read_text())


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("lucide:alarm-clock-check", "clock"),
        ("fa6s:cart-shopping", "cart"),
        ("mdi6:account-multiple-outline", "couple"),
        ("fluent_reg:ic-fluent-phone-24-regular", "smartphone"),  # Fluent's phone has a screen
        ("fluent_reg:ic-fluent-call-24-regular", "phone"),  # and its call is a handset
        ("bootstrap:phone-fill", "smartphone"),
        ("bootstrap:calendar2-check-fill", "calendar"),
        ("elusive:fork", None),  # a fork in the road
        ("fa5s:times", None),  # a cross, not a clock
        ("mi:arrow_drop_down", None),  # a caret, not a drop
        ("mdi6:heart-box", None),  # a box
        ("fa6s:cloud-bolt", None),  # two objects
        ("codicon:repo-forked", None),
        ("lucide:chevron-up", None),  # no object
        ("remix:map-pin-2-line", "location"),
        ("fa6s:paper-plane", "send"),
        ("mdi6:piggy-bank", "piggy bank"),
        ("mi:hotel", "bed"),
        ("fa6s:magnifying-glass", "search"),
    ],
)
def test_concept_of_a_name(key, expected):
    assert concepts.concept(*key.split(":")) == expected


def test_words_are_captions_without_digits_or_style():
    assert concepts.words("fluent_fil", "ic-fluent-document-text-link-24-filled") == ["document", "text", "link"]
    assert concepts.words("ion", "ion-android-alarm-clock") == ["alarm", "clock"]
    assert concepts.words("boxicons", "bxs-map") == ["map", "pin"]
    assert concepts.words("mi", "3d_rotation") == ["3d", "rotation"]
    assert concepts.words("mi", "10k") == ["k"]


def test_there_are_48_classes_and_they_are_concepts():
    assert len(concepts.CLASSES) == len(set(concepts.CLASSES)) == 48
    assert concepts.CONCEPTS[:48] == concepts.CLASSES and len(set(concepts.CONCEPTS)) == len(concepts.CONCEPTS) > 165


def test_no_phrase_names_two_concepts_and_no_class_is_misspelt():
    seen = {}
    for name, phrases in (*TABLE["classes"].items(), *TABLE["others"].items()):
        for phrase in phrases.split("|"):
            assert seen.setdefault(phrase.strip(), name) == name, phrase
    assert set(TABLE["vetoes"]) <= set(concepts.CONCEPTS)
    assert set(TABLE["readings"]) | set(TABLE["style_words"]) - {"any"} <= set(glyphs.FAMILIES)


def test_every_phrase_names_its_concept_unless_it_is_vetoed():
    for name, phrases in (*TABLE["classes"].items(), *TABLE["others"].items()):
        for phrase in phrases.split("|"):
            assert concepts.named(phrase.split()) == [name], phrase


def test_the_longest_phrase_wins():
    assert concepts.named(["credit", "card"]) == ["card"]
    assert concepts.named(["sim", "card", "heart"]) == ["sim card", "heart"]
    assert concepts.named([]) == []

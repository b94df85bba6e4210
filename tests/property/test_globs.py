"""Globs against their definition, and the order of their specificity."""

import random

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from wcmatch import fnmatch

from core.globs import FLAGS, Glob, GlobIndex, GlobSet

_PIECES = [
    "a",
    "b",
    "-",
    ".",
    "/",
    "*",
    "?",
    "[ab]",
    "[!a]",
    "[a-c]",
    "[]a]",
    "[[:digit:]]",
    "{a,b*}",
    "{,a}",
    "{1..3}",
]
_PIECES += [
    "\\*",
    "\\{",
    "\n",
    "é",
    "1",
    "!",
    "@",
    "(",
    ")",
    "|",
    "~",
    "^",
    "$",
    "+",
    "**",
    "[.*?]",
    "[\\]]",
    "[a/]",
    "]",
]
patterns = st.lists(st.sampled_from(_PIECES), min_size=1, max_size=8).map("".join)
names = st.text(alphabet="ab-./1*{\né]^$!c", min_size=1, max_size=12)


def compiled(pattern: str) -> Glob | None:
    try:
        return Glob(pattern)
    except ValueError:
        return None


@settings(max_examples=200, deadline=None)
@given(patterns, st.lists(names, min_size=1, max_size=8))
@example("*", ["\n"])
@example("a", ["a\n"])
@example("[.*?]x", ["*x", "ax"])
def test_a_glob_matches_what_wcmatch_matches(pattern: str, candidates: list[str]) -> None:
    glob = compiled(pattern)
    assume(glob is not None)
    assert glob is not None
    for name in candidates:
        assert fnmatch.fnmatch(name, pattern, flags=FLAGS) == glob.matches(name), (pattern, name)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["*", "a", "b", "ab", "-"]), min_size=1, max_size=7).map("".join), names)
def test_captures_put_back_into_the_stars_give_the_name_again(pattern: str, name: str) -> None:
    glob = Glob(pattern)
    captured = glob.captures(name)
    assert glob.matches(name) == (captured is not None)
    if captured is not None:
        assert glob.captures_count == len(captured)
        rebuilt, rest = "", list(captured)
        for index, piece in enumerate(pattern):
            if piece != "*":
                rebuilt += piece
            elif index == 0 or pattern[index - 1] != "*":
                rebuilt += rest.pop(0)
        assert name == rebuilt


@settings(max_examples=100, deadline=None)
@given(st.lists(patterns, min_size=1, max_size=10), names)
def test_an_index_finds_what_trying_every_glob_finds(texts: list[str], name: str) -> None:
    globs = [glob for glob in map(compiled, texts) if glob]
    index = GlobIndex((glob, position) for position, glob in enumerate(globs))
    expected = [position for position, glob in enumerate(globs) if glob.matches(name)]
    assert expected == list(index.matching(name))
    found = GlobSet(glob.pattern for glob in globs).first(name)
    assert (globs[expected[0]].pattern if expected else None) == found


@settings(max_examples=100, deadline=None)
@given(st.lists(patterns, min_size=2, max_size=8, unique=True), st.integers())
def test_specificity_with_the_place_in_the_file_is_a_total_order(texts: list[str], seed: int) -> None:
    """Any shuffle sorts alike, no two keys are equal, and an exact name comes before any wildcard."""
    globs = [glob for glob in map(compiled, texts) if glob]
    keyed = [(glob.specificity, place) for place, glob in enumerate(globs)]
    assert len(keyed) == len(set(keyed))
    shuffled = list(keyed)
    random.Random(seed).shuffle(shuffled)
    assert sorted(keyed) == sorted(shuffled)
    exact_first = [bool(globs[place].names) for _, place in sorted(keyed)]
    assert sorted(exact_first, reverse=True) == exact_first

"""What each kind of pattern means, what is refused, and what a hostile name costs."""

import pytest

from core.globs import MAX_NAME, Glob, GlobIndex, GlobSet
from tests.cost import least_seconds


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("gpt-4o", "gpt-4o", True),
        ("gpt-4o", "GPT-4o", False),
        ("gpt-4o", "gpt-4o\n", False),
        ("gpt-4*", "gpt-4", True),
        ("gpt-4*", "gpt-4o/mini", True),
        ("*", ".hidden", True),
        ("*", "a\nb", True),
        ("gpt-?", "gpt-4", True),
        ("gpt-?", "gpt-4o", False),
        ("gpt-[34]", "gpt-3", True),
        ("gpt-[!34]", "gpt-3", False),
        ("{gpt,o}-*", "o-1", True),
        ("gpt-4{,o}", "gpt-4", True),
        ("gpt-\\*", "gpt-*", True),
        ("gpt-\\*", "gpt-4", False),
        ("a.b", "axb", False),
        ("*", "", False),
        ("*", "x" * MAX_NAME, True),
        ("*", "x" * (MAX_NAME + 1), False),
    ],
)
def test_a_glob_matches_whole_names_by_case(pattern: str, name: str, expected: bool) -> None:
    assert expected == Glob(pattern).matches(name)


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("claude-*", "claude-sonnet-4", ("sonnet-4",)),
        ("*-*", "a-b-c", ("a", "b-c")),
        ("*/*", "a/b/c", ("a", "b/c")),
        ("a*b*", "ab", ("", "")),
        ("a**b", "axyb", ("xy",)),
        ("{gpt,o}-*", "o-mini", ("mini",)),
        ("gpt-4", "gpt-4", ()),
        ("gpt-*", "claude", None),
    ],
)
def test_each_star_captures_the_shortest_match(pattern: str, name: str, expected: tuple[str, ...] | None) -> None:
    assert expected == Glob(pattern).captures(name)


def test_alternatives_with_different_stars_have_no_number_of_captures() -> None:
    assert Glob("{gpt-*,o1}").captures_count is None
    assert 1 == Glob("{gpt-*,o*}").captures_count


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("", "matches nothing"),
        ("x" * 257, "too long"),
        ("gpt-[4", "`[` is never closed"),
        ("gpt-[!", "`[` is never closed"),
        ("gpt-[z-a]", "can match nothing"),
        ("gpt-4\\", "lone `\\`"),
        ("{gpt-4", "`{` is no part of a list"),
        ("gpt-4}", "`}` is no part of a list"),
        ("{gpt}", "`{` is no part of a list"),
        ("{1..65}", "more than 64 alternatives"),
        ("{a,b}" * 9, "more than 64 alternatives"),
        ("{1..1000000000}", "more than 64 alternatives"),
        ("{" * 200, "more than 16 `{`"),
    ],
)
def test_a_bad_pattern_is_refused_with_its_mend(pattern: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        Glob(pattern)
    assert message in str(caught.value)


def test_specificity_prefers_exact_then_literals_then_fewer_wildcards() -> None:
    expected = ["gpt-4o-mini", "gpt-4o", "{gpt-4o,o1}", "gpt-4o*", "gpt-4*", "gpt-*4", "gpt-*", "*gpt-*", "?", "*"]
    assert expected[:-2] == sorted(expected[:-2], key=lambda pattern: Glob(pattern).specificity)
    assert Glob("?").specificity == Glob("*").specificity  # the place in the file decides


def test_only_a_plain_name_is_exact() -> None:
    assert [True, False, False, False] == [Glob(text).exact for text in ("gpt-4", "gpt-\\*", "{a,b}", "gpt-*")]
    assert [("gpt-4",), ("gpt-*",), ("a", "b"), ()] == [
        Glob(text).names for text in ("gpt-4", "gpt-\\*", "{a,b}", "gpt-*")
    ]


def test_globs_of_one_text_are_equal() -> None:
    assert Glob("a*") == Glob("a*")
    assert Glob("a*") != Glob("b*")
    assert 1 == len({Glob("a*"), Glob("a*")})
    assert "Glob('a*')" == repr(Glob("a*"))


def test_a_set_gives_the_earliest_pattern_that_matches() -> None:
    globs = GlobSet(["*-mini", "gpt-*", "gpt-4o", "*o*"])
    assert "gpt-*" == globs.first("gpt-4o")
    assert "*-mini" == globs.first("gpt-4o-mini")
    assert "*o*" == globs.first("foo")
    assert globs.first("bar") is None
    assert not globs.matches("bar")
    assert "GlobSet(['a'])" == repr(GlobSet(["a"]))


def test_an_index_gives_each_position_once() -> None:
    index = GlobIndex([(Glob("gpt-*"), 3), (Glob("{gpt-4,*4}"), 3), (Glob("*"), 1)])
    assert [1, 3] == list(index.matching("gpt-4"))
    assert [] == list(index.matching(""))
    assert [] == list(index.matching("x" * (MAX_NAME + 1)))


@pytest.mark.parametrize(
    "pattern", ["*a*a*a*a*b", "*a" * 120 + "b", "?*" * 80 + "b", "*" + "a" * 250 + "b", "[ab]*" * 50 + "c"]
)
def test_a_hostile_name_costs_less_than_a_look_at_each_character_for_each_of_the_pattern(pattern: str) -> None:
    """An engine that backtracks through the stars takes hours for the first of these."""
    glob = Glob(pattern)
    name = "a" * MAX_NAME
    assert not glob.matches(name)
    matching, looking = least_seconds(lambda: glob.matches(name), lambda: sum(1 for _ in pattern for _ in name))
    assert matching < looking

"""Which entry of a list goes on from which, and which file it stays in."""

import pytest

from config.document import Value
from config.edit.apply import merge_patch
from config.edit.ownership import distribute
from config.edit.values import is_same, pair


def test_values_are_the_same_in_their_types_too() -> None:
    assert is_same({"a": [1, None], "b": float("nan")}, {"b": float("nan"), "a": [1, None]})
    for one, other in ((1, 1.0), (1, True), (0.0, -0.0), ("1", 1), ([1], [1, 1]), ({"a": 1}, {"b": 1})):
        assert not is_same(one, other)  # type: ignore[arg-type]


def test_entries_are_paired_by_name_then_by_value_then_by_place() -> None:
    old: list[Value] = [{"name": "a"}, {"from": "x", "to": "y"}, "s", {"k": 1}, "s"]
    new: list[Value] = ["s", {"name": "b"}, {"from": "x", "to": "z"}, {"k": 2}, "s", {"name": "a", "k": 1}, "s"]
    assert [2, None, 1, 3, 4, 0, None] == pair(old, new)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("abc", ["ab", "c"]),
        ("abcn", ["ab", "cn"]),
        ("nabc", ["nab", "c"]),
        ("acb", ["acb", ""]),
        ("cab", ["cab", ""]),
        ("abnc", ["abn", "c"]),
        ("c", ["", "c"]),
        ("", ["", ""]),
    ],
)
def test_lists_stay_in_their_files_as_far_as_their_order_allows(wanted: str, found: list[str]) -> None:
    files = distribute([{"l": list("ab")}, {"l": ["c"]}], {"l": list(wanted)})
    assert wanted == "".join(str(value) for file in files for value in file["l"])  # type: ignore[union-attr]
    if wanted not in ("acb", "cab"):
        assert found == ["".join(file["l"]) for file in files]  # type: ignore[arg-type]


def test_a_new_key_goes_to_the_root_or_to_the_file_of_its_mapping() -> None:
    files: list[dict[str, Value]] = [{"a": 1}, {"b": {"c": 1}}, {"b": {"d": 1}}]
    wanted: dict[str, Value] = {"a": 1, "n": 2, "b": {"c": 1, "d": 2, "e": 3}}
    assert [{"a": 1, "n": 2}, {"b": {"c": 1, "e": 3}}, {"b": {"d": 2}}] == distribute(files, wanted)


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_the_examples_of_rfc_7396_appendix_a(target: Value, patch: Value, result: Value) -> None:
    assert result == merge_patch(target, patch)

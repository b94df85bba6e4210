"""Entries put into and taken out of documents, shown as text before and after."""

from textwrap import dedent

import pytest

from config.document import Value
from config.edit.apply import apply
from config.edit.edits import Edit, MergePatch, PutDocument, PutEntry, RemoveEntry
from config.edit.errors import EditRefused, EntryExists, EntryMissing, Unreadable
from config.sources import SourceFile
from config.starter import starter_config


def source(text: str, name: str = "config.yaml") -> SourceFile:
    return SourceFile(f"/etc/{name}", name, text.encode())


def edited(before: str, edit: Edit) -> str:
    (after,) = apply((source(dedent(before)),), edit)
    return after.data.decode()


BLOCK = """\
    # of the file

    # of the providers
    providers:   # behind them

      # of one
      - name: one    # the first
        type: echo
        # not yet
      # of two
      - name: 'two'
        type: echo   # as well
        models: [a, b]

      # of nobody

    server: {workers: 1}
    """


def test_a_new_entry_is_written_as_its_neighbours_are() -> None:
    after = edited(BLOCK, PutEntry("providers", "three", {"type": "x", "models": ["m-*"], "tls": {"ca": "a.pem"}}))
    assert (
        """\
    models: [a, b]
  - name: three
    type: x
    models: ["m-*"]
    tls: {ca: a.pem}

  # of nobody
"""
        in after
    )


def test_a_new_entry_stands_before_the_one_that_is_named() -> None:
    after = edited(BLOCK, PutEntry("providers", "three", {"type": "x"}, before="two"))
    new = "  - name: three\n    type: x\n"
    assert after == dedent(BLOCK).replace("  # of two\n", f"{new}  # of two\n")


def test_an_entry_moves_with_its_comments() -> None:
    after = edited(BLOCK, PutEntry("providers", "two", {"type": "echo", "models": ["a", "b"]}, before="one"))
    two = "  # of two\n  - name: 'two'\n    type: echo   # as well\n    models: [a, b]\n"
    without = dedent(BLOCK).replace(two, "")
    assert without.replace("  # of one\n", f"{two}  # of one\n") == after


def test_what_stays_equal_in_a_changed_entry_keeps_its_spelling_and_comments() -> None:
    value: dict[str, Value] = {"name": "two", "type": "other", "models": ["a", "c", "b"], "weight": 2}
    after = edited(BLOCK, PutEntry("providers", "two", value))
    expected = dedent(BLOCK).replace("type: echo   # as", "type: other   # as")
    assert expected.replace("[a, b]\n", "[a, c, b]\n    weight: 2\n") == after


def test_an_entry_goes_with_its_comments_and_leaves_those_of_others() -> None:
    after = edited(BLOCK, RemoveEntry("providers", "one"))
    gone = "\n  # of one\n  - name: one    # the first\n    type: echo\n    # not yet\n"
    assert dedent(BLOCK).replace(gone, "\n") == after


def test_the_last_entry_leaves_an_empty_list() -> None:
    assert "a: []  # c\nb: 1\n" == edited("a:  # c\n  - name: x\nb: 1\n", RemoveEntry("a", "x"))


def test_the_first_entry_of_an_empty_list_gets_lines_of_its_own() -> None:
    expected = "a:  # c\n  - name: x\n    k: 1\nb: 1\n"
    assert expected == edited("a: []  # c\nb: 1\n", PutEntry("a", "x", {"k": 1}))
    assert "a:\n  - name: x\n" == edited("", PutEntry("a", "x", {}))
    assert "# c\na:\n  - name: x\n" == edited("# c", PutEntry("a", "x", {}))
    assert "a:\n  - name: x\n" == edited("{}\n", PutEntry("a", "x", {}))


def test_neighbours_in_brackets_are_followed() -> None:
    before = "model_aliases:\n- {from: a, to: p/a}  # c\n"
    after = edited(before, PutEntry("model_aliases", "b-*", {"to": "p/b: *"}))
    assert before + '- {from: "b-*", to: "p/b: *"}\n' == after


def test_lists_in_brackets_on_lines_keep_one_entry_a_line() -> None:
    before = "a: [\n  {name: x},  # of x\n  # over w\n  {name: w}  # of w\n]\n"
    added = "a: [\n  {name: x},  # of x\n  # over w\n  {name: w},  # of w\n  {name: z}\n]\n"
    assert added == edited(before, PutEntry("a", "z", {}))
    assert "a: [\n  # over w\n  {name: w}  # of w\n]\n" == edited(before, RemoveEntry("a", "x"))
    assert "a: [\n  {name: x}  # of x\n]\n" == edited(before, RemoveEntry("a", "w"))


@pytest.mark.parametrize(
    ("before", "key", "after"),
    [
        ("[{name: x}, {name: w}]", "x", "[{name: w}]"),
        ("[{name: x}, {name: w}]", "w", "[{name: x}]"),
        ("[ {name: x}, {name: w}, ]", "w", "[ {name: x}, ]"),
        ("[{name: x}]", "x", "[]"),
        ('[{"name":"x"},{"name":"y"},{"name":"z"}]', "y", '[{"name":"x"},{"name":"z"}]'),
    ],
)
def test_lists_in_brackets_on_one_line_stay_on_it(before: str, key: str, after: str) -> None:
    assert f"a: {after}  # c\n" == edited(f"a: {before}  # c\n", RemoveEntry("a", key))


def test_json_stays_json() -> None:
    before = '{\n  "a": [\n    {"name": "x"}\n  ],\n  "b": 1\n}\n'
    after = edited(before, MergePatch({"a": [{"name": "x", "k": "v"}, {"name": "w"}], "c": "d"}))
    assert '{\n  "a": [\n    {"name": "x", "k": "v"},\n    {"name": "w"}\n  ],\n  "b": 1,\n  "c": "d"\n}\n' == after


def test_line_breaks_of_dos_stay() -> None:
    before = "a:\r\n  # c\r\n  - name: x\r\n    k: 1\r\nb: 2\r\n"
    (after,) = apply((SourceFile("c", "c", before.encode()),), PutEntry("a", "w", {"k": 2}))
    assert before.replace("b: 2", "  - name: w\r\n    k: 2\r\nb: 2").encode() == after.data


def test_a_file_without_a_last_line_break_gets_one_before_what_is_new() -> None:
    assert "a:\n  - name: x\n  - name: w\n" == edited("a:\n  - name: x", PutEntry("a", "w", {}))


def test_the_indentation_of_the_file_is_kept() -> None:
    before = "a:\n- name: x\n  m:\n      k: [{p: 1}, {p: 2}]\n"
    after = edited(before, PutEntry("a", "w", {"m": {"k": [{"p": 1}]}}))
    assert before + "- name: w\n  m:\n      k:\n      - p: 1\n" == after


def test_a_first_key_on_the_line_of_its_dash_may_go() -> None:
    before = "a:\n  - k: 1  # c\n    # of name\n    name: x\n    l: 2\n"
    assert "a:\n  - # of name\n    name: x\n    l: 2\n" == edited(before, PutEntry("a", "x", {"name": "x", "l": 2}))


def test_quotes_of_a_changed_text_stay() -> None:
    before = "a: 'x'\nb: \"x\"\nc: x\nd: [ 'x' ]\n"
    after = edited(before, MergePatch({"a": "it's", "b": "y", "c": "1", "d": ["x", "w"]}))
    assert "a: 'it''s'\nb: \"y\"\nc: \"1\"\nd: [ 'x', w ]\n" == after


def test_kinds_of_values_change_places() -> None:
    before = "a: 1  # a\nb:  # b\n  c: |  # c\n    text\n  d: [1]\n"
    assert "a:  # a\n  - x: 1\nb: 2  # b\n" == edited(before, MergePatch({"a": [{"x": 1}], "b": 2}))
    assert "a: 1  # a\nb:  # b\n  c: t  # c\n  d: null\n" == edited(
        before, MergePatch({"b": {"c": "t", "d": None}})
    ).replace("  c: t  # c\n", "  c: t  # c\n  d: null\n")


def test_entries_keep_the_starters_commented_out_ones() -> None:
    starter = starter_config("0" * 64)
    removed = edited(starter, RemoveEntry("providers", "echo"))
    assert "providers: []\n" in removed
    assert "  #- {name: openai," in removed
    assert edited(removed, PutEntry("providers", "echo", {"type": "echo"})).count("# A real one:") == 1


def test_what_must_exist_and_what_must_not() -> None:
    with pytest.raises(EntryMissing, match="there is no entry `x`"):
        edited("a: []\n", PutEntry("a", "x", {}, must_exist=True))
    with pytest.raises(EntryExists, match="there is an entry `x` already"):
        edited("a: [{name: x}]\n", PutEntry("a", "x", {}, must_exist=False))
    with pytest.raises(EntryMissing):
        edited("a: [{name: x}]\n", PutEntry("a", "x", {}, before="y"))
    with pytest.raises(EntryMissing):
        edited("{}\n", RemoveEntry("a", "x"))
    with pytest.raises(EntryMissing, match=r"`other\.yaml` is not a file of this document"):
        edited("{}\n", PutDocument(b"{}", "other.yaml"))


def test_what_cannot_be_told_apart_is_refused() -> None:
    with pytest.raises(EditRefused, match="there are several entries `x`"):
        edited("a: [{name: x}, {name: x}]\n", RemoveEntry("a", "x"))
    with pytest.raises(EditRefused, match="an entry keeps its name"):
        edited("a: []\n", PutEntry("a", "x", {"name": "y"}))
    with pytest.raises(EditRefused, match="a: must be a list"):
        edited("a: 1\n", PutEntry("a", "x", {}))
    with pytest.raises(EditRefused, match="must stay a mapping"):
        edited("a: 1\n", MergePatch([1]))
    with pytest.raises(EditRefused, match="half a character"):
        edited("a: 1\n", MergePatch({"a": "\ud800"}))


def test_a_broken_file_is_never_touched() -> None:
    files = (source("a: 1\n"), source("b: [\n", "more.yaml"))
    for edit in (MergePatch({"a": 2}), RemoveEntry("a", "x"), PutDocument(b"{}", "more.yaml")):
        with pytest.raises(Unreadable, match=r"/etc/more\.yaml:1:5: not YAML"):
            apply(files, edit)
    assert b"a: 2" == apply(files, PutDocument(b"a: 2"))[0].data
    with pytest.raises(Unreadable, match=r"/etc/more\.yaml:1: set twice|set twice"):
        apply((source("a: 1\n"), source("a: 2\n", "more.yaml")), MergePatch({"b": 1}))


def test_anchors_are_kept_or_the_edit_is_refused() -> None:
    before = "a: &a {x: 1}\nb: *a\nc: {y: *a}\n"
    assert "a: &a {x: 1}\nb: {x: 2}\nc: {y: *a}\n" == edited(before, MergePatch({"b": {"x": 2}}))
    assert "a: &a {x: 1}\nb: *a\nc: {y: {x: 3}}\n" == edited(before, MergePatch({"c": {"y": {"x": 3}}}))
    assert before + "d: 1\n" == edited(before, MergePatch({"d": 1}))
    patches: tuple[Value, ...] = ({"a": {"x": 2}}, {"a": 1}, {"a": None})
    for patch in patches:
        with pytest.raises(EditRefused, match=r"config\.yaml:1:[0-9]+: .*an anchor \(`&a`\)"):
            edited(before, MergePatch(patch))


def test_merge_keys_are_no_part_of_a_document() -> None:
    with pytest.raises(Unreadable, match="merge keys"):
        edited("a: &a {x: 1}\nb: {<<: *a}\n", MergePatch({"c": 1}))


def test_an_edit_goes_to_the_file_that_owns_the_entry_and_a_new_one_to_the_root() -> None:
    files = (source("include: [more.yaml]\n"), source("p:\n  - name: x\ns: {k: 1}\n", "more.yaml"))
    root, more = apply(files, PutEntry("p", "x", {"k": 1}))
    assert root is files[0]
    assert b"p:\n  - name: x\n    k: 1\ns: {k: 1}\n" == more.data
    root, more = apply(files, PutEntry("p", "w", {}))
    assert b"include: [more.yaml]\np:\n  - name: w\n" == root.data
    assert more is files[1]
    root, more = apply(files, PutEntry("p", "w", {}, before="x"))
    assert b"p:\n  - name: w\n  - name: x\ns: {k: 1}\n" == more.data
    root, more = apply(files, MergePatch({"s": {"l": 2}, "t": 3}))
    assert (b"include: [more.yaml]\nt: 3\n", b"p:\n  - name: x\ns: {k: 1, l: 2}\n") == (root.data, more.data)


@pytest.mark.parametrize("before", ["a: 1\nb: |\n  text", "a: 1\n? b\n"])
def test_where_no_edit_can_be_made_without_touching_others_it_is_refused(before: str) -> None:
    # A last line break would be part of the text; a key alone behind `?` has no place for a value.
    with pytest.raises(EditRefused, match=r"/etc/config\.yaml:2:1: the edit cannot be made here"):
        edited(before, MergePatch({"b": {"x": 1}} if "?" in before else {"c": 1}))
    assert before.replace("1", "2", 1) == edited(before, MergePatch({"a": 2}))


def test_keys_behind_question_marks_are_edited() -> None:
    before = "? a\n: 1\n? b # c\n: x: 1\n"
    assert "? a\n: 2\n? b # c\n: x: 1\n  z: 3\n" == edited(before, MergePatch({"a": 2, "b": {"z": 3}}))
    assert "{a: 1, ? b\n  : 2}\n" == edited("{a: 1, ? b\n  : []}\n", MergePatch({"b": 2}))
    assert "? b # c\n: x: 1\n" == edited(before, MergePatch({"a": None}))


def test_a_patch_of_lists_in_several_files_keeps_their_order() -> None:
    files = (source("p: [{name: a}, {name: b}]\n"), source("p: [{name: c}]\n", "more.yaml"))
    root, more = apply(files, MergePatch({"p": [{"name": "c"}, {"name": "a"}, {"name": "b"}]}))
    assert b"p: [{name: c}, {name: a}, {name: b}]\n" == root.data
    assert b"p: []\n" == more.data

"""Edits of documents: what is read back is what was meant, and all that an edit does not concern keeps its bytes."""

import contextlib
from typing import Any

import yaml
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

from config import roundtrip
from config.document import parse
from config.edit.apply import apply, merge_patch
from config.edit.edits import Edit, MergePatch, PutEntry, RemoveEntry
from config.edit.errors import EditRefused
from config.edit.values import is_same
from config.faults import ConfigFaults
from config.merge import merge
from config.scalars import RULES
from config.sources import SourceFile

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    ["", "no", "1:30", "0x1f", "~", "a: b", "a #b", "- x", "*a", "&a", "{", "]", "'", '"', "\\", "x\ny\n", " lead", "null",
     "gpt-4*", "${env:KEY}", "größe", "\U0001f600", "\x00", "\u2028", "\ufeff", "---", "...", "%x", "!t", "a,b", "?", "? a"]
)  # fmt: skip
SCALARS = st.none() | st.booleans() | st.integers(-99, 99) | st.floats() | TEXTS
KEYS = st.sampled_from(["type", "models", "weight", "options", "größe", "a b", "no", "1", "x:y", "", "<<", "#k", "'q'"])
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=6
)
PIECES = [
    "a: ", "b:", "- ", "? ", ": ", "k: |\n", "l: >-\n", "m: |2+\n", "# c\n", " # c\n", "\n", "\n\n", "\r\n", " ", "  ", "    ",
    "{", "}", "[", "]", ", ", ",\n", "x", "x y", "'q'", '"d"', "&n ", "*n", "1", "null", "c: x\n", "d: y\n", "  e: z\n",
    "  - v\n", "- w\n", "f: {g: 1, h: [2, 3]}\n", "---\n", "\t", "~", "name: n\n", "- name: o\n", "{a: 1}", "[a: 1]",
]  # fmt: skip
"""What texts are put together of at random."""
SLOW = [HealthCheck.too_slow]
NAMES = ["a", "b", "c", "d", "e"]


class Dumper(yaml.SafeDumper):
    """Writes for YAML 1.2: quotes what PyYAML, which writes for 1.1, takes for text and we do not."""


for rule in RULES:
    Dumper.add_implicit_resolver(f"tag:yaml.org,2002:{rule.tag}", rule.pattern, list(rule.first))


class Entry:
    """An entry of a list as a person might have written it: its text is looked for afterwards."""

    def __init__(self, name: str, value: dict[str, Any], text: str) -> None:
        self.name = name
        self.value = value
        self.text = text


@st.composite
def entries(draw: st.DrawFn, name: str, indent: str) -> Entry:
    value: dict[str, Any] = {"name": name, **draw(st.dictionaries(KEYS, VALUES, max_size=3))}
    style = draw(st.sampled_from(["block", "brackets", "brackets on lines"]))
    dumped = yaml.dump(
        value,
        Dumper=Dumper,
        default_flow_style=style != "block",
        width=draw(st.sampled_from([20, 10_000])),
        sort_keys=False,
        indent=2,
        allow_unicode=True,
    ).removesuffix("...\n")
    lines = dumped.split("\n")[:-1]
    above = draw(st.sampled_from(["", f"{indent}# above {name}\n", f"{indent}# above {name}\n{indent}#{name} again\n"]))
    behind = draw(st.sampled_from(["", f"  # behind {name}"]))
    below = draw(st.sampled_from(["", f"{indent}   # below {name}\n"]))
    if style == "block":
        head, *rest = lines
        if not rest and not head.endswith(("|", "|-", ">", ">-")):
            head += behind
        body = "".join(f"{indent}  {line}\n" if line else "\n" for line in rest)
        text = f"{above}{indent}- {head}\n{body}"
    else:
        if style == "brackets on lines":
            inner = [f"{key_text}  # of {name}" for key_text in _pairs(value)]
            lines = ["{", *inner[:-1], *inner[-1:], "}"]
        text = f"{above}{indent}- " + f"\n{indent}    ".join(lines) + f"{behind}\n"
    return Entry(name, value, text + below)


def _pairs(value: dict[str, Any]) -> list[str]:
    """Each pair with its comma."""
    return [
        yaml.dump({key: inner}, Dumper=Dumper, default_flow_style=True, width=10_000, allow_unicode=True)[1:-2] + ","
        for key, inner in value.items()
    ]


class Written:
    """A document with two lists and something around them."""

    def __init__(self, text: str, lists: dict[str, list[Entry]], others: list[str]) -> None:
        self.text = text
        self.lists = lists
        self.others = others


@st.composite
def documents(draw: st.DrawFn) -> Written:
    lists: dict[str, list[Entry]] = {}
    parts: list[str] = []
    others = []
    for section in draw(st.lists(st.sampled_from(["providers", "routes", "tokens"]), max_size=3, unique=True)):
        if draw(st.booleans()):
            scalar = draw(st.sampled_from(["1", "[1, 2] # x", "|+\n  t\n\n"]))
            other = f"# of k{section}\nk{section}: {scalar}\n"
            others.append(other)
            parts.append(other)
        indent = draw(st.sampled_from(["", "  ", "    "]))
        names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True))
        lists[section] = [draw(entries(name, indent)) for name in names]
        gap = draw(st.sampled_from(["", "\n", "\n\n", "\n# free\n\n"]))
        parts.append(
            f"{section}:{draw(st.sampled_from(['', '  # section']))}\n" + gap.join(e.text for e in lists[section])
        )
        parts.append(draw(st.sampled_from(["", "\n", f"{indent}\n# end of {section}\n\n"])))
    return Written("".join(parts), lists, others)


def source(text: str, line_break: str = "\n") -> tuple[SourceFile, ...]:
    return (SourceFile("/etc/c.yaml", "c.yaml", text.replace("\n", line_break).encode()),)


def entry_edits(written: Written) -> st.SearchStrategy[Edit]:
    values = st.dictionaries(KEYS, VALUES, max_size=3)
    sections = st.sampled_from(["providers", "routes", "tokens"])
    put = st.builds(PutEntry, sections, st.sampled_from(NAMES), values, st.none() | st.sampled_from(NAMES))
    return put | st.builds(RemoveEntry, sections, st.sampled_from(NAMES))


def intended(written: Written, value: dict[str, Any], edit: Any) -> dict[str, Any] | None:
    """None where the edit must be refused."""
    found = list(value.get(edit.section, []))
    names = [entry["name"] for entry in found]
    if isinstance(edit, RemoveEntry):
        if edit.key not in names:
            return None
        del found[names.index(edit.key)]
    else:
        entry = {"name": edit.key, **edit.value}
        if edit.before in (None, edit.key) and edit.key in names:
            found[names.index(edit.key)] = entry
        else:
            found = [each for each in found if each["name"] != edit.key]
            left = [each["name"] for each in found]
            if edit.before is not None and edit.before not in left:
                return None
            found.insert(len(left) if edit.before is None else left.index(edit.before), entry)
    return {**value, edit.section: found}


@settings(max_examples=300, deadline=None, suppress_health_check=SLOW)
@given(st.data(), st.sampled_from(["\n", "\r\n"]))
def test_an_edit_of_an_entry_is_read_back_as_meant_and_leaves_the_others_alone(data: st.DataObject, ends: str) -> None:
    written = data.draw(documents())
    files = source(written.text, ends)
    before = parse(files[0].data, "c.yaml")
    assume(not before.faults)
    edit: Any = data.draw(entry_edits(written))
    wanted = intended(written, before.value, edit)
    try:
        (after,) = apply(files, edit)
    except EditRefused:
        assert wanted is None, "refused"
        return
    assert wanted is not None, "not refused"
    read = parse(after.data, "c.yaml")
    assert () == read.faults
    assert is_same(wanted, read.value)
    for section, listed in written.lists.items():
        for entry in listed:
            if (section, entry.name) != (edit.section, edit.key):
                assert entry.text.replace("\n", ends).encode() in after.data
    for other in written.others:
        assert other.replace("\n", ends).encode() in after.data
    assert before.value != {} or after.data.startswith(files[0].data)
    assert after.data.count(b"# free") == files[0].data.count(b"# free")
    assert after.data.count(b"# end of") == files[0].data.count(b"# end of")


def dump(value: dict[str, Any], flow: bool | None, width: int, indent: int) -> str:
    text = yaml.dump(
        value, Dumper=Dumper, default_flow_style=flow, width=width, sort_keys=False, indent=indent, allow_unicode=True
    )
    assert isinstance(text, str)
    return text


def mutations(value: Any) -> st.SearchStrategy[Any]:
    """Values that have something in common with ``value``."""
    changed = st.dictionaries(KEYS, VALUES, max_size=2) if isinstance(value, dict) else VALUES
    if isinstance(value, dict) and value:
        changed |= st.sampled_from(sorted(value)).flatmap(
            lambda key: mutations(value[key]).map(lambda inner: {**value, key: inner})
        )
        changed |= st.sampled_from(sorted(value)).map(lambda key: {k: v for k, v in value.items() if k != key})
        changed |= st.tuples(KEYS, VALUES).map(lambda added: {**value, added[0]: added[1]})
    if isinstance(value, list) and value:
        numbers = st.integers(0, len(value) - 1)
        changed |= numbers.flatmap(
            lambda number: mutations(value[number]).map(lambda inner: [*value[:number], inner, *value[number + 1 :]])
        )
        changed |= numbers.map(lambda number: value[:number] + value[number + 1 :])
        changed |= st.tuples(numbers, VALUES).map(lambda each: [*value[: each[0]], each[1], *value[each[0] :]])
        changed |= st.permutations(value)
    return changed


def patch_to(old: Any, new: Any) -> Any:
    """The merge patch that makes ``new`` of ``old``, as far as one can."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new
    gone = dict.fromkeys(key for key in old if key not in new)
    return {
        **gone,
        **{key: patch_to(old.get(key), value) for key, value in new.items() if not (key in old and old[key] == value)},
    }


@settings(max_examples=300, deadline=None, suppress_health_check=SLOW)
@given(st.data())
def test_a_patch_of_any_document_is_read_back_as_meant(data: st.DataObject) -> None:
    inner = st.lists(VALUES, max_size=4) | st.dictionaries(KEYS, VALUES, max_size=4) | VALUES
    value = data.draw(st.dictionaries(KEYS, inner, max_size=4))
    style = (
        data.draw(st.sampled_from([None, True, False])),
        data.draw(st.sampled_from([20, 10_000])),
        data.draw(st.sampled_from([2, 4])),
    )
    pairs = {key: dump({key: each}, *style).removesuffix("...\n") for key, each in value.items()}
    text = dump(value, *style) if style[0] else "# c\n".join(pairs.values())
    before = parse(text.encode(), "c.yaml")
    assume(not before.faults)
    patch = patch_to(before.value, data.draw(mutations(before.value)))
    (after,) = apply(source(text), MergePatch(patch))
    read = parse(after.data, "c.yaml")
    assert () == read.faults
    assert is_same(merge_patch(before.value, patch), read.value)
    # Another reader takes it alike, where it can read the document at all.
    with contextlib.suppress(ConfigFaults):
        assert is_same(read.value, roundtrip.plain(roundtrip.read(after.data, "c.yaml")))
    if not style[0]:
        for key, pair in pairs.items():
            if key not in patch and not pair.startswith("{"):
                assert pair.encode() in after.data


@settings(max_examples=200, deadline=None, suppress_health_check=SLOW)
@given(st.data())
def test_with_anchors_a_patch_is_read_back_as_meant_or_refused(data: st.DataObject) -> None:
    shared = data.draw(st.dictionaries(KEYS, VALUES, min_size=1, max_size=2) | st.lists(VALUES, min_size=1, max_size=2))
    around = st.just(shared) | st.builds(lambda value: [shared, value], VALUES) | VALUES
    around |= st.builds(lambda value: {"shared": shared, "other": value}, VALUES)
    value = {"one": shared, **data.draw(st.dictionaries(KEYS, around, max_size=3)), "last": shared}
    text = dump(value, data.draw(st.sampled_from([None, False])), 80, 2)
    before = parse(text.encode(), "c.yaml")
    assume(not before.faults)
    patch = patch_to(before.value, data.draw(mutations(before.value)))
    try:
        (after,) = apply(source(text), MergePatch(patch))
    except EditRefused as refused:
        event("refused")
        assume("anchor" not in str(refused))
        raise
    read = parse(after.data, "c.yaml")
    assert () == read.faults
    assert is_same(merge_patch(before.value, patch), read.value)


@settings(max_examples=200, deadline=None, suppress_health_check=SLOW)
@given(st.data())
def test_a_patch_of_several_files_changes_those_that_own_what_it_changes(data: st.DataObject) -> None:
    named = st.lists(st.sampled_from(NAMES), max_size=3, unique=True).map(lambda names: [{"name": n} for n in names])
    section = st.dictionaries(st.sampled_from(["providers", "routes"]), named, max_size=2)
    values: list[dict[str, Any]] = data.draw(st.lists(section, min_size=2, max_size=3))
    for number, value in enumerate(values):
        value["server"] = {f"of-{number}": 1}
    files = tuple(
        SourceFile(f"{number}.yaml", f"{number}.yaml", dump(value, False, 80, 2).encode())
        for number, value in enumerate(values)
    )
    document = joined(files)
    wanted = data.draw(mutations(document))
    patch = patch_to(document, wanted)
    after = apply(files, MergePatch(patch))
    assert is_same(merge_patch(document, patch), joined(after))
    for old, new in zip(files, after, strict=True):
        if not patch:
            assert old is new


@st.composite
def settled(draw: st.DrawFn, depth: int = 0) -> tuple[str, list[tuple[str, ...]]]:
    """Keys in the way of a configuration, each with comments that name its path; and the paths of the leaves."""

    def write(path: tuple[str, ...]) -> str:
        indent, shown, text = "  " * len(path), "/".join(path), ""
        for key in draw(st.lists(st.sampled_from("abcd"), min_size=1, max_size=4, unique=True)):
            above = draw(
                st.sampled_from(["", "", f"{indent}# above {shown}/{key}\n", f"\n{indent}# above {shown}/{key}\n"])
            )
            is_leaf = len(path) == 3 or draw(st.booleans())
            value = (
                draw(st.sampled_from(["1", "'x'", "[1, 2]", "|\n" + indent + "   text", "null", ""])) if is_leaf else ""
            )
            behind = "" if "|" in value else draw(st.sampled_from(["", f"  # at {shown}/{key}"]))
            text += f"{above}{indent}{key}: {value}{behind}\n"
            if is_leaf:
                leaves.append((*path, key))
            else:
                text += write((*path, key))
        return text

    leaves: list[tuple[str, ...]] = []
    return write(()), leaves


@settings(max_examples=200, deadline=None, suppress_health_check=SLOW)
@given(settled(), st.data())
def test_a_patch_of_some_keys_keeps_all_lines_of_the_others(
    written: tuple[str, list[tuple[str, ...]]], data: st.DataObject
) -> None:
    text, leaves = written
    before = parse(text.encode(), "c.yaml")
    assert () == before.faults
    changed = data.draw(st.dictionaries(st.sampled_from(leaves), st.sampled_from([None, 2, "new", [3]]), max_size=3))
    patch: dict[str, Any] = {}
    for path, value in changed.items():
        inner = patch
        for step in path[:-1]:
            inner = inner.setdefault(step, {})
        inner[path[-1]] = value
    (after,) = apply(source(text), MergePatch(patch))
    assert is_same(merge_patch(before.value, patch), parse(after.data, "c.yaml").value)
    removed = {path for path, value in changed.items() if value is None}
    shown = after.data.decode()
    for line in text.splitlines():
        name = line.partition("# ")[2].partition(" ")[2]
        if name and tuple(name.strip("/").split("/")) not in removed:
            assert line.partition("# ")[2] in shown
    touched = {path[-1] for path in changed}
    rest = iter(shown.splitlines())
    for line in text.splitlines():
        key, _, value = line.partition("#")[0].strip().partition(": ")
        if value and key not in touched:
            assert line in rest, "gone, or not in the same order"


@settings(max_examples=500, deadline=None, suppress_health_check=[*SLOW, HealthCheck.filter_too_much])
@given(st.lists(st.sampled_from(PIECES), max_size=25).map("".join), st.data())
def test_any_text_is_edited_as_meant_or_refused(text: str, data: st.DataObject) -> None:
    before = parse(text.encode(), "c.yaml")
    assume(not before.faults)
    patch = patch_to(before.value, data.draw(mutations(before.value)))
    try:
        (after,) = apply(source(text), MergePatch(patch))
    except EditRefused:
        event("refused")
        return
    read = parse(after.data, "c.yaml")
    assert () == read.faults
    assert is_same(merge_patch(before.value, patch), read.value)


def joined(files: tuple[SourceFile, ...]) -> dict[str, Any]:
    documents = [parse(file.data, file.shown) for file in files]
    document = merge(documents[0], documents[1:])
    assert () == document.faults
    return document.value

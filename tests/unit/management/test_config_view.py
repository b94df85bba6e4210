import json
import re

from hypothesis import given
from hypothesis import strategies as st

from config.faults import Fault
from management.editing import config_view
from management.editing.config_view import HIDDEN, UNSHOWN, FileShown, difference, shown_files
from management.errors import fault_body
from management.handler.json_text import encode
from tests.planted import labels, planted

KEY = planted("viewed-key", "sk-")
OTHER = planted("other-key", "sk-")
_HEAD = re.compile(r"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")

# Comments, so that each is a document whatever they are.
documents = st.lists(st.sampled_from(["# a", "# b", "# c", "#"]), max_size=12).map(
    lambda lines: "".join(f"{line}\n" for line in lines).encode()
)


def provider(key: str) -> bytes:
    return f"providers: [{{name: a, type: openai, credentials: [{{api_key: {key}}}]}}]\n".encode()


def patched(text: bytes, diff: str) -> bytes:
    """What `patch` makes of it."""
    old = text.decode().splitlines()
    new: list[str] = []
    at = 0
    lines = diff.splitlines()[2:]
    for line in lines:
        if head := _HEAD.fullmatch(line):
            start = int(head[1]) - (0 if head[2] == "0" else 1)
            new += old[at:start]
            at = start
            assert len(new) == int(head[3]) - (0 if head[4] == "0" else 1)
        elif line.startswith("+"):
            new.append(line[1:])
        else:
            assert old[at] == line[1:]
            at += 1
            new += [] if line.startswith("-") else [line[1:]]
    return "".join(f"{line}\n" for line in [*new, *old[at:]]).encode()


@given(documents, documents)
def test_a_difference_makes_the_one_of_the_other(old: bytes, new: bytes) -> None:
    diff = difference([("a.yaml", old)], [("a.yaml", new)])
    assert (old == new) == (not diff)
    assert new == patched(old, diff)


def test_a_difference_shows_files_that_came_and_went() -> None:
    diff = difference([("a.yaml", b"# a\n"), ("b.yaml", b"# b\n")], [("a.yaml", b"# a\n"), ("c.yaml", b"# c\n")])
    assert "--- b.yaml\n+++ /dev/null\n@@ -1 +0,0 @@\n-# b\n--- /dev/null\n+++ c.yaml\n@@ -0,0 +1 @@\n+# c\n" == diff


def test_of_a_secret_that_differs_nothing_is_shown() -> None:
    diff = difference([("a.yaml", provider(KEY))], [("a.yaml", provider(OTHER))])
    assert f"--- a.yaml\n+++ a.yaml\n# {HIDDEN}\n" == diff


def test_a_file_that_cannot_be_read_is_not_compared() -> None:
    diff = difference([("a.yaml", f"api_key: [{KEY}".encode())], [("a.yaml", provider(OTHER))])
    assert f"--- a.yaml\n+++ a.yaml\n# {UNSHOWN}\n" == diff


def test_what_takes_too_long_is_not_compared() -> None:
    most = config_view.MOST_COMPARED_LINES
    old = b"".join(b"# %d\n" % number for number in range(most + 1))
    new = b"".join(b"# -%d\n" % number for number in range(most + 1))
    assert "too many to be compared" in difference([("a.yaml", old)], [("a.yaml", new)])
    # What is equal before and behind does not count.
    assert "+# more\n" in difference([("a.yaml", old * 2)], [("a.yaml", old + b"# more\n" + old)])


def test_files_are_shown_by_their_names_and_without_secrets() -> None:
    shown = shown_files([("a\udcff.yaml", provider(KEY)), ("b.yaml", f"[{KEY}".encode())])
    assert "a\ufffd.yaml" == shown[0].file
    assert FileShown("b.yaml", None) == shown[1]
    assert set() == labels(repr(shown))


def test_names_that_are_no_utf_8_break_no_answer() -> None:
    fault = fault_body(Fault(("a",), "no", "dir\udcff/config.yaml", 1, 1))
    assert {"file": "dir?/config.yaml", "path": "a"}.items() <= json.loads(encode(fault)).items()
    assert {"a?": ["?"]} == json.loads(encode({"a\ud800": ("\udcff",)}))

"""The reader that keeps what it does not edit. That it reads like the other one: tests/property/test_yaml_readers.py."""

from io import StringIO

import pytest

from config.faults import ConfigFaults
from config.roundtrip import plain, read, roundtrip_yaml

TEXT = """\
# Of the file.
server: {workers: 0x2, listen: "127.0.0.1:80"}  # of the server

model_aliases:
- {from: fast, to: 'a/b'}
# between
- from: slow
  to: a/c
telemetry: {log_level: on, access_log: true}
"""


def test_an_edit_keeps_comments_order_and_spelling() -> None:
    document = read(TEXT.encode(), "f.yaml")
    document["model_aliases"][1]["to"] = "a/d"
    written = StringIO()
    roundtrip_yaml().dump(document, written)
    assert TEXT.replace("a/c", "a/d") == written.getvalue()


def test_what_is_refused_at_load_is_refused_for_edits() -> None:
    with pytest.raises(ConfigFaults, match=r"f\.yaml:2:1: duplicate key `a`"):
        read(b"a: 1\na: 2\n", "f.yaml")


def test_a_comment_that_would_be_lost_is_told() -> None:
    with pytest.raises(ConfigFaults, match="a comment stands where it cannot be kept"):
        read(b"a: # c\n|\n  t\n\n", "f.yaml")


def test_a_spelling_that_cannot_be_edited_is_told_with_its_place() -> None:
    with pytest.raises(ConfigFaults, match=r"f\.yaml:2:5: edits cannot keep how this is written .*found '\\t'"):
        read(b"a: 1\nb: |\t\n  t\n", "f.yaml")


def test_an_empty_document_can_be_edited() -> None:
    document = read(b"# nothing yet\n", "f.yaml")
    assert {} == plain(document)


def test_only_values_of_documents_are_made_plain() -> None:
    with pytest.raises(TypeError, match="object"):
        plain(object())

"""The search for planted secrets: what it finds, in which forms, and in which files."""

import base64
import json
import os
import socket
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from telemetry.logs import REDACTED_VALUE, redact
from tests import planted as search_of
from tests.planted import labels, place_of_secrets, planted, planted_key, search, search_files, take_finds

ROOT = Path(__file__).resolve().parent.parent
KEY = planted("provider-key", "sk-")

FORMS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "as it is": (lambda data: data, "provider-key"),
    "with more behind it": (lambda data: data + b"_main", "provider-key"),
    "in JSON": (lambda data: json.dumps({"key": [data.decode()]}).encode(), "provider-key"),
    "quoted for an address": (lambda data: urllib.parse.quote_plus(data, safe="").encode(), "provider-key"),
    "by its repr": (lambda data: repr([data]).encode(), "provider-key"),
    "in base64": (base64.b64encode, "provider-key (in base64)"),
    "in base64 behind a byte": (lambda data: base64.b64encode(b"u" + data), "provider-key (in base64)"),
    "in base64 behind two": (lambda data: base64.b64encode(b"u:" + data), "provider-key (in base64)"),
    "in base64url": (lambda data: base64.urlsafe_b64encode(b"\xff\xfe?>" + data), "provider-key (in base64)"),
    "in base64 among text": (lambda data: b"Basic " + base64.b64encode(data) + b"=, x", "provider-key (in base64)"),
    "in hexadecimal digits": (lambda data: data.hex().encode(), "provider-key (in hexadecimal digits)"),
    "cut short": (lambda data: data[:-13], "(cut)"),
    "masked by its value": (lambda _: b"the key is " + REDACTED_VALUE.encode(), "(masked in the log)"),
    "masked by its form": (lambda data: redact(data.decode()).encode(), "(masked in the log)"),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_secret_is_found_and_told_by_its_label(form: str) -> None:
    render, label = FORMS[form]
    assert {label} == labels(b"before " + render(KEY.encode()) + b" after")


def test_several_are_told_apart_and_none_where_there_is_none() -> None:
    assert {"one", "two"} == labels(f"{planted('one')} {planted('two')}\ud800")
    assert set() == labels("the planted key of 2026-01-02, redacted")


def test_a_key_of_32_bytes_is_found_however_it_is_written() -> None:
    key = planted_key("master-key")
    assert 32 == len(key)
    assert {"master-key (in base64)"} == labels(base64.b64encode(key))
    assert {"master-key (in hexadecimal digits)"} == labels(key.hex())
    assert {"master-key"} == labels(repr(key))


def test_a_label_that_could_not_be_told_is_refused() -> None:
    for label in ("", "Upper", "two words", "-"):
        with pytest.raises(AssertionError, match="cannot be told"):
            planted(label)


def test_the_mark_stands_in_one_file_alone() -> None:
    places = [*ROOT.glob("*.*"), *(file for top in ("tests", "docs", "config") for file in (ROOT / top).rglob("*.*"))]
    texts = [file for file in places if file.suffix in {".py", ".md", ".yaml", ".json"}]
    assert ["planted.py"] == [file.name for file in texts if search_of._MARK in file.read_text(errors="replace")]


@pytest.fixture
def finds() -> Iterator[Callable[[], list[str]]]:
    """What was found since; here it fails nothing."""
    yield take_finds
    take_finds()


def test_a_find_is_told_once(finds: Callable[[], list[str]]) -> None:
    search(KEY, "the answer")
    search(KEY, "the answer")
    search(None, "the answer")
    assert ["the planted secret `provider-key` is in the answer"] == finds()
    assert [] == finds()


def test_files_are_searched_where_they_are_new_or_changed(tmp_path: Path, finds: Callable[[], list[str]]) -> None:
    file = tmp_path / "deep/er/core.1"
    file.parent.mkdir(parents=True)
    file.write_bytes(bytes(100) + KEY.encode())
    search_files(tmp_path)
    assert [f"the planted secret `provider-key` is in the file {file}"] == finds()
    search_files(tmp_path)
    assert [] == finds()
    file.write_text(f"{planted('other')} {KEY}")
    search_files(tmp_path)
    assert 2 == len(finds())


def test_a_place_of_secrets_is_one_file_and_no_other(tmp_path: Path, finds: Callable[[], list[str]]) -> None:
    for file in (place_of_secrets(tmp_path / "config.yaml"), tmp_path / "config.yaml.bak"):
        file.write_text(KEY)
    search_files(tmp_path)
    assert [f"the planted secret `provider-key` is in the file {tmp_path / 'config.yaml.bak'}"] == finds()


def test_files_of_before_the_session_are_passed_over(tmp_path: Path, finds: Callable[[], list[str]]) -> None:
    file = tmp_path / "old.log"
    file.write_text(KEY)
    os.utime(file, (1000, 1000))
    search_files(tmp_path, since=2000)
    assert [] == finds()
    search_files(tmp_path)
    assert 1 == len(finds())


def test_a_secret_across_two_pieces_of_a_large_file_is_found(
    tmp_path: Path, finds: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_of, "_PIECE_BYTES", 512)
    (tmp_path / "large.log").write_bytes(bytes(500) + KEY.encode() + bytes(2000))
    search_files(tmp_path)
    assert f"the planted secret `provider-key` is in the file {tmp_path / 'large.log'}" in finds()


def test_what_is_no_file_is_not_opened(tmp_path: Path, finds: Callable[[], list[str]]) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        search_files(tmp_path)
        search_files(tmp_path / "absent")
    assert [] == finds()

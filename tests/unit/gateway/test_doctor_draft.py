"""A document less what is wrong with it: what is left, and where that was written."""

import msgspec
import pytest

from config.document import Value
from config.faults import Path
from gateway.doctor.draft import PLACEHOLDER, Draft


def left(draft: Draft) -> object:
    return msgspec.json.decode(draft.source("config.yaml", "config.yaml").data)


def provider(name: str, **members: Value) -> Value:
    return {"name": name, "type": "openai", **members}


def test_a_secret_that_cannot_be_had_is_replaced_and_its_entry_stays() -> None:
    entry = provider("a", credentials=[{"name": "main", "api_key": "${env:NOT_SET}"}])
    draft = Draft({"providers": [entry]})
    assert draft.mend([("providers", 0, "credentials", 0, "api_key")])
    assert {"providers": [provider("a", credentials=[{"name": "main", "api_key": PLACEHOLDER}])]} == left(draft)
    assert not draft.entries_gone


def test_a_placeholder_that_is_at_fault_itself_is_taken_out() -> None:
    draft = Draft({"management": {"admin_key_hash": "${env:HASH}", "listen": None}})
    path = ("management", "admin_key_hash")
    draft.mend([path])
    assert {"management": {"admin_key_hash": PLACEHOLDER, "listen": None}} == left(draft)
    draft.mend([path])
    assert {"management": {"listen": None}} == left(draft)


def test_a_key_that_is_missing_takes_its_nearest_ancestor_out_and_nothing_above() -> None:
    draft = Draft({"server": {"tls": {"cert": "a.pem"}, "workers": 2}})
    assert draft.mend([("server", "tls", "key")])
    assert {"server": {"workers": 2}} == left(draft)


def test_two_faults_of_one_entry_take_one_entry_out() -> None:
    draft = Draft({"tokens": [{"name": "a"}, {"name": "b", "sha256": "0"}]})
    assert draft.mend([("tokens", 0), ("tokens", 0), ("tokens", 0, "sha256")])
    assert {"tokens": [{"name": "b", "sha256": "0"}]} == left(draft)
    assert draft.entries_gone


@pytest.mark.parametrize(
    ("path", "original"),
    [
        (("tokens", 0, "name"), ("tokens", 1, "name")),
        (("tokens", 1), ("tokens", 3)),
        (("tokens", 5, "name"), ("tokens", 5, "name")),
        (("server", "listen"), ("server", "listen")),
        ((), ()),
    ],
)
def test_what_is_left_is_found_where_it_was_written(path: Path, original: Path) -> None:
    draft = Draft({"tokens": [{"name": each} for each in "abcd"]})
    draft.mend([("tokens", 0), ("tokens", 2)])
    assert original == draft.original(path)


def test_a_fault_of_the_whole_document_changes_nothing() -> None:
    draft = Draft({"tokens": []})
    assert not draft.mend([(), ("providers",)])
    assert {"tokens": []} == left(draft)


def test_references_of_a_scheme_are_taken_out_wherever_they_stand() -> None:
    draft = Draft(
        {
            "management": {"admin_key_hash": "${vault:a/b#c}"},
            "server": {"listen": "${vault:a/b#listen}", "public_url": "${env:URL}"},
        }
    )
    paths: set[Path] = {("management", "admin_key_hash"), ("server", "listen")}
    assert paths == draft.take_out_references(frozenset({"vault"}))
    assert {"management": {"admin_key_hash": PLACEHOLDER}, "server": {"public_url": "${env:URL}"}} == left(draft)


def test_the_document_itself_is_not_changed() -> None:
    value: dict[str, Value] = {"tokens": [{"name": "a"}]}
    Draft(value).mend([("tokens", 0)])
    assert {"tokens": [{"name": "a"}]} == value

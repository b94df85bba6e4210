"""Entries as JSON: what is told of their secrets, and how these are given."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from config.document import parse
from config.faults import render_path
from management.aliases import AliasGiven, AliasPatch, AliasShown, NewAlias
from management.editing.entry_schema import EntryChanged, EntryGiven, EntryPatch, EntryShown, NewEntry
from management.providers import NewProvider, ProviderChanged, ProviderGiven, ProviderPatch, ProviderShown
from management.route_entries import NewRoute, RouteGiven, RoutePatch, RouteShown
from management.secrets.entry_values import (
    BodyFaults,
    CannotSeal,
    NothingToKeep,
    Translated,
    patch_to_document,
    shown,
    shown_document,
    to_document,
)
from management.secrets.secret_places import render_place
from management.webhook_entries import NewWebhook, WebhookGiven, WebhookPatch, WebhookShown

SEALED = "${sealed:k1:c2VhbGVk}"

PRESENT: Any = {
    "name": "a",
    "type": "openai",
    "base_url": "https://u:sk-password@a/v1?key=sk-query&version=${env:VERSION}",
    "credentials": [
        {"name": "one", "api_key": "sk-one", "weight": 2},
        {"name": "two", "api_key": "${env:TWO:-sk-default}"},
        {"name": "three", "api_key": SEALED},
        {"name": "four", "api_key": "sk-${env:FOUR}"},
    ],
    "headers": {"x-one": "sk-header", "x-two": "${env:HEADER}", "x-three": "Bearer ${env:HEADER}"},
    "proxy_url": "direct",
    "timeouts": {"connect_seconds": None},
    "options": {"organization": "org", "private_key": "sk-option"},
}
SHOWN: Any = {
    "name": "a",
    "type": "openai",
    "base_url": "https://${kept}@a/v1?key=${kept}&version=${env:VERSION}",
    "credentials": [
        {"name": "one", "api_key": {"kind": "literal"}, "weight": 2},
        {"name": "two", "api_key": {"kind": "reference", "reference": "${env:TWO}"}},
        {"name": "three", "api_key": {"kind": "sealed", "key_id": "k1"}},
        {"name": "four", "api_key": {"kind": "literal"}},
    ],
    "headers": {
        "x-one": {"kind": "literal"},
        "x-two": {"kind": "reference", "reference": "${env:HEADER}"},
        "x-three": {"kind": "literal"},
    },
    "proxy_url": "direct",
    "timeouts": {"connect_seconds": None},
    "options": {"organization": "org", "private_key": {"kind": "literal"}},
}


class Seals:
    def __init__(self) -> None:
        self.texts: list[str] = []

    def seal(self, text: str) -> str:
        self.texts.append(text)
        return "${sealed:new:c2VhbGVk}"


class SealsNothing:
    def seal(self, _text: str) -> str:
        raise CannotSeal("no key")


def translated(body: Any, present: Any = PRESENT, sealer: Any = None) -> Translated:
    return to_document("providers", "a", body, present, sealer or SealsNothing())


def api_key(form: Any, name: str = "one") -> Any:
    return {"credentials": [{"name": name, "api_key": form}]}


def test_an_entry_is_shown_with_the_kinds_of_its_secrets() -> None:
    assert SHOWN == shown(PRESENT, "providers")
    assert {"providers": [SHOWN]} == shown_document({"providers": [PRESENT]})


def test_what_no_json_can_hold_is_shown_all_the_same() -> None:
    assert {"name": "?", "options": {"?": "a?b"}} == shown(
        {"name": "\ud800", "options": {"\udfff": "a\ud800b"}}, "providers"
    )


def test_a_secret_by_an_alias_is_hidden_where_it_stands() -> None:
    document = parse(b"tokens: [{name: t, metadata: {n: &k sk-1}}]\nproviders: [{credentials: [{api_key: *k}]}]\n", "")

    found = shown_document(document.value)

    assert {"n": "${kept}"} == found["tokens"][0]["metadata"]


@pytest.mark.parametrize(
    ("body", "value", "at"),
    [
        ({"type": "echo"}, {"type": "echo"}, []),
        ({"headers": None, "models": ["${env:M}"]}, {"headers": None, "models": ["${env:M}"]}, []),
        (api_key({"action": "keep"}), api_key("sk-one"), []),
        (api_key({"action": "keep"}, "two"), api_key("${env:TWO:-sk-default}", "two"), []),
        (api_key({"action": "keep"}, "three"), api_key(SEALED, "three"), []),
        ({"credentials": SHOWN["credentials"]}, {"credentials": PRESENT["credentials"]}, []),
        ({"headers": SHOWN["headers"]}, {"headers": PRESENT["headers"]}, []),
        (api_key({"reference": "${env:X}"}), api_key("${env:X}"), ["credentials[one].api_key"]),
        (api_key({"reference": "${env:X:-y}"}), api_key("${env:X:-y}"), ["credentials[one].api_key"]),
        (api_key({"reference": SEALED}), api_key(SEALED), []),
        ({"headers": {"x-one": {"action": "keep"}}}, {"headers": {"x-one": "sk-header"}}, []),
        ({"headers": {"x": {"action": "set", "value": "a${b}"}}}, {"headers": {"x": "a$${b}"}}, ["headers.x"]),
        ({"headers": {"x": "plain"}}, {"headers": {"x": "plain"}}, ["headers.x"]),
        ({"headers": {"x": "Bearer ${env:X}"}}, {"headers": {"x": "Bearer ${env:X}"}}, []),
        ({"headers": {"x-one": "${kept}"}}, {"headers": {"x-one": "sk-header"}}, []),
        ({"headers": {"x-one": None}}, {"headers": {"x-one": None}}, []),
        ({"base_url": SHOWN["base_url"]}, {"base_url": PRESENT["base_url"]}, []),
        ({"base_url": "https://h/?key=sk"}, {"base_url": "https://h/?key=sk"}, ["base_url"]),
        ({"base_url": "https://h/"}, {"base_url": "https://h/"}, []),
        ({"proxy_url": "direct"}, {"proxy_url": "direct"}, ["proxy_url"]),
        ({"proxy_url": None}, {"proxy_url": None}, []),
        ({"options": {"private_key": "sk"}}, {"options": {"private_key": "sk"}}, ["options.private_key"]),
        ({"options": {"private_key": {"action": "keep"}}}, {"options": {"private_key": "sk-option"}}, []),
    ],
)
def test_each_form_of_a_secret_becomes_what_the_document_has(body: Any, value: Any, at: list[str]) -> None:
    found = translated(body)

    assert value == found.value
    assert [f"providers[a].{place}" for place in at] == sorted(map(render_place, found.given))


def test_what_is_set_is_sealed() -> None:
    sealer = Seals()

    found = translated(
        {**api_key({"action": "set", "value": "sk-${new}"}), "proxy_url": {"action": "set", "value": "http://u:p@h"}},
        sealer=sealer,
    )

    assert {**api_key("${sealed:new:c2VhbGVk}"), "proxy_url": "${sealed:new:c2VhbGVk}"} == found.value
    assert ["sk-${new}", "http://u:p@h"] == sealer.texts
    assert ["providers[a].credentials[one].api_key", "providers[a].proxy_url"] == sorted(map(render_place, found.given))


def test_nothing_is_sealed_where_something_is_wrong() -> None:
    sealer = Seals()
    body = {**api_key({"action": "set", "value": "sk"}), "unknown": 1}

    with pytest.raises(BodyFaults):
        translated(body, sealer=sealer)
    assert [] == sealer.texts
    with pytest.raises(CannotSeal):
        translated(api_key({"action": "set", "value": "sk"}))


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"basurl": 1}, "basurl"),
        ({"tls": {"cas": "x"}}, "tls.cas"),
        ({"credentials": [{"name": "one", "key": "sk-planted"}]}, "credentials[0].key"),
        (api_key("sk-planted"), "credentials[0].api_key"),
        (api_key("${env:X}"), "credentials[0].api_key"),
        (api_key("${kept}"), "credentials[0].api_key"),
        (api_key({}), "credentials[0].api_key"),
        (api_key({"action": "set", "value": 5}), "credentials[0].api_key"),
        (api_key({"action": "set", "value": ""}), "credentials[0].api_key"),
        (api_key({"action": "set"}), "credentials[0].api_key"),
        (api_key({"action": "keep", "value": "sk-planted"}), "credentials[0].api_key"),
        (api_key({"action": "drop"}), "credentials[0].api_key"),
        (api_key({"reference": "${env:X}${env:Y}"}), "credentials[0].api_key"),
        (api_key({"reference": "sk-planted"}), "credentials[0].api_key"),
        (api_key({"reference": "${sk-planted}"}), "credentials[0].api_key"),
        (api_key({"reference": ""}), "credentials[0].api_key"),
        (api_key({"reference": None}), "credentials[0].api_key"),
        ({"headers": {"x": {"reference": "x"}}}, "headers.x"),
        ({"proxy_url": "http://u:sk-planted@h"}, "proxy_url"),
    ],
)
def test_a_fault_says_where_and_shows_no_secret(body: Any, path: str) -> None:
    with pytest.raises(BodyFaults) as refused:
        translated(body)

    assert [path] == [render_path(fault.path) for fault in refused.value.faults]
    assert "sk-planted" not in str(refused.value)


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (api_key({"action": "keep"}, "none"), "credentials[0].api_key"),
        (api_key({"kind": "literal"}, "none"), "credentials[0].api_key"),
        (api_key({"kind": "reference", "reference": "${env:OTHER}"}, "two"), "credentials[0].api_key"),
        (api_key({"kind": "sealed", "key_id": "k1"}, "one"), "credentials[0].api_key"),
        (api_key({"kind": "literal", "value": "x"}, "one"), "credentials[0].api_key"),
        ({"proxy_url": {"action": "keep"}}, "proxy_url"),
        ({"headers": {"X-One": {"action": "keep"}}}, "headers.X-One"),
        ({"base_url": "https://evil/v1?key=${kept}&version=${env:VERSION}"}, "base_url"),
        ({"name": "${kept}"}, "name"),
        ({"models": ["${kept}"]}, "models[0]"),
    ],
)
def test_only_what_is_there_is_kept(body: Any, path: str) -> None:
    present = {key: value for key, value in PRESENT.items() if key != "proxy_url"}

    with pytest.raises(NothingToKeep) as refused:
        translated(body, present)
    assert [path] == [render_path(fault.path) for fault in refused.value.faults]
    with pytest.raises(NothingToKeep):
        translated(body, None)


def test_a_patch_of_the_whole_document_is_read_in_the_same_way() -> None:
    present: Any = {"providers": [PRESENT], "transport": {"proxy_url": "http://u:sk@h"}}

    found = patch_to_document(
        {"transport": {"proxy_url": {"action": "keep"}}, "providers": [{"name": "a", **api_key({"action": "keep"})}]},
        present,
        SealsNothing(),
    )

    assert {
        "transport": {"proxy_url": "http://u:sk@h"},
        "providers": [{"name": "a", **api_key("sk-one")}],
    } == found.value


TYPES: dict[str, tuple[type[NewEntry], type[EntryGiven], type[EntryPatch], type[EntryShown]]] = {
    "provider": (NewProvider, ProviderGiven, ProviderPatch, ProviderShown),
    "alias": (NewAlias, AliasGiven, AliasPatch, AliasShown),
    "route": (NewRoute, RouteGiven, RoutePatch, RouteShown),
    "webhook": (NewWebhook, WebhookGiven, WebhookPatch, WebhookShown),
}


@pytest.mark.parametrize("name", TYPES)
def test_the_schemas_are_schemas_without_references_and_with_descriptions(name: str) -> None:
    for kind in TYPES[name]:
        schema = kind.json_schema()
        Draft202012Validator.check_schema(schema)
        assert (kind.__name__, kind.__doc__) == (schema["title"], schema["description"])
        assert "$ref" not in str(schema)
        assert "x-secret" not in str(schema)


def fits(kind: type[Any], value: Any) -> bool:
    return bool(Draft202012Validator(kind.json_schema()).is_valid(value))


def test_the_schemas_take_what_the_api_takes() -> None:
    whole = {
        "name": "a",
        "type": "openai",
        **api_key({"action": "set", "value": "x"}),
        "headers": {"x": "plain", "y": {"action": "keep"}},
        "proxy_url": "direct",
    }
    route = {"name": "r", "targets": ["a/b"], "before": "other"}
    unnamed = {key: value for key, value in whole.items() if key != "name"}

    assert (True, False) == (fits(NewProvider, whole), fits(NewProvider, unnamed))
    assert (True, True) == (fits(ProviderGiven, whole), fits(ProviderGiven, unnamed))
    assert (True, False) == (
        fits(ProviderPatch, {"tls": {"ca": None}, "headers": None}),
        fits(ProviderPatch, {"name": None}),
    )
    assert (False, False) == (fits(ProviderGiven, api_key("sk")), fits(ProviderPatch, {"tsl": {}}))
    assert (True, True, True) == (fits(NewRoute, route), fits(RouteGiven, route), fits(RoutePatch, {"before": None}))
    assert (True, False) == (fits(NewAlias, {"from": "a", "to": "b"}), fits(AliasPatch, {"before": "x"}))
    assert fits(ProviderShown, {**SHOWN, "file": "c.yaml", "line": 1})
    assert fits(ProviderChanged, {**SHOWN, "file": "c.yaml", "line": 1, "notices": [], "restart": []})
    assert not fits(ProviderShown, {**SHOWN, "file": "c.yaml", "line": 1, "more": 1})
    assert EntryChanged in ProviderChanged.__mro__


FORMS = st.sampled_from(
    [
        {"action": "keep"},
        {"action": "set", "value": "S3CR3T"},
        {"reference": "${env:A}"},
        {"action": "set"},
        "S3CR3T",
        None,
        5,
    ]
)
BODIES = st.fixed_dictionaries(
    {},
    optional={
        "credentials": st.lists(
            st.fixed_dictionaries({"name": st.sampled_from(["one", "two"])}, optional={"api_key": FORMS}), max_size=2
        ),
        "headers": st.dictionaries(st.sampled_from(["x-one", "x"]), FORMS, max_size=2) | st.none(),
        "proxy_url": FORMS,
        "options": st.recursive(
            FORMS, lambda inner: st.dictionaries(st.sampled_from(["token", "a"]), inner, max_size=2)
        ),
        "unknown": FORMS,
    },
)


@given(BODIES)
@settings(max_examples=200, deadline=None)
def test_whatever_is_given_no_secret_is_told_again(body: Any) -> None:
    try:
        told = str(shown(translated(body, sealer=Seals()).value, "providers"))
    except BodyFaults as refused:
        told = str(refused)

    # What stands where no secret belongs is shown.
    assert "S3CR3T" not in told or "S3CR3T" in str(body.get("options"))
    assert "sk-" not in told

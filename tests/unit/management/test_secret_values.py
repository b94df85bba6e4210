"""Documents without their secrets, and with them again."""

import contextlib
import json
import re
import textwrap
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from config.document import parse
from config.edit.values import is_same
from config.faults import ConfigFaults
from management.secrets.kept_secrets import given_in
from management.secrets.secret_places import KEPT, Manner, render_place, spots, whole
from management.secrets.secret_values import masked_document, restored_document

SEALED = "${sealed:k1:c2VhbGVk}"


def text(written: str) -> str:
    return textwrap.dedent(written).lstrip("\n")


def shown_values(value: Any) -> Any:
    # JSON is YAML.
    return parse(masked_document(json.dumps(value).encode()), "").value


SHOWN = {
    "a literal": ("api_key: sk-1", 'api_key: "${kept}"'),
    "in single quotes": ("api_key: 'sk-''1'  # mine", 'api_key: "${kept}"  # mine'),
    "in double quotes": (r'api_key: "sk\u002d1"', 'api_key: "${kept}"'),
    "a number": ("api_key: 12345", 'api_key: "${kept}"'),
    "on several lines": ("api_key: sk-1\n      sk-2", 'api_key: "${kept}"'),
    "in quotes on several lines": ('api_key: "sk-1 \\\n      sk-2"', 'api_key: "${kept}"'),
    "a block": ("api_key: |-  # why\n      sk-1\n      sk-2\n", 'api_key: "${kept}"  # why\n'),
    "a folded block": ("api_key: >2\n      sk-1\n\n\n    # end\n", 'api_key: "${kept}"\n\n\n    # end\n'),
    "anchored": ("api_key: &one sk-1", 'api_key: &one "${kept}"'),
    "anchored, a comment between": ("api_key: &one # c\n      sk-1", 'api_key: &one # c\n      "${kept}"'),
    "behind a question mark": ("? api_key\n    : sk-1", '? api_key\n    : "${kept}"'),
    "in brackets": ("{api_key: sk-1, weight: 2}", '{api_key: "${kept}", weight: 2}'),
    "in brackets where a list belongs": ("api_key: [sk-1, {a: sk-2}]", 'api_key: ["${kept}", {a: "${kept}"}]'),
    "a reference": ("api_key: ${env:KEY}", "api_key: ${env:KEY}"),
    "a sealed value": (f"api_key: {SEALED}", f"api_key: {SEALED}"),
    "a reference with a default": ("api_key: ${env:KEY:-sk-1}", 'api_key: "${env:KEY:-${kept}}"'),
    "a reference with an empty default": ("api_key: ${env:KEY:-}", "api_key: ${env:KEY:-}"),
    "a reference in a text": ("api_key: 'Bearer ${env:KEY}'", 'api_key: "${kept}${env:KEY}"'),
    "what only looks like a reference": ("api_key: ${sk-1}", 'api_key: "${kept}"'),
    "an escape": ("api_key: $${env:KEY}", 'api_key: "${kept}"'),
    "nothing": ("api_key:", "api_key:"),
    "nothing that is said": ("api_key: ''", "api_key: ''"),
    "a misspelled key": ("api-key: sk-1", 'api-key: "${kept}"'),
    "a misspelled key that hides a list": ("keys: [sk-1, true, null]", 'keys: ["${kept}", true, null]'),
    "text where a number belongs": ("weight: sk-1", 'weight: "${kept}"'),
    "a reference where a number belongs": ("weight: ${env:WEIGHT}", "weight: ${env:WEIGHT}"),
    "another number": ("weight: 5", "weight: 5"),
}


@pytest.mark.parametrize("name", SHOWN)
def test_each_spelling_of_a_secret_is_masked_and_comes_back(name: str) -> None:
    before, after = SHOWN[name]
    head = "# sk-comments are the operator's own words\nproviders:\n- name: a\n  credentials:\n  - "
    tail = "\n  models: ['gpt-*'] # sk-0\n"
    document, shown = (f"{head}{each}{tail}".encode() for each in (before, after))

    assert shown.decode() == masked_document(document).decode()
    assert document == restored_document(shown, document)


def test_line_breaks_of_dos_stay() -> None:
    document = b"providers:\r\n- name: a\r\n  headers:\r\n    x: |\r\n      sk\r\n\r\n  type: echo\r\n"

    shown = masked_document(document)

    assert b'providers:\r\n- name: a\r\n  headers:\r\n    x: "${kept}"\r\n\r\n  type: echo\r\n' == shown
    assert document == restored_document(shown, document)


ADDRESSES = {
    "https://host/v1": "https://host/v1",
    "https://user:sk@host/v1": "https://${kept}@host/v1",
    "https://sk@host:8443": "https://${kept}@host:8443",
    "https://${env:USER}:${env:PASSWORD}@host": "https://${env:USER}:${env:PASSWORD}@host",
    "https://${env:USER:-sk}@host": "https://${kept}@host",
    "https://user:${env:PASSWORD}@host": "https://${kept}@host",
    "https://host/v1?key=sk&plain&a=&b=${env:B}": "https://host/v1?key=${kept}&${kept}&a=&b=${env:B}",
    "https://host/v1?": "https://host/v1?",
    "https://host?a=b=c#sk": "https://host?a=${kept}#${kept}",
    "https://host#": "https://host#",
    "https://us:s/k@host/v1": "https://${kept}@host/v1",
    "https://us:s?k@host/v1": "https://${kept}@host/v1",
    "https://host:8443/@scope/v1": "https://host:8443/@scope/v1",
    "https://[::1]:80/@scope": "https://[::1]:80/@scope",
    "//user:sk@host": "${kept}@host",
    "user:sk@host": "${kept}@host",
    "host/v1": "host/v1",
    "@host": "@host",
    "": "",
    "${env:BASE}": "${env:BASE}",
    "${env:BASE:-http://localhost:1/v1}": "${env:BASE:-http://localhost:1/v1}",
    "${env:BASE:-http://u:sk@localhost?k=sk}": "${env:BASE:-http://${kept}@localhost?k=${kept}}",
    "https://${env:HOST}/v1?k=$${x}": "https://${env:HOST}/v1?k=${kept}",
    "${nothing:sk}": "${kept}",
    "${env:": "${kept}",
}


@pytest.mark.parametrize("address", ADDRESSES)
def test_addresses_are_shown_without_what_is_secret_in_them(address: str) -> None:
    found = shown_values({"providers": [{"base_url": address}]})

    assert {"providers": [{"base_url": ADDRESSES[address]}]} == found


HOOKS = {
    "https://host": "https://host",
    "https://host/": "https://host/",
    "https://host:8443/sk/sk": "https://host:8443/${kept}",
    "https://u:sk@host/sk?a=sk#sk": "https://${kept}@host/${kept}?a=${kept}#${kept}",
    "https://host/${env:PATH}/${env:B}": "https://host/${env:PATH}/${env:B}",
    "https://host/sk/${env:PATH}": "https://host/${kept}",
    "https://host/${env:PATH:-sk}": "https://host/${kept}",
    "${env:HOOK:-https://host/sk}": "${env:HOOK:-https://host/${kept}}",
    "https://host\\sk": "https://host\\${kept}",
    "https://us:s/k@host/sk": "https://${kept}",
    "host/sk": "host/${kept}",
}


@pytest.mark.parametrize("address", HOOKS)
def test_the_path_of_a_webhooks_address_may_be_all_that_opens_it(address: str) -> None:
    found = shown_values({"webhooks": [{"url": address}]})

    assert {"webhooks": [{"url": HOOKS[address]}]} == found


@pytest.mark.parametrize(
    ("path", "value", "shown"),
    [
        (("transport", "proxy_url"), "http://u:sk@proxy", KEPT),
        (("storage", "url"), "postgresql://u:${env:PASSWORD}@db/x", "${kept}${env:PASSWORD}${kept}"),
        (("management", "admin_key_hash"), "$argon2id$v=19$x", KEPT),
        (("secrets", "vault", "auth", "secret_id"), "sk", KEPT),
        (("secrets", "vault", "address"), "https://u:sk@vault", "https://${kept}@vault"),
        (("server", "public_url"), "https://host?k=sk", "https://host?k=${kept}"),
        (("server", "unknown", "deep"), "sk", KEPT),
        (("server",), "sk", KEPT),
        (("providers",), {"openai": {"api_key": "sk"}}, {"openai": {"api_key": KEPT}}),
        (("unknown",), ["sk", 1, None], [KEPT, KEPT, None]),
        (("tokens",), [{"name": "t", "sha256": "ab"}], [{"name": "t", "sha256": KEPT}]),
        (("providers",), [{"name": "p", "headers": {"x": "sk"}}], [{"name": "p", "headers": {"x": KEPT}}]),
        (("providers",), [{"name": "p", "proxy_url": "direct"}], [{"name": "p", "proxy_url": "direct"}]),
        (("providers",), [{"options": {"api_key": "sk", "a": "b"}}], [{"options": {"api_key": KEPT, "a": "b"}}]),
        (("providers",), [{"options": {"a": "https://u:sk@h"}}], [{"options": {"a": "https://${kept}@h"}}]),
        (("providers",), [{"options": {"a": {"token": "sk"}}}], [{"options": {"a": {"token": KEPT}}}]),
        (("webhooks",), [{"url": "https://h?k=sk", "secret": "sk"}], [{"url": "https://h?k=${kept}", "secret": KEPT}]),
        (("routes",), [{"overrides": {"set": {"user": "b", "n": 1.5}}}], [{"overrides": {"set": {"user": "b", "n": 1.5}}}]),
    ],
)  # fmt: skip
def test_every_place_of_a_secret_is_known(path: tuple[str, ...], value: Any, shown: Any) -> None:
    for key in reversed(path):
        value, shown = {key: value}, {key: shown}

    assert shown == shown_values(value)


def test_a_text_that_is_a_secret_by_an_alias_is_masked_where_it_stands() -> None:
    document = (
        b"tokens: [{name: t, metadata: {note: &k sk-1, other: sk-2}}]\nproviders: [{credentials: [{api_key: *k}]}]\n"
    )

    shown = masked_document(document)

    assert document.replace(b"sk-1", b'"${kept}"') == shown
    assert document == restored_document(shown, document)


@pytest.mark.parametrize("document", [b"a: [", b"a: 1\na: 2\n", b"\xff", b"- a\n", b"providers: !t [{api_key: sk}]\n"])
def test_what_cannot_be_read_is_not_shown(document: bytes) -> None:
    with pytest.raises(ConfigFaults):
        masked_document(document)


def test_a_key_that_is_a_secret_by_an_alias_is_not_shown() -> None:
    document = b"tokens:\n- metadata: {&k sk-planted: 1}\nproviders: [{credentials: [{api_key: *k}]}]\n"

    with pytest.raises(ConfigFaults, match=r"f.yaml:2:17: a secret is written here in a way that") as refused:
        masked_document(document, "f.yaml")

    assert "sk-planted" not in str(refused.value)


@pytest.mark.parametrize("document", [b"", b"# nothing\n", b"{}\n", b"---\n"])
def test_a_document_of_nothing_is_shown_as_it_is(document: bytes) -> None:
    assert document == masked_document(document)


PRESENT = text(
    """
    providers:
      - name: a
        base_url: https://a/v1?key=sk-query
        credentials:
          - {name: one, api_key: 'sk-one'}
          - {name: two, api_key: &two sk-two}
          - {name: three, api_key: *two}
        headers:
          x: |
            sk-header
      - {name: b, credentials: [{name: one, api_key: "sk-b"}]}
    """
)


def restored(shown: str) -> Any:
    return parse(restored_document(shown.encode(), PRESENT.encode(), "f.yaml"), "").value


def test_an_edit_keeps_the_spelling_of_what_it_does_not_touch() -> None:
    shown = masked_document(PRESENT.encode()).decode()

    edited = shown.replace("  - name: a\n", "  # said\n  - name: a\n    type: openai\n")

    assert PRESENT.replace("  - name: a\n", "  # said\n  - name: a\n    type: openai\n") == (
        restored_document(edited.encode(), PRESENT.encode()).decode()
    )


def test_entries_may_change_their_order_and_spelling() -> None:
    found = restored(
        """
        providers:
        - {name: b, credentials: [{api_key: '${kept}', name: one}]}
        - headers: {x: "${kept}"}
          name: a
          credentials:
          - name: two
            api_key: ${kept}
          - {name: three, api_key: "$\\u007bkept}"}
        """
    )

    a, b = found["providers"][1], found["providers"][0]
    assert "sk-b" == b["credentials"][0]["api_key"]
    assert "sk-header\n" == a["headers"]["x"]
    assert ["sk-two", "sk-two"] == [each["api_key"] for each in a["credentials"]]


@pytest.mark.parametrize(
    ("shown", "place", "message"),
    [
        ("providers: [{name: c, credentials: [{name: one, api_key: '${kept}'}]}]", "1:58: providers[0].cred", "none here"),
        ("providers: [{name: a, credentials: [{name: two, api_key: 'x${kept}'}]}]", "1:58: ", "another one"),
        ("providers: [{name: a, models: ['${kept}']}]", "1:32: providers[0].models[0]", "none here"),
        ("providers:\n- name: a\n  base_url: 'https://evil/v1?key=${kept}'", "3:13: providers[0].base_url", "anew"),
        ("transport: {proxy_url: '${kept}'}", "1:24: transport.proxy_url", "none here"),
        ("providers: [{name: a, options: {deep: ['${kept}']}}]", "1:40: ", "none here"),
    ],
)  # fmt: skip
def test_a_secret_is_kept_at_its_own_place_alone(shown: str, place: str, message: str) -> None:
    with pytest.raises(ConfigFaults, match=message) as refused:
        restored(shown)

    assert str(refused.value).startswith(f"f.yaml:{place}")
    assert "sk-" not in str(refused.value)


def test_an_anchor_takes_no_secret_to_another_place() -> None:
    with pytest.raises(ConfigFaults, match=r"f.yaml:1:\d+: `\$\{kept\}` is used in several places"):
        restored(
            "providers: [{name: a, credentials: [{name: one, api_key: &k '${kept}'}, {name: two, api_key: *k}], "
            "headers: {x: *k}}]"
        )
    with pytest.raises(ConfigFaults, match="none here"):
        restored(
            "providers: [{name: a, type: *k, credentials: [{name: one, api_key: '${kept}'}]}]".replace(
                "*k", "'${kept}'"
            )
        )


def test_what_is_no_document_is_not_restored() -> None:
    with pytest.raises(ConfigFaults, match=r"f.yaml:1:"):
        restored("providers: ['${kept}'")


def test_without_a_secret_to_keep_nothing_is_looked_at() -> None:
    assert b"a: [" == restored_document(b"a: [", b"b: [")


def test_of_two_entries_of_one_name_each_keeps_its_secret_where_it_stands() -> None:
    present = b"providers: [{name: a, headers: {x: sk-1}}, {name: a, headers: {x: sk-2}}]\n"
    kept = b"{name: a, headers: {x: '${kept}'}}"

    assert present.replace(b", {name: a, headers: {x: sk-2}}", b"") == (
        restored_document(b"providers: [%b]\n" % kept, present)
    )
    with pytest.raises(ConfigFaults, match="several values"):
        restored_document(b"providers: [{}, {}, %b]\n" % kept, present)


def test_comments_and_escapes_ask_for_nothing() -> None:
    document = b"a: $${kept} # ${kept}\n"

    assert document == restored_document(document, b"")


def test_which_secrets_a_caller_has_written_out_is_known() -> None:
    given_document: Any = {
        "providers": [
            {
                "name": "a",
                "base_url": "https://h?k=sk",
                "headers": {"x": "sk", "y": KEPT},
                "credentials": [
                    {"name": "one", "api_key": "sk"},
                    {"name": "two", "api_key": "${env:KEY}"},
                    {"name": "three", "api_key": "${env:KEY:-sk}"},
                ],
            }
        ]
    }

    assert ["providers[a].base_url", "providers[a].credentials[one].api_key", "providers[a].headers.x"] == sorted(
        map(render_place, given_in(given_document))
    )


# Documents at random.

MARK = "PLANTED"
TAILS = st.text(st.sampled_from("aZ09-_.'\"\\ #:${}[]|>&*!,\n\té"), max_size=6)
NAMES = st.sampled_from(["one", "two", "three"])
FREE = (
    st.none() | st.booleans() | st.integers(0, 9) | st.sampled_from(["text", "a: b", "${env:A}", "", "no", "x\n y\n"])
)


@st.composite
def secrets(draw: st.DrawFn) -> str:
    return draw(TAILS).replace("${", "$ {") + MARK + draw(TAILS)


@st.composite
def documents(draw: st.DrawFn) -> tuple[dict[str, Any], str]:
    """Values, and a text that has them, with secrets at some places of all kinds."""
    providers = [
        {
            "name": name,
            **draw(
                st.fixed_dictionaries(
                    {},
                    optional={
                        "credentials": st.lists(
                            st.fixed_dictionaries({"name": NAMES, "api_key": secrets()}),
                            max_size=2,
                            unique_by=lambda each: str(each["name"]),
                        ),
                        "headers": st.dictionaries(NAMES, secrets(), max_size=2),
                        "proxy_url": secrets(),
                        "unknown": st.recursive(secrets(), lambda inner: st.lists(inner, max_size=2), max_leaves=3),
                        "models": st.lists(FREE, max_size=2),
                        "options": st.dictionaries(NAMES, FREE, max_size=2),
                        "weight": secrets(),
                    },
                )
            ),
        }
        for name in draw(st.lists(NAMES, max_size=3, unique=True))
    ]
    value: dict[str, Any] = {"providers": providers}
    if draw(st.booleans()):
        value["transport"] = {"proxy_url": draw(secrets())}
    dumped = yaml.safe_dump(
        value,
        default_flow_style=draw(st.sampled_from([None, True, False])),
        default_style=draw(st.sampled_from([None, "'", '"', "|", ">"])),
        width=draw(st.sampled_from([20, 10_000])),
        sort_keys=False,
        allow_unicode=draw(st.booleans()),
    )
    # Comments where nothing goes on.
    lines = dumped.split("\n")
    if draw(st.booleans()):
        lines = [f"{line}  # c" if re.fullmatch(r"[ -]*[a-z_]+:( [a-z]+)?", line) else line for line in lines]
    return value, "\n".join(lines)


@given(documents())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_secret_is_shown_and_each_comes_back_to_the_byte(made: tuple[dict[str, Any], str]) -> None:
    _, written = made
    data = written.encode()
    present = parse(data, "")
    assume(not present.faults)
    # What YAML 1.1 writes without quotes may be no text for YAML 1.2; what is left of it is a secret still.

    shown = masked_document(data)

    assert MARK not in shown.decode()
    assert data == restored_document(shown, data)
    # With something changed beside it, too: to the same values, if not always in the same spelling.
    edited = restored_document(b"# edited\n" + shown, data)
    assert is_same(present.value, parse(edited, "").value)


@given(documents(), documents())
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_secret_comes_to_a_place_where_it_was_not(
    one: tuple[dict[str, Any], str], other: tuple[dict[str, Any], str]
) -> None:
    present, given_document = one[1].encode(), other[1].encode()
    assume(not parse(present, "").faults)
    assume(not parse(given_document, "").faults)
    shown = masked_document(given_document)
    with contextlib.suppress(ConfigFaults):
        found = parse(restored_document(shown, present), "").value
        here = {(spot.place, str(spot.value)) for spot in spots(parse(present, "").value, whole())}
        for spot in spots(found, whole()):
            if spot.ground.manner(spot.value) is Manner.SECRET and MARK in str(spot.value):
                assert (spot.place, str(spot.value)) in here


@pytest.mark.parametrize("written", ["api_key: &S3cret", "api_key: &S3cret # a comment", "{api_key: &S3cret }"])
def test_a_secret_that_reads_as_an_anchor_is_not_shown(written: str) -> None:
    document = f"providers:\n  - name: a\n    credentials:\n      - {written}\n".encode()
    with pytest.raises(ConfigFaults, match="an anchor") as refused:
        masked_document(document, "config.yaml")
    assert "S3cret" not in str(refused.value)
    assert [("config.yaml", 4)] == [(fault.file, fault.line) for fault in refused.value.faults]

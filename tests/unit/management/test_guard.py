from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.edit.edits import PutEntry
from config.references import Reference, parse_template
from management.secrets.compared import GuardRefused
from management.secrets.guard import Amendments, check_edit
from management.secrets.secret_places import Place, spots, step_of, whole

Document = dict[str, Any]

SEALED = "${sealed:k1:c2VhbGVkIHZhbHVl}"
SEALED_BEFORE = "${sealed:k1:YW4gb2xkZXIgb25l}"

BEFORE: Document = {
    "server": {"listen": "127.0.0.1:8080"},
    "management": {
        "admin_key_hash": "$argon2id$old",
        "allowed_references": ["env:LLM_*", "file:secrets/*", "vault:secret/llm/*"],
    },
    "include": ["more.yaml"],
    "secrets": {
        "vault": {"address": "https://vault", "auth": {"token": "${file:vault-token}"}, "cache_seconds": 60},
        "master_key": {"file": "master.key"},
    },
    "storage": {"url": "sqlite:///data/sluice.db"},
    "transport": {"proxy_url": "http://proxy:3128"},
    "tokens": [{"name": "team", "sha256": "${env:TEAM}"}],
    "providers": [
        {
            "name": "openai",
            "type": "openai",
            "base_url": "https://api.openai.com/v1",
            "credentials": [
                {"name": "main", "api_key": "${env:OPENAI}"},
                {"name": "spare", "api_key": "sk-literal"},
                {"name": "safe", "api_key": SEALED},
            ],
            "headers": {"x-team": "Bearer of-the-team"},
            "options": {"organization": "org-1"},
        },
        {
            "name": "other",
            "type": "openai-compatible",
            "base_url": "https://other/v1?key=${env:OTHER}",
            "proxy_url": "https://user:${env:PROXY}@proxy:3129",
            "credentials": [{"name": "main", "api_key": "${vault:secret/other#key}"}],
        },
        {"name": "open", "type": "openai-compatible", "base_url": "http://127.0.0.1:11434/v1", "proxy_url": "direct"},
        {"name": "closed", "type": "openai-compatible", "base_url": "http://10.0.0.1/v1", "allow_private": False},
        {"name": "marked", "type": "openai-compatible", "base_url": "http://10.0.0.2/v1", "allow_private": True},
    ],
    "routes": [{"name": "gold", "targets": ["openai/gpt"], "overrides": {"set": {"user": "${env:USER_NAME}"}}}],
    "webhooks": [{"name": "ops", "url": "https://hooks/ops", "secret": "${env:HOOK}"}],
}

Edit = Callable[[Document], object]


def provider(document: Document, name: str) -> Document:
    return next(each for each in document["providers"] if each["name"] == name)


def hook(**fields: Any) -> Edit:
    return lambda document: document["webhooks"][0].update(fields)


def put(name: str, /, **fields: Any) -> Edit:
    return lambda document: provider(document, name).update(fields)


def set_key(name: str, number: int, key: str) -> Edit:
    return lambda document: provider(document, name)["credentials"][number].update(api_key=key)


def add(**fields: Any) -> Edit:
    return lambda document: document["providers"].append({"name": "new", "type": "openai-compatible", **fields})


def at(*path: str, value: Any) -> Edit:
    def edit(document: Document) -> None:
        inner = document
        for key in path[:-1]:
            inner = inner.setdefault(key, {})
        inner[path[-1]] = value

    return edit


def drop(name: str, key: str) -> Edit:
    return lambda document: provider(document, name).pop(key)


def together(*edits: Edit) -> Edit:
    return lambda document: [edit(document) for edit in edits]


def without_secrets(document: Document) -> None:
    provider(document, "openai").update(credentials=[], headers={})


def swap_names(document: Document) -> None:
    one, two = provider(document, "openai"), provider(document, "other")
    one["name"], two["name"] = "other", "openai"


SECRET, REFERENCE, FILE = (
    "provider_error-secret_required",
    "config_error-reference_not_allowed",
    "config_error-file_only",
)

REFUSED: dict[str, tuple[Edit, str]] = {
    # 1. Secrets stay with their destination.
    "another base_url": (put("openai", base_url="https://evil/v1"), SECRET),
    "no base_url: the type's own": (drop("openai", "base_url"), SECRET),
    "another path of it": (put("openai", base_url="https://api.openai.com/v2"), SECRET),
    "another type": (put("openai", type="openai-compatible"), SECRET),
    "a proxy of its own": (put("openai", proxy_url="http://evil:3128"), SECRET),
    "no proxy at all": (put("openai", proxy_url="direct"), SECRET),
    "the common proxy instead of its own": (put("other", proxy_url=None), SECRET),
    "another common proxy": (at("transport", "proxy_url", value="http://evil:3128"), SECRET),
    "the common proxy is taken away": (at("transport", value={}), SECRET),
    "other authorities": (put("openai", tls={"ca": "evil.pem"}), SECRET),
    "options that the type may derive an address from": (put("other", options={"region": "evil"}), SECRET),
    "one of several secrets is kept": (
        together(put("openai", base_url="https://evil/v1"), set_key("openai", 0, "sk-mine")),
        SECRET,
    ),
    "a header is kept": (
        together(put("openai", base_url="https://evil/v1", credentials=[])),
        SECRET,
    ),
    "a literal moves to another credential": (
        put("openai", base_url="https://evil/v1", headers={}, credentials=[{"name": "mine", "api_key": "sk-literal"}]),
        SECRET,
    ),
    "the literal of a header becomes a credential": (
        put(
            "openai",
            base_url="https://evil/v1",
            headers={},
            credentials=[{"name": "a", "api_key": "Bearer of-the-team"}],
        ),
        SECRET,
    ),
    "a proxy with a password, to be trusted by other authorities": (
        together(put("other", tls={"ca": "evil.pem"}, credentials=[], base_url="https://other/v1")),
        SECRET,
    ),
    "a secret in base_url itself, to another proxy": (
        put("other", proxy_url="http://evil:1", credentials=[]),
        SECRET,
    ),
    "a webhook's other address": (hook(url="https://evil"), "config_error-secret_required"),
    "a webhook's other authorities": (hook(tls={"ca": "evil.pem"}), "config_error-secret_required"),
    "a webhook's other address, and its secret a former one": (
        hook(url="https://evil", secret="${env:LLM_A}", former_secrets=["${env:HOOK}"]),
        "config_error-secret_required",
    ),
    "a webhook's secret at another webhook": (
        lambda document: document["webhooks"].append({"name": "b", "url": "https://evil", "secret": "${env:HOOK}"}),
        REFERENCE,
    ),
    "a webhook's secret in its address": (hook(url="https://hooks/${env:HOOK}"), "config_error-secret_required"),
    # By names.
    "names swapped": (swap_names, REFERENCE),
    "renamed": (put("openai", name="renamed"), REFERENCE),
    "two of one name, one of them elsewhere": (
        lambda document: document["providers"].append({**provider(document, "openai"), "base_url": "https://evil/v1"}),
        SECRET,
    ),
    # 2. References.
    "a reference in the place of a key": (set_key("openai", 0, "${env:HOME}"), REFERENCE),
    "moved to another credential": (set_key("openai", 1, "${env:OPENAI}"), REFERENCE),
    "moved to another provider": (set_key("other", 0, "${env:OPENAI}"), REFERENCE),
    "copied into a new provider": (
        add(base_url="https://evil", credentials=[{"name": "main", "api_key": "${env:OPENAI}"}]),
        REFERENCE,
    ),
    "in an address": (put("open", base_url="http://evil/${env:OPENAI}"), REFERENCE),
    "in a name": (add(name="${env:OPENAI}"), REFERENCE),
    "in a header": (put("open", headers={"x": "${env:OPENAI}"}), REFERENCE),
    "in a list": (put("open", models=["${env:OPENAI}"]), REFERENCE),
    "in options": (put("open", options={"deep": [{"er": "${env:OPENAI}"}]}), REFERENCE),
    "in an override of a body": (
        lambda document: document["routes"][0]["overrides"]["set"].update(metadata="${env:OPENAI}"),
        REFERENCE,
    ),
    "in a token": (lambda document: document["tokens"][0].update(sha256="${env:OPENAI}"), REFERENCE),
    "the same within another text": (
        put("other", base_url="https://evil/v1?key=${env:OTHER}", credentials=[]),
        REFERENCE,
    ),
    "from the password to the host": (
        lambda document: provider(document, "other").update(proxy_url="https://${env:PROXY}.evil:3129"),
        SECRET,
    ),
    "with a default that was none": (set_key("openai", 0, "${env:OPENAI:-mine}"), REFERENCE),
    "with an allowed one in its default": (set_key("openai", 0, "${env:HOME:-env:LLM_A}"), REFERENCE),
    "beside an allowed one": (set_key("openai", 0, "${env:LLM_A}${env:HOME}"), REFERENCE),
    "a file out of the directory": (set_key("openai", 0, "${file:secrets/../vault-token}"), REFERENCE),
    "a file by an absolute path": (set_key("openai", 0, "${file:/secrets/a}"), REFERENCE),
    "a file by an empty segment": (set_key("openai", 0, "${file:secrets//etc/passwd}"), REFERENCE),
    "a field of Vault that is not allowed": (set_key("openai", 0, "${vault:secret/other#key}"), REFERENCE),
    "a sealed value moved": (set_key("openai", 0, SEALED), REFERENCE),
    "a sealed value of before": (set_key("openai", 2, SEALED_BEFORE), REFERENCE),
    "a client's certificate": (put("open", tls={"cert": "other.pem"}), REFERENCE),
    "the key of one": (put("open", tls={"key": "/etc/ssl/private/key.pem"}), REFERENCE),
    # 3. For the file alone.
    "the API's own bounds: references": (at("management", "allowed_references", value=["*"]), FILE),
    "the API's own bounds: private networks": (at("server", "allow_private_targets", value=True), FILE),
    "an address of Vault": (at("secrets", "vault", "address", value="https://evil"), FILE),
    "another sign-in to Vault": (at("secrets", "vault", "auth", value={"method": "kubernetes"}), FILE),
    "another file that is shown to Vault": (at("secrets", "vault", "auth", "jwt_file", value="/etc/passwd"), FILE),
    "no Vault": (at("secrets", "vault", value=None), FILE),
    "other authorities of Vault": (at("secrets", "vault", "tls", value={"ca": "evil.pem"}), FILE),
    "another master key": (at("secrets", "master_key", value={"file": "evil.key"}), FILE),
    "another directory of kept secrets": (at("secrets", "directory", value="/tmp"), FILE),
    "no admin key": (at("management", "admin_key_hash", value=None), FILE),
    "another database": (at("storage", "url", value="postgresql://evil/x"), FILE),
    "a further file": (at("include", value=["more.yaml", "/etc/app.yaml"]), FILE),
    "a private network, new": (add(base_url="http://10.0.0.1", allow_private=True), FILE),
    "a private network, raised": (put("closed", allow_private=True), FILE),
    "a private network, by a reference": (put("closed", allow_private="${env:LLM_PRIVATE}"), FILE),
    "a private network, said beside another address": (
        put("open", base_url="http://10.0.0.9/v1", allow_private=True),
        FILE,
    ),
}

ALLOWED: dict[str, Edit] = {
    "a webhook's secret as a former one": hook(secret="${env:LLM_A}", former_secrets=["${env:HOOK}"]),
    "nothing": lambda _: None,
    "another order": lambda document: document["providers"].reverse(),
    "another order of credentials": lambda document: provider(document, "openai")["credentials"].reverse(),
    "what is no destination": put("openai", models=["gpt-*"], timeouts={"connect_seconds": 1}, discovery={}),
    "an option that is none": put("openai", options={"organization": "org-2", "project": "p"}),
    "nothing where null was": put("openai", tls={}, timeouts={}),
    "the same written out": put("openai", tls={"ca": None}, proxy_url=None),
    "a secret is taken away": lambda document: provider(document, "openai")["credentials"].pop(),
    "a new literal": set_key("openai", 0, "sk-mine"),
    "an allowed reference": set_key("openai", 0, "${env:LLM_A}"),
    "an allowed one with a default": set_key("openai", 0, "${env:LLM_A:-x}"),
    "an allowed file": set_key("openai", 0, "${file:secrets/a}"),
    "an allowed field of Vault": set_key("openai", 0, "${vault:secret/llm/a#key}"),
    "an escape is no reference": put("open", options={"template": "$${env:OPENAI}"}),
    "an allowed certificate": put("open", tls={"ca": "any.pem", "cert": "secrets/c.pem"}),
    "elsewhere, with new secrets": put(
        "openai", base_url="https://new/v1", headers={}, credentials=[{"name": "main", "api_key": "${env:LLM_B}"}]
    ),
    "elsewhere, without secrets": together(without_secrets, put("openai", base_url="https://new/v1")),
    "another address without a secret": put("open", base_url="http://192.168.0.1/v1"),
    "how long Vault's values are kept": at("secrets", "vault", "cache_seconds", value=5),
    "another admin key": at("management", "admin_key_hash", value="$argon2id$new"),
    "a file less": at("include", value=[]),
    "a provider less": lambda document: document["providers"].pop(0),
    "no section": lambda document: document.pop("providers"),
    "defaults written out": at("server", "allow_private_targets", value=False),
    "what is wrong in itself": at("providers", value=["x", {"name": 5}, {"name": "y", "base_url": "${nothing"}]),
}


def check(edit: Edit, *, given: frozenset[Place] = frozenset(), **more: Any) -> Amendments:
    after = deepcopy(BEFORE)
    edit(after)
    return check_edit(BEFORE, after, BEFORE["management"]["allowed_references"], False, given=given, **more)


@pytest.mark.parametrize("name", REFUSED)
def test_an_edit_that_reaches_further_than_the_callers_own_rights_is_refused(name: str) -> None:
    edit, code = REFUSED[name]

    with pytest.raises(GuardRefused) as refused:
        check(edit)

    assert code == refused.value.code
    assert "sk-literal" not in str(refused.value)
    assert "of-the-team" not in str(refused.value)


@pytest.mark.parametrize("name", ALLOWED)
def test_other_edits_pass(name: str) -> None:
    check(ALLOWED[name])


CREDENTIAL: Place = ("providers", ("name", "openai"), "credentials", ("name", "main"), "api_key")


def test_who_gives_the_same_secret_anew_keeps_none() -> None:
    header: Place = ("providers", ("name", "openai"), "headers", "x-team")
    literal: Place = ("providers", ("name", "openai"), "credentials", ("name", "spare"), "api_key")
    edit = together(
        put("openai", base_url="https://new/v1"),
        lambda document: provider(document, "openai").update(credentials=[{"name": "spare", "api_key": "sk-literal"}]),
    )

    with pytest.raises(GuardRefused):
        check(edit, given=frozenset({header}))
    check(edit, given=frozenset({header, literal}))


def test_a_reference_that_is_given_anew_is_kept_unless_it_is_allowed() -> None:
    def edit(document: Document) -> None:
        provider(document, "openai").update(
            base_url="https://new/v1", headers={}, credentials=[{"name": "main", "api_key": "${env:OPENAI}"}]
        )

    with pytest.raises(GuardRefused):
        check(edit, given=frozenset({CREDENTIAL}))

    before, after = deepcopy(BEFORE), deepcopy(BEFORE)
    edit(after)
    check_edit(before, after, ["env:OPENAI"], False, given=frozenset({CREDENTIAL}))


@pytest.mark.parametrize("kept", ["sk-literal", SEALED])
def test_what_is_given_of_one_entry_says_nothing_of_another_of_its_name(kept: str) -> None:
    credentials = [{"name": "main", "api_key": kept}, {"name": "main", "api_key": "sk-mine"}]
    edit = put("openai", base_url="https://evil/v1", headers={}, credentials=credentials)
    with pytest.raises(GuardRefused):
        check(edit, given=frozenset({CREDENTIAL}))


def test_what_was_sealed_for_this_edit_may_stand() -> None:
    check(set_key("openai", 0, SEALED_BEFORE), given=frozenset({CREDENTIAL}))


def test_a_sealed_value_that_is_kept_stays_with_its_destination() -> None:
    place: Place = ("providers", ("name", "openai"), "credentials", ("name", "safe"), "api_key")
    edit = together(
        put("openai", base_url="https://new/v1", headers={}),
        lambda document: provider(document, "openai").update(credentials=[{"name": "safe", "api_key": SEALED}]),
    )

    with pytest.raises(GuardRefused):
        check(edit, given=frozenset({place}))


def test_a_restored_revision_brings_its_sealed_values_but_no_kept_secret_elsewhere() -> None:
    check(set_key("openai", 0, SEALED_BEFORE), restoring=True)
    with pytest.raises(GuardRefused, match="base_url"):
        check(put("openai", base_url="https://former/v1"), restoring=True)
    with pytest.raises(GuardRefused, match="env:FORMER"):
        check(set_key("openai", 0, "${env:FORMER}"), restoring=True)


def test_an_allow_list_that_is_no_glob_allows_nothing() -> None:
    after = deepcopy(BEFORE)
    set_key("openai", 0, "${env:A}")(after)

    with pytest.raises(GuardRefused):
        check_edit(BEFORE, after, ["env:[A", "{"], False)


AMENDED: dict[str, tuple[Edit, str | None]] = {
    "a new address": (add(base_url="http://10.0.0.1/v1"), "new"),
    "a new entry without an address": (add(), None),
    "an entry of a file gets another": (put("open", base_url="http://10.0.0.9/v1"), "open"),
    "another although it said so": (put("marked", base_url="http://10.0.0.9/v1"), "marked"),
    "a proxy": (put("open", proxy_url="http://10.0.0.1:3128"), "open"),
    "what was false is left out": (drop("closed", "allow_private"), "closed"),
    "false already": (add(base_url="http://10.0.0.1/v1", allow_private=False), None),
    "another key of it": (put("open", models=["llama*"]), None),
    "true said of what was so": (put("open", allow_private=True), None),
    "lowered": (put("marked", allow_private=False), None),
}


@pytest.mark.parametrize("name", AMENDED)
def test_an_address_that_the_api_sets_leads_into_no_private_network(name: str) -> None:
    edit, amended = AMENDED[name]
    after = deepcopy(BEFORE)
    edit(after)

    found = check(edit)

    if amended is None:
        assert Amendments() == found
        return
    entry = {**provider(after, amended), "allow_private": False}
    assert (PutEntry("providers", amended, entry, must_exist=True),) == found.edits
    assert [f"providers[{amended}]"] == [notice.partition(":")[0] for notice in found.notices]


def test_private_networks_are_open_to_the_api_where_the_operator_says_so() -> None:
    after = deepcopy(BEFORE)
    add(base_url="http://10.0.0.1/v1", allow_private=True)(after)

    assert Amendments() == check_edit(BEFORE, after, (), True)


def test_all_that_is_wrong_is_told_with_its_path() -> None:
    with pytest.raises(GuardRefused) as refused:
        check(
            together(
                put("open", headers={"x": "${env:HOME}"}),
                at("server", "allow_private_targets", value=True),
                put("openai", base_url="https://evil/v1"),
            )
        )

    assert [
        ("providers", 0, "base_url"),
        ("providers", 2, "headers", "x"),
        ("server", "allow_private_targets"),
    ] == [fault.path for fault in refused.value.faults]


REFERENCES = ("${env:A}", "${env:B}", "${file:c}", "${vault:d/e#f}", "x${env:A}", SEALED)
NAMES = st.sampled_from(["one", "two"])
TEXTS = st.sampled_from([*REFERENCES, "text", "$${env:A}", ""])
CREDENTIALS = st.lists(
    st.fixed_dictionaries({"name": NAMES, "api_key": TEXTS}), max_size=2, unique_by=lambda each: str(each["name"])
)
PROVIDERS = st.lists(
    st.fixed_dictionaries(
        {"name": NAMES, "type": st.sampled_from(["openai", "echo"])},
        optional={
            "base_url": TEXTS,
            "proxy_url": TEXTS,
            "credentials": CREDENTIALS,
            "headers": st.dictionaries(NAMES, TEXTS, max_size=2),
            "options": st.dictionaries(NAMES, TEXTS | st.lists(TEXTS, max_size=2), max_size=2),
            "models": st.lists(TEXTS, max_size=2),
        },
    ),
    max_size=2,
    unique_by=lambda each: str(each["name"]),
)
DOCUMENTS = st.fixed_dictionaries(
    {"providers": PROVIDERS}, optional={"transport": st.fixed_dictionaries({"proxy_url": TEXTS})}
)


def references(document: Document) -> set[tuple[Place, str]]:
    return {
        (spot.place, piece.label)
        for spot in spots(document, whole())
        if isinstance(spot.value, str)
        for piece in parse_template(spot.value)
        if isinstance(piece, Reference)
    }


@given(DOCUMENTS, DOCUMENTS)
@settings(max_examples=300, deadline=None)
def test_no_reference_comes_to_a_new_place_unnoticed(before: Document, after: Document) -> None:
    try:
        check_edit(before, after, (), False)
    except GuardRefused:
        return

    assert references(after) <= references(before)


@given(DOCUMENTS, DOCUMENTS)
@settings(max_examples=300, deadline=None)
def test_no_provider_goes_elsewhere_with_a_secret_unnoticed(before: Document, after: Document) -> None:
    try:
        check_edit(before, after, ("*",), False)
    except GuardRefused:
        return

    old = {step_of(each): each for each in before["providers"]}
    for entry in after["providers"]:
        former = old.get(step_of(entry), entry)
        if (former.get("base_url"), former["type"]) != (entry.get("base_url"), entry["type"]):
            had = {each["api_key"] for each in former.get("credentials", ())}
            assert not {each["api_key"] for each in entry.get("credentials", ())} & had - {""}

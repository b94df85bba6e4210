"""What the API may do to credentials of the configuration, and to where accounts sign in."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from management.secrets.compared import GuardRefused
from management.secrets.entry_values import shown_document
from management.secrets.guard import Amendments, check_edit
from management.secrets.secret_places import Place

Document = dict[str, Any]
Edit = Callable[[Document], object]

BEFORE: Document = {
    "management": {"admin_key_hash": "$argon2id$old", "allowed_references": ["env:LLM_*", "file:keys/*"]},
    "oauth": {
        "providers": [
            {
                "name": "corp",
                "issuer": "https://id.corp",
                "client_id": "sluice",
                "client_secret": "${env:CORP_SECRET}",
                "token_parameters": {"resource": "of-the-form"},
            },
            {"name": "shared", "token_endpoint": "https://id.shared/token", "client_secret": "${env:LLM_SHARED}"},
            {"name": "public", "token_endpoint": "https://id.public/token", "client_id": "${env:LLM_ID}"},
        ]
    },
    "providers": [
        {
            "name": "many",
            "type": "openai-compatible",
            "base_url": "https://many/v1",
            "oauth": "corp",
            "credentials": [
                {"name": "key", "api_key": "sk-literal", "proxy_url": "direct"},
                {"name": "client", "client_credentials": "corp"},
                {"name": "google", "google_service_account": {"key": "${file:google.json}"}},
                {"name": "entra", "azure_entra": {"tenant": "t", "client_id": "c", "client_secret": "entra-literal"}},
                {"name": "fed", "azure_entra": {"tenant": "t", "client_id": "c", "federated_token": "${file:token}"}},
                {"name": "run", "command": {"run": ["get-token"], "environment": {"KEY": "of-the-program"}}},
            ],
        },
        {"name": "open", "type": "openai-compatible", "base_url": "https://open/v1", "credentials": []},
        {
            "name": "bare",
            "type": "openai-compatible",
            "base_url": "https://bare/v1",
            "credentials": [{"name": "run", "command": {"run": ["get-token"]}}],
        },
        {
            "name": "lent",
            "type": "openai-compatible",
            "base_url": "https://lent/v1",
            "credentials": [{"name": "client", "client_credentials": "corp"}],
        },
    ],
}


def provider(document: Document, name: str) -> Document:
    return next(each for each in document["providers"] if each["name"] == name)


def put(name: str, /, **fields: Any) -> Edit:
    return lambda document: provider(document, name).update(fields)


def credential(name: str, /, *, of: str = "many", **fields: Any) -> Edit:
    """Change a credential, or add it."""

    def edit(document: Document) -> None:
        pool = provider(document, of)["credentials"]
        found = next((each for each in pool if each["name"] == name), None)
        if found is None:
            pool.append({"name": name, **fields})
        else:
            found.update(fields)

    return edit


def oauth(name: str, /, **fields: Any) -> Edit:
    def edit(document: Document) -> None:
        entries = document["oauth"]["providers"]
        found = next((each for each in entries if each["name"] == name), None)
        if found is None:
            entries.append({"name": name, **fields})
        else:
            found.update(fields)

    return edit


def entra(**fields: Any) -> Edit:
    return lambda document: provider(document, "many")["credentials"][3]["azure_entra"].update(fields)


def gone(name: str) -> Edit:
    return lambda document: document["providers"].remove(provider(document, name))


SECRET, COMMAND, REFERENCE, FILE = (
    "provider_error-secret_required",
    "provider_error-command_in_file_only",
    "config_error-reference_not_allowed",
    "config_error-file_only",
)

REFUSED: dict[str, tuple[Edit, str]] = {
    # A program is run by the file alone.
    "a command": (credential("new", of="open", command={"run": ["sh"]}), COMMAND),
    "a command in the place of a key": (credential("key", api_key=None, command={"run": ["sh"]}), COMMAND),
    "another program": (credential("run", command={"run": ["sh", "-c", "id"]}), COMMAND),
    "another variable of it": (
        credential("run", command={"run": ["get-token"], "environment": {"PATH": "/tmp"}}),
        COMMAND,
    ),
    "a command that is none": (credential("new", of="open", command="sh"), COMMAND),
    "a command copied to another provider": (credential("run", of="open", command={"run": ["get-token"]}), COMMAND),
    "a command renamed": (credential("again", of="bare", command={"run": ["get-token"]}), COMMAND),
    "a provider with a command": (
        lambda document: document["providers"].append(
            {"name": "new", "type": "echo", "credentials": [{"name": "a", "command": {"run": ["sh"]}}]}
        ),
        COMMAND,
    ),
    # What a token is obtained by stays with its destination.
    "what a program prints, elsewhere": (put("bare", base_url="https://evil/v1"), SECRET),
    "what a program prints, by a proxy": (credential("run", of="bare", proxy_url="http://evil.example:1"), SECRET),
    "what a client gets, elsewhere": (put("lent", base_url="https://evil/v1"), SECRET),
    "what a client gets, by a proxy": (credential("client", of="lent", proxy_url="http://evil.example:1"), SECRET),
    "a key by a proxy of its credential": (credential("key", proxy_url="http://evil.example:1"), SECRET),
    "a key by the provider's proxy": (credential("key", proxy_url=None), SECRET),
    "a client lent to another provider": (credential("new", of="open", client_credentials="corp"), REFERENCE),
    "a client lent to another credential": (credential("new", client_credentials="corp"), REFERENCE),
    # Secrets of Entra go to its authority.
    "another authority": (entra(authority="https://evil"), SECRET),
    "another tenant": (entra(tenant="evil"), SECRET),
    "a reference of another credential": (
        entra(client_secret=None, federated_token="${file:token}"),
        REFERENCE,
    ),
    "a reference that is not allowed": (credential("google", google_service_account={"key": "${file:x}"}), REFERENCE),
    # Where accounts and clients sign in.
    "another issuer": (oauth("corp", issuer="https://evil"), SECRET),
    "another token endpoint": (oauth("corp", token_endpoint="https://evil"), SECRET),
    "another authorization endpoint": (oauth("corp", authorization_endpoint="https://evil"), SECRET),
    "another device endpoint": (oauth("corp", device_authorization_endpoint="https://evil"), SECRET),
    "another revocation endpoint": (oauth("corp", revocation_endpoint="https://evil"), SECRET),
    "a template's endpoints": (oauth("corp", template="github"), SECRET),
    "a proxy to them": (oauth("corp", proxy_url="http://evil.example:1"), SECRET),
    "the common proxy": (lambda document: document.update(transport={"proxy_url": "http://evil.example:1"}), SECRET),
    "other authorities": (oauth("corp", tls={"ca": "evil.pem"}), SECRET),
    "a client's certificate": (oauth("public", tls={"cert": "other.pem"}), REFERENCE),
    "a secret that is not allowed": (oauth("public", client_secret="${env:HOME}"), REFERENCE),
    "an id that is not allowed": (oauth("public", client_id="${env:HOME}"), REFERENCE),
    "an address that may be private": (oauth("public", issuer="https://10.0.0.1"), FILE),
    "a new server": (oauth("new", token_endpoint="https://id/token"), FILE),
    "a new server's proxy": (oauth("new", template="github", proxy_url="http://10.0.0.1:1"), FILE),
    "another store": (lambda document: document["oauth"].update(store="file"), FILE),
    "another directory": (lambda document: document["oauth"].update(directory="/etc"), FILE),
}

ALLOWED: dict[str, Edit] = {
    "a command less": lambda document: provider(document, "bare")["credentials"].clear(),
    "a command as it is": lambda document: document["providers"].reverse(),
    "what is said of a command": credential("run", weight=3, priority=1, disabled=True, note="n", models=["m"]),
    "what is said of a client": credential("client", prefix="p"),
    "a client whose secret the API may name": credential("new", of="open", client_credentials="shared"),
    "a client without a secret": credential("new", of="open", client_credentials="public"),
    "a key that the API may name": credential("new", of="open", google_service_account={"key": "${file:keys/a}"}),
    "a proxy that tells nothing": credential("new", of="open", api_key="sk-mine", proxy_url="http://proxy.example:1"),
    "a new server by a template": oauth("new", template="github", client_id="x", client_secret="${env:LLM_A}"),
    "other scopes": oauth("corp", scopes=["a"], pkce=False, audience="b"),
    "elsewhere with another secret": oauth(
        "corp", template="github", client_secret="${env:LLM_A}", token_parameters={}
    ),
    "another id of the application": entra(client_id="other"),
}


def check(edit: Edit, **more: Any) -> Amendments:
    after = deepcopy(BEFORE)
    edit(after)
    return check_edit(BEFORE, after, BEFORE["management"]["allowed_references"], False, **more)


def refused(edit: Edit, **more: Any) -> GuardRefused:
    with pytest.raises(GuardRefused) as caught:
        check(edit, **more)
    text = str(caught.value)
    for secret in ("sk-literal", "entra-literal", "of-the-program", "of-the-form"):
        assert secret not in text
    return caught.value


@pytest.mark.parametrize("name", REFUSED)
def test_an_edit_that_uses_the_operators_credentials_otherwise_is_refused(name: str) -> None:
    edit, code = REFUSED[name]
    assert code == refused(edit).code


@pytest.mark.parametrize("name", ALLOWED)
def test_other_edits_of_credentials_pass(name: str) -> None:
    check(ALLOWED[name])


def test_a_command_is_not_brought_back_by_a_restore_either() -> None:
    with pytest.raises(GuardRefused) as caught:
        check_edit({**BEFORE, "providers": []}, BEFORE, [], False, restoring=True)
    assert COMMAND == caught.value.code


def test_who_gives_the_secret_of_a_client_may_lend_it() -> None:
    place: Place = ("oauth", "providers", ("name", "corp"), "client_secret")
    parameter: Place = ("oauth", "providers", ("name", "corp"), "token_parameters", "resource")
    edit = credential("new", of="open", client_credentials="corp")

    def given(document: Document) -> None:
        edit(document)
        document["oauth"]["providers"][0].update(client_secret="mine")

    assert REFERENCE == refused(given).code
    check(given, given=frozenset({place, parameter}))


def test_addresses_in_private_networks_are_the_apis_where_the_operator_says_so() -> None:
    after = deepcopy(BEFORE)
    oauth("public", issuer="https://10.0.0.1")(after)
    check_edit(BEFORE, after, ["env:LLM_*"], True)
    check(oauth("public", issuer="https://10.0.0.1"), restoring=True)


@pytest.mark.parametrize(
    "edit",
    [
        credential("new", of="open", azure_entra={"tenant": "t", "client_id": "c", "authority": "https://login"}),
        credential("new", of="open", api_key="sk-mine", proxy_url="http://proxy.example:1"),
    ],
)
def test_an_address_of_a_credential_that_the_api_sets_leads_into_no_private_network(edit: Edit) -> None:
    (made,) = check(edit).edits
    assert ("open", False) == (made.key, made.value["allow_private"])


HELD = (("open", "public"),)
"""An account of the provider `open`, which has signed in at `public`."""

MOVED: dict[str, tuple[Edit, str]] = {
    "another address": (put("open", base_url="https://evil/v1"), "providers[1].base_url"),
    "another type": (put("open", type="echo"), "providers[1].type"),
    "a proxy": (put("open", proxy_url="http://evil.example:1"), "providers[1].proxy_url"),
    "other authorities": (put("open", tls={"ca": "evil.pem"}), "providers[1].tls"),
    "another server": (put("open", oauth="corp"), "providers[1].oauth"),
    "another token endpoint": (oauth("public", token_endpoint="https://evil"), "oauth.providers[2].token_endpoint"),
}


@pytest.mark.parametrize("name", MOVED)
def test_what_accounts_are_kept_for_stays_where_it_is(name: str) -> None:
    edit, where = MOVED[name]
    error = refused(edit, accounts=HELD)
    assert SECRET == error.code
    assert where == ".".join(str(step) for step in error.faults[0].path).replace(".1.", "[1].").replace(".2.", "[2].")
    assert "delete the accounts" in str(error)


def test_a_provider_that_accounts_are_kept_of_is_not_made_anew_elsewhere() -> None:
    check(gone("open"), accounts=HELD)
    error = refused(
        lambda document: document["providers"].append({"name": "x", "type": "echo"}), accounts=(("x", "y"),)
    )
    assert SECRET == error.code
    error = refused(oauth("y", template="github"), accounts=(("x", "y"),))
    assert SECRET == error.code


def test_what_says_nothing_of_where_requests_go_may_change_while_accounts_are_kept() -> None:
    check(put("open", models=["a"], timeouts={}), accounts=HELD)
    check(oauth("public", scopes=["a"]), accounts=HELD)
    check(put("lent", models=["a"]), accounts=HELD)


def test_no_secret_of_a_credential_is_shown(planted_secret: str) -> None:
    secret = planted_secret
    document: Document = {
        "oauth": {
            "providers": [
                {
                    "name": "a",
                    "client_id": "shown",
                    "client_secret": secret,
                    "token_parameters": {"assertion": secret},
                    "placement": {"header": "x-key", "headers": {"x-more": secret}},
                    "proxy_url": f"http://user:{secret}@proxy:1",
                    "token_endpoint": f"https://user:{secret}@id/token?key={secret}",
                },
                {"name": "b", "proxy_url": "direct"},
            ]
        },
        "providers": [
            {
                "name": "p",
                "credentials": [
                    {"name": "a", "google_service_account": {"key": secret, "subject": "shown"}},
                    {"name": "b", "azure_entra": {"tenant": "shown", "client_secret": secret}},
                    {"name": "c", "azure_entra": {"certificate": secret}},
                    {"name": "d", "azure_entra": {"federated_token": secret}},
                    {"name": "e", "command": {"run": ["shown"], "environment": {"KEY": secret}}},
                    {"name": "f", "api_key": secret, "proxy_url": f"http://user:{secret}@proxy:1"},
                    {"name": "g", "proxy_url": "direct"},
                ],
            }
        ],
    }
    shown = shown_document(document)
    assert secret not in str(shown)
    assert 4 == str(shown).count("shown")
    assert (
        "direct" == shown["oauth"]["providers"][1]["proxy_url"] == shown["providers"][0]["credentials"][6]["proxy_url"]
    )

"""Entries that cannot work are refused at load, with the place and the mend."""

import re
from typing import Any

import pytest

from config.schema import OAuthProvider, TokenPlacement
from core.secret import Secret
from credentials.oauth.checks import check
from credentials.oauth.templates import TEMPLATES


def faults(**keys: Any) -> list[tuple[str, str]]:
    given = {"name": "company", "client_id": "sluice", "token_endpoint": "https://login.example.com/token"} | keys
    return [(".".join(map(str, fault.path)), fault.message) for fault in check(OAuthProvider(**given))]


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"token_endpoint": None, "issuer": "http://127.0.0.1:9000"},
        {"token_endpoint": None, "template": "openrouter", "client_id": None},
        {"client_authentication": "private_key_jwt", "client_secret": Secret.literal("a key")},
        {"placement": TokenPlacement(header="x-token", scheme=None, headers={"x-beta": "one, two"})},
        {"authorization_parameters": {"prompt": "consent"}, "token_parameters": {"resource": "models"}},
    ],
)
def test_what_works_has_no_fault(keys: dict[str, object]) -> None:
    assert [] == faults(**keys)


@pytest.mark.parametrize(
    ("keys", "path", "words"),
    [
        ({"template": "claud"}, "template", "unknown template `claud`: did you mean `claude`"),
        ({"client_id": None}, "client_id", "register one at the server.*write its id here"),
        ({"client_id": ""}, "client_id", "there is no client"),
        ({"token_endpoint": None}, "token_endpoint", "write `token_endpoint`, or `issuer`, or a `template`"),
        ({"token_endpoint": "http://login.example.com/"}, "token_endpoint", "write an https address"),
        ({"issuer": "http://10.0.0.1"}, "issuer", "write an https address"),
        ({"client_authentication": "private_key_jwt"}, "client_authentication", "name it as `client_secret`"),
        ({"authorization_parameters": {"state": "x"}}, "authorization_parameters.state", "remove it"),
        ({"token_parameters": {"grant_type": "x"}}, "token_parameters.grant_type", "remove it"),
        ({"placement": TokenPlacement(header="a b")}, "placement.header", "not the name of a field"),
        ({"placement": TokenPlacement(header="Host")}, "placement.header", "not the name of a field"),
        ({"placement": TokenPlacement(scheme="Bear\r\ner")}, "placement.header", "no field may have"),
        ({"placement": TokenPlacement(headers={"x-a": "ü"})}, "placement.headers.x-a", "no field may have"),
    ],
)
def test_what_cannot_work_is_told_with_its_place(keys: dict[str, object], path: str, words: str) -> None:
    ((at, message),) = faults(**keys)
    assert path == at
    assert re.search(words, message), message


@pytest.mark.parametrize("name", [name for name, template in TEMPLATES.items() if template.needs_client])
def test_a_template_says_where_a_client_is_registered(name: str) -> None:
    template = TEMPLATES[name]
    ((path, message),) = faults(template=name, client_id=None, token_endpoint=None)
    assert "client_id" == path
    assert template.register_url in message
    assert template.title in message

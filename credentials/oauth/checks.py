"""What is wrong with an entry of `oauth.providers` that its schema cannot say."""

import re
from collections.abc import Iterator, Mapping
from typing import Final

from config.faults import Fault, did_you_mean
from config.schema import OAuthProvider
from credentials.oauth.http import is_safe
from credentials.oauth.templates import TEMPLATES, Template

_ADDRESSES: Final = (
    "issuer",
    "authorization_endpoint",
    "token_endpoint",
    "device_authorization_endpoint",
    "revocation_endpoint",
)
_OURS_THERE: Final = frozenset(
    {"client_id", "code_challenge", "code_challenge_method", "redirect_uri", "response_type", "scope", "state"}
)
_OURS_IN_FORMS: Final = frozenset(
    {
        "client_assertion",
        "client_assertion_type",
        "client_id",
        "client_secret",
        "code",
        "code_verifier",
        "device_code",
        "grant_type",
        "redirect_uri",
        "refresh_token",
    }
)
_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")  # RFC 9110 section 5.1
_NOT_A_TOKENS: Final = frozenset(
    {"connection", "content-length", "host", "te", "trailer", "transfer-encoding", "upgrade"}
)


def check(entry: OAuthProvider) -> list[Fault]:
    """Its faults, whose paths are relative to it."""
    template = TEMPLATES.get(entry.template) if entry.template is not None else None
    if entry.template is not None and template is None:
        return [Fault(("template",), f"unknown template `{entry.template}`{did_you_mean(entry.template, TEMPLATES)}")]
    return [*_client(entry, template), *_addresses(entry, template), *_parameters(entry), *_placement(entry)]


def _client(entry: OAuthProvider, template: Template | None) -> Iterator[Fault]:
    if not entry.client_id and (template is None or template.needs_client):
        where = f"at {template.register_url} ({template.title})" if template else "at the server"
        yield Fault(
            ("client_id",),
            f"there is no client: register one {where}, with the redirect URL of this gateway, and write its id here",
        )
    if entry.client_authentication == "private_key_jwt" and entry.client_secret is None:
        yield Fault(("client_authentication",), "there is no key to sign with: name it as `client_secret`")


def _addresses(entry: OAuthProvider, template: Template | None) -> Iterator[Fault]:
    for key in _ADDRESSES:
        url = getattr(entry, key)
        if url is not None and not is_safe(url):
            yield Fault((key,), "secrets are sent there: write an https address; http is for this machine alone")
    if template is None and entry.issuer is None and entry.token_endpoint is None:
        yield Fault(
            ("token_endpoint",),
            "nothing says where tokens are given: write `token_endpoint`, or `issuer`, or a `template`",
        )


def _parameters(entry: OAuthProvider) -> Iterator[Fault]:
    for key, parameters, ours in (
        ("authorization_parameters", entry.authorization_parameters, _OURS_THERE),
        ("token_parameters", entry.token_parameters, _OURS_IN_FORMS),
    ):
        for name in parameters:
            if name in ours:
                yield Fault((key, name), f"`{name}` is written by the gateway itself: remove it")


def _placement(entry: OAuthProvider) -> Iterator[Fault]:
    placement = entry.placement
    if placement is None:
        return
    fields: Mapping[str, str] = {placement.header: placement.scheme or "", **placement.headers}
    for name, value in fields.items():
        path = ("placement", "headers", name) if name in placement.headers else ("placement", "header")
        if not _FIELD_NAME.match(name) or name.lower() in _NOT_A_TOKENS:
            yield Fault(path, "not the name of a field that may carry a token or go with one")
        elif not (value.isascii() and (value.isprintable() or not value)):
            yield Fault(path, "its value has characters that no field may have")

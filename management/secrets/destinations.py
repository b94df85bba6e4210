"""Secrets stay with their destination: where they are sent cannot change by the API while they are kept.

Also what is obtained with a secret: the token that a program prints, that a client of `oauth.providers` gets for itself, and
those of accounts that have signed in. Pure.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from config.document import Value
from config.edit.values import is_same
from config.faults import Fault
from management.errors import ConfigError, ManagementCode, ProviderError
from management.secrets.allowed_references import AllowedReferences, references_in
from management.secrets.compared import Entry, Found, Pattern, at, by_place, ground_of, pruned, standing, was_given
from management.secrets.secret_places import EACH, Ground, Place, Spot, masked, render_place, spots

PROVIDERS: Pattern = ("providers", EACH)
CREDENTIALS: Pattern = (*PROVIDERS, "credentials", EACH)
OAUTH: Pattern = ("oauth", "providers", EACH)


class Destination(NamedTuple):
    """Keys of the mappings at ``pattern`` that say where the secrets in them go."""

    pattern: Pattern
    keys: tuple[str, ...]
    code: ManagementCode = ProviderError.SECRET_REQUIRED
    sent: frozenset[str] | None = frozenset()
    """Ordinary keys that are sent too, so that a reference in them may be a secret; None: all of them."""
    inherits_proxy: bool = False
    """Whether without a proxy of its own it goes by that of `transport`."""


_PROVIDER = Destination(
    PROVIDERS,
    ("type", "base_url", "proxy_url", "tls", "options"),
    sent=frozenset({"base_url", "options"}),
    inherits_proxy=True,
)
_OAUTH_PROVIDER = Destination(
    OAUTH,
    (
        "template",
        "issuer",
        "authorization_endpoint",
        "token_endpoint",
        "device_authorization_endpoint",
        "revocation_endpoint",
        "proxy_url",
        "tls",
    ),
    sent=None,
    inherits_proxy=True,
)
_DESTINATIONS = (
    _PROVIDER,
    Destination(CREDENTIALS, ("proxy_url",)),
    Destination((*CREDENTIALS, "azure_entra"), ("authority", "tenant"), sent=None),
    _OAUTH_PROVIDER,
    # Its secret is not sent, it only signs. But what is signed for one endpoint is believed by another that knows the same
    # secret: whoever took the deliveries of a webhook to an endpoint of their own could pass them on to the former one,
    # hold them back or repeat them, and it would take them for ours. So each endpoint has a secret of its own; a new one is
    # made by the edit that moves the webhook (`{"action": "generate"}`).
    Destination(("webhooks", EACH), ("url", "tls"), ConfigError.SECRET_REQUIRED, frozenset({"url"})),
)

_HARMLESS_OPTIONS: Mapping[str, frozenset[str]] = {
    "openai": frozenset({"organization", "project"}),
    "echo": frozenset({"delay_seconds", "interval_seconds"}),
}
"""Options by type that say nothing of where requests go. What is not here counts as if it did."""

_OBTAINING = ("command", "client_credentials")
"""Keys of a credential that say how its token is obtained; it is the operator's, as a key is."""


def kept_secrets(before: Entry, after: Entry, allowed: AllowedReferences, given: frozenset[Place]) -> Iterator[Found]:
    """Secrets that would go elsewhere than before."""
    for destination in _DESTINATIONS:
        ground = ground_of(destination.pattern)
        old = by_place(before, destination.pattern)
        for path, place, entry in standing(after, destination.pattern):
            for former in old.get(place, []):
                changed = _changed(destination, before, former, after, entry)
                if not changed:
                    continue
                kept = sorted(
                    {
                        *(
                            render_place(each.place[len(place) :])
                            for each in _kept(destination, ground, former, entry, place, changed, after)
                            if not was_given(each, allowed, given)
                        ),
                        *_obtained(destination, former, entry),
                    }
                )
                if kept:
                    yield Found(destination.code, Fault((*path, changed[0]), _secret_required(changed, kept)))


def lent_clients(before: Entry, after: Entry, allowed: AllowedReferences, given: frozenset[Place]) -> Iterator[Found]:
    """Credentials whose token a client of `oauth.providers` would get with its secret for a provider that the API chooses."""
    old = by_place(before, CREDENTIALS)
    clients = by_place(after, OAUTH)
    ground = ground_of(OAUTH)
    for path, place, entry in standing(after, CREDENTIALS):
        name = entry.get("client_credentials")
        if not isinstance(name, str) or any(each.get("client_credentials") == name for each in old.get(place, [])):
            continue
        client_place: Place = ("oauth", "providers", ("name", name))
        for client in clients.get(client_place, []):
            secrets = [
                Spot(spot.path, (*client_place, *spot.place), spot.value, spot.ground)
                for spot in _secrets(_OAUTH_PROVIDER, ground, client)
            ]
            if not all(was_given(spot, allowed, given) or _may_be_named(spot, allowed) for spot in secrets):
                yield Found(
                    ConfigError.REFERENCE_NOT_ALLOWED,
                    Fault(
                        (*path, "client_credentials"),
                        f"what the client of `oauth.providers[{name}]` gets with its secret would be sent to this provider: "
                        "edit the file",
                    ),
                )


def _may_be_named(spot: Spot, allowed: AllowedReferences) -> bool:
    """Whether it is made of references that the API may put anywhere."""
    references = references_in(spot.value)
    return bool(references) and not spot.is_masked and all(allowed.allows(each) for each in references)


def kept_accounts(before: Entry, after: Entry, accounts: Collection[tuple[str, str]]) -> Iterator[Found]:
    """Accounts whose tokens would go elsewhere than before. ``accounts``: the provider of each, and the entry of
    `oauth.providers` that it has signed in at."""
    yield from _kept_accounts(_PROVIDER, before, after, {provider for provider, _ in accounts}, ("oauth",))
    yield from _kept_accounts(_OAUTH_PROVIDER, before, after, {oauth for _, oauth in accounts})


def _kept_accounts(
    destination: Destination, before: Entry, after: Entry, names: Collection[str], more: tuple[str, ...] = ()
) -> Iterator[Found]:
    if not names:
        return
    destination = destination._replace(keys=(*destination.keys, *more))
    old = by_place(before, destination.pattern)
    for path, place, entry in standing(after, destination.pattern):
        if entry["name"] not in names:
            continue
        formers = old.get(place)
        if formers is None:
            yield Found(destination.code, Fault(path, f"is new, and {_ACCOUNTS_KEPT}"))
            continue
        for former in formers:
            changed = _changed(destination, before, former, after, entry)
            if changed:
                what = ", ".join(f"`{key}`" for key in changed)
                yield Found(destination.code, Fault((*path, changed[0]), f"{what} would change while {_ACCOUNTS_KEPT}"))


_ACCOUNTS_KEPT = (
    "accounts that have signed in are kept for it, whose tokens would then go elsewhere: delete the accounts (see "
    "`GET /api/v1/credentials`), or edit the file"
)


def _changed(destination: Destination, before: Entry, former: Entry, after: Entry, entry: Entry) -> list[str]:
    return [
        key
        for key in destination.keys
        if not is_same(_value(destination, before, former, key), _value(destination, after, entry, key))
    ]


def _value(destination: Destination, document: Entry, entry: Entry, key: str) -> Value:
    value = entry.get(key)
    if key == "proxy_url" and value is None and destination.inherits_proxy:
        return at(document, ("transport", "proxy_url"))
    if key == "options" and isinstance(value, dict):
        harmless = _HARMLESS_OPTIONS.get(str(entry.get("type")), frozenset())
        value = {name: inner for name, inner in value.items() if name not in harmless}
    return pruned(value)


def _secret_required(changed: list[str], kept: list[str]) -> str:
    what = ", ".join(f"`{key}`" for key in changed)
    secrets = ", ".join(f"`{each}`" for each in kept)
    return (
        f"{what} would change while the secret of {secrets} is kept, which would then go elsewhere: give the secret "
        "anew in the same edit, or edit the file"
    )


def _secrets(destination: Destination, ground: Ground, entry: Entry) -> list[Spot]:
    """What of an entry is not shown, or comes from elsewhere; places are those within it."""
    sent = destination.sent
    return [
        spot
        for spot in spots(entry, ground)
        if spot.value not in (None, "")
        and (
            spot.ground.is_designated
            or spot.is_masked
            or ((sent is None or spot.place[0] in sent) and references_in(spot.value))
        )
    ]


def _kept(
    destination: Destination,
    ground: Ground,
    former: Entry,
    entry: Entry,
    place: Place,
    changed: list[str],
    after: Entry,
) -> Iterator[Spot]:
    old = [spot.value for spot in _secrets(destination, ground, former)]
    for spot in _secrets(destination, ground, entry):
        if spot.place == ("proxy_url",) and not ("tls" in changed and _is_trusted_with_more(spot)):
            # Told to the proxy alone, which is part of the same text; by TLS, to who shows a certificate.
            continue
        if spot.value in old:
            yield Spot(spot.path, (*place, *spot.place), spot.value, spot.ground)
    inherited = at(after, ("transport", "proxy_url"))
    if (
        destination.inherits_proxy
        and "tls" in changed
        and entry.get("proxy_url") is None
        and isinstance(inherited, str)
    ):
        spot = Spot((), (*place, "proxy_url"), inherited, ground.under("proxy_url"))
        if _is_trusted_with_more(spot):
            yield spot


def _obtained(destination: Destination, former: Entry, entry: Entry) -> Iterator[str]:
    """How tokens are obtained that would go elsewhere, as messages name it."""
    if destination.pattern == PROVIDERS:
        old = by_place(former, ("credentials", EACH))
        for _, place, credential in standing(entry, ("credentials", EACH)):
            yield from (
                render_place((*place, key))
                for key in _OBTAINING
                if credential.get(key) is not None
                and any(is_same(credential[key], each.get(key)) for each in old.get(place, []))
            )
    elif destination.pattern == CREDENTIALS:
        yield from (key for key in _OBTAINING if entry.get(key) is not None and is_same(entry[key], former.get(key)))


def _is_trusted_with_more(spot: Spot) -> bool:
    """Whether the address of a proxy holds a user and password, or may."""
    return masked(spot.value, _URL) != spot.value or bool(references_in(spot.value))


_URL = ground_of((*PROVIDERS, "base_url"))

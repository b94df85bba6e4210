"""What an API token may do: whether it may be used at all, and on the data plane what for.

A model that the token may not use answers 403 `model_not_allowed`, not 404: the token's `models` are compared with
the client's own spelling before anything is resolved, so the answer is the same whether or not such a model exists,
and the operator's mistake (a missing glob) is not mistaken for the client's (a misspelt model).
"""

from access.address import parse_address
from core.errors import AddressNotAllowed, EndpointNotAllowed, ModelNotAllowed, Unauthenticated
from core.identity import ApiToken, Grant, Scope

_SHARED = {
    Grant.FILES: "files",
    Grant.BATCHES: "batches",
    Grant.RESPONSES: "stored responses",
}


def require_usable(token: ApiToken, address: str, now: float) -> None:
    """Whether it may be used at ``now`` (seconds since the Unix epoch) from ``address``
    (:func:`access.address.client_address`).

    Raises:
        core.errors.Unauthenticated: it has expired.
        core.errors.AddressNotAllowed: it may not be used from there.
    """
    bounds = token.bounds
    if bounds is None:
        return
    if now >= bounds.until:
        raise Unauthenticated("The API key has expired: ask the gateway's operator for a new one.")
    if bounds.networks:
        # What is no address lies nowhere.
        parsed = parse_address(address)
        if parsed is None or not any(parsed in network for network in bounds.networks):
            raise AddressNotAllowed(
                "This token may not be used from the address that the request comes from: "
                "the gateway's operator can add it to the token's `ip_ranges`."
            )


def require_grant(token: ApiToken, grant: Grant) -> None:
    """
    Raises:
        core.errors.EndpointNotAllowed: the token's scope or `endpoints` do not open this group of endpoints.
    """
    if grant in token.grants:
        return
    if token.scope is Scope.METRICS:
        raise EndpointNotAllowed(f"A `{Scope.METRICS}` token opens /metrics alone: use another token here.")
    shared = _SHARED.get(grant)
    what = f"use {shared}, which the provider's account shares between callers" if shared else f"use {grant} endpoints"
    raise EndpointNotAllowed(
        f"This token may not {what}: the gateway's operator can add `{grant}` to the token's `endpoints`."
    )


def require_model(token: ApiToken, requested_model: str) -> None:
    """``requested_model`` is the name as the client spelled it, before any alias.

    Raises:
        core.errors.ModelNotAllowed: none of the token's `models` matches it.
    """
    if not token.allows_model(requested_model):
        raise ModelNotAllowed(
            f"This token may not use the model `{_shown(requested_model)}`: "
            "the gateway's operator can add it to the token's `models`.",
            param="model",
        )


def _shown(model: str) -> str:
    # A client's text: long ones would only fill logs.
    return model if len(model) <= 128 else model[:128] + "…"

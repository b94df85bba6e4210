"""A credential on a request: where its token belongs by where it was obtained, else as the vendor's adapter places a key."""

import msgspec

from config.schema import TokenPlacement
from core.headers import Headers
from credentials.members import Member
from proxy.providers.base import Call, ProviderAdapter
from transport.messages import UpstreamRequest


def prepared(adapter: ProviderAdapter, call: Call, member: Member) -> UpstreamRequest:
    """The request as the vendor wants it, with ``member``'s secret in its place."""
    placement = member.placement
    if placement is None or member.secret is None:
        return adapter.prepare(call, member.secret)
    ours = {placement.header.lower(), *(name.lower() for name in placement.headers)}
    # The client's fields of these names would contradict ours.
    headers = Headers(field for field in call.headers if field[0] not in ours)
    request = adapter.prepare(msgspec.structs.replace(call, headers=headers), None)
    return placed(request, placement, member.secret.reveal())


def placed(request: UpstreamRequest, placement: TokenPlacement, token: str) -> UpstreamRequest:
    """``request`` with ``token``. Fields that it has already are of the provider's entry, and stay as that has them."""
    value = token if placement.scheme is None else f"{placement.scheme} {token}"
    added = {name.lower(): text for name, text in placement.headers.items()}
    added[placement.header.lower()] = value
    fields = [*request.headers, *(field for field in added.items() if field[0] not in request.headers)]
    return msgspec.structs.replace(request, headers=Headers(fields))

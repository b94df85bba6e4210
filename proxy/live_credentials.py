"""A credential whose token ends, in an attempt: a fresh token before it is sent, and another where that one is refused."""

import asyncio

from core.errors import CredentialNotReady, CredentialsRejected
from credentials.errors import CredentialFault
from credentials.members import Member
from credentials.pool import Pools
from transport.messages import Clocks

_UNAUTHORIZED = 401


def member_of(pools: Pools, provider: str, credential: str) -> Member:
    """One that was chosen a while ago.

    Raises:
        CredentialNotReady: it has been removed meanwhile.
    """
    try:
        return pools.member(provider, credential)
    except KeyError:
        raise CredentialNotReady(f"a credential of `{provider}` was removed while it was being used") from None


async def freshen(member: Member, provider: str, clocks: Clocks, rejected: str | None = None) -> None:
    """Give back when a live ``member`` has a token that has not ended and is not the one that was ``rejected``.

    It may take as long as the provider itself may take to begin its answer.

    Raises:
        CredentialNotReady: there is none, or not in time.
    """
    assert member.live is not None
    # Which one it is says the event of the attempt: accounts may be called after people.
    named = f"a credential of `{provider}`"
    seconds = None
    if clocks.connect_seconds is not None and clocks.first_byte_seconds is not None:
        seconds = clocks.connect_seconds + clocks.first_byte_seconds
    try:
        async with asyncio.timeout(seconds):
            await member.live.freshen(rejected)
    except TimeoutError:
        raise CredentialNotReady(f"{named} has got no token within {seconds:g} s") from None
    except CredentialFault as fault:
        # Events and logs have what the server said; it is no client's business where the gateway signs in.
        raise CredentialNotReady(
            f"{named} has no valid token", retry_after_seconds=fault.retry_after_seconds
        ) from fault


async def freshened(member: Member, provider: str, clocks: Clocks, rejected: str) -> bool:
    """The same after ``rejected`` was; whether there is another token. Where not, the refusal itself tells the most."""
    try:
        await freshen(member, provider, clocks, rejected)
    except CredentialNotReady:
        return False
    return True


def token_of(member: Member) -> str:
    """The token that a request gets now."""
    return "" if member.secret is None else member.secret.reveal()


def may_be_stale(refusal: CredentialsRejected) -> bool:
    """Whether another token may help. 402 and 403 are about the account, whatever its token."""
    return refusal.upstream_status == _UNAUTHORIZED

"""What is said of an account by the API, held against the configuration in force; and what edits of the configuration are
held against."""

from typing import Protocol

from config.schema import Config
from core.globs import Glob
from core.secret import Secret
from credentials.accounts import Accounts
from credentials.errors import StoreFault
from credentials.records import AccountSettings
from management.credential_bodies import SecretSet
from management.credential_service import Unfit
from transport.messages import ConnectionOptions
from transport.options import CannotConnect, check_connection_options, parse_proxy_url
from transport.private_addresses import PrivateAddress, require_public_name

KeptAccounts = frozenset[tuple[str, str]]
"""The provider of each account, and the entry of `oauth.providers` where it has signed in."""
DIRECT = "direct"
"""In the place of a proxy's address: none."""


def require_fit(settings: AccountSettings, config: Config) -> None:
    """
    Raises:
        Unfit: a glob that is none, or the name of a provider as a prefix.
    """
    for number, pattern in enumerate(settings.models):
        try:
            Glob(pattern)
        except ValueError as error:
            raise Unfit(f"models[{number}]", str(error)) from None
    if settings.prefix is not None and any(each.name == settings.prefix for each in config.providers):
        raise Unfit("prefix", f"is the name of a provider: `{settings.prefix}/model` means that one")


def proxy_url_of(given: SecretSet, config: Config) -> str:
    """
    Raises:
        Unfit: it is no address of a proxy, or one that the API may not set.
    """
    if given.value == DIRECT:
        return DIRECT
    secret = Secret.literal(given.value, "proxy_url")
    try:
        check_connection_options(ConnectionOptions(secret))
        if not config.server.allow_private_targets:
            require_public_name(parse_proxy_url(secret).host)
    except CannotConnect as error:
        raise Unfit("proxy_url", f"is {error}") from None
    except PrivateAddress:
        raise Unfit(
            "proxy_url", "leads into a private network, which `server.allow_private_targets` does not let the API do"
        ) from None
    return given.value


class Keeper(Protocol):
    """What is needed of :class:`gateway.credentials.CredentialKeeper`."""

    @property
    def accounts(self) -> Accounts: ...

    async def refresh(self) -> None: ...


async def kept_accounts(keeper: Keeper, config: Config) -> KeptAccounts:
    """Those that an edit of the configuration must not send elsewhere. Where nobody can tell, there are some."""
    try:
        await keeper.refresh()
    except StoreFault:
        return frozenset((each.name, each.oauth) for each in config.providers if each.oauth is not None)
    return frozenset((each.provider, each.oauth or "") for each in keeper.accounts.states() if each.source == "account")

"""Where accounts sign in, and what they may be called, as the configuration in force has it."""

from collections.abc import Callable, Iterable, Mapping

from config.schema import Provider
from credentials.errors import LoginFailed, LoginImpossible, LoginMismatch
from credentials.logins.needs import LoginServer
from credentials.logins.values import ShownFlow, shown_flow
from credentials.oauth.server import Flow
from credentials.records import AccountRecord, PendingLogin

FIRST_NAME = "main"
"""Of an account that is given none; further ones are `main-2`, `main-3` …"""
_SHOWN_CHARACTERS = 64


class LoginPlaces:
    """Asked anew each time: it may change while a person signs in."""

    def __init__(
        self, servers: Callable[[], Mapping[str, LoginServer]], providers: Callable[[], Mapping[str, Provider]]
    ) -> None:
        """Both by name."""
        self._servers = servers
        self._providers = providers

    def server_for(self, provider: str) -> tuple[str, LoginServer]:
        """Where accounts of ``provider`` sign in, with its name.

        Raises:
            LoginImpossible: nowhere.
        """
        known = self._providers().get(provider)
        if known is None:
            raise LoginImpossible(f"There is no provider `{provider[:_SHOWN_CHARACTERS]}`.", what="provider")
        server = None if known.oauth is None else self._servers().get(known.oauth)
        if known.oauth is None or server is None:
            raise LoginImpossible(
                f"The provider `{provider}` does not say where its accounts sign in: set its `oauth` to the name of an "
                "entry of `oauth.providers`.",
                what="provider",
            )
        return known.oauth, server

    def server_of(self, login: PendingLogin) -> LoginServer:
        """The one that ``login`` was begun at.

        Raises:
            LoginFailed: there is none any more.
            LoginMismatch: its provider's accounts sign in at another by now.
        """
        try:
            oauth, server = self.server_for(login.provider)
        except LoginImpossible as error:
            raise LoginFailed(str(error)) from None
        if oauth != login.oauth:
            raise LoginMismatch(
                f"Accounts of `{login.provider}` sign in at `{oauth}` by now, and this sign-in was begun at "
                f"`{login.oauth}`: begin anew."
            )
        return server

    def require_own(self, login: PendingLogin, iss: str | None) -> None:
        """A server that has no issuer to compare ``iss`` with may not be given what another one's answer holds
        (RFC 9700 section 4.4: the code would go to who has sent the person there).

        Raises:
            LoginMismatch: it is the issuer of another server.
        """
        servers = self._servers()
        mine = servers.get(login.oauth)
        if iss is None or (mine is not None and mine.issuer == iss):
            return
        for name, server in servers.items():
            if server.issuer == iss:
                raise LoginMismatch(
                    f"The answer is that of `{name}`, and the sign-in was begun at `{login.oauth}`: begin anew. If both "
                    f"are the same server, write its `issuer` in `{login.oauth}` too."
                )

    def require_free(self, provider: str, name: str) -> None:
        """
        Raises:
            LoginImpossible: the configuration declares a credential of that name.
        """
        if name in self._declared(provider):
            raise LoginImpossible(
                f"The configuration declares a credential `{name}` of `{provider}`: choose another name.", what="name"
            )

    def free_name(self, provider: str, taken: Iterable[str]) -> str:
        """The first that nobody has."""
        known = self._declared(provider) | set(taken)
        number, name = 1, FIRST_NAME
        while name in known:
            number += 1
            name = f"{FIRST_NAME}-{number}"
        return name

    def _declared(self, provider: str) -> set[str]:
        known = self._providers().get(provider)
        return set() if known is None else {each.name for each in known.credentials}


def require_room(held: AccountRecord | None) -> None:
    """Two who begin at once, at two processes, may be given one name: who comes second takes no account away.

    Raises:
        LoginFailed: ``held`` is an account that works.
    """
    if held is not None and held.needs_login is None:
        raise LoginFailed(
            f"An account `{held.name}` of `{held.provider}` has signed in meanwhile: begin anew, with a name of its own."
        )


def flow_of(server: LoginServer, wanted: ShownFlow | None, oauth: str) -> Flow:
    """The way to sign in that is taken; ``wanted`` None: the server's first.

    Raises:
        LoginImpossible: there is none such.
    """
    for flow in server.flows:
        if wanted is None or shown_flow(flow) == wanted:
            return flow
    can = " and ".join(f"`{flow}`" for flow in dict.fromkeys(map(shown_flow, server.flows))) or "none"
    raise LoginImpossible(f"`{oauth}` has no sign-in by the flow `{wanted or 'code'}`: it can do {can}.", what="flow")

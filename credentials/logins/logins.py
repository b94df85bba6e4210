"""Sign-ins of accounts: from the address that a person is sent to, up to the tokens that are kept.

::

    begin ──▶ pending ──▶ complete   the tokens are kept: there is an account
                     ├──▶ failed     denied, not of the server that was asked, or not exchanged
                     ├──▶ cancelled
                     └──▶ expired

What a sign-in is known by, its `state`, is chance that nobody can guess. It is good once: whoever presents it takes the
sign-in out of the store (:meth:`credentials.records.AccountStore.take_login`), by any process of all that share it, and no
other can. The store has only its hash, so that looking one up tells nothing of it by the time that it takes. What is needed
for the exchange is sealed there, bound to the provider, the name and the state.
"""

import asyncio
import hashlib
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping

import msgspec

from config.schema import Provider
from core.clock import Clock
from core.secret import Secret
from core.tasks import Tasks
from credentials.errors import (
    LoginExpired,
    LoginFailed,
    LoginFault,
    LoginImpossible,
    LoginUnknown,
    LoginUsed,
    StoreFault,
    StoreUnavailable,
    TooManyLogins,
)
from credentials.logins.device_answer import device_answer
from credentials.logins.ends import LoginEnds
from credentials.logins.kept import Kept, kept_in, with_kept
from credentials.logins.needs import LoginAccounts, LoginServer, TextSealer
from credentials.logins.pasted import answer_in
from credentials.logins.places import LoginPlaces, flow_of, require_room
from credentials.logins.room import LoginRoom
from credentials.logins.values import Begun, LoginStatus, LoginWanted, ShownFlow, status_of, told
from credentials.oauth.pkce import new_verifier
from credentials.records import AccountSettings, AccountStore, LoginEnd, PendingLogin, SignIn
from credentials.revoking import revoke_unkept
from credentials.tokens import TokenSet

LIFETIME_SECONDS = 600.0
"""From the beginning of a sign-in to the moment from which it can only fail."""

_STATE_BYTES = 32
_STATE_CHARACTERS = 43
_MOST_LOOKING = 16

_log = logging.getLogger("sluice.credentials")


class Logins:
    """The sign-ins of one process, and what it does for those that others have begun."""

    def __init__(
        self,
        *,
        accounts: LoginAccounts,
        store: Callable[[], Awaitable[AccountStore]],
        sealer: TextSealer,
        servers: Callable[[], Mapping[str, LoginServer]],
        providers: Callable[[], Mapping[str, Provider]],
        clock: Clock,
        background: Tasks,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """``servers`` and ``providers`` are those of the configuration in force, by name; ``background`` owns the tasks that
        ask how far a device is."""
        self._accounts = accounts
        self._store = store
        self._sealer = sealer
        self._places = LoginPlaces(servers, providers)
        self._clock = clock
        self._background = background
        self._sleep = sleep
        self._room = LoginRoom()
        self._ends = LoginEnds(store, background, sleep)
        self._looking = 0

    async def begin(
        self,
        provider: str,
        name: str | None = None,
        flow: ShownFlow | None = None,
        settings: AccountSettings | None = None,
        proxy_url: str | None = None,
        *,
        scopes: tuple[str, ...] | None = None,
        replaces: bool = True,
    ) -> Begun:
        """Begin the sign-in of an account where ``provider`` says.

        Args:
            name: of the account, which it replaces; None: one that replaces nothing which works.
            flow: None: what the server does best.
            settings, proxy_url: None: an account that there is keeps its own.
            scopes: None: what the configuration says.
            replaces: False: nobody has asked for ``name``, and nothing that works is replaced. So it is without a name.

        Raises:
            LoginImpossible, TooManyLogins: nothing was begun.
            LoginFailed: the server cannot be asked, or refuses.
            credentials.errors.StoreUnavailable: it cannot be remembered.
        """
        oauth, server = self._places.server_for(provider)
        wanted = flow_of(server, flow, oauth)
        replaces = replaces and name is not None
        store = await self._store()
        name = await self.name_for(provider, name)
        now = self._clock.time()
        state = secrets.token_urlsafe(_STATE_BYTES)
        login = PendingLogin(
            key=key_of(state),
            provider=provider,
            name=name,
            oauth=oauth,
            flow=wanted,
            created_at=_microseconds(now),
            expires_at=_microseconds(now + LIFETIME_SECONDS),
        )
        # Before anything is waited for: many that begin at once are bounded too.
        self._room.take(login.key, provider, name, now, now + LIFETIME_SECONDS)
        try:
            begin = self._begin_device if wanted == "device" else self._begin_code
            asked = LoginWanted(settings=settings, proxy_url=proxy_url, scopes=scopes, replaces=replaces)
            return await begin(store, server, state, login, asked)
        except BaseException:
            self._room.leave(login.key)
            raise

    async def name_for(self, provider: str, name: str | None) -> str:
        """What an account is called that signs in as ``name``. Without one it is a name that replaces nothing which works:
        one of an account that has to sign in again, or a new one.

        Raises:
            LoginImpossible: the configuration declares a credential of that name.
            credentials.errors.StoreUnavailable: it cannot be told.
        """
        if name is None:
            listing = await (await self._store()).all()
            taken = {each.name for each in listing.records if each.provider == provider and each.needs_login is None}
            taken |= {each.name for each in listing.damaged if each.provider == provider}
            name = self._places.free_name(provider, taken | self._room.names(provider, self._clock.time()))
        self._places.require_free(provider, name)
        return name

    async def callback(self, query: Mapping[str, str]) -> LoginStatus:
        """Complete the sign-in that is answered; ``query`` is that of the address that the person came back to.

        Raises:
            LoginUnknown, LoginExpired: there is none (any more), and nothing has changed.
            LoginDenied, LoginMismatch, LoginFailed: it has ended without an account.
            credentials.errors.StoreFault: it cannot be kept, or not be looked up.
        """
        state, login = await self._asked(query)
        return await self._answered(login, state, query)

    async def complete(self, pasted: str) -> LoginStatus:
        """The same, of the whole address that the person's browser was sent to. One that is not an answer to this sign-in is
        a LoginMismatch that changes nothing."""
        answer = answer_in(pasted)
        state, login = await self._asked(answer.query)
        answer.require_of(self._places.server_of(login).redirect_url)
        return await self._answered(login, state, answer.query)

    async def status(self, state: str) -> LoginStatus:
        """How the sign-in stands.

        Raises:
            LoginUnknown: there is none, or no longer.
        """
        login = await self._known(state)
        expired = login.status == "pending" and self._is_over(login)
        if expired:
            await self._end(login.key, "expired")
        elif login.status != "pending":
            self._room.leave(login.key)
        return status_of(login, "expired" if expired else login.status)

    async def look(self, state: str) -> LoginStatus:
        """As :meth:`status`, for strangers: however many ask at once, the store is asked by few.

        Raises:
            LoginUnknown: as there; TooManyLogins: ask again later.
        """
        if self._looking >= _MOST_LOOKING:
            raise TooManyLogins("Too many ask for sign-ins at once: try again.", retry_after_seconds=1.0)
        self._looking += 1
        try:
            return await self.status(state)
        finally:
            self._looking -= 1

    async def cancel(self, state: str) -> LoginStatus:
        """End it.

        Raises:
            LoginUnknown: there is none, or no longer; LoginUsed: it has ended already, or is being completed.
        """
        login = await self._known(state)
        if login.status != "pending" or await (await self._store()).take_login(login.key) is None:
            raise LoginUsed("This sign-in has ended already, or is being completed: it cannot be cancelled any more.")
        await self._end(login.key, "cancelled")
        return status_of(login, "cancelled")

    async def _begin_code(
        self, store: AccountStore, server: LoginServer, state: str, login: PendingLogin, wanted: LoginWanted
    ) -> Begun:
        kept = Kept(
            redirect_url=server.redirect_url,
            verifier=new_verifier() if server.pkce else None,
            settings=wanted.settings,
            proxy_url=wanted.proxy_url,
            replaces=wanted.replaces,
        )
        url = await server.authorization_url(state, kept.verifier, kept.redirect_url, wanted.scopes)
        await store.add_login(await with_kept(login, kept, self._sealer))
        return Begun(
            state=state,
            provider=login.provider,
            name=login.name,
            flow="code",
            expires_at=login.expires_at / 1_000_000,
            authorization_url=url,
            redirect_url=kept.redirect_url,
        )

    async def _begin_device(
        self, store: AccountStore, server: LoginServer, state: str, login: PendingLogin, wanted: LoginWanted
    ) -> Begun:
        code = await server.begin_device(wanted.scopes)
        ends = min(login.expires_at, _microseconds(self._clock.time() + code.expires_in_seconds))
        login = msgspec.structs.replace(login, expires_at=ends)
        await store.add_login(login)
        self._background.spawn(
            self._follow_device(login, code.device_code, code.interval_seconds, wanted), "device sign-in"
        )
        return Begun(
            state=state,
            provider=login.provider,
            name=login.name,
            flow="device",
            expires_at=ends / 1_000_000,
            user_code=code.user_code,
            verification_uri=code.verification_uri,
            verification_uri_complete=code.verification_uri_complete,
        )

    async def _asked(self, query: Mapping[str, str]) -> tuple[str, PendingLogin]:
        """The sign-in of the `state` in ``query``, which may still be answered."""
        state = query.get("state")
        if not state:
            raise LoginUnknown("The answer names no sign-in: it has no `state`. Begin anew.")
        login = await self._known(state)
        if login.flow == "device":
            # Nobody is sent back from there: whatever this is, it is no answer.
            raise LoginUnknown("No sign-in that can be answered so has this `state`: begin anew.")
        if login.status == "expired" or (login.status == "pending" and self._is_over(login)):
            await self._end(login.key, "expired")
            raise LoginExpired("The sign-in took longer than ten minutes: begin anew.")
        if login.status != "pending":
            raise LoginUsed("This sign-in has ended already, and each is good once: begin anew if it failed.")
        return state, login

    async def _answered(self, login: PendingLogin, state: str, query: Mapping[str, str]) -> LoginStatus:
        taken = await (await self._store()).take_login(login.key)
        if taken is None:
            raise LoginUsed("This sign-in was answered already, and each is good once: begin anew if it failed.")
        try:
            await self._exchange(taken, state, query)
        except BaseException as error:
            await self._fail(taken, error)
            raise
        await self._complete(taken)
        return status_of(taken, "complete")

    async def _exchange(self, login: PendingLogin, state: str, query: Mapping[str, str]) -> None:
        server = self._places.server_of(login)
        kept = await kept_in(login, self._sealer)
        self._places.require_own(login, query.get("iss"))
        code = await server.read_answer(query, state)
        tokens = await server.exchange_code(code, kept.verifier, kept.redirect_url)
        await self._keep(login, server, tokens, kept)

    async def _keep(
        self, login: PendingLogin, server: LoginServer, tokens: TokenSet, wanted: Kept | LoginWanted
    ) -> None:
        try:
            # The configuration may have changed meanwhile.
            self._places.server_of(login)
            self._places.require_free(login.provider, login.name)
            if not wanted.replaces:
                require_room(await (await self._store()).get(login.provider, login.name))
            await self._accounts.signed_in(
                SignIn(login.provider, login.name, login.oauth, tokens, wanted.settings, wanted.proxy_url)
            )
        except BaseException as error:
            self._give_back(server, tokens)
            if isinstance(error, LoginImpossible):
                raise LoginFailed(str(error)) from None
            raise

    async def _follow_device(self, login: PendingLogin, code: Secret, interval: float, wanted: LoginWanted) -> None:
        """Ask until there is an answer, it is too late, or the sign-in was cancelled by whichever process."""

        async def goes_on() -> bool:
            if self._is_over(login):
                raise LoginExpired("The code was not typed in in time: begin anew.")
            try:
                known = await (await self._store()).login(login.key)
            except StoreUnavailable:
                return True  # it may be there again when there is something to keep
            return known is not None and known.status == "pending"

        try:
            answer = await device_answer(
                lambda: self._places.server_of(login), code, interval, goes_on=goes_on, sleep=self._sleep
            )
            if answer is None:
                self._room.leave(login.key)
            else:
                await self._take_from_device(login, *answer, wanted)
        except (LoginFault, StoreFault) as fault:
            await self._fail(login, fault)
        except Exception as error:
            await self._fail(login, error)
            raise

    async def _take_from_device(
        self, login: PendingLogin, server: LoginServer, tokens: TokenSet, wanted: LoginWanted
    ) -> None:
        try:
            taken = await (await self._store()).take_login(login.key)
        except StoreFault:
            self._give_back(server, tokens)
            raise
        if taken is None:
            # Cancelled while we asked.
            self._give_back(server, tokens)
            return
        await self._keep(login, server, tokens, wanted)
        await self._complete(login)

    async def _known(self, state: str) -> PendingLogin:
        login = None
        if len(state) == _STATE_CHARACTERS:
            login = await (await self._store()).login(key_of(state))
        if login is None:
            raise LoginUnknown("There is no such sign-in, or it ended a good while ago: begin anew.")
        return login

    async def _complete(self, login: PendingLogin) -> None:
        await self._end(login.key, "complete")
        _log.info("the account %s of provider %s has signed in", login.name, login.provider)

    async def _fail(self, login: PendingLogin, error: BaseException) -> None:
        await self._end(login.key, "expired" if isinstance(error, LoginExpired) else "failed", told(error))
        _log.info("the sign-in of %s at provider %s has failed: %s", login.name, login.provider, told(error))

    async def _end(self, key: str, status: LoginEnd, message: str | None = None) -> None:
        self._room.leave(key)
        await self._ends.end(key, status, message)

    def _give_back(self, server: LoginServer, tokens: TokenSet) -> None:
        """Nobody keeps them: they should not live on."""
        revoking = revoke_unkept(server, tokens, "a sign-in that came to nothing")
        self._background.spawn(revoking, "tokens that nobody keeps")

    def _is_over(self, login: PendingLogin) -> bool:
        return _microseconds(self._clock.time()) >= login.expires_at


def key_of(state: str) -> str:
    """What the store knows ``state`` by."""
    return hashlib.sha256(state.encode("utf-8", "surrogatepass")).hexdigest()


def _microseconds(seconds: float) -> int:
    return round(seconds * 1_000_000)

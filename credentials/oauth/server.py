"""A server that accounts sign in at: one entry of `oauth.providers`, spoken to by its own protocol."""

import hmac
from collections.abc import Callable, Mapping
from typing import Final, Literal

from config.schema import OAuthProvider, TokenPlacement
from core.clock import Clock
from core.secret import Secret
from credentials.errors import (
    CredentialFault,
    CredentialRefused,
    CredentialUnavailable,
    LoginDenied,
    LoginExpired,
    LoginFailed,
    LoginMismatch,
    NeedsLogin,
)
from credentials.oauth.answers import SIGN_IN_LOST, fault_of, key_set, mend_of, token_set
from credentials.oauth.client_authentication import Method, show
from credentials.oauth.device import DeviceCode, Pending, device_code_of
from credentials.oauth.discovery import Discovery, Metadata
from credentials.oauth.http import Answer, Way, error_of, is_safe, post_form, post_json
from credentials.oauth.libraries import loaded
from credentials.oauth.pkce import challenge
from credentials.oauth.templates import Template
from credentials.tokens import TokenSet
from transport.messages import ConnectionOptions, UpstreamClient

__all__ = ["DeviceCode", "Flow", "OAuthServer", "Pending"]

Flow = Literal["code", "device", "key_exchange"]
_Endpoint = Literal["authorization_endpoint", "token_endpoint", "device_authorization_endpoint", "revocation_endpoint"]
_DEVICE_GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"
_CODE_LOST: Final = (
    "it does not take the code",
    "it was used already, has run out, or was given for another verifier, redirect URL or client: begin the sign-in anew",
)
_DEVICE_CODE_LOST: Final = ("it does not know the code of the device", "begin the sign-in anew")
_CLIENT_LOST: Final = ("it gives the client no token", mend_of(None))
_NO_TEMPLATE: Final = Template(title="", register_url="")


class OAuthServer:
    """Made anew for each configuration; what it has discovered is kept for an hour."""

    def __init__(
        self,
        entry: OAuthProvider,
        template: Template | None,
        client: UpstreamClient,
        options: ConnectionOptions,
        clock: Clock,
        default_redirect_url: Callable[[], str],
        *,
        timeout_seconds: float = 30.0,
    ) -> None:
        """``default_redirect_url`` gives the one that counts where the entry names none; ``timeout_seconds``: for each
        answer."""
        self._entry = entry
        self._template = template or _NO_TEMPLATE
        self._whose = f"OAuth provider `{entry.name}`"
        self._way = Way(whose=self._whose, client=client, options=options, clock=clock, timeout_seconds=timeout_seconds)
        self._clock = clock
        self._default_redirect_url = default_redirect_url
        self._issuer = entry.issuer or self._template.issuer
        discovers = entry.issuer is not None or self._template.discovers
        self._discovery = Discovery(self._issuer, self._way) if self._issuer is not None and discovers else None

    def __repr__(self) -> str:
        return f"<OAuthServer {self.name}>"

    @property
    def name(self) -> str:
        """Of its entry."""
        return self._entry.name

    @property
    def entry(self) -> OAuthProvider:
        """As it is configured."""
        return self._entry

    @property
    def issuer(self) -> str | None:
        """What it calls itself; None: nobody has said."""
        return self._issuer

    @property
    def placement(self) -> TokenPlacement | None:
        """How its tokens are put on requests; None: as the vendor's adapter places a key."""
        return self._entry.placement or self._template.placement

    @property
    def flows(self) -> tuple[Flow, ...]:
        """What it can do, the one to take first first: `code` or `key_exchange`, then `device`. Of endpoints that only a
        discovery document tells, each that may be."""
        if self._template.key_exchange:
            return ("key_exchange",)
        found: list[Flow] = []
        if self._discovery is not None or self._known("authorization_endpoint"):
            found.append("code")
        if self._discovery is not None or self._known("device_authorization_endpoint"):
            found.append("device")
        return tuple(found)

    @property
    def pkce(self) -> bool:
        """Whether a sign-in needs a verifier (:func:`credentials.oauth.pkce.new_verifier`)."""
        return self._entry.pkce

    @property
    def redirect_url(self) -> str:
        """Where the person comes back to."""
        return self._entry.redirect_url or self._default_redirect_url()

    async def authorization_url(
        self, state: str, verifier: str | None, redirect_url: str, scopes: tuple[str, ...] | None = None
    ) -> str:
        """Where a person signs in. ``scopes`` None: those of the entry, or of the template. Raises LoginFailed."""
        await loaded("oauthlib.oauth2")
        from oauthlib.common import add_params_to_uri  # noqa: PLC0415  only now

        endpoint = await self._login_endpoint("authorization_endpoint", "it has no page to sign in at: take `device`")
        parameters: dict[str, str] = self._template.authorization_parameters | self._entry.authorization_parameters
        if self._template.key_exchange:
            # It knows no state of ours; the address that it comes back to may carry one.
            parameters["callback_url"] = str(add_params_to_uri(redirect_url, {"state": state}))
        else:
            asked = self._scopes(scopes)
            parameters |= {"response_type": "code", "redirect_uri": redirect_url, "state": state}
            parameters |= {"client_id": self._entry.client_id or ""} | ({"scope": " ".join(asked)} if asked else {})
            if self._entry.audience is not None:
                parameters["audience"] = self._entry.audience
        if verifier is not None:
            parameters |= {"code_challenge": challenge(verifier), "code_challenge_method": "S256"}
        return str(add_params_to_uri(endpoint, parameters))

    async def read_answer(self, query: Mapping[str, str], state: str) -> str:
        """The code in what the person came back with, whose `state` has to be ``state``.

        Raises:
            LoginMismatch: its state or its issuer is another.
            LoginDenied: it is an error, such as `access_denied`.
            LoginFailed: it has no code.
        """
        if not hmac.compare_digest(query.get("state", "").encode(), state.encode()):
            raise LoginMismatch("The answer is not that of this sign-in: its state is another. Begin the sign-in anew.")
        await self.check_issuer(query.get("iss"))
        code, description = error_of(query, (state,))
        if code is not None:
            said = Answer(status=400, document=None, code=code, description=description).said
            if code == "access_denied":
                raise LoginDenied(f"{self._whose}: access was denied ({said}). Begin the sign-in anew and allow it.")
            raise LoginDenied(f"{self._whose}: the sign-in was refused ({said}): {mend_of(code)}.")
        if not query.get("code"):
            raise LoginFailed("The answer has no code. Begin the sign-in anew, and give the whole address it ends at.")
        return query["code"]

    async def check_issuer(self, iss: str | None) -> None:
        """RFC 9207. Raises LoginMismatch: ``iss`` is another server's, or is missing though this server always sends it."""
        if iss is not None:
            # Nothing to compare it with: section 2.4 leaves that to us, and an address alone is no worse without it.
            if self._issuer is not None and iss != self._issuer:
                raise LoginMismatch(
                    f"{self._whose}: the answer is that of another server. Begin the sign-in anew; if it comes again, see "
                    "that `issuer` is what the server calls itself."
                )
            return
        if self._discovery is not None and (await self._login_metadata()).sends_issuer:
            raise LoginMismatch(
                f"{self._whose}: the answer does not say whose it is, though this server always does: it may be forged. "
                "Begin the sign-in anew."
            )

    async def exchange_code(self, code: str, verifier: str | None, redirect_url: str) -> TokenSet:
        """Raises LoginFailed."""
        try:
            if self._template.key_exchange:
                return await self._exchange_for_key(code, verifier)
            form = {"code": code, "redirect_uri": redirect_url} | ({"code_verifier": verifier} if verifier else {})
            document = await self._grant("authorization_code", form, _CODE_LOST)
            return await self._tokens(document, asked=self._scopes(None))
        except NeedsLogin as fault:
            raise LoginFailed(f"{fault}.") from fault
        except CredentialFault as fault:
            raise LoginFailed(f"{fault}. Then begin the sign-in anew.") from fault

    async def begin_device(self, scopes: tuple[str, ...] | None = None) -> DeviceCode:
        """Raises LoginFailed."""
        what = "device authorization endpoint"
        url = await self._login_endpoint("device_authorization_endpoint", "it knows no flow for devices: take `code`")
        asked = self._scopes(scopes)
        form = {"scope": " ".join(asked)} if asked else {}
        if self._entry.audience is not None:
            form["audience"] = self._entry.audience
        try:
            answer = await self._post(what, url, form, ())
            fault = fault_of(self._whose, what, answer)
            if fault is not None:
                raise fault
        except CredentialFault as fault:
            raise LoginFailed(f"{fault}.") from fault
        return device_code_of(self._whose, answer.document or {})

    async def poll_device(self, device_code: Secret) -> TokenSet | Pending:
        """Ask once.

        Raises:
            LoginDenied, LoginExpired, LoginFailed: it is no use to go on.
            CredentialUnavailable: not now; a reason to wait longer, not to give up.
        """
        code = device_code.reveal()
        try:
            answer = await self._ask_for_tokens(_DEVICE_GRANT, {"device_code": code})
            if answer.code in ("authorization_pending", "slow_down"):
                return Pending(slow_down=answer.code == "slow_down")
            if answer.code == "access_denied":
                raise LoginDenied(f"{self._whose}: access was denied. Begin the sign-in anew and allow it.")
            if answer.code == "expired_token":
                raise LoginExpired(f"{self._whose}: the code was not entered in time. Begin the sign-in anew.")
            fault = fault_of(self._whose, "token endpoint", answer, _DEVICE_CODE_LOST)
            if fault is not None:
                raise fault
            return await self._tokens(answer.document or {}, asked=self._scopes(None))
        except NeedsLogin as fault:
            raise LoginFailed(f"{fault}.") from fault
        except CredentialRefused as fault:
            raise LoginFailed(f"{fault}. Then begin the sign-in anew.") from fault

    async def refresh(self, held: TokenSet) -> TokenSet:
        """Raises NeedsLogin, CredentialRefused, CredentialUnavailable: as CredentialSource.obtain."""
        if held.refresh_token is None:
            raise NeedsLogin(
                f"{self._whose}: it gave no refresh token, so its token serves to its end: then sign in again"
            )
        document = await self._grant("refresh_token", {"refresh_token": held.refresh_token.reveal()})
        return await self._tokens(document, held=held)

    async def client_credentials(self) -> TokenSet:
        """A token for the client itself. Raises CredentialRefused, CredentialUnavailable."""
        asked = self._scopes(None)
        try:
            form = {"scope": " ".join(asked)} if asked else {}
            document = await self._grant("client_credentials", form, _CLIENT_LOST)
        except NeedsLogin as fault:
            # Nobody signs in for a client.
            raise CredentialRefused(str(fault)) from fault
        return await self._tokens(document, asked=asked)

    async def revoke(self, tokens: TokenSet) -> bool:
        """Give the tokens back (RFC 7009), the refresh token first; False: the server has no endpoint for it.

        Raises:
            CredentialUnavailable: the server has not done it.
        """
        try:
            url = await self._endpoint("revocation_endpoint")
            if url is None:
                return False
            for token, kind in ((tokens.refresh_token, "refresh_token"), (tokens.access_token, "access_token")):
                if token is None:
                    continue
                text = token.reveal()
                answer = await self._post("revocation endpoint", url, {"token": text, "token_type_hint": kind}, (text,))
                # Section 2.2.1: a server need not take every kind of token. A body is not wanted.
                if not 200 <= answer.status < 300 and answer.code != "unsupported_token_type":
                    fault = fault_of(self._whose, "revocation endpoint", answer)
                    raise fault or CredentialUnavailable(
                        f"{self._whose}: its revocation endpoint fails ({answer.said})"
                    )
        except CredentialUnavailable:
            raise
        except CredentialFault as fault:
            raise CredentialUnavailable(f"{fault}", retry_after_seconds=fault.retry_after_seconds) from fault
        return True

    async def _grant(
        self, grant: str, form: Mapping[str, str], lost: tuple[str, str] = SIGN_IN_LOST
    ) -> Mapping[str, object]:
        """What the token endpoint gives for ``form``. Raises CredentialFault."""
        answer = await self._ask_for_tokens(grant, form)
        fault = fault_of(self._whose, "token endpoint", answer, lost)
        if fault is not None:
            raise fault
        return answer.document or {}

    async def _tokens(
        self, document: Mapping[str, object], *, held: TokenSet | None = None, asked: tuple[str, ...] = ()
    ) -> TokenSet:
        if "id_token" in document:
            await loaded("jwt")
        return token_set(self._whose, document, self._clock.time(), held=held, asked=asked)

    async def _ask_for_tokens(self, grant: str, form: Mapping[str, str]) -> Answer:
        extra = self._template.token_parameters | self._entry.token_parameters
        if self._entry.audience is not None:
            extra["audience"] = self._entry.audience
        url = await self._token_endpoint()
        secrets = tuple(value for key, value in form.items() if key not in ("redirect_uri", "scope"))
        return await self._post("token endpoint", url, {"grant_type": grant, **extra, **form}, secrets)

    async def _exchange_for_key(self, code: str, verifier: str | None) -> TokenSet:
        document = {"code": code} | (
            {"code_verifier": verifier, "code_challenge_method": "S256"} if verifier is not None else {}
        )
        secrets = (code, *((verifier,) if verifier is not None else ()))
        url = await self._token_endpoint()
        answer = await post_json(self._way, "token endpoint", url, document, secrets=secrets)
        fault = fault_of(self._whose, "token endpoint", answer, _CODE_LOST)
        if fault is not None:
            raise fault
        return key_set(self._whose, answer.document or {}, self._clock.time())

    async def _post(self, what: str, url: str, form: Mapping[str, str], secrets: tuple[str, ...]) -> Answer:
        method: Method = self._entry.client_authentication or self._template.client_authentication
        audience = self._issuer or url
        client = await show(
            self._whose, self._entry.client_id or "", self._entry.client_secret, method, audience, self._clock
        )
        return await post_form(
            self._way,
            what,
            url,
            {**form, **client.form},
            secrets=(*secrets, *client.secrets),
            authorization=client.authorization,
        )

    def _scopes(self, asked: tuple[str, ...] | None) -> tuple[str, ...]:
        if asked is not None:
            return asked
        return self._template.scopes if self._entry.scopes is None else self._entry.scopes

    def _known(self, which: _Endpoint) -> str | None:
        given: str | None = getattr(self._entry, which) or getattr(self._template, which)
        return given

    async def _endpoint(self, which: _Endpoint) -> str | None:
        """The entry's; then that of its own issuer's document; then the template's; then that of the template's issuer."""
        given: str | None = getattr(self._entry, which)
        if given is None and self._entry.issuer is None:
            given = getattr(self._template, which)
        if given is None and self._discovery is not None:
            given = getattr(await self._discovery.metadata(), which)
        return given or getattr(self._template, which)

    async def _token_endpoint(self) -> str:
        url = await self._endpoint("token_endpoint")
        if url is None:
            raise CredentialRefused(f"{self._whose}: nothing says where tokens are given: write `token_endpoint`")
        return url

    async def _login_endpoint(self, which: _Endpoint, otherwise: str) -> str:
        try:
            url = await self._endpoint(which)
        except CredentialFault as fault:
            raise LoginFailed(f"{fault}.") from fault
        if url is None:
            raise LoginFailed(f"{self._whose}: {otherwise}, or write `{which}`.")
        if not is_safe(url):
            raise LoginFailed(f"{self._whose}: `{which}` is not an https address: write one.")
        return url

    async def _login_metadata(self) -> Metadata:
        assert self._discovery is not None
        try:
            return await self._discovery.metadata()
        except CredentialFault as fault:
            raise LoginFailed(f"{fault}.") from fault

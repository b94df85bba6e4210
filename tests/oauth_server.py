"""A strict OAuth server, written by others: npm's oidc-provider, and a browser whose person signs in there.

`make test` installs it before the tests (``python -m tests.servers``).
"""

import contextlib
import json
import re
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urljoin, urlsplit

import aiohttp
import msgspec

from tests import servers
from tests.planted import planted

CLIENT_SECRET: Final = planted("oauth-client")
REDIRECT_URL: Final = "http://127.0.0.1/oauth/callback"
"""Registered for the clients below; they are native ones, so any port may stand in it (RFC 8252 section 7.3)."""

_CODE_FLOW: Final = {"grant_types": ["authorization_code", "refresh_token"], "response_types": ["code"]}
_DEVICE_FLOW: Final = {
    "grant_types": ["urn:ietf:params:oauth:grant-type:device_code", "refresh_token"],
    "response_types": [],
    "redirect_uris": [],
}
_NATIVE: Final = {"application_type": "native", "redirect_uris": [REDIRECT_URL]}
CLIENTS: Final[tuple[dict[str, Any], ...]] = (
    {"client_id": "public", "token_endpoint_auth_method": "none", **_NATIVE, **_CODE_FLOW},
    {"client_id": "basic", "client_secret": CLIENT_SECRET, **_NATIVE, **_CODE_FLOW},
    {
        "client_id": "post",
        "client_secret": CLIENT_SECRET,
        "token_endpoint_auth_method": "client_secret_post",
        **_NATIVE,
        **_CODE_FLOW,
    },
    {"client_id": "device", "token_endpoint_auth_method": "none", "application_type": "native", **_DEVICE_FLOW},
    {
        "client_id": "machine",
        "client_secret": CLIENT_SECRET,
        "grant_types": ["client_credentials"],
        "response_types": [],
        "redirect_uris": [],
        "scope": "models.read",
    },
)
"""By how they show who they are, or what they are."""

_LOCATIONS = frozenset({301, 302, 303, 307})
_HIDDEN = re.compile(r'<input type="hidden" name="(\w+)" value="([^"]*)"')
_MOST_STEPS = 20


class OAuthServerProcess:
    """A running one."""

    def __init__(self, url: str, log: Path) -> None:
        self.url = url
        """Its origin, which is its issuer too."""
        self.log = log

    async def grants(self) -> dict[str, dict[Literal["given", "refused"], int]]:
        """How often tokens were given and refused, by grant type."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}/test/grants") as answer:
            return msgspec.json.decode(await answer.read(), type=dict[str, dict[Literal["given", "refused"], int]])

    async def answer_next(
        self,
        path: str,
        status: int,
        body: str | Mapping[str, object] = "",
        *,
        headers: Mapping[str, str] | None = None,
        times: int = 1,
    ) -> None:
        """The next ``times`` answers of ``path`` are these in the place of its own."""
        text = body if isinstance(body, str) else json.dumps(body)
        planned = {"path": path, "status": status, "headers": dict(headers or {}), "body": text, "times": times}
        async with aiohttp.ClientSession() as session:
            (await session.post(f"{self.url}/test/answers", json=planned)).raise_for_status()

    async def hurry_device(self, client_id: str = "device", scope: str = "openid email") -> None:
        """The next device that begins to sign in is told to ask every second, not every five."""
        form = {"client_id": client_id, "scope": scope}
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{self.url}/device/auth", data=form) as answer,
        ):
            given = msgspec.json.decode(await answer.read(), type=dict[str, Any])
        await self.answer_next("/device/auth", 200, {**given, "interval": 1})

    async def is_active(self, token: str) -> bool:
        """Whether the server takes ``token`` (RFC 7662)."""
        headers = {"authorization": aiohttp.encode_basic_auth("basic", CLIENT_SECRET)}
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.post(f"{self.url}/token/introspection", data={"token": token}) as answer,
        ):
            return bool(msgspec.json.decode(await answer.read())["active"])


@contextlib.contextmanager
def oauth_server(
    scratch: Path,
    *,
    clients: Sequence[Mapping[str, Any]] = CLIENTS,
    lifetimes: Mapping[str, int] | None = None,
    routes: Mapping[str, str] | None = None,
) -> Iterator[OAuthServerProcess]:
    """Run one on a free port. ``lifetimes`` in seconds, such as ``{"AccessToken": 2}``; ``routes``: paths of endpoints
    other than oidc-provider's own, such as ``{"token": "/oauth/token"}``. Its log is written below ``scratch``."""
    modules = servers.install_node_project(servers.OAUTH_PROJECT)
    log = Path(tempfile.mkdtemp(dir=scratch, prefix="oauth-")) / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [servers.node(), servers.OAUTH_PROJECT / "server.mjs", modules],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        assert process.stdin is not None
        with process.stdin as settings:
            given = {"clients": list(clients), "lifetimes": dict(lifetimes or {}), "routes": dict(routes or {})}
            settings.write(json.dumps(given).encode())
        yield OAuthServerProcess(servers._listening_url(process, log), log)
    finally:
        servers._end(process)


@dataclass(frozen=True, slots=True)
class Page:
    """Where a browser has come to an end."""

    status: int
    url: str
    text: str


class Browser:
    """A person at a browser: signs in and allows, or denies; goes no further than the server."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def sign_in(self, url: str, *, person: str = "ada", allow: bool = True) -> str:
        """Open an authorization URL; gives the address that the server sends the browser back to.

        Raises:
            AssertionError: it sends it nowhere, but shows an error.
        """
        page = await self._follow("GET", url, person, allow)
        assert page.status in _LOCATIONS, f"status {page.status}: {page.text}"
        return page.url

    async def opened(self, url: str) -> Page:
        """Where an authorization URL leads that the server does not send back."""
        return await self._follow("GET", url, "ada", True)

    async def enter_code(self, url: str, user_code: str, *, person: str = "ada", allow: bool = True) -> Page:
        """Enter a device's code at its verification address."""
        page = await self._follow("GET", url, person, True)
        fields = dict(_HIDDEN.findall(page.text)) | {"user_code": user_code}
        page = await self._follow("POST", page.url, person, True, fields)
        fields = {name: unescape(value) for name, value in _HIDDEN.findall(page.text)}
        if not allow:
            fields = {name: value for name, value in fields.items() if name != "confirm"} | {"abort": "yes"}
        return await self._follow("POST", page.url, person, True, fields)

    async def _follow(
        self, method: str, url: str, person: str, allow: bool, fields: Mapping[str, str] | None = None
    ) -> Page:
        home = urlsplit(url).netloc
        headers = {"x-person": person, "x-answer": "allow" if allow else "deny"}
        for _ in range(_MOST_STEPS):
            async with self._session.request(
                method, url, data=fields, headers=headers, allow_redirects=False
            ) as answer:
                text = await answer.text()
                if answer.status not in _LOCATIONS:
                    return Page(answer.status, url, text)
                url = urljoin(url, answer.headers["location"])
                if urlsplit(url).netloc != home:
                    return Page(answer.status, url, text)
                method, fields = "GET", None
        raise AssertionError(f"redirected {_MOST_STEPS} times")


@contextlib.asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    """A new one, signed in nowhere."""
    # The jar keeps cookies of IP addresses too.
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        yield Browser(session)

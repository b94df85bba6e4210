"""By which names the API may be called, from which pages, and what every answer tells the browser.

Three attacks come by the browser of somebody who can reach the gateway:

- A page of a stranger's own site, whose name is made to lead here (DNS rebinding): the browser takes the gateway for
  that site. Its requests show that name in ``Host``, so only names that are known are answered; an address is no name.
- A page that sends a request across sites. It may send some kinds without asking first, so what changes something is
  refused when ``Origin`` is another's; and what asks first (a preflight) is told no.
- A page that reads an answer, frames it, or takes it for a script: no answer lets it.

None of this asks who calls: that is asked as well, and ``Host`` and ``Origin`` have no say in it.
"""

import ipaddress
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NoReturn, TypeVar
from urllib.parse import urlsplit

import msgspec
from tornado.httputil import HTTPServerRequest

from access.address import TrustedProxies, parse_address
from config.checks import parse_listen
from config.faults import ConfigFaults, Fault
from config.schema import Config
from core.globs import Glob
from management.errors import ManagementError, RequestError
from transport.server import ServerConnection

SECURITY_HEADERS: Final = (
    # Nothing that is answered here is a page; the docs page sets one of its own.
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
)
HSTS: Final = "max-age=31536000"

_LOOKS_ONLY: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_ALLOWED_HEADERS: Final = "Authorization, Content-Type, If-Match, X-Api-Key"
_EXPOSED_HEADERS: Final = "ETag, Location, Retry-After, X-Request-Id"
_PREFLIGHT_SECONDS: Final = "600"
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_SHOWN_CHARACTERS: Final = 128

_T = TypeVar("_T")


class Site(msgspec.Struct, frozen=True):
    """An origin (RFC 6454), taken apart."""

    scheme: str
    host: str
    """Lower case; an IPv6 address without its brackets."""
    port: int


class Origins:
    """What a configuration says of names and pages."""

    __slots__ = ("_globs", "_names", "_pages", "_public")

    def __init__(
        self,
        names: Iterable[str] = (),
        globs: Sequence[str] = (),
        pages: Sequence[str] = (),
        public_url: str | None = None,
    ) -> None:
        """
        Args:
            names: hosts that the gateway is known by, of whatever case.
            globs: `management.allowed_hosts`.
            pages: `management.cors_origins`.
            public_url: `server.public_url`.

        Raises:
            config.faults.ConfigFaults: a glob or an origin that is none.
        """
        faults: list[Fault] = []
        self._globs = _read(globs, _glob, "allowed_hosts", faults)
        self._pages = frozenset(_read(pages, _page, "cors_origins", faults))
        if faults:
            raise ConfigFaults(faults)
        self._public = None if public_url is None else parse_origin(public_url, whole=False)
        self._names = {name.lower().removesuffix(".") for name in names}
        if self._public is not None:
            self._names.add(self._public.host)

    @classmethod
    def of(cls, config: Config) -> "Origins":
        """Those of a whole configuration. Raises as the constructor does."""
        names = []
        for listen in (config.server.listen, config.management.listen):
            try:
                names.append(parse_listen(listen or "").host)
            except ValueError:
                continue  # none, or told elsewhere
        management = config.management
        return cls(names, management.allowed_hosts, management.cors_origins, config.server.public_url)

    @property
    def any_page(self) -> bool:
        """Whether there is a page that may call."""
        return bool(self._pages)

    def knows(self, authority: str) -> bool:
        """Whether a `Host` field names this gateway, by an address or a name that leads nowhere else."""
        host = host_of(authority)
        return (
            _is_address(host)
            or host in self._names
            or _is_own_machine(host)
            or any(glob.matches(host) for glob in self._globs)
        )

    def admits(self, origin: str) -> bool:
        """Whether a page of ``origin`` may call and read the answer."""
        return origin in self._pages

    def is_own(self, origin: str, authority: str) -> bool:
        """Whether ``origin`` is the gateway itself, as the browser sees it. The scheme is a reverse proxy's matter."""
        site = parse_origin(origin)
        if site is None:
            return False
        if site == self._public:
            return True
        host, port = host_of(authority), _port_of(authority)
        return (site.host, site.port) == (host, port or _DEFAULT_PORTS[site.scheme])


def parse_origin(text: str, *, whole: bool = True) -> Site | None:
    """``scheme://host[:port]``; None for all else, ``null`` among it. Unless ``whole``, a path may follow."""
    try:
        url = urlsplit(text)
        host, port = url.hostname, url.port
    except ValueError:
        return None
    if url.scheme not in _DEFAULT_PORTS or not host or port == 0 or url.username is not None:
        return None
    if whole and text.lower() != f"{url.scheme}://{url.netloc.lower()}":
        return None
    return Site(url.scheme, host.removesuffix("."), port or _DEFAULT_PORTS[url.scheme])


def host_of(authority: str) -> str:
    """The host of a `Host` field, without its port: lower case, without brackets and the dot of an absolute name."""
    if authority.startswith("["):
        return authority[1:].partition("]")[0].lower()
    return authority.partition(":")[0].lower().removesuffix(".")


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """By which name and from which page a request has come, before anybody asks who sent it."""

    origins: Origins
    method: str
    authorities: tuple[str, ...]
    """Of the `Host` field, and of the target where that has one too."""
    pages: tuple[str, ...]
    """`Origin` fields."""
    preflight: bool
    """Whether a browser asks if a page may call."""
    https: bool
    """Whether the browser spoke HTTPS, with us or with a proxy of ours."""

    def require_known_host(self) -> None:
        """
        Raises:
            ManagementError: 421: a host that is no name of the gateway, or none (HTTP/1.0 allows that; no browser leaves it
                out, but neither does anybody else who means this API).
        """
        if not self.authorities:
            raise ManagementError(
                RequestError.UNKNOWN_HOST, "The request names no host: send `Host` with the gateway's address or name."
            )
        for authority in self.authorities:
            if not self.origins.knows(authority):
                raise ManagementError(
                    RequestError.UNKNOWN_HOST,
                    f"`{host_of(authority)[:_SHOWN_CHARACTERS]}` is not known as a name of this gateway: call it by its "
                    "address, or add the name to `management.allowed_hosts`.",
                )

    def require_own_page(self) -> None:
        """
        Raises:
            ManagementError: 403: a page of another site wants to change something.
        """
        if self.method in _LOOKS_ONLY or not self.pages or self._page is not None:
            return
        if len(self.pages) == 1 and any(self.origins.is_own(self.pages[0], each) for each in self.authorities):
            return
        raise ManagementError(
            RequestError.FOREIGN_ORIGIN,
            f"A page of `{self.pages[0][:_SHOWN_CHARACTERS]}` may not change anything here: if it is yours, add it to "
            "`management.cors_origins`; if it is the gateway's own, set `server.public_url`.",
        )

    @property
    def is_admitted_preflight(self) -> bool:
        """Whether the answer is to be yes."""
        return self.preflight and self._page is not None

    @property
    def headers(self) -> list[tuple[str, str]]:
        """What every answer has besides :data:`SECURITY_HEADERS`. Only a page of `management.cors_origins` may read it."""
        headers = []
        if self.origins.any_page:
            headers.append(("Vary", "Origin"))
        if self._page is not None:
            headers += [
                ("Access-Control-Allow-Origin", self._page),
                ("Access-Control-Expose-Headers", _EXPOSED_HEADERS),
            ]
        if self.https and not any(map(_is_own_machine, map(host_of, self.authorities))):
            # On one's own machine a name is shared by programs that speak no TLS.
            headers.append(("Strict-Transport-Security", HSTS))
        return headers

    @property
    def _page(self) -> str | None:
        """The page's origin, if it is one that may call."""
        return self.pages[0] if len(self.pages) == 1 and self.origins.admits(self.pages[0]) else None


def way_of(request: HTTPServerRequest, origins: Origins, trusted_proxies: TrustedProxies) -> Way:
    """The way that ``request`` has come."""
    fields, connection = request.headers, request.connection
    authorities, pages = fields.get_list("Host"), fields.get_list("Origin")
    if isinstance(connection, ServerConnection) and not connection.target.startswith("/"):
        # RFC 9112 section 3.2.2: the target's counts. Nobody honest sends two that differ.
        authorities.append(urlsplit(connection.target).netloc)
    https = request.protocol == "https"
    forwarded = fields.get_list("X-Forwarded-Proto")
    if forwarded and not https and trusted_proxies:
        peer = parse_address(request.remote_ip or "")
        # Each proxy may add what it was spoken to by.
        spoken = {each.strip().lower() for each in ",".join(forwarded).split(",")}
        https = peer is not None and peer in trusted_proxies and spoken == {"https"}
    return Way(
        origins=origins,
        method=request.method or "",
        authorities=tuple(authorities),
        pages=tuple(pages),
        # https://fetch.spec.whatwg.org/#cors-preflight-request
        preflight=request.method == "OPTIONS" and "Access-Control-Request-Method" in fields and bool(pages),
        https=https,
    )


def preflight_headers(methods: Sequence[str]) -> list[tuple[str, str]]:
    """What the answer to a preflight adds. The admin key goes into a field of the page's own setting: no cookies."""
    return [
        ("Access-Control-Allow-Methods", ", ".join(methods)),
        ("Access-Control-Allow-Headers", _ALLOWED_HEADERS),
        ("Access-Control-Max-Age", _PREFLIGHT_SECONDS),
    ]


def _is_own_machine(host: str) -> bool:
    return host == "localhost" or host.endswith(".localhost")


def _port_of(authority: str) -> int | None:
    port = authority.rpartition("]")[2].partition(":")[2]
    return int(port) if port.isascii() and port.isdigit() and len(port) <= 5 else None


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _read(texts: Sequence[str], read: Callable[[str], _T], key: str, faults: list[Fault]) -> tuple[_T, ...]:
    found = []
    for position, text in enumerate(texts):
        try:
            found.append(read(text))
        except ValueError as error:
            faults.append(Fault(("management", key, position), str(error)))
    return tuple(found)


def _glob(text: str) -> Glob:
    if "/" in text or ":" in text:
        raise ValueError(
            "a name has no `/` and no `:`: write it without scheme and port, such as `gateway.example.com`"
        )
    return Glob(text.lower())


def _page(text: str) -> str:
    """As browsers write it in `Origin`."""
    if text.strip() == "*":
        _no_page("`*` would let every page of the internet call: name each origin")
    site = parse_origin(text)
    if site is None or not text.isascii():
        _no_page("not an origin: write scheme, host and port alone, such as `https://console.example.com`")
    host = f"[{site.host}]" if ":" in site.host else site.host
    port = "" if site.port == _DEFAULT_PORTS[site.scheme] else f":{site.port}"
    return f"{site.scheme}://{host}{port}"


def _no_page(why: str) -> NoReturn:
    raise ValueError(why)

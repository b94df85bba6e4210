"""What the schema cannot say and the document alone can answer: syntax of addresses, names that must be unique.

The checks look at the values themselves, not at the frozen Config, so that they are told together with the faults
of the schema. A value of the wrong type is passed over here; the schema tells it.
"""

import ipaddress
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple
from urllib.parse import urlsplit

from config.faults import Fault, Path, render_path
from config.substitute import Resolved

_HOST_NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})?(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})?)*\.?\Z")
_SHA256 = re.compile(r"[0-9a-fA-F]{64}\Z")


class Address(NamedTuple):
    """Where a listener binds; port 0 lets the system choose."""

    host: str
    port: int


def parse_listen(text: str) -> Address:
    """Read ``host:port`` or ``[IPv6]:port``.

    Raises:
        ValueError: it is neither; the message says how to mend it.
    """
    host, separator, port = text.rpartition(":")
    if not separator and _is_port(text):
        raise ValueError(f"no address before the port: write `127.0.0.1:{text}`, or `0.0.0.0:{text}` for all of IPv4")
    if not separator or not port.isdecimal() or not port.isascii():
        raise ValueError("not an address and a port: write `127.0.0.1:8080`, or `[::1]:8080` for IPv6")
    if not _is_port(port):
        raise ValueError("the port must be between 0 and 65535")
    if not host:
        raise ValueError(f"no address before the port: write `0.0.0.0:{port}` for all of IPv4, `[::]:{port}` for IPv6")
    if host.startswith("[") and host.endswith("]"):
        return Address(str(ipaddress.IPv6Address(host[1:-1])), int(port))
    if ":" in host:
        raise ValueError(f"put an IPv6 address in brackets: `[{host}]:{port}`")
    if not _HOST_NAME.match(host):
        raise ValueError("not a host name or an IP address before the port")
    return Address(host, int(port))


def _is_port(text: str) -> bool:
    return text.isdecimal() and text.isascii() and len(text) <= 5 and int(text) <= 65535


def _listen(text: str) -> None:
    parse_listen(text)


def _url(text: str) -> None:
    # The address is never shown: it may carry a password.
    if not text.isascii() or not text.isprintable() or " " in text or "\\" in text:
        raise ValueError("has characters that no address may have: percent-encode them")
    try:
        url = urlsplit(text)
        host, port = url.hostname, url.port
    except ValueError:
        # The parser's own words may repeat a piece of it.
        raise ValueError("not an address that can be read: write `https://host:port/path`") from None
    if url.scheme not in ("http", "https") or not host or port == 0:
        raise ValueError("not an http(s) address: write `https://host/path`")
    if url.username is not None or url.password is not None:
        raise ValueError("carries a user or password: remove it; secrets have keys of their own")


def check_bare_url(text: str) -> None:
    """See that ``text`` is the address of a server, perhaps with a path, that a path can be put behind.

    Raises:
        ValueError: it is none; the message says how to mend it and repeats no part of it.
    """
    _url(text)
    if "?" in text or "#" in text:
        raise ValueError("carries a query or fragment: remove what begins with `?` or `#`")


def _no_fragment(text: str) -> None:
    _url(text)
    if "#" in text:
        raise ValueError("carries a fragment: remove what begins with `#`")


def _proxy_url(text: str) -> None:
    # Shown by no fault: it may carry a password, here rightly so.
    if text == "direct":
        return
    try:
        url = urlsplit(text)
        fits = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        fits = False
    if not fits or not text.isascii() or not text.isprintable() or " " in text or url.path not in ("", "/"):
        raise ValueError("not the address of a proxy: write `http://host:port` (or https), or `direct` for none")


def _network(text: str) -> None:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        try:
            network = ipaddress.ip_network(text, strict=False)
        except ValueError:
            raise ValueError("not an address or a network: write `10.0.0.1` or `10.0.0.0/8`") from None
        raise ValueError(f"has bits beyond its prefix: write `{network}`, or the address alone") from None


def _sha256(text: str) -> None:
    if not _SHA256.match(text):
        raise ValueError(
            "not 64 hexadecimal digits: write the token's SHA-256, never the token: `printf %s TOKEN | sha256sum`"
        )


_EACH = "*"

_SYNTAX: tuple[tuple[tuple[str, ...], Callable[[str], None]], ...] = (
    (("server", "listen"), _listen),
    (("server", "public_url"), check_bare_url),
    (("server", "trusted_proxies", _EACH), _network),
    (("management", "listen"), _listen),
    (("secrets", "vault", "address"), check_bare_url),
    (("transport", "proxy_url"), _proxy_url),
    (("tokens", _EACH, "sha256"), _sha256),
    (("providers", _EACH, "base_url"), _url),
    (("providers", _EACH, "proxy_url"), _proxy_url),
    (("providers", _EACH, "credentials", _EACH, "proxy_url"), _proxy_url),
    (("providers", _EACH, "credentials", _EACH, "azure_entra", "authority"), check_bare_url),
    (("oauth", "providers", _EACH, "issuer"), check_bare_url),
    (("oauth", "providers", _EACH, "authorization_endpoint"), _no_fragment),
    (("oauth", "providers", _EACH, "token_endpoint"), _no_fragment),
    (("oauth", "providers", _EACH, "device_authorization_endpoint"), _no_fragment),
    (("oauth", "providers", _EACH, "revocation_endpoint"), _no_fragment),
    (("oauth", "providers", _EACH, "redirect_url"), _no_fragment),
    (("webhooks", _EACH, "url"), _url),
)
"""Texts and what reads them; ValueError says what is wrong."""

_UNIQUE: tuple[tuple[tuple[str, ...], str], ...] = (
    (("tokens",), "name"),
    (("tokens",), "sha256"),
    (("providers",), "name"),
    (("providers", _EACH, "credentials"), "name"),
    (("oauth", "providers"), "name"),
    (("model_aliases",), "from"),
    (("routes",), "name"),
    (("webhooks",), "name"),
)
"""Lists, and the key in which their entries must differ."""

_ONE_OF: tuple[tuple[tuple[str, ...], tuple[str, ...], str], ...] = (
    (
        ("providers", _EACH, "credentials", _EACH),
        ("api_key", "client_credentials", "google_service_account", "azure_entra", "command"),
        "the credential is of no kind",
    ),
    (
        ("providers", _EACH, "credentials", _EACH, "azure_entra"),
        ("client_secret", "certificate", "federated_token"),
        "the application has nothing to sign in with",
    ),
)
"""Entries that have exactly one of the keys, and what is wrong with one that has none."""


def check(value: Resolved) -> list[Fault]:
    """The faults of a document, in no particular order."""
    faults = []
    for pattern, read in _SYNTAX:
        for path, text in _select(value, pattern):
            if isinstance(text, str):
                try:
                    read(text)
                except ValueError as error:
                    faults.append(Fault(path, str(error)))
    for pattern, key in _UNIQUE:
        for path, entries in _select(value, pattern):
            if isinstance(entries, list):
                faults += _duplicates(path, entries, key)
    for pattern, keys, fault in _ONE_OF:
        for path, entry in _select(value, pattern):
            if isinstance(entry, dict):
                faults += _not_one(path, entry, keys, fault)
    return faults


def _select(value: Resolved, pattern: tuple[str, ...], path: Path = ()) -> Iterator[tuple[Path, Resolved]]:
    """Every value whose path is of ``pattern``, with its path."""
    if not pattern:
        yield path, value
    elif pattern[0] == _EACH:
        if isinstance(value, list):
            for index, entry in enumerate(value):
                yield from _select(entry, pattern[1:], (*path, index))
    elif isinstance(value, dict) and pattern[0] in value:
        yield from _select(value[pattern[0]], pattern[1:], (*path, pattern[0]))


def _duplicates(path: Path, entries: list[Resolved], key: str) -> Iterator[Fault]:
    first: dict[str, int] = {}
    for index, entry in enumerate(entries):
        text = entry.get(key) if isinstance(entry, dict) else None
        if not isinstance(text, str):
            continue
        compared = text.lower() if key == "sha256" else text
        if compared in first:
            other = render_path((*path, first[compared]))
            what = "the same token" if key == "sha256" else f"the same `{key}`"
            yield Fault((*path, index, key), f"{what} as {other}: each entry needs its own")
        else:
            first[compared] = index


def _not_one(path: Path, entry: dict[str, Resolved], keys: tuple[str, ...], fault: str) -> Iterator[Fault]:
    given = [key for key in keys if entry.get(key) is not None]
    if len(given) > 1:
        both = " and ".join(f"`{key}`" for key in given)
        yield Fault((*path, given[1]), f"is one too many: of {both} only one may stay")
    elif not given and any(key in entry for key in keys):
        empty = next(key for key in keys if key in entry)
        yield Fault((*path, empty), f"has no value, so that {fault}: give it one")
    elif not given:
        choice = ", ".join(f"`{key}`" for key in keys)
        yield Fault(path, f"{fault}: add one of {choice}")

"""What an entry of the configuration says of the way to the servers that it names."""

from pathlib import Path
from typing import Protocol

from config.faults import ConfigFaults, Fault
from config.schema import ClientTls, Config
from core.secret import Secret
from transport.messages import ConnectionOptions
from transport.options import CannotConnect, check_connection_options


class Entry(Protocol):
    """Of `providers:` or `oauth.providers`."""

    @property
    def tls(self) -> ClientTls: ...
    @property
    def proxy_url(self) -> Secret | None: ...


class Shared(Protocol):
    """Fits :class:`gateway.resources.Resources`."""

    def shared_options(self, options: ConnectionOptions) -> ConnectionOptions: ...


def connection_options(
    entry: Entry, config: Config, directory: Path, shared: Shared, *, allow_private: bool = True
) -> ConnectionOptions:
    """How the servers of ``entry`` are reached; relative files begin at ``directory``.

    Raises:
        ConfigFaults: a file that is not there, or is no certificate; a proxy's address that is none.
    """
    tls = entry.tls

    def absolute(name: str | None) -> str | None:
        return None if name is None else str(directory / name)

    proxy_url = entry.proxy_url or config.transport.proxy_url
    if proxy_url is not None and proxy_url.reveal() in ("direct", ""):
        proxy_url = None
    options = ConnectionOptions(
        proxy_url,
        absolute(tls.ca),
        absolute(tls.cert),
        absolute(tls.key),
        allow_private=allow_private,
        # The proxy for all is the operator's, and mostly in a private network.
        allow_private_proxy=allow_private or entry.proxy_url is None,
    )
    try:
        check_connection_options(options)
    except CannotConnect as error:
        raise ConfigFaults(
            [Fault(("tls", error.key) if error.key != "proxy_url" else ("proxy_url",), str(error))]
        ) from None
    return shared.shared_options(options)

"""The way to a provider for credentials that have a proxy of their own."""

from collections.abc import Iterator

import msgspec

from config.faults import Fault
from config.schema import Provider
from core.secret import Secret
from gateway.connections import Shared
from transport.messages import ConnectionOptions
from transport.options import CannotConnect, check_connection_options

_MOST_KNOWN = 256


class OwnProxies:
    """Fits :attr:`proxy.dataplane.BoundProvider.through`; worked out once for each proxy."""

    __slots__ = ("_allow_private_targets", "_known", "_of_file", "_options", "_shared")

    def __init__(self, options: ConnectionOptions, shared: Shared, *, allow_private_targets: bool = True) -> None:
        """``options`` are the provider's, which hold in everything else; ``allow_private_targets``: whether the proxies that
        the API has set may lie in private networks."""
        self._allow_private_targets = allow_private_targets
        self._of_file: set[Secret] = set()
        self._options = options
        self._shared = shared
        self._known: dict[Secret, ConnectionOptions] = {}

    def __call__(self, proxy_url: Secret) -> ConnectionOptions:
        """The options by ``proxy_url``, which may say that there is none."""
        known = self._known.get(proxy_url)
        if known is None:
            if len(self._known) >= _MOST_KNOWN:
                # Accounts that are changed have other handles.
                self._known.clear()
            known = self._known[proxy_url] = self._shared.shared_options(self._through(proxy_url))
        return known

    def _through(self, proxy_url: Secret) -> ConnectionOptions:
        direct = proxy_url.reveal() in ("direct", "")
        return msgspec.structs.replace(
            self._options,
            proxy_url=None if direct else proxy_url,
            allow_private_proxy=self._options.allow_private
            and (self._allow_private_targets or proxy_url in self._of_file),
        )

    def faults(self, provider: Provider) -> Iterator[Fault]:
        """Of the proxies that the credentials of an entry name, with paths below it. The good ones are known from now on,
        so that no request waits until where they stand has been read."""
        for number, credential in enumerate(provider.credentials):
            if credential.proxy_url is None:
                continue
            self._of_file.add(credential.proxy_url)
            try:
                check_connection_options(self(credential.proxy_url))
            except CannotConnect as error:
                yield Fault(("credentials", number, "proxy_url"), str(error))

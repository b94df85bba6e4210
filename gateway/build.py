"""Config → Generation: everything that one revision of the document stands for, built whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from access.address import TrustedProxies
from access.admin_key import check_admin_key_hash
from access.identify import Identifier
from access.price_list import listed_types
from access.prices import PriceBook
from access.quotas.rules import Rules
from access.tokens import TokenIndex
from config.faults import ConfigFaults, Fault
from config.faults import Path as KeyPath
from config.load import LoadedConfig, RejectedConfig, load
from config.schema import Config, Provider
from config.sources import SourceFile
from credentials.pool import Pools
from gateway.connections import connection_options
from gateway.limits import rules_of
from gateway.own_proxies import OwnProxies
from gateway.price_advice import price_advice
from gateway.resources import Resources
from gateway.stores import address_of
from gateway.token_sources import TokenSources, token_sources
from gateway.webhooks import bind_webhook
from management.dependencies import View
from management.handler.origin import Origins
from proxy.dataplane import BoundProvider, DataPlane
from proxy.intake import Limits
from proxy.providers import PROVIDER_TYPES, build_adapter
from proxy.providers.base import LocalAdapter
from routing.advice import advice
from routing.route_tests import run_route_tests
from routing.router import Router
from storage.errors import StorageUrlFault
from transport.scripted import ScriptedClient
from transport.tls import CannotUseCertificate, ServerTls
from webhooks.endpoint import Endpoint

# The pipeline decides by these itself: a route that changed them would change them behind its back.
_FIXED_MEMBERS = ("model", "stream")


@dataclass(frozen=True, slots=True)
class Generation:
    """Immutable. A request ends on the one it began with, whatever is swapped in meanwhile."""

    loaded: LoadedConfig
    plane: DataPlane
    view: View
    webhooks: tuple[Endpoint, ...]
    token_sources: TokenSources = field(default_factory=TokenSources)

    @property
    def config(self) -> Config:
        return self.loaded.config

    @property
    def revision(self) -> str:
        return self.loaded.revision

    def pieces(self) -> list[object]:
        """What it mostly consists of, in small parts: for :func:`gateway.pauses.take_apart`."""
        return [*self.loaded.place.parts(), *self.config.routes, *self.plane.router.parts()]


class _Faults:
    """Collects the faults of several parts, so that all are told at once."""

    def __init__(self) -> None:
        self.found: list[Fault] = []

    @contextmanager
    def under(self, *prefix: str | int) -> Iterator[None]:
        """Faults raised inside are kept, with ``prefix`` before their paths."""
        try:
            yield
        except ConfigFaults as raised:
            self.found += [_moved(fault, prefix) for fault in raised.faults]

    def report(self, loaded: LoadedConfig) -> None:
        """Raises ConfigFaults, with file, line and column, when there are any."""
        if self.found:
            raise ConfigFaults(loaded.locate(tuple(self.found)))


def _moved(fault: Fault, prefix: KeyPath) -> Fault:
    return Fault((*prefix, *fault.path), fault.message, fault.file, fault.line, fault.column) if prefix else fault


def build(loaded: LoadedConfig, resources: Resources) -> Generation:
    """Build and test a generation. Pure but for reading the clock: safe in a thread beside the event loop.

    Raises:
        ConfigFaults: every fault that only shows when the parts are put together, and every route test that fails.
    """
    config = loaded.config
    faults = _Faults()
    providers: dict[str, BoundProvider] = {}
    for position, provider in enumerate(config.providers):
        with faults.under("providers", position):
            providers[provider.name] = _bind(provider, config, loaded.sources.root.parent, resources)
    webhooks: list[Endpoint] = []
    for position, webhook in enumerate(config.webhooks):
        with faults.under("webhooks", position):
            webhooks.append(bind_webhook(webhook, loaded.sources.root.parent))
    faults.found += _override_faults(config)
    with faults.under():
        tokens = TokenIndex(config.tokens, resources.issued_tokens)
    with faults.under():
        check_admin_key_hash(config.management.admin_key_hash)
    with faults.under("server", "tls"):
        server_tls(loaded)
    with faults.under():
        _check_storage(loaded)
    with faults.under():
        proxies = TrustedProxies(config.server.trusted_proxies)
    with faults.under():
        origins = Origins.of(config)
    rules = Rules()
    with faults.under():
        rules = rules_of(config)
    with faults.under():
        resources.quotas.check(config)
    sources = TokenSources()
    with faults.under():
        sources = token_sources(config, loaded.sources.root.parent, resources)
    pools = Pools(config.providers, resources.cooldowns, resources.credentials.accounts)
    with faults.under():
        prices = PriceBook(config.prices, listed_types(config.providers))
    with faults.under():
        router = Router(config, resources.cooldowns, pools, resources.random)
    faults.report(loaded)

    loaded = loaded.with_notices([*advice(config, router), *price_advice(config, prices)])
    faults.found += run_route_tests(config, router)
    faults.report(loaded)

    plane = DataPlane(
        revision=loaded.revision,
        built_at=resources.clock.time(),
        limits=Limits(
            config.server.max_body_bytes, config.server.max_upload_bytes, config.server.max_decompressed_bytes
        ),
        tokens=tokens,
        router=router,
        pools=pools,
        providers=providers,
        trusted_proxies=proxies,
        body_idle_seconds=config.server.body_idle_seconds,
        rules=rules,
        assumed_output_tokens=config.quotas.assumed_output_tokens,
        discovered=resources.discovered,
        prices=prices,
    )
    view = View(
        revision=loaded.revision,
        identifier=Identifier(tokens, resources.admin_keys, config.management.admin_key_hash, resources.clock.time),
        trusted_proxies=proxies,
        metrics_public=config.telemetry.metrics.public,
        origins=origins,
    )
    return Generation(loaded, plane, view, tuple(webhooks), sources)


def load_and_build(path: Path, resources: Resources, copy: tuple[SourceFile, ...] | None = None) -> Generation:
    """From the document at ``path``, or a ``copy`` of its files, to a generation.

    Raises:
        RejectedConfig: every fault that can be found, also behind others: unknown keys are left out
            for that, and what is left is built as far as it goes.
    """
    try:
        loaded = load(path, resources.environment, resources.secrets, copy)
    except RejectedConfig as rejected:
        if rejected.draft is None:
            raise
        try:
            build(rejected.draft, resources)
        except ConfigFaults as further:
            raise rejected.joined_with(further.faults) from None
        raise
    try:
        return build(loaded, resources)
    except ConfigFaults as refused:
        # Its includes and secret files are worth watching too.
        raise RejectedConfig(refused.faults, loaded.sources) from None


def _bind(provider: Provider, config: Config, directory: Path, resources: Resources) -> BoundProvider:
    adapter = build_adapter(provider)
    if PROVIDER_TYPES[provider.type].transport == "local":
        client = ScriptedClient(cast(LocalAdapter, adapter).respond)
        return BoundProvider(adapter, client, include_usage=provider.include_usage)
    options = connection_options(provider, config, directory, resources, allow_private=provider.allow_private)
    through = OwnProxies(options, resources, allow_private_targets=config.server.allow_private_targets)
    if faults := [*through.faults(provider)]:
        raise ConfigFaults(faults)
    return BoundProvider(adapter, resources.client, options, provider.include_usage, through)


def server_tls(loaded: LoadedConfig) -> ServerTls | None:
    """The certificate that `server.tls` names; None: plain HTTP.

    Raises:
        ConfigFaults: it cannot be used.
    """
    tls, directory = loaded.config.server.tls, loaded.sources.root.parent
    if tls is None:
        return None
    try:
        return ServerTls(directory / tls.cert, directory / tls.key, tls.minimum)
    except CannotUseCertificate as error:
        raise ConfigFaults([Fault(("cert",), str(error))]) from None


def _check_storage(loaded: LoadedConfig) -> None:
    """
    Raises:
        ConfigFaults: `storage.url` names no database that can be used.
    """
    try:
        address_of(loaded.config, loaded.sources.root.parent)
    except StorageUrlFault as error:
        raise ConfigFaults([Fault(("storage", "url"), str(error))]) from None


def _override_faults(config: Config) -> Iterator[Fault]:
    for position, route in enumerate(config.routes):
        overrides = route.overrides
        for kind, names in (("set", overrides.set), ("default", overrides.default), ("remove", overrides.remove)):
            for name in _FIXED_MEMBERS:
                if name in names:
                    yield Fault(
                        ("routes", position, "overrides", kind),
                        f"`{name}` is not for overrides: the model is the target's, and only the client says `stream`",
                    )

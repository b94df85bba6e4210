"""What a configuration says of credentials whose tokens end: where accounts sign in, and who gives tokens to the others."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec

from config.faults import ConfigFaults, Fault, did_you_mean
from config.faults import Path as KeyPath
from config.schema import ClientTls, Config, Credential, OAuthProvider, Provider
from core.clock import Clock
from core.secret import Secret
from credentials.tokens import CredentialSource
from gateway.connections import Shared, connection_options
from transport.messages import UpstreamClient

if TYPE_CHECKING:
    # At run time they are imported where a configuration has something for them.
    from credentials.oauth.server import OAuthServer


@dataclass(frozen=True, slots=True)
class TokenSources:
    """Made anew for each generation."""

    servers: Mapping[str, "OAuthServer"] = field(default_factory=dict)
    """By the names of `oauth.providers`."""
    sources: Mapping[tuple[str, str], CredentialSource] = field(default_factory=dict)
    """Of the file's own credentials that have an end, by provider and name."""


class Means(Shared, Protocol):
    """What they are made with; fits :class:`gateway.resources.Resources`."""

    @property
    def sign_ins(self) -> UpstreamClient: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def environment(self) -> Mapping[str, str]: ...
    def redirect_url(self) -> str: ...


class _Way(msgspec.Struct, frozen=True):
    """To whom a credential's tokens are asked for: not the provider itself, whose certificates are for it alone."""

    proxy_url: Secret | None
    tls: ClientTls = ClientTls()


def token_sources(config: Config, directory: Path, means: Means) -> TokenSources:
    """Those of ``config``; relative files begin at ``directory``. Asks nothing of anybody.

    Raises:
        ConfigFaults: every fault of them, with paths only.
    """
    faults = [*_store_faults(config), *_name_faults(config), *_kind_faults(config)]
    servers: dict[str, OAuthServer] = {}
    for position, entry in enumerate(config.oauth.providers):
        try:
            servers[entry.name] = _server(entry, config, directory, means)
        except ConfigFaults as refused:
            faults += _under(("oauth", "providers", position), refused)
    sources: dict[tuple[str, str], CredentialSource] = {}
    if not faults:
        for position, provider in enumerate(config.providers):
            for number, credential in enumerate(provider.credentials):
                if credential.api_key is not None:
                    continue
                try:
                    source = _source(provider, credential, servers, config, directory, means)
                except ConfigFaults as refused:
                    faults += _under(("providers", position, "credentials", number), refused)
                else:
                    # None: it is of no kind, which is told already.
                    if source is not None:
                        sources[provider.name, credential.name] = source
    if faults:
        raise ConfigFaults(faults)
    return TokenSources(servers, sources)


def _server(entry: OAuthProvider, config: Config, directory: Path, means: Means) -> "OAuthServer":
    from credentials.oauth.checks import check  # noqa: PLC0415  for those alone who have such servers
    from credentials.oauth.server import OAuthServer  # noqa: PLC0415  as above
    from credentials.oauth.templates import TEMPLATES  # noqa: PLC0415  as above

    if faults := check(entry):
        raise ConfigFaults(faults)
    return OAuthServer(
        entry,
        None if entry.template is None else TEMPLATES[entry.template],
        means.sign_ins,
        connection_options(entry, config, directory, means),
        means.clock,
        means.redirect_url,
    )


def _source(
    provider: Provider,
    credential: Credential,
    servers: Mapping[str, "OAuthServer"],
    config: Config,
    directory: Path,
    means: Means,
) -> CredentialSource | None:
    from credentials.sources.build import source_of  # noqa: PLC0415  for those alone who have such credentials

    way = _Way(credential.proxy_url or provider.proxy_url)
    options = connection_options(way, config, directory, means, allow_private=provider.allow_private)
    return source_of(credential, servers, means.sign_ins, options, means.clock, means.environment)


def _store_faults(config: Config) -> Iterator[Fault]:
    oauth, workers = config.oauth, config.server.workers
    if oauth.store == "memory" and workers > 1:
        yield Fault(
            ("oauth", "store"),
            f"{workers} workers would each have accounts of their own: write `database`, or set `server.workers: 1`",
        )
    if oauth.store == "redis" and config.redis.url is None:
        yield Fault(("oauth", "store"), "Redis has no address: set `redis.url`, or write `database`")


def _name_faults(config: Config) -> Iterator[Fault]:
    known = {entry.name for entry in config.oauth.providers}

    def judged(path: KeyPath, name: str | None) -> Iterator[Fault]:
        # What stands twice, or is of another form, is told already.
        if name is not None and name not in known:
            mend = did_you_mean(name, known) or ": add it there"
            yield Fault(path, f"`oauth.providers` has no `{name}`{mend}")

    for position, provider in enumerate(config.providers):
        yield from judged(("providers", position, "oauth"), provider.oauth)
        for number, credential in enumerate(provider.credentials):
            path = ("providers", position, "credentials", number, "client_credentials")
            yield from judged(path, credential.client_credentials)


def _kind_faults(config: Config) -> Iterator[Fault]:
    for position, provider in enumerate(config.providers):
        for number, credential in enumerate(provider.credentials):
            if _is_key(credential):
                continue
            from credentials.sources.build import check  # noqa: PLC0415  for those alone who have such credentials

            yield from _moved(("providers", position, "credentials", number), check(credential))


def _is_key(credential: Credential) -> bool:
    """Whether it is an API key, and nothing besides."""
    others = (
        credential.client_credentials,
        credential.google_service_account,
        credential.azure_entra,
        credential.command,
    )
    return credential.api_key is not None and others == (None, None, None, None)


def _under(path: KeyPath, refused: ConfigFaults) -> Iterator[Fault]:
    return _moved(path, refused.faults)


def _moved(path: KeyPath, faults: "tuple[Fault, ...] | list[Fault]") -> Iterator[Fault]:
    for fault in faults:
        yield Fault((*path, *fault.path), fault.message)

"""From a credential of the file to what gives its tokens."""

import re
from collections.abc import Iterator, Mapping

from config.faults import Fault
from config.schema import AzureEntra, Credential
from core.clock import Clock
from credentials.oauth.http import is_safe
from credentials.oauth.server import OAuthServer
from credentials.sources.azure_entra import AzureEntraSource
from credentials.sources.client_credentials import ClientCredentialsSource
from credentials.sources.command import CommandSource
from credentials.sources.google_service_account import GoogleServiceAccountSource, check_key
from credentials.sources.signing import UnusableKey, read_certified_key
from credentials.tokens import CredentialSource
from transport.messages import ConnectionOptions, UpstreamClient

_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*\Z")
"""It is a segment of the endpoint's path."""


def source_of(
    credential: Credential,
    servers: Mapping[str, OAuthServer],
    client: UpstreamClient,
    options: ConnectionOptions,
    clock: Clock,
    environment: Mapping[str, str],
) -> CredentialSource | None:
    """What gives the tokens of ``credential``, which is of one kind; None: it has an API key.

    Args:
        servers: by the names of their entries of `oauth.providers`.
        options: how sign-in services are reached, but those of ``servers``.
        environment: the gateway's own, of which a program gets little.
    """
    if credential.client_credentials is not None:
        return ClientCredentialsSource(servers[credential.client_credentials])
    if credential.google_service_account is not None:
        return GoogleServiceAccountSource(credential.google_service_account, client, options, clock)
    if credential.azure_entra is not None:
        return AzureEntraSource(credential.azure_entra, client, options, clock)
    if credential.command is not None:
        return CommandSource(credential.command, environment, clock)
    return None


def check(credential: Credential) -> list[Fault]:
    """What is wrong with ``credential`` beyond its form; paths are relative to it. Reads keys: not for an event loop."""
    faults = []
    google, entra, command = credential.google_service_account, credential.azure_entra, credential.command
    if google is not None:
        try:
            check_key(google.key.reveal())
        except UnusableKey as unusable:
            faults.append(Fault(("google_service_account", "key"), str(unusable)))
    if entra is not None:
        faults += [Fault(("azure_entra", *fault.path), fault.message) for fault in _of_entra(entra)]
    if command is not None and "/" in command.run[0] and not command.run[0].startswith("/"):
        faults.append(
            Fault(
                ("command", "run", 0),
                "is relative, and it is not said to what: write its whole path, or its name alone for one that is in PATH",
            )
        )
    return faults


def _of_entra(entry: AzureEntra) -> Iterator[Fault]:
    if not is_safe(entry.authority):
        yield Fault(("authority",), "is not an https address: write one; http is for this machine alone")
    if not _TENANT.match(entry.tenant):
        yield Fault(
            ("tenant",), "is neither the id nor a domain of a directory: copy one of them from Entra's overview"
        )
    if entry.certificate is not None:
        try:
            read_certified_key(entry.certificate.reveal())
        except UnusableKey as unusable:
            yield Fault(("certificate",), str(unusable))

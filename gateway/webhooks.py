"""What a configuration says of webhooks, as the values that deliver; and what is wrong with it, at its place."""

from collections.abc import Iterator
from pathlib import Path

from config.faults import ConfigFaults, Fault
from config.schema import Config, Webhook
from transport.messages import ConnectionOptions
from transport.options import CannotConnect, check_connection_options
from webhooks.delivery import Limits
from webhooks.endpoint import Endpoint
from webhooks.signing import SecretFault, parse_secret
from webhooks.subscriptions import Subscription, SubscriptionFault, Subscriptions


def bind_webhook(webhook: Webhook, directory: Path) -> Endpoint:
    """``directory`` is where relative paths begin.

    Raises:
        ConfigFaults: what of it cannot be used.
    """
    ca = webhook.tls.ca
    endpoint = Endpoint(
        name=webhook.name,
        url=webhook.url,
        secrets=(webhook.secret, *webhook.former_secrets),
        subscription=Subscription(
            webhook=webhook.name,
            events=webhook.events,
            match={field: (globs,) if isinstance(globs, str) else globs for field, globs in webhook.match.items()},
            sample=webhook.sample,
        ),
        options=ConnectionOptions(
            ca_file=None if ca is None else str(directory / ca), allow_private=webhook.allow_private
        ),
        timeout_seconds=webhook.timeout_seconds,
        concurrency=webhook.concurrency,
    )
    faults = [*_secret_faults(endpoint), *_other_faults(endpoint)]
    if faults:
        raise ConfigFaults(faults)
    return endpoint


def webhook_limits(config: Config) -> Limits:
    """How much is kept of deliveries."""
    kept = config.webhook_delivery
    return Limits(pending=kept.max_pending, delivered=kept.max_delivered, kept_seconds=kept.retention_seconds)


def _secret_faults(endpoint: Endpoint) -> Iterator[Fault]:
    for number, secret in enumerate(endpoint.secrets):
        try:
            parse_secret(secret.reveal())
        except SecretFault as error:
            yield Fault(("secret",) if number == 0 else ("former_secrets", number - 1), str(error))


def _other_faults(endpoint: Endpoint) -> Iterator[Fault]:
    try:
        Subscriptions((endpoint.subscription,))
    except SubscriptionFault as error:
        yield Fault(tuple(error.key.split(".", 1)), str(error))
    try:
        check_connection_options(endpoint.options)
    except CannotConnect as error:
        yield Fault(("tls", error.key), str(error))

"""Webhooks: the way to each. Nothing is sent, so that nobody is told of what did not happen."""

import asyncio
from collections.abc import AsyncIterator

import msgspec

from config.schema import Webhook
from gateway.doctor.context import Context, client_options, url_place
from gateway.doctor.report import Finding
from gateway.doctor.ways import Server, look

_AT_ONCE = 8


async def check(context: Context) -> AsyncIterator[Finding]:
    """Every webhook, several at a time."""
    if context.settings.offline:
        return
    turns = asyncio.Semaphore(_AT_ONCE)

    async def in_turn(position: int, webhook: Webhook) -> list[Finding]:
        async with turns:
            return [finding async for finding in look(context, _server(context, position, webhook))]

    entries = [
        (position, webhook)
        for position, webhook in enumerate(context.config.webhooks)
        if not context.is_damaged("webhooks", position, but="secret")
    ]
    for findings in await asyncio.gather(*(in_turn(*entry) for entry in entries)):
        for finding in findings:
            yield finding


def _server(context: Context, position: int, webhook: Webhook) -> Server:
    entry = ("webhooks", position)
    host, port, tls = url_place(webhook.url)
    options = msgspec.structs.replace(
        client_options(context, webhook.tls.ca, None, None), allow_private=webhook.allow_private
    )
    whose = f"the webhook `{webhook.name}`"
    ca_key = f"webhooks[{context.examined.original(entry)[1]}].tls.ca"
    return Server(whose, host, port, tls, context.where(*entry, "url"), options, ca_key)

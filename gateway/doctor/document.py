"""The document and its references."""

import logging
from collections.abc import AsyncIterator

from config.references import Reference
from gateway.doctor.context import Context
from gateway.doctor.draft import references, texts
from gateway.doctor.report import Finding, Where, fault, fine, split_mend, warning

_OTHERWISE = "change it there; docs/configuration.md and config.example.yaml tell what may stand there"
_NO_FILE = "put the file there, or correct its name"


async def check_document(context: Context) -> AsyncIterator[Finding]:
    """What `./sluice check` tells."""
    examined = context.examined
    for each in examined.faults:
        otherwise = _NO_FILE if "no such file" in each.message.lower() else _OTHERWISE
        yield fault(Where.of(each), *split_mend(each.message, otherwise))
    for notice in examined.notices():
        yield warning(Where.of(notice), notice.message, "")
    if examined.generation is None:
        what = "nothing that depends on the document could be looked at"
        yield warning(Where(file=str(examined.path)), what, "mend what is told above, and ask again")
    elif not examined.faults:
        yield fine(f"{examined.path} loads (revision {examined.generation.revision[:12]})")
    else:
        yield fine(f"{examined.path} was looked at without what is told above")
    if context.settings.offline:
        yield fine("what needs a network was left out")


async def check_references(context: Context) -> AsyncIterator[Finding]:
    """Values that are not those that were meant; missing ones are faults of the document."""
    count = 0
    for path, text, secret in texts(context.examined.value):
        if context.examined.is_damaged(path):
            continue
        for reference in references(text):
            count += 1
            if secret and reference.default and not _has_value(context, reference):
                yield warning(
                    context.where_written(path),
                    f"`{reference.label}` has no value: its default is in use as a secret",
                    "set it, or leave the default out, so that a missing value is told as a fault",
                )
    generation = context.generation
    if generation is not None and generation.loaded.vault is not None:
        generation.loaded.vault.follow(generation.loaded.vault_references)
        for stale in generation.loaded.vault.stale():
            yield warning(
                _where_used(context, stale.reference),
                f"`{stale.reference}` could not be read again ({stale.reason}): a former value or its default is in use",
                "mend what is told of Vault; the gateway reads it again by itself",
            )
    if count:
        yield fine(f"references that lead somewhere: {count}")


def _has_value(context: Context, reference: Reference) -> bool:
    if reference.scheme == "env":
        return bool(context.env.get(reference.parts["name"]))
    if reference.scheme == "file":
        path = context.directory / reference.parts["path"]
        return path in context.resources.secrets.files and bool(context.resources.secrets.files.value(path))
    # Of Vault's it is told whether they are stale, and a sealed value is there or is a fault.
    return True


def _where_used(context: Context, label: str) -> Where:
    for path, text, _ in texts(context.examined.value):
        if any(reference.label == label for reference in references(text)):
            return context.where_written(path)
    return Where()


def quiet_log() -> None:
    """What the log would say here is among the findings."""
    logging.getLogger("sluice").setLevel(logging.CRITICAL)

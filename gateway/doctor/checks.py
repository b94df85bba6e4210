"""The checks, one after the other."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from config.environment import environment
from config.faults import ConfigFaults
from core.tasks import Tasks
from gateway.doctor import (
    clock,
    credentials,
    document,
    files,
    limits,
    listening,
    providers,
    public,
    redis,
    storage,
    vault,
    webhooks,
)
from gateway.doctor.context import Check, Context, Settings
from gateway.doctor.examine import examine
from gateway.doctor.report import Finding, Report, Where, fault, split_mend
from gateway.resources import Resources
from gateway.serve import run
from transport.dialing import Dialer

CHECKS: tuple[Check, ...] = (
    document.check_document,
    document.check_references,
    files.check_modes,
    files.check_directory,
    limits.check,
    storage.check_places,
    storage.check_database,
    redis.check,
    vault.check,
    credentials.check,
    providers.check,
    webhooks.check,
    listening.check_certificate,
    listening.check_addresses,
    listening.check_openness,
    public.check,
    # Last: it judges what the others have heard.
    clock.check,
)


def run_checks(path: Path, env_file: Path | None, *, offline: bool, token_env: str | None) -> Report:
    """Everything that there is to find about the document at ``path``."""
    document.quiet_log()
    first: list[Finding] = []
    try:
        env = environment(env_file)
    except ConfigFaults as refused:
        # The rest may well do without it.
        env = environment()
        first = [
            fault(Where.of(each), *split_mend(each.message, "write `NAME=VALUE` lines, in a file that can be read"))
            for each in refused.faults
        ]
    return run(_report(path, Settings(env_file, offline, token_env), env, first))


async def _report(path: Path, settings: Settings, env: Mapping[str, str], first: list[Finding]) -> Report:
    resources = Resources(env, writes=False)
    tasks = Tasks()
    try:
        # In a thread: it waits for files, and for Vault.
        examined = await asyncio.to_thread(examine, path, resources, offline=settings.offline)
        if examined.generation is not None:
            resources.follow(examined.generation.loaded)
        context = Context(settings, resources, Dialer(tasks), examined)
        findings = [*first, *[finding async for finding in findings_of(context)]]
        return Report.of(findings)
    finally:
        await tasks.cancel()
        await resources.close()


async def findings_of(context: Context) -> AsyncIterator[Finding]:
    """Those of every check; one that breaks ends no other."""
    for check in CHECKS:
        try:
            async for finding in check(context):
                yield finding
        except Exception as error:
            # Its words may hold anything.
            area = check.__module__.rpartition(".")[2]
            yield fault(
                Where(),
                f"the check of {area} broke ({type(error).__name__})",
                "this is a fault of the doctor, or of the document in a way that it does not know: mend the others first",
            )

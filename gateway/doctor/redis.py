"""Redis, which counts what limits count: whether it answers, and can be relied on. Nothing is changed in it."""

from collections.abc import AsyncIterator, Iterator, Mapping

from access.quotas.outage import Reason
from gateway.doctor.context import SECONDS, Context
from gateway.doctor.report import Finding, Where, fault, fine, warning

_OLDEST = 5
_MENDS = {
    Reason.UNREACHABLE: "start it, or name another in `redis.url`",
    Reason.SLOW: "find out what holds it up, or name another in `redis.url`",
    Reason.DENIED: "put a user and a password that it knows into `redis.url`",
}


async def check(context: Context) -> AsyncIterator[Finding]:
    """Where the document names one."""
    url = context.config.redis.url
    if url is None or context.settings.offline or context.is_damaged("redis", "url"):
        return
    from access.quotas.channel import Channel, ChannelFailed  # noqa: PLC0415  its client is large

    where = context.where("redis", "url")
    # A person waits: `redis.timeout_seconds` is for requests.
    channel = Channel(url.reveal, SECONDS.connect_seconds or 0)
    try:
        told = await channel.look()
    except ChannelFailed as error:
        yield fault(where, f"Redis cannot be used ({error})", _MENDS.get(error.reason, "see its log"))
        return
    finally:
        await channel.close()
    for finding in judge(told, where):
        yield finding


def judge(told: Mapping[str, str], where: Where) -> Iterator[Finding]:
    """``told``: what the server says of itself."""
    version = told.get("redis_version", "")
    name = f"Redis {version}".rstrip()
    yield fine(f"{name} answers", where)
    major = version.partition(".")[0]
    if major.isdecimal() and int(major) < _OLDEST:
        yield fault(where, f"{name} is too old", f"use version {_OLDEST} or later")
    if told.get("role") == "slave":
        yield fault(where, f"{name} is a replica: nothing can be counted there", "name its primary in `redis.url`")
    policy = told.get("maxmemory_policy", "noeviction")
    if policy != "noeviction" and told.get("maxmemory", "0") != "0":
        yield warning(
            where,
            f"{name} forgets counters as its memory gets full (`maxmemory-policy {policy}`): more is admitted then",
            "set `maxmemory-policy noeviction`",
        )

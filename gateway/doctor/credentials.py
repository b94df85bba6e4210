"""Accounts that have signed in to providers: whether they can be read, and which need a person. Nothing is refreshed."""

from collections.abc import AsyncIterator

from credentials.errors import StoreFault
from credentials.records import AccountRecord, AccountStore
from credentials.stores.build import open_store
from gateway.doctor.context import Context
from gateway.doctor.report import Finding, Where, fault, fine, split_mend, warning
from gateway.stores import address_of
from storage.address import SqliteFile
from storage.errors import StorageUnavailable

_SEE = "see `GET /api/v1/credentials`"


async def check(context: Context) -> AsyncIterator[Finding]:
    """Where the document says that accounts sign in."""
    oauth = context.config.oauth
    if context.generation is None or not oauth.providers or oauth.store == "memory":
        return
    if context.is_damaged("oauth", "store") or not await _is_there(context):
        return
    where = context.where("oauth", "store")
    store: AccountStore | None = None
    try:
        store = await open_store(
            oauth.store,
            clock=context.resources.clock,
            directory=context.directory / context.config.secrets.directory / oauth.directory,
            redis=context.config.redis,
            cells=context.resources.stores.account_cells,
        )
        listing = await store.all()
    except StoreFault as error:
        yield fault(where, *split_mend(str(error), "see its log"))
        return
    finally:
        if store is not None:
            await store.close()
    for damaged in listing.damaged:
        yield _unread(where, damaged.message)
    good = 0
    for record in listing.records:
        findings = [finding async for finding in _account(context, record, where)]
        good += not findings
        for finding in findings:
            yield finding
    accounts = "1 account that has" if good == 1 else f"{good} accounts that have"
    yield fine(f"{accounts} signed in can be used ({oauth.store})", where)


async def _is_there(context: Context) -> bool:
    """Whether there is anything to read that may be looked at: none is made, and no schema is changed."""
    config, offline = context.config, context.settings.offline
    if config.oauth.store == "redis":
        return config.redis.url is not None and not offline and not context.is_damaged("redis", "url")
    if config.oauth.store == "file":
        return True
    if context.is_damaged("storage", "url"):
        return False
    address = address_of(config, context.directory)
    if not isinstance(address, SqliteFile):
        if offline:
            return False
    elif not address.path.exists():
        return False
    from storage.look import look  # noqa: PLC0415  large: SQLAlchemy, for a database that is there

    try:
        return (await look(address)).newest
    except StorageUnavailable:
        return False  # the check of the database tells


async def _account(context: Context, record: AccountRecord, where: Where) -> AsyncIterator[Finding]:
    called = f"the account `{record.provider}/{record.name}`"
    try:
        await context.resources.credentials.sealer.open_tokens(record)
    except StoreFault as error:
        yield _unread(where, str(error))
    if all(provider.name != record.provider for provider in context.config.providers):
        yield warning(
            where,
            f"{called} is of no provider that the configuration has",
            f"declare the provider again, or delete the account: {_SEE}",
        )
    elif record.needs_login is not None:
        yield fault(
            where,
            f"{called} needs a login, and serves no more once its token has ended: {record.needs_login}",
            f"sign in again: `./sluice login {record.provider} --name {record.name}`",
        )


def _unread(where: Where, message: str) -> Finding:
    what, _, mend = message.rpartition(": ")
    return fault(where, what or message, mend if what else "sign in again")

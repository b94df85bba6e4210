"""The database, and the places on the disk where what is stored goes: looked at, nothing is made or changed."""

import os
import re
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from gateway.doctor.context import Context
from gateway.doctor.files import nearest, user_name
from gateway.doctor.report import Finding, Where, fault, fine, warning
from gateway.stores import SPOOL, address_of
from storage.address import Address, SqliteFile
from storage.errors import StorageUnavailable

_LEAST_FREE_BYTES = 100_000_000
_MOST_ENTRIES = 10_000
"""An audit of so many is followed in a second."""
_KEY = ("storage", "url")
_DAMAGED = "*.damaged"


async def check_places(context: Context) -> AsyncIterator[Finding]:
    """What must be writable, and have room."""
    if context.generation is None:
        return
    places: list[Path] = []
    address = _address(context)
    if isinstance(address, SqliteFile):
        where = context.where(*_KEY)
        yield judge_file(address.path, where)
        places.append(nearest(address.path.parent))
    if not context.is_damaged("secrets", "directory"):
        spool = context.directory / context.config.secrets.directory / SPOOL
        where = context.where("secrets", "directory")
        if nearest(spool) not in places:
            places.append(nearest(spool))
            if (why := _unfit(spool / "any")) is not None:
                yield warning(
                    where,
                    f"{why}: while the database does not answer, nothing can be changed by the API, as the audit has no "
                    "place to wait in",
                    _mend(spool / "any", "secrets.directory"),
                )
        for finding in judge_spool(spool, where):
            yield finding
    by_disk = {place.stat().st_dev: place for place in reversed(places)}
    for finding in judge_room({place: shutil.disk_usage(place).free for place in by_disk.values()}):
        yield finding


async def check_database(context: Context) -> AsyncIterator[Finding]:
    """Whether it answers, what schema it has, and whether its audit is whole."""
    address = _address(context)
    if address is None or (context.settings.offline and not isinstance(address, SqliteFile)):
        return
    if isinstance(address, SqliteFile) and (not address.path.exists() or _unfit(address.path) is not None):
        return
    where = context.where(*_KEY)
    try:
        async for finding in _look(context, address, where):
            yield finding
    except StorageUnavailable as error:
        yield fault(where, *split(str(error), address.shown))


def judge_file(path: Path, where: Where) -> Finding:
    """A database in a file."""
    why = _unfit(path)
    if why is not None:
        return fault(where, why, _mend(path, "storage.url"))
    if not path.exists():
        return fine(f"there is no database {path} yet: the first write makes it", where)
    return fine(f"the database {path} can be written to", where)


def judge_spool(spool: Path, where: Where) -> Iterator[Finding]:
    """What is left in it for a person to see."""
    for path in sorted(spool.glob(_DAMAGED)):
        yield warning(
            where,
            f"{path} has entries of the audit, one of which is damaged and was left out",
            "see what it was, keep it with the audit, and take the file away",
        )


def judge_room(free: dict[Path, int]) -> Iterator[Finding]:
    """``free``: bytes, by directory."""
    for place, count in free.items():
        if count < _LEAST_FREE_BYTES:
            yield warning(
                Where(),
                f"the disk of {place} has {count // 1_000_000} MB left",
                "free some: without room nothing can be changed by the API",
            )


def split(message: str, shown: str) -> tuple[str, str]:
    """What a :class:`StorageUnavailable` says of the database ``shown``, and the mend that is in it."""
    what, _, mend = message.removeprefix(f"the database {shown} ").partition(": ")
    # Behind the mend stand the words of the system, in parentheses.
    cause = re.fullmatch(r"(.*?) (\(.*\))", mend)
    if cause is not None:
        what, mend = f"{what} {cause[2]}", cause[1]
    return f"the database {shown} {what}", mend or "see its log"


async def _look(context: Context, address: Address, where: Where) -> AsyncIterator[Finding]:
    from storage.look import look  # noqa: PLC0415  large: SQLAlchemy, for a database that is there

    seen = await look(address)
    if seen.revision is None:
        yield fine(f"the database {address.shown} answers, and is empty: the first use makes its tables", where)
    elif seen.newest:
        yield fine(f"the database {address.shown} answers, and has the schema {seen.revision}", where)
    else:
        what = f"the database {address.shown} has the schema {seen.revision}: the next use brings it to the present one"
        yield fine(what, where)
    if not seen.writable:
        yield fault(
            where,
            f"nothing can be written to the database {address.shown}: it is a standby, or its user lacks rights",
            "name the primary in `storage.url`, or have the user own the database's schema and tables "
            "(`GRANT CREATE ON SCHEMA public TO …`, `GRANT ALL ON ALL TABLES IN SCHEMA public TO …`)",
        )
    if seen.audit_entries > _MOST_ENTRIES:
        yield fine(f"the audit has {seen.audit_entries} entries: `./sluice audit verify` follows its chain")
    elif seen.audit_entries:
        async for finding in _verify(context, address, where):
            yield finding


async def _verify(context: Context, address: Address, where: Where) -> AsyncIterator[Finding]:
    from storage.audit import AuditStore  # noqa: PLC0415  as above
    from storage.database import Database  # noqa: PLC0415  as above

    database = Database(address, context.resources.clock)
    try:
        found = await AuditStore(database).verify()
    finally:
        await database.close()
    if found.broken is None:
        yield fine(f"the chain of the audit is whole: its head is {found.head}")
        return
    yield fault(
        where,
        f"the chain of the audit is broken: {found.broken}",
        "find out who may write to the database; keep a copy of it, and restore a backup whose audit is whole "
        "(`./sluice audit verify`)",
    )


def _address(context: Context) -> Address | None:
    if context.generation is None or context.is_damaged(*_KEY):
        return None
    return address_of(context.config, context.directory)


def _unfit(path: Path) -> str | None:
    """Why the file ``path`` cannot be made, or be read and written to; None where it can."""
    place = nearest(path.parent)
    if not place.is_dir():
        return f"{place} is no directory"
    # Beside the file of a database others come and go.
    if not os.access(place, os.W_OK | os.X_OK):
        return f"nothing can be written to {place}"
    if path.exists() and not path.is_dir() and not os.access(path, os.R_OK | os.W_OK):
        return f"{path} cannot be read and written to"
    return None


def _mend(path: Path, key: str) -> str:
    place = nearest(path.parent)
    if not place.is_dir():
        return f"name another place in `{key}`, or remove that file"
    user = user_name(os.geteuid())
    named = f"{place} {path}" if path.is_file() else f"{place}"
    return f"`chown {user} {named}` (whoever runs the gateway), or name another place in `{key}`"

"""`./sluice migrate`, `export`, `import` and `audit verify`: the database by hand, be a gateway running on it or not."""

import argparse
import asyncio
import contextlib
import os
import re
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from config.durable import sync_directory
from config.load import LoadedConfig, load
from core.clock import SystemClock
from gateway.resources import Resources
from gateway.stores import SPOOL, address_of
from storage.address import Address, SqliteFile
from storage.errors import StorageError

OK, FAULTY = 0, 1
_HASH = re.compile(r"[0-9a-fA-F]{64}")

AddCommand = Callable[[str, str], argparse.ArgumentParser]


def add_storage_commands(command: AddCommand) -> None:
    """The commands' arguments; ``command`` makes a parser from a name and a text."""
    command("migrate", "make the database that storage.url names, or bring it to this version's schema")
    exporting = command("export", "write all that the database holds as JSON lines")
    exporting.add_argument("file", nargs="?", metavar="FILE", help="for the owner's eyes alone; none: standard output")
    exporting.add_argument("--with-usage", action="store_true", help="the ledger of requests too, which may be large")
    importing = command("import", "put what was exported into an empty database")
    importing.add_argument("file", metavar="FILE", help="- is the standard input")
    importing.add_argument(
        "--accept-broken-audit", action="store_true", help="take an audit as it is whose chain of hashes is broken"
    )
    auditing = command("audit", "follow the audit's chain of hashes; exit status 1 where it is broken")
    auditing.add_argument("what", choices=["verify"])
    auditing.add_argument("--head", type=_hash, metavar="HASH", help="of an entry that must be there, from the log")


def storage_command(options: argparse.Namespace, path: Path, env: Mapping[str, str]) -> int:
    """Run one of them; the exit status.

    Raises:
        ConfigFaults: the configuration cannot be read.
        StorageError: why it cannot be done.
    """
    return asyncio.run(_run(options, path, env))


async def _run(options: argparse.Namespace, path: Path, env: Mapping[str, str]) -> int:
    resources = Resources(env, writes=False)
    try:
        loaded = await asyncio.get_running_loop().run_in_executor(None, load, path, env, resources.secrets)
        address = address_of(loaded.config, loaded.sources.root.parent)
    finally:
        await resources.close()
    match options.command:
        case "migrate":
            return await _migrate(address)
        case "export":
            _tell_what_waits(loaded)
            return await _export(address, options.file, with_usage=options.with_usage)
        case "import":
            return await _import(address, options.file, accept_broken_audit=options.accept_broken_audit)
        case _:
            _tell_what_waits(loaded)
            return await _verify(address, options.head)


async def _migrate(address: Address) -> int:
    from storage.database import migrate  # noqa: PLC0415  large, and the other commands of ./sluice need none of it

    done = await migrate(address, SystemClock())
    if done.before == done.after:
        print(f"the database {address.shown} has the schema {done.after} already")
    else:
        print(f"the database {address.shown} has been brought from the schema {done.before or 'none'} to {done.after}")
    return OK


async def _export(address: Address, file: str | None, *, with_usage: bool) -> int:
    from storage.database import Database  # noqa: PLC0415  as above
    from storage.transfer import export_all  # noqa: PLC0415  as above

    if not _is_there(address):
        raise StorageError(f"there is no database {address.shown}: nothing was stored yet")
    database = Database(address, SystemClock())
    try:
        if file is None:
            rows = await export_all(database, sys.stdout.buffer.write, with_usage=with_usage)
            sys.stdout.buffer.flush()
        else:
            with _replaced(Path(file)) as writing:
                rows = await export_all(database, writing.write, with_usage=with_usage)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise StorageError(f"{file or 'standard output'} cannot be written: {error.strerror}") from None
    finally:
        await database.close()
    left_out = "" if with_usage else "; without the ledger of requests (--with-usage)"
    print(f"exported: {_listed(rows)}{left_out}", file=sys.stderr)
    return OK


async def _import(address: Address, file: str, *, accept_broken_audit: bool) -> int:
    from storage.database import Database  # noqa: PLC0415  as above
    from storage.transfer import import_all  # noqa: PLC0415  as above

    database = Database(address, SystemClock())
    try:
        with contextlib.ExitStack() as opened:
            lines = sys.stdin.buffer if file == "-" else opened.enter_context(_opened(file))
            rows = await import_all(database, lines, accept_broken_audit=accept_broken_audit)
    finally:
        await database.close()
    print(f"imported into {address.shown}: {_listed(rows)}")
    return OK


async def _verify(address: Address, head: bytes | None) -> int:
    from storage.audit import AuditStore  # noqa: PLC0415  as above
    from storage.database import Database  # noqa: PLC0415  as above

    if not _is_there(address):
        print(f"there is no database {address.shown}, and so no audit")
        return OK if head is None else FAULTY
    database = Database(address, SystemClock())
    try:
        found = await AuditStore(database).verify(head)
    finally:
        await database.close()
    last = f"the head is {found.head}" if found.head is not None else "it has no entries"
    if found.broken is None:
        print(f"the audit is whole: {last}")
        return OK
    good = f"the last good entry is {found.head}" if found.head is not None else "there is no good entry before it"
    print(f"the audit is broken: {found.broken}; {good}")
    return FAULTY


def _is_there(address: Address) -> bool:
    # To look makes no file.
    return not isinstance(address, SqliteFile) or address.path.exists()


def _tell_what_waits(loaded: LoadedConfig) -> None:
    spool = loaded.sources.root.parent / loaded.config.secrets.directory / SPOOL
    with contextlib.suppress(OSError):
        if any(file.stat().st_size for file in spool.iterdir()):
            print(f"sluice: what waits in {spool} for the database is not in it yet", file=sys.stderr)


def _opened(file: str) -> BinaryIO:
    try:
        return Path(file).open("rb")
    except OSError as error:
        raise StorageError(f"{file} cannot be read: {error.strerror}") from None


@contextlib.contextmanager
def _replaced(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of ``path`` once it is whole: nobody but its owner may read it, as there are hashes of
    tokens in it, and configurations."""
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
        sync_directory(path.parent)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def _listed(rows: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {table}" for table, count in rows.items())


def _hash(text: str) -> bytes:
    if not _HASH.fullmatch(text):
        raise argparse.ArgumentTypeError("write the 64 digits of the hash, as the log tells it after the number")
    return bytes.fromhex(text)

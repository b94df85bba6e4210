"""Files: who may write what is believed, and who may read what is secret."""

import grp
import os
import pwd
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from config.master_key import OWN_FILE, VARIABLE
from config.schema import ClientTls
from gateway.doctor.context import Context
from gateway.doctor.draft import references, texts
from gateway.doctor.report import Finding, Where, fault, fine, warning


class Kept(msgspec.Struct, frozen=True):
    """A file, and what is in it."""

    path: Path
    what: str
    where: Where
    secret: bool = False
    """Whether it is secret as a whole."""
    holds_secrets: bool = False
    """Whether there are secrets in it among other things."""


async def check_modes(context: Context) -> AsyncIterator[Finding]:
    """Every file that the document is made of or names, once."""
    named = [*_documents(context), *_secret_files(context), *_keys(context)]
    files = {kept.path: kept for kept in named if kept.path.is_file()}
    findings = [finding for kept in files.values() for finding in judge(kept)]
    for finding in findings:
        yield finding
    if not findings:
        yield fine(f"only those who should may write or read {len(files)} file{'' if len(files) == 1 else 's'}")


async def check_directory(context: Context) -> AsyncIterator[Finding]:
    """`secrets.directory`, where something is to be written there."""
    settings = context.config.secrets
    if not settings.persist or context.is_damaged("secrets", "directory"):
        return
    directory = context.directory / settings.directory
    existing = nearest(directory)
    where = context.where("secrets", "directory")
    if not existing.is_dir():
        yield fault(where, f"{existing} is no directory", "name another in `secrets.directory`, or remove that file")
    elif not os.access(existing, os.W_OK | os.X_OK):
        yield fault(
            where,
            f"nothing can be written to {directory}, where the values of Vault are to be kept",
            f"`chown {user_name(os.geteuid())} {existing}`, or name another in `secrets.directory`",
        )
    else:
        yield fine(f"{directory} can be written to", where)


def nearest(path: Path) -> Path:
    """What there is of ``path``: itself, or the nearest above it."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def judge(kept: Kept) -> list[Finding]:
    """What the mode of a file allows, and should not. A file that is not there is told elsewhere."""
    try:
        state = kept.path.stat()
    except (OSError, ValueError):
        return []
    if not stat.S_ISREG(state.st_mode):
        return []
    findings = []
    mode, path = stat.S_IMODE(state.st_mode), kept.path
    others_write = mode & stat.S_IWOTH
    if others_write or (mode & stat.S_IWGRP and not _is_private_group(state)):
        who = "everybody" if others_write else f"the group {group_name(state.st_gid)}"
        findings.append(
            fault(kept.where, f"{who} may write {kept.what} {path} (mode {mode:04o})", f"`chmod go-w {path}`")
        )
    if mode & stat.S_IROTH and kept.secret:
        mend = f"`chmod o-rwx {path}` (of a Kubernetes secret: `defaultMode: 0440`)"
        findings.append(fault(kept.where, f"everybody may read {kept.what} {path} (mode {mode:04o})", mend))
    elif mode & stat.S_IROTH and kept.holds_secrets:
        mend = f"`chmod o-rwx {path}`, or put references in their place"
        what = f"everybody may read {path} (mode {mode:04o}), and there are secrets in it"
        findings.append(warning(kept.where, what, mend))
    return findings


def _documents(context: Context) -> list[Kept]:
    examined = context.examined
    # Which file a value is in, its place tells.
    literal = {
        context.where_written(path).file
        for path, text, secret in texts(examined.value)
        if secret and not text.startswith("$argon2") and not references(text)
    }
    return [
        Kept(path, "the configuration", Where(file=shown), holds_secrets=shown in literal)
        for shown, path in examined.files.items()
    ]


def _secret_files(context: Context) -> list[Kept]:
    found = []
    for path, text, secret in texts(context.examined.value):
        found += [
            Kept(
                context.directory / reference.parts["path"],
                "the secret file",
                context.where_written(path),
                secret=secret,
            )
            for reference in references(text)
            if reference.scheme == "file"
        ]
    if context.settings.env_file is not None:
        file = context.settings.env_file
        found.append(Kept(file.absolute(), "the environment file", Where(file=str(file)), secret=True))
    # A file of an ordinary field must not hide that another field takes it for a secret.
    return sorted(found, key=lambda kept: kept.secret)


def _keys(context: Context) -> list[Kept]:
    config = context.config
    found = []

    def key(name: str | None, *path: str | int) -> None:
        if name is not None:
            found.append(Kept(context.directory / name, "the key", context.where(*path), secret=True))

    def of_client(tls: ClientTls, *path: str | int) -> None:
        if tls.key is not None:
            key(tls.key, *path, "key")
        else:
            key(tls.cert, *path, "cert")

    if config.server.tls is not None:
        key(config.server.tls.key, "server", "tls", "key")
    for position, provider in enumerate(config.providers):
        of_client(provider.tls, "providers", position, "tls")
    secrets = config.secrets
    if secrets.vault is not None:
        of_client(secrets.vault.tls, "secrets", "vault", "tls")
    if not context.env.get(VARIABLE):
        # Wrapped by Transit it opens nothing by itself.
        if secrets.master_key.file is not None and secrets.master_key.transit is None:
            key(secrets.master_key.file, "secrets", "master_key", "file")
        elif secrets.master_key.file is None:
            key(f"{secrets.directory}/{OWN_FILE}", "secrets", "directory")
    return found


def _is_private_group(state: os.stat_result) -> bool:
    """Whether nobody but the owner is in the file's group, as many systems make one for each user."""
    try:
        group = grp.getgrgid(state.st_gid)
    except KeyError:
        return False
    owner = user_name(state.st_uid)
    return group.gr_name == owner and set(group.gr_mem) <= {owner}


def user_name(uid: int) -> str:
    """The name of a user; the number where there is none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def group_name(gid: int) -> str:
    """The name of a group; the number where there is none."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)

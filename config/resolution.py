"""The references of a document, resolved in the order in which they need each other.

Vault is signed in to with secrets of the document itself, and may wrap the key of its sealed values. So the keys come
first, then what signs in to Vault, and then all the rest.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path as FilePath

import msgspec

from config.document import Value
from config.faults import Fault
from config.json_schema import shape
from config.master_key import MasterKeyFault, SealedResolver, Wrapper, read_key_ring
from config.references import (
    EnvironmentResolver,
    FileResolver,
    Reference,
    ReferenceFault,
    References,
    Resolver,
    parse_template,
)
from config.schema import Secrets
from config.sealing import KeyRing
from config.secret_stores import SecretStores
from config.substitute import Substituted, substitute, typed
from config.vault.settings import VaultSettings
from config.vault.values import VaultValues


class Resolution(msgspec.Struct):
    """What :func:`resolve` gives."""

    substituted: Substituted
    files: frozenset[FilePath]
    """Targets of `${file:…}`."""
    interpolated_files: frozenset[FilePath]
    """Those of them that stand in ordinary fields."""
    vault: VaultValues | None
    vault_references: tuple[Reference, ...]


def resolve(
    document: dict[str, Value], env: Mapping[str, str], stores: SecretStores, directory: FilePath
) -> Resolution:
    """Put values in the place of references; what is wrong with any of them is among the faults.

    Args:
        env: where `${env:…}` is read from.
        directory: of the root file, where relative paths begin.
    """
    files = FileResolver(stores.files, directory)
    resolvers: dict[str, Resolver] = {"env": EnvironmentResolver(env), "file": files}
    own = document.get("secrets")
    without_vault = {key: value for key, value in own.items() if key != "vault"} if isinstance(own, dict) else {}
    rest = {key: value for key, value in document.items() if key != "secrets"}

    settings = _typed(_section(without_vault, resolvers)) or Secrets()
    read_keys = partial(read_key_ring, settings.master_key, env, directory, settings.directory)
    resolvers["sealed"] = SealedResolver(_once(lambda: read_keys(None, make=False)))
    section = _section(own, resolvers) if own is not None else None
    own_settings = _typed(section) if section is not None else None
    vault: VaultValues | None = None
    session: Callable[[], Wrapper] | None = None
    if section is not None and own_settings is not None and own_settings.vault is not None:
        keys = None
        if own_settings.persist:
            try:
                keys = read_keys(None, make=stores.writes)
            except MasterKeyFault as error:
                section.faults.append(Fault(("secrets", "persist"), str(error)))
        vault = stores.vault(VaultSettings(own_settings.vault, directory), keys, directory / own_settings.directory)
        session = partial(stores.unwrapping.by, vault.signed_in)

    asked = tuple({each.label: each for each in _vault_references(rest)}.values())
    if vault is not None:
        vault.fetch(asked)
    resolvers["vault"] = vault.resolve if vault is not None else _no_vault
    resolvers["sealed"] = SealedResolver(_once(lambda: read_keys(session, make=False)))
    whole = substitute(rest, shape(), References(resolvers))
    return Resolution(
        _joined(document, section, whole),
        frozenset(files.used),
        frozenset(files.path(each) for each in whole.interpolated if each.scheme == "file"),
        vault,
        asked,
    )


def _once(read: Callable[[], KeyRing | None]) -> Callable[[], KeyRing | None]:
    """``read``, asked once for all values of a document: a Vault that hangs is not waited for again and again."""
    outcome: list[KeyRing | MasterKeyFault | None] = []

    def given() -> KeyRing | None:
        if not outcome:
            try:
                outcome.append(read())
            except MasterKeyFault as fault:
                outcome.append(fault)
        if isinstance(outcome[0], MasterKeyFault):
            raise outcome[0].with_traceback(None)
        return outcome[0]

    return given


def _section(own: Value, resolvers: dict[str, Resolver]) -> Substituted:
    return substitute({"secrets": own}, shape(), References(dict(resolvers)))


def _typed(section: Substituted) -> Secrets | None:
    """None where something is wrong with it, which validation tells."""
    assert isinstance(section.value, dict)
    try:
        return typed(section.value["secrets"], Secrets)
    except msgspec.ValidationError:
        return None


def _no_vault(reference: Reference) -> Callable[[], str] | None:
    raise ReferenceFault(
        f"`{reference.label}` names a value in Vault, and `secrets.vault` does not say where that is: add its `address`"
    )


def _vault_references(value: Value) -> Iterator[Reference]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from _vault_references(inner)
    elif isinstance(value, str) and "${vault:" in value:
        try:
            template = parse_template(value)
        except ReferenceFault:
            return  # told where it stands
        yield from (piece for piece in template if isinstance(piece, Reference) and piece.scheme == "vault")


def _joined(document: dict[str, Value], section: Substituted | None, whole: Substituted) -> Substituted:
    if section is None:
        return whole
    assert isinstance(section.value, dict)
    assert isinstance(whole.value, dict)
    together = {**whole.value, **section.value}
    return Substituted(
        {key: together[key] for key in document},
        section.faults + whole.faults,
        section.notices + whole.notices,
        section.referenced | whole.referenced,
        section.interpolated + whole.interpolated,
    )

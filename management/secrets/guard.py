"""What the API may not do to the configuration, whichever way the edit comes: whole documents are compared.

Who may edit must not thereby learn or use secrets that only the operator knows. So, unlike who writes the file:

1. a secret stays with its destination (:mod:`management.secrets.destinations`): where requests of a provider go cannot
   change while a secret of it is kept;
2. references to secrets (`${env:…}`, …) may be added, moved or copied only as far as the operator allows;
3. a URL that is set leads into no private network (`allow_private: false` is written beside it), and what widens the
   API's own rights, runs a program, or says where secrets come from, is for the file alone.

Pure; a document that is wrong in itself is left to the loader to refuse.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping

import msgspec

from config.document import Value
from config.edit.edits import PutEntry
from config.edit.values import is_same
from config.faults import Fault, Path
from config.json_schema import shape
from config.references import Reference
from management.errors import ConfigError, ProviderError
from management.secrets.allowed_references import AllowedReferences, references_in
from management.secrets.compared import Entry, Found, GuardRefused, Pattern, at, by_place, pruned, standing
from management.secrets.destinations import (
    CREDENTIALS,
    OAUTH,
    PROVIDERS,
    kept_accounts,
    kept_secrets,
    lent_clients,
)
from management.secrets.secret_places import EACH, Place, Spot, spots, whole

_NONE: frozenset[Place] = frozenset()

_URLS: Mapping[str, tuple[Pattern, ...]] = {
    "providers": (
        ("base_url",),
        ("proxy_url",),
        ("credentials", EACH, "proxy_url"),
        ("credentials", EACH, "azure_entra", "authority"),
    ),
    "webhooks": (("url",),),
}
"""Which values of an entry the gateway connects to."""
_OAUTH_URLS = (
    "issuer",
    "authorization_endpoint",
    "token_endpoint",
    "device_authorization_endpoint",
    "revocation_endpoint",
    "proxy_url",
)
"""The same of an entry of `oauth.providers`, which has no `allow_private`."""

_FILES = tuple((*pattern, "tls", key) for pattern in (PROVIDERS, OAUTH) for key in ("cert", "key"))
"""Keys that name a file which the gateway proves with who it is: as good as a reference to it."""

_FILE_ONLY: tuple[tuple[tuple[str, ...], str], ...] = (
    (("server", "allow_private_targets"), "says how far the API itself may go"),
    (("management", "allowed_references"), "says how far the API itself may go"),
    (("transport", "proxy_url"), "the requests of all providers go there"),
    (("storage", "url"), "all that is stored goes there"),
    (("oauth", "store"), "says where accounts are kept"),
    (("oauth", "directory"), "says where accounts are kept"),
    (("secrets",), "says where secrets come from, and what they are asked for with"),
)
_ADMIN_KEY = ("management", "admin_key_hash")
_HARMLESS_SECRETS = ("cache_seconds", "timeout_seconds")
"""Keys of `secrets.vault` that change neither whom Vault's secrets are asked of nor what for."""


class Amendments(msgspec.Struct, frozen=True):
    """What the edit is not made without."""

    edits: tuple[PutEntry, ...] = ()
    """To be made after the edit itself, in the same step."""
    notices: tuple[str, ...] = ()
    """What they do, for the answer."""


def check_edit(
    before: Value,
    after: Value,
    allowed_references: Collection[str],
    allow_private_targets: bool,
    *,
    given: frozenset[Place] = _NONE,
    restoring: bool = False,
    accounts: Collection[tuple[str, str]] = (),
) -> Amendments:
    """See that the API may make ``after`` of ``before``; what has to be added to it is given back.

    Both are whole documents, included files and all, before references are resolved. Not to be asked where what was in
    force is put back by the gateway itself.

    Args:
        allowed_references: `management.allowed_references` of the configuration in force.
        allow_private_targets: `server.allow_private_targets` of the configuration in force.
        given: where exactly the caller has written the secret itself, so that it keeps none, and what it gave to be sealed.
        restoring: ``after`` was in force as a whole, so that its sealed values belong where they stand.
        accounts: of those that are kept, the provider and the entry of `oauth.providers`.

    Raises:
        GuardRefused: with all that is wrong, and the code of what was found first.
    """
    if not isinstance(before, dict) or not isinstance(after, dict):
        return Amendments()
    allowed = AllowedReferences(allowed_references)
    given -= _ambiguous(after)
    found = [
        *_commands(before, after),
        *kept_secrets(before, after, allowed, given),
        *kept_accounts(before, after, accounts),
        *lent_clients(before, after, allowed, given),
        *_new_references(before, after, allowed, given, restoring=restoring),
        *_file_only(before, after),
    ]
    edits: list[PutEntry] = []
    if not allow_private_targets:
        raised, edits = _private_targets(before, after, restoring=restoring)
        found += raised
    if found:
        code = found[0].code
        raise GuardRefused(code, [each.fault for each in found])
    return Amendments(
        tuple(edits),
        tuple(
            f"{edit.section}[{edit.key}]: `allow_private: false` was written beside its address, as the API has set it"
            for edit in edits
        ),
    )


def check_includes(before: Entry, after: Entry) -> None:
    """The same of `include` in a root document alone. To be asked before anything that it newly names is read: already
    what is wrong with a file tells of it, and a dry run shows it.

    Raises:
        GuardRefused: it names what it did not before.
    """
    found = list(_new_includes(before, after))
    if found:
        raise GuardRefused(found[0].code, [each.fault for each in found])


# 2. References are added as far as they are allowed.


def _new_references(
    before: Entry, after: Entry, allowed: AllowedReferences, given: frozenset[Place], *, restoring: bool
) -> Iterator[Found]:
    old: dict[Place, set[str]] = {}
    for spot in _spots(before):
        if isinstance(spot.value, str):
            old.setdefault(_use(spot.place), set()).add(spot.value)
    for spot in _spots(after):
        # The whole text: within it a reference could move from the password of an address to its host.
        if not isinstance(spot.value, str) or spot.value in old.get(_use(spot.place), ()):
            continue
        for reference in references_in(spot.value):
            is_ours = reference.scheme == "sealed" and (restoring or spot.exact_place in given)
            if not is_ours and not allowed.allows(reference):
                yield Found(ConfigError.REFERENCE_NOT_ALLOWED, Fault(spot.path, _not_allowed(reference)))
        if spot.ground.pattern in _FILES and not allowed.allows_file(spot.value):
            yield Found(ConfigError.REFERENCE_NOT_ALLOWED, Fault(spot.path, _FILE_NOT_ALLOWED))


def _use(place: Place) -> Place:
    """The present secret of a webhook may become a former one: both sign what goes to the same endpoint."""
    return (*place[:2], "secret") if place[:1] == ("webhooks",) and place[2:3] == ("former_secrets",) else place


def _ambiguous(document: Entry) -> frozenset[Place]:
    """Places that several values stand at, as entries of one name have them: what was given of one says nothing of the
    others."""
    seen = Counter(spot.exact_place for spot in _spots(document))
    return frozenset(place for place, count in seen.items() if count > 1)


def _spots(document: Entry) -> Iterator[Spot]:
    return spots(document, whole())


def _not_allowed(reference: Reference) -> str:
    if reference.scheme == "sealed":
        return f"`{reference.label}` stands elsewhere, or nowhere yet: give the secret itself, to have it sealed here"
    return (
        f"`{reference.label}` is not among the references that the API may add here: give the secret itself, edit the "
        "file, or add it to `management.allowed_references` there"
    )


_FILE_NOT_ALLOWED = (
    "names a file that the API may not: edit the file of the configuration, or add `file:PATH` to "
    "`management.allowed_references` there"
)


# 3. What is for the file alone.


def _commands(before: Entry, after: Entry) -> Iterator[Found]:
    old = by_place(before, CREDENTIALS)
    for path, place, entry in standing(after, CREDENTIALS):
        command = entry.get("command")
        if command is not None and not any(is_same(each.get("command"), command) for each in old.get(place, [])):
            yield Found(
                ProviderError.COMMAND_IN_FILE_ONLY,
                Fault((*path, "command"), "says which program the gateway runs: edit the file, the API may not"),
            )


def _file_only(before: Entry, after: Entry) -> Iterator[Found]:
    for path, reason in _FILE_ONLY:
        old, new = (_comparable(document, path) for document in (before, after))
        if not is_same(old, new):
            yield _only_in_file(path, reason)
    if pruned(at(before, _ADMIN_KEY)) and not pruned(at(after, _ADMIN_KEY)):
        yield _only_in_file(_ADMIN_KEY, "nobody could call the API any more without it")
    yield from _new_includes(before, after)


def _new_includes(before: Entry, after: Entry) -> Iterator[Found]:
    patterns = _texts(before.get("include"))
    for number, pattern in enumerate(_texts(after.get("include"))):
        if pattern not in patterns:
            yield _only_in_file(("include", number), "names a file that becomes part of what the API shows")


def _only_in_file(path: Path, reason: str) -> Found:
    return Found(ConfigError.FILE_ONLY, Fault(path, f"{reason}: edit the file, the API leaves it as it is"))


def _comparable(document: Entry, path: tuple[str, ...]) -> Value:
    value = at(document, path)
    if path == ("secrets",) and isinstance(value, dict) and isinstance(vault := value.get("vault"), dict):
        kept: Value = {key: inner for key, inner in vault.items() if key not in _HARMLESS_SECRETS}
        return pruned({**value, "vault": kept})
    # False and an empty list are the defaults of the others.
    return pruned(value) or None


def _texts(value: Value) -> list[Value]:
    return value if isinstance(value, list) else []


def _private_targets(before: Entry, after: Entry, *, restoring: bool) -> tuple[list[Found], list[PutEntry]]:
    found: list[Found] = []
    edits: list[PutEntry] = []
    for section, patterns in _URLS.items():
        items = shape().at(section).items
        if items is None or "allow_private" not in items.properties:
            continue
        old = by_place(before, (section, EACH))
        for path, place, entry in standing(after, (section, EACH)):
            if entry.get("allow_private") is False:
                continue
            formers = old.get(place, [])
            was_private = any(former.get("allow_private", True) is not False for former in formers)
            is_raised = entry.get("allow_private") is not None and not any(
                is_same(former.get("allow_private"), entry["allow_private"]) for former in formers
            )
            sets_url = any(_sets_url(formers, entry, pattern) for pattern in patterns)
            if is_raised and (sets_url or not was_private) and not restoring:
                found.append(_only_in_file((*path, "allow_private"), "lets its address lie in a private network"))
            elif sets_url or (formers and not was_private):
                name = str(entry["name"])
                edits.append(PutEntry(section, name, {**entry, "allow_private": False}, must_exist=True))
    if not restoring:
        old = by_place(before, OAUTH)
        found += [
            _only_in_file((*path, key), "may lead into a private network")
            for path, place, entry in standing(after, OAUTH)
            for key in _OAUTH_URLS
            if _sets_url(old.get(place, []), entry, (key,))
        ]
    return found, edits


def _sets_url(formers: list[Entry], entry: Entry, pattern: Pattern) -> bool:
    """Whether an address is set that none of the ``formers`` has at its place."""
    *way, key = pattern
    olds = [by_place(former, tuple(way)) for former in formers]
    return any(
        _leads_somewhere(each.entry.get(key))
        and not any(is_same(old.get(key), each.entry[key]) for found in olds for old in found.get(each.place, []))
        for each in standing(entry, tuple(way))
    )


def _leads_somewhere(url: Value) -> bool:
    return url is not None and url != "direct"

"""What the API may not do to the configuration, whichever way the edit comes: whole documents are compared.

Who may edit must not thereby learn or use secrets that only the operator knows. So, unlike who writes the file:

1. a secret stays with its destination: where requests of a provider go cannot change while a secret of it is kept;
2. references to secrets (`${env:…}`, …) may be added, moved or copied only as far as the operator allows;
3. a URL that is set leads into no private network (`allow_private: false` is written beside it), and what widens the
   API's own rights, or says where secrets come from, is for the file alone.

Pure; a document that is wrong in itself is left to the loader to refuse.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

import msgspec

from config.document import Value
from config.edit.edits import PutEntry, key_field
from config.edit.values import is_same
from config.faults import Fault, Path
from config.json_schema import shape
from config.references import Reference
from management.errors import ConfigError, ManagementCode, ProviderError
from management.secrets.allowed_references import AllowedReferences, references_in
from management.secrets.secret_places import Place, Spot, entry_ground, masked, render_place, spots, whole

Entry = dict[str, Value]

_NONE: frozenset[Place] = frozenset()

_DESTINATIONS: Mapping[str, tuple[str, ...]] = {
    "providers": ("type", "base_url", "proxy_url", "tls", "options"),
    # Its secret is not sent, it only signs. But what is signed for one endpoint is believed by another that knows the same
    # secret: whoever took the deliveries of a webhook to an endpoint of their own could pass them on to the former one,
    # hold them back or repeat them, and it would take them for ours. So each endpoint has a secret of its own; a new one is
    # made by the edit that moves the webhook (`{"action": "generate"}`).
    "webhooks": ("url", "tls"),
}
"""What says where the secrets of an entry go."""
_CODES: Mapping[str, ManagementCode] = {"providers": ProviderError.SECRET_REQUIRED}

_SENT = frozenset({"base_url", "options", "url"})
"""Ordinary keys of an entry that are sent too, so that a reference in them may be a secret."""

_HARMLESS_OPTIONS: Mapping[str, frozenset[str]] = {
    "openai": frozenset({"organization", "project"}),
    "echo": frozenset({"delay_seconds", "interval_seconds"}),
}
"""Options by type that say nothing of where requests go. What is not here counts as if it did."""

_URLS: Mapping[str, tuple[str, ...]] = {"providers": ("base_url", "proxy_url"), "webhooks": ("url",)}
"""Which keys of an entry the gateway connects to."""

_FILES = (("providers", "tls", "cert"), ("providers", "tls", "key"))
"""Keys that name a file which the gateway proves with who it is: as good as a reference to it."""

_FILE_ONLY: tuple[tuple[tuple[str, ...], str], ...] = (
    (("server", "allow_private_targets"), "says how far the API itself may go"),
    (("management", "allowed_references"), "says how far the API itself may go"),
    (("transport", "proxy_url"), "the requests of all providers go there"),
    (("storage", "url"), "all that is stored goes there"),
    (("secrets",), "says where secrets come from, and what they are asked for with"),
)
_ADMIN_KEY = ("management", "admin_key_hash")
_HARMLESS_SECRETS = ("cache_seconds", "timeout_seconds")
"""Keys of `secrets.vault` that change neither whom Vault's secrets are asked of nor what for."""


class GuardRefused(Exception):
    """The API may not make this edit; the file can be edited. ``faults`` is never empty and shows no value."""

    def __init__(self, code: ManagementCode, faults: Iterable[Fault]) -> None:
        self.code = code
        self.faults = tuple(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))


class Amendments(msgspec.Struct, frozen=True):
    """What the edit is not made without."""

    edits: tuple[PutEntry, ...] = ()
    """To be made after the edit itself, in the same step."""
    notices: tuple[str, ...] = ()
    """What they do, for the answer."""


class _Found(NamedTuple):
    code: ManagementCode
    fault: Fault


def check_edit(
    before: Value,
    after: Value,
    allowed_references: Collection[str],
    allow_private_targets: bool,
    *,
    given: frozenset[Place] = _NONE,
    restoring: bool = False,
) -> Amendments:
    """See that the API may make ``after`` of ``before``; what has to be added to it is given back.

    Both are whole documents, included files and all, before references are resolved. Not to be asked where what was in
    force is put back by the gateway itself.

    Args:
        allowed_references: `management.allowed_references` of the configuration in force.
        allow_private_targets: `server.allow_private_targets` of the configuration in force.
        given: where exactly the caller has written the secret itself, so that it keeps none, and what it gave to be sealed.
        restoring: ``after`` was in force as a whole, so that its sealed values belong where they stand.

    Raises:
        GuardRefused: with all that is wrong, and the code of what was found first.
    """
    if not isinstance(before, dict) or not isinstance(after, dict):
        return Amendments()
    allowed = AllowedReferences(allowed_references)
    given -= _ambiguous(after)
    found = [
        *_kept_secrets(before, after, allowed, given),
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


# 1. Secrets stay with their destination.


def _kept_secrets(before: Entry, after: Entry, allowed: AllowedReferences, given: frozenset[Place]) -> Iterator[_Found]:
    for section, keys in _DESTINATIONS.items():
        old = _named(before, section)
        for number, entry in _entries(after, section):
            name = entry.get(key_field(section))
            for former in old.get(str(name), []) if isinstance(name, str) else []:
                changed = [
                    key
                    for key in keys
                    if not is_same(_destination(before, former, key), _destination(after, entry, key))
                ]
                if not changed:
                    continue
                place: Place = (section, (key_field(section), str(name)))
                kept = sorted(
                    render_place(each.place[2:])
                    for each in _kept(former, entry, section, place, changed, after)
                    if not _was_given(each, allowed, given)
                )
                if kept:
                    yield _Found(
                        _CODES.get(section, ConfigError.SECRET_REQUIRED),
                        Fault((section, number, changed[0]), _secret_required(changed, kept)),
                    )


def _secret_required(changed: list[str], kept: list[str]) -> str:
    what = ", ".join(f"`{key}`" for key in changed)
    secrets = ", ".join(f"`{each}`" for each in kept)
    return (
        f"{what} would change while the secret of {secrets} is kept, which would then go elsewhere: give the secret "
        "anew in the same edit, or edit the file"
    )


def _destination(document: Entry, entry: Entry, key: str) -> Value:
    value = entry.get(key)
    if key == "proxy_url" and value is None:
        return _at(document, ("transport", "proxy_url"))
    if key == "options" and isinstance(value, dict):
        harmless = _HARMLESS_OPTIONS.get(str(entry.get("type")), frozenset())
        value = {name: inner for name, inner in value.items() if name not in harmless}
    return _pruned(value)


def _pruned(value: Value) -> Value:
    """Without what says nothing: null, and mappings with nothing in them."""
    if not isinstance(value, dict):
        return value
    inner = {key: _pruned(each) for key, each in value.items()}
    return {key: each for key, each in inner.items() if each is not None} or None


def _secrets(entry: Entry, section: str) -> list[Spot]:
    """What of an entry is not shown, or comes from elsewhere; places are those within it."""
    return [
        spot
        for spot in spots(entry, entry_ground(section))
        if spot.value not in (None, "")
        and (spot.ground.is_designated or spot.is_masked or (spot.place[0] in _SENT and references_in(spot.value)))
    ]


def _kept(former: Entry, entry: Entry, section: str, place: Place, changed: list[str], after: Entry) -> Iterator[Spot]:
    old = [spot.value for spot in _secrets(former, section)]
    for spot in _secrets(entry, section):
        if spot.place == ("proxy_url",) and not ("tls" in changed and _is_trusted_with_more(spot)):
            # Told to the proxy alone, which is part of the same text; by TLS, to who shows a certificate.
            continue
        if spot.value in old:
            yield Spot(spot.path, (*place, *spot.place), spot.value, spot.ground)
    inherited = _at(after, ("transport", "proxy_url"))
    if section == "providers" and "tls" in changed and entry.get("proxy_url") is None and isinstance(inherited, str):
        spot = Spot((), (*place, "proxy_url"), inherited, _PROXY_URL)
        if _is_trusted_with_more(spot):
            yield spot


def _is_trusted_with_more(spot: Spot) -> bool:
    """Whether the address of a proxy holds a user and password, or may."""
    return masked(spot.value, _URL) != spot.value or bool(references_in(spot.value))


_PROXY_URL = entry_ground("providers").under("proxy_url")
_URL = entry_ground("providers").under("base_url")


def _was_given(spot: Spot, allowed: AllowedReferences, given: frozenset[Place]) -> bool:
    """Whether the caller knows the secret, or may name it wherever it wants."""
    references = references_in(spot.value)
    is_written_out = spot.exact_place in given or bool(references and not spot.ground.is_designated)
    return is_written_out and all(allowed.allows(each) for each in references)


# 2. References are added as far as they are allowed.


def _new_references(
    before: Entry, after: Entry, allowed: AllowedReferences, given: frozenset[Place], *, restoring: bool
) -> Iterator[_Found]:
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
                yield _Found(ConfigError.REFERENCE_NOT_ALLOWED, Fault(spot.path, _not_allowed(reference)))
        if (spot.place[0], *spot.place[2:]) in _FILES and not allowed.allows_file(spot.value):
            yield _Found(ConfigError.REFERENCE_NOT_ALLOWED, Fault(spot.path, _FILE_NOT_ALLOWED))


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


def _file_only(before: Entry, after: Entry) -> Iterator[_Found]:
    for path, reason in _FILE_ONLY:
        old, new = (_comparable(document, path) for document in (before, after))
        if not is_same(old, new):
            yield _only_in_file(path, reason)
    if _pruned(_at(before, _ADMIN_KEY)) and not _pruned(_at(after, _ADMIN_KEY)):
        yield _only_in_file(_ADMIN_KEY, "nobody could call the API any more without it")
    yield from _new_includes(before, after)


def _new_includes(before: Entry, after: Entry) -> Iterator[_Found]:
    patterns = _texts(before.get("include"))
    for number, pattern in enumerate(_texts(after.get("include"))):
        if pattern not in patterns:
            yield _only_in_file(("include", number), "names a file that becomes part of what the API shows")


def _only_in_file(path: Path, reason: str) -> _Found:
    return _Found(ConfigError.FILE_ONLY, Fault(path, f"{reason}: edit the file, the API leaves it as it is"))


def _comparable(document: Entry, path: tuple[str, ...]) -> Value:
    value = _at(document, path)
    if path == ("secrets",) and isinstance(value, dict) and isinstance(vault := value.get("vault"), dict):
        kept: Value = {key: inner for key, inner in vault.items() if key not in _HARMLESS_SECRETS}
        return _pruned({**value, "vault": kept})
    # False and an empty list are the defaults of the others.
    return _pruned(value) or None


def _texts(value: Value) -> list[Value]:
    return value if isinstance(value, list) else []


def _private_targets(before: Entry, after: Entry, *, restoring: bool) -> tuple[list[_Found], list[PutEntry]]:
    found: list[_Found] = []
    edits: list[PutEntry] = []
    for section, keys in _URLS.items():
        items = shape().at(section).items
        if items is None or "allow_private" not in items.properties:
            continue
        old = _named(before, section)
        for number, entry in _entries(after, section):
            name = entry.get(key_field(section))
            if not isinstance(name, str) or entry.get("allow_private") is False:
                continue
            formers = old.get(name, [])
            was_private = any(former.get("allow_private", True) is not False for former in formers)
            is_raised = entry.get("allow_private") is not None and not any(
                is_same(former.get("allow_private"), entry["allow_private"]) for former in formers
            )
            sets_url = any(
                _leads_somewhere(entry.get(key))
                and not any(is_same(former.get(key), entry.get(key)) for former in formers)
                for key in keys
            )
            if is_raised and (sets_url or not was_private) and not restoring:
                found.append(
                    _only_in_file((section, number, "allow_private"), "lets its address lie in a private network")
                )
            elif sets_url or (formers and not was_private):
                edits.append(PutEntry(section, name, {**entry, "allow_private": False}, must_exist=True))
    return found, edits


def _leads_somewhere(url: Value) -> bool:
    return url is not None and url != "direct"


def _entries(document: Entry, section: str) -> Iterator[tuple[int, Entry]]:
    entries = document.get(section)
    for number, entry in enumerate(entries if isinstance(entries, list) else []):
        if isinstance(entry, dict):
            yield number, entry


def _named(document: Entry, section: str) -> dict[str, list[Entry]]:
    found: dict[str, list[Entry]] = {}
    for _, entry in _entries(document, section):
        name = entry.get(key_field(section))
        if isinstance(name, str):
            found.setdefault(name, []).append(entry)
    return found


def _at(document: Entry, path: tuple[str, ...]) -> Value:
    value: Value = document
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value

"""Entries of lists such as `providers` as JSON: what is told of their secrets, and how these are given.

Out: ``{"kind": "reference", "reference": "${env:NAME}"}``, ``{"kind": "sealed", "key_id": …}``, ``{"kind": "literal"}``.
In: ``{"action": "set", "value": …}``, ``{"action": "keep"}``, ``{"reference": "${…}"}``; as it was shown is kept as well.
"""

from typing import Any, Protocol, cast

import msgspec

from config.document import Value
from config.edit.edits import key_field
from config.faults import Fault, Path, did_you_mean
from config.references import Reference, ReferenceFault, parse_template
from config.scalars import Scalar
from management.secrets.kept_secrets import KeptSecret, KeptSecrets
from management.secrets.secret_places import (
    EACH,
    KEPT,
    Ground,
    Manner,
    Place,
    entry_ground,
    exact_place,
    masked,
    says_kept,
    shared_secrets,
    spots,
    step_of,
    whole,
)

Json = Any
"""What JSON is made of."""

FORMS = '`{"action": "set", "value": "…"}`, `{"action": "keep"}` or `{"reference": "${env:NAME}"}`'


class Sealer(Protocol):
    """Seals secrets with the master key."""

    def seal(self, text: str) -> str:
        """``${sealed:…}`` for ``text``. Waits for the disk, and perhaps for Vault: call it in a thread.

        Raises:
            CannotSeal: no master key can be had.
        """
        ...


class CannotSeal(Exception):
    """There is no master key, and none can be made; the message says why, and shows no secret."""


class BodyFaults(Exception):
    """What a caller has sent is no entry; ``faults`` have paths within it."""

    def __init__(self, faults: list[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(map(str, faults)))


class NothingToKeep(BodyFaults):
    """A secret is to be kept where there is none."""


class Translated(msgspec.Struct, frozen=True):
    """An entry as a document has it."""

    value: dict[str, Value]
    given: frozenset[Place]
    """Where the caller has given the secret anew (:func:`management.secrets.secret_places.exact_place`)."""


def shown(entry: dict[str, Value], section: str, shared: frozenset[int] = frozenset()) -> dict[str, Json]:
    """An entry of ``section``, as answers and the audit tell it.

    ``shared``: :func:`management.secrets.secret_places.shared_secrets` of its document.
    """
    return cast(dict[str, Json], _shown(entry, entry_ground(section), shared))


def shown_document(document: Value) -> Json:
    """A whole document, in the same way."""
    return _shown(document, whole(), shared_secrets(document))


def patch_to_document(given: dict[str, Json], present: Value, sealer: Sealer) -> Translated:
    """What a caller has ``given`` as a merge patch of the whole document ``present``. Raises as :func:`to_document` does."""
    return _read(_Reading((), whole(), present), given, sealer)


def to_document(section: str, key: str, given: dict[str, Json], present: Value, sealer: Sealer) -> Translated:
    """What a caller has ``given`` of the entry ``key``, or as a merge patch of it, as values of the document.

    ``present`` is the entry as it is, None where there is none. Types are left for the schema to check.

    Raises:
        BodyFaults: an unknown field, or a secret in another form than it is given in.
        NothingToKeep: as it says.
        CannotSeal: of ``sealer``.
    """
    place: Place = (section, (key_field(section), key))
    return _read(_Reading(place, entry_ground(section), present), given, sealer)


def _read(reading: "_Reading", given: dict[str, Json], sealer: Sealer) -> Translated:
    value = reading.read(given)
    if reading.faults:
        raise BodyFaults(reading.faults)
    if reading.missing:
        raise NothingToKeep(reading.missing)
    return Translated(cast(dict[str, Value], _sealed(value, sealer)), frozenset(reading.given))


def _shown(value: Value, ground: Ground, shared: frozenset[int]) -> Json:
    if isinstance(value, dict):
        return {_whole(key): _shown(inner, ground.under(key), shared) for key, inner in value.items()}
    if isinstance(value, list):
        return [_shown(inner, ground.entries, shared) for inner in value]
    if ground.manner(value) is Manner.SECRET and ground.is_designated:
        return _kind(value)
    found = masked(value, ground)
    if not isinstance(found, str):
        return found
    return KEPT if found == value and id(value) in shared else _whole(found)


def _whole(text: str) -> str:
    """YAML's escapes can write half a character, which JSON cannot."""
    return text if text.isascii() else text.encode(errors="replace").decode()


def _kind(value: Scalar) -> dict[str, str]:
    try:
        template = parse_template(value) if isinstance(value, str) else ()
    except ReferenceFault:
        template = ()
    match template:
        case (Reference(scheme="sealed", parts=parts),):
            return {"kind": "sealed", "key_id": parts["key_id"]}
        case (Reference() as reference,):
            # Without its default, which may be a secret.
            return {"kind": "reference", "reference": reference.label}
    return {"kind": "literal"}


class _ToSeal(msgspec.Struct):
    text: str

    def __repr__(self) -> str:
        return "_ToSeal()"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        # Else msgspec gives all fields to whatever renders tracebacks.
        return []


def _sealed(value: Json, sealer: Sealer) -> Json:
    if isinstance(value, dict):
        return {key: _sealed(inner, sealer) for key, inner in value.items()}
    if isinstance(value, list):
        return [_sealed(inner, sealer) for inner in value]
    return sealer.seal(value.text) if isinstance(value, _ToSeal) else value


class _Reading:
    """Reads an entry; collects what is wrong with it."""

    def __init__(self, place: Place, ground: Ground, present: Value) -> None:
        self._place = place
        self._ground = ground
        self._kept = KeptSecrets()
        self._present: dict[Place, list[Scalar]] = {}
        """Those of a list of secrets, which have no names, in their order."""
        for spot in spots(present, ground, (), place) if present is not None else ():
            self._present.setdefault(spot.place, []).append(spot.value)
            self._kept.add(spot.place, KeptSecret(masked(spot.value, spot.ground), spot.value, spot.path))
        self.faults: list[Fault] = []
        self.missing: list[Fault] = []
        self.given: set[Place] = set()

    def read(self, given: Json) -> Json:
        return self.value(given, self._ground, (), self._place)

    def value(self, given: Json, ground: Ground, path: Path, place: Place) -> Json:
        if ground.is_designated and isinstance(given, dict | str):
            return self._secret(given, ground, path, place, self._present.get(place, [None])[-1])
        if isinstance(given, dict):
            for key in given:
                if not ground.knows(key):
                    hint = did_you_mean(key[:64], ground.shape.properties)
                    self.faults.append(Fault((*path, key[:64]), f"there is no such field{hint}"))
            return {
                key: self.value(inner, ground.under(key), (*path, key), (*place, key))
                for key, inner in given.items()
                if ground.knows(key)
            }
        if isinstance(given, list):
            if ground.entries.is_designated:
                return self._secrets(given, ground.entries, path, (*place, EACH))
            return [
                self.value(inner, ground.entries, (*path, number), (*place, step_of(inner)))
                for number, inner in enumerate(given)
            ]
        if isinstance(given, str):
            if says_kept(given):
                return self._keep_text(given, path, place)
            if "${" not in given and masked(given, ground) != given:  # an address with a secret in it
                self._note_given(place, path)
        return given

    def _secrets(self, given: list[Json], ground: Ground, path: Path, place: Place) -> Json:
        """A list of secrets, which are told by their numbers: kept are those of a list that is as long as the present one."""
        present: list[Scalar] = self._present.get(place, [])
        found = present if len(present) == len(given) else [None] * len(given)
        return [
            self._secret(inner, ground, (*path, number), place, found[number])
            if isinstance(inner, dict | str)
            else self.value(inner, ground, (*path, number), place)
            for number, inner in enumerate(given)
        ]

    def _note_given(self, place: Place, path: Path) -> None:
        self.given.add(exact_place(place, path))

    def _secret(self, given: Json, ground: Ground, path: Path, place: Place, present: Scalar = None) -> Json:
        match given:
            case str() if not ground.is_secret or ground.manner(given) is Manner.SHOWN:
                if says_kept(given):
                    return self._keep_text(given, path, place)
                if "${" not in given:
                    self._note_given(place, path)
                return given
            case {"action": "set", "value": str() as text} if text and len(given) == 2:
                self._note_given(place, path)
                # Where the schema has no secret, nothing sealed can stand.
                return _ToSeal(text) if ground.is_secret else text.replace("${", "$${")
            case {"action": "keep"} if len(given) == 1:
                if present is None:
                    self.missing.append(Fault(path, f"there is no secret here to be kept: send {FORMS}"))
                return present
            case {"reference": str() as text} if len(given) == 1:
                return self._reference(text, path, place)
            case {"kind": _}:
                # Who reads an entry, changes some of it and sends it back keeps its secrets.
                if present is None or _kind(present) != given:
                    self.missing.append(Fault(path, f"no secret is shown so here, to be kept: send {FORMS}"))
                return present
        self.faults.append(Fault(path, f"is a secret: send {FORMS}"))
        return None

    def _reference(self, text: str, path: Path, place: Place) -> str:
        try:
            template = parse_template(text)
        except ReferenceFault as fault:
            self.faults.append(Fault(path, str(fault)))
            return text
        match template:
            case (Reference(scheme=scheme),):
                if scheme != "sealed":  # may come from anywhere
                    self._note_given(place, path)
            case _:
                self.faults.append(Fault(path, "`reference` takes one reference and nothing else: `${env:NAME}`"))
        return text

    def _keep_text(self, given: str, path: Path, place: Place) -> Json:
        found = self._kept.find(place, given, path)
        if isinstance(found, str):
            self.missing.append(Fault(path, found))
            return None
        return found.value

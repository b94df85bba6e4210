"""Secrets that come back as :data:`management.secrets.secret_places.KEPT`: which of a document's they are. Pure."""

import msgspec

from config.document import Value
from config.edit.values import is_same
from config.faults import Fault, Path
from config.scalars import Scalar
from management.secrets.secret_places import KEPT, Place, says_kept, spots, step_of, whole

_NOT_HERE = (
    f"`{KEPT}` stands for a secret that is at this place already, and there is none here: write the secret itself, or a "
    "reference to it"
)
_NOT_WHOLE = (
    f"a text with `{KEPT}` in it is kept as a whole, as it was shown, and this is another one: write it anew with its "
    "secret"
)
_SEVERAL = f"several values may be meant by `{KEPT}` here: write the secret itself"


def given_in(value: Value) -> frozenset[Place]:
    """Where in ``value``, a document or a merge patch of one as it came from a caller, a secret is written out; exactly
    (:func:`management.secrets.secret_places.exact_place`)."""
    return frozenset(
        spot.exact_place
        for spot in spots(value, whole())
        if spot.is_masked and not says_kept(spot.value) and not (isinstance(spot.value, str) and "${" in spot.value)
    )


class KeptSecret(msgspec.Struct, frozen=True):
    """A secret of the present document."""

    shown: Scalar
    value: Scalar
    path: Path
    source: object = None
    """What its reader knows of it besides."""

    def __repr__(self) -> str:
        return "KeptSecret()"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        # Else msgspec gives all fields to whatever renders tracebacks.
        return []


class KeptSecrets:
    """The secrets of a document by their place."""

    def __init__(self) -> None:
        self._secrets: dict[Place, list[KeptSecret]] = {}
        self.faults: list[Fault] = []

    def add(self, place: Place, secret: KeptSecret) -> None:
        """One more, if it is not shown as it is."""
        if says_kept(secret.shown) and secret.shown != secret.value:
            self._secrets.setdefault(place, []).append(secret)

    def find(self, place: Place, shown: str, path: Path) -> KeptSecret | str:
        """What was ``shown`` so, or why there is none. Where entries have no names, their numbers tell (``path``)."""
        there = self._secrets.get(place, [])
        fitting = [secret for secret in there if secret.shown == shown]
        if not fitting:
            return _NOT_WHOLE if there else _NOT_HERE
        if all(is_same(secret.value, fitting[0].value) for secret in fitting):
            return fitting[0]
        return next((secret for secret in fitting if secret.path == path), _SEVERAL)

    def restore(self, value: Value, path: Path = (), place: Place = ()) -> Value:
        """``value`` with what it asks for; what cannot be had is told in ``faults``."""
        if isinstance(value, dict):
            return {key: self.restore(inner, (*path, key), (*place, key)) for key, inner in value.items()}
        if isinstance(value, list):
            return [
                self.restore(inner, (*path, number), (*place, step_of(inner))) for number, inner in enumerate(value)
            ]
        if not isinstance(value, str) or not says_kept(value):
            return value
        found = self.find(place, value, path)
        if isinstance(found, str):
            self.faults.append(Fault(path, found))
            return value
        return found.value

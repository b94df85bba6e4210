"""Which references the API may add: `management.allowed_references`. Pure."""

from collections.abc import Collection

from config.document import Value
from config.references import Reference, ReferenceFault, parse_template
from core.globs import Glob


class AllowedReferences:
    """`management.allowed_references`."""

    def __init__(self, patterns: Collection[str]) -> None:
        self._globs: list[Glob] = []
        for pattern in patterns:
            try:
                self._globs.append(Glob(pattern))
            except ValueError:  # allows nothing
                continue

    def allows(self, reference: Reference) -> bool:
        """Whether the API may put it where it was not before."""
        # A sealed value opens wherever it stands: who may copy one may have it sent anywhere.
        if reference.scheme == "sealed":
            return False
        return self.allows_file(reference.parts["path"]) if reference.scheme == "file" else self._matches(reference)

    def allows_file(self, path: str) -> bool:
        """`*` crosses `/`, so that `secrets/*` would match `secrets/../other`."""
        segments = path.removeprefix("/").split("/")
        return not ({"", ".", ".."} & set(segments)) and self._name(f"file:{path}")

    def _matches(self, reference: Reference) -> bool:
        return self._name(reference.label.removeprefix("${").removesuffix("}"))

    def _name(self, name: str) -> bool:
        return any(glob.matches(name) for glob in self._globs)


def references_in(text: Value) -> tuple[Reference, ...]:
    """Those of a text; none where it is malformed, which the loader refuses."""
    if not isinstance(text, str) or "${" not in text:
        return ()
    try:
        return tuple(piece for piece in parse_template(text) if isinstance(piece, Reference))
    except ReferenceFault:
        return ()

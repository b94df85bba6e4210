"""Amounts of money in answers."""

from typing import Any

_NANO = 1_000_000_000


class Usd:
    """US dollars, to the last of their 10⁻⁹: as JSON a number that no float has rounded."""

    __slots__ = ("_nano",)

    def __init__(self, nano_usd: int) -> None:
        self._nano = nano_usd

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """For the OpenAPI document."""
        return {"type": "number", "description": "US dollars, with at most nine decimals."}

    def __str__(self) -> str:
        whole, rest = divmod(abs(self._nano), _NANO)
        text = f"{whole}.{rest:09d}".rstrip("0").removesuffix(".")
        return f"-{text}" if self._nano < 0 else text

    def __repr__(self) -> str:
        return f"Usd({self})"

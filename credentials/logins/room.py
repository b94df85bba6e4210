"""How many sign-ins of one process may be under way."""

import msgspec

from credentials.errors import TooManyLogins

MOST_UNDER_WAY = 100


class _UnderWay(msgspec.Struct, frozen=True):
    provider: str
    name: str
    expires_at: float


class LoginRoom:
    """Those that are under way. Times are seconds since the Unix epoch."""

    def __init__(self) -> None:
        self._under_way: dict[str, _UnderWay] = {}

    def take(self, key: str, provider: str, name: str, now: float, expires_at: float) -> None:
        """
        Raises:
            TooManyLogins: there is no room for another.
        """
        self._under_way = {other: each for other, each in self._under_way.items() if now < each.expires_at}
        if len(self._under_way) >= MOST_UNDER_WAY:
            raise TooManyLogins(
                f"{MOST_UNDER_WAY} sign-ins are under way, which is the most: cancel some, or wait until they end.",
                retry_after_seconds=min(each.expires_at for each in self._under_way.values()) - now,
            )
        self._under_way[key] = _UnderWay(provider, name, expires_at)

    def leave(self, key: str) -> None:
        """It has ended, or was none of these."""
        self._under_way.pop(key, None)

    def names(self, provider: str, now: float) -> set[str]:
        """Of the accounts that may come of them."""
        return {each.name for each in self._under_way.values() if each.provider == provider and now < each.expires_at}

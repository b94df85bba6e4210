"""Which credential of a provider serves an attempt."""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple, Protocol

from config.schema import Credential, Provider
from core.globs import Glob, GlobSet
from core.remembered import Remembered
from core.secret import Secret
from credentials.errors import CredentialUnavailable
from credentials.members import Member, member_of_file

NAMELESS = "default"
"""What the one choice of a provider is called that has no credentials and needs none; it has no key."""

_MOST_ALLOWED = 1024


class CredentialCooldowns(Protocol):
    """What a pool knows of cooldowns; :class:`routing.cooldown.Cooldowns` is one."""

    def credential_cooled(self, provider: str, credential: str, now: float) -> bool:
        """Whether the credential is out of rotation at ``now`` (monotonic seconds)."""
        ...


class LiveMembers(Protocol):
    """Credentials whose tokens change while they serve; :class:`credentials.accounts.Accounts` has them."""

    @property
    def serial(self) -> int:
        """Another one whenever what :meth:`members` gives has changed."""
        ...

    def members(self, provider: str) -> tuple[Member, ...]:
        """Those of a provider, of the file and by sign-in; asked in any thread."""
        ...


class NoLiveMembers:
    """Nobody has signed in, and no credential of the file ends."""

    serial = 0

    def members(self, provider: str) -> tuple[Member, ...]:
        return ()


class _NotYet:
    """A credential of the file whose tokens end, in a configuration that is not in force, or no longer."""

    usable = False

    def fresh(self, now: float) -> bool:
        return False

    async def freshen(self, rejected: str | None = None) -> None:
        raise CredentialUnavailable("the configuration that has the credential is not in force")


class _Choice(NamedTuple):
    member: Member
    allows: Mapping[str, bool] | None
    """By model; None: every one."""

    def fits(self, model: str | None, prefix: str | None) -> bool:
        """Whether it may be used so; a request without a model may be served by any."""
        if prefix is not None and prefix != self.member.prefix:
            return False
        return self.allows is None or model is None or self.allows[model]

    def usable(self) -> bool:
        live = self.member.live
        return live is None or live.usable


_Share = tuple[str, int, _Choice]
"""A credential's name and weight, in the form that is quickest to look through."""


class _Rank(NamedTuple):
    """Credentials of one priority."""

    shares: tuple[_Share, ...]
    plain: bool
    """Whether each may be chosen at any time for any model."""


class _Pool:
    """One provider's credentials."""

    __slots__ = ("choices", "members", "only", "ranks")

    def __init__(self, choices: tuple[_Choice, ...]) -> None:
        self.choices = choices
        """Those of the file first, in its order."""
        self.members = {choice.member.name: choice.member for choice in choices}
        by_priority: dict[int, list[_Share]] = {}
        for choice in choices:
            member = choice.member
            by_priority.setdefault(member.priority, []).append((member.name, member.weight, choice))
        self.ranks = tuple(
            _Rank(tuple(rank), all(each.allows is None and each.member.live is None for _, _, each in rank))
            for _, rank in sorted(by_priority.items(), reverse=True)
        )
        """The highest priority first."""
        self.only = choices[0].member.name if len(choices) == 1 and self.ranks[0].plain else None
        """The one that serves all, where there is nothing to choose."""


class Pools:
    """Every provider's credentials. Built anew for each generation; the cooldowns and live ones outlive it."""

    __slots__ = ("_allowed", "_cooled", "_pools", "_prefixes", "_providers", "_serial", "live")

    def __init__(
        self, providers: Iterable[Provider], cooldowns: CredentialCooldowns, live: LiveMembers | None = None
    ) -> None:
        # Bound once: it is asked for each attempt.
        self._cooled = cooldowns.credential_cooled
        self._providers = tuple(providers)
        self.live: LiveMembers = live if live is not None else NoLiveMembers()
        """Whose ``serial`` says whether the pools have changed."""
        self._allowed: dict[tuple[str, ...], Mapping[str, bool]] = {}
        self._pools: dict[str, _Pool] = {}
        self._prefixes: Mapping[str, tuple[str, ...]] = {}
        self._serial: int | None = None

    def choose(
        self,
        provider: str,
        exclude: Collection[str],
        now: float,
        random: Callable[[], float],
        model: str | None = None,
        prefix: str | None = None,
    ) -> str | None:
        """A credential for ``model``, of the highest priority that there is and there by weight, among those that can be
        used and are neither in ``exclude`` nor cooling at ``now``; None: none is left.

        With ``prefix`` only those that have it. ``random`` gives numbers in [0, 1); it is not called when there is nothing
        to choose.

        Raises:
            KeyError: no such provider.
        """
        if self.live.serial != self._serial:
            self._build()
        pool = self._pools[provider]
        name = pool.only
        cooled = self._cooled
        if name is not None and prefix is None:
            return None if name in exclude or cooled(provider, name, now) else name
        for shares, plain in pool.ranks:
            left = [share for share in shares if share[0] not in exclude and not cooled(provider, share[0], now)]
            if not plain or prefix is not None:
                left = [share for share in left if share[2].fits(model, prefix) and share[2].usable()]
            if left:
                return left[0][0] if len(left) == 1 else _drawn(left, random)
        return None

    def member(self, provider: str, credential: str) -> Member:
        """One that was chosen.

        Raises:
            KeyError: no such provider or credential; it may have been removed meanwhile.
        """
        return self._pools[provider].members[credential]

    def api_key(self, provider: str, credential: str) -> Secret | None:
        """The credential's key or present token, to be revealed where it is used; None for the nameless one.

        Raises:
            KeyError: no such provider or credential.
        """
        return self._current(provider).members[credential].secret

    def names(self, provider: str, model: str | None = None, prefix: str | None = None) -> tuple[str, ...]:
        """Those that may be used for ``model`` and have the ``prefix``, also where they need a login; in file order.

        Raises:
            KeyError: no such provider.
        """
        return tuple(each.member.name for each in self._current(provider).choices if each.fits(model, prefix))

    def candidates(self, provider: str, model: str | None, prefix: str | None) -> tuple[str, ...]:
        """The :meth:`names` that can be used, whether they cool or not.

        Raises:
            KeyError: no such provider.
        """
        choices = self._current(provider).choices
        return tuple(each.member.name for each in choices if each.fits(model, prefix) and each.usable())

    def lack(self, provider: str, model: str | None, prefix: str | None) -> str:
        """Why there are no :meth:`candidates`, in words.

        Raises:
            KeyError: no such provider.
        """
        choices = self._current(provider).choices
        if not choices:
            return f"`{provider}` has no credential: sign in by `./sluice login {provider}`, or enable one"
        asked = [each.member.name for each in choices if each.fits(model, prefix)]
        if not asked:
            having = f" of the prefix `{prefix}`" if prefix is not None else ""
            return f"no credential of `{provider}`{having} may be used for this model: see their `models` and `prefix`"
        # Not by their names: clients are told this, and accounts may be called after people.
        return f"the credentials of `{provider}` need a login: the operator signs in by `./sluice login {provider}`"

    def prefixes(self) -> Mapping[str, tuple[str, ...]]:
        """The providers by the prefixes of their credentials, in file order; the same object until that changes."""
        if self.live.serial != self._serial:
            self._build()
        return self._prefixes

    def _current(self, provider: str) -> _Pool:
        if self.live.serial != self._serial:
            self._build()
        return self._pools[provider]

    def _build(self) -> None:
        # Read first: what changes meanwhile is found by the next who asks.
        serial = self.live.serial
        pools = {provider.name: _Pool(self._choices(provider)) for provider in self._providers}
        prefixes: dict[str, dict[str, None]] = {}
        for name, pool in pools.items():
            for choice in pool.choices:
                prefix = choice.member.prefix
                # A provider's name is its own; the file and the API refuse such a prefix.
                if prefix is not None and prefix not in pools:
                    prefixes.setdefault(prefix, {})[name] = None
        told = {prefix: tuple(names) for prefix, names in prefixes.items()}
        self._pools = pools
        if told != self._prefixes:
            self._prefixes = told
        self._serial = serial

    def _choices(self, provider: Provider) -> tuple[_Choice, ...]:
        found = {each.name: _of_file(each) for each in provider.credentials if not each.disabled}
        for live in self.live.members(provider.name):
            known = found.get(live.name)
            if known is None or isinstance(known.live, _NotYet):
                found[live.name] = live
        if not found and not provider.credentials and provider.oauth is None:
            found[NAMELESS] = Member(name=NAMELESS, secret=None)
        places = {each.name: place for place, each in enumerate(provider.credentials)}
        ordered = sorted(found.values(), key=lambda member: places.get(member.name, len(places)))
        return tuple(_Choice(member, self._allows(member.models) if member.models else None) for member in ordered)

    def _allows(self, models: tuple[str, ...]) -> Mapping[str, bool]:
        """Whether a model is among ``models``; credentials with the same share what was worked out."""
        allowed = self._allowed.get(models)
        if allowed is None:
            if len(self._allowed) >= _MOST_ALLOWED:
                self._allowed.clear()
            allowed = self._allowed[models] = Remembered(GlobSet([each for each in models if _reads(each)]).matches)
        return allowed


def _reads(pattern: str) -> bool:
    """Whether it is a glob. The file and the API refuse others; in a record of another version one matches nothing."""
    try:
        Glob(pattern)
    except ValueError:
        return False
    return True


def _of_file(credential: Credential) -> Member:
    return member_of_file(credential, credential.api_key, None if credential.api_key is not None else _NotYet())


def _drawn(shares: list[_Share], random: Callable[[], float]) -> str:
    point = random() * sum([weight for _, weight, _ in shares])
    for name, weight, _ in shares:
        point -= weight
        if point < 0:
            return name
    return shares[-1][0]  # rounding may leave a crumb

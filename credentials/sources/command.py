"""Tokens that a program prints (`command:`)."""

import logging
import math
import re
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from config.schema import CommandCredential
from core.clock import Clock
from core.moments import Moment
from core.secret import Secret, values_in_use
from credentials.errors import CredentialRefused, CredentialUnavailable
from credentials.sources.process import CannotRun, Ended, NotStarted, TookTooLong, run
from credentials.tokens import TokenSet

_log = logging.getLogger("sluice.credentials")

PASSED_ON: Final = ("PATH", "HOME", "LANG")
"""Variables of the gateway's own that a program gets."""

_TOKEN_KEYS = ("access_token", "accessToken", "token")
_IN_SECONDS_KEYS = ("expires_in",)
_AT_KEYS = ("expires_at", "expires_on", "expirationTimestamp", "expiration", "Expiration", "token_expiry")
_INNER_KEYS = ("status", "credential")
"""Where client-go's `ExecCredential` and `gcloud config config-helper` have them."""

_TOKEN = re.compile(r"[!-~]+\Z")
"""What a field of HTTP can carry in one word."""
_MOST_SECONDS = 1e11
"""Of a point in time, which is some 3,000 years; milliseconds are beyond."""

_SHOWN_CHARACTERS = 400
_MIN_SECRET_CHARACTERS = 6
_WORD = re.compile(r"[^\s\"',;:{}\[\]()<>=]{6,}")
_SEARCHED_BYTES = 16 * 1024
_UNSHOWN = "…"


class Unreadable(Exception):
    """Output that is no token; the message ends a sentence that begins with the program's name, and shows none of it."""


class CommandSource:
    """:class:`credentials.tokens.CredentialSource` of a program, which is run for each token."""

    kind = "command"

    def __init__(self, entry: CommandCredential, environment: Mapping[str, str], clock: Clock) -> None:
        """``environment``: the gateway's own, of which it gets :data:`PASSED_ON`."""
        self._entry = entry
        passed_on = {name: environment[name] for name in PASSED_ON if name in environment}
        self._environment = {**passed_on, **entry.environment}
        self._clock = clock

    async def obtain(self, held: TokenSet | None) -> TokenSet:
        name = f"the command `{self._entry.run[0]}`"
        begun = self._clock.time()
        try:
            ended = await run(self._entry.run, self._environment, self._entry.timeout_seconds)
        except NotStarted as failure:
            raise CredentialRefused(
                f"{name} {failure}: name a program that the gateway's user may run in `run`, by its whole path or as it "
                "is found in PATH"
            ) from None
        except TookTooLong as failure:
            self._tell(name, failure, failure.errors, failure.output)
            raise CredentialUnavailable(
                f"{name} {failure} and was killed: see why it hangs, or raise `timeout_seconds`"
            ) from None
        except CannotRun as failure:
            self._tell(name, failure, failure.errors, failure.output)
            raise CredentialRefused(f"{name} {failure}: it must print a token and nothing else") from None
        return self._read(name, ended, begun)

    def _read(self, name: str, ended: Ended, begun: float) -> TokenSet:
        if ended.status:
            how = f"ended with status {ended.status}" if ended.status > 0 else f"was ended by signal {-ended.status}"
            self._tell(name, how, ended.errors, ended.output)
            raise CredentialUnavailable(
                f"{name} {how}: run it by hand as the gateway's user; what it wrote to its error output is in the log"
            )
        try:
            token, expires_at = read_token(ended.output, begun)
        except Unreadable as failure:
            self._tell(name, failure, ended.errors, ended.output)
            raise CredentialRefused(f"{name} {failure}") from None
        if expires_at is None:
            expires_at = begun + self._entry.lifetime_seconds
        elif expires_at <= self._clock.time():
            self._tell(name, "printed a token that has ended", ended.errors, ended.output)
            raise CredentialUnavailable(
                f"{name} printed a token that has ended already: have it print a fresh one, and look at the clocks of "
                "this machine and of who issues it"
            )
        return TokenSet(access_token=Secret.literal(token, self.kind), issued_at=begun, expires_at=expires_at)

    def _tell(self, name: str, what: object, errors: bytes, output: bytes = b"") -> None:
        """Log what it wrote to its error output, for who runs the gateway alone."""
        known = {*self._entry.environment.values(), *values_in_use(), *_WORD.findall(_text(output[:_SEARCHED_BYTES]))}
        _log.warning("%s %s; its error output: %s", name, what, shown(errors, known) or "(none)")


def read_token(output: bytes, now: float) -> tuple[str, float | None]:
    """A token and its end, in seconds since the Unix epoch (None: it is not said), from JSON or a bare word.

    Raises:
        Unreadable: it is neither.
    """
    text = _text(output).strip()
    if not text:
        raise Unreadable('printed nothing: it must print a token, or JSON such as {"token": …, "expires_in": 3600}')
    if text.startswith(("{", "[")):
        return _from_json(text, now)
    return _checked(text), None


def _from_json(text: str, now: float) -> tuple[str, float | None]:
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        raise Unreadable("printed JSON that is broken") from None
    for members in _levels(value):
        token = next((members[key] for key in _TOKEN_KEYS if key in members), None)
        if token is not None:
            if not isinstance(token, str):
                raise Unreadable("printed JSON whose token is no text")
            return _checked(token), _end(members, now)
    raise Unreadable("printed JSON without a token: it must be in the member `access_token` or `token`")


def _levels(value: object) -> Iterator[dict[str, object]]:
    if isinstance(value, dict):
        yield value
        for key in _INNER_KEYS:
            inner = value.get(key)
            if isinstance(inner, dict):
                yield inner


def _checked(token: str) -> str:
    if not _TOKEN.match(token):
        raise Unreadable(
            "printed something that is no token: one word of visible ASCII characters alone, or JSON; messages belong "
            "on its error output"
        )
    return token


def _end(members: Mapping[str, object], now: float) -> float | None:
    for key in _IN_SECONDS_KEYS:
        if members.get(key) is not None:
            return now + _seconds(key, members[key])
    for key in _AT_KEYS:
        value = members.get(key)
        if value is not None:
            return _point(key, value)
    return None


def _seconds(key: str, value: object) -> float:
    """A number, or one that is written as text."""
    try:
        seconds = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        seconds = math.nan
    if not math.isfinite(seconds):
        raise Unreadable(f"printed JSON whose `{key}` is no number of seconds")
    if abs(seconds) > _MOST_SECONDS:
        raise Unreadable(f"printed JSON whose `{key}` is too large: it must be in seconds, not milliseconds")
    return seconds


def _point(key: str, value: object) -> float:
    """Seconds since the Unix epoch, or RFC 3339 with its zone."""
    if isinstance(value, str) and not _is_number(value):
        try:
            return msgspec.convert(value, Moment).timestamp()
        except (msgspec.ValidationError, OverflowError):
            raise Unreadable(
                f"printed JSON whose `{key}` is no point in time: write seconds since 1970, or RFC 3339 with its zone, "
                "such as 2030-01-02T03:04:05Z"
            ) from None
    return _seconds(key, value)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def shown(errors: bytes, known: set[str]) -> str:
    """What of an error output may be logged: one line, cut, without the texts that are ``known``."""
    text = _text(errors)
    for secret in sorted((each for each in known if len(each) >= _MIN_SECRET_CHARACTERS), key=len, reverse=True):
        text = text.replace(secret, _UNSHOWN)
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return line if len(line) <= _SHOWN_CHARACTERS else line[:_SHOWN_CHARACTERS] + _UNSHOWN


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")

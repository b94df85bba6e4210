"""What each of many requests is to be: who asks for what, and how its provider and its client behave. The same for a seed."""

import random
from collections.abc import Iterator
from decimal import Decimal
from enum import Enum

import msgspec

from tests.gateway_process import ADMIN_KEY_HASH, sha256
from tests.planted import planted


class Kind(Enum):
    """What becomes of a request."""

    JSON = "an answer with its usage"
    CLOSED = "the same, after which the client closes its connection at once"
    STREAM = "a stream whose client asks for its usage"
    RESPONSE = "a response, with its usage"
    RESPONSE_STREAM = "a stream of a response, whose last event has the usage"
    EMBEDDING = "an embedding: usage without output"
    UNTOLD = "an answer without usage"
    UNTOLD_STREAM = "a stream without usage"
    LISTED = "the list of models, which the gateway answers by itself"
    RETRIED = "503 at first, then an answer"
    LIMITED = "429 for one credential, then an answer for the other"
    CUT_ONCE = "half an answer at first, then a whole one"
    BROKEN_ONCE = "a stream that begins with an error at first, then a whole one"
    ELSEWHERE = "500 from one provider, then an answer from another"
    CONTEXT = "too long for one model, then an answer from a larger one"
    REJECTED = "400 from the provider"
    FAILED = "500 from the provider, whenever it is asked"
    RESET = "no answer from the provider, whenever it is asked"
    CUT = "a stream that the provider cuts"
    TOLD_CUT = "a stream that the provider cuts after it has told a usage and has said more"
    LEFT = "the client leaves before the provider answers"
    LEFT_STREAM = "the client leaves in the middle of a stream"
    LEFT_BODY = "the client leaves within its request"
    UNKNOWN = "a model that nobody serves"
    FORBIDDEN = "a model that the token may not use"
    MALFORMED = "a body that is no JSON"
    STRANGER = "a token that nobody knows"


WEIGHTS = {
    Kind.JSON: 30,
    Kind.CLOSED: 4,
    Kind.STREAM: 14,
    Kind.RESPONSE: 4,
    Kind.RESPONSE_STREAM: 4,
    Kind.EMBEDDING: 4,
    Kind.UNTOLD: 4,
    Kind.UNTOLD_STREAM: 6,
    Kind.LISTED: 1,
    Kind.RETRIED: 4,
    Kind.LIMITED: 2,
    Kind.CUT_ONCE: 2,
    Kind.BROKEN_ONCE: 2,
    Kind.ELSEWHERE: 2,
    Kind.CONTEXT: 2,
    Kind.REJECTED: 2,
    Kind.FAILED: 2,
    Kind.RESET: 1,
    Kind.CUT: 2,
    Kind.TOLD_CUT: 2,
    Kind.LEFT: 3,
    Kind.LEFT_STREAM: 3,
    Kind.LEFT_BODY: 1,
    Kind.UNKNOWN: 1,
    Kind.FORBIDDEN: 1,
    Kind.MALFORMED: 1,
    Kind.STRANGER: 1,
}
"""Of how many each is one, among a hundred or so."""

STREAMS = {
    Kind.STREAM,
    Kind.RESPONSE_STREAM,
    Kind.UNTOLD_STREAM,
    Kind.BROKEN_ONCE,
    Kind.CUT,
    Kind.TOLD_CUT,
    Kind.LEFT_STREAM,
}
LEAVING = {Kind.LEFT, Kind.LEFT_STREAM, Kind.LEFT_BODY}
MODELS = ("small", "large", "free", "asked", "safe")
"""What clients ask for: `small-000017`, with the number of the request. Each has a route of its name, but `unknown`."""
_NEEDS_SAFE = {Kind.ELSEWHERE, Kind.CONTEXT}


class Token(msgspec.Struct, frozen=True):
    """An API token of the configuration."""

    name: str
    owner: str | None
    models: str = "*"

    @property
    def text(self) -> str:
        return planted(f"{self.name}-token")


TOKENS = (Token("ann-one", "ann"), Token("ann-two", "ann"), Token("bob", "bob"), Token("nobody-s", None))
NARROW = Token("narrow", "bob", "small-*")
STRANGER = Token("stranger", None)


class Told(msgspec.Struct, frozen=True):
    """A usage that a provider tells: tokens."""

    taken: int
    given: int
    cached: int = 0
    """Of those taken; so is the next."""
    cache_written: int = 0
    reasoned: int = 0
    """Of those given."""


class Asked(msgspec.Struct, frozen=True):
    """One request."""

    number: int
    kind: Kind
    token: Token
    name: str
    """One of :data:`MODELS`, or `unknown`."""
    prompt: str
    told: Told
    says: tuple[str, ...]
    """What the model says, event by event."""

    @property
    def model(self) -> str:
        """As the client spells it."""
        return f"{self.name}-{self.number:06}"

    @property
    def stream(self) -> bool:
        return self.kind in STREAMS


class Price(msgspec.Struct, frozen=True):
    """US dollars for a million tokens, as they are written."""

    taken: str
    given: str
    cached: str | None = None
    cache_written: str | None = None
    request: str = "0"

    def cost_nano_usd(self, told: Told) -> int:
        """As docs/prices.md has it: exact, and rounded half up once."""
        whole = told.taken - told.cached - told.cache_written
        rates = (self.taken, self.cached or self.taken, self.cache_written or self.taken, self.given)
        amounts = (whole, told.cached, told.cache_written, told.given)
        usd = sum((Decimal(rate) * amount for rate, amount in zip(rates, amounts, strict=True)), Decimal(0))
        nano = (usd / 1_000_000 + Decimal(self.request)) * 10**9
        return int(nano.quantize(Decimal(1), "ROUND_HALF_UP"))

    def entry(self, target: str) -> str:
        """As of `prices:`."""
        told = {
            "model": target,
            "input_usd": self.taken,
            "output_usd": self.given,
            "cached_input_usd": self.cached,
            "cache_write_usd": self.cache_written,
            "request_usd": self.request,
        }
        return "{" + ", ".join(f"{name}: {value}" for name, value in told.items() if value is not None) + "}"


FLUSH_SECONDS = 0.2
"""Of the gateway's ledger."""
PRICES = {
    "first/small": Price("0.15", "0.6"),
    "first/large": Price("2.5", "10", "1.25", "3.125", "0.0001"),
    "asking/small": Price("0.0375", "0.15", "0.0075"),
    "second/large": Price("3", "15", "0.3", "3.75"),
    "second/huge": Price("1.234567", "7.654321", request="0.000000001"),
}
"""By target. `first/free` has none."""

CREDENTIALS = {planted(f"credential-{name}"): name for name in ("main", "spare")}
"""What a provider is sent, and what that is called."""


def plan(count: int, seed: int) -> Iterator[Asked]:
    """So many requests."""
    chance = random.Random(seed)
    kinds, weights = list(WEIGHTS), list(WEIGHTS.values())
    # Each kind is there, however few they are.
    drawn = [*kinds, *chance.choices(kinds, weights, k=count - len(kinds))]
    chance.shuffle(drawn)
    for number, kind in enumerate(drawn):
        yield _asked(number, kind, chance)


def _asked(number: int, kind: Kind, chance: random.Random) -> Asked:
    name, token = chance.choice(MODELS), chance.choice(TOKENS)
    if kind in _NEEDS_SAFE:
        name = "safe"
    elif kind is Kind.UNKNOWN:
        name = "unknown"
    elif kind is Kind.FORBIDDEN:
        name, token = "large", NARROW
    elif kind is Kind.STRANGER:
        token = STRANGER
    taken, given = chance.randrange(1, 5000), chance.randrange(1, 2000)
    cached = chance.choice((0, 0, taken // 2, taken))
    written = chance.choice((0, 0, taken - cached))
    told = Told(taken, given, cached, written, chance.choice((0, 0, given // 3)))
    if kind is Kind.EMBEDDING:
        told = Told(taken, 0)
    # Short ones are a token each, long ones are measured.
    longest = chance.choice((4, 40))
    says = tuple("abcdefghij"[: chance.randrange(1, 11)] * chance.randrange(1, 1 + longest // 4) for _ in range(8))
    return Asked(number, kind, token, name, "word " * chance.randrange(1, 200), told, says)


def config(port: int, more: str = "") -> tuple[str, str]:
    """Of a gateway whose providers are on ``port``: who may call it, and the rest."""
    tokens = "".join(
        f'  - {{name: {token.name}, sha256: {sha256(token.text)}, models: ["{token.models}"]'
        f"{f', owner: {token.owner}' if token.owner else ''}}}\n"
        for token in (*TOKENS, NARROW)
    )
    access = f'tokens:\n{tokens}management:\n  admin_key_hash: "{ADMIN_KEY_HASH}"\n'
    credentials = ", ".join(f"{{name: {name}, api_key: {text}}}" for text, name in CREDENTIALS.items())
    providers = "".join(
        f"  - {{name: {name}, type: openai-compatible, base_url: 'http://127.0.0.1:{port}/{name}/v1', "
        f"credentials: [{credentials}]{', include_usage: true' if name == 'asking' else ''}}}\n"
        for name in ("first", "asking", "second")
    )
    routes = "".join(_route(name) for name in MODELS)
    prices = "".join(f"  - {price.entry(target)}\n" for target, price in PRICES.items())
    return (
        access,
        f"usage: {{flush_seconds: {FLUSH_SECONDS}}}\n{more}providers:\n{providers}routes:\n{routes}prices:\n{prices}",
    )


TARGETS = {
    "small": "first/small",
    "large": "first/large",
    "free": "first/free",
    "asked": "asking/small",
    "safe": "first/small",
}
"""Of the routes."""


def _route(name: str) -> str:
    fallbacks = ", fallbacks: {error: [[second/large]], context: [[second/huge]]}" if name == "safe" else ""
    # Failures are the matter here: they must spoil no other request.
    return (
        f'  - {{name: {name}, match: {{model: "{name}-*"}}, targets: [{TARGETS[name]}]{fallbacks}, '
        "retry: {attempts: 3, backoff_seconds: 0.001}, cooldown: {max_seconds: 0}}\n"
    )

"""The gateway's own log: structlog renders every record, ours and the libraries', on standard error.

Pretty on a terminal, JSON lines otherwise. Code logs through the standard library (``logging.getLogger``), or
through ``structlog.get_logger`` where a line has members. As a second line of defence the values of the secrets in use and
whatever looks like a credential are masked in the rendered text, tracebacks included; the first is that secrets are
handles (:class:`core.secret.Secret`).
"""

import logging
import re
import sys
import urllib.parse
from typing import TextIO

import structlog
from structlog.types import EventDict, Processor, WrappedLogger

from core.secret import values_in_use

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

_HANDLER_NAME = "sluice"
# Libraries that say at INFO what is of no interest to an operator.
_QUIET_LOGGERS = ("asyncio", "tornado.access")
# At DEBUG it tells each change of a file: one in the configuration's directory that takes the log would feed itself.
_SILENT_LOGGERS = ("watchfiles",)

REDACTED = "[redacted]"
REDACTED_VALUE = "[redacted secret]"
"""Stands for the value of a secret in use: the first line of defence has a hole."""

# Shorter ones occur by chance, and a line in which each `on` is masked says nothing any more.
_MIN_VALUE_CHARS = 8
# What JSON and `repr`, or addresses, write as it is: nearly every key.
_NEVER_ESCAPED = re.compile(r"[ !#-&(-\[\]-~]+")
_NEVER_QUOTED = re.compile(r"[A-Za-z0-9._~-]+")
_ESCAPES = {"\b": "b", "\f": "f", "\n": "n", "\r": "r", "\t": "t"}

# A reference (`${env:NAME}`) is no secret and is left as it is, and what is masked already is not masked again.
_NOT_SHOWN = r"(?!\[|\$\{)"
# What stands between a field's name and its value in a header, in JSON, in a Python dict or tuple. The quotes of JSON
# inside JSON, which a member of a line may hold, come after backslashes.
_QUOTE = r"""(?:\\*["'])?"""
_SEPARATOR = rf"{_QUOTE}\s*[:=,]\s*b?{_QUOTE}\s*"
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(rf"(?i)\b(bearer|basic)\s+{_NOT_SHOWN}[^\s\"',;\\]{{4,}}"), rf"\1 {REDACTED}"),
    (
        # Of these schemes all that follows: there are commas and spaces inside.
        re.compile(
            rf"(?i)\b(authorization)({_SEPARATOR})(?:aws4-[a-z0-9-]+|digest|hmac[a-z0-9-]*|oauth)\s(?:[^\"'\r\n\\]|\\+[\"'])+"
        ),
        rf"\1\2{REDACTED}",
    ),
    (
        re.compile(
            # Behind a dot it is a path into the configuration (`credentials[0].api_key: …`): a fault's words follow.
            r"(?i)(?<!\.)\b((?:x-)?(?:goog-)?api[-_]key|x-vault-token|client_secret|secret_id|password"
            rf"|authorization(?!{_SEPARATOR}(?:bearer|basic)\b)|(?:aws_?)?secret_?access_?key|(?:aws_?|x-amz-)(?:session_?|security-)token)"
            rf"({_SEPARATOR}){_NOT_SHOWN}[^\s\"',;&}}\\]+"
        ),
        rf"\1\2{REDACTED}",
    ),
    # Gemini's `?key=`.
    (re.compile(rf"(?i)([?&](?:key|api_key|access_token)=){_NOT_SHOWN}[^&\s\"'\\]+"), rf"\1{REDACTED}"),
    # The password of an address, as a proxy's or a database's.
    (re.compile(rf"(://[^/\s:@\"']*):{_NOT_SHOWN}[^/\s@\"']+@"), rf"\1:{REDACTED}@"),
    # What can be told by its own form. One expression, as each that begins with `\b` costs a look at every character.
    (
        re.compile(
            r"""\b(?:
                (sk-|sluice-admin-)[A-Za-z0-9_-]{8,}  # ours, OpenAI's, Anthropic's
                |(AIza)[A-Za-z0-9_-]{20,}             # Google's
                |(hv[sbr]\.)[A-Za-z0-9_-]{8,}         # Vault's tokens: service, batch, recovery; before Vault 1.10:
                |([sbr]\.)(?<![.-]..)[A-Za-z0-9]{24,}(?:\.[A-Za-z0-9]+)?(?![\w(])
                |(A[KS]IA)[A-Z0-9]{16}\b              # AWS's key ids, lasting and passing
                |(whsec_)[A-Za-z0-9+/=_-]{8,}         # Standard Webhooks
                |(eyJ)[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*  # JSON Web Tokens (RFC 7519): each begins `{"`
            )""",
            re.VERBOSE,
        ),
        rf"\1\2\3\4\5\6\7{REDACTED}",
    ),
    (re.compile(r"\$argon2(?:id|i|d)\$[A-Za-z0-9+/=$,]+"), f"$argon2{REDACTED}"),
    (
        re.compile(
            r"(-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----)(?:\\+[rn]|(?!-----)[A-Za-z0-9+/=:,\s-])+(?:-----END [A-Z0-9 ]*-----)?"
        ),
        rf"\1{REDACTED}",
    ),
)


def redact(text: str) -> str:
    """``text`` with every value of a secret in use masked, and everything that looks like a credential."""
    text = _mask_values(text)
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def _mask_values(text: str) -> str:
    # A look for each secret costs some 0.1 µs; its other forms are looked for only where there can be any.
    escaped, quoted = "\\" in text, "%" in text or "+" in text
    found = set()
    for value in values_in_use():
        if len(value) < _MIN_VALUE_CHARS:
            continue
        if value in text:
            found.add(value)
        if escaped and not _NEVER_ESCAPED.fullmatch(value):
            found.update(_escaped_in(text, value))
        if quoted and not _NEVER_QUOTED.fullmatch(value):
            found.update(form for form in _quoted(value) if form in text)
    # One may be a part of another.
    for form in sorted(found, key=len, reverse=True):
        text = text.replace(form, REDACTED_VALUE)
    return text


def _escaped_in(text: str, value: str) -> list[str]:
    """What in ``text`` is ``value`` as JSON and ``repr`` write it, also one inside the other, as in a traceback."""
    longest = max(_NEVER_ESCAPED.findall(value), key=len, default="")
    if longest not in text:
        return []
    return re.findall("".join(map(_escaped_character, value)), text)


def _escaped_character(character: str) -> str:
    if character in "\"'":
        return rf"\\*{character}"
    if character == "\\":
        return r"\\+"
    if character in _ESCAPES:
        return rf"(?:{character}|\\+{_ESCAPES[character]})"
    if character.isascii() and character.isprintable():
        return re.escape(character)
    number = ord(character)
    return rf"(?:{re.escape(character)}|\\+(?:x{number:02x}|u{number:04x}|U{number:08x}))"


def _quoted(value: str) -> tuple[str, ...]:
    """How a value stands in an address: in its path, in its query, as a field of a form."""
    quote = urllib.parse.quote
    return quote(value), quote(value, safe=""), urllib.parse.quote_plus(value)


def configure(level: str = "info", stream: TextIO | None = None, json: bool | None = None) -> None:
    """Send all logging of the process to ``stream`` (standard error), from ``level`` on; again: replaces.

    ``level`` is a key of :data:`LEVELS`; ``json`` None: JSON lines unless the stream is a terminal.
    """
    stream = sys.stderr if stream is None else stream
    as_json = not stream.isatty() if json is None else json
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.stdlib.ExtraAdder(),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        # Not cached: a test, or a second call, may configure anew.
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.set_name(_HANDLER_NAME)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_renderers(as_json, colors=not as_json and stream.isatty()),
                _redact_rendered,
            ],
        )
    )
    root = logging.getLogger()
    for old in root.handlers[:]:
        if old.get_name() == _HANDLER_NAME:
            root.removeHandler(old)
    root.addHandler(handler)
    set_level(level)


def set_level(level: str) -> None:
    """From now on records below ``level`` (a key of :data:`LEVELS`) are not shown. Takes effect at once."""
    number = LEVELS[level]
    logging.getLogger().setLevel(number)
    for name in _QUIET_LOGGERS:
        # At `debug` everything is wanted.
        logging.getLogger(name).setLevel(logging.NOTSET if number <= logging.DEBUG else logging.WARNING)
    for name in _SILENT_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)


def _renderers(as_json: bool, colors: bool) -> list[Processor]:
    if as_json:
        return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(ensure_ascii=False)]
    return [
        structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback),
    ]


def _redact_rendered(_logger: WrappedLogger, _name: str, rendered: EventDict | str) -> str:
    # The last processor: what it is given is the renderer's text.
    return redact(str(rendered))

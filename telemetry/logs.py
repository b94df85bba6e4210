"""The gateway's own log: structlog renders every record, ours and the libraries', on standard error.

Pretty on a terminal, JSON lines otherwise. Code logs through the standard library (``logging.getLogger``), or
through ``structlog.get_logger`` where a line has members. As a second line of defence whatever looks like a
credential is masked in the rendered text, tracebacks included; the first is that secrets are handles
(:class:`core.secret.Secret`).
"""

import logging
import re
import sys
from typing import TextIO

import structlog
from structlog.types import EventDict, Processor, WrappedLogger

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

_HANDLER_NAME = "sluice"
# Libraries that say at INFO what is of no interest to an operator.
_QUIET_LOGGERS = ("asyncio", "tornado.access")
# At DEBUG it tells each change of a file: one in the configuration's directory that takes the log would feed itself.
_SILENT_LOGGERS = ("watchfiles",)

_REDACTED = "[redacted]"
# A reference (`${env:NAME}`) is no secret and is left as it is.
# What stands between a field's name and its value in a header, in JSON, in a Python dict or tuple.
_SEPARATOR = r"""["']?\s*[:=,]\s*b?["']?\s*"""
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"(?i)\b(bearer|basic)\s+[^\s\"',;\\]{4,}"), rf"\1 {_REDACTED}"),
    (
        re.compile(
            # Behind a dot it is a path into the configuration (`credentials[0].api_key: …`): a fault's words follow.
            rf"(?i)(?<!\.)\b((?:x-)?(?:goog-)?api[-_]key|x-vault-token|client_secret|secret_id|password)({_SEPARATOR})(?!\[|\$\{{)"
            r"[^\s\"',;&}\\]+"
        ),
        rf"\1\2{_REDACTED}",
    ),
    # Gemini's `?key=`.
    (re.compile(r"(?i)([?&](?:key|api_key|access_token)=)[^&\s\"']+"), rf"\1{_REDACTED}"),
    # Keys that can be told by their own form: ours, OpenAI's and Anthropic's (sk-), Google's, Vault's, argon2 hashes.
    (re.compile(r"\bsk-[A-Za-z0-9_-]{8,}"), f"sk-{_REDACTED}"),
    (re.compile(r"\bsluice-admin-[A-Za-z0-9_-]{8,}"), f"sluice-admin-{_REDACTED}"),
    (re.compile(r"\bAIza[A-Za-z0-9_-]{20,}"), f"AIza{_REDACTED}"),
    (re.compile(r"\bhv[sb]\.[A-Za-z0-9_-]{8,}"), f"hv{_REDACTED}"),
    (re.compile(r"\$argon2(?:id|i|d)\$[A-Za-z0-9+/=$,]+"), f"$argon2{_REDACTED}"),
)


def redact(text: str) -> str:
    """``text`` with everything masked that looks like a credential."""
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


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

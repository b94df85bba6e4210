"""JSON of whatever is to be answered."""

from typing import Any

import msgspec

from management.handler.money import Usd


def _written(value: Any) -> msgspec.Raw:
    if isinstance(value, Usd):
        return msgspec.Raw(str(value).encode())
    raise NotImplementedError(f"no JSON is known for {type(value).__name__}")


_encode = msgspec.json.Encoder(enc_hook=_written).encode


def encode(value: Any) -> bytes:
    """``value`` as JSON; halves of characters, as names of files that are no UTF-8 have them, as question marks."""
    try:
        return _encode(value)
    except UnicodeEncodeError:
        return _encode(_whole(msgspec.to_builtins(value, builtin_types=(Usd,))))


def _whole(value: Any) -> Any:
    match value:
        case str():
            return value.encode(errors="replace").decode()
        case dict():
            return {_whole(key): _whole(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_whole(inner) for inner in value]
    return value

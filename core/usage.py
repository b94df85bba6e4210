"""Tokens of one request."""

import msgspec


class Usage(msgspec.Struct, frozen=True):
    """Token counts as the provider reported them; ``cached_tokens`` is a part of ``input_tokens``."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0

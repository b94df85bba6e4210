"""Tokens of one request."""

import msgspec


class Usage(msgspec.Struct, gc=False, frozen=True):
    """Token counts as the provider reported them, or, where it reported none, as they are estimated.

    ``cached_tokens`` and ``cache_write_tokens`` are parts of ``input_tokens``, ``reasoning_tokens`` of ``output_tokens``.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: bool = False
    """Whether any count is the gateway's own estimate (docs/usage.md has the method)."""
    cache_write_tokens: int = 0
    """Input tokens that the provider put into its cache; some charge more for them."""

    @property
    def is_known(self) -> bool:
        """Whether anything is counted; some servers tell nothing but zeros, or an empty object."""
        return self.input_tokens > 0 or self.output_tokens > 0

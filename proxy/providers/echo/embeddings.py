"""Embeddings: unit vectors that follow from the text alone.

https://platform.openai.com/docs/api-reference/embeddings
"""

import base64
import hashlib
import math
import struct

from proxy.providers.echo.answer import Answer, Rejected, count, document
from proxy.providers.echo.requests import EmbeddingsRequest, decode, texts_of

DEFAULT_DIMENSIONS = 1536
MAX_DIMENSIONS = 4096


def embeddings(body: bytes) -> Answer:
    """`POST /embeddings`."""
    request = decode(body, EmbeddingsRequest)
    dimensions = DEFAULT_DIMENSIONS if request.dimensions is None else request.dimensions
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise Rejected(400, f"`dimensions` must be from 1 to {MAX_DIMENSIONS}.", "invalid_value", "dimensions")
    if request.encoding_format not in (None, "float", "base64"):
        raise Rejected(400, "`encoding_format` must be `float` or `base64`.", "invalid_value", "encoding_format")
    texts = texts_of(request.input)
    if not texts:
        raise Rejected(400, "`input` must not be empty.", "invalid_value", "input")
    vectors = [vector(text, dimensions) for text in texts]
    words = sum(map(count, texts))
    return document(
        {
            "object": "list",
            "data": [
                {
                    "object": "embedding",
                    "index": index,
                    "embedding": base64.b64encode(packed).decode()
                    if request.encoding_format == "base64"
                    else _floats(packed),
                }
                for index, packed in enumerate(vectors)
            ],
            "model": request.model,
            "usage": {"prompt_tokens": words, "total_tokens": words},
        }
    )


def vector(text: str, dimensions: int) -> bytes:
    """A vector of length 1 as little-endian float32: equal texts give equal vectors, others nearly orthogonal ones."""
    noise = hashlib.shake_256(text.encode("utf-8", "surrogatepass")).digest(4 * dimensions)
    raw = [number + 0.5 for number in struct.unpack(f"<{dimensions}i", noise)]
    length = math.hypot(*raw)
    return struct.pack(f"<{dimensions}f", *(number / length for number in raw))


def _floats(packed: bytes) -> list[float]:
    # By way of float32, so that both encodings give the same numbers.
    return list(struct.unpack(f"<{len(packed) // 4}f", packed))

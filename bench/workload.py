"""What is asked and what is answered: one chat completion, as JSON and as a stream, the same bytes for every row."""

from dataclasses import dataclass

import msgspec

EVENTS_PER_STREAM = 53
"""A role, fifty pieces of text, a finish reason, and `[DONE]`."""

EVENT_GAP_SECONDS = 0.001
SLOW_EVENT_GAP_SECONDS = 1.0
"""For streams that are only held open, to see what one costs in memory."""

SLOW_MARK = "bench-slow"
"""Sent as the body's `user` to ask the mock provider for the slow pace; every proxy passes it on."""

CHAT_PATH = "/v1/chat/completions"
TOKEN = "sk-bench-not-a-secret"
PROVIDER_MODEL = "bench-model"
ALIAS = "fast"

_QUESTION = (
    "You are planning a walk through an old harbour town for a group of twelve visitors, some of whom tire quickly. "
    "Suggest a route of about two hours with three stops, say what can be seen at each of them, where one may sit "
    "down and have a coffee, and which part can be left out when it rains. Keep the answer short and friendly."
)
_WORDS = ("The", " walk", " begins", " at", " the", " old", " lighthouse", ",", " where", " the")


_SMALLEST_PROMPT_BYTES = 1000


@dataclass(frozen=True, slots=True)
class Ask:
    """One kind of request."""

    body: bytes
    streamed: bool
    headers: tuple[tuple[str, str], ...] = ()
    """More than every request has."""

    def raw(self, host: str) -> bytes:
        """The request as it goes over the socket."""
        more = "".join(f"{name}: {value}\r\n" for name, value in self.headers)
        head = (
            f"POST {CHAT_PATH} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {TOKEN}\r\n"
            f"Content-Type: application/json\r\n{more}Content-Length: {len(self.body)}\r\n\r\n"
        )
        return head.encode() + self.body


def _ask(streamed: bool, user: str = "bench", question: str = _QUESTION) -> Ask:
    message = {"role": "user", "content": question}
    body: dict[str, object] = {"model": ALIAS, "messages": [message], "temperature": 0.2, "user": user}
    if streamed:
        body["stream"] = True
    return Ask(msgspec.json.encode(body), streamed)


JSON_ASK = _ask(streamed=False)
STREAM_ASK = _ask(streamed=True)
SLOW_STREAM_ASK = _ask(streamed=True, user=SLOW_MARK)


def long_ask(body_bytes: int) -> Ask:
    """A request for JSON whose prompt makes the whole body about that long: documents put before a question."""
    if body_bytes < _SMALLEST_PROMPT_BYTES:
        raise ValueError(f"no long prompt: {body_bytes} bytes")
    paragraph = _QUESTION + "\n\n"
    return _ask(streamed=False, question=paragraph * round(body_bytes / (len(paragraph) + 2)))  # Each \n becomes two.


def _answer() -> bytes:
    return msgspec.json.encode(
        {
            "id": "chatcmpl-bench0000000000000000000000",
            "object": "chat.completion",
            "created": 1_700_000_000,
            "model": PROVIDER_MODEL,
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": "".join(_WORDS) * 14, "refusal": None},
                    "logprobs": None,
                    "finish_reason": "stop",
                }
            ],
            "usage": {"prompt_tokens": 83, "completion_tokens": 140, "total_tokens": 223},
            "system_fingerprint": "fp_bench",
        }
    )


def _event(delta: dict[str, str], finish_reason: str | None) -> bytes:
    chunk = {
        "id": "chatcmpl-bench0000000000000000000000",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": PROVIDER_MODEL,
        "system_fingerprint": "fp_bench",
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}],
    }
    return b"data: " + msgspec.json.encode(chunk) + b"\n\n"


def _events() -> tuple[bytes, ...]:
    texts = [_event({"content": _WORDS[n % len(_WORDS)]}, None) for n in range(EVENTS_PER_STREAM - 3)]
    first = _event({"role": "assistant", "content": ""}, None)
    return (first, *texts, _event({}, "stop"), b"data: [DONE]\n\n")


ANSWER = _answer()
EVENTS = _events()

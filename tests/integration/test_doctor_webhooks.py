"""What ``./sluice doctor`` tells of webhooks."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doctor import ECHO, Found, doctor, write
from tests.planted import planted
from tests.ports import closed_port
from tests.provider import Call, provider

SECRET = "whsec_" + "c2VjcmV0" * 4  # of no use to anybody: it stands in the environment


@pytest.fixture
def nobody() -> Iterator[int]:
    """A port where nobody is at home."""
    with closed_port() as port:
        yield port


async def test_the_way_to_each_webhook_is_gone_and_nothing_is_sent(tmp_path: Path, nobody: int) -> None:
    calls: list[Call] = []

    async def behave(call: Call) -> None:
        calls.append(call)
        await call.answer({})

    path = planted("hook-path")
    async with provider(behave) as receiver:
        config = write(
            tmp_path,
            f"""{ECHO}
webhooks:
  - {{name: open, url: "http://127.0.0.1:{receiver.port}/{path}", secret: "${{env:SECRET}}"}}
  - {{name: guarded, url: "http://127.0.0.1:{receiver.port}/{path}", secret: "${{env:SECRET}}", allow_private: false}}
  - {{name: closed, url: "http://127.0.0.1:{nobody}/{path}", secret: "${{env:SECRET}}"}}
""",
        )
        told = await doctor(config, SECRET=SECRET)
        assert [f"the webhook `open` is reached at 127.0.0.1:{receiver.port}"] == [
            each.what for each in told.fine if each.where.startswith("webhooks")
        ]
        assert ("webhooks[1].url", True) == _place(told.fault("`guarded` may not be connected to"), "allow_private")
        assert ("webhooks[2].url", True) == _place(told.fault("`closed` refuses connections"), "start it")
        told = await doctor(config, "--offline", status=0, SECRET=SECRET)
        assert [] == [each for each in told.fine if each.where.startswith("webhooks")]
    assert [] == calls


def _place(found: Found, mend: str) -> tuple[str, bool]:
    return found.where, mend in found.mend

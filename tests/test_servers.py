"""The real servers that other tests talk to answer by themselves."""

import json
from pathlib import Path

from openai import OpenAI

from tests.conftest import StartAimock


def test_aimock_answers_the_openai_sdk_from_fixtures(start_aimock: StartAimock, tmp_path: Path) -> None:
    fixtures = tmp_path / "chat.json"
    answer = {"match": {"userMessage": "hello"}, "response": {"content": "Good morning, gateway."}}
    fixtures.write_text(json.dumps({"fixtures": [answer]}))
    server = start_aimock(fixtures, chunk_chars=4)
    with OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as client:
        stream = client.chat.completions.create(
            model="gpt-4o", messages=[{"role": "user", "content": "hello"}], stream=True
        )
        with stream:
            pieces = [chunk.choices[0].delta.content or "" for chunk in stream]
    assert "Good morning, gateway." == "".join(pieces)
    assert 5 < len(pieces)

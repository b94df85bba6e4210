"""Every answer of the corpus, as the client takes it from a provider."""

import pytest

from tests.conformance.http1.client import differences, receive
from tests.conformance.http1.corpus import PLACE, answer_cases

CASES = answer_cases()


def test_the_corpus_of_answers_is_whole() -> None:
    assert len(CASES) >= 40
    assert len(CASES) == sum(path.read_text().count("[[case]]") for path in (PLACE / "answers").glob("*.toml"))


@pytest.mark.parametrize("pouring", [False, True], ids=["read", "passed on"])
@pytest.mark.parametrize("name", CASES)
async def test_an_answer_is_what_the_rfcs_say(name: str, pouring: bool) -> None:
    case = CASES[name]
    assert [] == differences(case, await receive([case.sent], case.method, ends=case.ends, pouring=pouring))

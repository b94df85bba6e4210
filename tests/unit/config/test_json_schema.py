"""The generated schema, and the files that must keep up with it: config.example.yaml, .env.example, the starter."""

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from jsonschema import Draft202012Validator

from config.document import Value, parse
from config.environment import parse_env_file
from config.json_schema import (
    SCHEMA_FILE,
    Schema,
    branches,
    changed_restart_keys,
    json_schema,
    render_json_schema,
    shape,
)
from config.load import load
from config.schema import (
    Config,
    Limit,
    LimitMatch,
    Management,
    MetricsSettings,
    Price,
    Quotas,
    Redis,
    Server,
    Storage,
    Telemetry,
    Usage,
    Webhook,
    WebhookDelivery,
    WebhookTls,
)
from config.starter import starter_config
from config.substitute import Resolved
from config.validation import validate
from core.secret import Secret

DEFINITIONS = json_schema()["$defs"]
ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "config.example.yaml"
ENV_EXAMPLE = ROOT / ".env.example"


def test_schema_json_is_current() -> None:
    assert render_json_schema() == SCHEMA_FILE.read_text(encoding="utf-8"), "./sluice schema > config/schema.json"


def test_the_schema_is_a_schema() -> None:
    Draft202012Validator.check_schema(json_schema())


def test_every_rule_of_the_schema_has_a_wording() -> None:
    rules = {
        key
        for definition in _walk(json_schema())
        for key in definition
        if key not in {"$schema", "$ref", "$defs", "title", "description", "default", "properties", "items"}
        and not key.startswith("x-")
    }
    worded = {"type", "enum", "required", "additionalProperties", "anyOf", "pattern"}
    worded |= {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minItems", "maxItems"}
    worded |= {"minLength", "maxLength"}
    assert rules <= worded


def _walk(schema: object) -> Iterator[dict[str, object]]:
    """Every schema inside a schema."""
    if isinstance(schema, list):
        for each in schema:
            yield from _walk(each)
    elif isinstance(schema, dict):
        yield {key: value for key, value in schema.items() if key not in ("properties", "$defs")}
        for key, value in schema.items():
            if key in ("properties", "$defs"):
                for inner in value.values():
                    yield from _walk(inner)
            elif key in ("items", "anyOf", "additionalProperties"):
                yield from _walk(value)


def test_secrets_are_marked() -> None:
    api_key = json_schema()["$defs"]["Credential"]["properties"]["api_key"]
    assert {"type": "string", "x-secret": True} == api_key["anyOf"][0]
    assert shape().at("management").at("admin_key_hash").secret
    assert not shape().at("management").at("listen").secret


def test_every_key_is_described() -> None:
    undescribed = [
        f"{name}.{key}"
        for name, definition in json_schema()["$defs"].items()
        for key, inner in definition["properties"].items()
        if "description" not in inner
    ]
    assert [] == undescribed


def test_defaults_of_the_schema_are_valid() -> None:
    document = parse(b"", "f")
    rendered = json.loads(render_json_schema())
    for key, inner in rendered["$defs"]["Config"]["properties"].items():
        assert [] == validate({key: inner["default"]}, document.place, {})


def test_changed_keys_that_need_a_restart_are_named() -> None:
    before = Config(server=Server(workers=1), telemetry=Telemetry(access_log=True))
    assert () == changed_restart_keys(before, Config(telemetry=Telemetry(metrics=MetricsSettings(public=True))))
    after = Config(
        server=Server(workers=2, drain_seconds=1.0),
        management=Management(listen="127.0.0.1:1", admin_key_hash=Secret.literal("x")),
    )
    assert (("server", "workers"), ("management", "listen")) == changed_restart_keys(before, after)


def test_a_secret_that_is_read_again_has_not_changed() -> None:
    def config(url: str | None) -> Config:
        return Config(storage=Storage(url=Secret.literal(url) if url is not None else None))

    assert () == changed_restart_keys(config("sqlite:///a"), config("sqlite:///a"))
    for before, after in (("sqlite:///a", "sqlite:///b"), (None, "sqlite:///a"), ("sqlite:///a", None)):
        assert (("storage", "url"),) == changed_restart_keys(config(before), config(after))


def test_the_example_loads_with_the_example_environment() -> None:
    loaded = load(EXAMPLE, parse_env_file(ENV_EXAMPLE.read_bytes(), ".env.example"))
    assert () == loaded.notices
    assert None is loaded.config.management.admin_key_hash


def test_the_example_mentions_every_key() -> None:
    # Behind `#:` stands what names files that there are none of here.
    document = parse(EXAMPLE.read_bytes().replace(b"#: ", b""), "config.example.yaml")
    every = {(name, key) for name, definition in DEFINITIONS.items() for key in definition["properties"]}
    assert set() == every - set(_used(document.value, json_schema()))


def test_each_key_of_limits_prices_usage_and_webhooks_has_an_example_in_the_docs() -> None:
    used: set[tuple[str, str]] = set()
    for page in ("limits", "prices", "usage", "webhooks"):
        for text in re.findall(
            r"^```yaml\n(.*?)^```$", (ROOT / f"docs/{page}.md").read_text(), re.MULTILINE | re.DOTALL
        ):
            document = parse(text.encode(), f"docs/{page}.md")
            assert [] == validate(cast(Resolved, document.value), document.place, {}), text
            used |= set(_used(document.value, json_schema()))
    # A shared limit has the keys of a limit.
    used |= {("Limit", key) for section, key in used if section == "SharedLimit"}
    sections = (Limit, LimitMatch, Quotas, Redis, Price, Usage, Webhook, WebhookTls, WebhookDelivery)
    every = {(each.__name__, key) for each in sections for key in DEFINITIONS[each.__name__]["properties"]}
    every |= {("Provider", "limits"), ("Provider", "include_usage"), ("Credential", "limits"), ("Token", "limits")}
    every |= {("SharedLimit", "match"), ("SharedLimit", "each")}
    assert set() == every - used


def test_the_environment_example_names_what_the_example_refers_to() -> None:
    names = set(parse_env_file(ENV_EXAMPLE.read_bytes(), ".env.example"))
    text = "\n".join(line.partition("#")[0] for line in EXAMPLE.read_text(encoding="utf-8").splitlines())
    used = {part.split("}")[0].split(":-")[0] for part in text.split("${env:")[1:]}
    assert used - {"PUBLIC_URL"} == names


def _used(value: Value, schema: Schema) -> Iterator[tuple[str, str]]:
    """(section, key) of every key in ``value``, which is of ``schema``."""
    for branch in branches(schema, DEFINITIONS):
        if isinstance(value, dict) and branch.get("type") == "object":
            for key, below in value.items():
                inner = branch.get("properties", {}).get(key)
                if inner is not None:
                    yield branch["title"], key
                    yield from _used(below, inner)
        elif isinstance(value, list) and "items" in branch:
            for below in value:
                yield from _used(below, branch["items"])


def test_the_starter_loads_and_lets_its_token_in(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"sk-sluice-test").hexdigest()
    path = tmp_path / "config.yaml"
    path.write_text(starter_config(digest), encoding="utf-8")
    loaded = load(path, {})
    config = loaded.config
    assert () == loaded.notices
    assert (digest, ("*",)) == (config.tokens[0].sha256, config.tokens[0].models)
    assert [("fast", "echo/echo-small")] == [(alias.from_, alias.to) for alias in config.model_aliases]
    assert ("echo",) == tuple(provider.type for provider in config.providers)
    assert None is config.management.admin_key_hash


def test_the_commented_provider_of_the_starter_loads_too(tmp_path: Path) -> None:
    text = starter_config("0" * 64)
    assert 1 == text.count("#- {name: openai")
    path = tmp_path / "config.yaml"
    path.write_text(text.replace("#- {name: openai", "- {name: openai"), encoding="utf-8")
    assert ("echo", "openai") == tuple(p.name for p in load(path, {"OPENAI_API_KEY": "k"}).config.providers)


@pytest.mark.parametrize("key", ["anything", "at", "all"])
def test_free_form_places_take_everything(key: str) -> None:
    free = shape().at("providers").items
    assert free is not None
    assert (frozenset(), True) == (free.at("options").at(key).types, free.at("options").at(key).takes_text)

"""Common vendors, as beginnings of an entry of `providers`: plain data, which changes nothing by itself.

Each row is what the vendor's page says (``docs``). To add a vendor: one row.
"""

import msgspec

from core.identity import Role
from management.handler.base import ManagementHandler
from management.handler.operation import operation
from management.handler.permit import requires

_COMPATIBLE = "openai-compatible"


class ProviderTemplate(msgspec.Struct, frozen=True, kw_only=True):
    """What an entry for a vendor's models looks like."""

    id: str
    title: str
    type: str
    base_url: str | None = None
    """null: the type's own."""
    fill_in: str | None = None
    """The part of `base_url` that is yours to replace."""
    api_key: str | None = None
    """A reference to where the key usually is; null: the server needs none."""
    models: tuple[str, ...] = ()
    """Globs of the names by which its models can be asked for without a prefix."""
    notes: str = ""
    docs: str | None
    """The vendor's page."""


class ProviderTemplateList(msgspec.Struct, frozen=True, kw_only=True):
    """All templates."""

    data: tuple[ProviderTemplate, ...]
    next_cursor: None = None


TEMPLATES: tuple[ProviderTemplate, ...] = (
    ProviderTemplate(
        id="openai",
        title="OpenAI",
        type="openai",
        api_key="${env:OPENAI_API_KEY}",
        models=(
            "gpt-*",
            "o[1-9]*",
            "chatgpt-*",
            "text-embedding-*",
            "whisper-*",
            "tts-*",
            "dall-e-*",
            "omni-moderation-*",
        ),
        docs="https://platform.openai.com/docs/api-reference/introduction",
    ),
    ProviderTemplate(
        id="anthropic",
        title="Anthropic",
        type=_COMPATIBLE,
        base_url="https://api.anthropic.com/v1",
        api_key="${env:ANTHROPIC_API_KEY}",
        models=("claude-*",),
        notes=(
            "Through its OpenAI-compatible endpoint, which Anthropic means for trying models out: chat completions, "
            "without prompt caching and some other features. Its list of models may not be readable this way."
        ),
        docs="https://platform.claude.com/docs/en/api/openai-sdk",
    ),
    ProviderTemplate(
        id="gemini",
        title="Google Gemini",
        type=_COMPATIBLE,
        base_url="https://generativelanguage.googleapis.com/v1beta/openai",
        api_key="${env:GEMINI_API_KEY}",
        models=("gemini-*",),
        notes="Through its OpenAI-compatible endpoint. Its list writes the names with `models/` before them.",
        docs="https://ai.google.dev/gemini-api/docs/openai",
    ),
    ProviderTemplate(
        id="azure-openai",
        title="Azure OpenAI",
        type=_COMPATIBLE,
        base_url="https://YOUR-RESOURCE.openai.azure.com/openai/v1",
        fill_in="YOUR-RESOURCE",
        api_key="${env:AZURE_OPENAI_API_KEY}",
        notes="Through its v1 API, which needs no `api-version`. A model is asked for by the name of its deployment.",
        docs="https://learn.microsoft.com/azure/foundry/openai/api-version-lifecycle",
    ),
    ProviderTemplate(
        id="openrouter",
        title="OpenRouter",
        type=_COMPATIBLE,
        base_url="https://openrouter.ai/api/v1",
        api_key="${env:OPENROUTER_API_KEY}",
        notes="Names have a vendor before them: ask for `openrouter/VENDOR/MODEL`, or by an alias.",
        docs="https://openrouter.ai/docs/quickstart",
    ),
    ProviderTemplate(
        id="groq",
        title="Groq",
        type=_COMPATIBLE,
        base_url="https://api.groq.com/openai/v1",
        api_key="${env:GROQ_API_KEY}",
        docs="https://console.groq.com/docs/openai",
    ),
    ProviderTemplate(
        id="mistral",
        title="Mistral AI",
        type=_COMPATIBLE,
        base_url="https://api.mistral.ai/v1",
        api_key="${env:MISTRAL_API_KEY}",
        models=("mistral-*", "ministral-*", "magistral-*", "codestral-*", "devstral-*", "pixtral-*"),
        docs="https://docs.mistral.ai/api",
    ),
    ProviderTemplate(
        id="deepseek",
        title="DeepSeek",
        type=_COMPATIBLE,
        base_url="https://api.deepseek.com",
        api_key="${env:DEEPSEEK_API_KEY}",
        models=("deepseek-*",),
        docs="https://api-docs.deepseek.com",
    ),
    ProviderTemplate(
        id="together",
        title="Together AI",
        type=_COMPATIBLE,
        base_url="https://api.together.ai/v1",
        api_key="${env:TOGETHER_API_KEY}",
        notes="Names have a vendor before them: ask for `together/VENDOR/MODEL`, or by an alias.",
        docs="https://docs.together.ai/docs/inference/openai-compatibility",
    ),
    ProviderTemplate(
        id="fireworks",
        title="Fireworks AI",
        type=_COMPATIBLE,
        base_url="https://api.fireworks.ai/inference/v1",
        api_key="${env:FIREWORKS_API_KEY}",
        models=("accounts/fireworks/*",),
        docs="https://docs.fireworks.ai/tools-sdks/openai-compatibility",
    ),
    ProviderTemplate(
        id="xai",
        title="xAI",
        type=_COMPATIBLE,
        base_url="https://api.x.ai/v1",
        api_key="${env:XAI_API_KEY}",
        models=("grok-*",),
        docs="https://docs.x.ai/docs/api-reference",
    ),
    ProviderTemplate(
        id="perplexity",
        title="Perplexity",
        type=_COMPATIBLE,
        base_url="https://api.perplexity.ai",
        api_key="${env:PERPLEXITY_API_KEY}",
        models=("sonar*",),
        notes="It has no list of models at this address: test it with a `model`.",
        docs="https://docs.perplexity.ai",
    ),
    ProviderTemplate(
        id="cohere",
        title="Cohere",
        type=_COMPATIBLE,
        base_url="https://api.cohere.ai/compatibility/v1",
        api_key="${env:COHERE_API_KEY}",
        models=("command-*", "embed-*"),
        notes="Through its compatibility API: chat completions and embeddings. Test it with a `model`.",
        docs="https://docs.cohere.com/docs/compatibility-api",
    ),
    ProviderTemplate(
        id="ollama",
        title="Ollama",
        type=_COMPATIBLE,
        base_url="http://127.0.0.1:11434/v1",
        docs="https://docs.ollama.com/api/openai-compatibility",
    ),
    ProviderTemplate(
        id="vllm",
        title="vLLM",
        type=_COMPATIBLE,
        base_url="http://127.0.0.1:8000/v1",
        notes="Started with `--api-key`, it needs a credential of that key.",
        docs="https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html",
    ),
    ProviderTemplate(
        id="lm-studio",
        title="LM Studio",
        type=_COMPATIBLE,
        base_url="http://127.0.0.1:1234/v1",
        docs="https://lmstudio.ai/docs/developer/openai-compat",
    ),
    ProviderTemplate(
        id="llama.cpp",
        title="llama.cpp",
        type=_COMPATIBLE,
        base_url="http://127.0.0.1:8081/v1",
        notes="Its server listens on port 8080 by default, as Sluice does: start it with `--port 8081`.",
        docs="https://github.com/ggml-org/llama.cpp/tree/master/tools/server",
    ),
    ProviderTemplate(
        id="echo",
        title="Echo",
        type="echo",
        notes="Answers by itself, without a network or a key: to try clients and rehearse faults.",
        docs=None,
    ),
)


class ProviderTemplates(ManagementHandler):
    """``/api/v1/provider-templates``."""

    @operation(
        requires(Role.POWER_USER),
        summary="Common vendors, as beginnings of a provider's entry.",
        answers={200: ProviderTemplateList},
    )
    async def get(self) -> None:
        self.write_json(ProviderTemplateList(data=TEMPLATES))

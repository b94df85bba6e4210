"""Public endpoints and scopes of servers that are well known; no client's id, no secret: an operator registers a client.

Each says where its endpoints are written down. Where a server publishes a discovery document that is meant to be used, that
counts for the endpoints that are not here.
"""

from typing import Final, Literal

import msgspec

from config.schema import TokenPlacement


class Template(msgspec.Struct, frozen=True, kw_only=True):
    """What counts where an entry of `oauth.providers` says nothing."""

    title: str
    """As people call it."""
    register_url: str
    """Where an operator registers a client, or reads how."""
    needs_client: bool = True
    """Whether there has to be a `client_id`."""
    issuer: str | None = None
    discovers: bool = False
    """Whether the issuer's discovery document counts for endpoints that are not here."""
    authorization_endpoint: str | None = None
    token_endpoint: str | None = None
    device_authorization_endpoint: str | None = None
    revocation_endpoint: str | None = None
    client_authentication: Literal["basic", "post"] = "basic"
    scopes: tuple[str, ...] = ()
    authorization_parameters: dict[str, str] = {}
    token_parameters: dict[str, str] = {}
    placement: TokenPlacement | None = TokenPlacement()
    """None: as the vendor's adapter places a key."""
    key_exchange: bool = False
    """A code is exchanged for an API key without end, in a way of its own."""


_ENTRA = "https://login.microsoftonline.com/organizations/oauth2/v2.0"

TEMPLATES: Final[dict[str, Template]] = {
    # https://platform.claude.com/docs/en/manage-claude/oauth-apps/oauth-reference
    "claude": Template(
        title="Claude Platform OAuth",
        register_url="https://platform.claude.com/docs/en/manage-claude/oauth-apps/overview",
        issuer="https://identity.anthropic.com/users",
        authorization_endpoint="https://auth.claude.com/oauth/authorize",
        token_endpoint="https://auth.claude.com/v1/oauth/token",
        # The discovery document does not list it.
        revocation_endpoint="https://auth.claude.com/v1/oauth/revoke",
        # Scopes are those that the app was registered for; the entry names them.
    ),
    # https://developers.openai.com/siwc
    "openai": Template(
        title="Sign in with ChatGPT",
        register_url="https://developers.openai.com/siwc/quickstart",
        issuer="https://auth.openai.com",
        discovers=True,
        # The first three say who it is, the others let requests be made on the plan of who has signed in.
        scopes=("openid", "profile", "email", "offline_access", "resource.invoke", "chatgpt.tokens.use.direct"),
        authorization_parameters={"resource": "https://api.openai.com/v1"},
    ),
    # https://developers.google.com/identity/protocols/oauth2/web-server, https://ai.google.dev/gemini-api/docs/oauth
    "google": Template(
        title="Google",
        register_url="https://console.cloud.google.com/auth/clients",
        issuer="https://accounts.google.com",
        authorization_endpoint="https://accounts.google.com/o/oauth2/v2/auth",
        token_endpoint="https://oauth2.googleapis.com/token",
        # Its flow for devices gives none of these scopes.
        revocation_endpoint="https://oauth2.googleapis.com/revoke",
        client_authentication="post",
        scopes=(
            "openid",
            "email",
            "https://www.googleapis.com/auth/cloud-platform",
            "https://www.googleapis.com/auth/generative-language.retriever",
        ),
        # Without both there is a refresh token at the first sign-in alone, or none.
        authorization_parameters={"access_type": "offline", "prompt": "consent"},
    ),
    # https://docs.github.com/apps/creating-github-apps/authenticating-with-a-github-app/generating-a-user-access-token-for-a-github-app
    "github": Template(
        title="GitHub",
        register_url="https://github.com/settings/apps/new",
        authorization_endpoint="https://github.com/login/oauth/authorize",
        token_endpoint="https://github.com/login/oauth/access_token",
        device_authorization_endpoint="https://github.com/login/device/code",
        client_authentication="post",
        # A GitHub App has permissions (`models: read`) in the place of scopes.
    ),
    # https://learn.microsoft.com/entra/identity-platform/v2-oauth2-auth-code-flow. Of one directory alone: `issuer` of the
    # entry, whose document counts before these.
    "azure": Template(
        title="Microsoft Entra ID",
        register_url="https://learn.microsoft.com/entra/identity-platform/quickstart-register-app",
        authorization_endpoint=f"{_ENTRA}/authorize",
        token_endpoint=f"{_ENTRA}/token",
        device_authorization_endpoint=f"{_ENTRA}/devicecode",
        client_authentication="post",
        scopes=("https://cognitiveservices.azure.com/.default", "openid", "email", "offline_access"),
    ),
    # https://openrouter.ai/docs/guides/overview/auth/oauth
    "openrouter": Template(
        title="OpenRouter",
        register_url="https://openrouter.ai/docs/guides/overview/auth/oauth",
        needs_client=False,
        authorization_endpoint="https://openrouter.ai/auth",
        token_endpoint="https://openrouter.ai/api/v1/auth/keys",
        placement=None,
        key_exchange=True,
    ),
    # https://huggingface.co/docs/hub/oauth
    "huggingface": Template(
        title="Hugging Face",
        register_url="https://huggingface.co/settings/applications/new",
        issuer="https://huggingface.co",
        discovers=True,
        authorization_endpoint="https://huggingface.co/oauth/authorize",
        token_endpoint="https://huggingface.co/oauth/token",
        scopes=("openid", "profile", "inference-api"),
    ),
}

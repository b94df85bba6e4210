"""The `config.yaml` of a first run: small, commented, to be edited live."""

_STARTER = """\
# Sluice's configuration. Save it while the gateway runs: a good edit is live at once, a bad one changes nothing and
# is told with its line. Every key that there is, explained: config.example.yaml

providers:
  # Answers by itself, without a key or a network. Ask for echo/stall, echo/cut or echo/status-503 to rehearse faults.
  - name: echo
    type: echo
    models: [echo-small, echo-large]

  # A real one: remove the `#` of the line below, and ask for openai/gpt-4o-mini. The environment is read at the start
  # alone: stop the gateway, `export OPENAI_API_KEY=…`, start it again. Or keep the key in a file, which is read at
  # each use, and write "${{file:openai.key}}".
  #- {{name: openai, type: openai, credentials: [{{name: main, api_key: "${{env:OPENAI_API_KEY}}"}}]}}

model_aliases:
  # Callers ask for `fast`; edit `to`, and the next request goes elsewhere.
  - {{from: fast, to: echo/echo-small}}

tokens:
  # Who may call: the SHA-256 of the token that the first run showed. Of another: printf %s TOKEN | sha256sum
  - name: first
    sha256: "{token_sha256}"
    models: ["*"]

management:
  # The hash of the admin key, which opens /api/v1. Print one: ./sluice hash-key
  admin_key_hash: null
"""


def starter_config(token_sha256: str) -> str:
    """The text of the file, with a token whose SHA-256 is ``token_sha256`` (64 hexadecimal digits)."""
    return _STARTER.format(token_sha256=token_sha256)

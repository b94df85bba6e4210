"""How the gateway calls providers: pools of credentials."""

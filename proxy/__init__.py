"""The data plane: from a client's request to a provider's answer."""

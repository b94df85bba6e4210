"""Vault: the values that `${vault:…}` references name, kept fresh beside the requests that use them."""

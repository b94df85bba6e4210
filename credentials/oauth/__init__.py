"""OAuth 2.0 as a client: sign-ins, and tokens that are exchanged for fresh ones."""

"""Telling the configured receivers of webhooks."""

"""Secrets in REST answers, where clients expect null instead of the SDK's asterisks."""

from __future__ import annotations

from typing import Any

from service.redaction import REDACTED_SECRET


def null_secrets(value: Any) -> Any:
    """JSON with null for each redacted value; redacted headers are left out."""
    if isinstance(value, dict):
        return {
            key: {name: text for name, text in item.items() if text != REDACTED_SECRET}
            if key == "headers" and isinstance(item, dict)
            else null_secrets(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [null_secrets(item) for item in value]
    return None if value == REDACTED_SECRET else value

"""What is asked of webhooks, by name."""

from __future__ import annotations

import json

from service.requests.message import Answer, Request
from service.runner.operations.table import Operation, answered
from service.runner.webhooks.webhooks import Webhooks


class WebhookOperations:
    """Those of the posts that this runner makes."""

    def __init__(self, webhooks: Webhooks) -> None:
        self._webhooks = webhooks
        self.table: dict[str, Operation] = {"webhooks.redeliver": self._redeliver}

    async def _redeliver(self, request: Request) -> Answer:
        outcomes = await self._webhooks.letters.redeliver(json.loads(request.body)["delivery_ids"])
        return answered(outcomes)

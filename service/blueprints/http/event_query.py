"""The filters of `events/search` and `events/count`, and which events pass them."""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field

from service.store.event_log import EventFacts


class EventSortOrder(Enum):
    """The contract's names; the log's order is the order of time."""

    TIMESTAMP = "TIMESTAMP"
    TIMESTAMP_DESC = "TIMESTAMP_DESC"


def _plus_is_no_space(value: object) -> object:
    """A `+` in a query string means a space; clients that forget to encode it mean the offset."""
    return value.replace(" ", "+", 1) if isinstance(value, str) and "T" in value else value


def _as_stamped(moment: datetime) -> datetime:
    """A moment as events are stamped: the server's local time, naive."""
    try:
        return moment if moment.tzinfo is None else moment.astimezone().replace(tzinfo=None)
    except OverflowError:
        raise ValueError("not representable in the server's time zone") from None


Moment = Annotated[datetime, BeforeValidator(_plus_is_no_space), AfterValidator(_as_stamped)]


class EventFilter(BaseModel):
    """Filters combine with AND."""

    kind: str | None = Field(default=None, description="Class name, or module path and class name.")
    source: str | None = None
    body: str | None = Field(default=None, description="Text to find in messages, in any case.")
    timestamp__gte: Moment | None = None
    timestamp__lt: Moment | None = None

    @property
    def is_empty(self) -> bool:
        return all(getattr(self, name) is None for name in EventFilter.model_fields)

    def select(self, facts: list[EventFacts], seqs: range) -> list[int]:
        """The seqs, in the order given, whose events pass."""
        kind = None if self.kind is None else self.kind.rpartition(".")[2]
        text = None if self.body is None else self.body.lower()
        since = None if self.timestamp__gte is None else self.timestamp__gte.isoformat()
        until = None if self.timestamp__lt is None else self.timestamp__lt.isoformat()
        return [
            seq
            for seq in seqs
            if (kind is None or facts[seq].kind == kind)
            and (self.source is None or facts[seq].source == self.source)
            and (text is None or (facts[seq].kind == "MessageEvent" and text in facts[seq].text))
            and (since is None or facts[seq].timestamp >= since)
            and (until is None or facts[seq].timestamp < until)
        ]


class EventSearch(EventFilter):
    """Query of `events/search`."""

    page_id: str | None = None
    limit: int = Field(default=100, gt=0, le=100)
    sort_order: EventSortOrder = EventSortOrder.TIMESTAMP

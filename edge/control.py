"""What parent and workers tell each other (:mod:`streamgate.core.channel`), and how an event of the feed is told."""

from __future__ import annotations

from streamgate.core.channel import Channel, Message
from streamgate.storage.kv.events import Event

__all__ = ["Channel", "Message", "event_to_message", "message_to_event"]


def event_to_message(event: Event) -> Message:
    """An event as JSON can carry it."""
    return {"id": event.id, "type": event.type, "subject": event.subject.hex(), "until": event.until}


def message_to_event(message: Message) -> Event:
    """The event again."""
    return Event(message["id"], message["type"], bytes.fromhex(message["subject"]), message["until"])

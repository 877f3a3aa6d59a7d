"""Sockets and server-sent events: what is told as it happens."""

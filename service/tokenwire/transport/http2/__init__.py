"""A transport of our own: HTTP/2 by `h2` on asyncio, with a short way for messages (docs/decisions/0018)."""

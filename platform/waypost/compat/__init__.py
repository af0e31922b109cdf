"""The interfaces of other routing libraries over Waypost's routers and engines."""

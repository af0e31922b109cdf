"""Sessions: what of a conversation is routed on, its turns, and the token of its last answer."""

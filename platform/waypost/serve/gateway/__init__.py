"""The HTTP side of the gateway: OpenAI's API, checked requests, answers, errors."""

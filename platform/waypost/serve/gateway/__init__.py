"""The HTTP gateway: OpenAI's API, validation of requests, answers, errors."""

"""What the gateway has of one plan."""

from __future__ import annotations

from waypost.serve.backends.dispatcher import Dispatcher
from waypost.serve.gateway.feedback import Recording
from waypost.serve.gateway.handler import Answering
from waypost.serve.gateway.metrics import Metrics
from waypost.serve.gateway.openapi import document
from waypost.serve.gateway.requests import Parser
from waypost.serve.gateway.responses import dumps


class Graph:
    """State of one plan. A changed plan has another; a request keeps the one it began with."""

    def __init__(self, dispatcher: Dispatcher, metrics: Metrics, recording: Recording) -> None:
        plan = dispatcher.plan
        self.plan = plan
        self.dispatcher = dispatcher
        self.parser = Parser(plan, recording.turns)
        self.answering = Answering(plan, dispatcher, metrics, recording)
        self.openapi = dumps(document(plan))

"""What became of requests, and what people said of it: decision log and feedback store."""

from __future__ import annotations

from waypost.feedback.decision_log import DECISION_SCHEMA, DecisionLog
from waypost.feedback.decisions import read_decisions
from waypost.feedback.forgetting import forget_user
from waypost.feedback.ledger import Retention, Row, Taken
from waypost.feedback.log_folder import FORGOTTEN, read_forgotten
from waypost.feedback.outcome import Arm, Outcome, query_digest
from waypost.feedback.reading import Rated, read_rated
from waypost.feedback.store import FeedbackStore, FolderWriter, Writer

__all__ = [
    "Arm",
    "DECISION_SCHEMA",
    "DecisionLog",
    "FORGOTTEN",
    "FeedbackStore",
    "FolderWriter",
    "Outcome",
    "Rated",
    "Retention",
    "Row",
    "Taken",
    "Writer",
    "forget_user",
    "query_digest",
    "read_decisions",
    "read_forgotten",
    "read_rated",
]

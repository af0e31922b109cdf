"""Models of a Serve config for what is kept of requests: feedback and the decision log."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from waypost.config import StrictModel
from waypost.serve.limits import Folder, Positive
from waypost.storage import is_uri

NODE, HEAD = "node", "head"

Days = Annotated[float, Field(gt=0)]


def _local(folder: str) -> str:
    if is_uri(folder):
        raise ValueError("expected a folder on a disk of the machine, found a URI")
    return folder


class KeepArgs(StrictModel):
    """What is kept of requests, and where.

    Attributes:
        feedback_dir: Folder of feedback, of the answers that can be rated, and of what personal
            routers learn of users, on a disk of the machine that ``store_place`` says. null keeps
            none.
        feedback_days: Days after which an answer can no longer be rated.
        remember_decisions: Number of latest answers of all replicas that can be rated.
        store_place: Where ``feedback_dir`` lies: ``node``, on each machine for its own gateway
            replicas; ``head``, on Ray's head node for those of all machines; another name is the
            custom Ray resource of the one machine that has it.
        decision_log: Folder or URI of a parquet row for every decision; null keeps none.
        log_queries: Store the text that was routed on in ``feedback_dir`` and ``decision_log``.
    """

    feedback_dir: Annotated[str, AfterValidator(_local)] | None = None
    feedback_days: Days = 7.0
    remember_decisions: Positive = 100_000
    store_place: str = Field(default=NODE, min_length=1)
    decision_log: Folder | None = None
    log_queries: bool = False

    @model_validator(mode="after")
    def _place_is_of_a_folder(self) -> KeepArgs:
        meant = self.store_place.lower().rstrip("s")
        if self.store_place not in (NODE, HEAD) and meant in (NODE, HEAD):
            raise ValueError(f"store_place: {self.store_place}: did you mean {meant}?")
        if self.store_place != NODE and self.feedback_dir is None:
            raise ValueError("store_place says where feedback_dir lies: set feedback_dir, too")
        if self.log_queries and self.feedback_dir is None and self.decision_log is None:
            raise ValueError("log_queries keeps texts in feedback_dir and decision_log: set one")
        return self

    @property
    def owned(self) -> bool:
        """Whether one process owns ``feedback_dir``, for gateways on all machines."""
        return self.feedback_dir is not None and self.store_place != NODE


class KeepChanges(StrictModel):
    """What of `KeepArgs` changes without a restart.

    Attributes:
        feedback_days, remember_decisions, log_queries: Other values than those of the arguments;
            null keeps these. Texts that are kept already stay.
    """

    feedback_days: Days | None = None
    remember_decisions: Positive | None = None
    log_queries: bool | None = None

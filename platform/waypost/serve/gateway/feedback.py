"""``POST /v1/feedback``, and the records of requests that feedback and the decision log need."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from waypost.contracts.errors import WaypostError
from waypost.contracts.feedback import FeedbackEvent
from waypost.contracts.generation import Usage
from waypost.feedback import DecisionLog, FeedbackStore, Outcome, Retention, Taken, Writer
from waypost.serve.backends.base import RouterClient
from waypost.serve.backends.dispatcher import Decided
from waypost.serve.backends.failures import ExhaustedError
from waypost.serve.backends.messages import StaleDecisionError
from waypost.serve.gateway.errors import Problem
from waypost.serve.gateway.metrics import Metrics
from waypost.serve.gateway.reading import read_body, read_extras
from waypost.serve.gateway.recent import Recent
from waypost.serve.gateway.requests import Call
from waypost.serve.gateway.schemas import FeedbackBody, FeedbackItem
from waypost.serve.gateway.shadows import Shadows
from waypost.serve.gateway.turns import kept_turns, sweep
from waypost.serve.plan import Plan
from waypost.sessions.kept_turns import key_of

MAX_FEEDBACK_BYTES = 1024 * 1024

KEY_HEADER = "idempotency-key"

_DAY_S = 86_400.0
_MAX_ERROR = 500
_STATUS = {"kept": 200, "unknown": 404, "too_old": 410, "conflict": 409}
_CODE = {"unknown": "unknown_request", "too_old": "request_too_old", "conflict": "key_conflict"}
_PARAM = {"conflict": "idempotency_key"}


class Recording:
    """Keeps what becomes of requests, as far as the plan wants it.

    Args:
        plan: The graph.
        router: Client of the routers, for shadows.
        metrics: Counts the decisions of shadows, and ratings.
        writer: Writes the folder of feedback; None writes it from here.

    Attributes:
        turns: Turns of users; None where none are kept.
        recent: The latest decisions.
    """

    def __init__(
        self, plan: Plan, router: RouterClient, metrics: Metrics, writer: Writer | None = None
    ) -> None:
        self._metrics = metrics
        self._store: FeedbackStore | None = None
        self._log: DecisionLog | None = None
        self._shadows: Shadows | None = None
        self.turns = kept_turns(plan)
        self._sweeping: asyncio.Task[None] | None = None
        self.recent = Recent()
        if plan.feedback_dir is not None:
            self._store = FeedbackStore(
                Path(plan.feedback_dir) if writer is None else writer,
                keep_queries=plan.log_queries,
                most=plan.remember_decisions,
                max_age_s=plan.feedback_days * _DAY_S,
            )
        if plan.decision_log is not None:
            self._log = DecisionLog(plan.decision_log, keep_queries=plan.log_queries)
            self._shadows = Shadows(router, self._log.add, metrics.shadow)
        self.adopt(plan)

    def adopt(self, plan: Plan) -> None:
        """Take over from a changed plan what changes without a restart."""
        self._plan = plan
        self.recent.texts = plan.log_queries
        if self._store is not None:
            self._store.keep_queries = plan.log_queries
            self._store.retention = Retention(plan.remember_decisions, plan.feedback_days * _DAY_S)
        if self._log is not None:
            self._log.keep_queries = plan.log_queries
            self._log.exploration = plan.router.policy.exploration
        if self._shadows is not None:
            self._shadows.settings = plan.shadow

    @property
    def lost(self) -> int:
        """Number of records that could not be written."""
        return sum(one.lost for one in (self._store, self._log) if one is not None)

    async def start(self) -> None:
        """Open store and log.

        Raises:
            StorageError: one of them cannot be written.
        """
        if self._store is not None:
            await self._store.start()
        if self._log is not None:
            await self._log.start()
        if self.turns is not None:
            self._sweeping = asyncio.create_task(sweep(self.turns))

    async def settle(self) -> None:
        """Let shadow routers decide what waits for them."""
        if self._shadows is not None:
            await self._shadows.settle()

    async def close(self) -> None:
        """Write all that is pending."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        if self._store is not None:
            await self._store.close()
        await self.settle()
        if self._log is not None:
            await self._log.close()

    def keep(self, outcome: Outcome) -> None:
        """Keep what became of a request."""
        asked = outcome.query
        if "session" in asked:  # the texts of all earlier turns: only shadows read them
            outcome.query = {name: asked[name] for name in asked if name != "session"}
        self.recent.add(outcome)
        if self._store is not None and outcome.model is not None:
            self._store.remember(outcome)
        if self._shadows is not None:
            self._shadows.add(outcome, asked)

    def keep_turn(self, call: Call) -> None:
        """Keep the turn of a call that was answered, where turns are kept."""
        if self.turns is not None and call.said is not None:
            self.turns.add(*call.said)

    def forget_turns(self, headers: Mapping[str, str]) -> int:
        """Delete the turns of the user or session that headers name; return how many.

        Raises:
            Problem: no turns are kept, or no one is named.
        """
        if self.turns is None:
            message = "turns are not kept here: set retrieval.keep_turns"
            raise Problem(404, message, code="no_turns")
        extras = read_extras(None, headers)
        owner = key_of(extras.user_id, extras.session_id)
        if owner is None:
            param = "x-waypost-user-id"
            message = f"expected the header {param} or x-waypost-session-id"
            raise Problem(400, message, param=param, code="invalid_header")
        return self.turns.forget(owner)

    async def take(self, raw: bytes, headers: Mapping[str, str]) -> dict[str, Any]:
        """Take the body of ``POST /v1/feedback``; return the answer's once events are on disk.

        Raises:
            Problem: the body is wrong, or its single event is not kept.
        """
        body, _, _ = read_body(FeedbackBody, raw)
        if self._store is None:
            raise Problem(404, "feedback is not kept here: set feedback_dir", code="no_feedback")
        single = body.events is None
        items = [body] if body.events is None else body.events
        if not single and (body.model_fields_set - {"events"}):
            raise _wrong("events", "beside it no other field is allowed")
        header = headers.get(KEY_HEADER)
        if not single and header is not None:
            raise _wrong(KEY_HEADER, "with events each has its own idempotency_key")
        events = [
            read_event(item, "" if single else f"events[{i}].", header)
            for i, item in enumerate(items)
        ]
        try:
            taken = await self._store.add(events)
        except WaypostError:
            # its message names a path of this machine; it is in the log
            message = "feedback cannot be written now; send it again"
            raise Problem(
                503, message, code="feedback_unavailable", headers={"retry-after": "1"}
            ) from None
        for event, each in zip(events, taken, strict=True):
            if each.model is not None and event.rating is not None:
                self._metrics.rating(each.model, event.rating, each.predicted_quality)
        if single:
            if taken[0].status != "kept":
                raise self._problem(taken[0])
            return _kept(taken[0])
        return {"events": [self._told(each) for each in taken]}

    def _told(self, taken: Taken) -> dict[str, Any]:
        if taken.status == "kept":
            return {"status": int(HTTPStatus.OK), **_kept(taken)}
        problem = self._problem(taken)
        return {"status": problem.status, "request_id": taken.request_id, **problem.body}

    def _problem(self, taken: Taken) -> Problem:
        plan = self._plan
        where = "" if plan.owned else " of this machine"
        told = {
            "unknown": f"request_id: not among the latest {plan.remember_decisions} answers{where}",
            "too_old": f"request_id: was answered more than {plan.feedback_days:g} days ago",
            "conflict": "idempotency_key: came with another event before; send a new key",
        }
        param = _PARAM.get(taken.status, "request_id")
        return Problem(
            _STATUS[taken.status], told[taken.status], param=param, code=_CODE[taken.status]
        )


def _kept(taken: Taken) -> dict[str, Any]:
    return {
        "request_id": taken.request_id,
        "model": taken.model,
        "kept": True,
        "replaced": taken.replaced,
    }


def _wrong(param: str, message: str) -> Problem:
    return Problem(400, f"{param}: {message}", param=param, code="invalid_feedback")


def read_event(item: FeedbackItem, where: str, key: str | None = None) -> FeedbackEvent:
    """Return the event of a body.

    Args:
        item: The body, or one of its events.
        where: Path of the item, for messages.
        key: Idempotency key of the header.

    Raises:
        Problem: 400, naming what lacks.
    """
    given = item.model_dump(exclude={"comment", "events"}, exclude_none=True)
    if item.request_id is None:
        raise _wrong(f"{where}request_id", "is missing")
    for name in ("request_id", "other_request_id"):
        if name in given:
            given[name] = given[name].removeprefix("chatcmpl-").removeprefix("cmpl-")
    values = [name for name in ("rating", "preference", "verdict") if name in given]
    if len(values) != 1:
        message = "expected one of rating, preference and verdict"
        raise _wrong(f"{where}rating", f"{message}; found {' and '.join(values) or 'none'}")
    given.setdefault("kind", values[0])
    if item.comment is not None:
        if item.reason is not None:
            raise _wrong(f"{where}comment", "is the older name of reason; send one of them")
        given["reason"] = item.comment
    if key is not None:
        if item.idempotency_key not in (None, key):
            raise _wrong(f"{where}idempotency_key", f"differs from the header {KEY_HEADER}")
        given["idempotency_key"] = key
    try:
        return FeedbackEvent(**given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        param = ".".join(map(str, first["loc"])) or "other_request_id"
        raise _wrong(f"{where}{param}", first["msg"].removeprefix("Value error, ")) from None


class Record:
    """What becomes of one request; the first of `end` and `fail` counts.

    Args:
        recording: Keeps it.
        call: The call.
        decided: Its decision.
        begin: ``time.perf_counter`` at the arrival of the request.

    Attributes:
        first_token_s: Seconds until the first token of a stream; None where it is not there.
    """

    __slots__ = ("_call", "_decided", "_ended", "_recording", "begin", "first_token_s")

    def __init__(self, recording: Recording, call: Call, decided: Decided, begin: float) -> None:
        self._recording, self._call, self._decided = recording, call, decided
        self._ended = False
        self.begin = begin
        self.first_token_s: float | None = None

    def end(
        self,
        model: str | None,
        attempts: int = 0,
        usage: Usage | None = None,
        cost_usd: float | None = None,
        finish_reason: str | None = None,
        failed: frozenset[str] | tuple[str, ...] = (),
        error: str | None = None,
    ) -> None:
        """Keep the outcome; see `Outcome`."""
        if self._ended:
            return
        self._ended = True
        if model is not None:
            self._recording.keep_turn(self._call)
        self._recording.keep(
            Outcome(
                request_id=self._call.request_id,
                at=time.time(),
                query=self._call.query,
                decision=self._decided.decision,
                decision_s=self._decided.seconds,
                model=model,
                attempts=attempts,
                failed=sorted(failed) if failed else (),
                usage=usage,
                cost_usd=cost_usd,
                seconds=time.perf_counter() - self.begin,
                finish_reason=finish_reason,
                error=error,
                arm=self._call.arm,
                vector=self._decided.vector,
            )
        )

    def fail(self, error: BaseException) -> None:
        """Keep that there is no answer. A decision that is made again is not kept."""
        if isinstance(error, StaleDecisionError):
            return
        failures = error.failures if isinstance(error, ExhaustedError) else ()
        told = str(error)[:_MAX_ERROR] if isinstance(error, WaypostError) else ""
        self.end(
            None,
            len(failures),
            failed=frozenset(failure.model for failure in failures),
            error=f"{type(error).__name__}: {told}" if told else type(error).__name__,
        )

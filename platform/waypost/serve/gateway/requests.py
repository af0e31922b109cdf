"""Parse an HTTP request into a call: read and check body and ``x-waypost-*`` headers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from waypost.contracts.generation import GenerateRequest
from waypost.contracts.session import RouteOn
from waypost.feedback import Arm
from waypost.secrets import redact
from waypost.serve.dials import AUTO, advice, read_dial
from waypost.serve.gateway.chats import Chats, without_retrieval
from waypost.serve.gateway.errors import Problem
from waypost.serve.gateway.reading import read_body, read_extras
from waypost.serve.gateway.schemas import (
    MAX_SEED,
    PASSED_ON,
    ChatBody,
    ChatFields,
    CompletionBody,
    Generation,
    RouteBody,
)
from waypost.serve.plan import Plan
from waypost.sessions.conversation import Said
from waypost.sessions.kept_turns import KeptTurns, Key


@dataclass(frozen=True, slots=True)
class Call:
    """One request for answers, or for a decision.

    Attributes:
        request_id: Id given by the gateway.
        router: Name of the router to ask, or ``auto``; None where an LLM is pinned.
        pinned: The LLM that the client asked for by name.
        query: The query, as `Query.of` reads it.
        requests: One for each wanted answer; empty where only a decision is wanted.
        n: Number of answers to each prompt.
        stream: Whether to answer as server-sent events.
        include_usage: Whether to send the usage at the end of a stream.
        progress: Whether a stream tells the start and the end of each call of an episode.
        dropped: Fields of the body that no LLM gets.
        asked_tokens: Name and value of the limit of tokens that the client gave, if any.
        arm: The part of an experiment that chose the router.
        turn: Number of its turn in its session, from 1; 0 without a session.
        route_on: The part of the chat that is routed on.
        explain: Whether the answer tells all that is known of the decision.
        said: Whose turn is kept once it is answered, and its text; None where none is.
    """

    request_id: str
    router: str | None
    pinned: str | None
    query: dict[str, Any]
    requests: tuple[GenerateRequest, ...] = ()
    n: int = 1
    stream: bool = False
    include_usage: bool = False
    progress: bool = False
    dropped: tuple[str, ...] = ()
    asked_tokens: tuple[str, int] | None = None
    arm: Arm | None = None
    turn: int = 0
    route_on: RouteOn = "current_only"
    explain: bool = False
    said: tuple[Key, str] | None = None


class Parser:
    """Reads requests for one plan.

    Args:
        plan: The graph.
        kept: Turns of users; None where none are kept.
    """

    def __init__(self, plan: Plan, kept: KeptTurns | None = None) -> None:
        self._plan = plan
        self._models = {model.name: model for model in plan.models}
        self._stepping = plan.stepping
        self._encoding = plan.encoding
        self._chats = Chats(plan, kept)

    def chat(self, raw: bytes, headers: Mapping[str, str], request_id: str) -> Call:
        """Read a chat.

        Raises:
            Problem: 400 or 404.
        """
        body, data, unknown = read_body(ChatBody, raw, self._plan.unknown_fields)
        call = self._chat_target(body, headers, request_id, data["messages"])
        common = self._common(body, data, unknown)
        tools = {key: data[key] for key in ("tools", "tool_choice") if data.get(key) is not None}
        if not body.tools:
            _drop_void(tools, common["extra"])
        ids = self._ids(request_id, body.n or 1)
        requests = [
            GenerateRequest(id_, messages=data["messages"], **_seeded(common, i), **tools)
            for i, id_ in enumerate(ids)
        ]
        return self._with_requests(call, body, requests, unknown)

    def completion(self, raw: bytes, headers: Mapping[str, str], request_id: str) -> Call:
        """Read a text completion; each prompt has its own answers.

        Raises:
            Problem: 400 or 404.
        """
        body, data, unknown = read_body(CompletionBody, raw, self._plan.unknown_fields)
        prompts = [body.prompt] if isinstance(body.prompt, str) else body.prompt
        call = self._target(body, headers, request_id, [("user", "\n".join(prompts))], False)
        common = self._common(body, data, unknown)
        n = body.n or 1
        ids = self._ids(request_id, n * len(prompts))
        requests = [
            GenerateRequest(id_, prompt=prompts[i // n], **_seeded(common, i))
            for i, id_ in enumerate(ids)
        ]
        return self._with_requests(call, body, requests, unknown)

    def route(self, raw: bytes, headers: Mapping[str, str], request_id: str) -> Call:
        """Read a request for a decision only.

        Raises:
            Problem: 400 or 404.
        """
        body, data, unknown = read_body(RouteBody, raw, self._plan.unknown_fields)
        self._common(body, data, unknown)  # a decision has the same checks as an answer
        self._ids(request_id, body.n or 1)
        if "query" in data:
            return self._target(body, headers, request_id, [("user", body.query)], False)
        return self._chat_target(body, headers, request_id, data["messages"])

    def _chat_target(
        self,
        body: Generation,
        headers: Mapping[str, str],
        request_id: str,
        messages: list[dict[str, Any]],
    ) -> Call:
        said = [(m["role"], _text(m.get("content"))) for m in messages]
        return self._target(body, headers, request_id, said, _has_parts(messages))

    def _target(
        self,
        body: Generation,
        headers: Mapping[str, str],
        request_id: str,
        said: list[Said],
        has_parts: bool,
    ) -> Call:
        extras = read_extras(body.waypost, headers)
        if body.waypost is not None:  # a header that the body overrules is no less wrong
            self._check_known(read_extras(None, headers).allowed_models)
        allowed = self._allowed(extras.allowed_models, has_parts)
        pinned = body.model if body.model in self._models else None
        dial = read_dial(body.model, self._plan.router_names, self._plan.dials)
        if pinned is None and dial is None:
            routers = (AUTO, *self._plan.dials, *self._plan.router_names)
            raise self._unknown(body.model, 404, "model", "model_not_found", routers)
        if pinned is not None and allowed is not None and pinned not in allowed:
            what = "takes text only" if extras.allowed_models is None else "is not allowed"
            raise Problem(
                400, f"model: {pinned} is asked for but {what}", param="model", code="not_allowed"
            )
        user_id = extras.user_id or body.user or None
        chat = self._chats.read(said, extras, user_id)
        fields: dict[str, Any] = {
            **chat.query(),
            "lambda": dial.lam if dial is not None and extras.lam is None else extras.lam,
            "max_cost_usd": extras.max_cost_usd,
            "allowed_models": allowed,
            "user_id": user_id,
            "session_id": chat.session_id,
        }
        query = {key: value for key, value in fields.items() if value is not None}
        asked: dict[str, Any] = {
            "route_on": chat.mode,
            "explain": bool(body.waypost is not None and body.waypost.explain),
            "said": chat.turn,
        }
        if dial is None or pinned is not None:
            return Call(request_id, None, pinned, without_retrieval(query), **asked)
        experiment = self._plan.experiment if dial.router == AUTO else None
        arm = None if experiment is None else experiment.arm(query, request_id)
        router = dial.router if arm is None else arm.router
        if chat.retrieve is not None and router not in self._encoding:
            message = f"route_on: router {router} has no encoder, which compares the earlier turns"
            raise Problem(400, message, param="waypost.route_on", code="no_encoder")
        turn = 0
        if router in self._stepping:
            _check_one_answer(body)
        elif chat.place is not None:
            query["session"] = chat.place.session.to_dict()
            turn = chat.place.turn
        return Call(request_id, router, None, query, arm=arm, turn=turn, **asked)

    def _check_known(self, names: list[str] | None) -> None:
        for name in names or ():
            if name not in self._models:
                raise self._unknown(name, 400, "waypost.allowed_models", "unknown_model")

    def _allowed(self, wanted: list[str] | None, has_parts: bool) -> list[str] | None:
        self._check_known(wanted)
        if not has_parts:
            return wanted
        wide = [model.name for model in self._plan.models if model.multimodal]
        able = wide if wanted is None else [name for name in wanted if name in wide]
        if not able:
            raise Problem(
                400,
                "messages: images, audio and files need a model behind HTTP; none is allowed here",
                param="messages",
                code="text_only",
            )
        return able

    def _unknown(
        self, name: str, status: int, param: str, code: str, also: Sequence[str] = ()
    ) -> Problem:
        known = ", ".join((*also, *self._models))
        name = redact(name)  # before the cut: half of a key would not be redacted
        shown = name if len(name) <= 80 else f"{name[:80]}..."
        told = f"{param}: no model is named {shown!r}{advice(name)}; known: {known}"
        return Problem(status, told, param=param, code=code)

    def _common(
        self, body: Generation, data: dict[str, Any], unknown: dict[str, Any]
    ) -> dict[str, Any]:
        asked = _asked_tokens(body)
        stop = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
        extra = {k: value for k, value in data.items() if value is not None and k in PASSED_ON}
        if extra.get("logprobs") is False:  # the neutral value: nothing that an LLM could leave out
            del extra["logprobs"]
        if self._plan.unknown_fields == "pass":
            extra |= unknown
        if body.waypost is not None:
            extra |= body.waypost.extra or {}
        return {
            # coding clients ask for 32,000 unasked: capped, and named in x-waypost-ignored
            "max_tokens": None if asked is None else min(asked[1], self._plan.limits.max_tokens),
            "temperature": body.temperature,
            "top_p": body.top_p,
            "seed": body.seed,
            "stop": tuple(text for text in stop if text),
            "extra": extra,
        }

    def _ids(self, request_id: str, count: int) -> list[str]:
        most = self._plan.limits.max_choices
        if count > most:
            message = (
                f"n: expected at most {most} answers a request (n for each prompt), which "
                "limits.max_choices of the server sets"
            )
            raise Problem(400, message, param="n", code="too_many")
        return [request_id] if count == 1 else [f"{request_id}-{i}" for i in range(count)]

    def _with_requests(
        self,
        call: Call,
        body: Generation,
        requests: Sequence[GenerateRequest],
        unknown: Mapping[str, Any],
    ) -> Call:
        options = body.stream_options
        return replace(
            call,
            requests=tuple(requests),
            n=body.n or 1,
            stream=bool(body.stream),
            include_usage=bool(options is not None and options.include_usage),
            progress=bool(body.waypost is not None and body.waypost.progress),
            dropped=tuple(unknown) if self._plan.unknown_fields == "drop" else (),
            asked_tokens=_asked_tokens(body),
        )


def _drop_void(tools: dict[str, Any], extra: dict[str, Any]) -> None:
    """Drop what means nothing without a tool, and what upstreams refuse then."""
    tools.pop("tools", None)  # an empty list
    if tools.get("tool_choice") in ("auto", "none"):
        del tools["tool_choice"]
    extra.pop("parallel_tool_calls", None)


def _asked_tokens(body: Generation) -> tuple[str, int] | None:
    if isinstance(body, ChatFields) and body.max_completion_tokens is not None:
        return "max_completion_tokens", body.max_completion_tokens
    return None if body.max_tokens is None else ("max_tokens", body.max_tokens)


def _check_one_answer(body: Generation) -> None:
    """Refuse options that step routers do not support: they return one answer, which is a text.

    Raises:
        Problem: 400.
    """
    prompts = body.prompt if isinstance(body, CompletionBody) else ""
    several = {"n": (body.n or 1) > 1, "prompt": not isinstance(prompts, str) and len(prompts) > 1}
    tools = isinstance(body, ChatFields) and bool(body.tools)
    for field, given in (*several.items(), ("tools", tools)):
        if given:
            what = "answers with a text" if field == "tools" else "gives one answer a request"
            message = f"{field}: router {body.model} works in steps and {what}; ask a model by name"
            raise Problem(400, message, param=field, code="not_in_steps")


def _seeded(common: dict[str, Any], index: int) -> dict[str, Any]:
    # with the same seed all n answers would be equal
    seed = common["seed"]
    if not index or seed is None:
        return common
    return {**common, "seed": seed + index if seed + index <= MAX_SEED else seed - index}


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content or ()
    return "\n".join(part["text"] for part in parts if part["type"] == "text")


def _has_parts(messages: list[dict[str, Any]]) -> bool:
    return any(
        isinstance(message.get("content"), list)
        and any(part["type"] not in {"text", "refusal"} for part in message["content"])
        for message in messages
    )

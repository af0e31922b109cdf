"""What an answer tells of its session, and why an LLM other than the chosen one answers."""

from __future__ import annotations

from waypost.contracts.records import Decision
from waypost.contracts.staying import predicted, session_state
from waypost.serve.backends.asking import Opened, Whole
from waypost.serve.gateway.requests import Call
from waypost.sessions.token import write_token


def session_told(call: Call, decision: Decision, model: str | None) -> dict[str, str]:
    """Return ``session`` and ``session_token`` of an answer; empty where it has no session.

    Args:
        call: The request.
        decision: Its decision.
        model: The LLM that answers; None where it is not known.
    """
    if decision.session is None or model is None:
        return {}
    state = session_state(decision.last_model, model)
    return {"session": state, "session_token": write_token(call.turn, model)}


def reason_after_failover(decision: Decision, opened: Opened | Whole) -> str:
    """Return the reason of an answer that does not come from the LLM that the router chose.

    It names the LLMs that ranked higher, and holds the predictions for the LLM that answers.
    """
    ranking = decision.ranking
    higher = ranking[: ranking.index(opened.model)] if opened.model in ranking else ranking[:1]
    failed = [name for name in higher if name in opened.failed]
    others = [name for name in higher if name not in opened.failed]
    parts = [f"{', '.join(failed)} did not answer"] if failed else []
    if others:
        parts.append(f"{', '.join(others)} passed over: not ready, or failed lately")
    known = predicted(decision, opened.model)
    answers = f"{opened.model} answers"
    parts.append(f"{answers}: {known}" if known else answers)
    reason = "; ".join(parts)
    if decision.last_model is None:
        return reason
    return f"{session_state(decision.last_model, opened.model)}: {reason}"


def reason_of_an_empty_answer(opened: Opened | Whole) -> str:
    """Return the reason of an answer without a word, where no other LLM gave a better one."""
    others = ", ".join(sorted(opened.failed))
    asked = f"{opened.model} said nothing, and neither did {others}" if others else opened.model
    return f"{asked}; its empty answer is told" if others else f"{asked} said nothing"

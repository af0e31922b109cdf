"""What the page does: each event of the browser, and what it changes."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import gradio as gr

from waypost.chat import dial as dials
from waypost.chat import look, render
from waypost.chat.asking import Asking, Wishes, body_of, routing_fields
from waypost.chat.client import GatewayClient, Pool
from waypost.chat.layout import NOTHING, VOTES, Update, build
from waypost.chat.talk import Turn
from waypost.chat.talks import Talks
from waypost.chat.visit import Visit, draw
from waypost.chat.voting import Voting, may_vote, turn_at
from waypost.contracts.errors import WaypostError
from waypost.secrets import Secret


class Page:
    """The page over one gateway.

    Args:
        client: The gateway.
        key: Key of all users, if any.
        keys: Keys of the users who logged in, by name.
        route_on: What is routed on at first; None leaves it to the gateway.
        top_k: Earlier turns that the mode ``retrieval`` takes at first.
    """

    def __init__(
        self,
        client: GatewayClient,
        *,
        key: Secret | None = None,
        keys: dict[str, Secret] | None = None,
        route_on: str | None = None,
        top_k: int | None = None,
    ) -> None:
        self._client = client
        self._key = key
        self._keys = {} if keys is None else keys
        self._route_on, self._top_k = route_on, top_k
        self._streams: dict[str | None, Asking] = {}  # by Gradio's name of the visit
        with gr.Blocks(title="Waypost", fill_height=True, analytics_enabled=False) as self.blocks:
            self.parts = build()
            self._connect()

    # -- wiring -------------------------------------------------------------------------------

    def _connect(self) -> None:
        parts = self.parts
        visit, settings = parts.visit, parts.settings
        voting = Voting(parts, self._client, self._picture, self._key_of)
        talks = Talks(parts, self._picture)

        def on(event: Any, run: Any, inputs: list[Any], outputs: list[Any]) -> Any:
            return event(
                run,
                [visit, *inputs],
                outputs,
                concurrency_limit=None,
                show_progress="hidden",
                api_visibility="private",
            )

        def answers(event: Any, run: Any, inputs: list[Any], *more: Any) -> None:
            asked = on(event, run, inputs, [*shown, parts.next, *more])
            streamed = on(asked.then, self.stream, [], [parts.left, parts.right])
            on(streamed.then, self.finish, [], shown)

        shown = parts.shown
        chosen = [parts.dial, parts.route_on, parts.top_k]
        on(self.blocks.load, self.load, [parts.kept], [*shown, *chosen])
        self.blocks.unload(self.leave)
        for ask in (parts.box.submit, parts.send.click):
            answers(ask, self.ask, [parts.box, parts.view, *settings], parts.box)
        on(parts.stop.click, self.stop, [], [parts.stop])
        for chatbot, like in ((parts.left, voting.like), (parts.right, voting.like_right)):
            answers(chatbot.retry, self.retry, settings)
            answers(chatbot.edit, self.edit, settings)
            on(chatbot.undo, self.undo, [], [*shown, parts.box])
            on(chatbot.clear, talks.new, [parts.view, *settings], [*shown, parts.next])
            on(chatbot.like, like, [], [*shown, parts.why])
        for button, (_, vote) in zip(parts.votes, VOTES, strict=True):
            on(button.click, voting.vote(vote), [], shown)
        for send_why in (parts.why.submit, parts.send_why.click):
            on(send_why, voting.give_reason, [parts.why], shown)
        on(parts.view.input, talks.new, [parts.view, *settings], [*shown, parts.next])
        on(parts.new.click, talks.new, [parts.view, *settings], [*shown, parts.next])
        on(parts.talks.input, talks.open, [parts.talks], [*shown, parts.next])
        on(parts.delete.click, talks.delete, [], shown)
        looked_at = (
            parts.dial.release, parts.left_name.input, parts.route_on.input, parts.box.blur,
        )  # fmt: skip
        for look_at in looked_at:
            on(look_at, self.look_ahead, [parts.box, *settings], [parts.top_k, parts.next])
        for button, run in (
            (parts.export_json, talks.export_json),
            (parts.export_votes, talks.export_votes),
        ):
            on(button.click, run, [], [parts.file, parts.file_name, parts.notice]).then(
                None, [parts.file, parts.file_name], [], js=look.SAVE_FILE
            )

    def _wishes(
        self, visit: Visit, request: gr.Request, dial: float, route_on: str, top_k: float
    ) -> Wishes:
        pool = visit.pool
        return Wishes(
            lam=None if dial == dials.place_of(pool.lam) else dials.cost_weight(dial),
            route_on=None if (route_on, top_k) == (pool.route_on, pool.top_k) else route_on,
            top_k=int(top_k),
            user_id=visit.user_id or None,
            key=self._key_of(request),
        )

    def _key_of(self, request: gr.Request) -> Secret | None:
        return self._keys.get(request.username or "", self._key)

    # -- pictures -----------------------------------------------------------------------------

    def _picture(self, visit: Visit, notice: str | None = None) -> Update:
        """Return everything that follows from a visit."""
        parts, talk = self.parts, visit.talk
        two, running = talk.sides > 1, visit.running
        last = talk.turns[-1] if talk.turns else None
        left, right = render.shown(talk, 0), render.shown(talk, 1)
        verdict = render.verdict(talk, last) if last is not None and two and not running else ""
        choices = [(one.title, one.id) for one in visit.talks]
        known = any(one.id == talk.id for one in visit.talks)
        return {
            parts.view: gr.update(value=talk.view, interactive=not running),
            parts.left: gr.update(value=left.messages, feedback_value=left.ratings),
            parts.right: gr.update(value=right.messages, feedback_value=right.ratings, visible=two),
            parts.vote_row: gr.update(visible=may_vote(visit, last)),
            parts.verdict: gr.update(value=verdict, visible=bool(verdict)),
            parts.why_row: gr.update(visible=visit.rated is not None),
            parts.send: gr.update(visible=not running),
            parts.stop: gr.update(visible=running),
            parts.bill: render.bill(talk.money),
            parts.left_name: gr.update(
                visible=talk.view != "battle", label="Left side" if two else "Who answers"
            ),
            parts.right_name: gr.update(visible=talk.view == "side"),
            parts.talks: gr.update(
                choices=choices, value=talk.id if known else None, visible=bool(choices)
            ),
            parts.kept: visit.kept(),
            parts.notice: gr.update(value=notice or "", visible=bool(notice)),
        }

    # -- events -------------------------------------------------------------------------------

    async def load(self, visit: Visit, kept: Any, request: gr.Request) -> Update:
        """Show what the browser kept, and ask the gateway what it serves."""
        parts = self.parts
        visit.read(kept, request.username)
        notice = None
        try:
            visit.pool = await self._client.pool(self._key_of(request))
        except WaypostError as error:
            notice = render.sentence(str(error))
        else:
            notice = _state_of(visit.pool)
        pool = visit.pool
        names, route_on = list(pool.names), self._route_on or pool.route_on
        second = next(iter(reversed(pool.llms)), "auto")
        asked = ["auto"] if visit.talk.view == "battle" else visit.talk.names
        picture = self._picture(visit, notice)
        picture[parts.left_name] |= gr.update(choices=names, value=asked[0])
        picture[parts.right_name] |= gr.update(
            choices=names, value=asked[1] if visit.talk.view == "side" else second
        )
        return {
            **picture,
            parts.dial: dials.place_of(pool.lam),
            parts.route_on: gr.update(value=route_on),
            parts.top_k: gr.update(
                value=self._top_k or pool.top_k, visible=route_on == "retrieval"
            ),
        }

    def ask(
        self,
        visit: Visit,
        text: str,
        view: str,
        dial: float,
        left: str,
        right: str,
        route_on: str,
        top_k: float,
        request: gr.Request,
    ) -> Update:
        """Ask a question."""
        if visit.running or not (text or "").strip():
            return NOTHING
        if problem := self._name_sides(visit, view, left, right):
            return self._picture(visit, problem)
        turn = visit.talk.ask(text.strip())
        wishes = self._wishes(visit, request, dial, route_on, top_k)
        return {**self._begin(visit, turn, wishes), self.parts.box: ""}

    def retry(
        self,
        visit: Visit,
        dial: float,
        left: str,
        right: str,
        route_on: str,
        top_k: float,
        request: gr.Request,
        data: gr.RetryData,
    ) -> Update:
        """Ask a question again."""
        index = turn_at(visit, data.index)
        if visit.running or index is None:
            return NOTHING
        self._name_sides(visit, visit.talk.view, left, right)
        turn = visit.talk.again(index)
        wishes = self._wishes(visit, request, dial, route_on, top_k)
        return self._begin(visit, turn, wishes)

    def edit(
        self,
        visit: Visit,
        dial: float,
        left: str,
        right: str,
        route_on: str,
        top_k: float,
        request: gr.Request,
        data: gr.EditData,
    ) -> Update:
        """Change a question and ask it; what followed it is dropped."""
        index, text = turn_at(visit, data.index), _text(data.value)
        if visit.running or index is None or not text.strip():
            return self._picture(visit)
        self._name_sides(visit, visit.talk.view, left, right)
        turn = visit.talk.again(index, text.strip())
        wishes = self._wishes(visit, request, dial, route_on, top_k)
        return self._begin(visit, turn, wishes)

    def _begin(self, visit: Visit, turn: Turn, wishes: Wishes) -> Update:
        talk = visit.talk
        bodies = [body_of(wishes, talk, side) for side in range(talk.sides)]
        visit.asking = Asking(self._client, turn.answers, bodies, wishes.key)
        visit.rated = None
        visit.remember()
        return {**self._picture(visit), self.parts.next: ""}

    async def stream(
        self, visit: Visit, request: gr.Request
    ) -> AsyncGenerator[tuple[Any, Any], None]:
        """Show the answers as they come."""
        asking, talk = visit.asking, visit.talk
        if asking is None or asking.begun:
            yield gr.skip(), gr.skip()
            return
        self._streams[request.session_hash] = asking
        try:
            async with aclosing(asking.pictures()) as pictures:
                async for _ in pictures:
                    if visit.talk is talk:
                        yield (
                            render.shown(talk, 0).messages,
                            render.shown(talk, 1).messages if talk.sides > 1 else [],
                        )
        finally:
            self._streams.pop(request.session_hash, None)
            visit.asking = None
            for answer in asking.answers:
                talk.money.add(answer)

    def leave(self, request: gr.Request) -> None:
        """Stop the answers of a page that was closed."""
        if asking := self._streams.get(request.session_hash):
            asking.stop()

    def finish(self, visit: Visit) -> Update:
        """Show what follows from the answers."""
        if visit.running:
            return NOTHING
        picture = self._picture(visit)
        del picture[self.parts.notice]  # why nothing was asked, perhaps
        return picture

    def stop(self, visit: Visit) -> Update:
        """Stop the answers; the LLMs stop, too."""
        visit.stop()
        return {self.parts.stop: gr.update(visible=False)}

    def undo(self, visit: Visit) -> Update:
        """Take the last question back into the box."""
        if visit.running:
            return NOTHING
        text = visit.talk.undo()
        visit.rated = None
        return {**self._picture(visit), self.parts.box: text or ""}

    async def look_ahead(
        self,
        visit: Visit,
        text: str,
        dial: float,
        left: str,
        right: str,
        route_on: str,
        top_k: float,
        request: gr.Request,
    ) -> Update:
        """Say whom the router would ask now, before it costs anything."""
        parts = self.parts
        shows = {parts.top_k: gr.update(visible=route_on == "retrieval")}
        talk = visit.talk
        question = (text or "").strip() or (talk.turns[-1].question if talk.turns else "")
        if not question or talk.view == "battle" or left in visit.pool.llms:
            return {**shows, parts.next: ""}
        wishes = self._wishes(visit, request, dial, route_on, top_k)
        fields = routing_fields(wishes, talk, 0)
        fields.pop("session_token", None)
        body = {"model": left, "query": question, "waypost": fields}
        try:
            decision = await self._client.route(body, wishes.key)
        except WaypostError as error:
            return {**shows, parts.next: render.sentence(str(error))}
        told = "Would ask" if (text or "").strip() else "The last question would go to"
        return {**shows, parts.next: f"{told} {render.preview(decision)}"}

    def _name_sides(self, visit: Visit, view: str, left: str, right: str) -> str | None:
        """Set whom the next question goes to; return why that is not possible."""
        talk = visit.talk
        if view != talk.view:
            visit.new(view, talk.names)  # type: ignore[arg-type]
            talk = visit.talk
        if view != "battle":
            talk.names = [left] if view == "chat" else [left, right]
        elif not talk.turns:
            talk.names = draw(visit.pool)
            if len(talk.names) < 2:
                talk.names = ["auto", "auto"]
                return "A battle needs two LLMs that can answer; this pool has fewer."
        return None


def _text(value: Any) -> str:
    """Return the text of an edited message, in each of Gradio's forms."""
    if isinstance(value, list):
        return "\n".join(_text(one) for one in value)
    return str(value.get("text", "")) if isinstance(value, dict) else str(value or "")


def _state_of(pool: Pool) -> str | None:
    if pool.waiting:
        names = ", ".join(sorted(pool.waiting))
        return f"Not ready: {names}. The other LLMs answer."
    if not pool.feedback:
        return "Votes are not kept: the server has no `feedback_dir`."
    return None

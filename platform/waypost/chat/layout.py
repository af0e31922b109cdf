"""The parts of the page and where they stand; `page` says what they do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from waypost.chat import dial as dials
from waypost.chat.talk import Vote
from waypost.chat.visit import Visit

Update = dict[Any, Any]
"""What a handler changes: component -> value or `gr.update`."""

NOTHING: Update = gr.skip()
"""A handler changes nothing."""

VIEWS = [("Chat", "chat"), ("Side by side", "side"), ("Blind battle", "battle")]
VOTES: list[tuple[str, Vote]] = [
    ("Left is better", "left"),
    ("Right is better", "right"),
    ("Tie", "tie"),
    ("Both are bad", "both_bad"),
]
ROUTE_ON = [
    ("the last question", "current_only"),
    ("the whole talk", "full_context"),
    ("the question and similar earlier turns", "retrieval"),
]
KEPT_AS = "waypost-chat"
_LATEX = [
    {"left": "$$", "right": "$$", "display": True},
    {"left": "\\[", "right": "\\]", "display": True},
    {"left": "\\(", "right": "\\)", "display": False},
]
"""Not ``$...$``: answers speak of prices."""

_PLACEHOLDER = """### Ask the pool
A router chooses the LLM for each question. Above every answer stands who gave it and for what;
open that line for the reason, the ranking and the predictions."""


@dataclass(frozen=True)
class Parts:
    """The components of the page; those of `SETTINGS` are what questions are asked with."""

    visit: gr.State
    kept: gr.BrowserState
    view: gr.Radio
    notice: gr.Markdown
    left: gr.Chatbot
    right: gr.Chatbot
    vote_row: gr.Row
    votes: list[gr.Button]
    verdict: gr.Markdown
    why_row: gr.Row
    why: gr.Textbox
    send_why: gr.Button
    box: gr.Textbox
    send: gr.Button
    stop: gr.Button
    dial: gr.Slider
    next: gr.Markdown
    bill: gr.Markdown
    left_name: gr.Dropdown
    right_name: gr.Dropdown
    route_on: gr.Dropdown
    top_k: gr.Slider
    new: gr.Button
    talks: gr.Radio
    delete: gr.Button
    export_json: gr.Button
    export_votes: gr.Button
    file: gr.Textbox
    file_name: gr.Textbox

    @property
    def settings(self) -> list[Any]:
        """What a question is asked with: dial, names, what is routed on, number of turns."""
        return [
            self.dial,
            self.left_name,
            self.right_name,
            self.route_on,
            self.top_k,
        ]

    @property
    def shown(self) -> list[Any]:
        """What follows from a visit. No part that a user writes into is among it.

        Gradio builds every output of a handler anew each time that it returns or yields, also those
        that it skips, and what a user has written meanwhile is then lost.
        """
        return [
            self.view, self.left, self.right, self.vote_row, self.verdict, self.why_row, self.send,
            self.stop, self.bill, self.left_name, self.right_name, self.talks, self.kept,
            self.notice,
        ]  # fmt: skip


def build() -> Parts:
    """Make the components, inside of a `gr.Blocks`."""
    visit = gr.State(Visit())
    # the browser's own data, which it also gets the key of: the constant keeps talks readable
    # after a restart of the server
    kept = gr.BrowserState({}, storage_key=KEPT_AS, secret=KEPT_AS)
    with gr.Sidebar(open=False, width=280, elem_id="talks-bar"):
        new = gr.Button("New talk", elem_id="new", size="sm", variant="secondary")
        talks = gr.Radio([], label="Talks", elem_id="talks", visible=False)
        delete = gr.Button("Delete this talk", size="sm", elem_id="delete")
        export_json = gr.Button("Export this talk (JSON)", size="sm", elem_id="export-json")
        export_votes = gr.Button("Export all votes (FastChat)", size="sm", elem_id="export-votes")
    with gr.Row(elem_id="head"):
        gr.Markdown("# Waypost", elem_id="name")
        view = gr.Radio(VIEWS, value="chat", show_label=False, container=False, elem_id="view")
    notice = gr.Markdown(visible=False, elem_id="notice")
    with gr.Row(elem_id="chats"):
        left = _chatbot("left", _PLACEHOLDER)
        right = _chatbot("right", "", visible=False)
    with gr.Row(visible=False, elem_id="vote-row") as vote_row:
        votes = [gr.Button(text, size="sm", elem_id=f"vote-{vote}") for text, vote in VOTES]
    verdict = gr.Markdown(visible=False, elem_id="verdict")
    with gr.Row(visible=False, elem_id="why-row") as why_row:
        why = gr.Textbox(
            show_label=False, container=False, placeholder="Why? (optional)", max_length=1000,
            elem_id="why", scale=4,
        )  # fmt: skip
        send_why = gr.Button(
            "Send the reason", size="sm", elem_id="send-why", scale=0, min_width=150
        )
    with gr.Row(elem_id="ask"):
        box = gr.Textbox(
            show_label=False, container=False, placeholder="Ask something", autofocus=True,
            lines=1, max_lines=8, elem_id="box", scale=8,
        )  # fmt: skip
        send = gr.Button("Send", variant="primary", elem_id="send", scale=0, min_width=96)
        stop = gr.Button(
            "Stop", variant="stop", elem_id="stop", scale=0, min_width=96, visible=False
        )
    with gr.Row(elem_id="dial-row"):
        dial = gr.Slider(
            dials.CHEAPEST, dials.BEST, value=dials.BEST, step=0.5, label="From cheap to good",
            buttons=[], elem_id="dial",
        )  # fmt: skip
        with gr.Column(elem_id="told"):
            next_ = gr.Markdown(elem_id="next")
            bill = gr.Markdown(elem_id="bill")
    with gr.Accordion("Settings", open=False, elem_id="settings"), gr.Row():
        left_name = gr.Dropdown(["auto"], value="auto", label="Who answers", elem_id="left-name")
        right_name = gr.Dropdown(
            ["auto"], value="auto", label="Right side", visible=False, elem_id="right-name"
        )
        route_on = gr.Dropdown(
            ROUTE_ON, value="current_only", label="The router looks at", elem_id="route-on"
        )
        top_k = gr.Slider(
            1, 32, value=3, step=1, label="Similar earlier turns", visible=False, elem_id="top-k"
        )
    file = gr.Textbox(visible="hidden", elem_id="file")
    file_name = gr.Textbox(visible="hidden", elem_id="file-name")
    return Parts(
        visit, kept, view, notice, left, right, vote_row, votes, verdict, why_row, why, send_why,
        box, send, stop, dial, next_, bill, left_name, right_name, route_on, top_k, new, talks,
        delete, export_json, export_votes, file, file_name,
    )  # fmt: skip


def _chatbot(name: str, placeholder: str, visible: bool = True) -> gr.Chatbot:
    return gr.Chatbot(
        elem_id=name,
        show_label=False,
        height="max(16rem, calc(100dvh - 15rem))",
        layout="bubble",
        editable="user",
        buttons=["copy"],
        feedback_options=("Like", "Dislike"),
        latex_delimiters=_LATEX,
        placeholder=placeholder,
        visible=visible,
        allow_tags=False,
    )

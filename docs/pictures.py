"""Draws the pictures of the documentation: boxes and arrows as SVG.

python docs/pictures.py
"""

from __future__ import annotations

from html import escape
from itertools import pairwise
from pathlib import Path

IMAGES = Path(__file__).resolve().parent / "images"

INK, GREY, TEAL = "#1f2933", "#7b8794", "#00796b"
FILLS = {"ours": "#e0f2f1", "ray": "#fafafa", "other": "#fff3e0", "data": "#e8eaf6"}
LINE = 17


class Picture:
    """An SVG that grows by boxes, frames and arrows; all numbers are pixels."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self.head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" role="img" '
            'font-family="system-ui, Segoe UI, Helvetica, Arial, DejaVu Sans, sans-serif" '
            f'font-size="13"><title>{escape(title)}</title>'
            '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" '
            f'markerHeight="7" orient="auto-start-reverse"><path d="M0 0L10 5L0 10z" fill="{TEAL}"'
            f'/></marker></defs><rect width="{width}" height="{height}" fill="#fff"/>'
        )
        self.parts: list[str] = []

    def text(self, x: float, y: float, text: str, *, colour: str = INK, more: str = "") -> None:
        """Write one line; ``more`` is further attributes."""
        self.parts.append(f'<text x="{x:g}" y="{y:g}" fill="{colour}" {more}>{escape(text)}</text>')

    def frame(self, x: int, y: int, width: int, height: int, title: str) -> None:
        """Draw a dashed frame with a title at its top left."""
        self.parts.append(
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="10" '
            f'fill="{FILLS["ray"]}" stroke="{GREY}" stroke-dasharray="5 4"/>'
        )
        self.text(x + 12, y + 20, title, colour=GREY)

    def box(
        self, x: int, y: int, width: int, title: str, *lines: str, kind: str = "ours"
    ) -> tuple[int, int, int, int]:
        """Draw a box with a bold title and lines below it; return (x, y, width, height)."""
        height = 30 + LINE * len(lines) + (4 if lines else 0)
        self.parts.append(
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6" '
            f'fill="{FILLS[kind]}" stroke="{INK}" stroke-opacity=".45"/>'
        )
        self.text(x + 10, y + 20, title, more='font-weight="600"')
        for number, line in enumerate(lines):
            self.text(x + 10, y + 20 + LINE * (number + 1), line, more='font-size="12"')
        return x, y, width, height

    def arrow(
        self, *points: tuple[float, float], label: str = "", at: tuple[float, float] | None = None
    ) -> None:
        """Draw an arrow through points; the label stands above the middle of the first piece."""
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        self.parts.append(
            f'<polyline points="{path}" fill="none" stroke="{TEAL}" stroke-width="1.6" '
            'marker-end="url(#tip)"/>'
        )
        if label:
            (x0, y0), (x1, y1) = points[:2]
            x, y = at or ((x0 + x1) / 2, (y0 + y1) / 2 - 6)
            self.text(x, y, label, colour=TEAL, more='font-size="12" text-anchor="middle"')

    def save(self, name: str) -> None:
        """Write the picture."""
        IMAGES.mkdir(exist_ok=True)
        text = "\n".join([self.head, *self.parts, "</svg>"])
        (IMAGES / name).write_text(text + "\n", encoding="utf-8")


def graph() -> None:
    """Draw the parts: how a router is made, and what serves it."""
    p = Picture(900, 392, "How a router is made; client, gateway, router and LLMs")
    p.box(10, 10, 132, "Questions", "benchmarks, yours", kind="data")
    p.box(158, 10, 146, "waypost data run", "asks, scores, prices")
    p.box(328, 10, 124, "Routing data", "parquet, llms.json", kind="data")
    p.box(476, 10, 116, "waypost train", "or tune")
    p.box(616, 10, 100, "Artifact", "no pickle", kind="data")
    for x0, x1 in ((142, 158), (304, 328), (452, 476), (592, 616)):
        p.arrow((x0, 36), (x1, 36))
    p.frame(172, 88, 530, 292, "one Ray Serve graph")
    p.box(10, 200, 110, "Client", "OpenAI's API", kind="other")
    p.box(196, 170, 170, "Gateway", "admission", "request schemas", "failover", "circuit breaker")
    p.box(
        476,
        126,
        200,
        "Router",
        "encoder: text to vector",
        "predicted quality and cost",
        "policy: ranking",
    )
    p.box(476, 292, 200, "LLM replicas", "transformers or vLLM", "one deployment an LLM")
    p.box(746, 210, 144, "HTTP endpoints", "any OpenAI-style API", kind="other")
    p.arrow((650, 61), (650, 126), label="loads", at=(674, 110))
    p.arrow((120, 218), (196, 218), label="ask", at=(146, 212))
    p.arrow((196, 236), (120, 236), label="answer", at=(146, 252))
    p.arrow((366, 184), (476, 184), label="question")
    p.arrow((476, 204), (366, 204), label="ranking", at=(421, 220))
    p.arrow((366, 250), (746, 250), label="call", at=(720, 244))
    p.arrow((300, 272), (300, 326), (476, 326), label="call", at=(421, 320))
    p.save("graph.svg")


def request() -> None:
    """Draw the way of one request, with the file of each step."""
    p = Picture(900, 560, "The way of one request through gateway, router and LLM")
    p.frame(10, 10, 280, 540, "gateway process")
    p.frame(356, 90, 254, 290, "router replica, or in the gateway")
    p.frame(640, 300, 250, 170, "LLM replica, or in the gateway")
    steps = (
        (44, "gateway/http.py", "admitted, body read within bounds"),
        (112, "gateway/requests.py", "read by schemas.py: a call, or 400"),
        (180, "gateway/handler.py", "one call to its end"),
        (248, "backends/dispatcher.py", "decides, then asks"),
        (350, "backends/failover.py", "the ranking, one LLM after another"),
        (418, "gateway/responses.py", "OpenAI's form, whole or events"),
        (486, "gateway/metrics.py", "counted; feedback.py remembers"),
    )
    for y, title, line in steps:
        p.box(26, y, 258, title, line)
    for (y0, *_), (y1, *_) in pairwise(steps):
        p.arrow((155, y0 + 51), (155, y1))
    p.box(372, 124, 222, "backends/router_replica.py", "queries that wait share a batch")
    p.box(372, 192, 222, "encoders/", "text to unit vector, cached")
    p.box(372, 260, 222, "waypost_routers/NAME.py", "quality and tokens of each LLM")
    p.box(372, 322, 222, "contracts/policy.py", "quality - lambda * cost: a ranking")
    for y0, y1 in ((175, 192), (243, 260), (311, 322)):
        p.arrow((483, y0), (483, y1))
    p.arrow((284, 262), (328, 262), (328, 148), (372, 148), label="query", at=(309, 256))
    p.arrow((372, 348), (328, 348), (328, 286), (284, 286), label="decision", at=(323, 364))
    p.box(656, 334, 218, "backends/llm_replica.py", "time-outs, chunks batched")
    p.box(656, 402, 218, "engines/NAME.py", "generates, or asks an endpoint")
    p.arrow((765, 385), (765, 402))
    p.arrow((284, 392), (625, 392), (625, 358), (656, 358), label="call", at=(560, 408))
    p.arrow((656, 442), (284, 442), label="chunks", at=(560, 458))
    p.save("request.svg")


def row() -> None:
    """Draw the way of one row of routing data, with the file of each step."""
    p = Picture(900, 470, "The way of one row of routing data, from question to artifact")
    p.frame(10, 10, 300, 356, "waypost data run: pipelines/data")
    p.box(26, 44, 268, "questions.py", "drawn, deduplicated, split: query_id")
    p.box(26, 112, 268, "calls/requests.py", "question x LLM: a cell and its key")
    p.box(26, 180, 268, "responses.py", "cells without an answer, rows to write")
    p.box(26, 304, 268, "assemble.py", "tables of the splits, llms.json")
    p.frame(350, 90, 250, 276, "Ray Data actors and tasks")
    p.box(366, 124, 218, "calls/worker.py", "one LLM's calls, many in flight")
    p.box(366, 192, 218, "calls/log.py", "the answer, before all else")
    p.box(366, 260, 218, "llm_run.py, scorers/", "a score from 0 to 1")
    p.box(640, 76, 250, "calls/rate_limits.py", "one actor: rates, budget, shares")
    p.box(640, 150, 250, "engines/NAME.py", "the LLM")
    p.arrow((160, 95), (160, 112))
    p.arrow((160, 163), (160, 180))
    p.arrow((294, 200), (330, 200), (330, 148), (366, 148), label="cells", at=(328, 140))
    p.arrow((475, 175), (475, 192))
    p.arrow((475, 243), (475, 260))
    p.arrow((584, 136), (622, 136), (622, 102), (640, 102), label="may I", at=(602, 122))
    p.arrow((584, 162), (622, 162), (622, 176), (640, 176))
    p.arrow((366, 286), (200, 286), (200, 231), label="scored row", at=(322, 280))
    p.arrow((120, 231), (120, 304), label="logs", at=(100, 276))
    y = 400
    p.box(26, y, 268, "routing_train.parquet", "a row a question and LLM", kind="data")
    p.box(350, y, 250, "contracts/routing_data.py", "questions x LLMs, missing is NaN")
    p.box(640, y, 250, "pipelines/train.py", "fit, cross-validate, artifact")
    p.arrow((160, 355), (160, y))
    p.arrow((294, y + 26), (350, y + 26))
    p.arrow((600, y + 26), (640, y + 26))
    p.save("row.svg")


def main() -> None:
    """Draw all of them."""
    graph()
    request()
    row()


if __name__ == "__main__":
    main()

"""Draws the pictures of the documentation: boxes and arrows as SVG.

python docs/pictures.py
"""

from __future__ import annotations

from html import escape
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


def main() -> None:
    """Draw all of them."""
    graph()


if __name__ == "__main__":
    main()

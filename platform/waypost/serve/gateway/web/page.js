"use strict";
const at = (id) => document.getElementById(id);
const base = location.pathname.replace(/docs\/?$/, "").replace(/\/*$/, "/");
for (const link of document.querySelectorAll("nav a")) {
  link.href = base + (link.getAttribute("href") === "." ? "" : link.getAttribute("href"));
}
function make(tag, text, kind) {
  const found = document.createElement(tag);
  if (text !== undefined && text !== null) found.textContent = text;
  if (kind) found.className = kind;
  return found;
}
function table(place, heads, rows) {
  const head = make("tr");
  for (const [name, kind] of heads) {
    const cell = make("th", name, kind);
    cell.scope = "col";
    head.append(cell);
  }
  const lines = rows.map((cells) => {
    const line = make("tr");
    cells.forEach((cell, i) => {
      const made = make("td", null, heads[i][1]);
      made.append(cell === null || cell === undefined ? "\u2013" : cell);
      line.append(made);
    });
    return line;
  });
  const top = make("thead"), body = make("tbody");
  top.append(head);
  body.append(...lines);
  place.replaceChildren(top, body);
}

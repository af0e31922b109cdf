"""How the page looks: theme, styles, keys; and what runs in the browser."""

from __future__ import annotations

import gradio as gr


def theme() -> gr.themes.Base:
    """Return the theme: the fonts of the machine, so that nothing is fetched from elsewhere."""
    return gr.themes.Default(
        primary_hue=gr.themes.colors.teal,
        neutral_hue=gr.themes.colors.gray,
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )


# In the head and not through Gradio's own ``css``, which comes after the first picture of the page.
_CSS = """
html { background: #fff; color-scheme: light dark; }
body:not(:has(#box textarea)) gradio-app { opacity: 0; }
.gradio-container { width: 100% !important; margin: 0 auto !important; padding: 0 !important; }
.gradio-container > .main { width: 100%; max-width: 74rem !important; margin: 0 auto !important;
  padding: .75rem 1rem !important; }
.sidebar-parent { padding: 0 !important; }
.contain > .column { gap: .7rem !important; }
footer { display: none !important; }
#head { align-items: center; flex-wrap: wrap; row-gap: .25rem; }
#name { flex: 1 1 6rem !important; }
#name h1 { margin: 0; font-size: 1.15rem; font-weight: 600; }
#view { flex: 0 0 auto !important; width: auto !important; }
#view .wrap { gap: .25rem; flex-wrap: wrap; }
#view label { padding: .3rem .7rem; }
#view input { display: none; }
#view label.selected { border-color: var(--primary-500); font-weight: 600; }
#view label:focus-within, #talks label:focus-within { outline: 2px solid var(--primary-500); }
#notice, #next, #bill, #verdict { font-size: .85rem; padding: 0 !important; }
#notice { border-left: 3px solid var(--primary-500) !important; padding: .2rem .7rem !important; }
#notice p, #next p, #bill p, #verdict p { margin: 0; font-size: .85rem; }
#next, #bill { min-height: 1.4em; }
#next p, #bill p { color: var(--body-text-color-subdued); }
#left, #right { border-radius: .6rem; }
#chats .bubble-wrap { background: transparent; }
#chats .bot-row > .flex-wrap { width: 100%; max-width: 100%; }
#chats .bot.message { background: none; border: 0; box-shadow: none; width: 100%; padding: 0; }
#chats .user.message { background: var(--background-fill-secondary); border: 0; }
#chats .bot.message:has(.thought-group) + .message-buttons { display: none; }
#chats .thought-group { margin: 0 0 .35rem; box-shadow: none; width: 100%; }
#chats .thought-group .prose { font-size: .85rem; }
#chats .thought-group table { font-size: .8rem; margin: .3rem 0; }
#chats .thought-group :is(td, th) { white-space: nowrap; }
#chats .message table { display: block; overflow-x: auto; width: fit-content; max-width: 100%;
  border: 0; padding: 0; }
#chats .placeholder-content, #chats .placeholder { padding: 1.5rem; }
#ask { align-items: end; gap: .5rem; flex-wrap: nowrap; }
#dial-row { align-items: center; gap: .3rem 1.25rem; }
#dial-row > .form { background: none; border: 0; box-shadow: none; flex: 0 1 24rem !important; }
#dial { border: 0; padding: 0; background: none; }
#dial .head { display: none; }
#dial .min_value, #dial .max_value { font-size: 0; display: inline !important; }
#dial .min_value::after { content: "cheap"; font-size: .85rem; }
#dial .max_value::after { content: "good"; font-size: .85rem; }
#told { gap: 0; }
#vote-row, #why-row { gap: .5rem; align-items: center; }
#vote-row > button { min-width: 7rem !important; }
.sidebar .form, #talks { padding: 0; background: none; border: 0; box-shadow: none; }
#talks .wrap { flex-direction: column; gap: .1rem; max-height: 50vh; overflow-y: auto;
  flex-wrap: nowrap; }
#talks label { border: 0; box-shadow: none; padding: .3rem .4rem; font-size: .85rem;
  background: none; }
#talks input { position: absolute; opacity: 0; }
#talks label.selected { background: var(--background-fill-secondary); font-weight: 600; }
@media (max-width: 78rem) { #head { padding-left: 2rem; } }
@media (prefers-color-scheme: dark) { html { background: #0b0f19; } }
@media (max-width: 640px) {
  .gradio-container > .main { padding: .5rem !important; }
  #view label { padding: .25rem .45rem; font-size: .85rem; }
  #head { padding-left: 1.8rem; }
  #chats { flex-direction: column; }
  #chats > * { flex: none !important; height: max(16rem, calc(100dvh - 17rem)) !important; }
  #chats:has(#right:not(.hidden)) > * { height: 44vh !important; }
  #vote-row > button { flex: 1 1 40%; }
}
"""

HEAD = (
    f"<style>{_CSS}</style>"
    + """
<script>
document.addEventListener("keydown", (event) => {
  const press = (id) => {
    const found = document.querySelector(id + ":is(button), " + id + " button");
    if (found && found.offsetParent !== null) { found.click(); event.preventDefault(); }
  };
  const box = document.querySelector("#box textarea");
  const writing = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName);
  if (event.key === "Escape") press("#stop");
  else if (event.key === "/" && !writing && box) { box.focus(); event.preventDefault(); }
  else if (event.altKey && event.key.toLowerCase() === "n") press("#new");
  else if (event.altKey && /^[1-4]$/.test(event.key))
    press("#vote-" + ["left", "right", "tie", "both_bad"][event.key - 1]);
});
</script>
"""
)

SAVE_FILE = """(text, name) => {
  if (!text) return [];
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], {type: "application/json"}));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  return [];
}"""

"""Episodes as one HTML page: a list with filters, and what everybody did. All text is escaped; nothing is loaded.

Pure: records in, text out. What is shown is chosen in viewer.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

RIGHT = 0.5
"""From this score on an answer counts as right in the list."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Entry:
    """One episode of the page."""

    row: Mapping[str, Any]
    """A line of ``trajectories.jsonl``."""
    scores: Mapping[str, float]
    """``team`` and the agents to their answers' scores in [0, 1]; empty where they are not known."""
    frames: Sequence[tuple[float, str]]
    """Seconds and JPEGs in base64."""


def page(name: str, entries: Sequence[Entry], notes: Sequence[str]) -> str:
    """Write the page.

    Args:
        name: of the run.
        entries: in the order of the list.
        notes: sentences about what is shown.
    """
    pictures = {data: f"f{number}" for number, data in enumerate(_unique(d for e in entries for _, d in e.frames))}
    style = "".join(f".{key}{{background-image:url(data:image/jpeg;base64,{data})}}" for data, key in pictures.items())
    agents = _unique(agent for entry in entries for agent in entry.row["agents"])
    filters = [
        _select("stage", _unique(str(entry.row["split"]) for entry in entries)),
        _select("task", _unique(str(entry.row["task"]) for entry in entries)),
        _select("agent", agents, everything="team"),
        _select("answer", ["right", "wrong"]),
    ]
    return _PAGE.format(
        title=escape(f"Episodes of {name}"),
        style=_STYLE + style,
        script=_SCRIPT,
        notes=escape("; ".join(notes)),
        filters=" ".join(filters),
        episodes="\n".join(_episode(entry, pictures) for entry in entries),
        right=f"{RIGHT:g}",
    )


def _episode(entry: Entry, pictures: Mapping[str, str]) -> str:
    row = entry.row
    right = [name for name, score in entry.scores.items() if score >= RIGHT]
    frames = "".join(
        f'<span class="frame {pictures[data]}"><i>{second:g} s</i></span>' for second, data in entry.frames
    )
    agents = "".join(_agent(name, agent, entry) for name, agent in row["agents"].items())
    video = str(row["video"]).rsplit("/", 1)[-1]
    return (
        f'<details class="episode" data-stage="{_attribute(row["split"])}" data-task="{_attribute(row["task"])}" '
        f'data-right="{_attribute(json.dumps(right))}">'
        f"<summary>{_mark(entry.scores.get('team'))} <small>{_text(row['split'])} {_text(row['step'])} "
        f"{_text(row['task'])}</small> <b>{_text(row['question'])}</b> {_answer(row['answer'])}</summary>"
        f"<p>truth {_answer(row['truth'])}, team's answer {_answer(row['answer'])}{_score(entry.scores.get('team'))}"
        f" <small>{_text(video)}, {_text(row['sample'])}, episode {_text(row['episode'])}</small></p>"
        f"<div>{frames}</div><div class=agents>{agents}</div></details>"
    )


def _agent(name: str, agent: Mapping[str, Any], entry: Entry) -> str:
    read = ", ".join(map(str, entry.row["visible"].get(name, ()))) or "nobody"
    terms = ", ".join(f"{term} {_figure(value)}" for term, value in agent["terms"].items())
    turns = agent["turns"]
    calls = "".join(_call(call) for call in agent["calls"])
    parts = [
        ("plan", "".join(_turn(turn) for turn in turns if turn["kind"] == "plan")),
        ("calls", f"<table>{calls}</table>" if calls else ""),
        ("decisions", "".join(_turn(turn) for turn in turns if turn["kind"] == "communicate")),
        ("answer", "".join(_turn(turn) for turn in turns if turn["kind"] == "answer")),
    ]
    return (
        f'<section data-agent="{_attribute(name)}"><h3>{_mark(entry.scores.get(name))} {_text(name)} '
        f"<small>reads {_text(read)}</small></h3>"
        f"<p>{_answer(agent['answer'])}{_score(entry.scores.get(name))}, reward {_text(_figure(agent['reward']))}"
        f"{' <small>' + _text(terms) + '</small>' if terms else ''}</p>"
        + "".join(f"<h4>{title}</h4>{text}" for title, text in parts if text)
        + "</section>"
    )


def _turn(turn: Mapping[str, Any]) -> str:
    fault = "" if turn["status"] == "ok" else f"<em>{_text(turn['status'])}: {_text(turn['error'])}</em>"
    number = f"<small>{_text(turn['round'])}</small> " if turn["kind"] == "communicate" else ""
    return f"<div class=said>{number}<q>{_text(turn['text'])}</q> {fault}</div>"


def _call(call: Mapping[str, Any]) -> str:
    arguments = ", ".join(f"{name}={value}" for name, value in call["args"].items())
    result = _text(call["text"]) if call["error"] is None else f"<em>{_text(call['error'])}</em>"
    when = "cached" if call["cached"] else f"{call['seconds']:.2f} s"
    return f"<tr><td>{_text(call['tool'])}({_text(arguments)})<td>{result}<td><small>{_text(when)}</small>"


def _answer(values: Mapping[str, Any] | None) -> str:
    """Write an answer's fields in a few words."""
    if values is None:
        return "<em>no answer</em>"
    parts = [str(values[key]) for key in ("text", "number") if values.get(key) is not None]
    parts += [f"{span['start']:g} s to {span['end']:g} s" for span in values.get("spans", ())]
    parts += ["box " + " ".join(f"{value:g}" for value in box.values()) for box in values.get("boxes", ())]
    parts += [str(event) for event in values.get("events", ())]
    return f"<b>{_text(', '.join(parts) or 'nothing')}</b>"


def _mark(score: float | None) -> str:
    if score is None:
        return "<span class=unknown>?</span>"
    return "<span class=right>✓</span>" if score >= RIGHT else "<span class=wrong>✗</span>"


def _score(score: float | None) -> str:
    return "" if score is None else f" (score {score:.2f})"


def _figure(value: Any) -> str:
    return f"{value:+.2f}" if isinstance(value, int | float) else "none"


def _select(name: str, values: Iterable[str], *, everything: str = "all") -> str:
    options = "".join(f'<option value="{_attribute(value)}">{_text(value)}</option>' for value in values)
    return f'<label>{name} <select id="{name}"><option value="">{everything}</option>{options}</select></label>'


def _text(value: Any) -> str:
    return escape(str(value), quote=False)


def _attribute(value: Any) -> str:
    return escape(str(value), quote=True)


def _unique(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


_STYLE = """
body{font:14px/1.45 system-ui,sans-serif;margin:1.5em auto;max-width:85em;padding:0 1em;color:#222;background:#fff}
details{border-top:1px solid #ddd;padding:.35em 0} summary{cursor:pointer} small{color:#666} em{color:#a33}
.right{color:#27762f} .wrong{color:#b3261e} .unknown{color:#888} label{margin-right:1em}
.agents{display:grid;grid-template-columns:repeat(auto-fit,minmax(19em,1fr));gap:1em}
section{border:1px solid #ddd;border-radius:6px;padding:.2em .8em .6em;overflow-wrap:anywhere}
h3{margin:.4em 0 0} h4{margin:.6em 0 .1em;font-weight:600;color:#555} p{margin:.3em 0}
q{font-family:ui-monospace,monospace;font-size:12.5px} td{vertical-align:top;padding:0 .6em .2em 0;font-size:13px}
.frame{display:inline-block;width:170px;height:96px;background:center/contain no-repeat #eee;margin:.2em .3em .2em 0}
.frame i{font-style:normal;font-size:11px;background:#fffc;padding:0 .3em}
"""
_SCRIPT = """
const chosen = name => document.getElementById(name).value;
function show() {
  const stage = chosen("stage"), task = chosen("task"), agent = chosen("agent"), answer = chosen("answer");
  let count = 0;
  for (const one of document.querySelectorAll(".episode")) {
    const right = JSON.parse(one.dataset.right).includes(agent || "team");
    one.hidden = (stage && one.dataset.stage !== stage) || (task && one.dataset.task !== task)
      || (answer && (answer === "right") !== right);
    count += !one.hidden;
  }
  for (const one of document.querySelectorAll("section")) one.hidden = agent && one.dataset.agent !== agent;
  document.getElementById("count").textContent = count;
}
for (const select of document.querySelectorAll("select")) select.addEventListener("change", show);
show();
"""
_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:">
<title>{title}</title><style>{style}</style>
<h1>{title}</h1>
<p>{notes}. An answer is right from a score of {right} on. Frames are those that results refer to, or the start, middle
and end of the windows that calls name.</p>
<p>{filters} <b id="count"></b> shown</p>
{episodes}
<script>{script}</script>
</html>
"""

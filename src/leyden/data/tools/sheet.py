"""`sheet`: an inspection as one HTML file without scripts, fonts or anything else from the network.

It has the facts, the first rows, and for each leaf a histogram of its numbers or lengths, some text, and a contact sheet
of its images.
"""

import base64
from collections.abc import Iterable
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leyden.data.tools.facts import LeafFacts, size
from leyden.data.tools.inspection import Inspection

BINS = 40
WIDTH, HEIGHT, AXIS = 480, 120, 18
CELL_LENGTH = 80
STYLE = """
:root { color-scheme: light dark; --ink: #1d2433; --dim: #5c667a; --line: #d8dde6; --page: #fff; --bar: #3b6fd4; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7eaf0; --dim: #9aa4b5; --line: #353c4a; --page: #14171d; --bar: #7ea6f4; } }
* { box-sizing: border-box } body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page);
  max-width: 70rem; margin: 0 auto; padding: 2rem 1.25rem }
h1 { font-size: 1.4rem; margin: 0 0 1rem; overflow-wrap: anywhere } h2 { font-size: 1.05rem; margin: 0 }
.facts { display: flex; flex-wrap: wrap; gap: .5rem 2rem; margin: 0 0 2rem; padding: 0 }
.facts div { display: flex; flex-direction: column }
dt, .note, text { color: var(--dim); fill: var(--dim); font-size: .85rem } dd { margin: 0; font-weight: 600 }
.scroll { overflow-x: auto } table { border-collapse: collapse; width: 100% } th { font-weight: 600; text-align: left }
th, td { padding: .35rem .75rem .35rem 0; border-bottom: 1px solid var(--line); vertical-align: top; white-space: nowrap }
section { border-top: 1px solid var(--line); padding: 1.25rem 0 } svg { display: block; max-width: 100%; height: auto; margin-top: .75rem }
rect { fill: var(--bar) } .sheet { display: grid; gap: .5rem; margin-top: .75rem;
  grid-template-columns: repeat(auto-fill, minmax(110px, 1fr)) }
.sheet img { width: 100%; height: 110px; object-fit: contain; background: var(--line); border-radius: 4px }
ul { margin: .75rem 0 0; padding-left: 1.1rem } li { overflow-wrap: anywhere }
"""


def sheet(inspection: Inspection) -> str:
    """Return the HTML of an inspection."""
    parts = [
        f"<h1>{escape(inspection.url)}</h1>",
        _facts(inspection),
        _rows(inspection),
        *(_leaf(facts) for facts in inspection.leaves),
    ]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(inspection.url)}</title>'
    return f'<!doctype html>\n<html lang="en"><head>{head}<style>{STYLE}</style></head>\n<body>\n' + "\n".join(parts) + "\n</body></html>\n"


def _facts(inspection: Inspection) -> str:
    facts = {
        "format": inspection.format,
        "version": inspection.version,
        "rows": f"{inspection.num_rows:,}",
        "files": f"{inspection.num_chunks:,}",
        "blocks": f"{inspection.num_blocks:,}",
        "stored": size(inspection.stored_bytes),
        "compression": f"{inspection.ratio:.2f}",
    }
    return (
        '<dl class="facts">'
        + "".join(f"<div><dt>{name}</dt><dd>{escape(str(value))}</dd></div>" for name, value in facts.items())
        + "</dl>"
    )


def _rows(inspection: Inspection) -> str:
    if not inspection.first:
        return '<p class="note">There are no rows.</p>'
    names = [facts.leaf.name for facts in inspection.leaves]
    head = "".join(f"<th>{escape(name or 'sample')}</th>" for name in names)
    body = "".join("<tr>" + "".join(f"<td>{escape(row[name][:CELL_LENGTH])}</td>" for name in names) + "</tr>" for row in inspection.first)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _leaf(facts: LeafFacts) -> str:
    leaf = facts.leaf
    kind = " ".join(str(each) for each in (leaf.type, leaf.dtype, leaf.shape) if each is not None)
    note = f"{kind}; {facts.rows:,} rows looked at, {facts.nulls:,} null; {size(facts.raw_bytes / max(facts.rows, 1))} per row"
    parts = [f"<h2>{escape(leaf.name or 'sample')}</h2>", f'<div class="note">{escape(note)}</div>']
    if facts.spread is not None:
        name, values = facts.spread
        same = values.min() == values.max()
        parts.append(f'<div class="note">all {name} are {values[0]:,.6g}</div>' if same else histogram(name, values))
    if facts.texts:
        parts.append("<ul>" + "".join(f"<li>{escape(text)}</li>" for text in facts.texts) + "</ul>")
    if facts.pictures:
        parts.append(_pictures(leaf.name, facts.pictures))
    return "<section>" + "".join(parts) + "</section>"


def _pictures(name: str, pictures: Iterable[bytes]) -> str:
    encoded = [base64.b64encode(picture).decode() for picture in pictures if picture]
    images = "".join(f'<img alt="{escape(name)} {number}" src="data:image/jpeg;base64,{data}">' for number, data in enumerate(encoded))
    return f'<div class="sheet">{images}</div>'


def histogram(name: str, values: NDArray[Any]) -> str:
    """Return a histogram as SVG.

    Args:
        name: What is counted.
        values: Finite numbers, not all equal.
    """
    counts, edges = np.histogram(values, BINS)
    width, tallest = WIDTH / len(counts), max(int(counts.max()), 1)
    bars = [_bar(i * width, max(width - 1, 1), HEIGHT * count / tallest) for i, count in enumerate(counts.tolist()) if count]
    title = f"{name} from {edges[0]:,.6g} to {edges[-1]:,.6g}, mean {values.mean():,.6g}"
    labels = (
        f'<text x="0" y="{HEIGHT + AXIS - 4}">{edges[0]:,.6g}</text>'
        f'<text x="{WIDTH / 2}" y="{HEIGHT + AXIS - 4}" text-anchor="middle">{escape(name)}, mean {values.mean():,.6g}</text>'
        f'<text x="{WIDTH}" y="{HEIGHT + AXIS - 4}" text-anchor="end">{edges[-1]:,.6g}</text>'
    )
    box = f'viewBox="0 0 {WIDTH} {HEIGHT + AXIS}" width="{WIDTH}" height="{HEIGHT + AXIS}"'
    return f'<svg role="img" aria-label="{escape(title)}" {box}>{"".join(bars)}{labels}</svg>'


def _bar(x: float, width: float, height: float) -> str:
    return f'<rect x="{x:.1f}" y="{HEIGHT - height:.1f}" width="{width:.1f}" height="{height:.1f}"/>'

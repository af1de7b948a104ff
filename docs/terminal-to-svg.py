#!/usr/bin/env python3
"""Draws a terminal's output as an SVG: `script -qc "sealwire demo" /dev/null | docs/terminal-to-svg.py > docs/demo.svg`."""
import html
import re
import sys

COLOURS = {"32": "#3fb950", "31": "#f85149", "36": "#39c5cf"}
WIDTH, HEIGHT, MARGIN = 7.83, 18, 16

lines = sys.stdin.read().rstrip("\n").split("\n")
columns = max(len(re.sub(r"\x1b\[[0-9;]*m", "", line)) for line in lines)
width, height = columns * WIDTH + 2 * MARGIN, len(lines) * HEIGHT + 2 * MARGIN
print(f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height}" viewBox="0 0 {width:.0f} {height}">')
print(f'<rect width="100%" height="100%" rx="8" fill="#0d1117"/>')
print('<g font-family="ui-monospace, SFMono-Regular, DejaVu Sans Mono, monospace" font-size="13" fill="#e6edf3">')
for number, line in enumerate(lines):
    style, column, spans = "", 0, []
    for part in re.split(r"(\x1b\[[0-9;]*m)", line):
        code = re.fullmatch(r"\x1b\[([0-9;]*)m", part)
        if code:
            kind = code[1]
            style = {"0": "", "1": ' font-weight="bold"', "2": ' fill="#8b949e"'}.get(kind, f' fill="{COLOURS.get(kind, "#e6edf3")}"')
        elif part:
            spans.append(f'<tspan x="{MARGIN + column * WIDTH:.1f}"{style}>{html.escape(part)}</tspan>')
            column += len(part)
    print(f'<text xml:space="preserve" y="{MARGIN + (number + 0.75) * HEIGHT:.1f}">{"".join(spans)}</text>')
print("</g></svg>")

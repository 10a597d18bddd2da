"""What does the API look like? A page made from its OpenAPI schema, complete in itself: nothing is fetched elsewhere."""

from __future__ import annotations

import json
from html import escape
from typing import Any

_STYLE = """body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
code, pre { font: 13px/1.45 ui-monospace, monospace; background: #f4f4f2; border-radius: 4px }
code { padding: 1px 4px } pre { padding: .7rem; overflow-x: auto } h2 { margin-top: 2rem; border-bottom: 1px solid #ddd }
table { border-collapse: collapse; width: 100% } td, th { text-align: left; vertical-align: top; padding: .25rem .8rem .25rem 0 }
th { font-weight: 600; border-bottom: 1px solid #ddd } .verb { color: #06c; font-weight: 700 }"""


def page(schema: dict[str, Any]) -> str:
    """The whole page."""
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><title>Foretell API</title>",
        f"<style>{_STYLE}</style><h1>{escape(schema['info']['title'])} API</h1>",
        f"<p>{_text(schema['info']['description'])} The schema: <a href=/openapi.json>/openapi.json</a>.</p>",
    ]
    for path, verbs in schema["paths"].items():
        for verb, said in verbs.items():
            parts.append(_operation(path, verb, said))
    parts.append("<h1>Types</h1>")
    for name, kind in sorted(schema["components"]["schemas"].items()):
        if "properties" in kind:
            parts.append(_type(name, kind))
    return "\n".join(parts)


def _operation(path: str, verb: str, said: dict[str, Any]) -> str:
    lines = [f"<h2><span class=verb>{verb.upper()}</span> <code>{escape(path)}</code></h2>"]
    lines.append("".join(f"<p>{_text(p)}</p>" for p in said.get("description", said["summary"]).split("\n\n")))
    rows = [
        (
            f"<code>{escape(p['name'])}</code>",
            f"{p['in']}{', required' if p.get('required') else ''}",
            _kind(p["schema"]),
        )
        for p in said.get("parameters", [])
    ]
    if rows:
        lines.append(_table(("parameter", "in", "type"), rows))
    if body := said.get("requestBody"):
        lines.append(f"<p>Body: {_kind(body['content']['application/json']['schema'])}</p>")
    answers = [
        (code, _text(a["description"]), _kind(a.get("content", {}).get("application/json", {}).get("schema", {})))
        for code, a in said["responses"].items()
    ]
    lines.append(_table(("status", "means", "answer"), answers))
    return "\n".join(lines)


def _type(name: str, kind: dict[str, Any]) -> str:
    required = kind.get("required", [])
    rows = [
        (
            f"<code>{escape(field)}</code>", _kind(said) + ("" if field in required else ", optional"),
            _text(said.get("description", "")),
        )
        for field, said in kind["properties"].items()
    ]  # fmt: skip
    shown = f"<pre>{escape(json.dumps(kind['example'], indent=2))}</pre>" if "example" in kind else ""
    heading = f"<h2 id={escape(name)}>{escape(name)}</h2><p>{_text(kind.get('description', ''))}</p>"
    return heading + shown + _table(("field", "type", ""), rows)


def _kind(said: dict[str, Any]) -> str:
    """A type, linked to where it is described."""
    if ref := said.get("$ref"):
        name = escape(ref.rsplit("/", 1)[-1])
        return f'<a href="#{name}">{name}</a>'
    if several := said.get("anyOf"):
        return " or ".join(_kind(one) for one in several)
    if said.get("type") == "array":
        return f"list of {_kind(said.get('items', {}))}"
    if isinstance(more := said.get("additionalProperties"), dict):
        return f"name to {_kind(more)}"
    return escape(str(said.get("format") or said.get("type", "")))


def _text(text: str) -> str:
    """Text with `code` in it."""
    parts = escape(text, quote=False).split("`")
    return "".join(f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(parts))


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = ["".join(f"<th>{h}</th>" for h in head)] + ["".join(f"<td>{c}</td>" for c in row) for row in rows]
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"

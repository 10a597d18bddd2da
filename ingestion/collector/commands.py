"""Verbs of the collector: collect, and its keys and webhooks."""

from __future__ import annotations

import click


@click.group(invoke_without_command=True)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for all.")
@click.option("--port", default=3001, show_default=True, type=click.IntRange(1, 65535), help="Port to listen on.")
@click.pass_context
def collect(context: click.Context, host: str, port: int) -> None:
    """Collect events over HTTP, from client SDKs and webhooks, until stopped.

    SDKs of the identify/track/page/screen/group/alias spec need its address as their host, and a write key. A message
    is answered with 200 once it is on disk. `foretell load` makes facts of what was collected, a moment ago too;
    `foretell source new --stream NAME` writes the contracts for it.

    \b
    Limits are variables of the environment, with these defaults:
      FORETELL_COLLECT_BATCH=500000      bytes of a request        FORETELL_COLLECT_REQUESTS=500       requests waiting
      FORETELL_COLLECT_MESSAGE=32768     bytes of a message        FORETELL_COLLECT_WAITING=32000000   bytes waiting
    Beyond the first two a request is refused; beyond the others it is told to come again (429), as the SDKs do.

    \b
    Examples:
      foretell collect key new web
      foretell collect --host 0.0.0.0 --port 8080
    """
    if context.invoked_subcommand:
        return
    import uvicorn

    from foretell.listen import check_port
    from foretell.project import Project
    from ingestion.collector.app import Collector

    home = Project.find(context.obj)
    host = "127.0.0.1" if host == "localhost" else host
    check_port(host, port)
    app = Collector(home.home)
    streams = sorted({key.stream for key in app.keys.keys if not key.revoked} | set(app.keys.webhooks))
    known = f"streams {', '.join(streams)}" if streams else "no key yet: `foretell collect key new NAME`"
    click.echo(f"Collecting on http://{f'[{host}]' if ':' in host else host}:{port}, {known}. Ctrl-C stops it.")
    uvicorn.run(
        app, host=host, port=port, log_level="warning", access_log=False, timeout_graceful_shutdown=10,
        timeout_keep_alive=75, server_header=False,
    )  # fmt: skip


@collect.group()
def key() -> None:
    """Write keys: what lets an app send events to a stream."""


@key.command("new")
@click.argument("name")
@click.pass_obj
def new_key(project: str | None, name: str) -> None:
    """Make a write key for the stream NAME, and print it: it is shown this once, only its hash is kept.

    A stream may have several keys; to change one without a gap, make the new one first, then revoke the old.

    \b
    Example:
      foretell collect key new web
    """
    text, made = _keys(project).new_key(name)
    click.echo(text)
    click.echo(f"Write key {made.id} of the stream {name}: keep it, it is not shown again.", err=True)


@key.command("list")
@click.pass_obj
def list_keys(project: str | None) -> None:
    """List the write keys: their ids, not the keys themselves."""
    from foretell.console import table

    found = _keys(project).keys
    if not found:
        click.echo("No write key yet: `foretell collect key new NAME` makes one.")
        return
    table(
        ["stream", "id", "created", "revoked"],
        [(k.stream, k.id, k.created[:16], (k.revoked or "")[:16]) for k in found],
    )


@key.command("revoke")
@click.argument("id")
@click.pass_obj
def revoke_key(project: str | None, id: str) -> None:
    """Let nobody write with the key ID any more. What it has sent stays; a running collector heeds it in a second."""
    gone = _keys(project).revoke(id)
    click.echo(f"Revoked {gone.id} of the stream {gone.stream}.")


@collect.group()
def webhook() -> None:
    """Webhooks: other systems that post signed JSON to /v1/webhooks/NAME."""


@webhook.command("new")
@click.argument("name")
@click.option(
    "--scheme", type=click.Choice(["foretell", "github", "stripe", "shopify", "standard"]), default="foretell",
    show_default=True, help="How the sender signs; `standard` is Standard Webhooks (Svix).",
)  # fmt: skip
@click.option("--secret", is_flag=True, help="The sender has made the secret: it is asked for, or read from a pipe.")
@click.option("--secret-env", metavar="VARIABLE", help="The secret is in this variable where the collector runs.")
@click.option("--signature-header", metavar="HEADER", help="Header of the signature, if it is not the scheme's.")
@click.option("--timestamp-header", metavar="HEADER", help="Header of the time, if it is not the scheme's.")
@click.pass_obj
def new_webhook(
    project: str | None, name: str, scheme: str, secret: bool, secret_env: str | None, signature_header: str | None,
    timestamp_header: str | None,
) -> None:  # fmt: skip
    """Declare a sender of webhooks, whose messages go to the stream NAME; print the secret to sign them with.

    The scheme `foretell`: X-Timestamp is the time in seconds since 1970, X-Signature is `sha256=` and the hexadecimal
    HMAC-SHA256 of timestamp, a dot and the body. What was signed more than 5 minutes ago, or comes again, is refused.

    \b
    Examples:
      foretell collect webhook new tickets
      foretell collect webhook new payments --scheme stripe --secret
      foretell collect webhook new repo --scheme github --secret-env REPO_WEBHOOK_SECRET
    """
    import sys

    given = None
    if secret:
        given = click.prompt("Secret", hide_input=True) if sys.stdin.isatty() else sys.stdin.readline().strip()
    made, _ = _keys(project).new_webhook(
        name, scheme, secret=given, secret_env=secret_env, signature_header=signature_header,
        timestamp_header=timestamp_header,
    )  # fmt: skip
    if made:
        click.echo(made)
    click.echo(f"Webhook {name}: POST to /v1/webhooks/{name}, signed as {scheme}.", err=True)


@webhook.command("list")
@click.pass_obj
def list_webhooks(project: str | None) -> None:
    """List the senders of webhooks."""
    from foretell.console import table

    found = _keys(project).webhooks.values()
    if not found:
        click.echo("No webhook yet: `foretell collect webhook new NAME` declares one.")
        return
    table(
        ["stream", "scheme", "secret", "created"],
        [(w.stream, w.scheme, f"in {w.secret_env}" if w.secret_env else "kept", w.created[:16]) for w in found],
    )


@webhook.command("revoke")
@click.argument("name")
@click.pass_obj
def revoke_webhook(project: str | None, name: str) -> None:
    """Take nothing more from the webhook NAME. What it has sent stays."""
    _keys(project).revoke_webhook(name)
    click.echo(f"Revoked the webhook {name}.")


def _keys(project: str | None):
    from foretell.project import Project
    from ingestion.collector.keys import Keys

    return Keys(Project.find(project).home)

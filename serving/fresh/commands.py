"""Verb of what happens between two batches: stream."""

from __future__ import annotations

import sys
from typing import Any

import click


@click.command()
@click.option(
    "--load-every", default=60.0, show_default=True, metavar="SECONDS",
    help="How often the log is loaded into the lake, by a process of its own; 0: something else loads it.",
)  # fmt: skip
@click.option("--once", is_flag=True, help="Take in what is there, and end.")
@click.pass_obj
def stream(project: str | None, load_every: float, once: bool) -> None:
    """Let events reach the scores of their profile within a second, until it is stopped.

    Reads what `foretell collect` (or `serve --collect`) makes durable, and the topics of Kafka that sources name. Each
    event finds its profile, and may make or merge some; the profile's features are built of its facts up to that
    event, brought online, and its scores are answered by them: with the event's time as their cutoff, by the models of
    the last `foretell score`. The answers are those that a batch of that moment would give, but for features that
    everybody's facts are behind: these are as of the last batch.

    It may be killed at any time: started again, it reads the log from where loading ends. Run one of them beside the
    service. It takes up what else changes by itself: a batch that was scored, facts that were loaded, a decision about
    who is who, an erasure.

    \b
    Examples:
      foretell serve --collect &                   takes events and answers for scores
      foretell stream                              keeps the answers up with the events
      foretell stream --load-every 0               where `foretell run` loads every few minutes anyway
    """
    import signal

    from filelock import FileLock, Timeout

    from foretell.errors import Busy, NotReady
    from foretell.project import Project
    from serving.fresh.worker import Worker, streams_of

    home = Project.find(project)
    if not streams_of(home):
        raise NotReady(
            "stream", "no source reads a stream", 'declare one: Source(stream="web", …), or connector=Kafka(…)'
        )
    home.home.mkdir(parents=True, exist_ok=True)
    lock = FileLock(home.home / "stream.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise Busy(str(home.home), "another `foretell stream` works here", "stop it, or let it work") from None
    stopping: list[int] = []

    def stop(number: int, _: Any) -> None:
        stopping.append(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)

    def say(text: str) -> None:
        click.echo(text)
        sys.stdout.flush()

    worker = Worker(home, every=0 if once else load_every, say=say)
    if once:
        worker.open()
        count = 0
        while not stopping and (done := worker.turn()):
            count += done
        worker.close()
        say(f"{worker.tally.events:,} events, {worker.tally.profiles:,} profiles are up to date")
        return
    worker.run(lambda: bool(stopping), ready=lambda: say(f"Streaming {', '.join(streams_of(home))}. Ctrl-C stops it."))


COMMANDS = [stream]

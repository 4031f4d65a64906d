"""What the benchmark prints: Markdown, so that it can stand in docs/internals/performance.md as it is."""

import math
import statistics


def say(text=""):
    print(text, flush=True)


def table(head, rows):
    say("| " + " | ".join(head) + " |")
    say("|" + "---|" * len(head))
    for row in rows:
        say("| " + " | ".join(row) + " |")
    say()


def number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def percentile(samples, part):
    """By nearest rank."""
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]


def both(samples):
    """The median and the 99th percentile, for a table."""
    return number(statistics.median(samples)), number(percentile(samples, 0.99))

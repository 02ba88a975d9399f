"""What `/metrics` shows, in Prometheus's format."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 180)


class Metrics:
    """The engine's measurements; one object per process, safe from every thread."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self.requests = Counter(
            "parley_engine_requests",
            "HTTP requests by route and status.",
            ["route", "status"],
            registry=self._registry,
        )
        self.queue_depth = Gauge(
            "parley_engine_queue_depth", "Chat requests that wait.", registry=self._registry
        )
        self.batch_size = Histogram(
            "parley_engine_batch_size",
            "Sequences that one run decodes together.",
            buckets=(1, 2, 3, 4, 6, 8, 12, 16, 32, 64),
            registry=self._registry,
        )
        self.time_to_first_token = Histogram(
            "parley_engine_time_to_first_token_seconds",
            "From the request's arrival to its first token.",
            ["model"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.decode_rate = Histogram(
            "parley_engine_tokens_per_second",
            "New tokens per second of one request, after its first token.",
            ["model"],
            buckets=(1, 2, 5, 10, 15, 20, 30, 40, 60, 80, 100, 150, 200),
            registry=self._registry,
        )
        self.tokens = Counter(
            "parley_engine_tokens",
            "Tokens by model and direction (prompt, completion, embedding).",
            ["model", "direction"],
            registry=self._registry,
        )
        self.steps = Counter(
            "parley_engine_steps",
            "Decoding steps of single sequences: rises only while something is being generated.",
            registry=self._registry,
        )
        self.cancelled = Counter(
            "parley_engine_cancelled_sequences",
            "Sequences that were stopped while running because nobody waits for them any more.",
            registry=self._registry,
        )

    def render(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self._registry)

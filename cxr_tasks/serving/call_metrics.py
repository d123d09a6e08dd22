"""What Prometheus is told of calls and models."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from cxr_tasks.serving.predictor import TRIED_BATCHES, ImageAnswer

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class CallMetrics:
    """Figures of one server."""

    content_type = CONTENT_TYPE_PLAIN_0_0_4

    def __init__(self) -> None:
        """Begin to count."""
        self.registry = CollectorRegistry()
        self.calls = Counter("cxr_calls", "Calls answered.", ["path", "status"], registry=self.registry)
        self.seconds = Histogram(
            "cxr_call_seconds", "Time that a call took.", ["path"], buckets=SECONDS, registry=self.registry
        )
        self.images = Counter("cxr_images", "Images by what was said of them.", ["answer"], registry=self.registry)
        self.warned = Counter("cxr_images_warned", "Images that got a warning.", registry=self.registry)
        self.batches = Histogram(
            "cxr_batch_images", "Images in a batch of the network.", buckets=TRIED_BATCHES, registry=self.registry
        )
        self.at_work = Gauge("cxr_calls_at_work", "Calls that are worked on.", registry=self.registry)
        self.taken_up = Gauge("cxr_models_taken_up", "Models loaded since the start.", registry=self.registry)
        self.failures = Gauge("cxr_model_failures", "Looks for the model that failed.", registry=self.registry)
        self.version = Gauge("cxr_model", "The model that answers.", ["model", "version"], registry=self.registry)

    def count(self, answers: list[ImageAnswer]) -> None:
        """Count the images of one call."""
        for answer in answers:
            self.images.labels(answer.decision or "refused").inc()
            if answer.warnings:
                self.warned.inc()

    def text(self) -> bytes:
        """All figures, as Prometheus reads them."""
        return generate_latest(self.registry)

"""Personal data and secrets, taken out of what models learn from.

presidio finds e-mail addresses, telephone and account numbers by their form and check digits,
detect-secrets finds keys and tokens by theirs. Names of people need a language model that ships
with neither: they stay, which the model card says.

Why on a blank pipeline and offline: presidio would otherwise fetch a spaCy model, and the list of
internet domains, when it is first used.
"""

import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from presidio_analyzer import AnalyzerEngine

PERSONAL: Final = (
    *("EMAIL_ADDRESS", "PHONE_NUMBER", "IBAN_CODE", "CREDIT_CARD", "IP_ADDRESS", "MAC_ADDRESS"),
    *("CRYPTO", "US_SSN", "US_ITIN", "US_PASSPORT", "UK_NHS"),
)
"""What presidio looks for; times and addresses of the web are what answers are made of."""
MIN_CONFIDENCE: Final = 0.4
"""presidio's own figure for a number of the right form with valid check digits or country code."""
SECRET: Final = "SECRET"  # noqa: S105
SECRET_DETECTORS: Final = (
    *("ArtifactoryDetector", "AWSKeyDetector", "AzureStorageKeyDetector", "BasicAuthDetector"),
    *("DiscordBotTokenDetector", "GitHubTokenDetector", "GitLabTokenDetector", "JwtTokenDetector"),
    *("KeywordDetector", "MailchimpDetector", "NpmDetector", "OpenAIDetector"),
    *("PrivateKeyDetector", "PypiTokenDetector", "SendGridDetector", "SlackDetector"),
    *("SquareOAuthDetector", "StripeDetector", "TelegramBotTokenDetector", "TwilioKeyDetector"),
)
"""Plugins of detect-secrets that know a form; those for mere entropy take words for secrets."""

_PRIVATE_KEY: Final = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY( BLOCK)?-----.*?(-----END [A-Z ]*PRIVATE KEY( BLOCK)?-----|\Z)",
    re.DOTALL,
)


@dataclass(frozen=True, kw_only=True)
class Scrubbed:
    """A text without what was found in it.

    Attributes:
        text: with `<KIND>` in the place of each finding.
        found: how often, by kind.
    """

    text: str
    found: Counter[str]


class Scrubber:
    """Finds and replaces; building one takes seconds, using it milliseconds a text."""

    def scrub(self, text: str) -> Scrubbed:
        """Replace all that is found."""
        found: Counter[str] = Counter()
        text = self._without_secrets(text, found)
        spans = self._analyzer.analyze(
            text=text, language="en", entities=list(PERSONAL), score_threshold=MIN_CONFIDENCE
        )
        end = len(text)
        # From the end, so that earlier positions hold; of overlapping findings the longest.
        for span in sorted(spans, key=lambda span: (span.end, span.end - span.start), reverse=True):
            if span.end <= end:
                text = f"{text[: span.start]}<{span.entity_type}>{text[span.end :]}"
                end = span.start
                found[span.entity_type] += 1
        return Scrubbed(text=text, found=found)

    def _without_secrets(self, text: str, found: Counter[str]) -> str:
        from detect_secrets.core.scan import scan_line
        from detect_secrets.settings import transient_settings

        text, keys = _PRIVATE_KEY.subn(f"<{SECRET}>", text)
        found[SECRET] += keys
        lines = []
        with transient_settings({"plugins_used": [{"name": name} for name in SECRET_DETECTORS]}):
            for line in text.split("\n"):
                for secret in {each.secret_value or "" for each in scan_line(line)} - {""}:
                    # Some plugins name only the beginning of a token: the whole word goes.
                    line, count = re.subn(
                        rf"[^\s\"'`]*{re.escape(secret)}[^\s\"'`]*", f"<{SECRET}>", line
                    )
                    found[SECRET] += count
                lines.append(line)
        found += Counter()  # drops zeros
        return "\n".join(lines)

    @cached_property
    def _analyzer(self) -> "AnalyzerEngine":
        with _as_if_missing("torch", "transformers"):
            import spacy
            import tldextract
            from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
            from presidio_analyzer.nlp_engine import SpacyNlpEngine
            from presidio_analyzer.predefined_recognizers import EmailRecognizer

        domains = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)

        class OfflineEmail(EmailRecognizer):
            """Checks an address's domain against the list that tldextract ships."""

            def validate_result(self, pattern_text: str) -> bool:
                return bool(domains(pattern_text).fqdn)

        class BlankPipeline(SpacyNlpEngine):
            """Splits words and nothing more."""

            def load(self) -> None:
                self.nlp = {"en": spacy.blank("en")}  # type: ignore[assignment]

        registry = RecognizerRegistry()
        registry.load_predefined_recognizers(languages=["en"])
        registry.remove_recognizer("EmailRecognizer")
        registry.add_recognizer(OfflineEmail())
        pipeline = BlankPipeline(models=[{"lang_code": "en", "model_name": "blank"}])
        pipeline.load()
        return AnalyzerEngine(nlp_engine=pipeline, registry=registry, supported_languages=["en"])


@contextmanager
def _as_if_missing(*names: str) -> Iterator[None]:
    """Let what is imported inside do without libraries that it would load for nothing.

    Where training is installed, spaCy and presidio load torch and transformers to offer models that
    a blank pipeline has no use for: five times the time and twice the memory of all the rest.
    """
    absent = dict.fromkeys(name for name in names if name not in sys.modules)
    sys.modules.update(absent)  # type: ignore[arg-type]  # None says that there is none
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]

"""What people's documents hold and models must not learn."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from feedback.scrubbing import Scrubber


@pytest.fixture(scope="module")
def scrubber() -> Iterator[Scrubber]:
    yield Scrubber()


SLACK = "xoxb-" + "123456789012-123456789012-" + "abcdefghijklmnopqrstuvwx"
GITHUB = "ghp_" + "abcdefghijklmnopqrstuvwxyz0123456789"
AWS = "AKIA" + "IOSFODNN7EXAMPLE"


@pytest.mark.parametrize(
    ("text", "hidden", "kind"),
    [
        ("Mail ana.b@example.com please.", "ana.b", "EMAIL_ADDRESS"),
        ("Call +49 170 1234567 today.", "1234567", "PHONE_NUMBER"),
        ("Pay to DE89 3704 0044 0532 0130 00.", "0532", "IBAN_CODE"),
        ("Card 4111 1111 1111 1111.", "4111", "CREDIT_CARD"),
        ("The host is 10.1.2.3.", "10.1.2.3", "IP_ADDRESS"),
        (f"The bot's token is {SLACK} here", SLACK[-12:], "SECRET"),
        (f"git clone with {GITHUB}!", GITHUB[-12:], "SECRET"),
        (f"aws: {AWS}", AWS, "SECRET"),
        ("password = 'hunter2secret!'", "hunter2secret", "SECRET"),
        (
            "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nIBAAK\n-----END RSA PRIVATE KEY-----",
            "MIIEow",
            "SECRET",
        ),
        ("-----BEGIN PRIVATE KEY-----\nMIIEow", "MIIEow", "SECRET"),
    ],
)
def test_personal_data_and_secrets_go(
    scrubber: Scrubber, text: str, hidden: str, kind: str
) -> None:
    found = scrubber.scrub(text)
    assert hidden not in found.text and f"<{kind}>" in found.text and found.found[kind] == 1


@pytest.mark.parametrize(
    "text",
    [
        "The launch is on 2026-10-03 at 09:30 and costs 1,204.50 euros.",
        "See https://example.com/handbook, page 12, section 4.1.",
        "Commit 3f786850e387550fdab836ed7e6dc881de23001b has 1,190 questions.",
        "Employees have 30 days of leave; ask your manager, then HR.",
        "",
    ],
)
def test_what_answers_are_made_of_stays(scrubber: Scrubber, text: str) -> None:
    found = scrubber.scrub(text)
    assert found.text == text and not found.found


def test_several_findings_of_one_text_are_all_replaced(scrubber: Scrubber) -> None:
    found = scrubber.scrub(f"ben@example.com, ana@example.com\nand {GITHUB} or {AWS}")
    assert found.text == "<EMAIL_ADDRESS>, <EMAIL_ADDRESS>\nand <SECRET> or <SECRET>"


def test_it_loads_no_library_of_training_which_can_be_loaded_afterwards() -> None:
    code = (
        "import sys; from feedback.scrubbing import Scrubber; Scrubber().scrub('Where?');"
        "print({'torch', 'transformers'} & set(sys.modules)); import torch"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert found.stdout.strip() == "set()"
